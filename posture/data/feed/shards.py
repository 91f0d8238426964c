"""Parts of the store as training reads them, for clips and images alike.

An index lists the clips (or images) of one split. A shard is the part of it that lies in one Parquet file. `InMemory`
holds shards in memory, this process's or Ray's object store; `ShardStream` reads them in a shuffled order, a few at a
time. "Clip" here means a row of the table: a clip, its optical flow, or an image.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from posture.data.store import schema
from posture.data.store.checked import readable, refuse_odd_values
from posture.data.store.tables import filesystem

COLUMNS = {
    "clips": ["frames", "height", "width", "offsets", "pixels"],
    "flows": ["frames", "height", "width", "vectors"],
    "images": ["pixels"],
}
WINDOW_CHUNKS = 8
"""Number of chunks shuffled together while streaming."""

Load = Callable[[str, int], pa.Table]
"""Function that returns the table of an input's shard, given the input's name and the shard's number."""


@dataclass(frozen=True)
class Shard:
    """Part of one Parquet file of a table: `rows` of the file (ascending) hold the clips `indices`."""

    file: str
    rows: np.ndarray
    indices: np.ndarray
    table: str = "clips"


class Index(Protocol):
    """Clips or images of one split of a store, at fixed versions of its tables, and where their bytes lie."""

    store_uri: str
    split: str
    classes: tuple[str, ...]
    keys: list[str]
    inputs: tuple[str, ...]
    """Inputs that are read of each clip, in this order."""

    def __len__(self) -> int: ...

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of clips, segments and the like, for records and reports."""
        ...

    @property
    def bytes(self) -> int:
        """Maximum size in memory."""
        ...

    def shards_of(self, name: str) -> list[Shard]:
        """Return the shards of the input `name`."""
        ...

    def part(self, indices: np.ndarray) -> Any:
        """Return an index of the clips `indices` (ascending), numbered anew."""
        ...

    def in_memory(self, load: Load) -> Any:
        """Return the clips as a source in memory; `load` is called once per shard, when first needed."""
        ...

    def streamed(self) -> Any:
        """Return the clips as a source that reads the store, for data larger than memory."""
        ...


def open_index(index: Index, *, feed: str, memory_bytes: int | None = None) -> Any:
    """Return the index's clips as a source for this process.

    They are in memory if `feed` is "materialize", or if it is "auto" and they fit `memory_bytes` (default: half of the
    free memory). Otherwise they are streamed.
    """
    room = available_memory() // 2 if memory_bytes is None else memory_bytes
    if feed == "stream" or (feed == "auto" and index.bytes > room):
        return index.streamed()
    with ThreadPoolExecutor(max_workers=4) as pool:
        read = partial(read_shard, index.store_uri)
        tables = {name: list(pool.map(read, index.shards_of(name))) for name in index.inputs}
    return index.in_memory(lambda name, number: tables[name][number])


def available_memory() -> int:
    """Return the free memory of this machine in bytes."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def find_shards(
    name: str, table: pa.Table, keys: list[str], *, key: str = "clip", method: str | None = None
) -> list[Shard]:
    """Return the shards of the store's table `name` that hold the clips `keys`, numbered in that order.

    `table` has every row of that table, file by file, and `key` is its column with the keys. With `method`, only rows
    of that method count.
    """
    index_of = {clip: index for index, clip in enumerate(keys)}
    row_of: dict[str, int] = {}
    by_file: dict[str, list[tuple[int, int]]] = {}
    methods = table["method"].to_pylist() if method else [None] * table.num_rows
    for clip, file, its_method in zip(table[key].to_pylist(), table["__filename"].to_pylist(), methods, strict=True):
        row = row_of[file] = row_of.get(file, -1) + 1
        if clip in index_of and its_method == method:
            by_file.setdefault(file, []).append((row, index_of[clip]))
    return [
        Shard(file.rpartition("/")[2], *(np.array(column) for column in zip(*pairs, strict=True)), table=name)
        for file, pairs in sorted(by_file.items())
    ]


def part_of_shards(shards: list[Shard], indices: np.ndarray) -> list[Shard]:
    """Return the shards of the clips `indices`, which are numbered anew, in that order."""
    new_index = {int(index): number for number, index in enumerate(indices)}
    parts = []
    for shard in shards:
        chosen = np.array([row for row, old in enumerate(shard.indices.tolist()) if old in new_index], dtype=np.int64)
        if len(chosen):
            renumbered = np.array([new_index[int(old)] for old in shard.indices[chosen]], dtype=np.int64)
            parts.append(replace(shard, rows=shard.rows[chosen], indices=renumbered))
    return parts


def read_shard(store_uri: str, shard: Shard) -> pa.Table:
    """Return the stored columns of a shard's rows, in their order. Only row groups that hold one of them are read."""
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
            positions = [
                offset[group] + row - starts[group]
                for group, row in zip(group_of.tolist(), shard.rows.tolist(), strict=True)
            ]
            table = source.read_row_groups(groups.tolist(), columns=wanted.names)
        # after rows were removed or replaced, deltalake has written views of binaries
        table = table.select(wanted.names).cast(wanted)
        refuse_odd_values(table, where)
        return (table if positions == list(range(table.num_rows)) else table.take(pa.array(positions))).combine_chunks()


class Rows(Protocol):
    """Rows of a shard as arrays."""

    def __getitem__(self, row: int) -> np.ndarray: ...


class InMemory:
    """One input of `count` clips in memory, by clip index. `stored` turns a table's rows into arrays. Thread-safe."""

    def __init__(
        self, shards: list[Shard], count: int, load: Callable[[int], pa.Table], stored: Callable[[pa.Table], Rows]
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
    """Clips that are streamed together."""

    indices: np.ndarray
    shards: list[list[Shard]]
    """For each input, the shards that hold it."""


def cut_shards(shards: list[Shard], size: int) -> list[Shard]:
    """Return the shards cut into pieces of at most `size` neighbouring rows."""
    return [
        replace(shard, rows=shard.rows[at : at + size], indices=shard.indices[at : at + size])
        for shard in shards
        for at in range(0, len(shard.rows), size)
    ]


class ShardStream:
    """Chunks of a store in a new shuffled order each epoch, with at most two windows of them in memory.

    `stored` turns a table's rows into arrays.
    """

    def __init__(self, store_uri: str, chunks: list[Chunk], stored: Callable[[pa.Table], Rows]) -> None:
        self._store_uri, self._chunks, self._stored = store_uri, chunks, stored

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Return the maximum number of clips that a worker gets in this epoch."""
        return max(
            sum(len(chunk.indices) for chunk in self._share(epoch, rank, world_size, seed))
            for rank in range(world_size)
        )

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield this worker's clips as (index, *arrays), with an array for each of the index's inputs.

        The arrays are uint8: frames (T, H, W, 3), flow (T - 1, H, W, 2), or an encoded image (bytes,). Over all workers
        every clip comes once. Chunks are dealt to the workers, then shuffled within a window.
        """
        chunks = self._share(epoch, rank, world_size, seed)
        generator = np.random.default_rng((seed % 2**64, epoch, rank, 1))
        with ThreadPoolExecutor(max_workers=4, thread_name_prefix="stream") as pool:
            windows = [chunks[at : at + WINDOW_CHUNKS] for at in range(0, len(chunks), WINDOW_CHUNKS)]
            read = [pool.submit(self._read, chunk) for chunk in (windows[0] if windows else ())]
            for count, window in enumerate(windows, start=1):
                inputs = [job.result() for job in read]
                read = [pool.submit(self._read, chunk) for chunk in (windows[count] if count < len(windows) else ())]
                clips = [(number, index) for number, chunk in enumerate(window) for index in chunk.indices.tolist()]
                for number, index in generator.permutation(clips).tolist():
                    yield index, *(rows[row] for rows, row in (held[index] for held in inputs[number]))

    def _share(self, epoch: int, rank: int, world_size: int, seed: int) -> list[Chunk]:
        order = np.random.default_rng((seed % 2**64, epoch)).permutation(len(self._chunks))
        return [self._chunks[number] for number in order[rank::world_size]]

    def _read(self, chunk: Chunk) -> list[dict[int, tuple[Rows, int]]]:
        """Return, for each input, the rows and the row number of each clip."""
        held = []
        for shards in chunk.shards:
            tables = [(shard, self._stored(read_shard(self._store_uri, shard))) for shard in shards]
            held.append({
                index: (rows, row) for shard, rows in tables for row, index in enumerate(shard.indices.tolist())
            })
        return held
