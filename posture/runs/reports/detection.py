"""The report of an evaluated detector as one self-contained HTML page, and as PNG sheets: verdict, figures, curves,
detections, errors, and how it was measured.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posture.display import html, sheets, text
from posture.display.boxed_images import frame_all
from posture.display.charts import Chart, ChartLine, Dot, ticks
from posture.display.text import THIN_SPACE, counted, decimal, percent
from posture.runs.reports.common import class_curves, interval_text, learning_curves, measured, protocol_text, subtitle
from posture.runs.reports.detection_errors import FALSE, MAX_BOXES, MISSED, BoxMark, box_of, drawn_of, judge

if TYPE_CHECKING:
    from posture.data.feed.images import ImageIndex
    from posture.runs.detection import FoundBoxes
    from posture.tasks.detection_metrics import ScoredImage

SHOTS = 12
"""Number of images shown in each section."""
FEW_SHOTS = 4
"""Number of images shown of a detector that has learned almost nothing."""
LEARNED = 0.05
"""Minimum mAP@0.5 and F1 of a detector that has learned something."""
REASONS = 3
"""Maximum number of errors listed below an image."""


def write_detector_report(
    path: Path,
    *,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    index: ImageIndex,
    found: Sequence[FoundBoxes],
    images: Any,
    facts: Mapping[str, Any],
    uris: Mapping[str, str] = {},
) -> None:
    """Write the report of one detector to `path`.

    * `run`: the run's configuration (`DetectionRun.model_dump()`); `name` and `model.kind` make the title.
    * `metrics`: those of `posture.tasks.detection_metrics.detection_metrics`, and optionally `split`, `device`, `speed`
      ({"model", "whole": {"median", "p10", "p90"}}, milliseconds), `fps` ({"model", "whole"}), `notice` (a warning,
      shown at the top) and `interval` (of mAP@0.5:0.95, from `posture.runs.statistics.told_interval`).
    * `history`: a row per epoch with `epoch` (from 1), `train_loss` and its terms `train_loss_...`, `val_loss`,
      `val_map50`, `val_map50_95`, `val_precision`, `val_recall`, `lr`; missing or None values leave gaps.
    * `index`, `found`: the evaluated images and the boxes found in each. `images.image(index)` returns an image, uint8
      (h, w, 3) RGB; it is called for at most 2 * SHOTS of them. `uris`: {key: file, or `video#t=seconds` of a frame}.
    * `facts`, all optional: see `posture.runs.reports.action.write_report`, and `gflops` (of one image),
      `pictures_per_second` (training).
    """
    confidence = metrics["confidence"]
    judged = [
        judge((one.boxes, one.scores, one.labels, *there), index.classes, confidence=confidence)
        for one, *there in zip(found, index.boxes, index.labels, index.ignored, index.ignored_labels, strict=True)
    ]
    learned = has_learned(metrics)
    number = min(SHOTS if learned else FEW_SHOTS, len(judged))
    spread = sorted({round(position) for position in np.linspace(0, len(judged) - 1, number)})
    harmed = [at for at, marks in enumerate(judged) if _harm(marks)]
    worst = sorted(harmed, key=lambda at: -_harm(judged[at]))[: SHOTS if learned else 0]
    page = html.render(
        "detector_report.html",
        name=run.get("name", "run"),
        subtitle=subtitle(run, facts),
        verdict=verdict(metrics, judged),
        protocol=protocol_text(facts),
        learned=learned,
        tiles=_tiles(metrics),
        metrics={"device": "", **metrics},
        split=metrics.get("split", "test"),
        regions=sum(map(len, index.ignored)),
        absent=sum(not row["boxes"] for row in metrics["per_class"]),
        curves=learning_curves(history, _charts(history)),
        certainty=_certainty(metrics),
        speed=_speed(metrics),
        shots=_shots(spread, judged, index, images, uris),
        worst=_shots(worst, judged, index, images, uris),
        mistakes=_errors(judged),
        **measured(run, facts),
    )
    html.write(path, page)


def has_learned(metrics: Mapping[str, Any]) -> bool:
    """Return True if mAP@0.5 and F1 are at least LEARNED, or if there is no true box."""
    figures = [metrics[name] for name in ("map50", "f1") if metrics[name] is not None]
    return not figures or min(figures) >= LEARNED


def verdict(metrics: Mapping[str, Any], judged: Sequence[Sequence[BoxMark]]) -> str:
    """Return the result in sentences, over all classes together: recall, precision and mean IoU."""
    kinds = Counter(mark.kind for marks in judged for mark in marks)
    true, right, reported = kinds["found"] + kinds["missed"], kinds["right"], kinds["right"] + kinds["false"]
    names, split = [row["class"] for row in metrics["per_class"]], metrics.get("split", "test")
    images = counted(len(judged), f"{split} image")
    if not true:
        false = counted(reported, "false positive")
        return f"The {images} hold no true box, so precision and recall are not defined; {false} reported."
    boxes = (
        f"{'box' if true == 1 else 'boxes'} labelled {names[0]}"
        if len(names) == 1
        else f"labelled {'box' if true == 1 else 'boxes'}"
    )
    at = f"confidence {text.confidence(metrics['confidence'])}"
    found = f"Of {true:,} {boxes} in {images}, {right:,} ({percent(right / true)}) were found at {at}."
    if not has_learned(metrics):
        found = f"This detector has learned almost nothing: its mAP@0.5 is {decimal(metrics['map50'])}. {found}"
    if not reported:
        return f"{found} No box was reported."
    closely = "" if metrics["mean_iou"] is None or not right else f", with a mean IoU of {metrics['mean_iou']:.2f}"
    return f"{found} Of {reported:,} reported boxes, {percent(right / reported)} were correct{closely}."


def _tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    tiles = [
        ("mAP@0.5:0.95", decimal(metrics["map50_95"]), interval_text(metrics, decimal) or "mean over IoU 0.5 to 0.95"),
        ("mAP@0.5", decimal(metrics["map50"]), "at IoU 0.5"),
        ("Precision", decimal(metrics["precision"]), "share of reported boxes that are correct"),
        ("Recall", decimal(metrics["recall"]), "share of true boxes that are found"),
        ("F1", decimal(metrics["f1"]), f"maximum, at confidence {text.confidence(metrics['confidence'])}"),
        ("Mean IoU", decimal(metrics["mean_iou"]), "overlap of true positives with their true boxes"),
    ]
    if times := metrics.get("speed"):
        whole, model = times["whole"], times["model"]
        tiles += [
            (
                "Time per image",
                f"{whole['median']:.1f}{THIN_SPACE}ms",
                f"end to end ({whole['p10']:.1f} to {whole['p90']:.1f})",
            ),
            (
                "FPS",
                decimal(metrics["fps"]["whole"], 1),
                f"network only: {metrics['fps']['model']:.1f} ({model['median']:.1f}{THIN_SPACE}ms)",
            ),
        ]
    return tiles


def _charts(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return charts over epochs, for `learning_curves`; the terms of the training loss depend on the network."""
    terms = sorted({key for row in history for key in row if key.startswith("train_loss_")})
    return {
        "Loss": {"training": "train_loss", "validation": "val_loss"},
        "Training loss by term": {
            key.removeprefix("train_loss_").removeprefix("loss_").replace("_", " "): key for key in terms
        },
        "Validation mAP": {"0.5:0.95": "val_map50_95", "0.5": "val_map50"},
        "Precision and recall": {"precision": "val_precision", "recall": "val_recall"},
        "Learning rate": {"learning rate": "lr"},
    }


def _certainty(metrics: Mapping[str, Any]) -> list[Chart]:
    """Draw precision against recall, and precision, recall and F1 against confidence; nothing without true boxes."""
    if not metrics["curves"]["classes"]:
        return []
    against = [
        ChartLine(name, mean_curve(metrics["curves"], key, over="confidence"), look)
        for key, name, look in (
            ("precision", "precision", "third"),
            ("recall", "recall", "second thin"),
            ("f1", "F1", "first"),
        )
    ]
    best = Dot(
        metrics["confidence"],
        metrics["f1"],
        text=f"F1 {metrics['f1']:.3f} at confidence {metrics['confidence']:.3f}",
        label=f"{metrics['f1']:.2f} at {text.confidence(metrics['confidence'])}",
    )
    chart = Chart("At each confidence", "confidence", "", ticks(0, 1), ticks(0, 1), against, [best], height=380)
    return [precision_recall(metrics), chart]


def precision_recall(metrics: Mapping[str, Any]) -> Chart:
    """Draw precision against recall at IoU 0.5, for each class and their mean."""
    curves = metrics["curves"]["classes"]
    through = ChartLine(
        f"{f'mean of {len(curves)} classes' if len(curves) > 1 else next(iter(curves))} {metrics['map50']:.3f}",
        mean_curve(metrics["curves"], "precision_at_recall", over="recall"),
    )
    values = {row["class"]: row["ap50"] for row in metrics["per_class"]}
    each = {
        name: list(zip(metrics["curves"]["recall"], curve["precision_at_recall"], strict=True))
        for name, curve in curves.items()
    }
    lines, weakest = class_curves(each if len(curves) > 1 else {}, values, through)
    title = "Precision and recall, with the weakest classes" if weakest else "Precision and recall"
    return Chart(title, "recall", "precision at IoU 0.5", ticks(0, 1), ticks(0, 1), lines, height=380)


def mean_curve(curves: Mapping[str, Any], key: str, *, over: str) -> list[tuple[float, float]]:
    """Return the mean over classes of `curves` of metrics.json; NaN at positions without a value in any class."""
    columns = zip(*[curve[key] for curve in curves["classes"].values()], strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    return [
        (at, float(np.mean(values)) if values else math.nan) for at, values in zip(curves[over], known, strict=True)
    ]


def _speed(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    words = {"model": "Network only", "whole": "End to end, from decoded pixels to boxes"}
    times = metrics.get("speed") or {}
    return [{"what": words[name], **times[name], "fps": metrics["fps"][name]} for name in words if name in times]


def _harm(marks: Sequence[BoxMark]) -> float:
    """Return the number of missed boxes plus the confidences of the false positives of an image."""
    return sum(mark.kind == "missed" for mark in marks) + sum(
        mark.confidence or 0.0 for mark in marks if mark.kind == "false"
    )


def _errors(judged: Sequence[Sequence[BoxMark]]) -> list[tuple[str, str, list[tuple[str, int, float]]]]:
    """Count missed boxes and false positives by cause: (title, `4 of 9 true boxes`, [(cause, count, share)])."""
    marks = [mark for image in judged for mark in image]
    tables = []
    for title, kind, causes, of, all_of in (
        ("Missed", "missed", MISSED, "true boxes", ("found", "missed")),
        ("False positives", "false", FALSE, "reported boxes", ("right", "false")),
    ):
        counts = Counter(mark.cause for mark in marks if mark.kind == kind)
        total = sum(counts.values())
        tables.append((
            title,
            f"{total:,} of {sum(mark.kind in all_of for mark in marks):,} {of}",
            [
                (words[0].upper() + words[1:], counts[cause], counts[cause] / total)
                for cause, words in causes.items()
                if counts[cause]
            ],
        ))
    return tables


def _shots(
    indices: Sequence[int], judged: Sequence[Sequence[BoxMark]], index: ImageIndex, images: Any, uris: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the layout of images with their boxes, and the text below them."""
    captions = [
        _caption(judged[at]) | {"image": str(index.keys[at])[:12], "origin": html.origin(uris.get(index.keys[at], ""))}
        for at in indices
    ]
    framed = frame_all([(images.image(at), [box_of(mark) for mark in drawn_of(judged[at])]) for at in indices])
    return [caption | shot for caption, shot in zip(captions, framed, strict=True)]


def _caption(marks: Sequence[BoxMark]) -> dict[str, Any]:
    """Return a summary of an image and its errors."""
    kinds = Counter(mark.kind for mark in marks)
    true, reported = kinds["found"] + kinds["missed"], kinds["false"] + kinds["right"]
    summary = f"{kinds['found']} of {true} found" if true else "no true box"
    summary += f", {kinds['false']} of {reported} reported are false positives" if kinds["false"] else ""
    reasons = [f"{mark.name} missed: {mark.reason}" for mark in marks if mark.kind == "missed"]
    reasons += [f"{mark.name} {mark.confidence:.2f}: {mark.reason}" for mark in marks if mark.kind == "false"]
    if len(reasons) > REASONS:
        reasons = [*reasons[:REASONS], f"and {len(reasons) - REASONS} more"]
    if len(marks) > MAX_BOXES:
        reasons.append(f"{len(marks) - MAX_BOXES} of {len(marks)} boxes not drawn")
    return {"summary": summary, "reasons": reasons}


def detections_sheet(
    title: str,
    images: Sequence[np.ndarray],
    predictions: Sequence[ScoredImage],
    classes: Sequence[str],
    *,
    confidence: float,
) -> bytes:
    """Draw images, uint8 (h, w, 3) RGB, with their boxes, in pixels of these images; return a PNG."""
    judged = [judge(one, classes, confidence=confidence) for one in predictions]
    drawn = [drawn_of(marks) for marks in judged]
    note = (
        f"solid: reported at confidence {confidence:.2f} or higher (blue true positive, orange false positive); "
        "dashed: true box (white found, orange missed)"
    )
    if hidden := sum(map(len, judged)) - sum(map(len, drawn)):
        note += f"; {counted(hidden, 'box is', 'boxes are')} not drawn (at most {MAX_BOXES} per image)"
    boxes = [[box_of(mark) for mark in marks] for marks in drawn]
    return sheets.boxes_sheet(title, note, list(zip(images, boxes, strict=True)))


def precision_recall_sheet(title: str, metrics: Mapping[str, Any]) -> bytes:
    """Draw precision against recall at IoU 0.5; return a PNG."""
    figures = [
        f"{name} {metrics[key]:.3f}"
        for key, name in (("map50", "mAP@0.5"), ("map50_95", "mAP@0.5:0.95"))
        if metrics[key] is not None
    ]
    chart = Chart("", "recall", "precision at IoU 0.5", ticks(0, 1), ticks(0, 1))
    if figures:
        chart = precision_recall(metrics)
    return sheets.chart_sheet(title, ", ".join(figures) or "no true box", chart)
