"""The comparison of detectors: the paper's section 3.1 and Figures 7 to 9.

Legend: P images, G groups of them, B resamples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posture.compare.analysis import common_items, difference_texts, mean_text, tabulate
from posture.compare.page import OVER_SEEDS, Row, beside_text, columns, costs, differences, ratio, shared
from posture.compare.results import Comparison, Entry, Measures, Resampled, Scored
from posture.display import html
from posture.display.charts import LOOKS, Chart, ChartLine, Columns, over_epochs, ticks
from posture.display.text import THIN_SPACE, amount, decimal, percent
from posture.runs import statistics
from posture.runs.reports.detection import mean_curve
from posture.runs.statistics import resampled_map
from posture.tasks.detection_metrics import ScoredImage

PAPER: dict[str, dict[str, float]] = {
    "improved": {"precision": 0.988, "map50": 0.942, "map50_95": 0.872, "fps": 28.5},
    "yolov7": {"precision": 0.976, "map50": 0.878},
    "ssd300": {"precision": 0.965, "map50": 0.867},
    "faster_rcnn": {"precision": 0.959, "map50": 0.845},
}
"""Figures that the paper prints (section 3.1): precision on UCF101, the others on its own data and hardware."""


@dataclass
class DetectionResult(Scored):
    """A scored detector; its metrics are those of `detection_metrics`, with `speed` and `fps`."""

    images: list[str]
    predictions: list[ScoredImage]
    """Detections and true boxes of each image."""

    @property
    def truths(self) -> dict[str, tuple[bytes, bytes]]:
        return {
            image: (np.asarray(boxes, dtype=np.float32).tobytes(), np.asarray(labels, dtype=np.int64).tobytes())
            for image, (_, _, _, boxes, labels, *_) in zip(self.images, self.predictions, strict=True)
        }


def _opening(analysis: Mapping[str, Any], subject: Mapping[str, Any]) -> str:
    found = {figure: spread["mean"] for figure, spread in subject["metrics"].items() if spread}
    seeds = f"mean of {len(subject['seeds'])} seeds" if len(subject["seeds"]) > 1 else "one seed"
    result = (
        f"{subject['title']} reaches an mAP@0.5:0.95 of {decimal(found.get('map50_95'))} and an mAP@0.5 of "
        f"{decimal(found.get('map50'))} on {analysis['pictures']:,} test images ({seeds})"
    )
    if "precision" not in found:
        return f"{result}."
    return (
        f"{result}. At the confidence with the best F1, recall is {percent(found['recall'])} and precision "
        f"{percent(found['precision'])}; an image takes {found['speed.whole.median']:.1f}{THIN_SPACE}ms end to end."
    )


SPEEDS = tuple(f"speed.{part}.{point}" for part in ("whole", "model") for point in ("median", "p10", "p90"))
DETECTION = Measures(
    unit="image",
    count="pictures",
    spread=("precision", "recall", "f1", "mean_iou", "map50", "map75", "map50_95", "fps.whole", "fps.model", *SPEEDS),
    tested={"map50_95": "mAP@0.5:0.95", "map50": "mAP@0.5"},
    shares=(),
    phrases={
        "map50_95": (
            "has a higher mAP@0.5:0.95 than",
            "has a lower mAP@0.5:0.95 than",
            "does not differ significantly in mAP@0.5:0.95 from",
        ),
        "map50": (
            "has a higher mAP@0.5 than",
            "has a lower mAP@0.5 than",
            "does not differ significantly in mAP@0.5 from",
        ),
    },
    ablated="map50_95",
    per_class="ap",
    opening=_opening,
    compute=("GFLOPs", 2.0),
)


def analyse(comparison: Comparison, *, resamples: int = statistics.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return every figure of the page, as `posture.compare.action.analyse` does, with `pictures` instead of `segments`.

    Detections of several seeds cannot be averaged as a classifier's scores can. So each seed's mAP is computed on every
    resample of the groups, and the means over seeds are compared; several seeds do not count as more images.
    Raises InputError if two runs were scored on different images or boxes, ValueError if no entry is the subject.
    """
    images = common_items(comparison, DETECTION)
    drawn: Resampled = {}
    if images:
        groups = [comparison.groups[image] for image in images]
        counts = statistics.resampled_groups(groups, resamples=resamples, seed=seed)
        for entry in comparison.entries:
            found = [
                resampled_map(_ordered(result, images), groups, counts, classes=len(comparison.classes))
                for result in entry.results
            ]
            if found:
                drawn[entry.name] = {
                    figure: np.mean([one[figure] for one in found], axis=0) for figure in DETECTION.tested
                }
    return tabulate(comparison, DETECTION, drawn, items=images, resamples=resamples)


def _ordered(result: DetectionResult, images: Sequence[str]) -> list[ScoredImage]:
    index = {image: row for row, image in enumerate(result.images)}
    return [result.predictions[index[image]] for image in images]


def rows_for_console(analysis: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return column names and a row per entry, for a table on the terminal; the difference is in mAP@0.5:0.95."""
    columns = (
        "model",
        "mAP@0.5:0.95",
        "mAP@0.5",
        "precision",
        "recall",
        "mean IoU",
        "difference",
        "95 % CI",
        "p (Holm)",
        "GFLOPs",
        "parameters",
        "FPS",
        "ms",
    )
    rows = []
    for row in analysis["entries"]:
        figures = (
            [mean_text(row, figure) for figure in ("map50_95", "map50", "precision", "recall", "mean_iou")]
            if row["metrics"]
            else ["not measured", "-", "-", "-", "-"]
        )
        rows.append((
            row["title"],
            *figures,
            *difference_texts(row, "map50_95"),
            amount(2 * row["gmacs"]),
            f"{amount(row['parameters'] / 1e6)} M",
            mean_text(row, "fps.whole", digits=1),
            mean_text(row, "speed.whole.median", digits=1),
        ))
    return columns, rows


BARS = {"precision": "precision", "mean_iou": "mean IoU", "map50": "mAP@0.5", "map50_95": "mAP@0.5:0.95"}
TABLE = {
    "map50_95": "mAP@0.5:0.95",
    "map50": "mAP@0.5",
    "precision": "Precision",
    "recall": "Recall",
    "mean_iou": "Mean IoU",
}


def write_page(path: Path, comparison: Comparison, analysis: Mapping[str, Any]) -> None:
    """Write the comparison as one self-contained page; its curves come from the histories and metrics of the runs.

    `comparison.facts`: see `posture.compare.action.write_page`.
    """
    given = shared(
        comparison,
        analysis,
        DETECTION,
        paper=PAPER,
        kinds={"ours": "Ours", "baseline": "Baselines", "reference": "References"},
    )
    if len(comparison.classes) == 1:
        given["per_class"] = None  # one class: the same as the mean
    subject, main, ablations = given["subject"], given["main"], given["ablations"]
    entries = [entry for entry in comparison.entries if entry.kind != "ablation"]
    curves = [
        chart
        for chart in (
            _precision_recall(entries),
            *(_over_epochs(entries, figure, title) for figure, title in DETECTION.tested.items()),
        )
        if chart
    ]
    page = html.render(
        "detector_comparison.html",
        **given,
        tiles=_tiles(subject, main) if subject["metrics"] else [],
        table=TABLE,
        quality=columns(OVER_SEEDS, main, BARS),
        speeds=_speeds(main),
        ablation_columns=TABLE,
        bars=_ablation_bars(ablations),
        ablation_differences=differences(ablations[1:], DETECTION),
        curves=curves,
        costs=costs(
            main,
            {
                "fps": (_mean_of("fps.whole"), lambda value: f"{value:,.1f}"),
                "whole": (_mean_of("speed.whole.median"), lambda value: f"{value:,.1f}"),
                "model": (_mean_of("speed.model.median"), lambda value: f"{value:,.1f}"),
                "gflops": (lambda row: 2 * row["gmacs"], amount),
                "parameters": (lambda row: row["parameters"] / 1e6, amount),
                "training": (lambda row: row["clips_per_second"], lambda value: f"{value:,.1f}"),
            },
        ),
    )
    html.write(path, page)


def _mean_of(figure: str) -> Any:
    return lambda row: row["metrics"] and row["metrics"][figure] and row["metrics"][figure]["mean"]


def _tiles(subject: Row, main: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Return tiles with the subject's figures, each beside the first baseline's."""
    beside = next((row for row in main if row["kind"] == "baseline"), None)
    named = {"map50_95": "mAP@0.5:0.95", "map50": "mAP@0.5", "precision": "Precision", "mean_iou": "Mean IoU"}
    tiles = [
        (name, decimal((subject["metrics"][figure] or {}).get("mean")), beside_text(beside, figure, DETECTION))
        for figure, name in named.items()
    ]
    speed, theirs = _mean_of("fps.whole")(subject), beside and _mean_of("fps.whole")(beside)
    return [
        *tiles,
        ("FPS", decimal(speed, 1), f"{beside['title']}: {theirs:.1f}" if beside and theirs else ""),
        ("Time per image", f"{decimal(_mean_of('speed.whole.median')(subject), 1)}{THIN_SPACE}ms", "end to end"),
        ("Compute", f"{amount(2 * subject['gmacs'])}{THIN_SPACE}GFLOPs", ratio(subject, beside, "gmacs")),
        ("Parameters", f"{amount(subject['parameters'] / 1e6)}{THIN_SPACE}M", ratio(subject, beside, "parameters")),
    ]


def _speeds(main: Sequence[Row]) -> list[Columns]:
    """Draw Figure 9 (c) and (d): images per second, and milliseconds per image."""
    charts = []
    for title, figures in (
        ("FPS (more is better)", {"fps.whole": "end to end", "fps.model": "network only"}),
        (
            "Milliseconds per image (less is better)",
            {"speed.whole.median": "end to end", "speed.model.median": "network only"},
        ),
    ):
        highest = max(
            (
                max(row["metrics"][figure]["values"])
                for row in main
                if row["metrics"]
                for figure in figures
                if row["metrics"][figure]
            ),
            default=0.0,
        )
        if highest:
            charts.append(columns(title, main, figures, top=highest, digits=1, width=520))
    return charts


def _ablation_bars(ablations: Sequence[Row]) -> list[Columns]:
    """Draw the subject beside models without a part, and beside models with another box loss."""
    charts = []
    for title, replaced in (("Parts removed", False), ("Other box losses", True)):
        rows = [row for row in ablations[1:] if row["replaced"] == replaced]
        if rows:
            charts.append(columns(f"{title}: mean, lowest and highest seed", [ablations[0], *rows], BARS))
    return charts


def _precision_recall(entries: Sequence[Entry]) -> Chart | None:
    """Draw Figure 7: for each model the mean curve over classes and seeds, at IoU 0.5."""
    lines = []
    for index, entry in enumerate(entries):
        curves = [
            mean_curve(result.metrics["curves"], "precision_at_recall", over="recall")
            for result in entry.results
            if result.metrics["curves"]["classes"]
        ]
        if curves:
            mean = np.mean([[precision for _, precision in curve] for curve in curves], axis=0)
            area = np.mean([result.metrics["map50"] for result in entry.results])
            points = list(zip([recall for recall, _ in curves[0]], mean.tolist(), strict=True))
            lines.append(ChartLine(f"{entry.title} {area:.3f}", points, LOOKS[index % len(LOOKS)]))
    return (
        Chart(
            "Precision and recall, with mAP@0.5",
            "recall",
            "precision",
            ticks(0, 1),
            ticks(0, 1),
            lines,
            width=360,
            height=300,
        )
        if lines
        else None
    )


def _over_epochs(entries: Sequence[Entry], figure: str, title: str) -> Chart | None:
    """Draw Figure 9 (a) and (b): for each model a figure on `val` after every epoch, mean over seeds."""
    lines = []
    for index, entry in enumerate(entries):
        seeds = [over_epochs(result.history, f"val_{figure}") for result in entry.results]
        points = [
            (column[0][0], float(np.mean([value for _, value in column]))) for column in zip(*seeds, strict=False)
        ]
        if any(math.isfinite(value) for _, value in points):
            lines.append(ChartLine(entry.title, points, LOOKS[index % len(LOOKS)]))
    last = max((x for line in lines for x, _ in line.points), default=0.0)
    return (
        Chart(
            f"Validation {title}",
            "epoch",
            "",
            ticks(0.0, last, 5, whole=True),
            ticks(0, 1),
            lines,
            width=360,
            height=300,
        )
        if lines
        else None
    )
