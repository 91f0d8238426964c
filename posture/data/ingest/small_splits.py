"""Sentences about splits that are too small to choose by or to judge by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

LEAST = 20
"""Segments or images. Of fewer, one is more than 5 points of accuracy."""
PURPOSE = {"val": "to choose epochs and settings by", "test": "to tell models apart by"}
CLASSES_NAMED = 8


def small_splits(rows: pa.Table, what: str = "segments") -> list[str]:
    """What is wrong with the sizes of val and test, and which classes they lack.

    `rows` has a row for each of `what`: its split, its group, and its label, or the list `labels` of its boxes.
    Background is no class.
    """
    labels = "label" if "label" in rows.column_names else "labels"
    counts: Counter[str] = Counter()
    groups: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    for row in rows.select(["split", "group", labels]).to_pylist():
        counts[row["split"]] += 1
        groups.setdefault(row["split"], set()).add(row["group"])
        classes.setdefault(row["split"], set()).update([row["label"]] if labels == "label" else row["labels"])
    told = []
    if not counts["train"]:
        return told
    for split in PURPOSE:
        if not counts[split]:
            told.append(
                f"{split} is empty: nothing is there {PURPOSE[split]}; a class needs three groups to be in train, val and test"
            )
        elif counts[split] < LEAST:
            told.append(
                too_few(
                    split,
                    f"{_counted(counts[split], what)} of {_counted(len(groups[split]), 'groups')}",
                    points=100 / counts[split] if what == "segments" else None,
                )
            )
        if counts[split] and (lacking := classes["train"] - classes[split] - {"background"}):
            told.append(f"{split} has no {what[:-1]} of {_named(lacking)}")
    if missing := set().union(*(classes.get(split, set()) for split in PURPOSE)) - classes["train"]:
        told.append(f"train has no {what[:-1]} of {_named(missing)}")
    return told


def too_few(split: str, held: str, *, points: float | None) -> str:
    """The sentence about a split that is `held` alone, of which one is so many `points` of accuracy."""
    return f"{split} is {held}{'' if points is None else f', one of them {points:.0f} points of accuracy'}: too few {PURPOSE[split]}"


def _counted(number: int, many: str) -> str:
    return f"{number:,} {many if number != 1 else many[:-1]}"


def _named(classes: Iterable[str]) -> str:
    names = sorted(classes)
    return ", ".join(names[:CLASSES_NAMED]) + (
        f" and {len(names) - CLASSES_NAMED} more" if len(names) > CLASSES_NAMED else ""
    )
