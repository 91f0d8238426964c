"""How well a classifier did on a test split: accuracy, precision, recall, F1, mAP, ROC and calibration.

Legend: N segments, K classes. Scores are probabilities (a segment's views already averaged), labels are class indices.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

CALIBRATION_BINS = 15
"""Equal-width confidence bins of the expected calibration error, as in Guo et al. 2017."""

ROC_POINTS = 200
"""Most points kept of one ROC curve."""


def classification_metrics(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """All figures of a classification report, as plain Python values ready for JSON.

    `scores`: float (N, K) probabilities in 0..1; `labels`: int (N,) in 0..K-1; `classes`: K different names.

    * `accuracy`, `top5` (top-min(5, K)): shares of segments. Equal scores rank by class index, so that top-1 is the
      argmax.
    * `macro_precision`, `macro_recall`, `macro_f1`, `map`, `auc`: means over the classes **present in the test split**.
      A class
      absent from it has None for every figure of its own and counts in no mean (wrong guesses of it still cost the true
      class its recall). A class that is present but never guessed has precision 0.
    * `ap`: average precision without interpolation, sum of (R_n - R_n-1) P_n over distinct thresholds.
    * `auc`: area under the one-vs-rest ROC, equal scores counting half; None where every segment is of that class.
    * `ece`: expected calibration error over 15 bins (low, high] of the top probability (Guo et al. 2017, eq. 3).
    * `majority_accuracy`: share of the most frequent class of the test split, what always naming it would score.
    * `confusion`: counts, rows = truth, columns = guess. `roc`: at most 200 points for each class whose curve is
      defined.
    * `calibration`: per bin the mean confidence and accuracy (None in an empty bin) and the count.

    Raises ValueError for empty input, shapes that do not fit, labels out of range, equal names or scores that are no
    probabilities.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _check(scores, labels, classes)
    count, class_count = scores.shape
    guesses = scores.argmax(axis=1)
    confusion = np.zeros((class_count, class_count), dtype=np.int64)
    np.add.at(confusion, (labels, guesses), 1)

    per_class, roc = [], {}
    for index, name in enumerate(classes):
        row, curve = _one_class(scores[:, index], labels == index, guesses == index)
        per_class.append({"class": name, **row})
        if curve is not None:
            roc[name] = curve
    calibration, ece = _calibration(scores.max(axis=1), guesses == labels)
    return {
        "accuracy": float((guesses == labels).mean()),
        "top5": float((_ranks(scores, labels) < min(5, class_count)).mean()),
        "macro_precision": _mean(row["precision"] for row in per_class),
        "macro_recall": _mean(row["recall"] for row in per_class),
        "macro_f1": _mean(row["f1"] for row in per_class),
        "map": _mean(row["ap"] for row in per_class),
        "auc": _mean(row["auc"] for row in per_class),
        "ece": ece,
        "majority_accuracy": float(np.bincount(labels).max() / count),
        "count": count,
        "per_class": per_class,
        "confusion": confusion.tolist(),
        "roc": roc,
        "calibration": calibration,
    }


def _check(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> None:
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"scores must be (segments, classes) with at least one of each, not of shape {scores.shape}")
    if labels.shape != scores.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels must be {len(scores)} integers, not {labels.dtype} of shape {labels.shape}")
    if len(set(classes)) != len(classes) or len(classes) != scores.shape[1]:
        raise ValueError(f"classes must be {scores.shape[1]} different names, not {list(classes)}")
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(f"labels must lie in 0..{len(classes) - 1}, not {labels.min()}..{labels.max()}")
    # Averages of float32 softmax outputs may exceed 1 by rounding; logits exceed it by far.
    if not (np.isfinite(scores).all() and scores.min() >= -1e-4 and scores.max() <= 1 + 1e-4):
        raise ValueError(f"scores must be probabilities in 0..1, not {scores.min()}..{scores.max()}")


def _ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(N,) how many classes rank before the true one."""
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def _one_class(
    scores: np.ndarray, truth: np.ndarray, guessed: np.ndarray
) -> tuple[dict[str, Any], dict[str, list[float]] | None]:
    """The figures of one class against the rest, and its ROC curve (None where it has no segments, or no others)."""
    positives, negatives = int(truth.sum()), int((~truth).sum())
    row: dict[str, Any] = {"count": positives, "precision": None, "recall": None, "f1": None, "ap": None, "auc": None}
    if not positives:
        return row, None
    right, named = int((truth & guessed).sum()), int(guessed.sum())
    row["precision"] = right / named if named else 0.0
    row["recall"] = right / positives
    row["f1"] = 2 * right / (positives + named)

    ends, true_positives = _ranked(scores, truth)
    row["ap"] = average_precision(scores, truth)
    if not negatives:
        return row, None
    false_positives = np.append(0, ends + 1 - true_positives)
    true_positives = np.append(0, true_positives)
    areas = np.diff(false_positives) * (true_positives[1:] + true_positives[:-1]) / 2
    row["auc"] = float(areas.sum() / (positives * negatives))
    return row, _thin(false_positives, true_positives)


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Without interpolation, sum of (R_n - R_n-1) P_n over distinct thresholds; `scores` (N,) in any order-preserving
    unit, `truth` (N,) bool with at least one True.
    """
    ends, true_positives = _ranked(scores, truth)
    return float((np.diff(true_positives, prepend=0) / truth.sum() * true_positives / (ends + 1)).sum())


def _ranked(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last place at or above each distinct score, highest first (equal scores enter together), and the true ones up
    to there.
    """
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return ends, np.cumsum(truth[order])[ends]


def _thin(false_positives: np.ndarray, true_positives: np.ndarray) -> dict[str, list[float]]:
    """A ROC curve as shares: first its corners alone, which loses nothing; where they are too many, evenly along its
    length.
    """
    across, up = np.diff(false_positives), np.diff(true_positives)
    corner = across[:-1] * up[1:] != across[1:] * up[:-1]
    kept = np.flatnonzero(np.concatenate([[True], corner, [True]]))
    fpr, tpr = false_positives[kept] / false_positives[-1], true_positives[kept] / true_positives[-1]
    if len(kept) > ROC_POINTS:
        chosen = np.unique(np.searchsorted(fpr + tpr, np.linspace(0, 2, ROC_POINTS)).clip(max=len(kept) - 1))
        fpr, tpr = fpr[chosen], tpr[chosen]
    return {"fpr": fpr.round(6).tolist(), "tpr": tpr.round(6).tolist()}


def _calibration(confidence: np.ndarray, right: np.ndarray) -> tuple[dict[str, list[Any]], float]:
    """Per bin mean confidence, accuracy and count; and the expected calibration error."""
    bins = (np.ceil(confidence * CALIBRATION_BINS) - 1).clip(0, CALIBRATION_BINS - 1).astype(int)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    confidences = np.bincount(bins, confidence, CALIBRATION_BINS)
    rights = np.bincount(bins, right, CALIBRATION_BINS)
    table = {
        "confidence": [float(total / n) if n else None for total, n in zip(confidences, counts, strict=True)],
        "accuracy": [float(total / n) if n else None for total, n in zip(rights, counts, strict=True)],
        "count": counts.tolist(),
    }
    return table, float(np.abs(rights - confidences).sum() / len(confidence))


def _mean(values: Iterable[float | None]) -> float | None:
    """The mean of the defined values, None where there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
