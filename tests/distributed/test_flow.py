import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from posture.data.decode.optical_flow import BOUND, flow_of_clip
from posture.data.feed.clips import index_footage
from posture.data.feed.shards import open_index
from posture.data.ingest import flow
from posture.data.labels.videos import read_footage
from posture.data.store import schema
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.distributed.feed import feed
from posture.distributed.ingest import compute_flow, ingest, on_ray
from posture.errors import Busy, InputError
from tests.support.footage import make_video
from tests.support.ingested import OPTIONS

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def store(small_store, tmp_path):
    """A copy to change."""
    return Store(shutil.copytree(small_store, tmp_path / "store"))


def keys(store):
    table = store.read("flows", columns=["clip", "method"])
    return list(zip(table["clip"].to_pylist(), table["method"].to_pylist(), strict=True))


def test_every_clip_gets_its_flow_once(store):
    clips = sorted(store.read("clips", columns=["clip"])["clip"].to_pylist())
    done = []
    report = compute_flow(store, "dis", progress=lambda *numbers: done.append(numbers[:2]))
    assert (report.clips, report.computed, done[-1]) == (32, 32, (32, 32)) and report.bytes > 0
    assert sorted(keys(store)) == [(clip, "dis") for clip in clips]
    versions = store.versions()
    again = compute_flow(store, "dis")
    assert (again.clips, again.computed) == (32, 0) and store.versions() == versions
    compute_flow(store, "farneback")
    assert sorted(keys(store)) == sorted((clip, method) for clip in clips for method in ("dis", "farneback"))


def test_what_is_stored_is_the_flow_of_the_stored_frames(flow_store):
    store = Store(flow_store)
    (row,) = store.read("flows").slice(0, 1).to_pylist()
    assert (row["frames"], row["height"], row["width"], row["bound"]) == (19, 32, 40, BOUND) and len(
        row["vectors"]
    ) == 19 * 32 * 40 * 2
    footage = open_index(index_footage(store, "train", inputs=("rgb", "flow")), feed="materialize")
    for clip in range(len(footage)):
        np.testing.assert_array_equal(footage.flow(clip), flow_of_clip(footage.clip(clip), "dis"))


def test_ray_workers_get_the_flow_that_this_process_reads(flow_store):
    index = index_footage(Store(flow_store), "train", inputs=("flow",))
    (item,) = feed([index], mode="materialize")
    here, there = open_index(index, feed="materialize"), item.open()
    assert list(item.shards) == ["flow"]
    for clip in range(len(index)):
        np.testing.assert_array_equal(there.flow(clip), here.flow(clip))


def test_only_new_clips_are_computed(store, class_folders, tmp_path):
    compute_flow(store, "dis")
    folders = shutil.copytree(class_folders, tmp_path / "footage")
    make_video(folders / "left" / "new.mp4", seed=999)
    ingest(read_footage(str(folders)), store, OPTIONS)
    report = compute_flow(store, "dis")
    assert (
        report.clips - report.computed == 32
        and report.computed == store.read("clips", columns=["clip"]).num_rows - 32 > 0
    )
    assert len(set(keys(store))) == len(keys(store)) == report.clips


def test_an_interrupted_one_goes_on_where_it_was(store, monkeypatch):
    monkeypatch.setattr(flow, "CLIPS_PER_TASK", 8)
    options = flow.FlowOptions("dis", commit_after=1)

    def stop(done, total, *_):
        if done >= total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow.add_flow(store, options, spread=on_ray, progress=stop)
    stood = len(keys(store))
    assert 0 < stood < 32
    report = compute_flow(store, "dis")
    assert report.computed == 32 - stood and len(set(keys(store))) == len(keys(store)) == 32
    assert store.remove_orphans("flows") == 0


def test_what_cannot_be_done_is_one_sentence(store, tmp_path):
    with Lease(store.uri), pytest.raises(Busy, match="another ingest is writing"):
        compute_flow(store, "dis")
    empty = Store(str(tmp_path / "empty"), create=True)
    with pytest.raises(InputError, match="the store holds no clips yet; add some with: posture ingest FOOTAGE"):
        compute_flow(empty, "dis")
    file = tmp_path / "store" / "clips" / index_footage(store, "train").shards[0].file
    pixels = pq.read_metadata(file).row_group(0).column(schema.CLIPS.get_field_index("pixels"))
    assert pixels.path_in_schema == "pixels"
    with file.open("r+b") as damaged:
        damaged.seek(pixels.data_page_offset + 100)
        damaged.write(bytes(pixels.total_compressed_size - 200))
    with pytest.raises(
        InputError, match=rf"clips/{file.name}: its clips cannot be read \(.*\); ingest the footage into a new store"
    ):
        compute_flow(store, "dis")
