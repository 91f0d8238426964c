"""Warnings about splits that are too small to choose or compare models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from posture.data.store.schema import UNLABELLED
from posture.display.text import counted

LEAST = 20
"""Fewest segments or images of a split. If it has fewer, one of them is more than 5 points of accuracy."""
PURPOSE = {"val": "to choose epochs and settings by", "test": "to tell models apart by"}
CLASSES_NAMED = 8


def small_splits(rows: pa.Table, what: str = "segments") -> list[str]:
    """Return warnings about the sizes of val and test, and about classes that they lack.

    `rows` has a row per segment or image (`what`): its split, its group, and its `label`, or the list `labels` of its
    boxes. Background and unlabelled footage are no classes.
    """
    labels = "label" if "label" in rows.column_names else "labels"
    counts: Counter[str] = Counter()
    groups: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    for row in rows.select(["split", "group", labels]).to_pylist():
        counts[row["split"]] += 1
        groups.setdefault(row["split"], set()).add(row["group"])
        classes.setdefault(row["split"], set()).update([row["label"]] if labels == "label" else row["labels"])
    if not counts["train"]:
        return []
    sentences = []
    for split in PURPOSE:
        if not counts[split]:
            sentences.append(
                f"{split} is empty: nothing is there {PURPOSE[split]}; "
                "a class needs three groups to be in train, val and test"
            )
        elif counts[split] < LEAST:
            held = f"{counted(counts[split], what[:-1])} of {counted(len(groups[split]), 'group')}"
            sentences.append(too_few(split, held, points=100 / counts[split] if what == "segments" else None))
        if counts[split] and (lacking := classes["train"] - classes[split] - {"background", UNLABELLED}):
            sentences.append(f"{split} has no {what[:-1]} of {_named(lacking)}")
    if missing := set().union(*(classes.get(split, set()) for split in PURPOSE)) - classes["train"]:
        sentences.append(f"train has no {what[:-1]} of {_named(missing)}")
    return sentences


def too_few(split: str, held: str, *, points: float | None) -> str:
    """Return the warning about a split that has only `held`, each of which is `points` of accuracy."""
    worth = "" if points is None else f", one of them {points:.0f} points of accuracy"
    return f"{split} is {held}{worth}: too few {PURPOSE[split]}"


def _named(classes: Iterable[str]) -> str:
    names = sorted(classes)
    more = f" and {len(names) - CLASSES_NAMED} more" if len(names) > CLASSES_NAMED else ""
    return ", ".join(names[:CLASSES_NAMED]) + more
