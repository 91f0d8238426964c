"""A run's folder, on a local path or in a bucket. Files are replaced whole: a reader never sees half of one.

RUNS/<name>/
  run.json              configuration, classes, table versions, software; written before training
  holder.json           the process that trains the run, or did so last
  history.json          one entry per epoch
  checkpoints.json      {"best": tag, "last": tag}; written after the files it names
  checkpoints/<tag>/    model.safetensors, train.safetensors, state.json
  calibration.json      temperature of each checkpoint, and what it was fitted on
  evaluation/<name>/    metrics.json, predictions.parquet, report.html; `test` for the usual protocol on test, see
                        `evaluation_name` (versions before December 2026 wrote a single one into evaluation/ itself)
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.config import AnyRun, validate
from posture.data.store.checked import (
    PLAIN_NAME,
    Count,
    Name,
    Seconds,
    checked_json,
    checked_value,
    path_below,
    refuse_links,
)
from posture.data.store.files import (
    absolute,
    exists,
    is_remote,
    join,
    open_root,
    reachable,
    read_bytes,
    remove_tree,
    write_bytes,
)
from posture.errors import Busy, InputError, Unreachable

NAME = PLAIN_NAME


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """run.json. Fields with a default are missing in runs of older versions."""

    run: Annotated[AnyRun, PlainValidator(validate)]
    recipe: str = ""
    store: str
    versions: dict[str, Count]
    """Versions of the store's tables."""
    classes: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    """Classes of the store that the run does not know."""
    start: str = ""
    """Sentence on the weights that the run started from; empty for random ones."""
    anchors: str = ""
    """A detector's anchors and why it has them, in a sentence."""
    footage: dict[str, dict[str, Count]] = field(default_factory=dict)
    """Counts of each split."""
    software: dict[str, str] = field(default_factory=dict)
    machine: str = ""
    created: Seconds = 0.0


class Holder(TypedDict):
    """holder.json."""

    mark: str
    host: str
    process: Count
    since: Seconds


class Metrics(TypedDict, total=False):
    """metrics.json of an evaluation, without its figures."""

    protocol: str
    split: str
    checkpoint: str
    name: Name
    epoch: Count
    count: Count
    device: str


FILES = {
    "holder.json": Holder,
    "history.json": list[dict[str, float | None]],
    "checkpoints.json": dict[str, Name],
    "forgotten.json": list[Name],
    "metrics.json": Metrics,
}
"""Types of the JSON files in a run's folder, besides run.json."""


def unique_name(recipe: str) -> str:
    """Return a unique run name, such as `improved-20260131-142233-3fa9d2c1`."""
    return f"{recipe}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


USUAL_PROTOCOLS = ("the windows in the store; of each, 1 span in time and the middle of the frame", "each image once")
"""Beginnings of the default protocol in metrics.json, of a classifier and of a detector."""


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run."""

    place: str
    """Folder or s3:// prefix with metrics.json, predictions.parquet and report.html."""
    metrics: dict[str, Any]

    def path(self, file: str) -> str:
        return join(self.place, file)


def evaluation_name(
    split: str,
    *,
    crops: int = 1,
    spans: int = 1,
    source: int = 0,
    checkpoint: str = "best",
    store: str | None = None,
    untrimmed: str | None = None,
    detector: str | None = None,
) -> str:
    """Return the name of an evaluation's folder, made of its split and all that is not the default: `test`, `val`,
    `test-3-crops`, `test-last`, `test-store-new-1a2b3c4d`, `test-untrimmed-games-1a2b3c4d`.

    `crops`, `spans` and `source` are those of `posture.runs.figures.Views`;
    `store`, `untrimmed` and `detector` are the URIs given with --store (another store, or the run's own at its newest
    versions), --untrimmed and --detector.
    """
    parts = [
        split,
        *([f"{crops}-crops"] if crops != 1 else []),
        *([f"{spans}-spans"] if spans != 1 else []),
        *([f"{source}-source-window{'s' * (source > 1)}"] if source else []),
        *([checkpoint] if checkpoint != "best" else []),
    ]
    for option, uri in (("untrimmed", untrimmed), ("detector", detector), ("store", store)):
        if uri is not None:
            label = re.sub(r"[^A-Za-z0-9._-]+", "_", uri.rstrip("/").rpartition("/")[2])[: 20 if detector else 40]
            parts.append(f"{option}-{label}-{hashlib.blake2b(uri.encode(), digest_size=4).hexdigest()}")
    return "-".join(parts)


class RunFolder:
    """The folder of one run below `runs`. Names cannot lead out of it."""

    def __init__(self, runs: str, name: str) -> None:
        if not NAME.fullmatch(name):
            raise InputError(
                f"run name {name!r}: use letters, digits, '.', '_' and '-', at most 100, beginning with a letter or "
                "digit"
            )
        self.name = name
        self.uri = join(absolute(runs), name)
        self._mark = ""

    @classmethod
    def open(cls, uri: str) -> RunFolder:
        """Open an existing run by its path. Raises InputError if there is none."""
        runs, _, name = absolute(uri).rpartition("/")
        folder = cls(runs or "/", name)
        if not folder.exists():
            raise InputError(
                f"{uri}: there is no run here (no run.json); runs are made by: posture train RECIPE --store STORE"
            )
        return folder

    def exists(self) -> bool:
        return self.read_json("run.json") is not None

    def path(self, *parts: str) -> str:
        """Return the path of a file of this run. Raises InputError if it lies outside of the run's folder."""
        return path_below(self.uri, *parts)

    def read_json(self, name: str) -> Any | None:
        """Return the content of a file of this folder, or None if it does not exist. Raises InputError if it is not
        what Posture writes.
        """
        content = read_bytes(self.path(name))
        return (
            None if content is None else checked_json(content, self.path(name), FILES.get(name.rpartition("/")[2], Any))
        )

    def write_json(self, name: str, value: Any) -> None:
        write_bytes(self.path(name), json.dumps(value, indent=1).encode())

    def record(self) -> RunRecord:
        """Return run.json. Raises InputError naming the file and the field that is missing or wrong."""
        found = self.read_json("run.json")
        if found is None:
            raise InputError(f"{self.uri}: there is no run here (no run.json)")
        return checked_value(found, self.path("run.json"), RunRecord)

    def write_record(self, record: RunRecord) -> None:
        self.write_json("run.json", vars(record) | {"run": record.run.model_dump(mode="json")})

    def history(self) -> list[dict[str, Any]]:
        """Return a record for each finished epoch."""
        return self.read_json("history.json") or []

    def evaluation(self, name: str = "test") -> Evaluation | None:
        """Return the evaluation `name`, or None. An older version wrote its only one into evaluation/ itself."""
        metrics = self.read_json(f"evaluation/{name}/metrics.json")
        if metrics is not None:
            return Evaluation(self.path("evaluation", name), metrics)
        metrics = self.read_json("evaluation/metrics.json")
        if (
            metrics is not None
            and str(metrics.get("protocol")).startswith(USUAL_PROTOCOLS)
            and (evaluation_name(str(metrics.get("split")), checkpoint=str(metrics.get("checkpoint"))) == name)
        ):
            return Evaluation(self.path("evaluation"), metrics)
        return None

    def take(self) -> None:
        """Make this process the only one that publishes checkpoints. A process that trained the run before, and may
        still be alive, stops at its next checkpoint.
        """
        self._mark = secrets.token_hex(8)
        self.write_json(
            "holder.json",
            {"mark": self._mark, "host": socket.gethostname(), "process": os.getpid(), "since": time.time()},
        )

    def _refuse_taken(self) -> None:
        holder = self.read_json("holder.json") if self._mark else None
        if holder and holder["mark"] != self._mark:
            raise Busy(
                f"{self.uri}: another process ({holder['host']}, process {holder['process']}) has continued this run "
                f"since {time.strftime('%H:%M:%S', time.localtime(holder['since']))}; this process stops, and what it "
                "saved is kept"
            )

    def publish_checkpoint(self, tag: str, directory: Path, *, best: bool) -> None:
        """Copy a finished checkpoint here, then switch `last` (and `best`) to it, then remove unused ones.

        Raises InputError if it cannot be written, Busy if another process took the run; the earlier checkpoints are
        kept then.
        """
        self._refuse_taken()
        unique = f"{tag}-{secrets.token_hex(4)}"
        before = self.checkpoints()
        now = before | {"last": unique} | ({"best": unique} if best or "best" not in before else {})
        try:
            for file in sorted(directory.iterdir()):
                write_bytes(self.path("checkpoints", unique, file.name), file)
            self.write_json("checkpoints.json", now)
        except InputError:
            self._remove(unique)
            raise
        for old in set(before.values()) - set(now.values()):
            self._remove(old)

    def checkpoints(self) -> dict[str, str]:
        """Return the tags of the checkpoints `last` and `best`; {} before the first. Raises InputError if the file
        names anything but folders of this run.
        """
        try:
            return self.read_json("checkpoints.json") or {}
        except Unreachable:
            raise
        except InputError as error:
            raise InputError(
                f"{self.path('checkpoints.json')}: names something other than checkpoints of this run ({error})"
            ) from None

    @contextlib.contextmanager
    def checkpoint(self, which: str) -> Iterator[Path]:
        """Yield a local folder with the checkpoint `best` or `last`. Raises InputError if the run has none yet."""
        tag = self.checkpoints().get(which)
        if tag is None:
            raise InputError(f"{self.uri}: this run has no {which} checkpoint yet; train it with --resume first")
        uri = self.path("checkpoints", tag)
        if not is_remote(uri):
            refuse_links(uri)
            yield Path(uri)
            return
        import obstore

        with tempfile.TemporaryDirectory(prefix="posture-checkpoint-") as copy:
            root = open_root(uri)
            with reachable(uri):
                for page in obstore.list(root):
                    for entry in (entry for entry in page if "/" not in entry["path"]):
                        with open(Path(copy, entry["path"]), "wb") as file:
                            for chunk in obstore.get(root, entry["path"]).stream():
                                file.write(chunk)
            yield Path(copy)

    def _remove(self, tag: str) -> None:
        from obstore.exceptions import BaseError

        with contextlib.suppress(BaseError):  # a checkpoint that cannot be removed only takes up space
            remove_tree(self.path("checkpoints", tag))


def run_names(runs: str) -> list[str]:
    """Return the names of the runs in a folder or s3:// prefix, sorted; [] if there is no such folder."""
    root = absolute(runs)
    if is_remote(root):
        import obstore

        with reachable(root):
            names = [
                prefix.rstrip("/").rpartition("/")[2]
                for prefix in obstore.list_with_delimiter(open_root(root))["common_prefixes"]
            ]
    else:
        names = os.listdir(root) if os.path.isdir(root) else []
    return sorted(name for name in names if NAME.fullmatch(name) and exists(join(root, name, "run.json")))


def refuse_existing(folder: RunFolder) -> None:
    """Raise InputError if the name is taken: no run is overwritten or resumed unless asked."""
    if folder.exists() or exists(folder.uri):
        raise InputError(
            f"{folder.uri}: a run of this name exists; continue it with --resume, or choose another --name"
        )
