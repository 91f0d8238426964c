"""Action classification: one class per clip.

Tensor legend: N clips, K classes, M streams of a network that fuses late. Losses are (sum, count) pairs, so that the
mean over all workers and micro batches is exact.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posture.errors import InputError
from posture.tasks.metrics import average_precision


class ActionTask:
    """Cross-entropy with label smoothing (Szegedy 2016, section 7), and metrics; `run` is an `ActionRun`."""

    in_network = False
    """True if the network itself computes the loss and takes the targets."""

    def __init__(self, run: Any, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.label_smoothing = run.loss.label_smoothing

    def counts(self, labels: Tensor) -> dict[str, float]:
        """Return the divisor of each loss term, known before the forward pass: the number of clips."""
        return {"class": float(len(labels))}

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, float]]:
        """Return {"class": (sum over the clips in float32, number of clips)}.

        `outputs` are (N, K) or (N, M, K), `labels` (N,) int64, or probabilities (N, K) of mixed clips. The losses of M
        streams are added: each learns as if it were alone.

        Raises InputError if the network has another number of classes.
        """
        if outputs.shape[-1] != len(self.classes):
            raise InputError(f"model.classes is {outputs.shape[-1]}, but the footage has {len(self.classes)} classes")
        streams = outputs[:, None] if outputs.ndim == 2 else outputs  # (N, M, K)
        answers = labels[:, None].expand(-1, streams.shape[1], *labels.shape[1:])
        total = functional.cross_entropy(
            streams.flatten(0, 1).float(), answers.flatten(0, 1), label_smoothing=self.label_smoothing, reduction="sum"
        )
        return {"class": (total, float(len(labels)))}

    def totals(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return what `metrics` needs, a row for each clip: log-probabilities and the label, (N, K + 1) float32.

        `outputs` are as in `loss`; streams are fused.
        """
        return torch.cat([_log_probabilities(outputs), labels[:, None].float()], dim=1)

    def added(self, totals: Tensor, more: Tensor) -> Tensor:
        """Return the totals of two batches as those of one."""
        return torch.cat([totals, more])

    def metrics(self, parts: list[Tensor | None]) -> dict[str, float]:
        """Return loss (plain cross-entropy), accuracy, mean_class_accuracy, map and count from all workers' totals.

        A worker without clips has None. Class means are over classes that have clips.
        """
        rows = torch.cat([part for part in parts if part is not None])
        scores, labels = rows[:, :-1].double(), rows[:, -1].long()
        right = scores.argmax(dim=1) == labels
        return {
            "loss": float(functional.nll_loss(scores, labels)),
            "accuracy": float(right.double().mean()),
            "mean_class_accuracy": float(
                np.mean([float(right[labels == label].double().mean()) for label in labels.unique()])
            ),
            "map": float(
                np.mean([
                    average_precision(scores[:, label].numpy(), (labels == label).numpy()) for label in labels.unique()
                ])
            ),
            "count": len(labels),
        }


def probabilities(outputs: Tensor) -> Tensor:
    """Return class probabilities (N, K) float32: the softmax of logits (N, K), or its mean over M streams (N, M, K).

    That mean is Simonyan & Zisserman's fusion by averaged scores (2014, arXiv 1406.2199, section 2).
    """
    return _log_probabilities(outputs).exp()


def _log_probabilities(outputs: Tensor) -> Tensor:
    scores = outputs.float().log_softmax(dim=-1)
    return scores if scores.ndim == 2 else scores.logsumexp(dim=1) - math.log(scores.shape[1])
