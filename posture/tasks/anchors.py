"""Anchors: which cells of a YOLO head answer for which box, and what anchors suit a set of boxes.

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
"""Pixels. Thinner boxes count as this wide when anchors are made: no cell sees less."""

SAMPLE = 10_000
"""Boxes that anchors are made from, at most."""

STARTS, MEANS_STEPS, REFINEMENTS = 5, 50, 500


class Matches(NamedTuple):
    """Who answers for what on one level, (M,) int64 each: a place in the level's outputs, and a position in
    `Targets.boxes`.
    """

    pictures: Tensor
    anchors: Tensor
    rows: Tensor
    columns: Tensor
    boxes: Tensor

    @property
    def places(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What the level's outputs (N, A, H, W, ...) are indexed with."""
        return self[:4]


def match(targets: Targets, anchors: Anchors, *, size: int | tuple[int, int], ratio: float) -> list[Matches]:
    """For each level, all pairs of a box and an anchor none of whose sides is `ratio` times as long or as short as the
    box's.

    A pair is matched in the cell of the box's centre and, where its centre is off the cell's, in the neighbour it leans
    to in x and the one in y; never outside the grid, which covers `size`, the images' side or (height, width) in
    pixels. One place may answer for several boxes.
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
        inside[:, 1:] &= (cells[:, 1:] != cells[:, :1]).any(dim=2)  # a centre in the middle leans to nobody
        box, place, anchor = (inside[:, :, None] & like[:, None]).nonzero(as_tuple=True)
        column, row = cells[box, place].unbind(dim=1)
        found.append(Matches(targets.images[box], anchor, row, column, box))
    return found


def best_possible_recall(box_sizes: np.ndarray, anchors: Anchors, *, ratio: float = 4.0) -> float:
    """The share of boxes, sides (B, 2), that some anchor can be matched with. Raises ValueError without boxes."""
    sides = _checked(box_sizes)
    shapes = np.array(anchors, dtype=np.float64).reshape(-1, 2)
    return float(((sides[:, None] < ratio * shapes) & (ratio * sides[:, None] > shapes)).all(axis=2).any(axis=1).mean())


def kmeans_anchors(
    box_sizes: np.ndarray, *, levels: int = 3, per_level: int = 3, ratio: float = 4.0, seed: int = 0
) -> Anchors:
    """Anchors for boxes of sides (B, 2), ascending in area, the smallest for the finest level; to a tenth of a pixel.
    The same seed gives the same anchors.

    k-means of the sides' logarithms, so that what counts is how often a side goes into another; then small random
    changes are kept where they raise the mean fit of the boxes: that of the anchor which needs least stretching, 1 for
    equal ones, and 0 from where it is not matched on (YOLOv5's measure). Raises ValueError without boxes.
    """
    sides = _checked(box_sizes).clip(min=LEAST_SIDE)
    random, count = np.random.default_rng(seed % 2**64), levels * per_level
    if len(sides) > SAMPLE:
        sides = random.choice(sides, SAMPLE, replace=False)
    shapes = np.unique(sides, axis=0)
    if len(shapes) < count:  # too few to tell apart: the same, smaller and larger
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
    """Centres (B, 2) in units of cells -> the cell itself, the neighbour along the first axis and that along the
    second, (B, 3, 2) int64.
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
    """k-means (Lloyd 1982) of points (B, 2) from k-means++ seeds (Arthur and Vassilvitskii 2007): (count, 2)."""
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
    """(B, count) squared distances."""
    return (points[:, :1] - centres[:, 0]) ** 2 + (points[:, 1:] - centres[:, 1]) ** 2


def _refined(anchors: np.ndarray, sides: np.ndarray, ratio: float, random: np.random.Generator) -> np.ndarray:
    """Anchors (count, 2) after random changes of about a tenth of some sides, of which those are kept that fit the
    boxes better; all as logarithms.
    """
    best = _fit(anchors, sides, ratio)
    for _ in range(REFINEMENTS):
        changed = anchors + random.normal(0.0, 0.1, anchors.shape) * (random.random(anchors.shape) < 0.5)
        if (now := _fit(changed, sides, ratio)) > best:
            anchors, best = changed, now
    return anchors


def _fit(anchors: np.ndarray, sides: np.ndarray, ratio: float) -> float:
    """Mean over boxes of the best anchor's fit, the least factor by which a side of the one must shrink to be the
    other's; all sides as logarithms.
    """
    stretch = np.maximum(np.abs(sides[:, :1] - anchors[:, 0]), np.abs(sides[:, 1:] - anchors[:, 1])).min(axis=1)
    return float(np.exp(-stretch)[stretch < np.log(ratio)].sum() / len(sides))
