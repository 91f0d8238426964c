"""The comparison of action classifiers: the paper's section 3.2, Table 3 and Figures 11 to 13.

Legend: s test segments, K classes, B resamples. Scores are probabilities, as in `posture.runs.classification_metrics`.
"""

# what may be None here depends on other values
# pyright: reportOptionalSubscript=false

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posture.compare.analysis import common_items, difference_texts, mean_text, tabulate, whole_ms
from posture.compare.page import OVER_SEEDS, Row, beside_text, columns, costs, look, ratio, shared
from posture.compare.results import Comparison, Entry, Measures, Resampled, Scored
from posture.display import html
from posture.display.charts import Chart, ChartLine, ticks
from posture.display.text import THIN_SPACE, amount, decimal, percent
from posture.runs import statistics


@dataclass
class SeedResult(Scored):
    """A scored classifier; its metrics are those of `posture.runs.classification_metrics`."""

    segments: list[str]
    labels: np.ndarray  # (s,) int
    scores: np.ndarray  # (s, K) float

    @property
    def truths(self) -> dict[str, int]:
        return dict(zip(self.segments, np.asarray(self.labels).tolist(), strict=True))


PAPER = {
    "improved": {"map": 0.708, "accuracy": 0.974},
    "two_stream": {"map": 0.615, "accuracy": 0.908},
    "c3d": {"map": 0.546, "accuracy": 0.864},
}
"""Figures that the paper prints for these models on UCF101 (Table 3), from its own data and training."""


def _opening(analysis: Mapping[str, Any], subject: Mapping[str, Any]) -> str:
    accuracy, majority = subject["metrics"]["accuracy"], analysis["facts"].get("majority_accuracy")
    seeds = f"mean of {len(subject['seeds'])} seeds" if len(subject["seeds"]) > 1 else "one seed"
    return (
        f"{subject['title']} recognised {percent(accuracy['mean'])} of {analysis['segments']:,} test segments ({seeds})"
        + (
            f"; always predicting the most frequent class would score {percent(majority)}."
            if majority is not None
            else "."
        )
    )


ACTION = Measures(
    unit="segment",
    count="segments",
    spread=("accuracy", "top5", "macro_precision", "macro_recall", "macro_f1", "map", "auc"),
    tested={"accuracy": "Accuracy", "map": "mAP", "auc": "AUC"},
    shares=("accuracy", "top5"),
    phrases={
        "accuracy": ("is more accurate than", "is less accurate than", "does not differ significantly in accuracy from")
    },
    ablated="accuracy",
    per_class="recall",
    opening=_opening,
    compute=("GMAC", 1.0),
)


def analyse(comparison: Comparison, *, resamples: int = statistics.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return every figure of the page of compared classifiers, as plain values.

    Accuracy, mAP and AUC are computed for each seed, on the footage and on every resample of its groups. Differences
    are between the means over seeds; several seeds do not count as more segments.

    * `entries`: the fields of `Entry`, with `seeds` and `runs`. A measured entry also has (else None):
      `metrics` ({figure: mean, deviation, low, high and values over seeds}),
      `compared` ({figure: the mean whose differences are tested}), `per_class` ({class: recall, mean over seeds}) and,
      except for the subject, `against`: {figure: difference (the subject's minus this one's), its 95 % `low` and
      `high`, `p`, `p_holm`} and `mcnemar` (on the scores averaged over seeds). Holm's adjustment is over the entries of
      one kind, for each figure.
    * `segments`, `groups`, `resamples`; `least_p`: {kind: the smallest `p_holm` possible with this number of groups};
      `verdict`: sentences about the subject; `ablations`: {name: sentence}.

    Raises InputError if two runs were scored on different segments, ValueError if no entry is the subject.
    """
    segments = common_items(comparison, ACTION)
    scores = {
        entry.name: np.stack([_ordered(result, segments) for result in entry.results])
        for entry in comparison.entries
        if entry.results
    }
    drawn: Resampled = {}
    labels = np.zeros(0, dtype=np.int64)
    if segments:
        truths = next(result for entry in comparison.entries for result in entry.results).truths
        labels = np.array([truths[segment] for segment in segments], dtype=np.int64)
        groups = [comparison.groups[segment] for segment in segments]
        counts = statistics.resampled_groups(groups, resamples=resamples, seed=seed)
        for name, seeds in scores.items():
            found = [statistics.resampled_metrics(one, labels, groups, counts) for one in seeds]
            drawn[name] = {figure: np.mean([one[figure] for one in found], axis=0) for figure in ACTION.tested}
    analysis = tabulate(comparison, ACTION, drawn, items=segments, resamples=resamples)
    right = {name: seeds.mean(axis=0).argmax(axis=1) == labels for name, seeds in scores.items()}
    for row in analysis["entries"]:
        if row["against"]:
            ours_only, theirs_only, p = statistics.mcnemar(right[comparison.subject], right[row["name"]])
            row["against"]["mcnemar"] = {"ours_only": ours_only, "theirs_only": theirs_only, "p": p}
    return analysis


def _ordered(result: SeedResult, segments: list[str]) -> np.ndarray:
    """Return the scores (s, K) of these segments, in their order."""
    index = {segment: row for row, segment in enumerate(result.segments)}
    return np.asarray(result.scores, dtype=np.float64)[[index[segment] for segment in segments]]


def rows_for_console(analysis: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return column names and a row per entry, for a table on the terminal."""
    columns = ("model", "accuracy", "mAP", "GMAC", "parameters", "difference", "95 % CI", "p (Holm)", "clips/s", "ms")
    rows = []
    for row in analysis["entries"]:
        figures = (
            (mean_text(row, "accuracy", scale=100, digits=1), mean_text(row, "map"))
            if row["metrics"]
            else ("not measured", "-")
        )
        rows.append((
            row["title"],
            *figures,
            amount(row["gmacs"]),
            f"{amount(row['parameters'] / 1e6)} M",
            *difference_texts(row, "accuracy", scale=100, digits=1),
            f"{row['clips_per_second']:,.1f}" if row["clips_per_second"] else "-",
            f"{whole['median']:,.1f}" if (whole := whole_ms(row)) else "-",
        ))
    return columns, rows


KINDS = {"ours": "Ours", "baseline": "The paper's baselines", "reference": "References"}
BARS = {"accuracy": "accuracy", "macro_precision": "precision", "macro_recall": "recall", "macro_f1": "F1"}
COLUMNS = {
    "accuracy": "Accuracy",
    "macro_precision": "Precision",
    "macro_recall": "Recall",
    "macro_f1": "F1",
    "map": "mAP",
}
"""Figures of the ablations, in their chart and table."""


def write_page(path: Path, comparison: Comparison, analysis: Mapping[str, Any]) -> None:
    """Write the comparison as one self-contained page; its curves come from the histories and metrics of the runs.

    `comparison.facts`, all optional: `when` (datetime or ISO text), `budget`, `protocol`, `hardware` (text), `seeds`
    (list), `software`, `tables` ({name: version}), `store` (uri), `majority_accuracy` (share), `footage` ({split:
    {"segments": n, ...}}). Others are listed by their names.
    """
    papers = any(row["name"] in PAPER for row in analysis["entries"])
    given = shared(
        comparison, analysis, ACTION, paper=PAPER, kinds=KINDS if papers else KINDS | {"baseline": "Baselines"}
    )
    subject, main = given["subject"], given["main"]
    page = html.render(
        "comparison.html",
        **given,
        tiles=_tiles(subject, main) if subject["metrics"] else [],
        ablation_columns=COLUMNS,
        bars=[columns(OVER_SEEDS, given["ablations"], BARS)] if given["ablations"] else [],
        curves=_roc([entry for entry in comparison.entries if entry.kind != "ablation"]),
        costs=costs(
            main,
            {
                "clips_per_second": (lambda row: row["clips_per_second"], lambda value: f"{value:,.1f}"),
                "latency": (lambda row: row["latency_ms"] and whole_ms(row)["median"], lambda value: f"{value:,.1f}"),
                "gmacs": (lambda row: row["gmacs"], amount),
                "parameters": (lambda row: row["parameters"] / 1e6, amount),
                "per_hour": (lambda row: points_per(row, "device_hours"), amount),
                "per_gmac": (lambda row: points_per(row, "gmacs"), amount),
            },
        ),
    )
    html.write(path, page)


def points_per(row: Row, cost: str) -> float | None:
    """Return percentage points of accuracy for each unit of a cost of a row; None if either is not measured."""
    return 100 * row["metrics"]["accuracy"]["mean"] / row[cost] if row["metrics"] and row[cost] else None


def _tiles(subject: Row, main: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return tiles with four figures of the subject, each beside the first baseline's."""
    beside = next((row for row in main if row["kind"] == "baseline"), None)
    return [
        ("Accuracy", percent(subject["metrics"]["accuracy"]["mean"]), beside_text(beside, "accuracy", ACTION)),
        ("mAP", decimal((subject["metrics"]["map"] or {}).get("mean")), beside_text(beside, "map", ACTION)),
        ("Compute", f"{amount(subject['gmacs'])}{THIN_SPACE}GMAC", ratio(subject, beside, "gmacs")),
        ("Parameters", f"{amount(subject['parameters'] / 1e6)}{THIN_SPACE}M", ratio(subject, beside, "parameters")),
    ]


def _roc(entries: Sequence[Entry]) -> Chart | None:
    """Draw Figure 13: for each model the mean one-vs-rest curve over classes and seeds."""
    grid = np.linspace(0, 1, 201)
    lines = []
    for index, entry in enumerate(entries):
        curves = [curve for result in entry.results for curve in result.metrics["roc"].values()]
        if curves:
            mean = np.mean([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves], axis=0)
            area = np.mean([result.metrics["auc"] for result in entry.results])
            lines.append(
                ChartLine(
                    f"{entry.title} {area:.3f}",
                    [(0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True)],
                    look(index),
                )
            )
    if not lines:
        return None
    guide = ChartLine("chance", [(0, 0), (1, 1)], "guide", listed=False)
    return Chart(
        "ROC, with AUC",
        "false positive rate",
        "true positive rate",
        ticks(0, 1),
        ticks(0, 1),
        [guide, *lines],
        height=400,
    )
