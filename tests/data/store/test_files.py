from posture.data.store.files import exists, write_bytes
from posture.runs.folder import run_names
from tests.support.processes import s3_server


def test_files_and_prefixes_of_a_bucket_exist(monkeypatch):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        write_bytes("s3://lab/runs/one/run.json", b"{}")
        assert all(exists(f"s3://lab{path}") for path in ("", "/runs", "/runs/one", "/runs/one/run.json"))
        assert not any(
            exists(f"s3://lab/{path}") for path in ("run", "runs/one/run", "runs/two", "runs/one/run.json/x")
        )
        assert run_names("s3://lab/runs") == ["one"] and not exists("s3://lab/none")
