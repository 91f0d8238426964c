"""Stored clips as training reads them: an index of what the run sees, and two ways to get at the frames.

`Footage` holds every clip in memory (this process's, or Ray's object store): any clip at any time, so the order is ours.
`StreamedFootage` reads the store from one end to the other in a shuffled order: for footage larger than memory.
Legend: T stored frames, H x W stored pixels; a clip's index is its position in the sorted list of clip ids.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posture.data import rows
from posture.data.cutting import decode_frames
from posture.data.store import Store, filesystem
from posture.errors import InputError

COLUMNS = ["frames", "height", "width", "offsets", "pixels"]
CHUNK_CLIPS = 8
"""Clips read at once while streaming: a row group as ingest writes it."""
WINDOW_CHUNKS = 8
"""Chunks shuffled together while streaming."""


@dataclass(frozen=True)
class Shard:
    """The wanted clips of one Parquet file: `rows` of the file (ascending) hold the clips `indices`."""

    file: str
    rows: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True)
class FootageIndex:
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

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def bytes(self) -> int:
        """Size of all frames in memory (an upper bound: short segments have fewer frames)."""
        return len(self) * rows.DecodeRecipe.parse(self.recipe).clip_bytes

    def part(self, indices: np.ndarray) -> FootageIndex:
        """The same for the clips `indices` alone (ascending); they are numbered anew, segments keep their numbers."""
        place = {int(index): number for number, index in enumerate(indices)}
        shards = []
        for shard in self.shards:
            kept = np.array([row for row, index in enumerate(shard.indices.tolist()) if index in place], dtype=np.int64)
            if len(kept):
                renumbered = np.array([place[int(index)] for index in shard.indices[kept]], dtype=np.int64)
                shards.append(Shard(shard.file, shard.rows[kept], renumbered))
        return replace(self, keys=[self.keys[index] for index in indices], labels=self.labels[indices], segments=self.segments[indices], shards=shards)


def index_footage(store: Store, split: str, *, versions: dict[str, int] | None = None, recipe: str | None = None,
                  classes: tuple[str, ...] | None = None) -> FootageIndex:
    """The clips of `split` (train, val or test). `versions` pins the tables; `classes` fixes names and order (None: all labels, sorted).

    Raises InputError where the store has no clips, has several recipes and none is chosen, or has labels that `classes` lacks.
    """
    versions = versions or store.versions()
    labelled = store.read("segments", columns=["segment", "label", "split"], version=versions.get("segments"))
    names = classes or tuple(sorted(set(labelled["label"].to_pylist())))
    wanted = {segment: label for segment, label, side in zip(*(labelled[name].to_pylist() for name in ("segment", "label", "split")), strict=True)
              if side == split}
    if unknown := sorted(set(wanted.values()) - set(names)):
        raise InputError(f"{store.uri}: the {split} split has the class {unknown[0]!r}, which this run does not know")
    clips = store.dataset("clips", version=versions.get("clips")).to_table(columns=["clip", "segment", "recipe", "__filename"])
    recipe = _choose_recipe(store.uri, clips["recipe"], recipe)
    files = clips["__filename"].to_pylist()
    row_of: dict[str, int] = {}
    found: list[tuple[str, str, str, int]] = []
    for clip, segment, stored_recipe, file in zip(clips["clip"].to_pylist(), clips["segment"].to_pylist(), clips["recipe"].to_pylist(), files, strict=True):
        row = row_of[file] = row_of.get(file, -1) + 1
        if segment in wanted and stored_recipe == recipe:
            found.append((clip, segment, file, row))
    found.sort()
    segment_ids = sorted({segment for _, segment, _, _ in found})
    number = {segment: place for place, segment in enumerate(segment_ids)}
    by_file: dict[str, list[tuple[int, int]]] = {}
    for place, (_, _, file, row) in enumerate(found):
        by_file.setdefault(file, []).append((row, place))
    shards = [Shard(file.rpartition("/")[2], *(np.array(column) for column in zip(*sorted(pairs), strict=True))) for file, pairs in sorted(by_file.items())]
    label_of = {name: place for place, name in enumerate(names)}
    return FootageIndex(store.uri, split, recipe, names, [clip for clip, *_ in found],
                        np.array([label_of[wanted[segment]] for _, segment, _, _ in found], dtype=np.int64),
                        np.array([number[segment] for _, segment, _, _ in found], dtype=np.int64), segment_ids, shards)


def read_shard(store_uri: str, shard: Shard) -> pa.Table:
    """The clips of a shard in the order of its rows; only the row groups that hold one of them are read."""
    import pyarrow.parquet as pq

    files, folder = filesystem(f"{store_uri}/clips")
    with pq.ParquetFile(files.open_input_file(f"{folder}/{shard.file}"), pre_buffer=True) as source:
        starts = np.cumsum([0] + [source.metadata.row_group(group).num_rows for group in range(source.num_row_groups)])
        group_of = np.searchsorted(starts, shard.rows, side="right") - 1
        groups = np.unique(group_of)
        offset = dict(zip(groups.tolist(), np.cumsum([0, *(starts[groups + 1] - starts[groups])[:-1]]).tolist(), strict=True))
        places = [offset[group] + row - starts[group] for group, row in zip(group_of.tolist(), shard.rows.tolist(), strict=True)]
        table = source.read_row_groups(groups.tolist(), columns=COLUMNS)
    return (table if places == list(range(table.num_rows)) else table.take(pa.array(places))).combine_chunks()


class Footage:
    """Clips in memory, by index. `load(shard number)` gives a shard's table; it is called once per shard, when first needed."""

    def __init__(self, index: FootageIndex, load: Callable[[int], pa.Table]) -> None:
        self.classes, self.keys, self.labels, self.segments = index.classes, index.keys, index.labels, index.segments
        self._load = load
        self._columns: dict[int, dict[str, Any]] = {}
        self._shard_of = np.empty(len(index), np.int64)
        self._row_of = np.empty(len(index), np.int64)
        for number, shard in enumerate(index.shards):
            self._shard_of[shard.indices] = number
            self._row_of[shard.indices] = np.arange(len(shard.indices))

    def __len__(self) -> int:
        return len(self.keys)

    def clip(self, index: int) -> np.ndarray:
        """uint8 (T, H, W, 3); raw frames are a read-only view of the table."""
        number = int(self._shard_of[index])
        if number not in self._columns:
            self._columns[number] = _columns(self._load(number))
        return _frames(self._columns[number], int(self._row_of[index]))


class StreamedFootage:
    """Clips from the store in a new shuffled order each epoch, never more than a window of them in memory."""

    def __init__(self, index: FootageIndex) -> None:
        self.classes, self.keys, self.labels, self.segments = index.classes, index.keys, index.labels, index.segments
        self._store_uri = index.store_uri
        self._chunks = [Shard(shard.file, shard.rows[at:at + CHUNK_CLIPS], shard.indices[at:at + CHUNK_CLIPS])
                        for shard in index.shards for at in range(0, len(shard.rows), CHUNK_CLIPS)]

    def __len__(self) -> int:
        return len(self.keys)

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Clips of the worker that gets most of them in this epoch."""
        return max(sum(len(chunk.rows) for chunk in self._share(epoch, rank, world_size, seed)) for rank in range(world_size))

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
        """This worker's (clip index, frames): over all workers every clip once. Chunks are dealt, then shuffled within a window."""
        chunks = self._share(epoch, rank, world_size, seed)
        generator = np.random.default_rng((seed % 2**64, epoch, rank, 1))
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="stream") as pool:
            windows = [chunks[at:at + WINDOW_CHUNKS] for at in range(0, len(chunks), WINDOW_CHUNKS)]
            read = [pool.submit(read_shard, self._store_uri, chunk) for chunk in (windows[0] if windows else ())]
            for number, window in enumerate(windows):
                tables = [job.result() for job in read]
                read = [pool.submit(read_shard, self._store_uri, chunk) for chunk in (windows[number + 1] if number + 1 < len(windows) else ())]
                columns = [_columns(table) for table in tables]
                clips = [(place, row) for place, chunk in enumerate(window) for row in range(len(chunk.rows))]
                for place, row in generator.permutation(clips).tolist():
                    yield int(window[place].indices[row]), _frames(columns[place], row)

    def _share(self, epoch: int, rank: int, world_size: int, seed: int) -> list[Shard]:
        order = np.random.default_rng((seed % 2**64, epoch)).permutation(len(self._chunks))
        return [self._chunks[place] for place in order[rank::world_size]]


def open_footage(index: FootageIndex, *, feed: str, memory_bytes: int | None = None) -> Footage | StreamedFootage:
    """The clips of this process alone: in memory where `feed` says so or, on `auto`, where they fit `memory_bytes` (half of what is free)."""
    room = available_memory() // 2 if memory_bytes is None else memory_bytes
    if feed == "stream" or (feed == "auto" and index.bytes > room):
        return StreamedFootage(index)
    with ThreadPoolExecutor(max_workers=4) as pool:
        tables = list(pool.map(lambda shard: read_shard(index.store_uri, shard), index.shards))
    return Footage(index, tables.__getitem__)


def available_memory() -> int:
    """Bytes this machine could still give."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _columns(table: pa.Table) -> dict[str, Any]:
    """A shard's small columns as lists, its pixels as views of the table's memory (a pyarrow scalar would copy them)."""
    pixels = table["pixels"].chunk(0)
    _, ends, data = pixels.buffers()
    ends, data = np.frombuffer(ends, np.int32)[pixels.offset:pixels.offset + len(pixels) + 1], np.frombuffer(data, np.uint8)
    views = [data[start:end] for start, end in itertools.pairwise(ends.tolist())]
    return {name: views if name == "pixels" else table[name].to_pylist() for name in COLUMNS}


def _frames(columns: dict[str, Any], row: int) -> np.ndarray:
    shape = columns["frames"][row], columns["height"][row], columns["width"][row]
    return decode_frames(columns["pixels"][row], columns["offsets"][row], shape)


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
