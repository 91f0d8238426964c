"""Other labels of generated actions, and a small classifier that learns them within minutes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from posture.data.synthetic.figure import REVERSED_PAIRS

CLASSIFIER = {
    "model.width": 0.125,
    "model.frames": 8,
    "model.size": 32,
    "model.norm": "batch",
    "model.standardize": False,
    "model.branch_gain": 0.0,
    "model.input": "diff",
    "scale.global_batch": 8,
}


MOTIONS = {label: pair[0] for pair in REVERSED_PAIRS for label in pair}
"""One label for both directions of a motion, which take longer training to tell apart."""


def relabel(table: Path, new: Callable[[str], str]) -> None:
    """Replace the labels in segments.csv."""
    rows = list(csv.DictReader(table.open()))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"label": new(row["label"])} for row in rows)
