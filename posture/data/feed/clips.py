"""Stored clips as training reads them: an index of a split's clips, and two ways to read their frames.

`Clips` holds every clip in memory: any clip at any time, so the order is a function of the seed. `StreamedClips` reads
the store once in a shuffled order, for data larger than memory. Only the model's inputs are read: "rgb", a clip's
frames, "flow", the optical flow between them (`posture/data/decode/optical_flow.py`), or both.

Legend: T stored frames, H x W stored pixels. A clip's index is its position in the sorted list of clip ids.
"""

# pyarrow.compute makes its functions when it is imported
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial

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
from posture.data.store import schema
from posture.data.store.frame_codec import decode_frames
from posture.data.store.tables import Store
from posture.errors import InputError

CHUNK_CLIPS = 8
"""Clips read at once while streaming: a row group as ingest writes it."""


@dataclass(frozen=True)
class ClipIndex(Index):
    """Clips of one split of a store, see `posture.data.feed.shards.Index`."""

    store_uri: str
    split: str
    recipe: str
    classes: tuple[str, ...]
    keys: list[str]
    labels: np.ndarray
    """(clips,) int64."""
    segments: np.ndarray
    """(clips,) int64, positions in `segment_ids`."""
    segment_ids: list[str]
    shards: list[Shard]
    inputs: tuple[str, ...] = ("rgb",)
    """Inputs that are read of each clip, in this order."""
    flow: str | None = None
    """Method of the flow, if it is read."""
    flow_shards: list[Shard] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of clips and segments, for records and reports."""
        return {"clips": len(self), "segments": len(self.segment_ids)}

    @property
    def bytes(self) -> int:
        """Maximum size in memory: short segments have fewer frames."""
        recipe = schema.DecodeRecipe.parse(self.recipe)
        sizes = {"rgb": recipe.clip_bytes, "flow": (recipe.frames - 1) * recipe.height * recipe.width * 2}
        return len(self) * sum(sizes[name] for name in self.inputs)

    def shards_of(self, name: str) -> list[Shard]:
        """Return the shards of the input `name`."""
        return self.flow_shards if name == "flow" else self.shards

    def part(self, indices: np.ndarray) -> ClipIndex:
        """Return an index of the clips `indices` (ascending), numbered anew; segments keep their numbers."""
        return replace(
            self,
            keys=[self.keys[index] for index in indices],
            labels=self.labels[indices],
            segments=self.segments[indices],
            shards=part_of_shards(self.shards, indices),
            flow_shards=part_of_shards(self.flow_shards, indices),
        )

    def in_memory(self, load: Load) -> Clips:
        return Clips(self, load)

    def streamed(self) -> StreamedClips:
        return StreamedClips(self)


def index_footage(
    store: Store,
    split: str,
    *,
    versions: dict[str, int] | None = None,
    recipe: str | None = None,
    classes: tuple[str, ...] | None = None,
    left_out: tuple[str, ...] = (),
    inputs: tuple[str, ...] = ("rgb",),
    flow: str | None = None,
    unlabelled: bool = False,
) -> ClipIndex:
    """Return the clips of `split` (train, val or test).

    `versions` pins the tables; `classes` fixes names and order (None: all labels, sorted). Clips of the classes
    `left_out` are excluded. `inputs` are the model's, and `flow` is the method it reads if the store has several. Clips
    without a label are read only if `unlabelled` is True.
    Raises InputError if the store has no clips, has several recipes and none is chosen, has labels that `classes`
    lacks, or lacks the flow that `inputs` asks for.
    """
    versions = versions or store.versions()
    labelled = store.read(
        "segments",
        columns=["segment", "label", "split"],
        version=versions.get("segments"),
        where=pc.field("split") != "",
    )
    if not labelled.num_rows and store.read("segments", columns=["segment"], version=versions.get("segments")).num_rows:
        raise InputError(
            f"{store.uri}: its segments have no split yet, since the ingest that decoded them was stopped; "
            "run the same posture ingest again"
        )
    hidden = set(left_out) if unlabelled or schema.UNLABELLED in (classes or ()) else {*left_out, schema.UNLABELLED}
    names = classes or tuple(sorted(set(labelled["label"].to_pylist()) - hidden))
    wanted = {
        segment: label
        for segment, label, side in zip(
            *(labelled[name].to_pylist() for name in ("segment", "label", "split")), strict=True
        )
        if side == split and label not in hidden
    }
    if unknown := sorted(set(wanted.values()) - set(names)):
        raise InputError(f"{store.uri}: the {split} split has the class {unknown[0]!r}, which this run does not know")
    clips = store.scan("clips", ["clip", "segment", "recipe", "__filename"], version=versions.get("clips"))
    recipe = _choose_recipe(store.uri, clips["recipe"], recipe)
    stored = zip(clips["clip"].to_pylist(), clips["segment"].to_pylist(), clips["recipe"].to_pylist(), strict=True)
    segment_of = {
        clip: segment for clip, segment, stored_recipe in stored if segment in wanted and stored_recipe == recipe
    }
    keys = sorted(segment_of)
    segment_ids = sorted(set(segment_of.values()))
    number_of = {segment: number for number, segment in enumerate(segment_ids)}
    label_of = {name: label for label, name in enumerate(names)}
    index = ClipIndex(
        store.uri,
        split,
        recipe,
        names,
        keys,
        np.array([label_of[wanted[segment_of[clip]]] for clip in keys], dtype=np.int64),
        np.array([number_of[segment_of[clip]] for clip in keys], dtype=np.int64),
        segment_ids,
        find_shards("clips", clips, keys),
        inputs,
    )
    return _with_flow(index, store, versions.get("flows"), flow) if "flow" in inputs else index


def clips_without_flow(store: Store, method: str) -> tuple[list[str], list[Shard]]:
    """Return ids and shards of all clips of the store that have no flow by `method` yet."""
    clips = store.scan("clips", ["clip", "__filename"])
    done = set(store.read("flows", columns=["clip"], where=pc.field("method") == method)["clip"].to_pylist())
    keys = sorted(set(clips["clip"].to_pylist()) - done)
    return keys, find_shards("clips", clips, keys)


def _with_flow(index: ClipIndex, store: Store, version: int | None, chosen: str | None) -> ClipIndex:
    """Return the index with its clips' flow. Raises InputError if flow is missing, or of several methods and none is
    chosen.
    """
    flows = (
        None if store.open("flows") is None else store.scan("flows", ["clip", "method", "__filename"], version=version)
    )
    counts = (
        {}
        if flows is None
        else {entry["values"]: entry["counts"] for entry in pc.value_counts(flows["method"]).to_pylist()}
    )
    if chosen is None and len(counts) > 1:
        raise InputError(
            f"{store.uri}: data.flow must name one of the methods whose optical flow is in this store: "
            f"{', '.join(sorted(counts))}"
        )
    method = chosen or next(iter(counts), "dis")
    shards = [] if flows is None else find_shards("flows", flows, index.keys, method=method)
    if missing := len(index) - sum(len(shard.rows) for shard in shards):
        raise InputError(
            f"{store.uri}: {missing} of {len(index)} {index.split} clips have no optical flow by {method}, "
            f"which this model reads; add it with: posture ingest --store {store.uri} --flow {method}"
        )
    return replace(index, flow=method, flow_shards=shards)


class Clips:
    """Clips in memory, by index. `load(input, shard number)` returns a shard's table; it is called once per shard."""

    def __init__(self, index: ClipIndex, load: Load) -> None:
        self.classes, self.keys, self.labels, self.segments = index.classes, index.keys, index.labels, index.segments
        self._inputs = {
            name: InMemory(index.shards_of(name), len(index), partial(load, name), StoredArrays)
            for name in index.inputs
        }

    def __len__(self) -> int:
        return len(self.keys)

    def clip(self, index: int) -> np.ndarray:
        """Return frames, uint8 (T, H, W, 3); the index's inputs must include "rgb". Raw frames are read-only views."""
        return self._inputs["rgb"][index]

    def flow(self, index: int) -> np.ndarray:
        """Return flow, uint8 (T - 1, H, W, 2), read-only; the index's inputs must include "flow"."""
        return self._inputs["flow"][index]


class StreamedClips(ShardStream):
    """Clips read from the store, for data larger than memory."""

    def __init__(self, index: ClipIndex) -> None:
        super().__init__(index.store_uri, _chunks(index), StoredArrays)
        self.classes, self.keys, self.labels, self.segments = index.classes, index.keys, index.labels, index.segments

    def __len__(self) -> int:
        return len(self.keys)


class StoredArrays:
    """Rows of a shard as arrays: frames (T, H, W, 3) of the table of clips, flow (T - 1, H, W, 2) of that of flows."""

    def __init__(self, table: pa.Table) -> None:
        binary = table["pixels" if "pixels" in table.column_names else "vectors"].chunk(0)
        _, ends, data = binary.buffers()  # views of the table's memory: a pyarrow scalar would copy
        ends, data = (
            np.frombuffer(ends, np.int32)[binary.offset : binary.offset + len(binary) + 1],
            np.frombuffer(data or b"", np.uint8),
        )
        self._bytes = [data[start:end] for start, end in itertools.pairwise(ends.tolist())]
        self._shapes = list(zip(*(table[name].to_pylist() for name in ("frames", "height", "width")), strict=True))
        self._offsets = table["offsets"].to_pylist() if "offsets" in table.column_names else None

    def __getitem__(self, row: int) -> np.ndarray:
        if self._offsets is None:
            frames, height, width = self._shapes[row]
            if self._bytes[row].size != frames * height * width * 2:
                raise InputError(
                    f"optical flow of the store has {self._bytes[row].size:,} bytes, which are not {frames} fields of "
                    f"{height} x {width} vectors"
                )
            flow = self._bytes[row].reshape(frames, height, width, 2)
            flow.flags.writeable = False
            return flow
        return decode_frames(self._bytes[row], self._offsets[row], self._shapes[row])


def _chunks(index: ClipIndex) -> list[Chunk]:
    """Return neighbouring rows of the first input's files; the other's files usually hold them in the same order."""
    first, *others = index.inputs
    pieces = cut_shards(index.shards_of(first), CHUNK_CLIPS)
    positions = [
        {
            clip: (shard, row)
            for shard in index.shards_of(name)
            for clip, row in zip(shard.indices.tolist(), shard.rows.tolist(), strict=True)
        }
        for name in others
    ]
    return [
        Chunk(piece.indices, [[piece], *(_holding(piece.indices, found) for found in positions)]) for piece in pieces
    ]


def _holding(indices: np.ndarray, positions: dict[int, tuple[Shard, int]]) -> list[Shard]:
    """Return the parts of shards that hold the clips `indices`."""
    by_file: dict[str, list[tuple[int, int]]] = {}
    for index in indices.tolist():
        shard, row = positions[index]
        by_file.setdefault(shard.file, []).append((row, index))
    table = positions[int(indices[0])][0].table
    return [
        Shard(file, *(np.array(column) for column in zip(*sorted(pairs), strict=True)), table=table)
        for file, pairs in by_file.items()
    ]


def _choose_recipe(uri: str, recipes: pa.ChunkedArray, chosen: str | None) -> str:
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(recipes).to_pylist()}
    if not counts:
        raise InputError(f"{uri}: the store holds no clips yet; add some with: posture ingest FOOTAGE --store {uri}")
    if chosen is None and len(counts) == 1:
        return next(iter(counts))
    if chosen is None or chosen not in counts:
        kept = ", ".join(f"{name} ({count} clips)" for name, count in sorted(counts.items()))
        raise InputError(f"{uri}: data.recipe must name one of the decode recipes in this store: {kept}")
    return chosen
