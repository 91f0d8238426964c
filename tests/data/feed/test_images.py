import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from posture.data.feed.images import Images, StoredImages, StreamedImages, index_images
from posture.data.feed.shards import open_index, read_shard
from posture.data.store import schema
from posture.data.store.tables import Store
from posture.errors import InputError
from tests.support.image_store import CLASSES, boxes_table, images_table, make_images, write_image_store

MADE = make_images(90)
BY_KEY = {one.key: one for one in MADE}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_image_store(tmp_path_factory.mktemp("images") / "store", MADE, files=4)


def test_splits_hold_every_image_once_with_what_is_in_it(store):
    indices = [index_images(store, split) for split in ("train", "val", "test")]
    assert [len(index) for index in indices] == [60, 30, 0]
    for index in indices:
        assert index.keys == sorted(one.key for one in MADE if one.split == index.split) and index.classes == CLASSES
        assert index.bytes == sum(len(BY_KEY[key].encoded) for key in index.keys)
        for key, boxes, labels, group, size in zip(
            index.keys, index.boxes, index.labels, index.groups, index.sizes, strict=True
        ):
            made = BY_KEY[key]
            np.testing.assert_array_equal(boxes, made.boxes)
            assert boxes.dtype == np.float32 and boxes.shape == (len(made.labels), 4) and labels.dtype == np.int64
            assert (
                [CLASSES[label] for label in labels] == made.labels
                and group == made.group
                and tuple(size) == made.pixels.shape[:2]
            )
    assert any(not len(boxes) for boxes in indices[0].boxes)  # images without boxes stay


def test_images_in_memory_are_those_that_were_stored(store):
    index = index_images(store, "train")
    images = open_index(index, feed="materialize")
    assert isinstance(images, Images) and len(images) == 60 and images.classes == CLASSES
    for number, key in enumerate(images.keys):
        np.testing.assert_array_equal(images.image(number), BY_KEY[key].pixels)
        assert images.encoded(number).tobytes() == BY_KEY[key].encoded and not images.encoded(number).flags.writeable
        np.testing.assert_array_equal(images.boxes[number], BY_KEY[key].boxes)


def test_threads_load_every_file_once_and_only_when_it_is_needed(store):
    index = index_images(store, "train")
    loads, all_here = [], threading.Barrier(4)

    def load(name, number):
        loads.append(number)
        return read_shard(store.uri, index.shards[number])

    images = Images(index, load)
    assert loads == [] and len(index.shards) == 4

    def read(_):
        all_here.wait(timeout=10)
        return [images.encoded(number).tobytes() for number in range(len(images))]

    with ThreadPoolExecutor(4) as pool:
        seen = list(pool.map(read, range(4)))
    assert sorted(loads) == [0, 1, 2, 3] and seen == [[BY_KEY[key].encoded for key in images.keys]] * 4


def test_streaming_gives_the_same_images_to_all_workers_together(store):
    index = index_images(store, "train")
    whole, streamed = open_index(index, feed="materialize"), open_index(index, feed="stream")
    assert isinstance(streamed, StreamedImages) and len(streamed) == 60
    for world_size in (1, 2, 3):
        parts = [list(streamed.stream(4, rank, world_size, 7)) for rank in range(world_size)]
        assert sorted(number for part in parts for number, _ in part) == list(range(60))
        assert all(encoded.tobytes() == whole.encoded(number).tobytes() for part in parts for number, encoded in part)
        assert streamed.longest_share(4, world_size, 7) == max(len(part) for part in parts)
    orders = {key: [number for number, _ in streamed.stream(key[0], 0, 1, key[1])] for key in ((0, 0), (1, 0), (0, 1))}
    assert len({tuple(order) for order in orders.values()}) == 3


def test_what_does_not_fit_is_streamed(store):
    index = index_images(store, "train")
    assert isinstance(open_index(index, feed="auto", memory_bytes=index.bytes - 1), StreamedImages)
    assert isinstance(open_index(index, feed="auto", memory_bytes=index.bytes), Images)


@pytest.mark.parametrize("feed", ["materialize", "stream"])
def test_a_part_is_the_same_images_numbered_anew(store, feed):
    index = index_images(store, "train")
    chosen = np.array([1, 4, 5, 33, 59])
    part = index.part(chosen)
    images = open_index(part, feed=feed)
    assert images.keys == [index.keys[number] for number in chosen] and len(part) == 5
    assert part.bytes == sum(len(BY_KEY[key].encoded) for key in part.keys)
    found = (
        dict(images.stream(0, 0, 1, 0)) if feed == "stream" else {number: images.encoded(number) for number in range(5)}
    )
    for place, key in enumerate(part.keys):
        assert found[place].tobytes() == BY_KEY[key].encoded and part.groups[place] == BY_KEY[key].group
        np.testing.assert_array_equal(images.boxes[place], BY_KEY[key].boxes)
        assert tuple(images.sizes[place]) == BY_KEY[key].pixels.shape[:2]


def test_classes_of_the_run_are_kept_in_order_and_strangers_refused(store):
    index = index_images(store, "train", classes=("ball", "net", "athlete"))
    assert index.classes == ("ball", "net", "athlete") and set(np.concatenate(index.labels).tolist()) == {0, 2}
    for labels, key in zip(index.labels, index.keys, strict=True):
        assert [index.classes[label] for label in labels] == BY_KEY[key].labels
    with pytest.raises(
        InputError, match=rf"{store.uri}: the train split has the class 'ball', which this run does not know"
    ):
        index_images(store, "train", classes=("athlete",))


def test_pinned_versions_see_the_boxes_of_their_time(tmp_path):
    made = make_images(8)
    store = write_image_store(tmp_path / "store", made)
    before = store.versions()
    corrected = made[1]._replace(boxes=np.array([[1, 2, 3, 4]], np.float32), labels=["net"])
    store.upsert("boxes", boxes_table([corrected]), keys=["image"])
    more = make_images(10)[8:]
    store.append("boxes", boxes_table(more))  # their images are not there yet
    now, then = (index_images(store, "train", versions=versions) for versions in (None, before))
    assert now.keys == then.keys and now.classes == ("athlete", "ball", "net") and then.classes == CLASSES
    place = now.keys.index(corrected.key)
    assert now.boxes[place].tolist() == [[1, 2, 3, 4]] and now.labels[place].tolist() == [2]
    np.testing.assert_array_equal(then.boxes[place], made[1].boxes)


def test_a_store_without_labelled_images_says_how_to_add_some(tmp_path):
    empty = Store(str(tmp_path / "empty"), create=True)
    empty.create_tables()
    with pytest.raises(
        InputError,
        match=rf"{empty.uri}: the store holds no labelled images; "
        rf"add some with: posture ingest FOLDER --store {empty.uri}",
    ):
        index_images(empty, "train")
    unlabelled = [one._replace(boxes=np.zeros((0, 4), np.float32), labels=[]) for one in make_images(3)]
    boxless = write_image_store(tmp_path / "boxless", unlabelled)
    with pytest.raises(InputError, match="the store holds images, but no boxes; add some with"):
        index_images(boxless, "train")
    assert [len(boxes) for boxes in index_images(boxless, "train", classes=CLASSES).boxes] == [0, 0]


def test_images_that_fill_several_chunks_are_all_there():
    """pyarrow cuts a column of more than 2 GiB in chunks."""
    contents = [b"one", b"", b"three", b"four4", b"5"]
    chunks = [pa.array(contents[:2], pa.binary()), pa.array([b"skipped", *contents[2:]], pa.binary())[1:]]
    stored = StoredImages(pa.table({"pixels": pa.chunked_array(chunks)}))
    assert [stored[row].tobytes() for row in range(5)] == contents


def test_an_image_that_is_not_as_the_store_says_is_named(tmp_path):
    made = make_images(4)
    store = write_image_store(tmp_path / "store", made)
    index = index_images(store, "train")
    table = read_shard(store.uri, index.shards[0])
    spoilt = pa.table({"pixels": pa.array([b"no image"] * table.num_rows, pa.binary())})
    with pytest.raises(InputError, match=f"the stored image {index.keys[0]} does not decode"):
        Images(index, lambda name, number: spoilt).image(0)


def test_a_store_from_before_ignore_regions_has_none_and_takes_them(tmp_path):
    made = make_images(6, splits=("train",))
    store = Store(str(tmp_path / "store"), create=True)
    new = {"ignored", "ignored_labels"}
    DeltaTable.create(
        store.table_uri("boxes"), pa.schema([column for column in schema.BOXES if column.name not in new])
    )
    DeltaTable.create(store.table_uri("videos"), schema.VIDEOS)
    old = boxes_table(made).drop_columns(list(new))
    write_deltalake(store.table_uri("boxes"), old, mode="append")
    DeltaTable.create(store.table_uri("images"), schema.IMAGES)
    store.append("images", images_table(made))
    assert [len(regions) for regions in index_images(store, "train").ignored] == [0] * 6
    store.create_tables()
    assert store.read("boxes", columns=["ignored"])["ignored"].null_count == 6
    first = boxes_table(made).slice(0, 1).to_pylist()[0]
    first |= {
        "ignored": [[1.0, 2.0, 30.0, 40.0], [0.0, 0.0, 5.0, 5.0], [3.0, 3.0, 4.0, 4.0]],
        "ignored_labels": ["ball", "nobody knows", "athlete"],
    }
    store.upsert("boxes", pa.Table.from_pylist([first], schema=schema.BOXES), keys=["image"])
    index = index_images(store, "train")
    place = index.keys.index(made[0].key)
    assert index.ignored[place].tolist() == [[1.0, 2.0, 30.0, 40.0], [3.0, 3.0, 4.0, 4.0]] and index.ignored_labels[
        place
    ].tolist() == [1, 0]
    assert sum(map(len, index.ignored)) == 2 and [
        len(regions) for regions in index.part(np.array([place])).ignored
    ] == [2]
    assert store.read("boxes", version=1)["ignored"].null_count == 6, "earlier versions are still read"
