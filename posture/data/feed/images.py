"""Stored images with boxes as training reads them: an index of what a split has, and two ways to get at the pixels.

`Images` holds every image, encoded, in memory (this process's, or Ray's object store): any image at any time, so
the order is ours. `StreamedImages` reads the store from one end to the other in a shuffled order: for images larger
than memory. Legend: h x w stored pixels; boxes (B, 4) and ignore regions (R, 4) float32 as x1, y1, x2, y2 in pixels of
the stored image; an image's index is its position in the sorted list of image ids.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posture.data.feed.clips import (
    Chunk,
    InMemory,
    Shard,
    ShardStream,
    available_memory,
    cut_shards,
    find_shards,
    part_of_shards,
    read_shard,
)
from posture.data.store.tables import Store
from posture.errors import InputError

CHUNK_IMAGES = 32
"""Images read at once while streaming: a row group as ingest writes it."""


@dataclass(frozen=True)
class ImageIndex:
    """Which images one split of a store has, at fixed versions of its tables, what is in them, and where their bytes
    lie.
    """

    inputs: ClassVar[tuple[str, ...]] = ("images",)
    """What is read of an image."""

    store_uri: str
    split: str
    classes: tuple[str, ...]
    keys: list[str]
    boxes: list[np.ndarray]  # (B, 4) float32 each
    labels: list[np.ndarray]  # (B,) int64 each, positions in classes
    groups: list[str]
    sizes: np.ndarray  # (images, 2) int64: h, w
    encoded_bytes: np.ndarray  # (images,) int64
    shards: list[Shard]
    # (R, 4) float32 each, ignore regions; an empty list: none anywhere
    ignored: list[np.ndarray] = field(default_factory=list)
    ignored_labels: list[np.ndarray] = field(default_factory=list)  # (R,) int64 each

    def __post_init__(self) -> None:
        if not self.ignored:
            object.__setattr__(self, "ignored", [np.zeros((0, 4), np.float32)] * len(self.keys))
            object.__setattr__(self, "ignored_labels", [np.zeros(0, np.int64)] * len(self.keys))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> dict[str, int]:
        """How much that is, for records and reports."""
        return {"pictures": len(self), "boxes": sum(map(len, self.boxes))}

    def box_sides(self, size: int) -> np.ndarray:
        """Widths and heights of all boxes, (B, 2) float64, in pixels of an image letterboxed to `size` x `size`."""
        scales = size / self.sizes.max(axis=1)
        return np.concatenate([
            np.zeros((0, 2)),
            *((boxes[:, 2:] - boxes[:, :2]) * scale for boxes, scale in zip(self.boxes, scales, strict=True)),
        ])

    @property
    def bytes(self) -> int:
        """Size in memory of the encoded images."""
        return int(self.encoded_bytes.sum())

    def shards_of(self, name: str) -> list[Shard]:
        """Where the input `name`, which is "images", lies."""
        return self.shards

    def part(self, indices: np.ndarray) -> ImageIndex:
        """The same for the images `indices` alone (ascending); they are numbered anew."""
        chosen = {
            name: [getattr(self, name)[index] for index in indices]
            for name in ("keys", "boxes", "labels", "groups", "ignored", "ignored_labels")
        }
        return replace(
            self,
            **chosen,
            sizes=self.sizes[indices],
            encoded_bytes=self.encoded_bytes[indices],
            shards=part_of_shards(self.shards, indices),
        )


def index_images(
    store: Store, split: str, *, versions: dict[str, int] | None = None, classes: tuple[str, ...] | None = None
) -> ImageIndex:
    """The labelled images of `split` (train, val or test), those without any box too.

    `versions` pins the tables; `classes` fixes names and order (None: all labels of the store, sorted). Raises
    InputError where the store has no labelled images, or the split has labels that `classes` lacks.
    """
    versions = versions or store.versions()
    columns = ["image", "group", "split", "boxes", "labels", "ignored", "ignored_labels"]
    labelled = store.read("boxes", columns=columns, version=versions.get("boxes"), where=pc.field("split") != "")
    if not labelled.num_rows and store.read("boxes", columns=["image"], version=versions.get("boxes")).num_rows:
        raise InputError(
            f"{store.uri}: its images have no split yet, since the ingest that decoded them was stopped; run the same posture ingest again"
        )
    names = classes or tuple(sorted(pc.unique(pc.list_flatten(labelled["labels"])).to_pylist()))
    if not names:
        held = "no labelled images" if not labelled.num_rows else "images, but not one box in them"
        raise InputError(
            f"{store.uri}: the store holds {held}; add some with: posture ingest FOLDER --store {store.uri}"
        )
    images = store.scan("images", ["image", "height", "width", "bytes", "__filename"], version=versions.get("images"))
    stored = images["image"].combine_chunks()
    wanted = labelled.filter(
        pc.and_(pc.equal(labelled["split"], split), pc.is_in(labelled["image"], value_set=stored))
    ).sort_by("image")
    keys, place = wanted["image"].to_pylist(), pc.index_in(wanted["image"], value_set=stored)
    height, width, size = (
        images[name].take(place).to_numpy().astype(np.int64) for name in ("height", "width", "bytes")
    )
    boxes, counts = _corners(wanted["boxes"])
    labels = _positions(pc.list_flatten(wanted["labels"]), names, f"{store.uri}: the {split} split")
    return ImageIndex(
        store.uri,
        split,
        names,
        keys,
        _cut(boxes, counts),
        _cut(labels, counts),
        wanted["group"].to_pylist(),
        np.stack([height, width], axis=1),
        size,
        find_shards("images", images, keys, key="image"),
        *_regions(wanted, names),
    )


def _corners(boxes: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """All boxes of a column, (B, 4) float32, and how many each image has; none if its entry is null."""
    counts = pc.fill_null(pc.list_value_length(boxes), 0).to_numpy()
    return pc.list_flatten(pc.list_flatten(boxes)).to_numpy().astype(np.float32).reshape(-1, 4), counts


def _regions(wanted: pa.Table, names: tuple[str, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Ignore regions of each image and their labels; those of a class that is not in `names` are left out, since none
    of it can be found.
    """
    boxes, counts = _corners(wanted["ignored"])
    labels = (
        pc
        .fill_null(pc.index_in(pc.list_flatten(wanted["ignored_labels"]), value_set=pa.array(names, pa.string())), -1)
        .to_numpy()
        .astype(np.int64)
    )
    kept, owner = labels >= 0, np.repeat(np.arange(len(counts)), counts)
    counts = np.bincount(owner[kept], minlength=len(counts))
    return _cut(boxes[kept], counts), _cut(labels[kept], counts)


def _positions(labels: pa.ChunkedArray, names: tuple[str, ...], whose: str) -> np.ndarray:
    """Labels as positions in `names`, int64. Raises InputError for one that is not there."""
    places = pc.index_in(labels, value_set=pa.array(names, pa.string()))
    if places.null_count:
        stranger = sorted(pc.unique(labels.filter(pc.is_null(places))).to_pylist())[0]
        raise InputError(f"{whose} has the class {stranger!r}, which this run does not know")
    return places.to_numpy().astype(np.int64)


def _cut(values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """The values of each image."""
    return [values[start:end] for start, end in itertools.pairwise([0, *np.cumsum(counts).tolist()])]


class StoredImages:
    """A shard's encoded images, uint8 (bytes,) each: read-only views of the table's memory."""

    def __init__(self, table: pa.Table) -> None:
        self._bytes: list[np.ndarray] = []
        for binary in table["pixels"].chunks:  # several, where they are more than 2 GiB
            _, ends, data = binary.buffers()
            places = np.frombuffer(ends, np.int32)[binary.offset : binary.offset + len(binary) + 1]
            pixels = np.frombuffer(data or b"", np.uint8)
            pixels.flags.writeable = False
            self._bytes += [pixels[start:end] for start, end in itertools.pairwise(places.tolist())]

    def __getitem__(self, row: int) -> np.ndarray:
        return self._bytes[row]


class Images:
    """Encoded images in memory, by index. `load(shard number)` gives a shard's table; it is called once per shard,
    when first needed.

    Threads may share it.
    """

    def __init__(self, index: ImageIndex, load: Callable[[int], pa.Table]) -> None:
        self.index = index
        self.classes, self.keys, self.boxes, self.labels = index.classes, index.keys, index.boxes, index.labels
        self.groups, self.sizes, self.ignored, self.ignored_labels = (
            index.groups,
            index.sizes,
            index.ignored,
            index.ignored_labels,
        )
        self._pictures = InMemory(index.shards, len(index), load, StoredImages)

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, index: int) -> np.ndarray:
        """The image's file, uint8 (bytes,), a read-only view of the table."""
        return self._pictures[index]

    def picture(self, index: int) -> np.ndarray:
        """uint8 (h, w, 3), RGB. Raises InputError where it does not decode."""
        from posture.data.feed.image_transforms import decode_image  # loads torch, which an index does without

        return decode_image(self.encoded(index), self.sizes[index].tolist(), name=self.keys[index])


class StreamedImages(ShardStream):
    """Encoded images from the store, for images larger than memory: `stream` gives (index, uint8 (bytes,)) pairs."""

    def __init__(self, index: ImageIndex) -> None:
        super().__init__(
            index.store_uri,
            [Chunk(piece.indices, [[piece]]) for piece in cut_shards(index.shards, CHUNK_IMAGES)],
            StoredImages,
        )
        self.index = index
        self.classes, self.keys, self.boxes, self.labels = index.classes, index.keys, index.boxes, index.labels
        self.groups, self.sizes, self.ignored, self.ignored_labels = (
            index.groups,
            index.sizes,
            index.ignored,
            index.ignored_labels,
        )

    def __len__(self) -> int:
        return len(self.keys)


def open_images(index: ImageIndex, *, feed: str, memory_bytes: int | None = None) -> Images | StreamedImages:
    """The images of this process alone: in memory where `feed` says so or, on `auto`, where they fit `memory_bytes`
    (half of what is free).
    """
    room = available_memory() // 2 if memory_bytes is None else memory_bytes
    if feed == "stream" or (feed == "auto" and index.bytes > room):
        return StreamedImages(index)
    with ThreadPoolExecutor(max_workers=4) as pool:
        tables = list(pool.map(lambda shard: read_shard(index.store_uri, shard), index.shards))
    return Images(index, tables.__getitem__)
