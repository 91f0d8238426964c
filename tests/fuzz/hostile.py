"""A small laboratory (footage, store, runs, registry) and ways to damage or forge what is stored in it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.retrain.registry import Registry
from posture.runs.backend import Local
from posture.runs.evaluate import evaluate
from posture.runs.figures import Views
from posture.runs.prepare import prepare
from tests.support.footage import make_class_folders
from tests.support.registries import RECORD
from tests.support.small_run import SMALL_ACTION

SMALL = SMALL_ACTION | {"scale.global_batch": 2, "epochs": 1, "tracking.mode": "off"}
PASS = "0001-20260101-000000"
TEXTS = [
    "",
    "../../photos",
    "/etc/passwd",
    "..",
    "a/b",
    "\x1b]0;owned\x07",
    "a" * 100_000,
    "https://evil.example/x",
    "\ud800",
    "0",
    "v9999",
    "x\ny",
    "\0",
    "%2e%2e/%2e%2e/photos",
    "'",
    "') OR (1=1) --",
    "nan",
    "[bold]x[/bold]",
]
VALUES = [
    None,
    True,
    False,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    -(10**30),
    1e18,
    1e308,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [None],
    [1, "a"],
    {"a": {"b": [1]}},
    *TEXTS,
]
JSON_TEXTS = [
    b"",
    b"{",
    b"[]",
    b"{}",
    b"null",
    b"7",
    b'"x"',
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b"\xff\xfe\x00",
    b"\0" * 100,
    b'{"a": 1} {"b": 2}',
]


def make_lab(place: Path) -> None:
    """Footage of two classes, a store of it, a run that is trained and judged, and a registry of two versions; and
    photos that nobody may touch.
    """
    make_class_folders(place / "footage", per_class=4, frames=40)
    (place / "photos" / "deep").mkdir(parents=True)
    for name in ("one.parquet", "two.json", "deep/three.json", "model.safetensors"):
        (place / "photos" / name).write_bytes(name.encode())
    store = Store(str(place / "lab" / "store"), create=True)
    ingest_clips(read_footage(str(place / "footage")), store, IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 1))))
    session = prepare("jobs/action.py:improved", store.uri, runs=str(place / "lab" / "runs"), name="one", changes=SMALL)
    Local().train(session, on_progress=lambda update: None, on_record=lambda record: None, on_device=lambda name: None)
    evaluate(session.folder, views=Views())
    record = session.folder.read_json("run.json")
    segments = {
        row["segment"]: [row["label"], row["split"], row["group"]] for row in store.read("segments").to_pylist()
    }
    registry = Registry(str(place / "lab" / "registry"), create=True)
    registry.write_json(
        {"segments": segments, "new": sorted(segments), "baseline": None, "refused": [], "ingests": []},
        "passes",
        PASS,
        "segments.json",
    )
    registry.write_json(
        {
            "pass": PASS,
            "outcome": "promoted",
            "verdict": "Promoted.",
            "challenger": "v0001",
            "champion": None,
            "changed": [],
        },
        "passes",
        PASS,
        "decision.json",
    )
    for number in (1, 2):
        version = RECORD | {
            "pass": f"000{number}{PASS[4:]}",
            "store": store.uri,
            "run": record["run"],
            "classes": record["classes"],
            "holdout": sorted(segments)[:2],
        }
        with session.folder.checkpoint("best") as weights:
            registry.promote(registry.add(version, weights / "model.safetensors"), why="better")
    registry.mark("v0001", sorted(segments)[0], segments=1, splits=["train"])
    registry.write_json(
        {"time": 1.0, "status": "nothing", "sentence": "nothing new", "pass": None, "unsettled": [], "unlabelled": []},
        "last.json",
    )
    registry.write_json(
        {
            "host": "there",
            "process": 7,
            "schedule": "every 6h",
            "footage": "f",
            "began": 1.0,
            "next": 1e9,
            "working_since": None,
            "beat": 1.0,
        },
        "watchers",
        "there-7.json",
    )
    registry.write_json({"looks": {}, "seen": {}, "unlabelled": []}, "settling.json")
    store.forget("f" * 32, bytes=7)


def snapshot(folder: Path, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """What lies below a folder: the content of files, where links lead, the kind of all else."""
    found = {}
    for path in sorted(folder.rglob("*")):
        relative = str(path.relative_to(folder))
        if not relative.startswith(without):
            found[relative] = (
                os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else path.stat().st_mode
            )
    return found


def damage(lab: Path, chance: random.Random) -> str:
    """Change one thing in what is stored; says what."""
    files = [path for path in sorted(lab.rglob("*")) if path.is_file() and not path.is_symlink()]
    path = chance.choice(files)
    by_suffix: dict[str, list[Callable[[Path, random.Random], str]]] = {
        ".json": [_json_value, _json_value, _json_value, _json_text],
        ".parquet": [_parquet_value, _parquet_value, _bytes],
        ".safetensors": [_bytes, _tensors],
    }
    how = chance.choice([*by_suffix.get(path.suffix, [_bytes]) * 3, _bytes, _link, _replaced, _gone])
    return f"{path.relative_to(lab)}: {how(path, chance)}"


def _json_text(path: Path, chance: random.Random) -> str:
    text = chance.choice(JSON_TEXTS)
    path.write_bytes(text)
    return f"is {text[:30]!r}"


def _json_value(path: Path, chance: random.Random) -> str:
    """One value of one object of the file, which has an object a line if it is of a table's log."""
    try:
        whole = path.parent.name != "_delta_log"
        values = [json.loads(text) for text in ([path.read_text()] if whole else path.read_text().splitlines())]
    except ValueError:  # damaged before
        return _json_text(path, chance)
    if not values:
        return _json_text(path, chance)
    said = _changed(values, chance)
    path.write_text("\n".join(json.dumps(value) for value in values))
    return said


def _changed(value: Any, chance: random.Random) -> str:
    places = list(value) if isinstance(value, dict) else range(len(value))
    place = chance.choice(places)
    if isinstance(value[place], dict | list) and value[place] and chance.random() < 0.85:
        return f"{place}.{_changed(value[place], chance)}"
    if chance.random() < 0.2:
        del value[place]
        return f"{place} is gone"
    value[place] = chance.choice(VALUES)
    return f"{place} is {str(value[place])[:30]!r}"


def _parquet_value(path: Path, chance: random.Random) -> str:
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError):
        return _bytes(path, chance)
    if not table.num_rows or chance.random() < 0.1:
        table = pa.table({"x": [1, 2, 3]})
    name = chance.choice(table.column_names)
    odd = {
        pa.types.is_string: [None, *(text for text in TEXTS if text != "\ud800")],
        pa.types.is_integer: [None, -1, 0, 2**31 - 1],
        pa.types.is_floating: [None, float("nan"), float("inf"), -1.0, 1e300],
        pa.types.is_binary: [None, b"", b"x" * 1000],
        pa.types.is_list: [None, [], [None]],
    }
    kind = table[name].type
    choices = next((values for test, values in odd.items() if test(kind)), [None])
    values = table[name].to_pylist()
    values[chance.randrange(len(values))] = value = chance.choice(choices)
    pq.write_table(table.set_column(table.column_names.index(name), name, pa.array(values, kind)), path)
    return f"a value of {name} is {str(value)[:30]!r}"


def _tensors(path: Path, chance: random.Random) -> str:
    from safetensors.torch import load_file, save_file

    try:
        tensors = load_file(path)
    except Exception:  # damaged before
        return _bytes(path, chance)
    name = chance.choice(sorted(tensors))
    value = tensors.pop(name)
    if chance.random() < 0.7:
        tensors[name] = (
            value * float("nan") if chance.random() < 0.5 and value.is_floating_point() else value.new_zeros((3, 1))
        )
    save_file(tensors, path, metadata={"format": "pt"})
    return f"tensor {name} is another"


def _bytes(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    if not content or chance.random() < 0.3:
        path.write_bytes(content[: chance.randrange(len(content) + 1)])
        return "is cut"
    for _ in range(chance.choice([1, 4, 50])):
        content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    return "has other bytes"


def _link(path: Path, chance: random.Random) -> str:
    photos = (
        path.parents[next(number for number, parent in enumerate(path.parents) if parent.name == "lab")].parent
        / "photos"
    )
    target = chance.choice([
        photos / "one.parquet",
        photos / "two.json",
        photos / "model.safetensors",
        photos / "nothing",
    ])
    if chance.random() < 0.4:
        path, target = path.parent, photos
        shutil.rmtree(path)
    else:
        path.unlink()
    path.symlink_to(target)
    return f"{path.name} is a link to {target.name}"


def _replaced(path: Path, chance: random.Random) -> str:
    path.unlink()
    kind = chance.choice(["folder", "pipe"])
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    return f"is a {kind}"


def _gone(path: Path, chance: random.Random) -> str:
    if chance.random() < 0.3:
        shutil.rmtree(path.parent)
        return "its folder is gone"
    path.unlink()
    return "is gone"
