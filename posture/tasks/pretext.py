"""Pretraining without labels: name the transformation of a view, or find the other view of the same instance.

Tensor legend: n instances, each seen in two views: rows i and n + i are of one instance, a clip or a clip as it is
played (`posture/train/pretext_batches.py`). K outputs, M streams of a network that fuses late. Losses are (sum, count)
pairs, as in `posture/tasks/action.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.2
"""Divides the cosines of views before their softmax."""
ROWS = 1024
"""Views that validation compares with all others at once."""


class PretextTask:
    """Loss and metrics of `run.pretext`; `run` is an `ActionRun`."""

    in_network = False

    def __init__(self, run: Any) -> None:
        self.contrasts, self.views = run.pretext == "contrast", run.views
        self.label_smoothing = run.loss.label_smoothing

    def counts(self, labels: Tensor) -> dict[str, float]:
        """Return the divisor of the loss: the number of views."""
        return {"pretext": float(len(labels))}

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, float]]:
        """Return {"pretext": (sum over the views in float32, number of views)}.

        `outputs` are (2n, K), or (2n, M, K) of M streams, whose losses are added. `labels` (2n,) int64 are the
        transformations, for cross-entropy; `contrast_losses` needs none.
        """
        streams = (outputs[:, None] if outputs.ndim == 2 else outputs).float().unbind(1)
        losses = [self._losses(each, labels, smoothing=self.label_smoothing) for each in streams]
        return {"pretext": (torch.stack(losses).sum(), float(len(labels)))}

    def totals(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return what `metrics` needs, a row for each instance: outputs and transformation of its two views,
        (n, 2 (K + 1)) float32. `outputs` are as in `loss`; streams are averaged.
        """
        outputs = outputs.float() if outputs.ndim == 2 else outputs.float().mean(1)
        return torch.cat(torch.cat([outputs, labels[:, None]], dim=1).chunk(2), dim=1)

    def added(self, totals: Tensor, more: Tensor) -> Tensor:
        """Return the totals of two batches as those of one."""
        return torch.cat([totals, more])

    def metrics(self, parts: list[Tensor | None]) -> dict[str, float]:
        """Return loss, accuracy and count from all workers' totals; a worker without clips has None.

        The accuracy is the share of views whose transformation is named, or whose nearest view of all is the other one
        of their instance. The count is of clips.
        """
        rows = torch.cat([part for part in parts if part is not None]).double()
        views = torch.cat(rows.chunk(2, dim=1))  # (2n, K + 1)
        outputs, labels = views[:, :-1], views[:, -1].long()
        right = _finds_its_other(outputs) if self.contrasts else outputs.argmax(1) == labels
        loss = self._losses(outputs, labels, smoothing=0.0).mean()
        return {"loss": float(loss), "accuracy": float(right.double().mean()), "count": len(views) // self.views}

    def _losses(self, outputs: Tensor, labels: Tensor, *, smoothing: float) -> Tensor:
        """Return the loss of each view, (2n,)."""
        if self.contrasts:
            return contrast_losses(outputs)
        return functional.cross_entropy(outputs, labels, label_smoothing=smoothing, reduction="none")


def contrast_losses(embedding: Tensor) -> Tensor:
    """Return the NT-Xent loss (Chen 2020, arXiv 2002.05709, equation 1) of each view, (2n,).

    `embedding` is (2n, D). A view's loss is the cross-entropy of finding the other view of its instance among all
    others, by cosines divided by `TEMPERATURE`.
    """
    others = _others(len(embedding), embedding.device)
    return torch.cat([
        functional.cross_entropy(cosines / TEMPERATURE, others[rows], reduction="none")
        for rows, cosines in _cosines(embedding)
    ])


def _finds_its_other(embedding: Tensor) -> Tensor:
    others = _others(len(embedding), embedding.device)
    return torch.cat([cosines.argmax(1) == others[rows] for rows, cosines in _cosines(embedding)])


def _others(views: int, device: torch.device) -> Tensor:
    """Return the row of the other view of each view's instance, (2n,)."""
    return torch.arange(views, device=device).roll(views // 2)


def _cosines(embedding: Tensor) -> Any:
    """Yield (rows, their cosines with all views); a view's cosine with itself is -inf."""
    unit = functional.normalize(embedding, dim=1)
    for rows in torch.arange(len(unit), device=unit.device).split(ROWS):
        cosines = unit[rows] @ unit.T
        yield rows, cosines.masked_fill(rows[:, None] == torch.arange(len(unit), device=unit.device), -torch.inf)
