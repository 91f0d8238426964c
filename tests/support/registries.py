"""A record of a version, and a small store and registry that hold one video and one version."""

from __future__ import annotations

import pyarrow as pa

from posture.data.store import schema
from posture.data.store.tables import Store
from posture.retrain.registry import Registry

TRACKING = {"project": "posture", "group": None, "mode": "auto"}
RECORD = {
    "parent": None,
    "run": {"name": "small", "optim": {"lr": 0.1}, "weights": "", "tracking": TRACKING},
    "recipe": "jobs/action.py:c3d",
    "run_folder": "runs/x",
    "store": "store",
    "footage_versions": {"clips": 3},
    "classes": ["dive", "jump"],
    "left_out": [],
    "metrics": {"accuracy": 0.5, "per_class": [{"class": "dive", "recall": 0.25}, {"class": "jump", "recall": None}]},
    "decision": {"outcome": "promoted", "verdict": "Promoted: fine."},
    "holdout": ["s1"],
    "trained_on": {"train": 8, "val": 2},
    "software": {"torch": "2"},
}
GOOD = "0123456789abcdef0123456789abcdef"


def make_store(place):
    store = Store(str(place), create=True)
    store.create_tables()
    video = {
        "video": GOOD,
        "uri": "/footage/a.mp4",
        "bytes": 1,
        "modified": 1.0,
        "frames": 10,
        "fps": 25.0,
        "seconds": 0.4,
        "width": 32,
        "height": 24,
        "codec": "h264",
        "verdict": "ok",
        "reason": "",
    }
    store.append("videos", pa.Table.from_pylist([video], schema=schema.VIDEOS))
    store.append("groups", pa.Table.from_pylist([{"group": "a", "split": "train"}], schema=schema.GROUPS))
    return store


def make_registry(place, store="store"):
    registry = Registry(str(place), create=True)
    weights = place.parent / "model.safetensors"
    weights.write_bytes(b"weights")
    registry.promote(registry.add(RECORD | {"pass": "0001-20260101-000000", "store": store}, weights), why="first")
    return registry
