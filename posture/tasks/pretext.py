"""Pretraining without labels: name the transformation of a view, find the other view of the same clip, or both.

Tensor legend: n clips, each seen in two views: rows i and n + i are of one clip. K transformations, D numbers of an
embedding, M streams of a network that fuses late. The network's outputs are K scores, then D numbers; either may be 0.
Losses are (sum, count) pairs, as in `posture/tasks/action.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posture.data.feed.pretext_views import TRANSFORMATIONS

TEMPERATURE = 0.2
"""Divides the cosines of views before their softmax."""
ROWS = 1024
"""Views that validation compares with all others at once."""


class PretextTask:
    """Losses and metrics of `run.pretext`; `run` is an `ActionRun`."""

    in_network = False

    def __init__(self, run: Any) -> None:
        self.transformations = len(TRANSFORMATIONS) if run.pretext in ("transformations", "both") else 0
        self.contrasts = run.pretext in ("contrast", "both")
        self.label_smoothing = run.loss.label_smoothing

    def counts(self, labels: Tensor) -> dict[str, float]:
        """Return the divisor of each loss term: the number of views."""
        terms = {"transformation": self.transformations, "contrast": self.contrasts}
        return {term: float(len(labels)) for term, there in terms.items() if there}

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, float]]:
        """Return the sum over the views, in float32, and the number of views of each term.

        `outputs` are (2n, K + D), or (2n, M, K + D) of M streams, whose losses are added. `labels` (2n,) int64 are the
        transformations. "transformation" is cross-entropy, "contrast" is `contrast_losses`.
        """
        terms: dict[str, tuple[Tensor, float]] = {}
        for stream in (outputs[:, None] if outputs.ndim == 2 else outputs).float().unbind(1):
            found = {}
            if self.transformations:
                found["transformation"] = functional.cross_entropy(
                    stream[:, : self.transformations], labels, label_smoothing=self.label_smoothing, reduction="sum"
                )
            if self.contrasts:
                found["contrast"] = contrast_losses(stream[:, self.transformations :]).sum()
            terms = {term: (total + terms.get(term, (0.0,))[0], float(len(labels))) for term, total in found.items()}
        return terms

    def totals(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return what `metrics` needs, a row for each clip: outputs and transformation of its two views,
        (n, 2 (K + D + 1)) float32. `outputs` are as in `loss`; streams are averaged.
        """
        outputs = outputs.float() if outputs.ndim == 2 else outputs.float().mean(1)
        return torch.cat(torch.cat([outputs, labels[:, None]], dim=1).chunk(2), dim=1)

    def added(self, totals: Tensor, more: Tensor) -> Tensor:
        """Return the totals of two batches as those of one."""
        return torch.cat([totals, more])

    def metrics(self, parts: list[Tensor | None]) -> dict[str, float]:
        """Return loss, accuracy and count from all workers' totals; a worker without clips has None.

        The accuracy is the share of views whose transformation is named, or whose nearest view of all is the other one
        of their clip. With both, it is the mean of the two, which are `transformation_accuracy` and
        `contrast_accuracy`.
        """
        rows = torch.cat([part for part in parts if part is not None]).double()
        views = torch.cat(rows.chunk(2, dim=1))  # (2n, K + D + 1)
        outputs, labels = views[:, :-1], views[:, -1].long()
        losses, shares = [], {}
        if self.transformations:
            scores = outputs[:, : self.transformations]
            losses.append(float(functional.cross_entropy(scores, labels)))
            shares["transformation_accuracy"] = float((scores.argmax(1) == labels).double().mean())
        if self.contrasts:
            embedding = outputs[:, self.transformations :]
            losses.append(float(contrast_losses(embedding).mean()))
            shares["contrast_accuracy"] = float(_finds_its_other(embedding).double().mean())
        accuracy = sum(shares.values()) / len(shares)
        return {"loss": sum(losses), "accuracy": accuracy, "count": len(rows)} | (shares if len(shares) > 1 else {})


def contrast_losses(embedding: Tensor) -> Tensor:
    """Return the NT-Xent loss (Chen 2020, arXiv 2002.05709, equation 1) of each view, (2n,).

    `embedding` is (2n, D). A view's loss is the cross-entropy of finding the other view of its clip among all others,
    by cosines divided by `TEMPERATURE`.
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
    """Return the row of the other view of each view's clip, (2n,)."""
    return torch.arange(views, device=device).roll(views // 2)


def _cosines(embedding: Tensor) -> Any:
    """Yield (rows, their cosines with all views); a view's cosine with itself is -inf."""
    unit = functional.normalize(embedding, dim=1)
    for rows in torch.arange(len(unit), device=unit.device).split(ROWS):
        cosines = unit[rows] @ unit.T
        yield rows, cosines.masked_fill(rows[:, None] == torch.arange(len(unit), device=unit.device), -torch.inf)
