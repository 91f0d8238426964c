import shutil

import numpy as np
import pytest

from posture.data.decode.optical_flow import decode
from posture.data.feed.clips import Clips, StreamedClips, index_footage
from posture.data.feed.shards import open_index, read_shard
from posture.data.store.tables import Store
from posture.distributed.ingest import compute_flow
from posture.errors import InputError

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def store(small_store):
    return Store(small_store)


def test_splits_hold_every_clip_once(store):
    indices = [index_footage(store, split) for split in SPLITS]
    keys = [key for index in indices for key in index.keys]
    assert sorted(keys) == sorted(store.read("clips", columns=["clip"])["clip"].to_pylist())
    assert {index.classes for index in indices} == {("left", "right")}


def test_labels_and_frames_belong_to_their_clip(store):
    """The square of `left` wanders to the left: pixels and label came from the same video."""
    index = index_footage(store, "train")
    footage = open_index(index, feed="materialize")
    assert isinstance(footage, Clips) and len(footage) == len(index) == len(index.labels)
    for clip in range(len(footage)):
        frames = footage.clip(clip)
        assert frames.shape == (20, 32, 40, 3) and frames.dtype == np.uint8 and not frames.flags.writeable
        first, last = (int(frame[:, :, 0].astype(float).mean(axis=0).argmax()) for frame in (frames[0], frames[-1]))
        assert index.classes[index.labels[clip]] == ("right" if last > first else "left")


def test_streaming_gives_the_same_clips_to_all_workers_together(store):
    index = index_footage(store, "train")
    whole, streamed = open_index(index, feed="materialize"), StreamedClips(index)
    for world_size in (1, 2, 3):
        seen = [clip for rank in range(world_size) for clip in streamed.stream(4, rank, world_size, 7)]
        assert sorted(number for number, _ in seen) == list(range(len(index)))
        for number, frames in seen:
            np.testing.assert_array_equal(frames, whole.clip(number))
        longest = max(len(list(streamed.stream(4, rank, world_size, 7))) for rank in range(world_size))
        assert streamed.longest_share(4, world_size, 7) == longest


def test_streaming_order_follows_seed_and_epoch(store):
    streamed = StreamedClips(index_footage(store, "train"))

    def order(epoch, seed):
        return [number for number, _ in streamed.stream(epoch, 0, 1, seed)]

    assert order(0, 0) == order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_what_does_not_fit_is_streamed(store):
    index = index_footage(store, "train")
    assert isinstance(open_index(index, feed="auto", memory_bytes=index.bytes - 1), StreamedClips)
    assert isinstance(open_index(index, feed="auto", memory_bytes=index.bytes), Clips)


def test_a_part_is_the_same_clips_numbered_anew(store):
    index = index_footage(store, "train")
    chosen = np.array([1, 4, 5])
    part, whole = (open_index(item, feed="materialize") for item in (index.part(chosen), index))
    assert part.keys == [whole.keys[clip] for clip in chosen] and part.labels.tolist() == whole.labels[chosen].tolist()
    for place, clip in enumerate(chosen):
        np.testing.assert_array_equal(part.clip(place), whole.clip(int(clip)))


def test_a_shard_reads_only_the_rows_it_names(store):
    index = index_footage(store, "train")
    shard = max(index.shards, key=lambda item: len(item.rows))
    picked = type(shard)(shard.file, shard.rows[::2], shard.indices[::2])
    whole, some = read_shard(store.uri, shard), read_shard(store.uri, picked)
    assert some["pixels"].to_pylist() == whole["pixels"].to_pylist()[::2]


def test_several_recipes_must_be_chosen_from(store):
    with pytest.raises(
        InputError, match=r"data.recipe must name one of the decode recipes in this store: 32x40-stretch-f20-s2-w2-raw"
    ):
        index_footage(store, "train", recipe="128x171-stretch-f32-s2-w1-raw")


def test_classes_of_the_run_are_kept_in_order_and_strangers_refused(store):
    index = index_footage(store, "train", classes=("right", "kick", "left"))
    assert index.classes == ("right", "kick", "left") and set(index.labels.tolist()) == {0, 2}
    with pytest.raises(InputError, match="has the class 'right', which this run does not know"):
        index_footage(store, "train", classes=("left",))


def test_pinned_versions_see_what_they_saw(store):
    versions = store.versions()
    assert index_footage(store, "train", versions=versions).keys == index_footage(store, "train").keys
    with pytest.raises(InputError, match="no clips yet"):
        index_footage(store, "train", versions=versions | {"clips": 0})


def test_flow_is_read_beside_the_frames_or_alone(flow_store):
    both = index_footage(Store(flow_store), "train", inputs=("rgb", "flow"))
    assert both.flow == "dis" and both.bytes == len(both) * 32 * 40 * (20 * 3 + 19 * 2)
    whole = open_index(both, feed="materialize")
    asked = set()

    def load(name, number):
        asked.add(name)
        return read_shard(flow_store, alone.shards_of(name)[number])

    alone = index_footage(Store(flow_store), "train", inputs=("flow",))
    footage = Clips(alone, load)
    for clip in range(len(footage)):
        flow = footage.flow(clip)
        assert flow.shape == (19, 32, 40, 2) and flow.dtype == np.uint8 and not flow.flags.writeable
        np.testing.assert_array_equal(flow, whole.flow(clip))
    assert asked == {"flow"} and alone.bytes == len(alone) * 19 * 32 * 40 * 2


def test_flow_belongs_to_its_clip(flow_store):
    """What moves in the clips of `left` moves to the left."""
    index = index_footage(Store(flow_store), "train", inputs=("flow",))
    footage = open_index(index, feed="materialize")
    for clip in range(len(footage)):
        towards = decode(footage.flow(clip))[..., 0].sum()
        assert index.classes[index.labels[clip]] == ("right" if towards > 0 else "left")


@pytest.mark.parametrize("inputs", [("flow",), ("rgb", "flow")])
def test_streamed_flow_is_that_in_memory(flow_store, inputs):
    index = index_footage(Store(flow_store), "train", inputs=inputs)
    whole, streamed = open_index(index, feed="materialize"), StreamedClips(index)
    for world_size in (1, 2):
        seen = [clip for rank in range(world_size) for clip in streamed.stream(1, rank, world_size, 3)]
        assert sorted(number for number, *_ in seen) == list(range(len(index)))
        for number, *arrays in seen:
            for name, array in zip(inputs, arrays, strict=True):
                np.testing.assert_array_equal(array, whole.flow(number) if name == "flow" else whole.clip(number))


def test_a_part_keeps_its_flow(flow_store):
    index = index_footage(Store(flow_store), "train", inputs=("rgb", "flow"))
    chosen = np.array([0, 3, 7])
    part, whole = (open_index(item, feed="materialize") for item in (index.part(chosen), index))
    for place, clip in enumerate(chosen.tolist()):
        np.testing.assert_array_equal(part.flow(place), whole.flow(clip))
        np.testing.assert_array_equal(part.clip(place), whole.clip(clip))


def test_missing_flow_is_refused_with_the_command_that_adds_it(store, flow_store):
    with pytest.raises(
        InputError,
        match=rf"{store.uri}: 20 of 20 train clips have no optical flow by dis, "
        rf".* posture ingest --store {store.uri} --flow dis",
    ):
        index_footage(store, "train", inputs=("rgb", "flow"))
    with pytest.raises(InputError, match=r"have no optical flow by farneback, .* --flow farneback"):
        index_footage(Store(flow_store), "train", inputs=("flow",), flow="farneback")
    assert index_footage(store, "train", flow="farneback").flow_shards == []


def test_of_several_methods_one_must_be_chosen(flow_store, tmp_path):
    store = Store(shutil.copytree(flow_store, tmp_path / "store"))
    compute_flow(store, "farneback")
    with pytest.raises(
        InputError, match=r"data.flow must name one of the methods whose optical flow is in this store: dis, farneback"
    ):
        index_footage(store, "train", inputs=("flow",))
    chosen, other = (
        open_index(index_footage(store, "train", inputs=("flow",), flow=method), feed="materialize")
        for method in ("dis", "farneback")
    )
    assert (chosen.flow(0) != other.flow(0)).any()
    pinned = Store(flow_store).versions()
    assert index_footage(store, "train", versions=pinned, inputs=("flow",)).flow == "dis"
