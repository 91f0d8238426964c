"""The store: Delta Lake tables below a folder or an `s3://` prefix. Appends are atomic; old versions stay readable.

Only one process writes at a time (`data/store/lease.py`); any number may read. `data/store/schema.py` describes rows.
"""

# pyarrow.compute makes its functions when it is imported; a table that is changed exists
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from posture.data.store.checked import (
    Commit,
    Count,
    Name,
    Seconds,
    checked_json,
    checked_value,
    path_below,
    readable,
    refuse_links,
    refuse_odd_values,
)
from posture.data.store.files import (
    MAX_PAUSE_SECONDS,
    PATIENCE_SECONDS,
    absolute,
    exists,
    is_remote,
    join,
    list_files,
    plain,
    reachable,
    read_bytes,
    write_bytes,
)
from posture.data.store.schema import NULLABLE, TABLES
from posture.errors import InputError

COMMIT_TRIES = 3
"""Tries of a commit whose connection breaks."""
ARROW_TRIES = 11
"""Tries of a pyarrow request to a bucket. With pauses that double from 25 ms they take 51 s, near PATIENCE_SECONDS."""
FORGOTTEN = "_forgotten"
"""Folder of marks, one per forgotten video."""
DELETE_AT_ONCE = 2000
"""Maximum values in a predicate: with 100,000 deltalake's parser overflows the stack."""


class StoreMark(TypedDict):
    """Mark of a forgotten video."""

    video: Name
    """Content hash."""
    bytes: Count
    time: Seconds
    """Time of forgetting, in seconds since 1970."""
    versions: dict[str, Count]
    """Oldest readable version of each table; empty until the forgetting is complete."""


class Store:
    """The tables at `uri`. Raises InputError if the store is missing and `create` is False."""

    def __init__(self, uri: str, *, create: bool = False) -> None:
        self.uri = absolute(uri)
        if not create and not exists(join(self.uri, "videos", "_delta_log")):
            raise InputError(f"{uri}: there is no store here; make one with: posture ingest FOOTAGE --store {uri}")

    def table_uri(self, name: str) -> str:
        return join(self.uri, name)

    def open(self, name: str, *, version: int | None = None) -> Any | None:
        """Return the DeltaTable at `version` (None: the newest), or None if it does not exist yet.

        Raises InputError if it cannot be read, contains a symbolic link, or names a file outside itself.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        uri = path_below(self.uri, name)
        if not is_remote(uri):
            refuse_links(uri)
        try:
            with readable(uri, "cannot be read: {}" if version is None else f"version {version} cannot be read: {{}}"):
                table = DeltaTable(uri, version=version, storage_options=self._patience)
                paths = pa.table(table.get_add_actions())["path"].to_pylist()
        except TableNotFoundError:
            return None
        _refuse_outside(uri, paths)
        return table

    def create_tables(self) -> None:
        """Create missing tables, and add columns that tables of earlier versions lack, null in their rows."""
        from deltalake import DeltaTable, Schema

        for name, schema in TABLES.items():
            if (table := self.open(name)) is not None:
                held = {field.name for field in table.schema().fields}
                missing = [field for field in Schema.from_arrow(schema).fields if field.name not in held]
                if missing:
                    self._commit(
                        name,
                        lambda commit, name=name, missing=missing: self.open(name).alter.add_columns(
                            missing, commit_properties=commit
                        ),
                    )
            else:
                self._commit(
                    name,
                    lambda commit, name=name, schema=schema: DeltaTable.create(
                        self.table_uri(name),
                        schema,
                        mode="ignore",
                        storage_options=self._patience,
                        commit_properties=commit,
                    ),
                )

    def versions(self) -> dict[str, int]:
        """Return the newest version of every table, which a run records as the footage it saw."""
        return {name: table.version() for name in TABLES if (table := self.open(name)) is not None}

    def dataset(self, name: str, *, version: int | None = None) -> ds.Dataset:
        """Return the table as a pyarrow dataset, for filters, columns and row groups.

        Raises InputError if the table is missing, if the version ended because a video was forgotten, and as `open`
        does.
        """
        if version is not None:
            oldest = max((mark["versions"].get(name, 0) for mark in self.forgotten().values()), default=0)
            if version < oldest:
                raise InputError(
                    f"{self.uri}: version {version} of {name} cannot be read, because a video was forgotten; the "
                    f"oldest readable version is {oldest}. Evaluate what was trained on it on the newest version: "
                    f"posture evaluate RUN --store {self.uri}"
                )
        table = self.open(name, version=version)
        if table is None:
            raise InputError(f"{self.uri}: the store has no table {name!r}")
        return table.to_pyarrow_dataset(schema=TABLES[name], filesystem=_folder(self.table_uri(name)))

    def scan(self, name: str, columns: list[str], *, version: int | None = None) -> pa.Table:
        """Return columns of an existing table, `__filename` included if asked for, with each file's rows in order.

        Raises InputError as `dataset` does, if a file is missing or damaged, or if Posture does not write such a value.
        """
        with readable(self.table_uri(name)):
            table = self.dataset(name, version=version).to_table(columns=columns)
        refuse_odd_values(table, self.table_uri(name), nullable=NULLABLE.get(name, ()))
        return table

    def read(
        self, name: str, *, columns: list[str] | None = None, version: int | None = None, where: Any = None
    ) -> pa.Table:
        """Return rows of a table; empty, with its schema, if it does not exist yet. Raises InputError as `scan` does.

        `where` is an expression over any columns but pixels and vectors. It is applied here, because pyarrow cannot
        compare strings with the string views that deltalake gives as a file's statistics.
        """
        wanted = columns or TABLES[name].names
        if self.open(name) is None:
            return TABLES[name].empty_table().select(wanted)
        if where is None:
            return self.scan(name, wanted, version=version)
        needed = [column for column in TABLES[name].names if column in wanted or column not in ("pixels", "vectors")]
        return self.scan(name, needed, version=version).filter(where).select(wanted)

    def append(self, name: str, table: pa.Table) -> None:
        """Add rows in one commit, or none if there are no rows."""
        if table.num_rows:
            self._write(name, table, mode="append")

    def upsert(self, name: str, table: pa.Table, *, keys: list[str]) -> None:
        """Replace the rows that share `keys` with one of `table` and add the others, in one commit."""
        if not table.num_rows:
            return
        match = " AND ".join(f"old.{key} = new.{key}" for key in keys)
        self._commit(
            name,
            lambda commit: (
                self
                .open(name)
                .merge(
                    table.cast(TABLES[name]), match, source_alias="new", target_alias="old", commit_properties=commit
                )
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            ),
        )

    def delete(self, name: str, key: str, values: list[str]) -> None:
        """Remove the rows whose `key` is in `values` from the newest version; older ones keep them.

        One commit for every DELETE_AT_ONCE values.
        """
        for first in range(0, len(values), DELETE_AT_ONCE):
            chosen = f"{key} IN ({', '.join(map(sql_text, values[first : first + DELETE_AT_ONCE]))})"
            self._commit(name, lambda commit, chosen=chosen: self.open(name).delete(chosen, commit_properties=commit))

    def replace(self, name: str, table: pa.Table, *, key: str, values: list[str]) -> None:
        """Replace the rows whose `key` is in `values`, at most DELETE_AT_ONCE, by those of `table`, in one commit."""
        if not table.num_rows:
            return self.delete(name, key, values)
        predicate = f"{key} IN ({', '.join(map(sql_text, values))})"
        self._write(name, table, mode="overwrite", predicate=predicate)

    def refuse_undeletable(self, name: str) -> None:
        """Raise InputError if rows cannot be removed: the table is append-only or needs a newer writer."""
        if self.open(name) is not None:
            self._commit(name, lambda commit: self.open(name).delete("1 = 0", commit_properties=commit))

    def commit_files(self, name: str, files: Iterable[dict[str, Any]]) -> None:
        """Add Parquet files that workers wrote in the table's folder, in one commit: `path` in it, `bytes`, `rows`."""
        from deltalake.transaction import AddAction

        now = int(time.time() * 1000)
        actions = [
            AddAction(file["path"], file["bytes"], {}, now, True, json.dumps({"numRecords": file["rows"]}))
            for file in files
        ]
        if actions:
            self._commit(
                name,
                lambda commit: self.open(name).create_write_transaction(
                    actions, mode="append", schema=TABLES[name], partition_by=None, commit_properties=commit
                ),
            )

    def remove_orphans(self, name: str, *, earlier: bool = False) -> int:
        """Delete files that no version names, left by a killed writer; with `earlier`, also those that only old
        versions name.

        Returns the number of files.
        """
        if (table := self.open(name)) is None:
            return 0
        everything: dict[str, Any] = {"retention_hours": 0, "enforce_retention_duration": False, "full": True}
        with readable(self.table_uri(name)):
            orphans = table.vacuum(dry_run=True, **everything)
            if orphans and not earlier:
                everything["keep_versions"] = sorted(entry["version"] for entry in table.history())
                orphans = table.vacuum(dry_run=True, **everything)
        if orphans:
            self._commit(
                name, lambda commit: self.open(name).vacuum(dry_run=False, commit_properties=commit, **everything)
            )
        return len(orphans)

    def forget(self, video: str, *, bytes: int, versions: dict[str, int] | None = None) -> None:
        """Record that the video with this hash is not ingested again, and each table's oldest readable version."""
        mark = {"video": video, "bytes": bytes, "time": time.time(), "versions": versions or {}}
        write_bytes(path_below(self.uri, FORGOTTEN, f"{video}.json"), json.dumps(mark).encode())

    def forgotten(self) -> dict[str, StoreMark]:
        """Return the marks of forgotten videos by content hash. Raises InputError if `forget` writes no such mark."""
        folder = path_below(self.uri, FORGOTTEN)
        names = [file.relative for file in list_files(folder, suffixes=frozenset({".json"}))] if exists(folder) else []
        files = ((path_below(folder, name), read_bytes(path_below(folder, name))) for name in names)
        marks = [checked_json(content, uri, StoreMark) for uri, content in files if content]
        return {mark["video"]: mark for mark in marks}

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return the commits of a table, newest first. Raises InputError if its log is damaged."""
        table = self.open(name)
        with readable(self.table_uri(name)):
            commits = table.history() if table else []
        return checked_value(commits, f"{self.table_uri(name)}/_delta_log", list[Commit])

    def sizes(self) -> dict[str, tuple[int, int, int]]:
        """Return version, rows and bytes of every table."""
        sizes = {}
        for name in TABLES:
            if (table := self.open(name)) is not None:
                with readable(self.table_uri(name)):
                    actions = pa.table(table.get_add_actions(flatten=True))
                    counts = [pc.sum(actions[column]).as_py() or 0 for column in ("num_records", "size_bytes")]
                sizes[name] = (table.version(), *counts)
        return sizes

    @property
    def _patience(self) -> dict[str, str] | None:
        """Return deltalake's retry options for a bucket, or None for a folder."""
        if not is_remote(self.uri):
            return None
        return {
            "max_retries": "1000",
            "retry_timeout": f"{PATIENCE_SECONDS}s",
            "backoff_config.max_backoff": f"{MAX_PAUSE_SECONDS}s",
        }

    def _write(self, name: str, table: pa.Table, **options: Any) -> None:
        from deltalake import write_deltalake

        options |= {"storage_options": self._patience}
        table = table.cast(TABLES[name])
        self._commit(
            name, lambda commit: write_deltalake(self.table_uri(name), table, commit_properties=commit, **options)
        )

    def _commit(self, name: str, write: Callable[[Any], Any]) -> None:
        """Commit by `write(commit properties)`.

        A broken connection leaves open if the commit was made: the history is searched for it, and if it is not there,
        it is written again. Raises InputError if storage cannot be written.
        """
        from deltalake import CommitProperties
        from deltalake.exceptions import DeltaError

        mark = uuid.uuid4().hex
        for number in range(1, COMMIT_TRIES + 1):
            try:
                with reachable(self.table_uri(name), "written"):
                    write(CommitProperties(custom_metadata={"commit": mark}))
                return
            except (InputError, DeltaError) as error:
                if not is_remote(self.uri) or number == COMMIT_TRIES:
                    raise (
                        error
                        if isinstance(error, InputError)
                        else InputError(f"{self.table_uri(name)}: cannot be written: {plain(error)}")
                    ) from None
                if any(entry.get("commit") == mark for entry in self.history(name)):
                    return
            except Exception as error:  # of many classes, if the log or a file is damaged
                raise InputError(f"{self.table_uri(name)}: cannot be written: {plain(error)[:300]}") from None


def sql_text(value: str) -> str:
    """Quote a text for deltalake's SQL, in which only the quote needs escaping: it is written twice."""
    return "'" + value.replace("'", "''") + "'"


def _folder(uri: str) -> Any | None:
    """Return pyarrow's file system for a local table; None, in a bucket, uses deltalake's.

    With deltalake's file system, Arrow's threads hold Python memory. If one still does when the process ends, it
    aborts.
    """
    import pyarrow.fs as fs

    return None if is_remote(uri) else fs.SubTreeFileSystem(uri, fs.LocalFileSystem())


def _refuse_outside(table: str, paths: list[str]) -> None:
    """Raise InputError if one of `paths` leads out of `table`: a foreign store must not make us read other files."""
    for path in paths:
        plainly = PurePosixPath(unquote(path))
        if plainly.is_absolute() or ".." in plainly.parts or ":" in path.partition("/")[0]:
            raise InputError(
                f"{table}: the table names a file outside itself, {path}; a store's files must be below it"
            )


def filesystem(uri: str) -> tuple[Any, str]:
    """Return a pyarrow file system and the path in it, for workers that write Parquet themselves."""
    import pyarrow.fs as fs

    if not is_remote(uri):
        return fs.LocalFileSystem(), uri
    address = urlsplit(absolute(uri))
    endpoint = urlsplit(os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "https:")
    region = (
        os.environ.get("AWS_REGION")
        or os.environ.get("AWS_DEFAULT_REGION")
        or (None if endpoint.netloc else fs.resolve_s3_region(address.netloc))
    )
    bucket = fs.S3FileSystem(
        scheme=endpoint.scheme,
        endpoint_override=endpoint.netloc or None,
        region=region,
        retry_strategy=fs.AwsDefaultS3RetryStrategy(max_attempts=ARROW_TRIES),
    )
    return bucket, f"{address.netloc}{address.path}"


@contextlib.contextmanager
def writing(table: str, files: Any, path: str) -> Iterator[None]:
    """Write the file `path` of a table by pyarrow in a `with` block.

    If storage takes no more, removes the incomplete file and raises InputError.
    """
    try:
        with reachable(table, "written"):
            yield
    except InputError:
        with contextlib.suppress(OSError):
            files.delete_file(path)
        raise
