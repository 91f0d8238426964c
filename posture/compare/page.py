"""The parts of a comparison's page that all tasks share: tables, differences, classes, losses, cost and facts."""

# what may be None here depends on other values
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from posture.compare.analysis import flow_notes, mean_text, whole_ms
from posture.compare.results import Comparison, Entry, Measures
from posture.compare.verdict import SIGNIFICANT, difference_text, probability
from posture.display import text
from posture.display.charts import (
    LONGEST,
    LOOKS,
    Chart,
    ChartLine,
    Column,
    Columns,
    Interval,
    Intervals,
    over_epochs,
    ticks,
)
from posture.display.text import NOTHING, THIN_SPACE, amount, decimal, percent, short, signed
from posture.runs.reports.common import footage_table, list_facts, words

OVER_SEEDS = "Mean over seeds, whiskers from the lowest to the highest seed"
KNOWN = {
    "budget": ("Budget", words),
    "seeds": ("Seeds", words),
    "protocol": ("Protocol", words),
    "hardware": ("Hardware", words),
    "software": ("Software", words),
    "store": ("Store", words),
    "tables": ("Table versions", words),
}
"""Facts in their order on the page, with their names."""

Row = Mapping[str, Any]
"""An entry of an analysis."""


def shared(
    comparison: Comparison,
    analysis: Mapping[str, Any],
    measures: Measures,
    *,
    paper: Mapping[str, Mapping[str, float]],
    kinds: Mapping[str, str],
) -> dict[str, Any]:
    """Return the values of the template that all tasks share.

    `paper`: {entry: {figure: value printed in the paper}}; `kinds`: {kind: title of its part of the table}.
    """
    rows = analysis["entries"]
    main = [row for row in rows if row["kind"] != "ablation"]
    ablations = [row for row in rows if row["kind"] == "ablation"]
    subject = next(row for row in rows if row["name"] == analysis["subject"])
    facts = analysis["facts"]
    one_scale = measures.unit == "segment" and all(
        entry.loss == comparison.entries[0].loss for entry in comparison.entries
    )
    return {
        "analysis": analysis,
        "subject": subject,
        "facts": list_facts(facts, KNOWN, ("when", "departures", "footage", "majority_accuracy")),
        "departures": facts.get("departures") or [],
        "footage": footage_table(facts.get("footage")),
        "subtitle": _subtitle(analysis, facts, measures),
        "kinds": [
            (title, [row for row in main if row["kind"] == kind])
            for kind, title in kinds.items()
            if any(row["kind"] == kind for row in main)
        ],
        "main": main,
        "ablations": [subject, *ablations] if ablations else [],
        "paper": paper if any(row["name"] in paper for row in main) else {},
        "several": any(len(row["seeds"]) > 1 for row in rows),
        "flow_notes": flow_notes(analysis),
        "figures": measures.tested,
        "probability": probability,
        "significant": SIGNIFICANT,
        "amount": amount,
        "points": lambda figure, value: points(figure, value, measures),
        "mean": lambda row, figure: mean(row, figure, measures),
        "differences": differences(main, measures),
        "per_class": _per_class(main, analysis["classes"]),
        "losses": losses([entry for entry in comparison.entries if entry.kind != "ablation"], one_scale=one_scale),
        "ablation_losses": losses(
            [entry for entry in comparison.entries if entry.kind == "ablation"], one_scale=one_scale
        ),
        "one_scale": one_scale,
        "loss_notes": _loss_notes(comparison.entries),
        "ablated": measures.ablated,
        "compute": {"name": measures.compute[0], "of": measures.compute[1]},
        "searched": _searched(rows, measures),
    }


def _subtitle(analysis: Mapping[str, Any], facts: Mapping[str, Any], measures: Measures) -> list[str]:
    rows = analysis["entries"]
    seeds = [len(row["seeds"]) for row in rows if row["metrics"]] or [0]
    each = (
        f"{seeds[0]} seed{'s' * (seeds[0] != 1)} each"
        if len(set(seeds)) == 1
        else f"{min(seeds)} to {max(seeds)} seeds each"
    )
    units = f"{measures.unit}s"
    parts = [
        f"{sum(row['metrics'] is not None for row in rows)} of {len(rows)} models measured",
        each,
        f"{analysis[measures.count]:,} test {units} in {analysis['groups']:,} groups",
    ]
    return parts + ([text.moment(facts["when"])] if facts.get("when") else [])


def ratio(subject: Row, beside: Row | None, key: str) -> str:
    """Compare a cost with that of another model, in words."""
    ours, theirs = subject[key], beside and beside[key]
    if not ours or not theirs or beside is None:
        return ""
    if ours == theirs:
        return f"that of {beside['title']}"
    return (
        f"{theirs / ours:.1f} times less than {beside['title']}"
        if theirs > ours
        else f"{ours / theirs:.1f} times that of {beside['title']}"
    )


def beside_text(beside: Row | None, figure: str, measures: Measures) -> str:
    """Return another model's figure with its name."""
    return f"{beside['title']}: {mean(beside, figure, measures)}" if beside and beside["metrics"] else ""


def mean(row: Row, figure: str, measures: Measures) -> str:
    """Return `84.2 ± 1.3 %` or `0.842 ± 0.013`: mean and standard deviation over seeds."""
    if not row["metrics"] or not row["metrics"][figure]:
        return NOTHING
    return (
        f"{mean_text(row, figure, scale=100, digits=1)}{THIN_SPACE}%"
        if figure in measures.shares
        else mean_text(row, figure)
    )


def points(figure: str, value: float | None, measures: Measures) -> str:
    """Return a difference as the table shows its figure: in points for a share, else as a decimal."""
    if value is None:
        return NOTHING
    return signed(100 * value) if figure in measures.shares else signed(value, 3)


def differences(rows: Sequence[Row], measures: Measures) -> list[Intervals]:
    """Draw, for each tested figure, the subject's difference to every other model with its interval, in hundredths."""
    compared = [row for row in rows if row["against"]]
    charts = []
    for figure, title in measures.tested.items():
        drawn, unit = [], measures.unit_of(figure) or "hundredths"
        for row in compared:
            against = row["against"][figure]
            if against["difference"] is None:
                continue
            sure = against["p_holm"] is not None and against["p_holm"] < SIGNIFICANT
            look = ("right" if against["difference"] > 0 else "wrong") if sure else "unsure"
            low, high = (None if against[key] is None else 100 * against[key] for key in ("low", "high"))
            drawn.append(
                Interval(
                    short(row["title"], LONGEST),
                    100 * against["difference"],
                    low,
                    high,
                    look,
                    f"{row['title']}: {difference_text(against, unit=unit)}",
                )
            )
        reach = [value for row in drawn for value in (row.value, row.low, row.high) if value is not None]
        if drawn:
            charts.append(Intervals(title, f"{unit} ahead →", ticks(min(0.0, *reach), max(0.0, *reach), 4), drawn))
    return charts


def columns(
    title: str, rows: Sequence[Row], bars: Mapping[str, str], *, top: float = 1.0, digits: int = 3, width: int = 1040
) -> Columns:
    """Draw figures (0..top) of each model as bars side by side, named as in `bars`.

    Whiskers go from the lowest to the highest seed.
    """
    groups = []
    letters = min(20, int((width - Columns.left - Columns.right) / max(len(rows), 1) / 6.5))
    for row in rows:
        drawn = []
        for figure, name in bars.items():
            spread = row["metrics"] and row["metrics"][figure]
            if not spread:
                drawn.append(Column(None))
                continue
            values = spread["values"]
            low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
            label = f"{row['title']}, {name}: {spread['mean']:.{digits}f}, seeds {low} to {high}"
            several = len(values) > 1
            drawn.append(
                Column(spread["mean"], min(values) if several else None, max(values) if several else None, label)
            )
        name = textwrap.wrap(row["title"], max(4, letters))
        groups.append((name if row["metrics"] else [*name, "not measured"], drawn))
    return Columns(title, list(bars.values()), groups, ticks(0, top), width=width)


def _per_class(main: Sequence[Row], classes: Sequence[str]) -> dict[str, Any] | None:
    """Return the table of each class and model."""
    measured = [row for row in main if row["per_class"]]
    if not measured:
        return None
    rows = []
    for name in classes:
        values = [row["per_class"].get(name) for row in measured]
        best = max((value for value in values if value is not None), default=None)
        rows.append({
            "class": name,
            "values": [
                {"share": value, "best": value is not None and round(value, 3) == round(best, 3)} for value in values
            ],
        })
    return {"titles": [row["title"] for row in measured], "rows": rows}


def look(index: int) -> str:
    """Return the style class of a model's curve, by its index."""
    return LOOKS[index] if index < len(LOOKS) else "faint"


def losses(entries: Sequence[Entry], *, one_scale: bool) -> list[Chart]:
    """Draw training and validation loss of each model, a curve for each seed; `one_scale` if all use the same loss.

    The training loss of several streams is their sum; their mean is drawn.
    """
    drawn = [
        (
            entry,
            [
                ChartLine(
                    f"{name}, seed {result.seed}",
                    [(epoch, value / parts) for epoch, value in over_epochs(result.history, key)],
                    look,
                    listed=False,
                )
                for result in entry.results
                for name, key, look, parts in (
                    ("training", "train_loss", "first seed", entry.streams),
                    ("validation", "val_loss", "second seed", 1),
                )
            ],
        )
        for entry in entries
    ]
    points = [[point for line in lines for point in line.points if math.isfinite(point[1])] for _, lines in drawn]
    every = [point for found in points for point in found]
    charts = []
    for (entry, lines), own in zip(drawn, points, strict=True):
        if own:
            within = every if one_scale else own
            x_ticks, y_ticks = (
                ticks(0.0, max(x for x, _ in within), 5, whole=True),
                ticks(0.0, max(y for _, y in within)),
            )
            charts.append(Chart(entry.title, "epoch", "", x_ticks, y_ticks, lines, width=360, height=220))
    return charts


def _loss_notes(entries: Sequence[Entry]) -> list[str]:
    """Return sentences on models whose training and validation losses measure different things."""
    notes = [
        f"{entry.title}: the training loss is the mean over its {entry.streams} streams, the validation loss that of "
        "their fused prediction."
        for entry in entries
        if entry.streams > 1 and entry.results
    ]
    smoothed = {
        entry.title: entry.loss["label_smoothing"]
        for entry in entries
        if entry.loss.get("label_smoothing") and entry.results
    }
    if smoothed:
        notes.append(
            f"The training loss of {', '.join(f'{title} ({value:g})' for title, value in smoothed.items())} includes "
            "label smoothing; no validation loss does."
        )
    return notes


def costs(
    main: Sequence[Row], figures: Mapping[str, tuple[Callable[[Row], float | None], Callable[[float], str]]]
) -> list[dict[str, Any]]:
    """Return the cost table: for each figure (its value, its format) the text and its share of the largest value."""
    largest = {name: max((value(row) or 0 for row in main), default=0) or 1 for name, (value, _) in figures.items()}
    return [
        {
            "title": row["title"],
            "latency_ms": whole_ms(row),
            **{
                name: None if value(row) is None else {"text": form(value(row)), "share": value(row) / largest[name]}
                for name, (value, form) in figures.items()
            },
        }
        for row in main
    ]


def _searched(rows: Sequence[Row], measures: Measures) -> list[dict[str, Any]]:
    """Return for each model its optimiser and every learning rate tried, lowest first; `taken` marks the one used."""

    def result(tried: Mapping[str, float | None]) -> str:
        loss, figure = (
            tried.get("val_loss"),
            next((tried[f"val_{name}"] for name in measures.tested if f"val_{name}" in tried), None),
        )
        if loss is None and figure is None:
            return "diverged"
        form = percent if measures.ablated in measures.shares else decimal
        return f"{decimal(loss)}, {form(figure)}" if loss is not None else form(figure)

    found = []
    for row in rows:
        tried = [
            {"lr": one["lr"], "text": result(one), "taken": one["lr"] == row["lr"]}
            for one in sorted(row["lr_search"], key=lambda one: one["lr"])
        ]
        if tried or row["optimizer"]:
            found.append({
                "title": row["title"],
                "optimizer": row["optimizer"] or "not recorded",
                "budget": row["budget"],
                "search_budget": row["search_budget"] or ("not recorded" if tried else "none tried"),
                "tried": tried or ([{"lr": row["lr"], "text": "the recipe's", "taken": True}] if row["lr"] else []),
            })
    return found
