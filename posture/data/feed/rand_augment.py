"""RandAugment (Cubuk 2019, arXiv 1909.13719) of clips: random operations, the same for all frames of a clip.

Their strength is constant, or drifts along the clip, as light and camera do (Kim 2022, arXiv 2206.15015).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from posture.errors import InputError

BINS = 31
"""Strengths that RandAugment distinguishes."""
GREY = 0.5
"""Value of pixels that an operation moves in from outside."""


@dataclass(frozen=True)
class RandomOperations:
    """RandAugment of N clips."""

    seeds: np.ndarray
    """(N,) int64, seed of each clip's operations."""
    count: int
    """Operations, one after the other."""
    magnitude: float
    """Strength of each, 0 to 1."""
    drift: float = 0.0
    """Share of the strength by which it falls or rises from a clip's middle to either end, 0 to 1."""

    def strengths(self, seed: int, frames: int) -> np.ndarray:
        """Return the strength at each frame of the clip with `seed`: (frames,) int64, up to `BINS` - 1."""
        slope = self.drift * (1 if seed % 2 else -1)
        along = self.magnitude * (1 + slope * np.linspace(-1, 1, frames))
        return np.round(along.clip(0, 1) * (BINS - 1)).astype(np.int64)


def rand_augmented(images: Tensor, operations: RandomOperations) -> Tensor:
    """Return clips (N, 3, T, S, S) in 0..1 after each clip's operations; every frame of a clip gets the same ones, at
    the same strength without `drift`.

    Raises InputError if torchvision cannot be imported.
    """
    try:
        from torchvision.transforms.v2 import RandAugment
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise InputError(f"data.rand_augment needs torchvision, which cannot be imported: {error}") from None
    clips = []
    for clip, seed in zip(images, operations.seeds.tolist(), strict=True):
        frames = clip.transpose(0, 1).clone()  # as T images
        strengths = torch.from_numpy(operations.strengths(seed, len(frames)))
        for strength in strengths.unique().tolist():
            augment = RandAugment(operations.count, strength, num_magnitude_bins=BINS, fill=[GREY] * 3)
            alike = (strengths == strength).to(frames.device)
            with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator
                torch.manual_seed(seed)  # the same operations at every strength
                frames[alike] = augment(frames[alike])
        clips.append(frames.transpose(0, 1))
    return torch.stack(clips)
