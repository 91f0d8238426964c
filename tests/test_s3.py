"""Footage, store and runs in a bucket, over the real protocol."""

import shutil
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posture.data.store import schema
from posture.data.store.files import read_bytes, write_bytes
from posture.data.store.lease import Lease
from posture.data.store.tables import Store, filesystem
from tests.faults.gate import Gate
from tests.support.footage import make_video, write_bad_files
from tests.support.processes import posture, s3_server
from tests.support.small_run import SMALL_ACTION, sets
from tests.support.store_checks import check_lease, check_store

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


@pytest.fixture
def gate(server, bucket, monkeypatch):
    gate = Gate(int(server["AWS_ENDPOINT_URL"].rpartition(":")[2]))
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{gate.port}")
    yield gate
    gate.close()


def groups(*names):
    return pa.Table.from_pylist([{"group": name, "split": "train"} for name in names], schema=schema.GROUPS)


def test_a_server_that_is_away_for_a_while_is_waited_for(bucket, gate):
    """By all that ask it, and nothing is written twice."""
    store = Store(f"{bucket}/patient", create=True)
    store.create_tables()
    files, folder = filesystem(f"{bucket}/patient")
    for number, use in enumerate((
        lambda: write_bytes(f"{bucket}/patient/file", b"content"),
        lambda: read_bytes(f"{bucket}/patient/file"),
        lambda: store.append("groups", groups("a")),
        lambda: store.upsert("groups", groups("a", "b"), keys=["group"]),
        lambda: pq.write_table(groups("c"), f"{folder}/file.parquet", filesystem=files),
    )):
        gate.shut()
        back = threading.Timer(8.0, gate.open)
        back.start()
        began = time.monotonic()
        use()
        assert time.monotonic() - began > 7, number
        back.join()
    assert sorted(store.read("groups")["group"].to_pylist()) == ["a", "b"]


def test_a_commit_whose_answer_is_lost_is_not_made_twice(bucket, gate):
    store = Store(f"{bucket}/lossy", create=True)
    store.create_tables()
    for write in (
        lambda: store.append("groups", groups("a")),
        lambda: store.upsert("groups", groups("b"), keys=["group"]),
    ):
        gate.lose(f"PUT /lab/lossy/groups/_delta_log/{store.versions()['groups'] + 1:020d}.json")
        write()
        assert not gate.losing()
    assert sorted(store.read("groups")["group"].to_pylist()) == ["a", "b"]


def test_a_lease_is_still_held_when_an_answer_is_lost(bucket, gate):
    with Lease(f"{bucket}/leased", limit_seconds=2.0) as lease:
        gate.lose("PUT /lab/leased/_lease/")
        deadline = time.monotonic() + 30
        while gate.losing() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(2.5)
        lease.check()
        assert lease._number > 2


def test_store_and_lease(bucket):
    check_store(f"{bucket}/store-check")
    check_lease(f"{bucket}/lease-check")


@pytest.mark.ray
def test_the_whole_way_in_a_bucket(bucket, server, class_folders, tmp_path):
    import obstore

    from posture.data.store.files import list_files, open_root

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
    assert again.returncode == 0 and ["23", "23", "0"] in [line.split()[:3] for line in again.stdout.splitlines()], (
        again.stdout
    )
    trained = posture(
        "train",
        "jobs/action.py:improved",
        "--store",
        store,
        "--runs",
        runs,
        "--name",
        "far",
        "--workers",
        "2",
        *sets(SMALL_ACTION | {"epochs": 1}),
        environment=server,
    )
    assert trained.returncode == 0, trained.stderr
    scored = posture("evaluate", f"{runs}/far", environment=server)
    assert scored.returncode == 0, scored.stderr
    from posture.runs.folder import RunFolder

    folder = RunFolder.open(f"{runs}/far")
    assert folder.evaluation().metrics["count"] >= 2
    assert read_bytes(folder.path("evaluation", "test", "report.html")).startswith(b"<!")


def test_a_bucket_that_is_not_there_is_one_sentence(bucket, server):
    done = posture("ingest", "s3://nobody/footage", "--store", f"{bucket}/x", environment=server)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "s3://nobody/footage" in done.stderr, done.stderr
