"""Results of detectors to compare: 24 images of two classes in twelve groups."""

from __future__ import annotations

import math
from typing import Any

from posture.compare.detection import DetectionResult
from posture.compare.results import Entry
from posture.tasks.detection_metrics import ScoredImage, detection_metrics
from tests.support.figures.detector_report import scored_image

CLASSES = ("athlete", "ball")
IMAGES = [f"image{number:02d}" for number in range(24)]
GROUPS = {image: f"group{number // 2:02d}" for number, image in enumerate(IMAGES)}  # twelve of two


def judged(found: int, shift: float = 0.0, *, vain: int = 0) -> list[ScoredImage]:
    """Return predictions for 24 images with an athlete and a ball each.

    The boxes of the first `found` images are found, `shift` pixels off. The first `vain` images have a false positive.
    """
    ones = []
    for number in range(24):
        athlete, ball = [10.0, 10.0, 50.0, 90.0], [60.0, 60.0, 80.0, 80.0]
        boxes = (
            [
                ([athlete[0] + shift, *athlete[1:]], 0.9 - number / 100, 0),
                ([ball[0] + shift, *ball[1:]], 0.8 - number / 100, 1),
            ]
            if number < found
            else []
        )
        ones.append(
            scored_image(
                [*boxes, *([([100.0, 0.0, 120.0, 20.0], 0.95, 0)] if number < vain else [])], [(athlete, 0), (ball, 1)]
            )
        )
    return ones


def result(
    predictions: list[ScoredImage],
    seed: int = 0,
    *,
    classes: tuple[str, ...] = CLASSES,
    ms: float = 25.0,
    images: list[str] | None = None,
) -> DetectionResult:
    history = [
        {
            "epoch": epoch,
            "train_loss": 1.1 / epoch,
            "val_map50": 0.2 * epoch,
            "val_map50_95": 0.1 * epoch + seed / 100,
            "clips_per_second": 12.0,
            "seconds": 2.0,
        }
        for epoch in (1, 2, 3)
    ]
    speed = {
        "model": {"median": 0.8 * ms, "p10": 0.7 * ms, "p90": ms},
        "whole": {"median": ms, "p10": 0.9 * ms, "p90": 1.4 * ms},
    }
    metrics = detection_metrics(predictions, classes) | {
        "speed": speed,
        "fps": {name: 1000 / one["median"] for name, one in speed.items()},
    }
    return DetectionResult(seed, f"runs/{seed}", history, metrics, images or list(IMAGES), predictions)


def entry(name: str, kind: Any, *predictions: list[ScoredImage], **given: Any) -> Entry:
    values: dict[str, Any] = {
        "title": name.upper(),
        "parameters": 7_235_389,
        "gmacs": 8.25,
        "epochs": 3,
        "lr": 0.001,
        "lr_search": [
            {"lr": 0.001, "val_loss": 0.041, "val_map50_95": 0.472},
            {"lr": 0.003, "val_loss": None, "val_map50_95": 0.311},
            {"lr": 0.01, "val_loss": math.inf, "val_map50_95": None},
        ],
        "clips_per_second": 12.25,
        "results": [result(one, seed, ms=25.0 + seed) for seed, one in enumerate(predictions)],
    } | given
    return Entry(name, kind=kind, **values)
