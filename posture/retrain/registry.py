"""A lab's models: versions that never change, and a pointer to the champion. In a folder or a bucket.

REGISTRY/
  champion.json          {"version", "history"}: the pointer, one file, written last
  versions/v0001/        model.safetensors; version.json, written last: without it there is no version
    forgotten/<video>.json   marks of videos that it was trained on and that were forgotten since
  passes/0001-<time>/    decision.json and its evidence: the result of a pass of `posture retrain`
  runs/                  the challengers' runs
  current.json           the pass that is running, or was killed
  last.json              the last pass, whatever its result
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportReturnType=false

from __future__ import annotations

import contextlib
import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posture.config import validate
from posture.data.store.checked import checked_json, path_below, refuse_links
from posture.data.store.files import absolute, is_remote, join, list_files, open_root, read_bytes, write_bytes
from posture.data.store.lease import Lease
from posture.errors import InputError
from posture.retrain.registry_files import FOLDERS, KINDS, RECORD
from posture.runs.trained import TrainedModel

VERSION = re.compile(r"v\d{4,}")
PASS = re.compile(r"\d{4,}-\d{8}-\d{6}")
WEIGHTS = "model.safetensors"
JSON = frozenset({".json"})


class Registry:
    """The registry at `uri`. With `create=False` a missing registry raises InputError."""

    def __init__(self, uri: str, *, create: bool = False) -> None:
        self.uri = absolute(uri)
        if not create and self.last() is None and self.current() is None and not self.history():
            raise InputError(
                f"{uri}: there is no registry here; make one with: posture retrain --footage FOOTAGE --store STORE "
                f"--registry {uri}"
            )

    def path(self, *parts: str) -> str:
        """Return the address of a file of this registry. Raises InputError if it would be outside of it."""
        return path_below(self.uri, *parts)

    def read_json(self, *parts: str) -> Any | None:
        """Return the value in a file, or None if it does not exist. Raises InputError if Posture did not write it."""
        content = read_bytes(self.path(*parts))
        kind = KINDS.get(parts[-1]) or next((FOLDERS[part] for part in parts if part in FOLDERS), Any)
        return None if content is None else checked_json(content, self.path(*parts), kind)

    def write_json(self, value: Any, *parts: str) -> None:
        write_bytes(self.path(*parts), json.dumps(value, indent=1).encode())

    def lease(self) -> Lease:
        """Return the lease that every change of the registry needs."""
        return Lease(self.uri, who="pass", place="registry")

    def versions(self) -> list[dict[str, Any]]:
        """Return the record of every version, oldest first, with its `marks`."""
        return [self.version(name) for name in self._named("versions", RECORD, VERSION)]

    def version(self, name: str) -> dict[str, Any]:
        """Return the record of a version, with its `marks` of forgotten videos. Raises InputError if there is no
        such version.
        """
        record = self.read_json("versions", name, RECORD) if VERSION.fullmatch(name) else None
        if record is None:
            known = self._named("versions", RECORD, VERSION)
            there = f"there is no version {name!r}; there is {', '.join(known)}" if known else "there is no version yet"
            raise InputError(f"{self.uri}: {there}")
        if record["version"] != name:
            raise InputError(
                f"{self.path('versions', name, RECORD)}: is the record of {record['version']}, not of {name}"
            )
        marks = [
            self.read_json("versions", name, "forgotten", file) for file in self._files("versions", name, "forgotten")
        ]
        record["marks"] = [mark for mark in marks if mark]
        return record

    def add(self, record: dict[str, Any], weights: Path) -> str:
        """Add a version with these weights (.safetensors) and return its name. A `pass` has one version, even if
        added twice.
        """
        import obstore

        known = self.versions()
        for version in known:
            if version["pass"] == record["pass"]:
                return version["version"]
        name = f"v{1 + max((int(version['version'][1:]) for version in known), default=0):04d}"
        obstore.put(open_root(self.path("versions", name), create=True), WEIGHTS, weights)
        self.write_json({"version": name, "created": time.time()} | record, "versions", name, RECORD)
        return name

    @contextlib.contextmanager
    def checkpoint(self, name: str) -> Iterator[Path]:
        """Give a local folder with the version's model.safetensors. Raises InputError if there is no such version."""
        folder = self.path("versions", self.version(name)["version"])
        if not is_remote(folder):
            refuse_links(folder)
            yield Path(folder)
            return
        with tempfile.TemporaryDirectory(prefix="posture-version-") as copy:
            Path(copy, WEIGHTS).write_bytes(read_bytes(join(folder, WEIGHTS)) or b"")
            yield Path(copy)

    def champion_model(self) -> TrainedModel:
        """Return the version in use, ready for workers. Raises InputError if there is none."""
        name = self.champion()
        if name is None:
            raise InputError(f"{self.uri}: no version is in use yet; posture retrain makes the first")
        record = self.version(name)
        with self.checkpoint(name) as folder:
            weights = Path(folder, WEIGHTS).read_bytes()
        uri = self.path("versions", record["version"])
        return TrainedModel(uri, validate(record["run"]), tuple(record["classes"]), weights, name)

    def mark(self, name: str, video: str, *, segments: int, splits: list[str]) -> None:
        """Mark a version as trained on a video that is forgotten. Raises InputError if there is no such version."""
        mark = {"video": video, "time": time.time(), "segments": segments, "splits": splits}
        self.write_json(mark, "versions", self.version(name)["version"], "forgotten", f"{video}.json")

    def champion(self) -> str | None:
        """Return the version in use; None before the first."""
        pointer = self.read_json("champion.json")
        return pointer and pointer["version"]

    def history(self) -> list[dict[str, Any]]:
        """Return every change of champion, oldest first: {version, former, action, time, why, pass}.

        A rollback goes to `former`.
        """
        pointer = self.read_json("champion.json")
        return pointer["history"] if pointer else []

    def promote(self, name: str, *, why: str, by_pass: str | None = None) -> None:
        """Make a version the champion; the caller holds the lease. Does nothing if that pass has promoted it already.

        Raises InputError if there is no such version.
        """
        version, history = self.version(name)["version"], self.history()
        if by_pass is not None and any(entry["pass"] == by_pass for entry in history):
            return
        if version == self.champion():
            raise InputError(f"{self.uri}: {version} is the champion already")
        self._point(version, former=self.champion(), action="promote", why=why, by_pass=by_pass)

    def rollback(self, *, why: str) -> str:
        """Make the former champion the champion again and return its name; the caller holds the lease.

        Raises InputError if there was none.
        """
        history = self.history()
        former = history[-1]["former"] if history else None
        if former is None:
            raise InputError(
                f"{self.uri}: there is no champion before {self.champion()} to go back to"
                if history
                else f"{self.uri}: there is no champion yet"
            )
        before = next(entry["former"] for entry in reversed(history) if entry["version"] == former)
        self._point(former, former=before, action="rollback", why=why, by_pass=None)
        return former

    def passes(self) -> list[str]:
        """Return the passes with a decision, oldest first."""
        return self._named("passes", "decision.json", PASS)

    def decision(self, name: str) -> dict[str, Any]:
        """Return the decision of a pass. Raises InputError if there is no such pass."""
        decision = self.read_json("passes", name, "decision.json") if PASS.fullmatch(name) else None
        if decision is None:
            raise InputError(
                f"{self.uri}: there is no pass {name!r}; there is {', '.join(self.passes()) or 'none yet'}"
            )
        return decision

    def new_pass(self) -> str:
        """Return a name for a pass. Its number keeps the order even if the clock jumps."""
        number = 1 + max((int(name.partition("-")[0]) for name in self.passes()), default=0)
        return f"{number:04d}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"

    def last(self) -> dict[str, Any] | None:
        """Return the last pass, whatever its result; None before the first."""
        return self.read_json("last.json")

    def current(self) -> dict[str, Any] | None:
        """Return the pass that is running, or was killed."""
        return self.read_json("current.json")

    def end_current(self) -> None:
        remove_file(self.path("current.json"))

    def _point(self, version: str, *, former: str | None, action: str, why: str, by_pass: str | None) -> None:
        entry = {
            "version": version,
            "former": former,
            "action": action,
            "time": time.time(),
            "why": why,
            "pass": by_pass,
        }
        self.write_json({"version": version, "history": [*self.history(), entry]}, "champion.json")

    def _named(self, folder: str, file: str, pattern: re.Pattern[str]) -> list[str]:
        """Return the names of the folders below `folder` that contain `file`."""
        found = [name.split("/") for name in self._files(folder)]
        return sorted(parts[0] for parts in found if parts[1:] == [file] and pattern.fullmatch(parts[0]))

    def _files(self, *folder: str) -> list[str]:
        place = self.path(*folder)
        if not is_remote(place) and not Path(place).is_dir():
            return []
        return [file.relative for file in list_files(place, suffixes=JSON)]


def remove_file(uri: str) -> None:
    """Remove one file if it exists."""
    if not is_remote(uri):
        Path(uri).unlink(missing_ok=True)
        return
    import obstore

    root, _, name = uri.rpartition("/")
    obstore.delete(open_root(root), name)


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Return the differences between the records of two versions as (field, ours, theirs), with dotted fields.

    Metrics are compared by their figures, not their curves.
    """
    fields = [_flat(_compared(record)) for record in (ours, theirs)]
    names = [*fields[0], *(name for name in fields[1] if name not in fields[0])]
    return [
        (name, *(_text(of.get(name)) for of in fields)) for name in names if fields[0].get(name) != fields[1].get(name)
    ]


def _compared(record: dict[str, Any]) -> dict[str, Any]:
    metrics = {name: value for name, value in (record["metrics"] or {}).items() if isinstance(value, int | float)}
    recall = {
        row["class"]: row["recall"]
        for row in (record["metrics"] or {}).get("per_class", ())
        if row["recall"] is not None
    }
    return {
        "classes": ", ".join(record["classes"]),
        "trained_on": record["trained_on"],
        "footage_versions": record["footage_versions"],
        "store": record["store"],
        "run": {name: value for name, value in record["run"].items() if name != "name"},
        "metrics": metrics,
        "recall": recall,
        "software": record["software"],
    }


def _flat(tree: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat


def _text(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
