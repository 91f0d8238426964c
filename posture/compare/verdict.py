"""A comparison in words: what is above what, how sure that is, and what could not be told at all.

The words follow from the figures of an analysis (`posture.compare.action`) alone. Everything is said of the subject, the
model that the others are compared with; p is the one after Holm's adjustment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from posture.display.text import THIN_SPACE, decimal, listed, percent, signed

if TYPE_CHECKING:
    from posture.compare.action import Measures

SIGNIFICANT, LEAST_P = 0.05, 0.001
KINDS = {"ours": "other model", "baseline": "baseline", "ablation": "ablation", "reference": "reference"}


def verdict(analysis: Mapping[str, Any], measures: Measures) -> list[str]:
    """The result in sentences: the subject's figures, its place among the models that are no ablations of it, and what
    groups were too few for.
    """
    rows = {row["name"]: row for row in analysis["entries"]}
    subject = rows[analysis["subject"]]
    if not subject["metrics"]:
        return [f"{subject['title']} was not measured: {subject['not_measured']}. Nothing can be said about it."]
    sentences = [measures.opening(analysis, subject)]
    for figure, words in measures.judged.items():
        groups: dict[str, list[str]] = {}
        for row in rows.values():
            against = row["against"] and row["against"][figure]
            if against and against["difference"] is not None and row["kind"] != "ablation":
                groups.setdefault(judged(against), []).append(
                    f"{row['title']} ({told(against, unit=measures.unit_of(figure))})"
                )
        for side, said in zip(("above", "below", "undecided"), words, strict=True):
            if side in groups:
                sentences.append(f"It {said} {listed(groups[side])}.")
    if limited := limits(analysis, measures):
        sentences.append(limited)
    absent = [row["title"] for row in rows.values() if not row["metrics"]]
    if absent:
        sentences.append(f"Not measured: {listed(absent)}.")
    return sentences


def limits(analysis: Mapping[str, Any], measures: Measures) -> str:
    """A sentence where the groups are so few that no difference could have been told from chance; else nothing."""
    bounds = []
    for kind, least in analysis["least_p"].items():
        if least is not None and least >= SIGNIFICANT:
            several = sum(row["kind"] == kind and row["against"] is not None for row in analysis["entries"])
            bounds.append(f"{least:.2f} for the {f'{several} {KINDS[kind]}s' if several > 1 else KINDS[kind]}")
    if not bounds:
        return ""
    return (
        f"With {analysis['groups']} groups of test {measures.unit}s and {analysis['resamples']:,} resamples of them, p, adjusted for how many "
        f"are compared, could not fall below {listed(bounds)}: none of these could be told from chance, however large the difference."
    )


def ablation_verdict(analysis: Mapping[str, Any], row: Mapping[str, Any], measures: Measures) -> str:
    """What taking the part away, or putting another in its place, did, in a sentence."""
    subject = next(other for other in analysis["entries"] if other["name"] == analysis["subject"])
    if not row["against"]:
        return f"{row['title']}: the full model was not measured, so nothing can be said."
    figure = measures.ablated
    against = row["against"][figure]
    if against["difference"] is None:
        return f"{row['title']}: {measures.tested[figure]} is not defined on this footage, so nothing can be said."
    full, without = (one["metrics"][figure]["mean"] for one in (subject, row))
    part = "its own" if row["replaced"] else "what was taken away"
    helps, harms, idle = (
        ("is better", "is worse", "is no better") if row["replaced"] else ("helps", "harms", "does not help")
    )
    undecided = (
        "a gain that this footage cannot tell from chance"
        if against["difference"] > 0
        else f"{part} {idle} on this footage"
    )
    means = {
        "above": f"{part} {helps} on this footage",
        "below": f"{part} {harms} on this footage",
        "undecided": undecided,
    }
    values = [percent(value) if figure in measures.shares else decimal(value) for value in (without, full)]
    named = "" if figure in measures.shares else f"{measures.tested[figure]} "
    with_, of_full = ("with it", f"with {subject['title']}'s own") if row["replaced"] else ("without it", "with it")
    return (
        f"{row['title']}: {named}{values[0]} {with_}, {values[1]} {of_full}; {means[judged(against)]} "
        f"({told(against, unit=measures.unit_of(figure))})."
    )


def judged(against: Mapping[str, float | None]) -> Literal["above", "below", "undecided"]:
    """The subject against one model, by the adjusted p."""
    p = against["p_holm"]
    if p is None or p >= SIGNIFICANT:
        return "undecided"
    return "above" if against["difference"] > 0 else "below"


def told(against: Mapping[str, float | None], *, unit: str = "points") -> str:
    """`+4.1 points, 95 % CI +1.0 to +7.2, p = 0.012`, or without a unit `+0.041, 95 % CI +0.010 to +0.072, p = 0.012`."""

    def form(value: float) -> str:
        return signed(100 * value) if unit else signed(value, 3)

    difference = f"{form(against['difference'])} {unit}".rstrip()
    if against["p_holm"] is None:
        return f"{difference}; too few groups for an interval"
    return f"{difference}, 95{THIN_SPACE}% CI {form(against['low'])} to {form(against['high'])}, {probability(against['p_holm'])}"


def probability(p: float | None) -> str:
    """`p = 0.012`, `p < 0.001`."""
    if p is None:
        return "p unknown"
    return f"p < {LEAST_P}" if p < LEAST_P else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"
