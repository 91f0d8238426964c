"""Rows that one task writes as a Parquet file in a table's folder. No version of the table names it until a commit."""

# pyarrow.compute makes its functions when it is imported; a writer takes names of columns for its statistics too
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from posture.data.store import schema
from posture.data.store.tables import filesystem, writing

LAYOUTS = {"clips": (8, ["clip", "segment", "recipe"]), "flows": (8, ["clip", "method"]), "images": (32, ["image"])}
"""{table: (rows that a streaming reader reads at once, columns with statistics)}. The first column is unique."""


class ParquetPart:
    """Writer of rows, one source file after the other. The rows of a file that turns out bad can be taken back.

    Writing raises InputError if the storage is full: that is not the footage's fault.
    """

    def __init__(self, store_uri: str, table: str, *, compress: bool = False) -> None:
        self._table, self._schema = f"{store_uri}/{table}", schema.TABLES[table]
        self._row_group, self._statistics = LAYOUTS[table]
        self._files, self._folder = filesystem(self._table)
        self._compression = "zstd" if compress else "none"
        self._writer: pq.ParquetWriter | None = None
        self._key = self._statistics[0]
        self._buffer: list[dict[str, Any]] = []
        self._of_file: set[str] = set()
        self._written: set[str] = set()
        self._dropped: set[str] = set()
        self._rename()

    def begin(self) -> None:
        """Begin a source file: the rows that follow belong to it."""
        self._of_file = set()

    def undo(self) -> None:
        """Take back the rows of the current source file, because it is bad."""
        self._dropped |= self._of_file
        self._buffer = [row for row in self._buffer if row[self._key] not in self._of_file]

    def write(self, row: dict[str, Any]) -> None:
        """Add a row. Columns it lacks are null."""
        self._buffer.append(row)
        self._of_file.add(row[self._key])
        if len(self._buffer) >= self._row_group:
            self._flush()

    def close(self) -> dict[str, Any] | None:
        """Finish the file and return {path, bytes, rows}. Return None, without a file, if it has no rows."""
        self._flush()
        if self._writer is None:
            return None
        with writing(self._table, self._files, self._path):
            self._writer.close()
            if self._dropped & self._written:
                self._rewrite()
            count = len(self._written - self._dropped)
            if not count:
                self._files.delete_file(self._path)
                return None
            return {"path": self._name, "bytes": self._files.get_file_info(self._path).size, "rows": count}

    def _rename(self) -> None:
        self._name = f"part-{uuid.uuid4().hex}.parquet"
        self._path = f"{self._folder}/{self._name}"

    def _open(self) -> pq.ParquetWriter:
        return pq.ParquetWriter(
            self._path,
            self._schema,
            filesystem=self._files,
            compression=self._compression,
            compression_level=1 if self._compression == "zstd" else None,
            use_dictionary=False,
            write_statistics=self._statistics,
        )

    def _flush(self) -> None:
        if self._buffer:
            with writing(self._table, self._files, self._path):
                self._writer = self._writer or self._open()
                self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=self._schema))
            self._written.update(row[self._key] for row in self._buffer)
            self._buffer = []

    def _rewrite(self) -> None:
        """Leave out rows that were written before their source file turned out bad."""
        old = self._path
        self._rename()
        with pq.ParquetFile(self._files.open_input_file(old)) as source, self._open() as target:
            for group in range(source.num_row_groups):
                table = source.read_row_group(group)
                kept = table.filter(pc.invert(pc.is_in(table[self._key], pa.array(sorted(self._dropped)))))
                if kept.num_rows:
                    target.write_table(kept)
        self._files.delete_file(old)
