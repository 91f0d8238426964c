"""Footage, store and runs in a bucket, over the real protocol."""

import shutil
from pathlib import Path

import pytest

from tests.data.test_lease import check_lease
from tests.data.test_store import check_store
from tests.footage import make_video, write_bad_files
from tests.processes import posture, s3_server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server():
    with s3_server() as environment:
        yield environment


@pytest.fixture
def bucket(server, monkeypatch):
    for name, value in server.items():
        monkeypatch.setenv(name, value)
    return "s3://lab"


def test_store_and_lease(bucket):
    check_store(f"{bucket}/store-check")
    check_lease(f"{bucket}/lease-check")


def test_the_whole_way_in_a_bucket(bucket, server, class_folders, tmp_path):
    import obstore

    from posture.data.files import list_files, open_root

    footage = shutil.copytree(class_folders, tmp_path / "footage")
    write_bad_files(footage / "left", make_video(footage / "left" / "more.mp4", seed=77))
    uploads = open_root(f"{bucket}/footage")
    for path in footage.rglob("*.mp4"):
        if path.is_file():
            obstore.put(uploads, str(path.relative_to(footage)), Path(path))
    assert len(list_files(f"{bucket}/footage")) == 23
    store, runs = f"{bucket}/store", f"{bucket}/runs"
    options = ("--size", "32x40", "--frames", "20")
    first = posture("ingest", f"{bucket}/footage", "--store", store, *options, environment=server)
    assert first.returncode == 0, first.stderr
    again = posture("ingest", f"{bucket}/footage", "--store", store, *options, environment=server)
    assert again.returncode == 0 and again.stdout.splitlines()[2].split()[:3] == ["23", "23", "0"], again.stdout
    trained = posture("train", "jobs/action.py:improved", "--store", store, "--runs", runs, "--name", "far", "--workers", "2",
                      *(f"--set={change}" for change in ("model.width=0.125", "model.size=32", "epochs=1", "scale.global_batch=4")), environment=server)
    assert trained.returncode == 0, trained.stderr
    scored = posture("evaluate", f"{runs}/far", environment=server)
    assert scored.returncode == 0, scored.stderr
    from posture.runs import RunFolder

    folder = RunFolder.open(f"{runs}/far")
    assert folder.read_json("evaluation/metrics.json")["count"] >= 2
    from posture.data.files import read_bytes

    assert read_bytes(folder.path("evaluation", "report.html")).startswith(b"<!")


def test_a_bucket_that_is_not_there_is_one_sentence(bucket, server):
    done = posture("ingest", "s3://nobody/footage", "--store", f"{bucket}/x", environment=server)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "s3://nobody/footage" in done.stderr, done.stderr
