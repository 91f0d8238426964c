"""The summary and a clip of a store for the page of `posture show`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np

SUMMARY: dict[str, Any] = {
    "uri": "s3://bucket/store",
    "tables": [
        {
            "name": "clips",
            "version": 12,
            "rows": 10822,
            "bytes": 6_100_000_000,
            "modified": datetime(2025, 5, 3, 14, 5, tzinfo=UTC),
        },
        {"name": "videos", "version": 3, "rows": 612, "bytes": 100_000_000, "modified": "2025-05-03T14:06:00+00:00"},
    ],
    "classes": [
        {"class": "jump", "train": 40, "val": 10, "test": 10},
        {"class": "run", "train": 20, "val": 0, "test": 10},
    ],
    "splits": [
        {"split": "train", "segments": 60, "clips": 120, "groups": 9, "seconds": 3600.0},
        {"split": "val", "segments": 10, "clips": 20, "groups": 2, "seconds": 600.0},
        {"split": "test", "segments": 20, "clips": 40, "groups": 3, "seconds": 780.0},
    ],
    "refused": [{"uri": "s3://raw/broken.mp4", "verdict": "truncated", "reason": "no index"}],
    "recipes": [{"recipe": "16 frames, 128x171", "clips": 10822}],
    "history": [{"version": 12, "time": "2025-05-03T14:05:00+00:00", "operation": "WRITE", "rows": 777}],
}


def clip(
    label: str, split: str, group: str, *, frames: int = 8, shape: tuple[int, int] = (56, 56), value: int = 120
) -> dict[str, Any]:
    return {
        "label": label,
        "split": split,
        "group": group,
        "frames": [np.full((*shape, 3), value, dtype=np.uint8)] * frames,
    }
