"""Predictions, images, history and speed for the report of a detector."""

from __future__ import annotations

import numpy as np

from posture.tasks.detection_metrics import ScoredImage

SPEED = {
    "speed": {"model": {"median": 20.0, "p10": 19.1, "p90": 22.4}, "whole": {"median": 25.0, "p10": 23.6, "p90": 31.2}},
    "fps": {"model": 50.0, "whole": 40.0},
}
HISTORY = [
    {
        "epoch": epoch,
        "train_loss": 0.3 / epoch,
        "train_loss_box": 0.2 / epoch,
        "train_loss_loss_objectness": 0.1 / epoch,
        "val_loss": 0.31 / epoch,
        "val_map50": 0.9 * value,
        "val_map50_95": value,
        "val_precision": 0.8,
        "val_recall": 0.7,
        "lr": 0.001,
    }
    for epoch, value in ((1, 0.1), (2, 0.62), (3, 0.5))
]


def scored_image(found: list[tuple[list[float], float, int]], true: list[tuple[list[float], int]]) -> ScoredImage:
    """Of (box, score, label) and (box, label)."""
    return (
        np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in found], dtype=np.float32),
        np.array([label for _, _, label in found], dtype=np.int64),
        np.array([box for box, _ in true], dtype=np.float32).reshape(-1, 4),
        np.array([label for _, label in true], dtype=np.int64),
    )


class AskedImages:
    """Images that remember which of them were asked for."""

    def __init__(self, height: int = 120, width: int = 160) -> None:
        self.size, self.asked = (height, width, 3), []

    def image(self, place: int) -> np.ndarray:
        self.asked.append(place)
        return np.full(self.size, (200, 0, 0), dtype=np.uint8)
