"""Anchors of a YOLO head: their assignment to boxes, and k-means anchors for a set of boxes.

Legend: B boxes, A anchors of each level, M matches of a level. Sides are (width, height) in pixels of the network's
image. The rule is that of YOLOv5 6.x (Jocher 2022): any anchor of a like shape on any level, in the cell of the box's
centre and its two nearest neighbours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from posture.models.boxes import Targets, cxcywh_from_xyxy
from posture.models.detector_configs import STRIDES, Anchors

LEAST_SIDE = 2.0
"""Minimum side of a box, in pixels, when anchors are made; thinner boxes count as this wide."""

SAMPLE = 10_000
"""Maximum number of boxes that anchors are made from."""

STARTS, MEANS_STEPS, REFINEMENTS = 5, 50, 500


class Matches(NamedTuple):
    """Matches of one level, (M,) int64 each: an index into the level's outputs, and one into `Targets.boxes`."""

    images: Tensor
    anchors: Tensor
    rows: Tensor
    columns: Tensor
    boxes: Tensor

    @property
    def places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Index into the level's outputs (N, A, H, W, ...)."""
        return self[:4]


def match(targets: Targets, anchors: Anchors, *, size: int | tuple[int, int], ratio: float) -> list[Matches]:
    """Return, for each level, all pairs of a box and an anchor whose sides differ by less than a factor of `ratio`.

    A pair is matched in the cell of the box's centre, and in the nearest neighbours of that cell in x and in y, unless
    the centres coincide. Matches lie inside the grid, which covers `size`, the images' side or (height, width) in
    pixels. One cell may be matched with several boxes.
    """
    height, width = (size, size) if isinstance(size, int) else size
    sides = cxcywh_from_xyxy(targets.boxes)[:, 2:]
    found = []
    for level, stride in zip(anchors, STRIDES, strict=True):
        shapes = torch.tensor(level, dtype=sides.dtype, device=sides.device)
        like = ((sides[:, None] < ratio * shapes) & (ratio * sides[:, None] > shapes)).all(dim=2)  # (B, A)
        cells = _cells(cxcywh_from_xyxy(targets.boxes)[:, :2] / stride)  # (B, 3, 2), column and row
        grid = torch.tensor((width // stride, height // stride), device=sides.device)
        inside = ((cells >= 0) & (cells < grid)).all(dim=2)  # (B, 3)
        inside[:, 1:] &= (cells[:, 1:] != cells[:, :1]).any(dim=2)  # a centre in the middle has no nearest neighbour
        box, cell, anchor = (inside[:, :, None] & like[:, None]).nonzero(as_tuple=True)
        column, row = cells[box, cell].unbind(dim=1)
        found.append(Matches(targets.images[box], anchor, row, column, box))
    return found


def best_possible_recall(box_sizes: np.ndarray, anchors: Anchors, *, ratio: float = 4.0) -> float:
    """Return the share of boxes, sides (B, 2), that match at least one anchor. Raises ValueError without boxes."""
    sides = _checked(box_sizes)
    shapes = np.array(anchors, dtype=np.float64).reshape(-1, 2)
    like = ((sides[:, None] < ratio * shapes) & (ratio * sides[:, None] > shapes)).all(axis=2)  # (B, A)
    return float(np.mean(np.any(like, axis=1)))


def kmeans_anchors(
    box_sizes: np.ndarray, *, levels: int = 3, per_level: int = 3, ratio: float = 4.0, seed: int = 0
) -> Anchors:
    """Return anchors for boxes of sides (B, 2), ascending in area from the finest level, to a tenth of a pixel.

    They are k-means of the sides' logarithms, so that ratios count, then improved by small random changes. A change is
    kept if it raises the boxes' mean fit: for each box that of the anchor which needs least stretching, 1 if they are
    equal and 0 if they do not match (YOLOv5's measure). The same seed gives the same anchors. Raises ValueError without
    boxes.
    """
    sides = _checked(box_sizes).clip(min=LEAST_SIDE)
    random, count = np.random.default_rng(seed % 2**64), levels * per_level
    if len(sides) > SAMPLE:
        sides = random.choice(sides, SAMPLE, replace=False)
    shapes = np.unique(sides, axis=0)
    if len(shapes) < count:  # too few different ones: add smaller and larger copies
        sides = (np.geomspace(0.5, 2.0, count)[:, None, None] * shapes).reshape(-1, 2)
    logarithms = np.log(sides)
    starts = [_means(logarithms, count, random) for _ in range(STARTS)]
    best = max(starts, key=lambda anchors: _fit(anchors, logarithms, ratio))
    anchors = np.exp(_refined(best, logarithms, ratio, random)).clip(min=LEAST_SIDE).round(1)
    anchors = anchors[np.lexsort((anchors[:, 0], anchors.prod(axis=1)))]
    return tuple(
        tuple((float(width), float(height)) for width, height in level)
        for level in anchors.reshape(levels, per_level, 2)
    )


def _cells(centres: Tensor) -> Tensor:
    """Return the cells of centres (B, 2), given in units of cells, and their nearest neighbours along each axis: (B, 3,
    2) int64.
    """
    own = centres.floor()
    lean = torch.sign(centres - own - 0.5)  # -1, 0 or 1
    steps = torch.stack(
        [torch.zeros_like(lean), lean * lean.new_tensor((1.0, 0.0)), lean * lean.new_tensor((0.0, 1.0))], dim=1
    )
    return (own[:, None] + steps).long()


def _checked(box_sizes: np.ndarray) -> np.ndarray:
    sides = np.asarray(box_sizes, dtype=np.float64)
    if sides.ndim != 2 or sides.shape[1] != 2 or not len(sides) or not np.isfinite(sides).all():
        raise ValueError(f"box sizes must be at least one finite (width, height), not an array of shape {sides.shape}")
    return sides


def _means(points: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """Return k-means (Lloyd 1982) of points (B, 2) from k-means++ seeds (Arthur 2007): (count, 2)."""
    centres = points[random.integers(len(points))][None]
    while len(centres) < count:
        nearest = _squares(points, centres).min(axis=1)
        centres = np.concatenate([centres, points[random.choice(len(points), p=nearest / nearest.sum())][None]])
    for _ in range(MEANS_STEPS):
        member = _squares(points, centres).argmin(axis=1)
        counts = np.bincount(member, minlength=count)[:, None]
        sums = np.stack([np.bincount(member, points[:, axis], count) for axis in (0, 1)], axis=1)
        moved = np.where(counts > 0, sums / np.maximum(counts, 1), centres)
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _squares(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return squared distances, (B, count)."""
    return (points[:, :1] - centres[:, 0]) ** 2 + (points[:, 1:] - centres[:, 1]) ** 2


def _refined(anchors: np.ndarray, sides: np.ndarray, ratio: float, random: np.random.Generator) -> np.ndarray:
    """Return anchors (count, 2) after random changes of about a tenth of some sides, kept if they improve the fit; all
    as logarithms.
    """
    best = _fit(anchors, sides, ratio)
    for _ in range(REFINEMENTS):
        changed = anchors + random.normal(0.0, 0.1, anchors.shape) * (random.random(anchors.shape) < 0.5)
        if (now := _fit(changed, sides, ratio)) > best:
            anchors, best = changed, now
    return anchors


def _fit(anchors: np.ndarray, sides: np.ndarray, ratio: float) -> float:
    """Return the mean over boxes of the best anchor's fit: the smaller ratio of its sides to the box's, at most 1.

    All sides are logarithms.
    """
    stretch = np.maximum(np.abs(sides[:, :1] - anchors[:, 0]), np.abs(sides[:, 1:] - anchors[:, 1])).min(axis=1)
    return float(np.exp(-stretch)[stretch < np.log(ratio)].sum() / len(sides))
