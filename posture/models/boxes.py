"""Boxes in pixels, as (x1, y1, x2, y2): overlap, the losses made of it (section 2.1), and non-maximum suppression.

Tensor legend: B boxes of a batch, M and N boxes, D detections of an image. w, h: sides; c: diagonal of the smallest box
around two.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

BOX_LOSSES = ("iou", "giou", "diou", "ciou", "eiou", "siou")
OVERLAPS = ("iou", "diou", "eiou")

EPSILON = 1e-3
"""Minimum area, in square pixels, that IoU divides by."""

LEAST = 0.2
"""Minimum side, in pixels, that losses divide by, so that no thin box has a huge gradient. The losses of boxes whose
sides are all at least this long are exact.
"""

SHAPE_POWER = 4
"""SIoU's theta, which reduces the effect of small differences in shape (Gevorgyan 2022: near 4, from 2 to 6)."""

BLOCK, TOGETHER = 256, 1
"""Candidates of an image, and images, that suppression compares at once on a CPU: their pairs stay in its cache."""

ENOUGH_INSIDE = 0.5
"""Minimum share of a box inside an ignore region at which the box is ignored, as at an IoU of 0.5."""

GPU_BLOCK = 512
"""Candidates of each image, for all images at once, on a GPU: each comparison costs one wait."""


class Targets(NamedTuple):
    """The boxes to find in a batch of images, in pixels of the network's image."""

    boxes: Tensor
    """(B, 4) float32, xyxy."""
    labels: Tensor
    """(B,) int64, class indices."""
    images: Tensor
    """(B,) int64, index in the batch of each box's image, ascending."""
    count: int
    """Number of images in the batch, including those without boxes."""
    ignored: Targets | None = None
    """The ignore regions in the same images; None: there are none."""


class Detections(NamedTuple):
    """Boxes found in one image, best first."""

    boxes: Tensor
    """(D, 4) float32, xyxy."""
    scores: Tensor
    """(D,) float32, 0..1."""
    labels: Tensor
    """(D,) int64."""


def xyxy_from_cxcywh(boxes: Tensor) -> Tensor:
    """Return the corners of boxes (..., 4) given as centre x, centre y, width, height."""
    centre, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def cxcywh_from_xyxy(boxes: Tensor) -> Tensor:
    """Return centre x, centre y, width, height of boxes (..., 4) given as corners."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of boxes (..., 4) that broadcast: (...), 0..1; 0 if the union has no area."""
    intersection, union = _areas(a, b)
    return intersection / union.clamp(min=EPSILON)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU of each pair of a (..., M, 4) and b (..., N, 4): (..., M, N)."""
    return iou(a[..., :, None, :], b[..., None, :, :])


def share_inside(a: Tensor, b: Tensor) -> Tensor:
    """Return the share of each box of a (..., M, 4) inside each of b (..., N, 4): (..., M, N), 0..1.

    COCO compares boxes with ignore regions in this way.
    """
    intersection, _ = _areas(a[..., :, None, :], b[..., None, :, :])
    width, height = _sides(a)
    return intersection / (width * height).clamp(min=EPSILON)[..., :, None]


def overlap(a: Tensor, b: Tensor, kind: str = "iou") -> Tensor:
    """Return the overlap of each of a (M, 4) with each of b (N, 4), for suppression: (M, N), at most 1.

    `iou` is plain. `diou` subtracts the distance of the centres (Zheng 2019, arXiv 1911.08287). `eiou` also subtracts
    the differences of the sides. These are the distance terms of equations (5) and (8): boxes with centres apart, or of
    other shapes, are more likely two objects.
    """
    return _overlap(a[:, None], b[None], kind)


def box_loss(predicted_xyxy: Tensor, target_xyxy: Tensor, kind: str) -> Tensor:
    """Return the loss of each pair of boxes (M, 4), (M, 4): (M,), 0 if they are equal and have an area.

    * `iou`: 1 - IoU. `giou`: plus the share of the enclosing box that neither covers (Rezatofighi 2019).
    * `diou`: `iou` plus rho^2 / c^2, the centres' squared distance over the enclosing box's squared diagonal.
    * `ciou`: equations (5)-(7): `diou` plus alpha v, the difference in aspect ratio. Alpha is a weight without
      gradient.
    * `eiou`: equation (8), the paper's improved CIoU: `diou` plus the differences of the sides over those of the
      enclosing box.
    * `siou`: angle, distance and shape cost (Gevorgyan 2022, arXiv 2205.12740; Figure 3).

    Finite for boxes without width or height, identical or far apart. No gradient exceeds 20 per pixel that a corner
    moves. Raises ValueError for another kind.
    """
    intersection, union = _areas(predicted_xyxy, target_xyxy)
    loss = 1 - intersection / _at_least(union, *_sides(predicted_xyxy), *_sides(target_xyxy))
    if kind == "iou":
        return loss
    if kind == "giou":
        width, height = _enclosing(predicted_xyxy, target_xyxy)
        area = width * height
        return loss + (area - union) / _at_least(area, width, height)
    if kind == "diou":
        return loss + _distance(predicted_xyxy, target_xyxy)
    if kind == "ciou":
        v = 4 / math.pi**2 * (_angle(target_xyxy) - _angle(predicted_xyxy)) ** 2  # (7)
        with torch.no_grad():
            alpha = v / (loss + v).clamp(min=1e-7)  # (6)
        return loss + _distance(predicted_xyxy, target_xyxy) + alpha * v  # (5)
    if kind == "eiou":
        return loss + _distance(predicted_xyxy, target_xyxy) + _side_differences(predicted_xyxy, target_xyxy)  # (8)
    if kind == "siou":
        return loss + (_siou_distance(predicted_xyxy, target_xyxy) + _siou_shape(predicted_xyxy, target_xyxy)) / 2
    raise ValueError(f"box_loss must be one of {', '.join(BOX_LOSSES)}, not {kind!r}")


def nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    images: Tensor,
    *,
    count: int,
    threshold: float,
    overlap: str = "iou",
    most: int = 300,
    candidates: int | None = None,
) -> tuple[Tensor, list[int]]:
    """Non-maximum suppression: return the boxes that no better one of the same image and class overlaps too much.

    `boxes` (N, 4) lie in `count` images, `images` (N,) has the index of each box's image, and overlaps above
    `threshold` are suppressed, measured as by the function `overlap`. Only the `candidates` best boxes of each image
    (None: all) are considered. Returns indices, image by image and best first, and the number in each image, at most
    `most`. Greedy: a suppressed box suppresses no other. Equal scores rank by index.
    """
    order = scores.argsort(descending=True, stable=True)
    if count > 1:
        order = order[images[order].argsort(stable=True)]
    numbers = np.bincount(images.cpu().numpy(), minlength=count)
    firsts = np.cumsum(numbers) - numbers  # position of each image's first box in `order`
    if candidates is not None:
        numbers = np.minimum(numbers, candidates)
    kept = [np.zeros(0, dtype=np.int64) for _ in range(count)]  # positions in `order`
    # The best block comes first: few later candidates survive it, and often there are enough without them.
    size, together = (GPU_BLOCK, count) if boxes.is_cuda else (BLOCK, TOGETHER)
    for start in range(0, numbers.max(initial=0), size):
        waiting = [image for image in range(count) if numbers[image] > start and len(kept[image]) < most]
        for some in (waiting[at : at + together] for at in range(0, len(waiting), together)):
            block = _padded([
                firsts[image] + np.arange(start, min(start + size, numbers[image])) for image in some
            ])  # (P, W)
            before = _padded([kept[image] for image in some])  # (P, V)
            gone, suppressed = _suppressed(before, block, order, boxes, labels, threshold=threshold, kind=overlap)
            for image, positions, remain in zip(some, block, _greedy(gone | (block < 0), suppressed), strict=True):
                kept[image] = np.concatenate([kept[image], positions[remain]])
    kept = [positions[:most] for positions in kept]
    return order[torch.from_numpy(np.concatenate([*kept, np.zeros(0, dtype=np.int64)])).to(order.device)], [
        len(positions) for positions in kept
    ]


def _padded(rows: list[np.ndarray]) -> np.ndarray:
    """Return the rows as one array, with -1 behind the shorter ones."""
    padded = np.full((len(rows), max(map(len, rows))), -1, dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded


def _suppressed(
    before: np.ndarray, block: np.ndarray, order: Tensor, boxes: Tensor, labels: Tensor, *, threshold: float, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether one of `before` (P, V) suppresses each candidate of `block` (P, W): (P, W) bool, and whether each
    better candidate (row) of the block would suppress each other one: (P, W, W) bool.

    Both are positions in `order`; -1 means no candidate.
    """
    positions = torch.from_numpy(np.concatenate([before, block], axis=1)).to(order.device)  # (P, V + W)
    there, indices = positions >= 0, order[positions.clamp(min=0)]
    boxes, labels = boxes[indices], labels[indices]
    width = before.shape[1]
    others, other_labels = boxes[:, width:], labels[:, width:]
    covered = (
        (pairwise_iou(boxes, others) > threshold) & (labels[:, :, None] == other_labels[:, None]) & there[:, :, None]
    )
    if kind != "iou":  # never more than IoU, and slower: computed for the few pairs that are left
        image, row, column = covered.nonzero(as_tuple=True)
        covered[image, row, column] = _overlap(boxes[image, row], others[image, column], kind) > threshold
    # one copy, and one wait for a GPU
    found = torch.cat([covered[:, :width].any(1, keepdim=True), covered[:, width:].triu(1)], dim=1).cpu().numpy()
    return found[:, 0], found[:, 1:]


def _greedy(gone: np.ndarray, suppressed: np.ndarray) -> np.ndarray:
    """Return which of W candidates, best first, remain in each of P images: (P, W) bool.

    `gone` (P, W) are removed from the start; row i of `suppressed` (P, W, W) has those that candidate i would remove.
    """
    gone = gone.copy()
    for row in np.flatnonzero(suppressed.any((0, 2))):
        gone |= suppressed[:, row] & ~gone[:, row, None]
    return ~gone


def _overlap(a: Tensor, b: Tensor, kind: str) -> Tensor:
    if kind not in OVERLAPS:
        raise ValueError(f"overlap must be one of {', '.join(OVERLAPS)}, not {kind!r}")
    found = iou(a, b)
    if kind != "iou":
        found = found - _distance(a, b)
    return found - _side_differences(a, b) if kind == "eiou" else found


def _sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return widths and heights, (...) each."""
    return boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]


def _areas(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the areas of intersection and union, (...) each."""
    width = (torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])).clamp(min=0)
    height = (torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])).clamp(min=0)
    (a_width, a_height), (b_width, b_height) = _sides(a), _sides(b)
    intersection = width * height
    return intersection, a_width * a_height + b_width * b_height - intersection


def _enclosing(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return width and height of the smallest box around both."""
    width = torch.maximum(a[..., 2], b[..., 2]) - torch.minimum(a[..., 0], b[..., 0])
    return width, torch.maximum(a[..., 3], b[..., 3]) - torch.minimum(a[..., 1], b[..., 1])


def _at_least(area: Tensor, *sides: Tensor) -> Tensor:
    """Return the area, or that of the longest side times LEAST pixels if that is larger."""
    return torch.maximum(area, LEAST * torch.stack(sides).amax(0)).clamp(min=1e-9)


def _apart(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distance from the centre of a to that of b, in x and in y."""
    return (b[..., 0] + b[..., 2] - a[..., 0] - a[..., 2]) / 2, (b[..., 1] + b[..., 3] - a[..., 1] - a[..., 3]) / 2


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """Return rho^2 / c^2."""
    (x, y), (width, height) = _apart(a, b), _enclosing(a, b)
    return (x**2 + y**2) / (width**2 + height**2).clamp(min=LEAST**2)


def _side_differences(a: Tensor, b: Tensor) -> Tensor:
    """Return (w - w_gt)^2 / C_w^2 + (h - h_gt)^2 / C_h^2."""
    terms = zip(_sides(a), _sides(b), _enclosing(a, b), strict=True)
    width, height = ((mine - other) ** 2 / (around**2).clamp(min=LEAST**2) for mine, other, around in terms)
    return width + height


def _angle(boxes: Tensor) -> Tensor:
    """Return atan(w / h)."""
    width, height = _sides(boxes)
    return torch.atan(width / height.clamp(min=LEAST))


def _siou_distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the distance along each axis, weighted less the nearer the line between the centres is to 45 degrees.

    The angle cost 1 - 2 sin^2(arcsin(y / rho) - pi / 4) is sin(2 arcsin(y / rho)), which is 2 |x| |y| / rho^2.
    """
    (x, y), (width, height) = _apart(a, b), _enclosing(a, b)
    # steep near 0, but what it is multiplied with is flat there
    angle = 2 * x.abs() * y.abs() / (x**2 + y**2).clamp(min=1e-12)
    x, y = ((step**2 / (around**2).clamp(min=LEAST**2)) for step, around in ((x, width), (y, height)))
    return 2 - torch.exp((angle - 2) * x) - torch.exp((angle - 2) * y)


def _siou_shape(a: Tensor, b: Tensor) -> Tensor:
    """Return the differences of the sides as shares of the longer one; small ones count little."""
    terms = zip(_sides(a), _sides(b), strict=True)
    width, height = ((mine - other).abs() / torch.maximum(mine, other).clamp(min=LEAST) for mine, other in terms)
    return (1 - torch.exp(-width)) ** SHAPE_POWER + (1 - torch.exp(-height)) ** SHAPE_POWER
