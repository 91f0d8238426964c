"""Check names, paths and JSON values read from stores, runs and registries: they may be damaged or foreign."""

# pyarrow.compute makes its functions when it is imported
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import is_dataclass
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from posture.data.store.files import is_remote, join, plain, reachable, read_bytes
from posture.data.store.safe_json import load_json
from posture.data.store.schema import SPLITS
from posture.errors import InputError

PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Everything that becomes part of a path: content hashes, ids, names of runs, versions, passes and checkpoints."""

IDS = ("video", "segment", "clip", "image")
"""Columns with content hashes or ids made of them; empty for a file that could not be read."""
TEXTS = ("uri", "group", "label", "recipe", "method", "codec", "verdict", "reason", "ingest", "report")
NUMBERS = {
    "bytes": (-1, 2**62),
    "modified": (-1e11, 1e11),
    "frames": (0, 2**40),
    "fps": (0, 1e9),
    "seconds": (0, 1e9),
    "width": (0, 2**20),
    "height": (0, 2**20),
    "start": (0, 1e9),
    "end": (0, 1e9),
}
"""Columns with numbers, and their range."""

Name = Annotated[str, Field(pattern=rf"\A{PLAIN_NAME.pattern}\z")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, le=1e11, allow_inf_nan=False)]
"""Seconds since 1970, or of footage; at most the year 5138, the largest that a date can hold."""


class Commit(TypedDict):
    """Entry of a table's history."""

    timestamp: Annotated[int, Field(ge=0, le=10**14)]
    """Milliseconds since 1970."""


class CheckpointState(TypedDict, total=False):
    """state.json of a checkpoint."""

    epoch: Count
    step: Count
    best: float | None
    best_epoch: Count
    loss_sums: dict[str, float]
    loss_counts: dict[str, float]
    history: list[dict[str, float | None]]
    optimizer: str
    scaler: dict[str, float | int]
    order: dict[str, Any]


class MissingField(InputError, KeyError):
    """Error for a field that a file lacks."""

    __str__ = ValueError.__str__


class Fields(dict[str, Any]):
    """Object of a JSON file. A missing field raises an error that names the file."""

    where = ""

    def __missing__(self, name: str) -> Any:
        raise MissingField(f"{self.where}: the field {name!r} is missing")

    def __or__(self, other: dict[str, Any]) -> Fields:
        return _fields({**self, **other}, self.where)


def checked_json(content: bytes | str, where: str, kind: Any = Any) -> Any:
    """Return the value of a JSON text, with its objects as `Fields`.

    Raises InputError, beginning with `where`, if it is not JSON, is too large or too deep, or does not have the type
    `kind`, any type that pydantic knows. Fields that a TypedDict does not name are kept.
    """
    return _with_fields(checked_value(load_json(content, where), where, kind), where)


def _with_fields(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return _fields({name: _with_fields(item, where) for name, item in value.items()}, where)
    return (
        [_with_fields(item, where) for item in value]
        if isinstance(value, list) and any(isinstance(item, dict | list) for item in value)
        else value
    )


def _fields(value: dict[str, Any], where: str) -> Fields:
    fields = Fields(value)
    fields.where = where
    return fields


def checked_value(value: Any, where: str, kind: Any) -> Any:
    """Return `value`, or the dataclass `kind` of it. Raises InputError, beginning with `where`, if the type differs."""
    try:
        made = _adapter(kind).validate_python(value, strict=not is_dataclass(kind))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"][:4])[:100]
        raise InputError(
            f"{where}: not what Posture writes{' at ' + field if field else ''}: {first['msg'][:200]}"
        ) from None
    return made if is_dataclass(kind) else value


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@contextlib.contextmanager
def readable(table: str, sentence: str = "cannot be read: {}") -> Iterator[None]:
    """Read a table, or a file of one, in a `with` block.

    Raises InputError with the sentence and the reason if its log or a file is missing or damaged: deltalake and pyarrow
    raise many kinds of exceptions for that. Only TableNotFoundError is passed on.
    """
    from deltalake.exceptions import TableNotFoundError

    try:
        with reachable(table):
            try:
                yield
            except OSError as error:
                # pyarrow's errors for damaged data have no number; the operating system's have one
                if error.errno is None and not is_remote(table):
                    raise InputError(f"{table}: {sentence.format(plain(error)[:300])}") from None
                raise
    except (InputError, TableNotFoundError):
        raise
    except Exception as error:
        raise InputError(f"{table}: {sentence.format(plain(error)[:300])}") from None


def read_parquet(uri: str, columns: Collection[str] = ()) -> pa.Table:
    """Read a Parquet file that Posture has written beside a store.

    Raises InputError if it is missing, is not Parquet, or lacks one of `columns`.
    """
    content = read_bytes(uri)
    if content is None:
        raise InputError(f"{uri}: the file is missing")
    with readable(uri):
        table = pq.read_table(io.BytesIO(content))
    if missing := [name for name in columns if name not in table.column_names]:
        raise InputError(f"{uri}: the column {missing[0]} is missing")
    return table


def refuse_odd_values(table: pa.Table, where: str, *, nullable: Collection[str] = ()) -> None:
    """Raise InputError naming the first value of a table that Posture does not write, such as an id that is a path.

    Ids in `nullable` columns may be null.
    """
    held = set(table.column_names)
    bad = {
        name: pc.invert(
            pc.match_substring_regex(
                pc.fill_null(table[name], "") if name in nullable else table[name], rf"\A({PLAIN_NAME.pattern})?\z"
            )
        )
        for name in IDS
        if name in held
    }
    bad |= {name: pc.is_null(table[name]) for name in TEXTS if name in held}
    bad |= {
        name: pc.invert(pc.and_(pc.greater_equal(table[name], least), pc.less_equal(table[name], most)))
        for name, (least, most) in NUMBERS.items()
        if name in held
    }
    bad |= {"split": pc.invert(pc.is_in(table["split"], pa.array([*SPLITS, ""])))} if "split" in held else {}
    bad |= {"boxes": _odd_boxes(table)} if {"boxes", "labels"} <= held else {}
    for name, wrong in bad.items():
        index = pc.index(pc.fill_null(wrong, True), True).as_py()
        if index >= 0:
            value = str(table[name][index].as_py())[:100]
            raise InputError(
                f"{where}: {value!r} in column {name} is not what Posture writes; the store is damaged, or "
                "another program wrote it"
            )


def _odd_boxes(table: pa.Table) -> pa.Array:
    """Return True for rows of `boxes` without four finite numbers and one label for each box."""
    boxes = table["boxes"].combine_chunks()
    sides, owners = pc.list_flatten(boxes), pc.list_parent_indices(boxes)
    numbers = pc.list_flatten(sides)
    whole = (
        pa
        .array(owners)
        .take(pc.list_parent_indices(sides))
        .filter(pc.invert(pc.fill_null(pc.is_finite(numbers), False)))
    )
    wrong = pa.concat_arrays([owners.filter(pc.fill_null(pc.not_equal(pc.list_value_length(sides), 4), True)), whole])
    rows = pa.array(range(len(boxes)), owners.type)
    return pc.or_(
        pc.is_in(rows, wrong),
        pc.not_equal(pc.list_value_length(boxes), pc.list_value_length(table["labels"].combine_chunks())),
    )


def path_below(root: str, *parts: str) -> str:
    """Return the path of `parts` below `root`. Raises InputError if a part leads out: by ".." or a symbolic link."""
    names = [name for part in parts for name in part.split("/")]
    if bad := [name for name in names if name in ("", ".", "..") or "\0" in name]:
        raise InputError(f"{root}: {'/'.join(parts)!r} is not a path below it, because of {bad[0]!r}")
    path = root.rstrip("/")
    for name in names if not is_remote(root) else ():
        path = f"{path}/{name}"
        if os.path.islink(path):
            _refuse(path, root)
    return join(root, *names)


def refuse_links(folder: str) -> None:
    """Raise InputError naming the first entry below a local folder that is a symbolic link, or not a file or folder."""
    waiting = [folder]
    while waiting:
        try:
            entries = list(os.scandir(waiting.pop()))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
            elif not entry.is_file(follow_symlinks=False):
                _refuse(entry.path, folder)


def _refuse(path: str, root: str) -> None:
    what = f"a symbolic link to {os.readlink(path)}" if os.path.islink(path) else "neither a file nor a folder"
    raise InputError(
        f"{path}: {what}; nothing outside {root} is read or removed through it: replace it by the files "
        "themselves, or remove it"
    )
