"""Augmentation of a network's inputs: random erasing within a clip, and mixup and cutmix of clips.

Tensor legend: N clips, C channels, T frames, S the network's side in pixels, K classes. Like a crop, an erased or
pasted rectangle is the same in all frames of a clip, and in its frames and its flow. Random numbers are drawn for each
clip from its key, as in `posture/data/feed/clip_transforms.py`. A clip's partner is the next one of the micro batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posture.data.feed.clip_transforms import ERASING, MIXING, clip_generator

ERASED_AREA = (0.02, 1 / 3)
"""Range of an erased rectangle's area, as a share of the frame's (Zhong 2017)."""
ERASED_ASPECT = (0.3, 3.3)
"""Range of its width / height."""


def erased(inputs: tuple[Tensor, ...], *, data: Any, keys: list[dict[str, int]]) -> tuple[Tensor, ...]:
    """Return inputs (N, C, T, S, S) with random erasing (Zhong 2017, arXiv 1708.04896).

    With probability `data.erasing` a rectangle of a clip becomes 0, the mean of normalised frames. `keys` are the
    arguments of `clip_generator` for each clip.
    """
    if not data.erasing:
        return inputs
    size = inputs[0].shape[-1]
    kept = torch.stack([torch.from_numpy(_kept_by_erasing(key, data.erasing, size)) for key in keys])  # (N, S, S)
    return tuple(x * kept[:, None, None].to(x) for x in inputs)


def mixed(
    inputs: tuple[Tensor, ...], labels: Tensor, *, classes: int, data: Any, keys: list[dict[str, int]]
) -> tuple[tuple[Tensor, ...], Tensor]:
    """Return inputs (N, C, T, S, S) mixed with those of the next clip, and probabilities (N, K) float32 mixed likewise.

    Mixup (Zhang 2017, arXiv 1710.09412) adds a share of the partner, cutmix (Yun 2019, arXiv 1905.04899) pastes a
    rectangle of it. Shares are drawn from Beta(a, a) with a = `data.mixup` or `data.cutmix`. If both are given, a clip
    has one or the other with equal probability; without either, inputs and labels (N,) return unchanged.
    """
    if not (data.mixup or data.cutmix):
        return inputs, labels
    size = inputs[0].shape[-1]
    kept = torch.from_numpy(np.stack([_kept_by_mixing(key, data, size) for key in keys]))  # (N, S, S)
    weights = kept[:, None, None].to(inputs[0])  # (N, 1, 1, S, S)
    shares = kept.mean((1, 2))[:, None].to(labels.device, torch.float32)  # (N, 1)
    answers = functional.one_hot(labels, classes).float()
    return (
        tuple(weights * x + (1 - weights) * x.roll(-1, 0) for x in inputs),
        shares * answers + (1 - shares) * answers.roll(-1, 0),
    )


def _kept_by_erasing(key: dict[str, int], probability: float, size: int) -> np.ndarray:
    """Return 1 for each pixel that stays and 0 for each erased one, (S, S) float32."""
    chance, area, aspect, left, top = clip_generator(ERASING, **key).random(5)
    kept = np.ones((size, size), dtype=np.float32)
    if chance < probability:
        area = ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0])
        aspect = np.exp(np.interp(aspect, (0, 1), np.log(ERASED_ASPECT)))
        sides = size * np.sqrt((area * aspect, area / aspect))
        width, height = np.clip(sides.round(), 1, size).astype(int)
        x, y = int(left * (size - width + 1)), int(top * (size - height + 1))
        kept[y : y + height, x : x + width] = 0.0
    return kept


def _kept_by_mixing(key: dict[str, int], data: Any, size: int) -> np.ndarray:
    """Return the clip's own weight in each pixel, (S, S) float32; the partner has the rest."""
    generator = clip_generator(MIXING, **key)
    chance, left, top = generator.random(3)
    pastes = data.cutmix and (not data.mixup or chance < 0.5)
    alpha = data.cutmix if pastes else data.mixup
    share = generator.beta(alpha, alpha)
    if not pastes:
        return np.full((size, size), share, dtype=np.float32)
    kept, side = np.ones((size, size), dtype=np.float32), round(size * float(np.sqrt(1 - share)))
    x, y = round(left * size - side / 2), round(top * size - side / 2)  # about a random centre, cut at the edges
    kept[max(0, y) : max(0, y + side), max(0, x) : max(0, x + side)] = 0.0
    return kept
