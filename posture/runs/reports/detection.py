"""An evaluated detector as one self-contained HTML page: verdict, figures, curves, detections, mistakes, and how it was
measured.

Its layout, learning curves, facts and configuration are `posture.runs.reports.action`'s.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posture.display import html, text
from posture.display.boxed_images import Box, frame_all
from posture.display.charts import Chart, ChartLine, Dot, ticks
from posture.display.text import THIN_SPACE, decimal, percent
from posture.runs.reports.action import (
    configuration,
    interval_text,
    learning_curves,
    listed_facts,
    of_classes,
    subtitle,
)
from posture.runs.reports.detection_errors import FALSE, MISSED, MOST_BOXES, BoxMark, drawn_of, judge

if TYPE_CHECKING:
    from posture.data.feed.images import ImageIndex
    from posture.runs.detection import FoundBoxes

SHOTS = 12
"""Images shown of each kind."""
FEW_SHOTS = 4
"""Images shown of a detector that has learned nothing."""
LEARNED = 0.05
"""The least mAP@0.5 and F1 of a detector that has learned something."""
REASONS = 3
"""Told below an image."""


def write_detector_report(
    path: Path,
    *,
    run: Mapping[str, Any],
    metrics: Mapping[str, Any],
    history: Sequence[Mapping[str, Any]],
    index: ImageIndex,
    found: Sequence[FoundBoxes],
    pictures: Any,
    facts: Mapping[str, Any],
    uris: Mapping[str, str] = {},
) -> None:
    """Write the report of one detector to `path`.

    * `run`: the run's configuration (`DetectorRun.model_dump()`); `name` and `model.kind` make the title.
    * `metrics`: what `posture.tasks.detection_metrics.detection_metrics` returns, and beside it `split`, `device`,
      `speed`
      ({"model", "whole": {"median", "p10", "p90"}}, milliseconds), `fps` ({"model", "whole"}), `notice` (a warning,
      which stands first) and `interval` (of mAP@0.5:0.95, as `posture.runs.statistics.told_interval` returns it), which may be
      missing.
    * `history`: a row per epoch, of `epoch` (from 1), `train_loss` and its terms `train_loss_...`, `val_loss`,
      `val_map50`, `val_map50_95`,
      `val_precision`, `val_recall`, `lr`; missing or None values leave gaps.
    * `index`, `found`: the images that were judged, and what was found in each; `images.image(place)` gives uint8
      (h, w, 3), RGB, of at
      most 2 * SHOTS of them; `uris` names their files, `video#t=seconds` that of a frame.
    * `facts`, all optional: as `posture.runs.reports.action.write_report` takes them, with `gflops` (of one image) and
      `pictures_per_second` (training).
    """
    confidence = metrics["confidence"]
    judged = [
        judge((one.boxes, one.scores, one.labels, *there), index.classes, confidence=confidence)
        for one, *there in zip(found, index.boxes, index.labels, index.ignored, index.ignored_labels, strict=True)
    ]
    learned = has_learned(metrics)
    spread = sorted({
        round(place) for place in np.linspace(0, len(judged) - 1, min(SHOTS if learned else FEW_SHOTS, len(judged)))
    })
    worst = sorted(
        (place for place in range(len(judged)) if _harm(judged[place])), key=lambda place: -_harm(judged[place])
    )[: SHOTS if learned else 0]
    page = html.render(
        "detector_report.html",
        name=run.get("name", "run"),
        subtitle=subtitle(run, facts),
        verdict=verdict(metrics, judged),
        protocol=_protocol(facts),
        learned=learned,
        tiles=_tiles(metrics),
        metrics={"device": "", **metrics},
        split=metrics.get("split", "test"),
        regions=sum(map(len, index.ignored)),
        absent=sum(not row["boxes"] for row in metrics["per_class"]),
        curves=learning_curves(history, _charts(history)),
        certainty=_certainty(metrics),
        speed=_speed(metrics),
        shots=_shots(spread, judged, index, pictures, uris),
        worst=_shots(worst, judged, index, pictures, uris),
        mistakes=_mistakes(judged),
        facts=listed_facts(facts),
        footage=html.footage_table(facts.get("footage")),
        configuration=configuration(run),
    )
    html.write(path, page)


def has_learned(metrics: Mapping[str, Any]) -> bool:
    """Whether the detector finds more than it would by chance: at least LEARNED of mAP@0.5 and of F1. True if there is
    nothing to find.
    """
    figures = [metrics[name] for name in ("map50", "f1") if metrics[name] is not None]
    return not figures or min(figures) >= LEARNED


def verdict(metrics: Mapping[str, Any], judged: Sequence[Sequence[BoxMark]]) -> str:
    """The result in sentences, of all classes together: how much of what is there was found, how much of what was
    reported is so, how closely.
    """
    kinds = Counter(mark.kind for marks in judged for mark in marks)
    true, right, reported = kinds["found"] + kinds["missed"], kinds["right"], kinds["right"] + kinds["false"]
    names, split = [row["class"] for row in metrics["per_class"]], metrics.get("split", "test")
    images = f"{len(judged):,} {split} image{'s' * (len(judged) != 1)}"
    if not true:
        return f"The {images} hold no box to find, so nothing can be said of what the detector finds; it reported {reported:,} in vain."
    boxes = (
        f"{'box' if true == 1 else 'boxes'} labelled {names[0]}"
        if len(names) == 1
        else f"labelled {'box' if true == 1 else 'boxes'}"
    )
    at = f"confidence {text.confidence(metrics['confidence'])}"
    found = f"Of {true:,} {boxes} in {images}, {right:,} ({percent(right / true)}) were found at {at}."
    if not has_learned(metrics):
        found = f"This detector has learned next to nothing: its mAP@0.5 is {decimal(metrics['map50'])}. {found}"
    if not reported:
        return f"{found} Nothing was reported."
    closely = (
        ""
        if metrics["mean_iou"] is None or not right
        else f"; right ones overlap the true box by {metrics['mean_iou']:.2f} on average"
    )
    return f"{found} Of {reported:,} reported, {percent(right / reported)} were right{closely}."


def _protocol(facts: Mapping[str, Any]) -> str:
    protocol = facts.get("protocol")
    return f"Protocol: {str(protocol).rstrip('.')}." if protocol else ""


def _tiles(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    tiles = [
        ("mAP@0.5:0.95", decimal(metrics["map50_95"]), interval_text(metrics, decimal) or "found, and closely boxed"),
        ("mAP@0.5", decimal(metrics["map50"]), "found, at an overlap of half"),
        ("Precision", decimal(metrics["precision"]), "of what was reported, how much is so"),
        ("Recall", decimal(metrics["recall"]), "of what is there, how much was found"),
        ("F1", decimal(metrics["f1"]), f"best, at confidence {text.confidence(metrics['confidence'])}"),
        ("Mean IoU", decimal(metrics["mean_iou"]), "overlap of right boxes"),
    ]
    if times := metrics.get("speed"):
        whole, model = times["whole"], times["model"]
        tiles += [
            (
                "Time per image",
                f"{whole['median']:.1f}{THIN_SPACE}ms",
                f"the whole way ({whole['p10']:.1f} to {whole['p90']:.1f})",
            ),
            (
                "FPS",
                decimal(metrics["fps"]["whole"], 1),
                f"network alone: {metrics['fps']['model']:.1f} ({model['median']:.1f}{THIN_SPACE}ms)",
            ),
        ]
    return [{"name": name, "value": value, "note": note} for name, value, note in tiles]


def _charts(history: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Charts over epochs, for `learning_curves`; which terms the training loss has depends on the network."""
    terms = sorted({key for row in history for key in row if key.startswith("train_loss_")})
    return {
        "Loss": {"training": "train_loss", "validation": "val_loss"},
        "Training loss by part": {
            key.removeprefix("train_loss_").removeprefix("loss_").replace("_", " "): key for key in terms
        },
        "Validation mAP": {"0.5:0.95": "val_map50_95", "0.5": "val_map50"},
        "Precision and recall": {"precision": "val_precision", "recall": "val_recall"},
        "Learning rate": {"learning rate": "lr"},
    }


def _certainty(metrics: Mapping[str, Any]) -> list[Chart]:
    """Precision against recall, class by class, and precision, recall and F1 against confidence, mean over classes."""
    curves = metrics["curves"]["classes"]
    if not curves:
        return []
    through = ChartLine(
        f"{f'mean of {len(curves)} classes' if len(curves) > 1 else next(iter(curves))} {metrics['map50']:.3f}",
        mean_curve(metrics["curves"], "precision_at_recall", over="recall"),
    )
    values = {row["class"]: row["ap50"] for row in metrics["per_class"]}
    each = {
        name: list(zip(metrics["curves"]["recall"], curve["precision_at_recall"], strict=True))
        for name, curve in curves.items()
    }
    lines, weakest = of_classes(each if len(curves) > 1 else {}, values, through)
    title = "Precision and recall, with the weakest classes" if weakest else "Precision and recall"
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
    return [
        Chart(title, "recall", "precision at an overlap of 0.5", ticks(0, 1), ticks(0, 1), lines, height=380),
        Chart("At each confidence", "confidence", "", ticks(0, 1), ticks(0, 1), against, [best], height=380),
    ]


def mean_curve(curves: Mapping[str, Any], key: str, *, over: str) -> list[tuple[float, float]]:
    """The mean over the classes of `curves`, of metrics.json, that have a value there; NaN where none has."""
    columns = zip(*[curve[key] for curve in curves["classes"].values()], strict=True)
    known = [[value for value in column if value is not None] for column in columns]
    return [
        (place, float(np.mean(values)) if values else math.nan)
        for place, values in zip(curves[over], known, strict=True)
    ]


def _speed(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    words = {"model": "The network alone", "whole": "The whole way, from decoded pixels to boxes"}
    times = metrics.get("speed") or {}
    return [{"what": words[name], **times[name], "fps": metrics["fps"][name]} for name in words if name in times]


def _harm(marks: Sequence[BoxMark]) -> float:
    """How badly an image went: boxes missed, and the confidences of those reported in vain."""
    return sum(mark.kind == "missed" for mark in marks) + sum(
        mark.confidence or 0.0 for mark in marks if mark.kind == "false"
    )


def _mistakes(judged: Sequence[Sequence[BoxMark]]) -> list[tuple[str, str, list[tuple[str, int, float]]]]:
    """Missed boxes and those reported in vain, by cause: (title, how many of how many, [(cause in words, count,
    share)]).
    """
    marks = [mark for one in judged for mark in one]
    tables = []
    for title, kind, causes, of, all_of in (
        ("Missed", "missed", MISSED, "true boxes", ("found", "missed")),
        ("Reported in vain", "false", FALSE, "reported boxes", ("right", "false")),
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
    places: Sequence[int], judged: Sequence[Sequence[BoxMark]], index: ImageIndex, images: Any, uris: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Images with their boxes, and what became of these."""
    told = [
        _told(judged[place])
        | {"image": str(index.keys[place])[:12], "origin": html.origin(uris.get(index.keys[place], ""))}
        for place in places
    ]
    framed = frame_all([(images.image(place), [_box(mark) for mark in drawn_of(judged[place])]) for place in places])
    return [words | shot for words, shot in zip(told, framed, strict=True)]


def _told(marks: Sequence[BoxMark]) -> dict[str, Any]:
    """What is said below an image."""
    kinds = Counter(mark.kind for mark in marks)
    true, reported = kinds["found"] + kinds["missed"], kinds["false"] + kinds["right"]
    summary = f"{kinds['found']} of {true} found" if true else "nothing to find"
    summary += f", {kinds['false']} of {reported} in vain" if kinds["false"] else ""
    reasons = [f"{mark.name} missed: {mark.reason}" for mark in marks if mark.kind == "missed"]
    reasons += [f"{mark.name} {mark.confidence:.2f}: {mark.reason}" for mark in marks if mark.kind == "false"]
    if len(reasons) > REASONS:
        reasons = [*reasons[:REASONS], f"and {len(reasons) - REASONS} more"]
    if len(marks) > MOST_BOXES:
        reasons.append(f"{len(marks) - MOST_BOXES} of {len(marks)} boxes are not drawn")
    return {"summary": summary, "reasons": reasons}


def _box(mark: BoxMark) -> Box:
    words = {
        "right": "right",
        "false": f"in vain: {mark.reason}",
        "found": "true, and found",
        "missed": f"missed: {mark.reason}",
        "ignored": "in an ignore region, so it is not counted" if mark.reported else "an ignore region",
    }[mark.kind]
    text = f"{mark.name}{'' if mark.confidence is None else f', confidence {mark.confidence:.2f}'}: {words}"
    return Box(mark.box, mark.kind, mark.tag, text, above=mark.reported)
