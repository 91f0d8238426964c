"""Metrics and examples for the report of an action classifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from posture.runs.classification_metrics import classification_metrics


def scored(classes: list[str], segments: int, *, absent: int | None = None) -> dict[str, Any]:
    random = np.random.default_rng(0)
    present = [index for index in range(len(classes)) if index != absent]
    labels = random.choice(present, segments)
    logits = random.normal(size=(segments, len(classes)))
    logits[np.arange(segments), labels] += 2
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return classification_metrics(scores, labels, classes)


def filmed(
    truth: str, guess: str, confidence: float, *, segment: str = "5e9", frames: int = 5, pixels: int = 112
) -> dict[str, Any]:
    random = np.random.default_rng(len(segment))
    return {
        "segment": segment,
        "truth": truth,
        "guess": guess,
        "confidence": confidence,
        "frames": [random.integers(0, 256, (pixels, pixels, 3), dtype=np.uint8) for _ in range(frames)],
    }
