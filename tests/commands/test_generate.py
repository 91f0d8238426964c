from tests.support.processes import posture_here


def test_generated_footage_is_written_once_and_other_footage_is_refused(tmp_path):
    folder = tmp_path / "footage"
    done = posture_here("generate", str(folder), "--videos", "3", "--athletes", "3")
    assert done.returncode == 0 and f"posture ingest {folder} --store STORE" in done.stdout, done.stderr
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert sum(path.suffix == ".mp4" for path in written) == 3
    again = posture_here("generate", str(folder), "--videos", "3", "--athletes", "3")
    assert again.returncode == 0 and {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
    for arguments, complaint in (
        (["--videos", "4", "--athletes", "3"], "generated with other arguments"),
        (["--athletes", "2"], "at least 3"),
        (["--athletes", "8", "--athletes-per-video", "3"], "takes at least 9 athletes"),
    ):
        refused = posture_here("generate", str(folder), *arguments)
        assert refused.returncode == 2 and complaint in refused.stderr and "Traceback" not in refused.stderr, (
            refused.stderr
        )
