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
    """Cross-entropy with label smoothing (Szegedy 2016, section 7), and what is counted to judge it; `run` is a
    `posture.config.Run`.
    """

    in_network = False
    """Whether the network itself computes the loss, and takes the targets for it."""

    def __init__(self, run: Any, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.label_smoothing = run.loss.label_smoothing

    def counts(self, labels: Tensor) -> dict[str, float]:
        """What each term of the loss will be divided by, known before the forward pass: the number of clips."""
        return {"class": float(len(labels))}

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, float]]:
        """outputs (N, K) or (N, M, K), labels (N,) int64 -> {"class": (sum over the clips in float32, number of
        clips)}.

        The losses of M streams are added: each learns as if it were alone. Raises InputError where the network has
        another number of classes.
        """
        if outputs.shape[-1] != len(self.classes):
            raise InputError(f"model.classes is {outputs.shape[-1]}, but the footage has {len(self.classes)} classes")
        streams = outputs[:, None] if outputs.ndim == 2 else outputs  # (N, M, K)
        answers = labels[:, None].expand(-1, streams.shape[1])
        total = functional.cross_entropy(
            streams.flatten(0, 1).float(), answers.flatten(), label_smoothing=self.label_smoothing, reduction="sum"
        )
        return {"class": (total, float(len(labels)))}

    def totals(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """What `metrics` needs, a row for each clip: log-probabilities and the label, (N, K + 1) float32.

        `outputs` as in `loss`; what is judged is the streams' common answer.
        """
        return torch.cat([_log_probabilities(outputs), labels[:, None].float()], dim=1)

    def added(self, totals: Tensor, more: Tensor) -> Tensor:
        """The totals of two batches as those of one."""
        return torch.cat([totals, more])

    def metrics(self, parts: list[Tensor | None]) -> dict[str, float]:
        """Totals of all workers (None of one without clips) -> loss (plain cross-entropy), accuracy,
        mean_class_accuracy and map (over classes that have clips), count.
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
    """Class probabilities (N, K) float32: the softmax of logits (N, K), or the mean of M streams' softmaxes of logits
    (N, M, K).

    That mean is Simonyan & Zisserman's fusion by averaged scores (2014, arXiv 1406.2199, section 2).
    """
    return _log_probabilities(outputs).exp()


def _log_probabilities(outputs: Tensor) -> Tensor:
    scores = outputs.float().log_softmax(dim=-1)
    return scores if scores.ndim == 2 else scores.logsumexp(dim=1) - math.log(scores.shape[1])
