"""Options, report and ledger that all kinds of ingest share. Nothing here decodes.

A ledger knows what the store holds and what an ingest is to add, and commits what workers have made. Commits come in
batches: data first, then labels, then the row of each file that is done. An ingest that is killed loses at most one
batch. Groups get their splits last, because splits are drawn over what was kept.
"""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, asdict, dataclass, field
from typing import Any, ClassVar

import pyarrow as pa

from posture.data.decode.limits import DecodeLimits
from posture.data.ingest.splits import assign_splits, splits_drawn
from posture.data.labels.place_boxes import MAX_OUTSIDE
from posture.data.labels.records import Label
from posture.data.store import schema
from posture.data.store.files import File, hash_file, local_copy
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.errors import InputError


@dataclass(frozen=True, kw_only=True)
class CommonOptions:
    val_share: float = 0.2
    test_share: float = 0.2
    seed: int = 0
    file_limit_seconds: float = 120.0
    """Time limit for opening and reading one file."""
    limits: DecodeLimits = DecodeLimits()
    """Limits of pixels and memory for one file."""
    commit_after: int = 256
    """Videos or images per commit."""
    commit_seconds: float = 60.0
    """Longest time between two commits while results come."""
    max_refused_share: float = 0.5
    """The ingest fails if a larger share of its files or images is refused."""


@dataclass
class IngestReport:
    """Result of an ingest. The table `ingests` stores it as JSON, so field names must not change."""

    ingest: str
    footage: str
    layout: str
    _: KW_ONLY
    unchanged: int = 0
    """Files or images that were in the store already, with these labels."""
    relabelled: int = 0
    """Segments or images whose label, boxes, group or split were corrected without decoding."""
    retired: int = 0
    """Segments or images removed because the labels no longer name them, or they are refused now."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Segments or boxes added, by class and split."""
    splits: str = ""
    """How many groups are in each split, and how the splits were chosen."""
    waiting: int = 0
    """Segments or images of an interrupted ingest of other footage, still without a split."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} per refused file, label, segment or box."""
    unlabelled: int = 0
    """Files without a label."""
    seconds: float = 0.0


class TooManyRefused(InputError):
    """The ingest finished, but most of its files were bad. `report` is its report."""

    def __init__(self, report: Any, message: str) -> None:
        super().__init__(message)
        self.report = report


def refuse_too_many(report: IngestReport, refused: int, total: int, *, what: str, allowed: float) -> None:
    """Raise TooManyRefused if more than the `allowed` share of the files or images (`what`) was refused."""
    if refused > allowed * total:
        raise TooManyRefused(
            report,
            f"{report.footage}: {refused} of {total} {what} were refused, more than the allowed share of {allowed:g} "
            "(--max-refused); the others are stored",
        )


def refuse_outside(report: IngestReport, outside: int, drawn: int) -> None:
    """Raise TooManyRefused if too many of the boxes that were `drawn` lie outside their images."""
    if outside > MAX_OUTSIDE * drawn:
        raise TooManyRefused(
            report,
            f"{report.footage}: {outside:,} of {drawn:,} boxes lie outside of their images or belong to another size, "
            f"more than {100 * MAX_OUTSIDE:.0f} %: these are other images than the boxes were drawn on; "
            "what fits is stored",
        )


class Ledger(ABC):
    """Parts and results that workers have returned, and the commits that add them to the store.

    A job has a `size`, the number of its segments, images or clips. Jobs and results have a number of `steps` for the
    progress bar.
    """

    table: ClassVar[str]
    """Table whose Parquet files the workers write."""

    def __init__(self, store: Store, options: Any, report: Any, lease: Lease) -> None:
        self._store, self._options, self._report, self._lease = store, options, report, lease
        self.for_work: dict[str, Any] = {}
        """Further keyword arguments of the work function."""
        self.done = self.made = 0
        """Steps done, and rows in the files that workers wrote."""
        self.spent = 0.0
        """Seconds from the first job sent out to the last commit."""
        self._results: list[Any] = []
        self._parts: list[dict[str, Any]] = []
        self._committed, self._last_commit = 0, time.time()

    @abstractmethod
    def plan(self, source: Any) -> list[Any]:
        """Return the jobs for the workers."""

    def add(self, results: Sequence[Any], part: dict[str, Any] | None) -> None:
        """Add the results of one task and the file it wrote. Commit if enough has come."""
        self._parts += [part] if part else []
        self.made += part["rows"] if part else 0
        for result in results:
            self.done += result.steps
            self._take(result)
        overdue = time.time() - self._last_commit > self._options.commit_seconds
        if self.done - self._committed >= self._options.commit_after or overdue:
            self.commit()

    def _take(self, result: Any) -> None:
        self._results.append(result)

    def commit(self) -> None:
        """Commit the files, then what `_record` writes: a reader in between sees less, never something wrong."""
        self._lease.check()
        self._store.commit_files(self.table, self._parts)
        self._record()
        self._results, self._parts, self._committed, self._last_commit = [], [], self.done, time.time()

    @abstractmethod
    def _record(self) -> None:
        """Write the rows that belong to the files just committed."""

    def finish(self, began: float) -> None:
        """Complete the ingest and its report."""
        self._report.seconds = time.time() - began


class LabelledLedger(Ledger, ABC):
    """Ledger of files with labels: knows the files looked at before, the labelled rows, and the groups' splits."""

    files: ClassVar[str]
    """Table with a row for each file that was looked at."""
    file_key: ClassVar[str]
    """Its column with the content hash."""
    rows: ClassVar[str]
    """Table with a row for each labelled segment or image."""
    row_key: ClassVar[str]
    said: ClassVar[tuple[str, ...]]
    """Its columns that labels decide and people may correct."""
    compared: ClassVar[tuple[str, ...]]
    """Its columns that are brought in line with the labels."""

    def __init__(self, store: Store, options: CommonOptions, report: IngestReport, lease: Lease) -> None:
        super().__init__(store, options, report, lease)
        looked_at = store.read(self.files).to_pylist()
        self._looked_at = {(row[self.file_key], row["uri"]): row for row in looked_at}
        self._seen = {(row["uri"], row["bytes"], row["modified"]): row for row in looked_at}
        self._done = {key: row for key, row in self._looked_at.items() if row["verdict"] == "ok"}
        """Rows of the files that are stored completely, by (content, uri)."""
        self._rows = {row[self.row_key]: row for row in store.read(self.rows).to_pylist()}
        self._new = {key for key, row in self._rows.items() if row["split"] == ""}
        """Rows that get their split in this ingest."""
        self._groups = {row["group"]: row["split"] for row in store.read("groups").to_pylist()}
        self._forgotten = store.forgotten()
        self.changed = False

    def finish(self, began: float) -> None:
        """Commit the rest, draw the splits of new groups, bring the rows in line with the labels, store the report.

        The splits come first: an ingest killed after them goes on with the same splits.
        """
        self.commit()
        rows = self._settle()
        splits = self._assign_splits(self._kept(rows), self._together(self._rows | rows))
        # a group of an interrupted ingest of other footage may have got its split now
        waiting = {key: row for key, row in self._rows.items() if row["split"] == "" and row["group"] in splits}
        rows = {key: row | {"split": splits[row["group"]]} for key, row in (waiting | rows).items()}
        changed = {key: row for key, row in rows.items() if _differ(self._rows.get(key), row, self.compared)}
        corrected = {key for key in changed.keys() - self._new if _differ(self._rows[key], rows[key], self.said)}
        self._store.upsert(self.rows, self._table(self.rows, changed.values()), keys=[self.row_key])
        self._rows |= rows
        self._report.relabelled = len(corrected)
        self._report.waiting = sum(row["split"] == "" for row in self._rows.values())
        self._count([row for key, row in rows.items() if key in self._new], corrected)
        self.changed = self.changed or bool(changed)
        super().finish(began)
        if self.changed:
            entry = {"ingest": self._report.ingest, "time": began, "report": json.dumps(asdict(self._report))}
            self._store.append("ingests", self._table("ingests", [entry]))

    @abstractmethod
    def _settle(self) -> dict[str, dict[str, Any]]:
        """Return {key: row} as the labels say now; `split` may be missing. Remove rows that they no longer name."""

    @abstractmethod
    def _kept(self, rows: dict[str, dict[str, Any]]) -> list[Label]:
        """Return the labels of these rows, over which splits are drawn."""

    @abstractmethod
    def _count(self, added: list[dict[str, Any]], corrected: set[str]) -> None:
        """Count the rows that have come into a split, and those that were corrected."""

    def _assign_splits(self, kept: list[Label], together: list[set[str]]) -> dict[str, str]:
        """Return the split of every group of the store. Draw and commit those of new groups."""
        drawing = {name: getattr(self._options, name) for name in ("val_share", "test_share", "seed")}
        splits = assign_splits(kept, stored=self._groups, together=together, **drawing)
        new = [{"group": group, "split": split} for group, split in sorted(splits.items()) if group not in self._groups]
        self._lease.check()
        self._store.append("groups", self._table("groups", new))
        self._report.splits = splits_drawn(kept, splits, **drawing) if kept else ""
        if shared := {group for groups in together if len(groups) > 1 for group in groups & splits.keys()}:
            self._report.splits += f"; {len(shared)} of them are seen in one video with another and stay on its side"
        return self._groups | splits

    def _together(self, rows: dict[str, dict[str, Any]]) -> list[set[str]]:
        """Return the groups of each file of which the labelled `rows` have several."""
        return []

    def _contents(self, files: Iterable[File]) -> dict[str, str]:
        """Return {uri: content hash}. The hash is empty if the file is known to be new or cannot be read.

        Files that were seen before are not read again.
        """
        by_uri = {file.uri: file for file in files}
        contents = {uri: known[self.file_key] if (known := self._known(file)) else "" for uri, file in by_uri.items()}
        unknown = self._to_hash([file for uri, file in by_uri.items() if not contents[uri] and file.bytes > 0])
        with ThreadPoolExecutor(max_workers=16) as pool:
            return contents | dict(zip(unknown, pool.map(_content, unknown), strict=True))

    def _to_hash(self, files: list[File]) -> list[str]:
        """Return the URIs of the files whose content must be known."""
        return [file.uri for file in files]

    def _known(self, file: File) -> dict[str, Any] | None:
        """Return the row of a file that was seen before and has not changed since."""
        return self._seen.get((file.uri, file.bytes, file.modified))

    def _write(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add labelled rows that are not there yet."""
        new = {row[self.row_key]: row for row in rows if row[self.row_key] not in self._rows}
        self._store.append(self.rows, self._table(self.rows, new.values()))
        self._rows |= new
        self._new |= new.keys()
        self.changed = self.changed or bool(new)

    def _remove(self, keys: list[str]) -> None:
        """Remove labelled rows."""
        self._store.delete(self.rows, self.row_key, keys)
        for key in keys:
            del self._rows[key]
        self._report.retired = len(keys)
        self.changed = self.changed or bool(keys)

    def _remember(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write the rows of files that the table does not hold as they are."""
        rows = [{name: row[name] for name in schema.TABLES[self.files].names} for row in rows]
        changed = {key: row for row in rows if self._looked_at.get(key := (row[self.file_key], row["uri"])) != row}
        new = changed.keys() - self._looked_at.keys()
        known = [row for key, row in changed.items() if key not in new]
        self._store.upsert(self.files, self._table(self.files, known), keys=[self.file_key, "uri"])
        self._store.append(self.files, self._table(self.files, [changed[key] for key in changed if key in new]))
        self._looked_at |= changed
        self.changed = self.changed or bool(changed)

    @staticmethod
    def _table(name: str, rows: Collection[dict[str, Any]]) -> pa.Table:
        return pa.Table.from_pylist(list(rows), schema=schema.TABLES[name])


def file_row(key: str, file: File, content: str, verdict: str, reason: str) -> dict[str, Any]:
    """Return the columns that a row of a file has in `videos` and in `pictures`; `key` is the one of its content."""
    row = {key: content, "uri": file.uri, "bytes": file.bytes, "modified": file.modified}
    return row | {"verdict": verdict, "reason": reason, "reader": None if verdict == "ok" else schema.READER}


def other_labels(first: str, other: str) -> str:
    """Return the end of the reason for a duplicate, if its labels differ from those of the file that is kept."""
    return "" if first == other else f", which is labelled {first}; this one is labelled {other}"


def _differ(old: dict[str, Any] | None, new: dict[str, Any], names: tuple[str, ...]) -> bool:
    """Return True if a row is new or differs in one of the columns. Null and an empty list are equal."""
    return old is None or any((old[name] or []) != (new[name] or []) for name in names)


def _content(uri: str) -> str:
    try:
        with local_copy(uri) as path:
            return hash_file(path)
    except OSError:
        return ""
