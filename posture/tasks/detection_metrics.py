"""How well a detector did: average precision as COCO defines it (Lin 2014; the code of its API), and figures at one
confidence.

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
    """What was found in an image, and what is there. Plain tuples of the first five, or of all seven, serve as well."""

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
    """(R, 4) ignore regions: crowds, and objects too difficult to judge."""
    ignored_labels: np.ndarray = np.zeros(0, np.int64)
    """(R,)."""


OVERLAPS = np.linspace(0.5, 0.95, 10)
"""IoU from which a detection has found a box: COCO's, with its rounding."""
RECALLS = np.linspace(0.0, 1.0, 101)
"""Where precision is read."""
AT_50, AT_75 = 0, 5
"""Places in `OVERLAPS`."""

PAIRS = 1 << 20
"""Pairs of a detection and a true box that are looked at together."""
CELLS = 1 << 22
"""Numbers held at once while precision is computed of many resamples."""


@dataclass(frozen=True)
class Matched:
    """Which detections found a true box. A list has an entry for each class, whose detections come by descending score,
    equal ones by image.
    """

    scores: list[np.ndarray]
    """(D,) float64."""
    pictures: list[np.ndarray]
    """(D,) int64: where each detection is."""
    hits: list[np.ndarray]
    """(T, D) bool: whether it found a box, at each threshold."""
    ignored: list[np.ndarray]
    """(T, D) bool: whether it counts for nothing at that threshold, since it found no box and lies in an ignore region.
    """
    overlaps: list[np.ndarray]
    """(D,) float64: IoU with the box found at IoU 0.5, 0 where there is none."""
    truths: np.ndarray
    """(K, P) int64: true boxes."""


def detection_metrics(images: Sequence[ScoredImage], classes: Sequence[str], *, most: int = 300) -> dict[str, Any]:
    """All figures of a detection report, as plain Python values ready for JSON. At most `most` detections of a class
    count in an image.

    A detection that finds no true box, and of which a share of at least the IoU threshold lies in an ignore region of
    its class, is neither right nor wrong; an ignore region is nothing to find. So COCO treats crowds; VOC's difficult
    objects are treated alike.

    * `map50_95`, `map50`, `map75`: mean over classes of the average precision at IoU 0.5, 0.55 .. 0.95, at 0.5 and at
      0.75. None without true boxes.
    * `precision`, `recall`, `f1`: means over classes at IoU 0.5, of detections that score at least `confidence`: the
      one at which that mean of F1
      is highest (the higher one of equals; 0 without detections). `mean_iou`: over their matched pairs of all classes;
      None where there are none.
    * `per_class`: `class`, `images` (with such boxes), `boxes`, `ap50`, `ap` (over all IoU), and `precision`,
      `recall`, `f1` at that confidence.
    * `curves`: at IoU 0.5, against `recall` (101 points) `classes[name]["precision_at_recall"]`, interpolated as
      average precision is, and against
      `confidence` (101 points) `precision` (None where nothing is so certain), `recall`, `f1`.
    * `count`: images.

    A class without true boxes has None for every figure of its own, no curve, and counts in no mean. One that is never
    found at that confidence has precision 0. Raises ValueError for arrays that do not fit.
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
    """Detections and true boxes brought together, image by image and class by class, at every threshold of
    `OVERLAPS`.

    As COCO does it: the `most` best detections, in the order of their scores (equal ones in the order given), each take
    the true box that they overlap most among those not yet taken, if it is enough. What has found none lies in an
    ignore region if enough of it does.
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
        found.pictures.append(where[best_first])
        found.hits.append(hits[:, best_first])
        found.ignored.append(ignored[:, best_first])
        found.overlaps.append(overlaps[best_first])
    return found


def average_precisions(matched: Matched, weights: np.ndarray | None = None) -> np.ndarray:
    """(R, K, T) average precision of each class at each threshold of `OVERLAPS`, NaN where the class has no true box.

    `weights` (R, P), whole numbers: how often each image stands in each resample; None: once, R = 1. An image that
    stands there twice counts as two images would.
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
    """{`map50`, `map50_95`: (R,)} of the resamples `weights` (R, P) of the images, see `average_precisions`.

    Means over the classes that a resample has true boxes of; NaN where it has none. A row of ones gives the figures of
    `detection_metrics`.
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
    images: Sequence[ScoredImage], classes: int, places: tuple[int, int | None, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Boxes (n, 4) float64, scores (n,) float64, labels (n,) int64 of all images in a row, and the image each is
    in.
    """
    boxes_at, scores_at, labels_at = places
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
                f"image {number} has {len(parts[0])} boxes, {len(parts[1])} scores and {len(parts[2])} labels; each box takes one of each"
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
    """(T, detections) bool: whether enough of each detection lies in one ignore region of its group, for each
    threshold.
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
    """Every detection and true box of one group (both ascending) that overlap enough for the lowest threshold: their
    places, and the IoU.

    With `crowd` the true boxes are ignore regions, and in place of the IoU comes the share of the detection inside the
    region.
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
    """IoU of pairs (n, 4), (n, 4), or with `crowd` the share of the first inside the second.

    In the very steps of COCO's code, which has boxes as corner and sides: what lies on a threshold must fall alike.
    """
    sides, other_sides = boxes[:, 2:] - boxes[:, :2], others[:, 2:] - others[:, :2]
    common = np.minimum(sides + boxes[:, :2], other_sides + others[:, :2]) - np.maximum(boxes[:, :2], others[:, :2])
    intersection = np.where((common > 0).all(axis=1), common.prod(axis=1), 0.0)
    union = sides.prod(axis=1) if crowd else sides.prod(axis=1) + other_sides.prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros(len(boxes)), where=intersection > 0)


def _greedy(
    pairs: tuple[np.ndarray, np.ndarray, np.ndarray], group: np.ndarray, truths: int
) -> tuple[np.ndarray, np.ndarray]:
    """(T, detections) bool whether each found a box, and (detections,) the IoU of what was found at the lowest
    threshold.

    A group's detections choose one after the other; so all first ones choose at once, then all second ones. Only those
    that overlap something have a turn. Of equal overlaps the later box is taken, as COCO does.
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
        # (T, choosers), the place of the pair or -1
        best = np.maximum.reduceat(np.where(free, np.arange(end - start), -1), firsts, axis=1)
        level, place = np.nonzero(best >= 0)
        chosen = best[level, place]
        taken[level, wanted[chosen]] = True
        hits[level, chooser[chosen]] = True
        lowest = chosen[level == AT_50]
        overlaps[chooser[lowest]] = by[lowest]
    return hits, overlaps


def _weighted_precisions(matched: Matched, index: int, weights: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """(T, r) average precisions of a class; `weights` (P, r) of the images, `truths` (r,) true boxes.

    Precision is highest at hits, so only they are looked at: how much was found, right or wrong, up to each of them.
    """
    hits, images, ignored = matched.hits[index], matched.pictures[index], matched.ignored[index]
    found = np.zeros((len(OVERLAPS), weights.shape[1]))
    places = np.flatnonzero(hits.any(axis=0))
    counted = np.zeros((0, weights.shape[1]))
    for level, right in enumerate(hits[:, places]):
        if level == 0 or (ignored[level] != ignored[level - 1]).any():
            counted = _counted(images, ~ignored[level], places, weights)
        found[level] = _average_precision(weights[images[places[right]]], counted[right], truths)
    found[:, truths == 0] = np.nan
    return found


def _counted(images: np.ndarray, counts: np.ndarray, places: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(J, r) by weight: how many of the detections in `images` that `counts` (D,) there are up to each of J places,
    theirs included.
    """
    counted = np.zeros((len(places), weights.shape[1]))
    for row, (start, end) in enumerate(zip([0, *places[:-1] + 1], places + 1, strict=True)) if len(places) else ():
        where, times = np.unique(images[start:end][counts[start:end]], return_counts=True)
        counted[row] = times @ weights[where]
    return counted.cumsum(axis=0)


def _average_precision(weights: np.ndarray, counted: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """(r,) from the weights (J, r) of J hits and the detections counted (J, r) up to each, theirs included."""
    right = weights.cumsum(axis=0, dtype=np.float64)
    precision = np.divide(right, counted, out=np.zeros_like(right), where=counted > 0)
    precision = np.maximum.accumulate(precision[::-1], axis=0)[::-1]  # the best there is at this recall or a higher one
    recall = np.divide(right, truths, out=np.zeros_like(right), where=truths > 0)
    read = np.searchsorted(RECALLS, recall, side="right")  # recall points that are reached
    return (np.diff(read, axis=0, prepend=0) * precision).sum(axis=0) / len(RECALLS)


def _best_confidence(matched: Matched) -> float:
    """The score at which the mean of F1 over classes that have true boxes is highest, all detections with that score
    included.
    """
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
    """Precision (NaN where nothing is so certain), recall and F1 of a class at IoU 0.5, of what scores at least each
    confidence.
    """
    scores, hits = _judged(matched, index)
    truths, right = matched.truths[index].sum(), np.append(0, hits.cumsum())
    count = np.searchsorted(-scores, -confidences, side="right")
    precision = np.divide(right[count], count, out=np.full(len(count), np.nan), where=count > 0)
    return precision, right[count] / truths, 2 * right[count] / (count + truths)


def _judged(matched: Matched, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of a class's detections that are right or wrong at IoU 0.5, and whether they are right: all but those in
    ignore regions.
    """
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
    """The mean of the defined values, None where there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
