"""The report of an evaluated classifier as one self-contained HTML page: figures, curves, confusions, examples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posture.display import html
from posture.display.charts import Bar, Chart, ChartLine, Dot, matrix, ticks
from posture.display.text import decimal, percent
from posture.runs.floor import NAME
from posture.runs.reports.common import (
    class_curves,
    clip_accuracy,
    inputs_of,
    interval_text,
    learning_curves,
    measured,
    protocol_text,
    subtitle,
)

EXAMPLES = 8
"""Number of filmstrips of right and of wrong predictions."""


def write_report(
    path: Path,
    *,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    examples: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> None:
    """Write the report of one run to `path`.

    * `run`: the run's configuration (`ActionRun.model_dump()`); `name` and `model.kind` make the title.
    * `metrics`: those of `posture.runs.classification_metrics`, and optionally `split`, `notice` (a warning,
      shown at the top), `interval` (of the accuracy, from `posture.runs.statistics.told_interval`) and `calibrated`
      (from `posture.runs.calibration.calibrated_figures`) and `linear` (from `posture.runs.floor.linear_figures`).
    * `history`: a row per epoch with `epoch` (from 1), `train_loss`, `val_loss`, `val_accuracy`, `lr`; missing or None
      values leave gaps.
    * `examples`: {`segment`: id, `truth`, `guess`: class names, `confidence`: 0..1, `frames`: uint8 (H, W, 3) arrays},
      optionally `uri` of the video and `start` in it (seconds). The most confident right and wrong ones are shown.
    * `facts`, all optional: `recipe` (as given to `posture train`), `evaluated` (datetime or ISO text), `protocol`
      (text), `views` (per segment; a number, or [min, max]), `store` (uri), `tables` ({name: version}), `hardware`,
      `software` ({name: version}), `seed`, `epochs`, `checkpoint`, `parameters`, `gmacs` (of one clip),
      `clips_per_second` (training), `wall_seconds`, `footage` ({split: {"segments": n, "clips": n, ...}}). Any other
      fact is listed under its own name.
    """
    per_class = metrics["per_class"]
    classes = [row["class"] for row in per_class]
    ranked = sorted(examples, key=lambda example: -example["confidence"])
    page = html.render(
        "report.html",
        name=run.get("name", "run"),
        subtitle=subtitle(run, facts),
        verdict=verdict(metrics),
        protocol=_protocol(facts),
        tiles=_tiles(metrics),
        top=min(5, len(classes)),
        metrics=metrics,
        split=metrics.get("split", "test"),
        absent=sum(not row["count"] for row in per_class),
        curves=learning_curves(*_comparable(run, history)),
        matrix=matrix(metrics["confusion"], classes),
        mistakes=_confusions(metrics["confusion"], classes),
        roc=_roc(metrics),
        reliability=[
            _reliability(title, bins)
            for title, bins in (
                ("Reliability", metrics["calibration"]),
                ("Reliability, calibrated", metrics.get("calibrated", {}).get("calibration")),
            )
            if bins
        ],
        right=[_strip(example) for example in ranked if example["truth"] == example["guess"]][:EXAMPLES],
        wrong=[_strip(example) for example in ranked if example["truth"] != example["guess"]][:EXAMPLES],
        **measured(run, facts),
    )
    html.write(path, page)


def verdict(metrics: Mapping[str, Any]) -> str:
    """Return the result in a sentence: accuracy, its interval, and the accuracy of the most frequent class."""
    count, accuracy, majority = metrics["count"], metrics["accuracy"], metrics["majority_accuracy"]
    right, split = round(accuracy * count), metrics.get("split", "test")
    segments = "segment was" if count == 1 else "segments were"
    interval = interval_text(metrics, percent)
    result = f"{right:,} of {count:,} {split} {segments} recognised, an accuracy of {percent(accuracy)}"
    result += f" ({interval})" if interval else ""
    present = sum(row["count"] > 0 for row in metrics["per_class"])
    if present < 2:
        return f"{result}. The {split} split holds only one class, so this accuracy means little."
    baseline = f"{percent(majority)} of always predicting the most frequent of {present} classes"
    linear = metrics.get("linear", {}).get("accuracy")
    floor = f", and {_above(accuracy, linear)} {percent(linear)} of {NAME}" if linear is not None else ""
    return f"{result}: {_above(accuracy, majority)} {baseline}{floor}."


def _above(accuracy: float, other: float) -> str:
    """Return `4.1 points above the`."""
    points = 100 * (accuracy - other)
    if round(points, 1) == 0:
        return "no better than the"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'} the"


def _protocol(facts: Mapping[str, Any]) -> str:
    views = facts.get("views")
    if isinstance(views, Sequence) and not isinstance(views, str):
        views = f"{views[0]} to {views[-1]}" if views[0] != views[-1] else views[0]
    if views is None:
        seen = ""
    elif str(views) == "1":
        seen = "One view per segment. "
    else:
        seen = f"{views} views per segment, with averaged probabilities. "
    return seen + protocol_text(facts)


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    top, interval = min(5, len(metrics["per_class"])), interval_text(metrics, percent)
    return [
        (
            "Accuracy",
            percent(metrics["accuracy"]),
            f"{f'{interval}; ' if interval else ''}most frequent class: {percent(metrics['majority_accuracy'])}; "
            f"{metrics.get('linear', {}).get('sentence', '')}".removesuffix("; ")
            + (f"; clip by clip: {clips}" if (clips := clip_accuracy(metrics)) else ""),
        ),
        (
            f"Top-{top}",
            percent(metrics["top5"]),
            f"true class among the {top} most probable" if top > 1 else "only one class",
        ),
        ("Macro precision", decimal(metrics["macro_precision"]), "share of predictions that are correct"),
        ("Macro recall", decimal(metrics["macro_recall"]), "share of true segments that are found"),
        ("Macro F1", decimal(metrics["macro_f1"]), "harmonic mean of precision and recall"),
        ("mAP", decimal(metrics["map"]), "mean average precision"),
        ("AUC", decimal(metrics["auc"]), "one-vs-rest, mean over classes"),
        ("ECE", decimal(metrics["ece"]), _error_after(metrics)),
    ]


def _error_after(metrics: Mapping[str, Any]) -> str:
    after = metrics.get("calibrated", {}).get("ece")
    return "calibration error; 0 is perfect" + (f"; {decimal(after)} with temperature" if after is not None else "")


CURVES = {
    "Loss": {"training": "train_loss", "validation": "val_loss"},
    "Validation accuracy": {"validation accuracy": "val_accuracy"},
    "Learning rate": {"learning rate": "lr"},
}
"""Charts over epochs, for `learning_curves`."""


def _comparable(
    run: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """Return history and charts with comparable losses: the training loss of several streams, a sum, becomes a mean."""
    parts, smoothing = len(inputs_of(run)), (run.get("loss") or {}).get("label_smoothing")
    name = (
        "training"
        + (f", mean of {parts} streams" if parts > 1 else "")
        + (f", with label smoothing {smoothing:g}" if smoothing else "")
    )
    rows = [
        {**row, "train_loss": row["train_loss"] / parts} if row.get("train_loss") is not None else dict(row)
        for row in history
    ]
    return rows, CURVES | {"Loss": {name: "train_loss", "validation": "val_loss"}}


def _confusions(confusion: Sequence[Sequence[int]], classes: Sequence[str], limit: int = 10) -> list[dict[str, Any]]:
    """Return the largest fields off the diagonal, by segments and then by their share of the class."""
    found = [
        {"truth": classes[truth], "guess": classes[guess], "count": count, "share": count / sum(row)}
        for truth, row in enumerate(confusion)
        for guess, count in enumerate(row)
        if count and truth != guess
    ]
    return sorted(found, key=lambda mistake: (-mistake["count"], -mistake["share"]))[:limit]


def _roc(metrics: Mapping[str, Any]) -> Chart | None:
    """Draw the mean curve strong, the three weakest classes in colours, and all others faint."""
    curves = metrics["roc"]
    if not curves:
        return None
    areas = {row["class"]: row["auc"] for row in metrics["per_class"]}
    guide = ChartLine("chance", [(0, 0), (1, 1)], "guide", listed=False)
    grid = np.linspace(0, 1, 201)
    mean = np.mean([np.interp(grid, curve["fpr"], curve["tpr"]) for curve in curves.values()], axis=0)
    through = ChartLine(
        f"mean of {len(curves)} classes {metrics['auc']:.3f}",
        [(0.0, 0.0), *zip(grid.tolist(), mean.tolist(), strict=True)],
    )
    lines, weakest = class_curves({name: _pairs(curve) for name, curve in curves.items()}, areas, through)
    title = "ROC, with the weakest classes" if weakest else "ROC"
    return Chart(
        title, "false positive rate", "true positive rate", ticks(0, 1), ticks(0, 1), [guide, *lines], height=380
    )


def _pairs(curve: Mapping[str, list[float]]) -> list[tuple[float, float]]:
    return list(zip(curve["fpr"], curve["tpr"], strict=True))


def _reliability(title: str, calibration: Mapping[str, list[Any]]) -> Chart:
    """Draw accuracy over confidence: marks whose area is the share of segments, and that share also as bars."""
    counts = calibration["count"]
    total, bins = sum(counts), len(counts)
    dots, bars = [], []
    for index, (confidence, accuracy, count) in enumerate(
        zip(calibration["confidence"], calibration["accuracy"], counts, strict=True)
    ):
        if not count:
            continue
        text = f"{count} segments: confidence {confidence:.2f}, accuracy {accuracy:.2f}"
        dots.append(
            Dot(min(confidence, 1.0), accuracy, radius=min(9.0, max(2.5, 14 * math.sqrt(count / total))), text=text)
        )
        bars.append(Bar(index / bins, (index + 1) / bins, count / total, f"{count} of {total} segments"))
    joined = ChartLine("measured", [(dot.x, dot.y) for dot in dots], "first", listed=False)
    guide = ChartLine("perfectly calibrated", [(0, 0), (1, 1)], "guide", listed=False)
    return Chart(title, "confidence", "accuracy", ticks(0, 1), ticks(0, 1), [guide, joined], dots, bars, height=380)


def _strip(example: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "segment": str(example["segment"])[:12],
        "origin": html.origin(example.get("uri") or "", example.get("start")),
        "truth": str(example["truth"]),
        "guess": str(example["guess"]),
        "confidence": example["confidence"],
        "frames": html.spread(example["frames"]),
    }
