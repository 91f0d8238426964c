"""Results of action classifiers to compare: 36 segments of three classes in twelve groups."""

from __future__ import annotations

from typing import Any

import numpy as np

from posture.compare.action import SeedResult
from posture.compare.results import Entry
from posture.runs.classification_metrics import classification_metrics

CLASSES = ("run", "jump", "throw")
LABELS = np.repeat(np.arange(3), 12)
SEGMENTS = [f"segment{number:02d}" for number in range(36)]
GROUPS = {segment: f"group{number // 3:02d}" for number, segment in enumerate(SEGMENTS)}  # twelve of three


def scored(right: np.ndarray, confidence: float = 0.8) -> np.ndarray:
    """Return scores (36, 3) whose guesses are right where `right` is true."""
    scores = np.full((len(LABELS), 3), (1 - confidence) / 2)
    scores[np.arange(len(LABELS)), np.where(right, LABELS, (LABELS + 1) % 3)] = confidence
    return scores


def first_right(count: int) -> np.ndarray:
    """Return a mask (36,) that is true for the first `count` segments of each class."""
    return np.arange(36) % 12 < count


def seed_result(scores: np.ndarray, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> SeedResult:
    history = [
        {
            "epoch": epoch,
            "train_loss": 1.1 / epoch,
            "val_loss": 1.2 / epoch,
            "val_accuracy": 0.5,
            "clips_per_second": 60.0,
            "seconds": 2.0,
        }
        for epoch in (1, 2, 3)
    ]
    return SeedResult(
        seed, f"runs/{seed}", history, classification_metrics(scores, LABELS, classes), list(SEGMENTS), LABELS, scores
    )


def entry(name: str, kind: Any, *scores: np.ndarray, **given: Any) -> Entry:
    values: dict[str, Any] = {
        "title": name.upper(),
        "parameters": 3_420_000,
        "gmacs": 2.104,
        "epochs": 3,
        "lr": 0.003,
        "lr_search": [
            {"lr": 0.001, "val_loss": 0.912, "val_accuracy": 0.61},
            {"lr": 0.003, "val_loss": 0.743, "val_accuracy": 0.72},
        ],
        "latency_ms": {"median": 18.2, "least": 17.1, "most": 21.9},
        "clips_per_second": 61.25,
        "results": [seed_result(one, seed) for seed, one in enumerate(scores)],
    } | given
    return Entry(name, kind=kind, **values)


FACTS = {
    "when": "2026-05-03T14:05:00+00:00",
    "budget": "3 epochs of 90 clips",
    "seeds": [0, 1, 2],
    "hardware": "two cores",
    "software": {"torch": "2.15"},
    "store": "s3://bucket/store",
    "tables": {"clips": 4},
    "protocol": "the middle",
    "majority_accuracy": 1 / 3,
    "weather": "sunny",
    "footage": {"train": {"segments": 90, "seconds": 3660}, "test": {"segments": 36}},
}
