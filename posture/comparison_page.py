"""The page of a comparison: Table 3, differences, ablations (Figure 11), classes (Figure 12), ROC (Figure 13), losses, speed, and how it was done."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posture import pages
from posture.comparison import PAPER, SIGNIFICANT, Comparison, Entry, probability, told
from posture.pages import THIN_SPACE, signed
from posture.pages.charts import Chart, Column, Columns, Interval, Intervals, Line, ticks

KINDS = {"ours": "Ours", "baseline": "The paper's baselines", "reference": "References: torchvision's networks"}
FIGURES = {"accuracy": "Accuracy", "map": "mAP", "auc": "AUC"}
BARS = {"accuracy": "accuracy", "macro_precision": "precision", "macro_recall": "recall", "macro_f1": "F1"}
LOOKS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")


def write_comparison_page(path: Path, *, comparison: Comparison, analysis: Mapping[str, Any]) -> None:
    """Write the page of `analysis` (of `posture.comparison.analyse`); curves come from the comparison's histories and metrics."""
    rows = analysis["entries"]
    main = [row for row in rows if row["kind"] != "ablation"]
    ablations = [row for row in rows if row["kind"] == "ablation"]
    subject = next(row for row in rows if row["name"] == analysis["subject"])
    facts = analysis["facts"]
    together = analysis["over_seeds"] == "scores" and any(len(row["seeds"]) > 1 for row in rows)
    page = pages.render(
        "comparison.html",
        analysis=analysis, subject=subject, facts=_facts(facts), footage=pages.footage_table(facts.get("footage")),
        subtitle=_subtitle(analysis, facts),
        tiles=_tiles(subject, main, facts) if subject["metrics"] else [],
        kinds=[(title, [row for row in main if row["kind"] == kind]) for kind, title in KINDS.items() if any(row["kind"] == kind for row in main)],
        main=main, ablations=[subject, *ablations] if ablations else [],
        paper=PAPER if any(row["name"] in PAPER for row in main) else {},
        figures=FIGURES, probability=probability, points=_points, mean=_mean, amount=_amount, significant=SIGNIFICANT, together=together,
        differences=_differences(main),
        bars=_ablation_bars([subject, *ablations]) if ablations else None,
        per_class=_per_class(main, analysis["classes"]),
        roc=_roc([entry for entry in comparison.entries if entry.kind != "ablation"]),
        losses=_losses([entry for entry in comparison.entries if entry.kind != "ablation"]),
        ablation_losses=_losses([entry for entry in comparison.entries if entry.kind == "ablation"]),
        costs=_costs(main), searched=_searched(rows),
    )
    pages.write(path, page)


def _subtitle(analysis: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    rows = analysis["entries"]
    seeds = [len(row["seeds"]) for row in rows if row["metrics"]] or [0]
    each = f"{seeds[0]} seed{'s' * (seeds[0] != 1)} each" if len(set(seeds)) == 1 else f"{min(seeds)} to {max(seeds)} seeds each"
    parts = [f"{sum(row['metrics'] is not None for row in rows)} of {len(rows)} models measured", each,
             f"{analysis['segments']:,} test segments in {analysis['groups']:,} groups"]
    return parts + ([pages.moment(facts["when"])] if facts.get("when") else [])


def _tiles(subject: Mapping[str, Any], main: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> list[dict[str, str]]:
    """The subject in four figures, each beside the first baseline's."""
    beside = next((row for row in main if row["kind"] == "baseline"), None)

    def ratio(ours: float | None, theirs: float | None) -> str:
        if not ours or not theirs or beside is None:
            return ""
        return f"{theirs / ours:.1f} times less than {beside['title']}" if theirs >= ours else f"{ours / theirs:.1f} times that of {beside['title']}"

    def other(figure: str) -> str:
        return f"{beside['title']}: {_mean(beside, figure)}" if beside and beside["metrics"] else ""

    return [
        {"name": "Accuracy", "value": pages.percent(subject["metrics"]["accuracy"]["mean"]), "note": other("accuracy")},
        {"name": "mAP", "value": pages.decimal((subject["metrics"]["map"] or {}).get("mean")), "note": other("map")},
        {"name": "Compute", "value": f"{_amount(subject['gmacs'])}{THIN_SPACE}GMAC", "note": ratio(subject["gmacs"], beside and beside["gmacs"])},
        {"name": "Parameters", "value": f"{_amount(subject['parameters'] / 1e6)}{THIN_SPACE}M",
         "note": ratio(subject["parameters"], beside and beside["parameters"])},
    ]


def _mean(row: Mapping[str, Any], figure: str) -> str:
    """`84.2 ± 1.3 %` or `0.842 ± 0.013`: mean and standard deviation over seeds."""
    spread = row["metrics"] and row["metrics"][figure]
    if not spread:
        return pages.NOTHING
    shares = figure in ("accuracy", "top5")
    scale, digits, unit = (100, 1, f"{THIN_SPACE}%") if shares else (1, 3, "")
    deviation = "" if spread["deviation"] is None else f" ± {scale * spread['deviation']:.{digits}f}"
    return f"{scale * spread['mean']:.{digits}f}{deviation}{unit}"


def _amount(value: float) -> str:
    """38.55 as `38.55`, 0.2142 as `0.214`: networks differ in size by hundreds."""
    return f"{value:,.{2 if value >= 1 else 3}f}"


def _points(figure: str, value: float | None) -> str:
    """A difference as the table writes its figure: points of accuracy, decimals of the others."""
    if value is None:
        return pages.NOTHING
    return signed(100 * value) if figure == "accuracy" else signed(value, 3)


def _differences(main: Sequence[Mapping[str, Any]]) -> list[Intervals]:
    """The subject's difference to each other model with its interval, in hundredths, a chart for each figure."""
    compared = [row for row in main if row["against"]]
    charts = []
    for figure, title in FIGURES.items():
        rows, unit = [], "points" if figure == "accuracy" else "hundredths"
        for row in compared:
            against = row["against"][figure]
            sure = against["p_holm"] is not None and against["p_holm"] < SIGNIFICANT
            look = ("right" if against["difference"] > 0 else "wrong") if sure else "unsure"
            low, high = (None if against[key] is None else 100 * against[key] for key in ("low", "high"))
            rows.append(Interval(_short(row["title"]), 100 * against["difference"], low, high, look, f"{row['title']}: {told(against, unit=unit)}"))
        reach = [value for row in rows for value in (row.value, row.low, row.high) if value is not None]
        if rows:
            charts.append(Intervals(title, f"{unit} ahead →", ticks(min(0.0, *reach), max(0.0, *reach), 4), rows))
    return charts


def _ablation_bars(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Figure 11: accuracy, precision, recall and F1 of the subject and of each ablation; whiskers from the lowest to the highest seed."""
    groups = []
    for row in rows:
        bars = []
        for figure, name in BARS.items():
            spread = row["metrics"] and row["metrics"][figure]
            if not spread:
                bars.append(Column(None))
                continue
            values = spread["values"]
            text = f"{row['title']}, {name}: {spread['mean']:.3f}, seeds {min(values):.3f} to {max(values):.3f}"
            several = len(values) > 1
            bars.append(Column(spread["mean"], min(values) if several else None, max(values) if several else None, text))
        name = textwrap.wrap(row["title"], 20, max_lines=2 if row["metrics"] else 1, placeholder="…")
        groups.append((name if row["metrics"] else [*name, "not measured"], bars))
    return Columns("Mean over seeds, whiskers from the lowest to the highest seed", list(BARS.values()), groups, ticks(0, 1))


def _per_class(main: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any] | None:
    """Figure 12: accuracy of each class and model."""
    measured = [row for row in main if row["per_class"]]
    if not measured:
        return None
    rows = []
    for name in classes:
        values = [row["per_class"].get(name) for row in measured]
        best = max((value for value in values if value is not None), default=None)
        rows.append({"class": name, "values": [{"share": value, "best": value is not None and round(value, 3) == round(best, 3)} for value in values]})
    return {"titles": [row["title"] for row in measured], "rows": rows}


def _roc(entries: Sequence[Entry]) -> Chart | None:
    """Figure 13: per model the mean of its classes' curves and seeds, each class against the rest."""
    grid = np.linspace(0, 1, 201)
    lines = []
    for place, entry in enumerate(entries):
        curves = [curve for result in entry.results for curve in result.metrics["roc"].values()]
        if curves:
            mean = np.mean([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves], axis=0)
            area = np.mean([result.metrics["auc"] for result in entry.results])
            lines.append(Line(f"{entry.title} {area:.3f}", [(0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True)], _look(place)))
    if not lines:
        return None
    guide = Line("chance", [(0, 0), (1, 1)], "guide", listed=False)
    return Chart("ROC, with AUC", "false positive rate", "true positive rate", ticks(0, 1), ticks(0, 1), [guide, *lines], height=400)


def _look(place: int) -> str:
    return LOOKS[place] if place < len(LOOKS) else "faint"


def _losses(entries: Sequence[Entry]) -> list[Chart]:
    """Training and validation loss of each model, a curve for each seed, all to one scale."""
    def points(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
        return [(float(row.get("epoch", place + 1)), math.nan if row.get(key) is None else float(row[key])) for place, row in enumerate(history)]

    drawn = [(entry, [Line(f"{name}, seed {result.seed}", points(result.history, key), look, listed=False) for result in entry.results
                      for name, key, look in (("training", "train_loss", "first seed"), ("validation", "val_loss", "second seed"))])
             for entry in entries]
    drawn = [(entry, lines) for entry, lines in drawn if any(math.isfinite(y) for line in lines for _, y in line.points)]
    if not drawn:
        return []
    every = [point for _, lines in drawn for line in lines for point in line.points if math.isfinite(point[1])]
    x_ticks = ticks(0.0, max(x for x, _ in every), 5, whole=True)
    y_ticks = ticks(0.0, max(y for _, y in every))
    return [Chart(entry.title, "epoch", "", x_ticks, y_ticks, lines, width=360, height=220) for entry, lines in drawn]


def _costs(main: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each model costs, every figure with its share of the largest."""
    figures = {
        "clips_per_second": (lambda row: row["clips_per_second"], lambda value: f"{value:,.1f}"),
        "latency": (lambda row: row["latency_ms"] and row["latency_ms"]["median"], lambda value: f"{value:,.1f}"),
        "gmacs": (lambda row: row["gmacs"], _amount),
        "parameters": (lambda row: row["parameters"] / 1e6, _amount),
    }
    largest = {name: max((value(row) or 0 for row in main), default=0) or 1 for name, (value, _) in figures.items()}
    return [{"title": row["title"], "latency_ms": row["latency_ms"],
             **{name: None if value(row) is None else {"text": form(value(row)), "share": value(row) / largest[name]}
                for name, (value, form) in figures.items()}} for row in main]


def _searched(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Per model every learning rate tried, lowest first; `taken`: the one that its runs were trained with."""
    return [{"title": row["title"], "lr": row["lr"], "epochs": row["epochs"], "tried": [
        {"lr": one["lr"], "loss": one.get("val_loss"), "accuracy": one.get("val_accuracy"), "taken": one["lr"] == row["lr"]}
        for one in sorted(row["lr_search"], key=lambda one: one["lr"])]} for row in rows if row["lr_search"]]


def _facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The known facts in a fixed order, then any others by their names."""
    def words(value: Any) -> str:
        if isinstance(value, Mapping):
            return ", ".join(f"{name}{THIN_SPACE}{version}" for name, version in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    known = {"budget": "Budget", "seeds": "Seeds", "protocol": "Protocol", "hardware": "Hardware", "software": "Software", "store": "Store",
             "tables": "Table versions"}
    listed = [(title, words(facts[key])) for key, title in known.items() if facts.get(key) is not None]
    elsewhere = {"when", "footage", "majority_accuracy"}
    return listed + [(key.replace("_", " ").capitalize(), words(value)) for key, value in facts.items()
                     if key not in known and key not in elsewhere and value is not None]


def _short(name: str, most: int = 17) -> str:
    return name if len(name) <= most else name[:most - 1] + "…"
