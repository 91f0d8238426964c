"""A linear classifier on simple features of a clip: the least that a video network must exceed.

The features are a coarse mean frame (appearance), the coarse mean absolute difference of neighbouring frames (where it
moves), and that difference averaged over each frame (when it moves). They have nothing to learn. After they are
standardised, one linear layer classifies them. `posture/train/solve.py` fits it.

Legend: N clips, T frames, S the network's side in pixels, G cells along a side of the grid, D features, K classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from posture.models import configs


class LinearClassifier(nn.Module):
    """Normalised RGB clips (N, 3, T, S, S), float -> logits (N, K)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, config: configs.Linear) -> None:
        super().__init__()
        self.appearance, self.motion = Grid(config.grid), Grid(config.grid)
        features = 6 * config.grid**2 + config.frames - 1
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.classify = nn.Linear(features, config.classes)

    def features(self, clips: Tensor) -> Tensor:
        """Return features (N, D) before they are standardised, D = 6 G^2 + T - 1."""
        differences = clips.diff(dim=2).abs()
        places = [grid.mean(dim=2).flatten(1) for grid in (self.appearance(clips), self.motion(differences))]
        course = differences.mean(dim=(1, 3, 4))  # (N, T - 1)
        return torch.cat([*places, course], dim=1)

    def forward(self, clips: Tensor) -> Tensor:
        return self.classify((self.features(clips) - self.mean) / self.deviation)


class Grid(nn.Module):
    """Means over the cells of a grid: (N, C, T, S, S) -> (N, C, T, G, G)."""

    def __init__(self, cells: int) -> None:
        super().__init__()
        self.cells = cells

    def forward(self, frames: Tensor) -> Tensor:
        return functional.adaptive_avg_pool3d(frames, (None, self.cells, self.cells))
