"""RandAugment (Cubuk 2019, arXiv 1909.13719) of clips: random operations, the same for all frames of a clip."""

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


def rand_augmented(images: Tensor, operations: RandomOperations) -> Tensor:
    """Return clips (N, 3, T, S, S) in 0..1 after each clip's operations; every frame of a clip gets the same ones.

    Raises InputError if torchvision cannot be imported.
    """
    try:
        from torchvision.transforms.v2 import RandAugment
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise InputError(f"data.rand_augment needs torchvision, which cannot be imported: {error}") from None
    strength = round(operations.magnitude * (BINS - 1))
    augment = RandAugment(operations.count, strength, num_magnitude_bins=BINS, fill=[GREY] * 3)
    clips = []
    for clip, seed in zip(images, operations.seeds.tolist(), strict=True):
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's generator
            torch.manual_seed(seed)
            clips.append(augment(clip.transpose(0, 1)).transpose(0, 1))  # as T images
    return torch.stack(clips)
