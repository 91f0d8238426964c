"""An evaluated run as one self-contained HTML page: verdict, figures, curves, confusions, examples, and how it was
measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posture.display import html, text
from posture.display.charts import LOOKS, Bar, Chart, ChartLine, Dot, matrix, over_epochs, ticks
from posture.display.text import THIN_SPACE, decimal, percent
from posture.runs.statistics import LEAST_GROUPS

EXAMPLES = 8
"""Filmstrips shown of each kind, right and wrong."""


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

    * `run`: the run's configuration (`Run.model_dump()`); `name` and `model.kind` make the title.
    * `metrics`: what `posture.tasks.metrics.classification_metrics` returns, and beside it, all optional, `split`,
      `notice` (a warning, which
      stands first) and `interval` (of the accuracy, as `posture.runs.statistics.told_interval` returns it).
    * `history`: a row per epoch, of `epoch` (from 1), `train_loss`, `val_loss`, `val_accuracy`, `lr`; missing or None
      values leave gaps.
    * `examples`: {`segment`: id, `truth`, `guess`: class names, `confidence`: 0..1, `frames`: uint8 (H, W, 3) arrays},
      and optional `uri` of the
      video and `start` in it (seconds); the most confident right and wrong ones are shown.
    * `facts`, all optional: `recipe` (as `posture train` was given it),
      `evaluated` (datetime or ISO text), `protocol` (words), `views` (per segment; a number, or [least, most]), `store`
      (uri), `tables` ({name: version}), `hardware`, `software` ({name: version}), `seed`, `epochs`, `checkpoint`,
      `parameters`, `gmacs` (of one clip), `clips_per_second` (training), `wall_seconds`, `footage` ({split:
      {"segments": n, "clips": n, ...}}). Any other fact is listed under its own name.
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
        metrics=metrics,
        split=metrics.get("split", "test"),
        absent=sum(not row["count"] for row in per_class),
        curves=learning_curves(*_comparable(run, history)),
        matrix=matrix(metrics["confusion"], classes),
        mistakes=_mistakes(metrics["confusion"], classes),
        roc=_roc(metrics),
        reliability=_reliability(metrics["calibration"]),
        right=[_strip(example) for example in ranked if example["truth"] == example["guess"]][:EXAMPLES],
        wrong=[_strip(example) for example in ranked if example["truth"] != example["guess"]][:EXAMPLES],
        facts=listed_facts(facts),
        footage=html.footage_table(facts.get("footage")),
        configuration=configuration(run),
    )
    html.write(path, page)


def interval_text(metrics: Mapping[str, Any], form: Callable[[float], str]) -> str:
    """`95 % interval 40.1 to 75.0 %, over 8 groups`, of `metrics["interval"]`; empty where there is none."""
    found = metrics.get("interval")
    if not found:
        return ""
    if found["low"] is None:
        many, few = found["groups"], found["groups"] < LEAST_GROUPS
        return (
            f"no interval: {many} group{' is' if many == 1 else 's are'} too few"
            if few
            else f"no interval: all {many} groups are alike"
        )
    return f"95{THIN_SPACE}% interval {form(found['low'])} to {form(found['high'])}, over {found['groups']:,} groups"


def verdict(metrics: Mapping[str, Any]) -> str:
    """The result in a sentence: accuracy, with its interval, beside what always naming the most frequent class would
    score.
    """
    count, accuracy, majority = metrics["count"], metrics["accuracy"], metrics["majority_accuracy"]
    right, split = round(accuracy * count), metrics.get("split", "test")
    segments = "segment was" if count == 1 else "segments were"
    sure = interval_text(metrics, percent)
    result = f"{right:,} of {count:,} {split} {segments} recognised, an accuracy of {percent(accuracy)}{f' ({sure})' if sure else ''}"
    present = sum(row["count"] > 0 for row in metrics["per_class"])
    if present < 2:
        return f"{result}. The {split} split holds a single class, so this says nothing about telling classes apart."
    baseline = f"{percent(majority)} that always naming the most frequent of {present} classes would reach"
    points = 100 * (accuracy - majority)
    if round(points, 1) > 0:
        return f"{result}: {points:.1f} points above the {baseline}."
    if round(points, 1) == 0:
        return f"{result}: no better than the {baseline}."
    return f"{result}: {-points:.1f} points below the {baseline}."


def _protocol(facts: Mapping[str, Any]) -> str:
    views = facts.get("views")
    if isinstance(views, Sequence) and not isinstance(views, str):
        views = f"{views[0]} to {views[-1]}" if views[0] != views[-1] else views[0]
    if views is None:
        seen = ""
    elif str(views) == "1":
        seen = "Every segment was seen in 1 view. "
    else:
        seen = f"Every segment was seen in {views} views, whose probabilities were averaged. "
    protocol = facts.get("protocol")
    return seen + (f"Protocol: {str(protocol).rstrip('.')}." if protocol else "")


def subtitle(run: Mapping[str, Any], facts: Mapping[str, Any]) -> list[str]:
    model = run.get("model") or {}
    parts = [str(model.get("kind", "")) if isinstance(model, Mapping) else str(model)]
    if facts.get("recipe"):
        parts.append(f"recipe {facts['recipe']}")
    if facts.get("parameters") is not None:
        parts.append(_millions(facts["parameters"]))
    if facts.get("gmacs") is not None:
        parts.append(f"{facts['gmacs']:.2f} GMAC per clip{', optical flow not counted' * ('flow' in _inputs(run))}")
    if facts.get("gflops") is not None:
        parts.append(f"{facts['gflops']:.2f} GFLOPs per image")
    if facts.get("evaluated"):
        parts.append(text.moment(facts["evaluated"]))
    return [part for part in parts if part]


def _inputs(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What the run's network takes, a stream for each: rgb, flow."""
    model = run.get("model")
    if not isinstance(model, Mapping) or model.get("kind") != "two_stream":
        return ("rgb",)
    return {"spatial": ("rgb",), "temporal": ("flow",)}.get(model.get("streams", "both"), ("rgb", "flow"))


def _millions(parameters: float) -> str:
    return f"{parameters / 1e6:.2f} M parameters" if parameters >= 1e6 else f"{parameters:,} parameters"


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    top, sure = min(5, len(metrics["per_class"])), interval_text(metrics, percent)
    tiles = [
        (
            "Accuracy",
            percent(metrics["accuracy"]),
            f"{f'{sure}; ' if sure else ''}most frequent class: {percent(metrics['majority_accuracy'])}",
        ),
        (
            "Top-min(5, K)",
            percent(metrics["top5"]),
            f"true class among the first {top}" if top > 1 else "a single class",
        ),
        ("Macro precision", decimal(metrics["macro_precision"]), "of what was named, how much is so"),
        ("Macro recall", decimal(metrics["macro_recall"]), "of what is so, how much was named"),
        ("Macro F1", decimal(metrics["macro_f1"]), "harmonic mean of the two"),
        ("mAP", decimal(metrics["map"]), "mean average precision"),
        ("AUC", decimal(metrics["auc"]), "one against the rest, macro"),
        ("ECE", decimal(metrics["ece"]), "calibration error, 0 is perfect"),
    ]
    return [{"name": name, "value": value, "note": note} for name, value, note in tiles]


CURVES = {
    "Loss": {"training": "train_loss", "validation": "val_loss"},
    "Validation accuracy": {"validation accuracy": "val_accuracy"},
    "Learning rate": {"learning rate": "lr"},
}
"""Charts over epochs: {title: {name of a curve: its key in history.json}}. The best of a validation's first curve is
marked.
"""


def _comparable(
    run: Mapping[str, Any], history: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, dict[str, str]]]:
    """History and charts in which training and validation loss measure the same: the training loss of several streams
    is their sum, drawn as their mean.
    """
    parts, smoothing = len(_inputs(run)), (run.get("loss") or {}).get("label_smoothing")
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


def learning_curves(history: Sequence[Mapping[str, Any]], charts: Mapping[str, Mapping[str, str]]) -> list[Chart]:
    """The charts over epochs; one without a single value is left out."""
    drawn = []
    for title, named in charts.items():
        lines = [
            ChartLine(name, over_epochs(history, key), look, listed=len(named) > 1)
            for (name, key), look in zip(named.items(), LOOKS, strict=False)
        ]
        lines = [line for line in lines if _finite(line)]
        if not lines:
            continue
        values = [y for line in lines for _, y in _finite(line)]
        shares = all(key.startswith("val_") and key != "val_loss" for key in named.values())
        y_ticks = ticks(0, 1) if shares else ticks(0.0 if min(values) < 0.4 * max(values) else min(values), max(values))
        dots = [Dot(*_finite(line)[0], look=line.look) for line in lines if len(_finite(line)) == 1]
        if title.startswith("Validation"):
            x, y = max(_finite(lines[0]), key=lambda point: point[1])
            dots = [Dot(x, y, text=f"epoch {x:g}: {y:.3f}", label=f"{y:.3f} at epoch {x:g}")]
        drawn.append(
            Chart(
                title,
                "epoch",
                "",
                _epoch_ticks([x for x, _ in lines[0].points]),
                y_ticks,
                lines,
                dots,
                width=360,
                height=250,
            )
        )
    return drawn


def _epoch_ticks(epochs: list[float]) -> list[float]:
    return ticks(min(0.0, *epochs), max(epochs), 5, whole=True)


def _finite(line: ChartLine) -> list[tuple[float, float]]:
    return [point for point in line.points if math.isfinite(point[1])]


def _mistakes(confusion: Sequence[Sequence[int]], classes: Sequence[str], most: int = 10) -> list[dict[str, Any]]:
    """The largest fields off the diagonal, by segments and then by their share of the class."""
    found = [
        {"truth": classes[truth], "guess": classes[guess], "count": count, "share": count / sum(row)}
        for truth, row in enumerate(confusion)
        for guess, count in enumerate(row)
        if count and truth != guess
    ]
    return sorted(found, key=lambda mistake: (-mistake["count"], -mistake["share"]))[:most]


def _roc(metrics: Mapping[str, Any]) -> Chart | None:
    """The mean curve strong, all classes faint, the three weakest named: readable for two classes and for a hundred."""
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
    lines, weakest = of_classes({name: _pairs(curve) for name, curve in curves.items()}, areas, through)
    title = "ROC, with the weakest classes" if weakest else "ROC"
    return Chart(
        title, "false positive rate", "true positive rate", ticks(0, 1), ticks(0, 1), [guide, *lines], height=380
    )


def of_classes(
    curves: Mapping[str, Sequence[tuple[float, float]]], values: Mapping[str, float], mean: ChartLine
) -> tuple[list[ChartLine], list[str]]:
    """A curve of each class, with the value that goes with it, and their mean; and the names of the weakest, which are
    told apart.
    """
    weakest = sorted(curves, key=lambda name: values[name])[:3] if len(curves) > 1 else []
    looks = dict(zip(weakest, ("second thin", "third", "fourth"), strict=False))
    faint = [
        ChartLine(f"{name} {values[name]:.3f}", curve, "faint", listed=False)
        for name, curve in curves.items()
        if name not in looks
    ]
    return [
        *faint,
        *[ChartLine(f"{name} {values[name]:.3f}", curves[name], looks[name]) for name in reversed(weakest)],
        mean,
    ], weakest


def _pairs(curve: Mapping[str, list[float]]) -> list[tuple[float, float]]:
    return list(zip(curve["fpr"], curve["tpr"], strict=True))


def _reliability(calibration: Mapping[str, list[Any]]) -> Chart:
    """Accuracy over confidence: marks whose area is the share of segments, and that share again as bars."""
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
    return Chart(
        "Reliability", "confidence", "accuracy", ticks(0, 1), ticks(0, 1), [guide, joined], dots, bars, height=380
    )


def _strip(example: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "segment": str(example["segment"])[:12],
        "origin": html.origin(example.get("uri") or "", example.get("start")),
        "truth": str(example["truth"]),
        "guess": str(example["guess"]),
        "confidence": example["confidence"],
        "frames": html.spread(example["frames"]),
    }


def listed_facts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Known facts with their units in a fixed order, then any others as they are."""

    def versions(value: Any) -> str:
        return (
            ", ".join(f"{name}{THIN_SPACE}{version}" for name, version in value.items())
            if isinstance(value, Mapping)
            else str(value)
        )

    known = {
        "recipe": ("Recipe", str),
        "store": ("Store", str),
        "tables": ("Table versions", versions),
        "checkpoint": ("Checkpoint", str),
        "parameters": ("Parameters", text.whole),
        "gmacs": ("Compute of one clip", lambda value: f"{value:.3f}{THIN_SPACE}GMAC"),
        "gflops": ("Compute of one image", lambda value: f"{value:.3f}{THIN_SPACE}GFLOPs"),
        "epochs": ("Epochs", str),
        "seed": ("Seed", str),
        "clips_per_second": ("Training speed", lambda value: f"{value:,.1f}{THIN_SPACE}clips/s"),
        "pictures_per_second": ("Training speed", lambda value: f"{value:,.1f}{THIN_SPACE}images/s"),
        "wall_seconds": ("Training time", html.duration),
        "hardware": ("Hardware", str),
        "software": ("Software", versions),
    }
    elsewhere = {"evaluated", "protocol", "views", "footage"}
    listed = [(name, form(facts[key])) for key, (name, form) in known.items() if facts.get(key) not in (None, "")]
    listed += [
        (key.replace("_", " ").capitalize(), versions(value))
        for key, value in facts.items()
        if key not in known and key not in elsewhere and value not in (None, "")
    ]
    return listed


def configuration(run: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The run's sections, each a list of (field, value); sections inside sections get dotted names, as in `--set`."""
    sections: dict[str, list[tuple[str, str]]] = {"run": []}

    def gather(name: str, tree: Mapping[str, Any]) -> None:
        for field, value in tree.items():
            path = f"{name}.{field}" if name != "run" else str(field)
            if isinstance(value, Mapping) and value:
                gather(path, value)
            else:
                text = value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
                sections.setdefault(name, []).append((str(field), text))

    gather("run", run)
    return list(sections.items())
