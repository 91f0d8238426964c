"""Champion against challenger on the page of a decision: tiles, rows and intervals."""

# what may be None here depends on other values
# pyright: reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posture.display import text
from posture.display.charts import Interval, Intervals, ticks
from posture.display.text import NOTHING, THIN_SPACE, counted, decimal, percent, signed
from posture.retrain.comparison import beyond_chance

PARTS = ("frozen", "new", "both")


def tiles(decision: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the large figures at the top: (title, figure, explanation)."""
    both = decision["sets"].get("both")
    came = decision["came_in"]
    new = (
        "New footage",
        text.whole(came["segments"]),
        f"segments, and {counted(sum(came['groups'].values()), 'new group')}",
    )
    if both is None:
        return [new]
    held_out = "hold-out segments" + (", frozen and new" if len(_present(decision["sets"])) > 1 else "")
    ours = (
        "Challenger",
        percent(both["challenger"]["accuracy"]["value"]),
        f"accuracy on {both['segments']:,} {held_out}",
    )
    if both["champion"] is None:
        return [ours, ("mAP", decimal(both["challenger"]["map"]["value"]), "mean average precision"), new]
    found = both["difference"]["accuracy"]
    return [
        ours,
        ("Champion", percent(both["champion"]["accuracy"]["value"]), "on the same segments"),
        ("Difference", signed(100 * found["difference"]), f"points, 95{THIN_SPACE}% interval {_span(found)}"),
        new,
    ]


def set_rows(sets: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row of figures for each part of the hold-out."""
    rows = []
    for part in _present(sets):
        found = sets[part]
        row = {
            "name": part,
            "segments": found["segments"],
            "groups": found["groups"],
            "challenger": percent(found["challenger"]["accuracy"]["value"]),
        }
        if found["champion"] is not None:
            accuracy = found["difference"]["accuracy"]
            row |= {
                "champion": percent(found["champion"]["accuracy"]["value"]),
                "points": signed(100 * accuracy["difference"]),
                "interval": _span(accuracy),
            }
        rows.append(row)
    return rows


def _present(sets: Mapping[str, Any]) -> list[str]:
    """Return the existing parts of the hold-out; if there is only one, the whole is the same and is not listed."""
    present = [part for part in PARTS if sets.get(part)]
    return present[:1] if len(present) == 2 else present


def differences(sets: Mapping[str, Any]) -> list[Intervals]:
    """Draw the challenger's lead on each part of the hold-out, in points, with its interval."""
    rows = []
    for part in _present(sets):
        if found := sets[part]["difference"]:
            one = found["accuracy"]
            low, high = (None if one[key] is None else 100 * one[key] for key in ("low", "high"))
            look = "unsure" if low is None or high is None or low <= 0 <= high else "right" if low > 0 else "wrong"
            rows.append(
                Interval(
                    part,
                    100 * one["difference"],
                    low,
                    high,
                    look,
                    f"{part}: {signed(100 * one['difference'])} points, {_span(one)}",
                )
            )
    reach = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
    return (
        [Intervals("Accuracy", "points ahead of the champion →", ticks(min(0.0, *reach), max(0.0, *reach), 4), rows)]
        if rows
        else []
    )


def class_row(row: Mapping[str, Any], parts: Sequence[str]) -> dict[str, Any]:
    """Return the recall of one class on each of the `parts`, with how it changed."""
    cells = []
    for part in parts:
        found = row[part] or {"segments": 0, "champion": None, "challenger": None, "change": None, "p": None}
        look = "" if not beyond_chance(found) else "fallen" if found["change"] < 0 else "risen"
        cells.append(
            found | {"points": NOTHING if found["change"] is None else signed(100 * found["change"], 0), "look": look}
        )
    return {"class": row["class"], "status": row["status"], "cells": cells}


def _span(found: Mapping[str, float | None]) -> str:
    return (
        "none: only one group"
        if found["low"] is None
        else f"{signed(100 * found['low'])} to {signed(100 * found['high'])}"
    )
