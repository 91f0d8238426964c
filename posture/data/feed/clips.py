"""Stored clips as training reads them: an index of what the run sees, and two ways to get at the frames.

`Clips` holds every clip in memory (this process's, or Ray's object store): any clip at any time, so the order is
ours. `StreamedClips` reads the store from one end to the other in a shuffled order: for footage larger than memory.
Of a clip only what the model takes is read: "rgb", its frames, "flow", the optical flow between them
(`posture/data/decode/optical_flow.py`), or both. Legend: T stored frames, H x W stored pixels; a clip's index is its position in the
sorted list of clip ids.
"""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posture.data.store import schema
from posture.data.store.checked import readable, refuse_odd_values
from posture.data.store.frame_codec import decode_frames
from posture.data.store.tables import Store, filesystem
from posture.errors import InputError

COLUMNS = {
    "clips": ["frames", "height", "width", "offsets", "pixels"],
    "flows": ["frames", "height", "width", "vectors"],
    "images": ["pixels"],
}
CHUNK_CLIPS = 8
"""Clips read at once while streaming: a row group as ingest writes it."""
WINDOW_CHUNKS = 8
"""Chunks shuffled together while streaming."""


@dataclass(frozen=True)
class Shard:
    """The wanted clips (of `images`: images) of one Parquet file of a table: `rows` of the file (ascending) hold the
    clips `indices`.
    """

    file: str
    rows: np.ndarray
    indices: np.ndarray
    table: str = "clips"


@dataclass(frozen=True)
class ClipIndex:
    """Which clips one split of a store has, at fixed versions of its tables, and where their frames lie."""

    store_uri: str
    split: str
    recipe: str
    classes: tuple[str, ...]
    keys: list[str]
    labels: np.ndarray  # (clips,) int64
    segments: np.ndarray  # (clips,) int64, position in segment_ids
    segment_ids: list[str]
    shards: list[Shard]
    inputs: tuple[str, ...] = ("rgb",)
    """What is read of a clip, in this order."""
    flow: str | None = None
    """The flow's method, where it is read."""
    flow_shards: list[Shard] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def counts(self) -> dict[str, int]:
        """How much that is, for records and reports."""
        return {"clips": len(self), "segments": len(self.segment_ids)}

    @property
    def bytes(self) -> int:
        """Size in memory of what is read (an upper bound: short segments have fewer frames)."""
        recipe = schema.DecodeRecipe.parse(self.recipe)
        sizes = {"rgb": recipe.clip_bytes, "flow": (recipe.frames - 1) * recipe.height * recipe.width * 2}
        return len(self) * sum(sizes[name] for name in self.inputs)

    def shards_of(self, name: str) -> list[Shard]:
        """Where the input `name` lies."""
        return self.flow_shards if name == "flow" else self.shards

    def part(self, indices: np.ndarray) -> ClipIndex:
        """The same for the clips `indices` alone (ascending); they are numbered anew, segments keep their numbers."""
        return replace(
            self,
            keys=[self.keys[index] for index in indices],
            labels=self.labels[indices],
            segments=self.segments[indices],
            shards=part_of_shards(self.shards, indices),
            flow_shards=part_of_shards(self.flow_shards, indices),
        )


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
) -> ClipIndex:
    """The clips of `split` (train, val or test). `versions` pins the tables; `classes` fixes names and order (None: all
    labels, sorted).

    Clips of the classes `left_out` are no part of it. `inputs` are the model's, and `flow` the method it reads where
    the store has flow by several.
    Raises InputError where the store has no clips, has several recipes and none is chosen, has labels that `classes`
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
            f"{store.uri}: its segments have no split yet, since the ingest that decoded them was stopped; run the same posture ingest again"
        )
    names = classes or tuple(sorted(set(labelled["label"].to_pylist()) - set(left_out)))
    wanted = {
        segment: label
        for segment, label, side in zip(
            *(labelled[name].to_pylist() for name in ("segment", "label", "split")), strict=True
        )
        if side == split and label not in left_out
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
    number = {segment: place for place, segment in enumerate(segment_ids)}
    label_of = {name: place for place, name in enumerate(names)}
    index = ClipIndex(
        store.uri,
        split,
        recipe,
        names,
        keys,
        np.array([label_of[wanted[segment_of[clip]]] for clip in keys], dtype=np.int64),
        np.array([number[segment_of[clip]] for clip in keys], dtype=np.int64),
        segment_ids,
        find_shards("clips", clips, keys),
        inputs,
    )
    return _with_flow(index, store, versions.get("flows"), flow) if "flow" in inputs else index


def clips_without_flow(store: Store, method: str) -> tuple[list[str], list[Shard]]:
    """All clips of the store that have no flow by `method` yet: their ids, and where their frames lie."""
    clips = store.scan("clips", ["clip", "__filename"])
    done = set(store.read("flows", columns=["clip"], where=pc.field("method") == method)["clip"].to_pylist())
    keys = sorted(set(clips["clip"].to_pylist()) - done)
    return keys, find_shards("clips", clips, keys)


def find_shards(
    name: str, table: pa.Table, keys: list[str], *, key: str = "clip", method: str | None = None
) -> list[Shard]:
    """The files of the store's table `name` in which the clips `keys` lie, numbered in that order; `table` has its
    every row, file by file.

    `key` is the column that holds the keys.
    """
    place = {clip: index for index, clip in enumerate(keys)}
    row_of: dict[str, int] = {}
    by_file: dict[str, list[tuple[int, int]]] = {}
    methods = table["method"].to_pylist() if method else [None] * table.num_rows
    for clip, file, its_method in zip(table[key].to_pylist(), table["__filename"].to_pylist(), methods, strict=True):
        row = row_of[file] = row_of.get(file, -1) + 1
        if clip in place and its_method == method:
            by_file.setdefault(file, []).append((row, place[clip]))
    return [
        Shard(file.rpartition("/")[2], *(np.array(column) for column in zip(*pairs, strict=True)), name)
        for file, pairs in sorted(by_file.items())
    ]


def part_of_shards(shards: list[Shard], indices: np.ndarray) -> list[Shard]:
    """Where the clips `indices` alone lie; they are numbered anew, in that order."""
    place = {int(index): number for number, index in enumerate(indices)}
    parts = []
    for shard in shards:
        chosen = np.array([row for row, index in enumerate(shard.indices.tolist()) if index in place], dtype=np.int64)
        if len(chosen):
            renumbered = np.array([place[int(index)] for index in shard.indices[chosen]], dtype=np.int64)
            parts.append(replace(shard, rows=shard.rows[chosen], indices=renumbered))
    return parts


def _with_flow(index: ClipIndex, store: Store, version: int | None, chosen: str | None) -> ClipIndex:
    """The index with the places of its clips' flow. Raises InputError where that is missing, or is of several methods
    and none is chosen.
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
            f"{store.uri}: data.flow must name one of the methods whose optical flow is in this store: {', '.join(sorted(counts))}"
        )
    method = chosen or next(iter(counts), "dis")
    shards = [] if flows is None else find_shards("flows", flows, index.keys, method=method)
    if missing := len(index) - sum(len(shard.rows) for shard in shards):
        raise InputError(
            f"{store.uri}: {missing} of {len(index)} {index.split} clips have no optical flow by {method}, which this model reads; "
            f"add it with: posture ingest --store {store.uri} --flow {method}"
        )
    return replace(index, flow=method, flow_shards=shards)


def read_shard(store_uri: str, shard: Shard) -> pa.Table:
    """What is stored of a shard's clips, in the order of its rows; only the row groups that hold one of them are read."""
    import pyarrow.parquet as pq

    where = f"{store_uri}/{shard.table}/{shard.file}"
    files, folder = filesystem(f"{store_uri}/{shard.table}")
    wanted = pa.schema([schema.TABLES[shard.table].field(name) for name in COLUMNS[shard.table]])
    with readable(where, f"its {shard.table} cannot be read ({{}}); ingest the footage into a new store"):
        with pq.ParquetFile(files.open_input_file(f"{folder}/{shard.file}"), pre_buffer=True) as source:
            starts = np.cumsum(
                [0] + [source.metadata.row_group(group).num_rows for group in range(source.num_row_groups)]
            )
            group_of = np.searchsorted(starts, shard.rows, side="right") - 1
            groups = np.unique(group_of)
            offset = dict(
                zip(groups.tolist(), np.cumsum([0, *(starts[groups + 1] - starts[groups])[:-1]]).tolist(), strict=True)
            )
            places = [
                offset[group] + row - starts[group]
                for group, row in zip(group_of.tolist(), shard.rows.tolist(), strict=True)
            ]
            table = source.read_row_groups(groups.tolist(), columns=wanted.names)
        # where rows were removed or replaced, deltalake has written views of binaries
        table = table.select(wanted.names).cast(wanted)
        refuse_odd_values(table, where)
        return (table if places == list(range(table.num_rows)) else table.take(pa.array(places))).combine_chunks()


class Clips:
    """Clips in memory, by index. `load(input, shard number)` gives a shard's table; it is called once per shard, when
    first needed.
    """

    def __init__(self, index: ClipIndex, load: Callable[[str, int], pa.Table]) -> None:
        self.classes, self.keys, self.labels, self.segments = index.classes, index.keys, index.labels, index.segments
        self._inputs = {
            name: InMemory(index.shards_of(name), len(index), functools.partial(load, name)) for name in index.inputs
        }

    def __len__(self) -> int:
        return len(self.keys)

    def clip(self, index: int) -> np.ndarray:
        """uint8 (T, H, W, 3); raw frames are a read-only view of the table. Only where the index's inputs name "rgb"."""
        return self._inputs["rgb"][index]

    def flow(self, index: int) -> np.ndarray:
        """uint8 (T - 1, H, W, 2), a read-only view of the table. Only where the index's inputs name "flow"."""
        return self._inputs["flow"][index]


class ShardStream:
    """The rows of some chunks of a store in a new shuffled order each epoch, never more than a window of them in
    memory.

    `stored` makes a table's rows arrays.
    """

    def __init__(self, store_uri: str, chunks: list[Chunk], stored: Callable[[pa.Table], Rows]) -> None:
        self._store_uri, self._chunks, self._stored = store_uri, chunks, stored

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Clips of the worker that gets most of them in this epoch."""
        return max(
            sum(len(chunk.indices) for chunk in self._share(epoch, rank, world_size, seed))
            for rank in range(world_size)
        )

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """This worker's clips as (index, *arrays), an array for each of the index's inputs: uint8 frames (T, H, W, 3),
        flow (T - 1, H, W, 2); of images, the encoded bytes.

        Over all workers every clip comes once. Chunks are dealt, then shuffled within a window.
        """
        chunks = self._share(epoch, rank, world_size, seed)
        generator = np.random.default_rng((seed % 2**64, epoch, rank, 1))
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="stream") as pool:
            windows = [chunks[at : at + WINDOW_CHUNKS] for at in range(0, len(chunks), WINDOW_CHUNKS)]
            read = [pool.submit(self._read, chunk) for chunk in (windows[0] if windows else ())]
            for number, window in enumerate(windows):
                inputs = [job.result() for job in read]
                read = [
                    pool.submit(self._read, chunk)
                    for chunk in (windows[number + 1] if number + 1 < len(windows) else ())
                ]
                clips = [(place, index) for place, chunk in enumerate(window) for index in chunk.indices.tolist()]
                for place, index in generator.permutation(clips).tolist():
                    yield index, *(rows[row] for rows, row in (held[index] for held in inputs[place]))

    def _share(self, epoch: int, rank: int, world_size: int, seed: int) -> list[Chunk]:
        order = np.random.default_rng((seed % 2**64, epoch)).permutation(len(self._chunks))
        return [self._chunks[place] for place in order[rank::world_size]]

    def _read(self, chunk: Chunk) -> list[dict[int, tuple[Rows, int]]]:
        """For each input, where the array of each clip is."""
        held = []
        for shards in chunk.shards:
            tables = [(shard, self._stored(read_shard(self._store_uri, shard))) for shard in shards]
            held.append({
                index: (rows, row) for shard, rows in tables for row, index in enumerate(shard.indices.tolist())
            })
        return held


class StreamedClips(ShardStream):
    """Clips from the store, for footage larger than memory."""

    def __init__(self, index: ClipIndex) -> None:
        super().__init__(index.store_uri, _chunks(index), StoredArrays)
        self.classes, self.keys, self.labels, self.segments = index.classes, index.keys, index.labels, index.segments

    def __len__(self) -> int:
        return len(self.keys)


def open_footage(index: ClipIndex, *, feed: str, memory_bytes: int | None = None) -> Clips | StreamedClips:
    """The clips of this process alone: in memory where `feed` says so or, on `auto`, where they fit `memory_bytes`
    (half of what is free).
    """
    room = available_memory() // 2 if memory_bytes is None else memory_bytes
    if feed == "stream" or (feed == "auto" and index.bytes > room):
        return StreamedClips(index)
    with ThreadPoolExecutor(max_workers=4) as pool:
        tables = {
            name: list(pool.map(functools.partial(read_shard, index.store_uri), index.shards_of(name)))
            for name in index.inputs
        }
    return Clips(index, lambda name, number: tables[name][number])


def available_memory() -> int:
    """Bytes this machine could still give."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Rows(Protocol):
    """A shard's rows as arrays."""

    def __getitem__(self, row: int) -> np.ndarray: ...


class StoredArrays:
    """A shard's rows as arrays: frames (T, H, W, 3) of a table of clips, flow (T - 1, H, W, 2) of one of flows."""

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
                    f"optical flow of the store has {self._bytes[row].size:,} bytes, which are not {frames} fields of {height} x {width} vectors"
                )
            flow = self._bytes[row].reshape(frames, height, width, 2)
            flow.flags.writeable = False
            return flow
        return decode_frames(self._bytes[row], self._offsets[row], self._shapes[row])


class InMemory:
    """One input of `count` clips, by clip index; threads may share it. `stored` makes a table's rows arrays."""

    def __init__(
        self,
        shards: list[Shard],
        count: int,
        load: Callable[[int], pa.Table],
        stored: Callable[[pa.Table], Rows] = StoredArrays,
    ) -> None:
        self._load, self._stored = load, stored
        self._loaded: dict[int, Rows] = {}
        self._lock = threading.Lock()
        self._shard_of, self._row_of = np.empty(count, np.int64), np.empty(count, np.int64)
        for number, shard in enumerate(shards):
            self._shard_of[shard.indices], self._row_of[shard.indices] = number, np.arange(len(shard.indices))

    def __getitem__(self, index: int) -> np.ndarray:
        number = int(self._shard_of[index])
        if number not in self._loaded:
            with self._lock:
                if number not in self._loaded:
                    self._loaded[number] = self._stored(self._load(number))
        return self._loaded[number][int(self._row_of[index])]


@dataclass(frozen=True)
class Chunk:
    """Clips that are streamed together, and where each input of theirs lies."""

    indices: np.ndarray
    shards: list[list[Shard]]


def cut_shards(shards: list[Shard], size: int) -> list[Shard]:
    """Neighbours in the same file, at most `size` together."""
    return [
        replace(shard, rows=shard.rows[at : at + size], indices=shard.indices[at : at + size])
        for shard in shards
        for at in range(0, len(shard.rows), size)
    ]


def _chunks(index: ClipIndex) -> list[Chunk]:
    """Neighbours in the first input's files; the other one's files hold them in the same order, as a rule."""
    first, *others = index.inputs
    pieces = cut_shards(index.shards_of(first), CHUNK_CLIPS)
    places = [
        {
            clip: (shard, row)
            for shard in index.shards_of(name)
            for clip, row in zip(shard.indices.tolist(), shard.rows.tolist(), strict=True)
        }
        for name in others
    ]
    return [Chunk(piece.indices, [[piece], *(_holding(piece.indices, place) for place in places)]) for piece in pieces]


def _holding(indices: np.ndarray, places: dict[int, tuple[Shard, int]]) -> list[Shard]:
    """The parts of shards that hold the clips `indices`."""
    by_file: dict[str, list[tuple[int, int]]] = {}
    for index in indices.tolist():
        shard, row = places[index]
        by_file.setdefault(shard.file, []).append((row, index))
    table = places[int(indices[0])][0].table
    return [
        Shard(file, *(np.array(column) for column in zip(*sorted(pairs), strict=True)), table)
        for file, pairs in by_file.items()
    ]


def _choose_recipe(uri: str, recipes: pa.ChunkedArray, chosen: str | None) -> str:
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(recipes).to_pylist()}
    if not counts:
        raise InputError(f"{uri}: the store holds no clips yet; add some with: posture ingest FOOTAGE --store {uri}")
    if chosen is None and len(counts) == 1:
        return next(iter(counts))
    if chosen not in counts:
        kept = ", ".join(f"{name} ({count} clips)" for name, count in sorted(counts.items()))
        raise InputError(f"{uri}: data.recipe must name one of the decode recipes in this store: {kept}")
    return chosen
