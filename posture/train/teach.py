"""Distillation: a network learns the probabilities of trained ones beside the labels (Hinton 2015, arXiv 1503.02531).

Teachers see the same augmented clips as the student, mixed ones too (Beyer 2022, arXiv 2106.05237). Legend: N clips, K
classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from posture.tasks.action import probabilities


class Teachers:
    """Trained networks, in evaluation mode, each with the indices of the student's K classes among its own."""

    def __init__(self, networks: Sequence[tuple[nn.Module, Sequence[int]]], *, share: float) -> None:
        self.networks = [(network.requires_grad_(False).eval(), list(classes)) for network, classes in networks]
        self.share = share

    def to(self, device: torch.device) -> Teachers:
        """Move the networks to `device`, and return self."""
        for network, _ in self.networks:
            network.to(device)
        return self

    @torch.no_grad()
    def targets(self, inputs: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Return probabilities (N, K): `share` of the teachers' mean, the rest of `labels` (N,) int64 or (N, K)."""
        said = torch.stack([probabilities(network(*inputs))[:, classes] for network, classes in self.networks]).mean(0)
        known = functional.one_hot(labels, said.shape[1]) if labels.ndim == 1 else labels
        return self.share * said + (1 - self.share) * known.float()
