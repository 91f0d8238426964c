"""Action classification: one class per clip.

Tensor legend: N clips, K classes. Losses are (sum, count) pairs, so that the mean over all workers and micro batches is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posture.errors import InputError


class ActionTask:
    """Cross-entropy with label smoothing (Szegedy 2016, section 7), and what is counted to judge it; `run` is a `posture.config.Run`."""

    def __init__(self, run: Any, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.label_smoothing = run.loss.label_smoothing
        self.totals_size = 1 + len(classes) ** 2

    def counts(self, labels: Tensor) -> dict[str, float]:
        """What each term of the loss will be divided by, known before the forward pass: the number of clips."""
        return {"class": float(len(labels))}

    def loss(self, logits: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, float]]:
        """logits (N, K), labels (N,) int64 -> {"class": (sum over the clips in float32, number of clips)}.

        Raises InputError where the network has another number of classes.
        """
        if logits.shape[1] != len(self.classes):
            raise InputError(f"model.classes is {logits.shape[1]}, but the footage has {len(self.classes)} classes")
        total = functional.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing, reduction="sum")
        return {"class": (total, float(len(labels)))}

    def totals(self, logits: Tensor, labels: Tensor) -> Tensor:
        """What `metrics` needs, to be summed over batches and workers: loss sum and confusion (rows truth), (`totals_size`,) float64."""
        classes = len(self.classes)
        loss = functional.cross_entropy(logits.float(), labels, reduction="sum").double()
        confusion = torch.bincount(labels * classes + logits.argmax(dim=1), minlength=classes * classes).double()
        return torch.cat([loss[None], confusion])

    def metrics(self, totals: np.ndarray) -> dict[str, float]:
        """Summed totals -> loss (plain cross-entropy), accuracy, mean_class_accuracy (over classes that have clips), count."""
        confusion = totals[1:].reshape(len(self.classes), len(self.classes))
        correct, clips = confusion.diagonal(), confusion.sum(axis=1)
        present = clips > 0
        return {
            "loss": float(totals[0] / clips.sum()),
            "accuracy": float(correct.sum() / clips.sum()),
            "mean_class_accuracy": float((correct[present] / clips[present]).mean()),
            "count": int(clips.sum()),
        }
