"""Stored images with boxes as training reads them: an index of a split's images, and two ways to read their pixels.

`Images` holds every encoded image in memory: any image at any time, so the order is a function of the seed.
`StreamedImages` reads the store once in a shuffled order, for data larger than memory.

Legend: h x w stored pixels. Boxes (B, 4) and ignore regions (R, 4) are float32 x1, y1, x2, y2 in pixels of the stored
image. An image's index is its position in the sorted list of image ids.
"""

# pyarrow.compute makes its functions when it is imported
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posture.data.feed.shards import (
    Chunk,
    Index,
    InMemory,
    Load,
    Shard,
    ShardStream,
    cut_shards,
    find_shards,
    part_of_shards,
)
from posture.data.store.tables import Store
from posture.errors import InputError

CHUNK_IMAGES = 32
"""Images read at once while streaming: a row group as ingest writes it."""


@dataclass(frozen=True)
class ImageIndex(Index):
    """Labelled images of one split of a store, see `posture.data.feed.shards.Index`."""

    inputs: ClassVar[tuple[str, ...]] = ("images",)
    """Inputs that are read of each image."""

    store_uri: str
    split: str
    classes: tuple[str, ...]
    keys: list[str]
    boxes: list[np.ndarray]
    """(B, 4) float32 each."""
    labels: list[np.ndarray]
    """(B,) int64 each, positions in `classes`."""
    groups: list[str]
    sizes: np.ndarray
    """(images, 2) int64: h, w."""
    encoded_bytes: np.ndarray
    """(images,) int64."""
    shards: list[Shard]
    ignored: list[np.ndarray] = field(default_factory=list)
    """(R, 4) float32 each, ignore regions; empty: no image has any."""
    ignored_labels: list[np.ndarray] = field(default_factory=list)
    """(R,) int64 each."""

    def __post_init__(self) -> None:
        if not self.ignored:
            object.__setattr__(self, "ignored", [np.zeros((0, 4), np.float32)] * len(self.keys))
            object.__setattr__(self, "ignored_labels", [np.zeros(0, np.int64)] * len(self.keys))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of images ("pictures" in saved records) and boxes, for records and reports."""
        return {"pictures": len(self), "boxes": sum(map(len, self.boxes))}

    def box_sides(self, size: int) -> np.ndarray:
        """Return widths and heights of all boxes, (B, 2) float64, in pixels of images letterboxed to side `size`."""
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
        """Return the shards of the only input, "images"."""
        return self.shards

    def in_memory(self, load: Load) -> Images:
        return Images(self, load)

    def streamed(self) -> StreamedImages:
        return StreamedImages(self)

    def part(self, indices: np.ndarray) -> ImageIndex:
        """Return an index of the images `indices` (ascending), numbered anew."""
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
    """Return the labelled images of `split` (train, val or test), including those without boxes.

    `versions` pins the tables; `classes` fixes names and order (None: all labels of the store, sorted). Raises
    InputError if the store has no labelled images, or the split has labels that `classes` lacks.
    """
    versions = versions or store.versions()
    columns = ["image", "group", "split", "boxes", "labels", "ignored", "ignored_labels"]
    labelled = store.read("boxes", columns=columns, version=versions.get("boxes"), where=pc.field("split") != "")
    if not labelled.num_rows and store.read("boxes", columns=["image"], version=versions.get("boxes")).num_rows:
        raise InputError(
            f"{store.uri}: its images have no split yet, since the ingest that decoded them was stopped; "
            "run the same posture ingest again"
        )
    names = classes or tuple(sorted(pc.unique(pc.list_flatten(labelled["labels"])).to_pylist()))
    if not names:
        held = "no labelled images" if not labelled.num_rows else "images, but no boxes"
        raise InputError(
            f"{store.uri}: the store holds {held}; add some with: posture ingest FOLDER --store {store.uri}"
        )
    images = store.scan("images", ["image", "height", "width", "bytes", "__filename"], version=versions.get("images"))
    stored = images["image"].combine_chunks()
    wanted = labelled.filter(
        pc.and_(pc.equal(labelled["split"], split), pc.is_in(labelled["image"], value_set=stored))
    ).sort_by("image")
    keys, rows = wanted["image"].to_pylist(), pc.index_in(wanted["image"], value_set=stored)
    height, width, size = (images[name].take(rows).to_numpy().astype(np.int64) for name in ("height", "width", "bytes"))
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
    """Return all boxes of a column, (B, 4) float32, and the number of each image's boxes; 0 if its entry is null."""
    counts = pc.fill_null(pc.list_value_length(boxes), 0).to_numpy()
    return pc.list_flatten(pc.list_flatten(boxes)).to_numpy().astype(np.float32).reshape(-1, 4), counts


def _regions(wanted: pa.Table, names: tuple[str, ...]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return each image's ignore regions and their labels, without classes that are not in `names`."""
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
    """Return labels as positions in `names`, int64. Raises InputError for a label that is not there."""
    positions = pc.index_in(labels, value_set=pa.array(names, pa.string()))
    if positions.null_count:
        unknown = sorted(pc.unique(labels.filter(pc.is_null(positions))).to_pylist())[0]
        raise InputError(f"{whose} has the class {unknown!r}, which this run does not know")
    return positions.to_numpy().astype(np.int64)


def _cut(values: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Return the values of each image."""
    return [values[start:end] for start, end in itertools.pairwise([0, *np.cumsum(counts).tolist()])]


class StoredImages:
    """A shard's encoded images, uint8 (bytes,) each: read-only views of the table's memory."""

    def __init__(self, table: pa.Table) -> None:
        self._bytes: list[np.ndarray] = []
        for binary in table["pixels"].chunks:  # several if they hold more than 2 GiB
            _, ends, data = binary.buffers()
            ends = np.frombuffer(ends, np.int32)[binary.offset : binary.offset + len(binary) + 1]
            pixels = np.frombuffer(data or b"", np.uint8)
            pixels.flags.writeable = False
            self._bytes += [pixels[start:end] for start, end in itertools.pairwise(ends.tolist())]

    def __getitem__(self, row: int) -> np.ndarray:
        return self._bytes[row]


class BoxesOfImages:
    """Base of images in memory and streamed: what is known of them without their pixels."""

    def __init__(self, index: ImageIndex) -> None:
        self.index = index
        self.classes, self.keys, self.groups, self.sizes = index.classes, index.keys, index.groups, index.sizes
        self.boxes, self.labels = index.boxes, index.labels
        self.ignored, self.ignored_labels = index.ignored, index.ignored_labels

    def __len__(self) -> int:
        return len(self.keys)


class Images(BoxesOfImages):
    """Encoded images in memory, by index; thread-safe.

    `load("images", shard number)` returns a shard's table; it is called once per shard, when first needed.
    """

    def __init__(self, index: ImageIndex, load: Load) -> None:
        super().__init__(index)
        self._files = InMemory(index.shards, len(index), partial(load, "images"), StoredImages)

    def encoded(self, index: int) -> np.ndarray:
        """Return the image's file, uint8 (bytes,), a read-only view of the table."""
        return self._files[index]

    def image(self, index: int) -> np.ndarray:
        """Return the image, uint8 (h, w, 3), RGB. Raises InputError if it cannot be decoded."""
        from posture.data.feed.image_transforms import decode_image  # loads torch, which an index does without

        return decode_image(self.encoded(index), self.sizes[index].tolist(), name=self.keys[index])


class StreamedImages(BoxesOfImages, ShardStream):
    """Encoded images from the store, for data larger than memory: `stream` yields (index, uint8 (bytes,)) pairs."""

    def __init__(self, index: ImageIndex) -> None:
        BoxesOfImages.__init__(self, index)
        pieces = cut_shards(index.shards, CHUNK_IMAGES)
        ShardStream.__init__(self, index.store_uri, [Chunk(piece.indices, [[piece]]) for piece in pieces], StoredImages)
