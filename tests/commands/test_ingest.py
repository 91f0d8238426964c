import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from posture.data.store.tables import Store
from tests.support.footage import make_class_folders
from tests.support.ingested import contents
from tests.support.processes import posture, posture_here

SMALL = ("--size", "32x40", "--frames", "20")


def test_bad_requests_are_one_sentence_each(tmp_path, class_folders):
    for arguments, complaint in (
        (("ingest", str(tmp_path / "none"), "--store", str(tmp_path / "s")), "no such folder"),
        (("ingest", "--store", str(tmp_path / "s")), "ingest needs FOOTAGE"),
        (
            ("ingest", str(class_folders), "--store", str(tmp_path / "s"), "--size", "big"),
            "--size big: write height x width",
        ),
        (
            ("ingest", str(class_folders), "--store", str(tmp_path / "s"), "--jpeg", "200"),
            'Invalid value "200" for --jpeg. Must be from 0 to 100.',
        ),
        (("ingest", "--report", "--store", str(tmp_path / "s")), "there is no store here"),
    ):
        done = posture_here(*arguments)
        assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_long_ingest_asks_first(tmp_path, class_folders):
    done = posture_here(
        "ingest", str(class_folders), "--store", str(tmp_path / "s"), "--windows", "1000", "--frames", "1024"
    )
    assert done.returncode == 2 and "add --yes" in done.stderr and "at most" in done.stdout
    assert not (tmp_path / "s").exists()


def test_the_report_can_be_shown_again(small_store):
    done = posture_here("ingest", "--report", "--store", small_store)
    assert done.returncode == 0 and "clips/s" in done.stdout and "left" in done.stdout
    assert "\nthe store now:\nval is " in done.stdout, (
        "what is said of the splits is of the store as it stands, not of that ingest"
    )


def test_flow_is_computed_after_an_ingest_or_later(tmp_path, class_folders, ray_cluster):
    store = tmp_path / "store"
    refused = posture_here(
        "train", "jobs/action.py:temporal_stream", "--store", str(store), "--runs", str(tmp_path / "runs")
    )
    assert refused.returncode == 2 and "there is no store here" in refused.stderr
    done = posture_here("ingest", str(class_folders), "--store", str(store), *SMALL, "--flow", "dis")
    assert done.returncode == 0, done.stderr
    assert re.search(r"dis +16 +0 +16 ", done.stdout) and "right" in done.stdout
    later = posture_here("ingest", "--store", str(store), "--flow", "farneback")
    assert later.returncode == 0 and re.search(r"farneback +16 +0 +16 ", later.stdout)
    again = posture_here("ingest", "--store", str(store), "--flow", "dis")
    assert again.returncode == 0 and re.search(r"dis +16 +16 +0 ", again.stdout) and again.stderr == ""
    refused = posture_here("ingest", "--store", str(tmp_path / "none"), "--flow", "dis")
    assert refused.returncode == 2 and "there is no store here" in refused.stderr and refused.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return make_class_folders(tmp_path_factory.mktemp("many") / "footage", per_class=40, frames=60)


@pytest.fixture(scope="module")
def undisturbed(many, tmp_path_factory):
    store = tmp_path_factory.mktemp("calm") / "store"
    assert posture("ingest", str(many), "--store", str(store), *SMALL).returncode == 0
    return contents(store)


def ingest_process(many, store, commit_after=8):
    """An ingest that commits every few files, as a process of its own group."""
    code = f"""
from posture.data.labels.videos import read_footage
from posture.data.decode.cut import Cut
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.data.ingest.clip_ledger import IngestOptions
from posture.distributed.ingest import ingest
if __name__ == "__main__":
    options = IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20)), commit_after={commit_after})
    ingest(read_footage({str(many)!r}), Store({str(store)!r}, create=True), options)
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def clips_in(store):
    """Clips committed; asked often, it reads the table only once something is: who asks must not slow down who is
    asked.
    """
    if len(list((store / "clips" / "_delta_log").glob("*.json"))) < 2:
        return 0
    return Store(str(store)).read("clips", columns=["clip"]).num_rows


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_half_way_and_run_again_it_has_the_same_rows(many, undisturbed, tmp_path, seed):
    store = tmp_path / "store"
    process = ingest_process(many, store)
    wanted = 8 + 20 * seed
    deadline = time.monotonic() + 200
    while clips_in(store) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept = clips_in(store)
    done_before = len(Store(str(store)).read("videos", columns=["video"]))
    versions = Store(str(store)).versions()
    assert 0 < kept < 80
    again = posture("ingest", str(many), "--store", str(store), *SMALL)
    assert again.returncode == 0, again.stderr
    assert contents(store) == undisturbed
    report = json.loads(Store(str(store)).read("ingests")["report"][-1].as_py())
    assert report["clips"] == 80 - kept, "what was committed is never decoded again"
    assert report["unchanged"] == done_before
    assert Store(str(store)).read("clips", version=versions["clips"]).num_rows == kept


@pytest.mark.ray
@pytest.mark.slow
def test_of_two_ingests_at_once_one_works(many, undisturbed, tmp_path):
    store = tmp_path / "store"
    first = ingest_process(many, store)
    deadline = time.monotonic() + 200
    while clips_in(store) == 0 and first.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    first.send_signal(signal.SIGSTOP)  # on a busy machine it would be done before the second has started
    second = posture("ingest", str(many), "--store", str(store), *SMALL)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2 and "another ingest is writing to this store" in second.stderr, second.stderr
    assert first.wait(timeout=120) == 0
    assert contents(store) == undisturbed
