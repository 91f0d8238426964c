import numpy as np
import pytest

from posture.data.footage import Footage, StreamedFootage, index_footage, open_footage, read_shard
from posture.data.store import Store
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
    footage = open_footage(index, feed="materialize")
    assert isinstance(footage, Footage) and len(footage) == len(index) == len(index.labels)
    for clip in range(len(footage)):
        frames = footage.clip(clip)
        assert frames.shape == (20, 32, 40, 3) and frames.dtype == np.uint8 and not frames.flags.writeable
        first, last = (int(frame[:, :, 0].astype(float).mean(axis=0).argmax()) for frame in (frames[0], frames[-1]))
        assert index.classes[index.labels[clip]] == ("right" if last > first else "left")


def test_streaming_gives_the_same_clips_to_all_workers_together(store):
    index = index_footage(store, "train")
    whole, streamed = open_footage(index, feed="materialize"), StreamedFootage(index)
    for world_size in (1, 2, 3):
        seen = [clip for rank in range(world_size) for clip in streamed.stream(4, rank, world_size, 7)]
        assert sorted(number for number, _ in seen) == list(range(len(index)))
        for number, frames in seen:
            np.testing.assert_array_equal(frames, whole.clip(number))
        longest = max(len(list(streamed.stream(4, rank, world_size, 7))) for rank in range(world_size))
        assert streamed.longest_share(4, world_size, 7) == longest


def test_streaming_order_follows_seed_and_epoch(store):
    streamed = StreamedFootage(index_footage(store, "train"))

    def order(epoch, seed):
        return [number for number, _ in streamed.stream(epoch, 0, 1, seed)]

    assert order(0, 0) == order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_what_does_not_fit_is_streamed(store):
    index = index_footage(store, "train")
    assert isinstance(open_footage(index, feed="auto", memory_bytes=index.bytes - 1), StreamedFootage)
    assert isinstance(open_footage(index, feed="auto", memory_bytes=index.bytes), Footage)


def test_a_part_is_the_same_clips_numbered_anew(store):
    index = index_footage(store, "train")
    chosen = np.array([1, 4, 5])
    part, whole = (open_footage(item, feed="materialize") for item in (index.part(chosen), index))
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
    with pytest.raises(InputError, match=r"data.recipe must name one of the decode recipes in this store: 32x40-stretch-f20-s2-w2-raw"):
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
