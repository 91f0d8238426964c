"""Metrics of a detector: average precision as COCO defines it (Lin 2014; the code of its API), and figures at one
confidence threshold.

Legend: P images, K classes, D detections and B true boxes of a class, T overlap thresholds, R resamples. Boxes are
xyxy in pixels, labels are class indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np


class ScoredImage(NamedTuple):
    """Detections and true boxes of an image. Plain tuples of the first five, or of all seven, are accepted too."""

    boxes: np.ndarray
    """(D, 4)."""
    scores: np.ndarray
    """(D,)."""
    labels: np.ndarray
    """(D,)."""
    true_boxes: np.ndarray
    """(B, 4)."""
    true_labels: np.ndarray
    """(B,)."""
    ignored: np.ndarray = np.zeros((0, 4))
    """(R, 4) ignore regions: crowds, and difficult objects."""
    ignored_labels: np.ndarray = np.zeros(0, np.int64)
    """(R,)."""


OVERLAPS = np.linspace(0.5, 0.95, 10)
"""Minimum IoU of a true positive: COCO's thresholds, with its rounding."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Recalls at which precision is read."""
AT_50, AT_75 = 0, 5
"""Indices into `OVERLAPS`."""

PAIRS = 1 << 20
"""Maximum number of pairs of a detection and a true box that are compared at once."""
CELLS = 1 << 22
"""Maximum number of values in memory while precision is computed for many resamples."""


@dataclass(frozen=True)
class Matched:
    """Detections matched with true boxes. Lists have an entry for each class, with its detections by descending score,
    equal ones by image.
    """

    scores: list[np.ndarray]
    """(D,) float64."""
    images: list[np.ndarray]
    """(D,) int64: image of each detection."""
    hits: list[np.ndarray]
    """(T, D) bool: true positives at each threshold."""
    ignored: list[np.ndarray]
    """(T, D) bool: detections left out at that threshold: they found no box and lie in an ignore region."""
    overlaps: list[np.ndarray]
    """(D,) float64: IoU with the box found at IoU 0.5, 0 if there is none."""
    truths: np.ndarray
    """(K, P) int64: numbers of true boxes."""


def detection_metrics(images: Sequence[ScoredImage], classes: Sequence[str], *, most: int = 300) -> dict[str, Any]:
    """Return all figures of a detection report, as plain Python values ready for JSON.

    At most `most` detections of a class count in an image. A detection is left out if it finds no true box and a share
    of at least the IoU threshold lies in an ignore region of its class. COCO treats crowds in this way; VOC's difficult
    objects are treated alike.

    * `map50_95`, `map50`, `map75`: mean over classes of the average precision at IoU 0.5, 0.55 .. 0.95, at 0.5 and at
      0.75. None without true boxes.
    * `precision`, `recall`, `f1`: means over classes at IoU 0.5, of detections with a score of at least `confidence`.
      That is the score at which the mean of F1 is highest (the higher one of equals; 0 without detections).
      `mean_iou`: mean over their matched pairs of all classes; None if there are none.
    * `per_class`: `class`, `pictures` (images with such boxes), `boxes`, `ap50`, `ap` (over all IoU), and `precision`,
      `recall`, `f1` at that confidence.
    * `curves`: at IoU 0.5, against `recall` (101 points) `classes[name]["precision_at_recall"]`, interpolated as
      average precision is, and against `confidence` (101 points) `precision` (None without detections), `recall`, `f1`.
    * `count`: number of images.

    A class without true boxes has None for all of its figures, no curve, and counts in no mean. A class without
    detections at that confidence has precision 0. Raises ValueError for arrays that do not fit.
    """
    matched = match_detections(images, len(classes), most=most)
    precisions = average_precisions(matched)[0]  # (K, T)
    confidence = _best_confidence(matched)
    per_class, curves, overlaps = [], {}, []
    for index, name in enumerate(classes):
        truths = matched.truths[index]
        row = {"class": name, "pictures": int((truths > 0).sum()), "boxes": int(truths.sum())}
        figures: dict[str, Any] = dict.fromkeys(("ap50", "ap", "precision", "recall", "f1"))
        if row["boxes"]:
            (precision,), (recall,), (f1,) = _at_confidences(matched, index, np.array([confidence]))
            figures = {
                "ap50": precisions[index, AT_50],
                "ap": precisions[index].mean(),
                "precision": precision,
                "recall": recall,
                "f1": f1,
            }
            figures = {figure: float(np.nan_to_num(value)) for figure, value in figures.items()}
            curves[name] = _curves(matched, index)
            overlaps.append(matched.overlaps[index][matched.hits[index][AT_50] & (matched.scores[index] >= confidence)])
        per_class.append(row | figures)
    pairs = np.concatenate(overlaps) if overlaps else np.zeros(0)
    return {
        "map50_95": _mean([row["ap"] for row in per_class]),
        "map50": _mean([row["ap50"] for row in per_class]),
        "map75": _mean([None if np.isnan(value) else value for value in precisions[:, AT_75].tolist()]),
        "precision": _mean([row["precision"] for row in per_class]),
        "recall": _mean([row["recall"] for row in per_class]),
        "f1": _mean([row["f1"] for row in per_class]),
        "confidence": confidence,
        "mean_iou": float(pairs.mean()) if len(pairs) else None,
        "count": len(images),
        "per_class": per_class,
        "curves": {"recall": RECALLS.round(2).tolist(), "confidence": RECALLS.round(2).tolist(), "classes": curves},
    }


def match_detections(images: Sequence[ScoredImage], classes: int, *, most: int = 300) -> Matched:
    """Match detections with true boxes, image by image and class by class, at every threshold of `OVERLAPS`.

    As in COCO, the `most` best detections choose in the order of their scores (equal ones in the order given). Each
    takes the true box that it overlaps most among those not yet taken, if the overlap reaches the threshold. Others are
    ignored if enough of them lies in an ignore region.
    """
    images = [ScoredImage(*image) for image in images]
    boxes, scores, labels, where = _flat(images, classes, (0, 1, 2))
    true_boxes, _, true_labels, true_where = _flat(images, classes, (3, None, 4))
    order = np.lexsort((-scores, where, labels))
    group = (labels * len(images) + where)[order]  # of one class in one image
    order = order[np.arange(len(group)) - np.searchsorted(group, group) < most]
    boxes, scores, labels, where = boxes[order], scores[order], labels[order], where[order]
    truth_order = np.lexsort((true_where, true_labels))
    true_group = (true_labels * len(images) + true_where)[truth_order]
    group = labels * len(images) + where
    hits, overlaps = _greedy(_pairs(boxes, group, true_boxes[truth_order], true_group), group, len(true_group))
    ignored = _in_regions(boxes, group, _flat(images, classes, (5, None, 6)), len(images)) & ~hits

    found = Matched(
        [], [], [], [], [], np.bincount(true_group, minlength=classes * len(images)).reshape(classes, len(images))
    )
    ends = np.searchsorted(labels, np.arange(classes + 1))
    for start, end in pairwise(ends):
        best_first = start + np.argsort(-scores[start:end], kind="stable")
        found.scores.append(scores[best_first])
        found.images.append(where[best_first])
        found.hits.append(hits[:, best_first])
        found.ignored.append(ignored[:, best_first])
        found.overlaps.append(overlaps[best_first])
    return found


def average_precisions(matched: Matched, weights: np.ndarray | None = None) -> np.ndarray:
    """Return the average precision of each class at each threshold of `OVERLAPS`, (R, K, T); NaN without true boxes.

    `weights` (R, P), whole numbers, has the number of times that each resample contains each image; None: once, R = 1.
    An image that is contained twice counts as two images.
    """
    classes, images = matched.truths.shape
    weights = np.ones((1, images)) if weights is None else np.asarray(weights)
    found = np.full((len(weights), classes, len(OVERLAPS)), np.nan)
    for index in range(classes):
        drawn = weights @ matched.truths[index].astype(np.float64)  # (R,) true boxes
        rows = max(1, CELLS // max(1, images, matched.hits[index].any(axis=0).sum()))
        for start in range(0, len(weights), rows):
            part = slice(start, start + rows)
            found[part, index] = _weighted_precisions(
                matched, index, np.ascontiguousarray(weights[part].T), drawn[part]
            ).T
    return found


def weighted_ap(matched: Matched, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return {`map50`, `map50_95`: (R,)} of the resamples `weights` (R, P) of the images, see `average_precisions`.

    They are means over the classes with true boxes in a resample, NaN if there are none. A row of ones gives the
    figures of `detection_metrics`.
    """
    found = average_precisions(matched, weights)
    present = ~np.isnan(found[:, :, 0])
    classes = present.sum(axis=1)
    sums = {"map50": found[:, :, AT_50], "map50_95": found.mean(axis=2)}
    return {
        name: np.where(classes > 0, np.where(present, values, 0).sum(axis=1) / np.maximum(classes, 1), np.nan)
        for name, values in sums.items()
    }


def _flat(
    images: Sequence[ScoredImage], classes: int, fields: tuple[int, int | None, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes (n, 4) float64, scores (n,) float64, labels (n,) int64 and image of all images in a row.

    `fields` are the positions of boxes, scores (None: 0) and labels in a `ScoredImage`.
    """
    boxes_at, scores_at, labels_at = fields
    none = np.zeros(0)
    boxes = [np.asarray(image[boxes_at], dtype=np.float64).reshape(-1, 4) for image in images]
    labels = [np.asarray(image[labels_at]) for image in images]
    scores = [
        np.zeros(len(one)) if scores_at is None else np.asarray(image[scores_at], dtype=np.float64)
        for image, one in zip(images, labels, strict=True)
    ]
    for number, parts in enumerate(zip(boxes, scores, labels, strict=True)):
        if len({len(part) for part in parts}) != 1:
            raise ValueError(
                f"image {number} has {len(parts[0])} boxes, {len(parts[1])} scores and {len(parts[2])} labels; "
                "each box needs one of each"
            )
    flat_boxes = np.concatenate([none.reshape(-1, 4), *boxes])
    flat_scores, flat_labels = np.concatenate([none, *scores]), np.concatenate([none, *labels]).astype(np.int64)
    if not (np.isfinite(flat_boxes).all() and np.isfinite(flat_scores).all()):
        raise ValueError("boxes and scores must be finite numbers")
    if len(flat_labels) and not 0 <= flat_labels.min() <= flat_labels.max() < classes:
        raise ValueError(f"labels must lie in 0..{classes - 1}, not {flat_labels.min()}..{flat_labels.max()}")
    return flat_boxes, flat_scores, flat_labels, np.repeat(np.arange(len(images)), [len(one) for one in labels])


def _in_regions(
    boxes: np.ndarray, group: np.ndarray, regions: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], images: int
) -> np.ndarray:
    """Return, for each threshold, whether enough of each detection lies in one ignore region of its group: (T,
    detections) bool.
    """
    corners, _, labels, where = regions
    inside = np.zeros(len(boxes))
    if len(corners):
        order = np.lexsort((where, labels))
        detections, _, shares = _pairs(boxes, group, corners[order], (labels * images + where)[order], crowd=True)
        np.maximum.at(inside, detections, shares)
    return inside >= OVERLAPS[:, None]


def _pairs(
    boxes: np.ndarray, group: np.ndarray, true_boxes: np.ndarray, true_group: np.ndarray, *, crowd: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return indices and IoU of each detection and true box of one group that reach the lowest threshold.

    Both groups are ascending. With `crowd` the true boxes are ignore regions, and the share of the detection inside the
    region replaces the IoU.
    """
    first, last = np.searchsorted(true_group, group), np.searchsorted(true_group, group, side="right")
    ends = np.concatenate([[0], np.cumsum(last - first)])
    found = [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0))]
    start = 0
    while start < len(boxes):
        end = max(start + 1, int(np.searchsorted(ends, ends[start] + PAIRS, side="right")) - 1)
        detection = np.repeat(np.arange(start, end), (last - first)[start:end])
        truth = np.arange(ends[start], ends[end]) - ends[detection] + first[detection]
        overlap = _iou(boxes[detection], true_boxes[truth], crowd=crowd)
        near = overlap >= OVERLAPS[0]
        found.append((detection[near], truth[near], overlap[near]))
        start = end
    detections, truths, overlaps = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return detections, truths, overlaps


def _iou(boxes: np.ndarray, others: np.ndarray, *, crowd: bool = False) -> np.ndarray:
    """Return the IoU of pairs (n, 4), (n, 4), or with `crowd` the share of the first inside the second.

    It follows the steps of COCO's code, which has boxes as corner and sides, so that values at a threshold fall on the
    same side.
    """
    sides, other_sides = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    common = np.minimum(sides + boxes[:, :2], other_sides + others[:, :2]) - np.maximum(boxes[:, :2], others[:, :2])
    intersection = np.where((common > 0).all(axis=1), common.prod(axis=1), 0.0)
    union = sides.prod(axis=1) if crowd else sides.prod(axis=1) + other_sides.prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros(len(boxes)), where=intersection > 0)


def _greedy(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray], group: np.ndarray, truths: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each detection found a box, (T, detections) bool, and the IoU of that found at the lowest
    threshold, (detections,).

    A group's detections choose one after the other; so the first ones of all groups choose at once, then the second
    ones. Only those that overlap something have a turn. Of equal overlaps the later box is taken, as in COCO.
    """
    detection, truth, overlap = pairs
    hits, overlaps = np.zeros((len(OVERLAPS), len(group)), dtype=bool), np.zeros(len(group))
    taken = np.zeros((len(OVERLAPS), truths), dtype=bool)
    choosers, of_pair = np.unique(detection, return_inverse=True)
    turn = (np.arange(len(choosers)) - np.searchsorted(group[choosers], group[choosers]))[of_pair]
    order = np.lexsort((truth, overlap, detection, turn))
    detection, truth, overlap, turn = detection[order], truth[order], overlap[order], turn[order]
    ends = np.flatnonzero(np.diff(turn, prepend=-1, append=-1)) if len(turn) else np.zeros(1, dtype=np.int64)
    for start, end in pairwise(ends):
        chooser, wanted, by = detection[start:end], truth[start:end], overlap[start:end]
        free = (by >= OVERLAPS[:, None]) & ~taken[:, wanted]  # (T, pairs of this turn)
        firsts = np.flatnonzero(np.diff(chooser, prepend=-1))
        # (T, choosers), the index of the pair or -1
        best = np.maximum.reduceat(np.where(free, np.arange(end - start), -1), firsts, axis=1)
        level, column = np.nonzero(best >= 0)
        chosen = best[level, column]
        taken[level, wanted[chosen]] = True
        hits[level, chooser[chosen]] = True
        lowest = chosen[level == AT_50]
        overlaps[chooser[lowest]] = by[lowest]
    return hits, overlaps


def _weighted_precisions(matched: Matched, index: int, weights: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return average precisions of a class, (T, r); `weights` (P, r) are of images, `truths` (r,) count true boxes.

    Precision is highest at true positives, so only they matter: with the number of detections up to each of them.
    """
    hits, images, ignored = matched.hits[index], matched.images[index], matched.ignored[index]
    found = np.zeros((len(OVERLAPS), weights.shape[1]))
    ranks = np.flatnonzero(hits.any(axis=0))
    counted = np.zeros((0, weights.shape[1]))
    for level, right in enumerate(hits[:, ranks]):
        if level == 0 or (ignored[level] != ignored[level - 1]).any():
            counted = _counted(images, ~ignored[level], ranks, weights)
        found[level] = _average_precision(weights[images[ranks[right]]], counted[right], truths)
    found[:, truths == 0] = np.nan
    return found


def _counted(images: np.ndarray, counts: np.ndarray, ranks: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted number of detections that `counts` (D,) up to each of J `ranks`, inclusive: (J, r)."""
    counted = np.zeros((len(ranks), weights.shape[1]))
    for row, (start, end) in enumerate(zip([0, *ranks[:-1] + 1], ranks + 1, strict=True)) if len(ranks) else ():
        where, times = np.unique(images[start:end][counts[start:end]], return_counts=True)
        counted[row] = times @ weights[where]
    return counted.cumsum(axis=0)


def _average_precision(weights: np.ndarray, counted: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """Return (r,) from the weights (J, r) of J hits and the numbers of detections (J, r) up to each, inclusive."""
    right = weights.cumsum(axis=0, dtype=np.float64)
    precision = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]  # the highest at this recall or above
    recall = np.divide(right, truths, out=np.zeros_like(right), where=truths > 0)
    read = np.searchsorted(RECALLS, recall, side="right")  # number of recall points reached
    return (np.diff(read, axis=0, prepend=0) * precision).sum(axis=0) / len(RECALLS)


def _best_confidence(matched: Matched) -> float:
    """Return the score threshold at which the mean of F1 over classes with true boxes is highest."""
    scores, changes = [np.zeros(0)], [np.zeros(0)]
    for index, truths in enumerate(matched.truths.sum(axis=1)):
        found, hits = _judged(matched, index)
        if truths and len(found):
            right = hits.cumsum()
            scores.append(found)
            changes.append(np.diff(2 * right / (np.arange(1, len(right) + 1) + truths), prepend=0.0))
    score = np.concatenate(scores)
    if not len(score):
        return 0.0
    order = np.argsort(-score, kind="stable")
    score, total = score[order], np.concatenate(changes)[order].cumsum()
    ends = np.append(np.flatnonzero(np.diff(score)), len(score) - 1)
    return float(score[ends[total[ends].round(9).argmax()]])


def _at_confidences(matched: Matched, index: int, confidences: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return precision (NaN without detections), recall and F1 of a class at IoU 0.5, at each confidence threshold."""
    scores, hits = _judged(matched, index)
    truths, right = matched.truths[index].sum(), np.append(0, hits.cumsum())
    count = np.searchsorted(-scores, -confidences, side="right")
    precision = np.divide(right[count], count, out=np.full(len(count), np.nan), where=count > 0)
    return precision, right[count] / truths, 2 * right[count] / (count + truths)


def _judged(matched: Matched, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return scores of a class's detections outside ignore regions, and whether each is a true positive at IoU 0.5."""
    counts = ~matched.ignored[index][AT_50]
    return matched.scores[index][counts], matched.hits[index][AT_50][counts]


def _curves(matched: Matched, index: int) -> dict[str, list[Any]]:
    precision, recall, f1 = _at_confidences(matched, index, RECALLS)
    hits = _judged(matched, index)[1].cumsum()
    highest = np.append(np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1], 0.0)
    at_recall = highest[np.searchsorted(hits / matched.truths[index].sum(), RECALLS)]
    lists = {"precision_at_recall": at_recall, "precision": precision, "recall": recall, "f1": f1}
    return {
        name: [None if np.isnan(value) else round(value, 6) for value in values.tolist()]
        for name, values in lists.items()
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the defined values, None if there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
