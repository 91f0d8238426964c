import subprocess
import sys

import numpy as np
import pytest

from posture.data.feed.clips import Clips, StreamedClips, index_footage
from posture.data.feed.shards import open_index
from posture.data.store.tables import Store
from posture.distributed.feed import feed
from tests.support.footage import make_class_folders
from tests.support.small_run import SMALL_ACTION


def test_workers_get_the_clips_that_this_process_reads(small_store, ray_cluster):
    index = index_footage(Store(small_store), "train")
    here = open_index(index, feed="materialize")
    (item,) = feed([index], mode="auto")
    there = item.open()
    assert isinstance(there, Clips)
    for clip in range(len(index)):
        np.testing.assert_array_equal(there.clip(clip), here.clip(clip))


def test_streaming_can_be_asked_for(small_store, ray_cluster):
    (item,) = feed([index_footage(Store(small_store), "train")], mode="stream")
    assert item.shards is None and isinstance(item.open(), StreamedClips)


@pytest.mark.ray
@pytest.mark.slow
def test_a_store_several_times_the_object_store_trains(tmp_path):
    """In a process of its own: a Ray with the smallest object store there is."""
    make_class_folders(tmp_path / "footage", per_class=8, frames=60)
    code = f"""
import os
from posture.data.labels.videos import read_footage
from posture.data.decode.cut import Cut
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed import cluster
from posture.distributed.feed import feed
from posture.data.ingest.clip_ledger import IngestOptions
from posture.distributed.ingest import ingest
from posture.distributed.train import train
from posture.runs.prepare import prepare

if __name__ == "__main__":
    cluster.connect(num_cpus=2, object_store_memory=80_000_000)
    store = {str(tmp_path / "store")!r}
    options = IngestOptions(cut=Cut(DecodeRecipe(200, 300, 30, 1, 6)))
    ingest(read_footage({str(tmp_path / "footage")!r}), Store(store, create=True), options)
    changes = {SMALL_ACTION | {"epochs": 2, "tracking.mode": "off"}}
    session = prepare("jobs/action.py:improved", store, runs={str(tmp_path / "runs")!r}, name="large", changes=changes)
    assert session.train.bytes > 3 * 80_000_000, session.train.bytes
    assert feed([session.train], mode="auto")[0].shards is None
    told = {{"on_progress": lambda update: None, "on_record": print, "on_device": print}}
    outcome = train(session, **told, asked_to_stop=lambda: False)
    assert outcome["epoch"] == 2, outcome
    print("trained")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=880)
    assert done.returncode == 0 and done.stdout.endswith("trained\n"), done.stderr[-2000:]
