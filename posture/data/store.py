"""The store: Delta Lake tables below one folder or `s3://` prefix. Appends are atomic, versions stay readable.

Only one process writes at a time (`data/lease.py`); any number read. Rows are described in `data/rows.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from posture.data import rows
from posture.data.files import absolute, exists, is_remote, join, list_files, read_bytes, write_bytes
from posture.errors import InputError

FORGOTTEN = "_forgotten"
"""Folder of marks, one for each video that was forgotten."""


class Store:
    """The tables at `uri`. With `create=False` a missing store is refused (InputError)."""

    def __init__(self, uri: str, *, create: bool = False) -> None:
        self.uri = absolute(uri)
        if not create and not exists(join(self.uri, "videos", "_delta_log")):
            raise InputError(f"{uri}: there is no store here; make one with: posture ingest FOOTAGE --store {uri}")

    def table_uri(self, name: str) -> str:
        return join(self.uri, name)

    def open(self, name: str, *, version: int | None = None) -> Any | None:
        """The DeltaTable at `version` (None: newest), or None where it does not exist yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        try:
            return DeltaTable(self.table_uri(name), version=version)
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise InputError(f"{self.table_uri(name)}: version {version} cannot be read: {str(error).splitlines()[0]}") from None

    def create_tables(self) -> None:
        """Make the tables that are missing, all empty."""
        from deltalake import DeltaTable

        for name, schema in rows.TABLES.items():
            if self.open(name) is None:
                DeltaTable.create(self.table_uri(name), schema, mode="ignore")

    def versions(self) -> dict[str, int]:
        """The newest version of every table: what a run records of the footage it saw."""
        return {name: table.version() for name in rows.TABLES if (table := self.open(name)) is not None}

    def dataset(self, name: str, *, version: int | None = None) -> ds.Dataset:
        """The table as a pyarrow dataset, for filters, columns and row groups. Raises InputError where that version ended with a forgotten video."""
        if version is not None:
            oldest = max((mark["versions"].get(name, 0) for mark in self.forgotten().values()), default=0)
            if version < oldest:
                raise InputError(f"{self.uri}: version {version} of {name} ended when a video was forgotten, and {oldest} is the oldest that can be "
                                 f"read; what was trained on it can be judged on the newest: posture evaluate RUN --store {self.uri}")
        table = self.open(name, version=version)
        if table is None:
            raise InputError(f"{self.uri}: the store has no table {name!r}")
        return table.to_pyarrow_dataset(schema=rows.TABLES[name], filesystem=_folder(self.table_uri(name)))

    def read(self, name: str, *, columns: list[str] | None = None, version: int | None = None, where: Any = None) -> pa.Table:
        """Rows of a table; empty with its schema where it does not exist yet.

        `where` is an expression over any column but pixels and vectors. It is applied here: pyarrow cannot compare strings with the string views
        that deltalake gives as each file's statistics.
        """
        wanted = columns or rows.TABLES[name].names
        if self.open(name) is None:
            return rows.TABLES[name].empty_table().select(wanted)
        if where is None:
            return self.dataset(name, version=version).to_table(columns=wanted)
        needed = [column for column in rows.TABLES[name].names if column in wanted or column not in ("pixels", "vectors")]
        return self.dataset(name, version=version).to_table(columns=needed).filter(where).select(wanted)

    def append(self, name: str, table: pa.Table) -> None:
        """Add rows in one commit; no rows make no commit."""
        from deltalake import write_deltalake

        if table.num_rows:
            write_deltalake(self.table_uri(name), table.cast(rows.TABLES[name]), mode="append")

    def upsert(self, name: str, table: pa.Table, *, keys: list[str]) -> None:
        """Replace the rows that share `keys` with one of `table`, add the others: one commit."""
        if not table.num_rows:
            return
        match = " AND ".join(f"old.{key} = new.{key}" for key in keys)
        delta = self.open(name)
        delta.merge(table.cast(rows.TABLES[name]), match, source_alias="new", target_alias="old") \
            .when_matched_update_all().when_not_matched_insert_all().execute()

    def delete(self, name: str, key: str, values: list[str]) -> None:
        """Remove the rows whose `key` is among `values` from the newest version; earlier ones keep them."""
        if values:
            self.open(name).delete(f"{key} IN ({', '.join(repr(value) for value in values)})")

    def commit_files(self, name: str, files: Iterable[dict[str, Any]]) -> None:
        """Add Parquet files that workers wrote into the table's folder: `path` below it, `bytes`, `rows`. One commit."""
        from deltalake.transaction import AddAction

        now = int(time.time() * 1000)
        actions = [AddAction(file["path"], file["bytes"], {}, now, True, json.dumps({"numRecords": file["rows"]})) for file in files]
        if actions:
            self.open(name).create_write_transaction(actions, mode="append", schema=rows.TABLES[name], partition_by=None)

    def remove_orphans(self, name: str) -> int:
        """Delete the files that the newest version does not name; returns how many.

        In an append-only table those are what a killed writer left. In any other it ends all earlier versions.
        """
        table = self.open(name)
        everything = {"retention_hours": 0, "enforce_retention_duration": False, "full": True}
        if table is None or not table.vacuum(dry_run=True, **everything):
            return 0
        return len(table.vacuum(dry_run=False, **everything))

    def forget(self, video: str, *, bytes: int, versions: dict[str, int] | None = None) -> None:
        """Remember that the video of this content hash is never to be taken in again, and the `versions` before which no table can be read."""
        mark = {"video": video, "bytes": bytes, "time": time.time(), "versions": versions or {}}
        write_bytes(join(self.uri, FORGOTTEN, f"{video}.json"), json.dumps(mark).encode())

    def forgotten(self) -> dict[str, dict[str, Any]]:
        """Videos that are never to be taken in again, by content hash: {video, bytes, time, versions}."""
        place = join(self.uri, FORGOTTEN)
        marks = [json.loads(read_bytes(file.uri) or b"{}") for file in list_files(place, suffixes=frozenset({".json"}))] if exists(place) else []
        return {mark["video"]: mark for mark in marks if mark}

    def history(self, name: str) -> list[dict[str, Any]]:
        """Commits of a table, newest first."""
        table = self.open(name)
        return table.history() if table else []

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Version, rows and bytes of every table."""
        sizes = {}
        for name in rows.TABLES:
            if (table := self.open(name)) is not None:
                actions = pa.table(table.get_add_actions(flatten=True))
                counts = [pc.sum(actions[column]).as_py() or 0 for column in ("num_records", "size_bytes")]
                sizes[name] = (table.version(), *counts)
        return sizes


def _folder(uri: str) -> Any | None:
    """A local table's folder for pyarrow; None leaves it to deltalake, in a bucket.

    With deltalake's own, Arrow's threads hold memory of Python's, and where one of them still does when the process ends, it ends with an abort.
    """
    import pyarrow.fs as fs

    return None if is_remote(uri) else fs.SubTreeFileSystem(uri, fs.LocalFileSystem())


def filesystem(uri: str) -> tuple[Any, str]:
    """A pyarrow file system and the path in it, for workers that write Parquet themselves."""
    import pyarrow.fs as fs

    if not is_remote(uri):
        return fs.LocalFileSystem(), uri
    return fs.FileSystem.from_uri(uri)
