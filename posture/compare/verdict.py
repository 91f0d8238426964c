"""The verdict of a comparison in sentences: which differences are significant, and which the footage cannot decide.

All sentences follow from the figures of an analysis. They are about the subject, the model that the others are compared
with; p is the one after Holm's adjustment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from posture.compare.results import Measures
from posture.display.text import THIN_SPACE, decimal, listed, percent, signed

SIGNIFICANT, LEAST_P = 0.05, 0.001
KINDS = {"ours": "other model", "baseline": "baseline", "ablation": "ablation", "reference": "reference"}


def verdict(analysis: Mapping[str, Any], measures: Measures) -> list[str]:
    """Return sentences on the subject's figures, on its differences to the other models except ablations, and on the
    limits of few groups.
    """
    rows = {row["name"]: row for row in analysis["entries"]}
    subject = rows[analysis["subject"]]
    if not subject["metrics"]:
        return [f"{subject['title']} was not measured: {subject['not_measured']}. There is nothing to compare."]
    sentences = [measures.opening(analysis, subject)]
    for figure, phrases in measures.phrases.items():
        groups: dict[str, list[str]] = {}
        for row in rows.values():
            against = row["against"] and row["against"][figure]
            if against and against["difference"] is not None and row["kind"] != "ablation":
                groups.setdefault(outcome(against), []).append(
                    f"{row['title']} ({difference_text(against, unit=measures.unit_of(figure))})"
                )
        for side, phrase in zip(("above", "below", "undecided"), phrases, strict=True):
            if side in groups:
                sentences.append(f"It {phrase} {listed(groups[side])}.")
    if limited := limits(analysis, measures):
        sentences.append(limited)
    absent = [row["title"] for row in rows.values() if not row["metrics"]]
    if absent:
        sentences.append(f"Not measured: {listed(absent)}.")
    return sentences


def limits(analysis: Mapping[str, Any], measures: Measures) -> str:
    """Return a sentence if the groups are too few for any difference to be significant; else an empty text."""
    bounds = []
    for kind, least in analysis["least_p"].items():
        if least is not None and least >= SIGNIFICANT:
            several = sum(row["kind"] == kind and row["against"] is not None for row in analysis["entries"])
            bounds.append(f"{least:.2f} for the {f'{several} {KINDS[kind]}s' if several > 1 else KINDS[kind]}")
    if not bounds:
        return ""
    return (
        f"With {analysis['groups']} groups of test {measures.unit}s and {analysis['resamples']:,} resamples, "
        f"the adjusted p cannot fall below {listed(bounds)}: their differences cannot be significant, however large."
    )


def ablation_verdict(analysis: Mapping[str, Any], row: Mapping[str, Any], measures: Measures) -> str:
    """Return a sentence on the effect of removing or replacing a part."""
    subject = next(entry for entry in analysis["entries"] if entry["name"] == analysis["subject"])
    if not row["against"]:
        return f"{row['title']}: the full model was not measured, so there is nothing to compare."
    figure = measures.ablated
    against = row["against"][figure]
    if against["difference"] is None:
        return f"{row['title']}: {measures.tested[figure]} is not defined on this footage."
    full, without = (entry["metrics"][figure]["mean"] for entry in (subject, row))
    part = "the original" if row["replaced"] else "the part"
    helps, harms, idle = (
        ("is better", "is worse", "is no better") if row["replaced"] else ("helps", "harms", "does not help")
    )
    effects = {
        "above": f"{part} {helps} on this footage",
        "below": f"{part} {harms} on this footage",
        "undecided": "the gain is not significant" if against["difference"] > 0 else f"{part} {idle} on this footage",
    }
    values = [percent(value) if figure in measures.shares else decimal(value) for value in (without, full)]
    named = "" if figure in measures.shares else f"{measures.tested[figure]} "
    with_, of_full = ("with it", f"with {subject['title']}'s own") if row["replaced"] else ("without it", "with it")
    return (
        f"{row['title']}: {named}{values[0]} {with_}, {values[1]} {of_full}; {effects[outcome(against)]} "
        f"({difference_text(against, unit=measures.unit_of(figure))})."
    )


def outcome(against: Mapping[str, Any]) -> Literal["above", "below", "undecided"]:
    """Return the subject's side of one model, by the adjusted p."""
    p = against["p_holm"]
    if p is None or p >= SIGNIFICANT:
        return "undecided"
    return "above" if against["difference"] > 0 else "below"


def difference_text(against: Mapping[str, Any], *, unit: str = "points") -> str:
    """Return `+4.1 points, 95 % CI +1.0 to +7.2, p = 0.012`; without a unit, values have three decimals."""

    def form(value: float) -> str:
        return signed(100 * value) if unit else signed(value, 3)

    difference = f"{form(against['difference'])} {unit}".rstrip()
    if against["p_holm"] is None:
        return f"{difference}; too few groups for an interval"
    interval = f"{form(against['low'])} to {form(against['high'])}"
    return f"{difference}, 95{THIN_SPACE}% CI {interval}, {probability(against['p_holm'])}"


def probability(p: float | None) -> str:
    """Return `p = 0.012` or `p < 0.001`."""
    if p is None:
        return "p unknown"
    return f"p < {LEAST_P}" if p < LEAST_P else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
