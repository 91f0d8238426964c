"""What one task made, clips or flow, as a Parquet file in the table's folder, which no version of the table names until
it is committed.
"""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posture.data.decode.cut import Clip
from posture.data.decode.optical_flow import BOUND, flow_of_clip
from posture.data.feed.clips import StoredArrays
from posture.data.feed.shards import Shard, read_shard
from posture.data.store import schema
from posture.data.store.tables import filesystem, writing

ROW_GROUP_CLIPS = 8
"""Clips per Parquet row group: what a streaming reader takes at once."""


class Part:
    """Write clips file by file; a file that turns out bad is taken back, whatever was written of it.

    Writing raises InputError where storage takes no more: that is no footage's fault.
    """

    def __init__(self, store_uri: str, name: str, *, compress: bool) -> None:
        self._table = f"{store_uri}/clips"
        self._files, self._folder = filesystem(self._table)
        self._name, self._compression = name, "zstd" if compress else "none"
        self._writer: pq.ParquetWriter | None = None
        self._buffer: list[dict[str, Any]] = []
        self._written: Counter[str] = Counter()
        self._of_file: set[str] = set()
        self._dropped: set[str] = set()

    def begin(self) -> None:
        """The clips that follow belong to the next file."""
        self._of_file = set()

    def undo(self) -> None:
        """That file was bad: none of its clips count."""
        self._dropped |= self._of_file
        self._buffer = [row for row in self._buffer if row["segment"] not in self._of_file]

    def write(self, clip: Clip) -> None:
        self._buffer.append(clip.row | {"pixels": clip.pixels})
        self._of_file.add(clip.row["segment"])
        if len(self._buffer) >= ROW_GROUP_CLIPS:
            self._flush()

    def close(self) -> dict[str, Any] | None:
        """Finish the file: {path, bytes, rows}, or None (and no file) where nothing was written."""
        self._flush()
        if self._writer is None:
            return None
        with writing(self._table, self._files, self._path):
            self._writer.close()
            if self._dropped & set(self._written):
                self._rewrite()
            count = sum(count for segment, count in self._written.items() if segment not in self._dropped)
            if not count:
                self._files.delete_file(self._path)
                return None
            return {"path": self._name, "bytes": self._files.get_file_info(self._path).size, "rows": count}

    @property
    def _path(self) -> str:
        return f"{self._folder}/{self._name}"

    def _open(self) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            self._path,
            schema.CLIPS,
            filesystem=self._files,
            compression=self._compression,
            compression_level=1 if self._compression == "zstd" else None,
            use_dictionary=False,
            write_statistics=["clip", "segment", "recipe"],
        )

    def _flush(self) -> None:
        if self._buffer:
            with writing(self._table, self._files, self._path):
                self._writer = self._writer or self._open()
                self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=schema.CLIPS))
            self._written.update(row["segment"] for row in self._buffer)
            self._buffer = []

    def _rewrite(self) -> None:
        """Leave out clips that went to disk before their file turned out bad."""
        old = self._path
        self._name = f"part-{uuid.uuid4().hex}.parquet"
        with pq.ParquetFile(self._files.open_input_file(old)) as source, self._open() as target:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group)
                kept = table.filter(pc.invert(pc.is_in(table["segment"], pa.array(sorted(self._dropped)))))
                if kept.num_rows:
                    target.write_table(kept)
        self._files.delete_file(old)


def write_flow(store_uri: str, shard: Shard, keys: list[str], method: str) -> dict[str, Any]:
    """Compute the flow of a shard's clips, whose ids are `keys`, and write it in their order: {path, bytes, rows} of
    the file.

    Raises InputError where storage takes no more.
    """
    table, name = f"{store_uri}/flows", f"part-{uuid.uuid4().hex}.parquet"
    files, folder = filesystem(table)
    path = f"{folder}/{name}"
    clips = StoredArrays(read_shard(store_uri, shard))
    how = {
        "compression": "zstd",
        "compression_level": 1,
        "use_dictionary": False,
        "write_statistics": ["clip", "method"],
    }
    with writing(table, files, path), pq.ParquetWriter(path, schema.FLOWS, filesystem=files, **how) as writer:
        for first in range(0, len(keys), ROW_GROUP_CLIPS):
            group = [
                _flow_row(keys[place], clips[place], method)
                for place in range(len(keys))[first : first + ROW_GROUP_CLIPS]
            ]
            writer.write_table(pa.Table.from_pylist(group, schema=schema.FLOWS))
    return {"path": name, "bytes": files.get_file_info(path).size, "rows": len(keys)}


def _flow_row(clip: str, frames: np.ndarray, method: str) -> dict[str, Any]:
    flow = flow_of_clip(frames, method)
    length, height, width, _ = flow.shape
    return {
        "clip": clip,
        "method": method,
        "bound": BOUND,
        "frames": length,
        "height": height,
        "width": width,
        "vectors": flow.tobytes(),
    }
