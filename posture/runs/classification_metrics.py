"""Metrics of a classifier on a test split: accuracy, precision, recall, F1, mAP, ROC and calibration.

Legend: N segments, K classes. Scores are probabilities (a segment's views already averaged), labels are class indices.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from posture.tasks.metrics import average_precision

CALIBRATION_BINS = 15
"""Equal-width confidence bins of the expected calibration error, as in Guo et al. 2017."""

ROC_POINTS = 200
"""Maximum number of points of a ROC curve."""


def classification_metrics(scores: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """Return all figures of a classification report, as plain Python values ready for JSON.

    `scores`: float (N, K) probabilities in 0..1; `labels`: int (N,) in 0..K-1; `classes`: K different names.

    * `accuracy`, `top5` (top-min(5, K)): shares of segments. Equal scores rank by class index, so that top-1 is the
      argmax.
    * `macro_precision`, `macro_recall`, `macro_f1`, `map`, `auc`: means over the classes **present in the test split**.
      A class absent from it has None for all of its figures and counts in no mean (but wrong predictions of it lower
      the true class's recall). A class that is present but never predicted has precision 0.
    * `ap`: average precision without interpolation, sum of (R_n - R_n-1) P_n over distinct thresholds.
    * `auc`: area under the one-vs-rest ROC, equal scores counting half; None if every segment is of that class.
    * `ece`: expected calibration error over 15 bins (low, high] of the top probability (Guo et al. 2017, eq. 3).
    * `majority_accuracy`: share of the most frequent class of the test split, the accuracy of always predicting it.
    * `confusion`: counts, rows = truth, columns = prediction. `roc`: at most 200 points for each class whose curve is
      defined.
    * `calibration`: for each bin the mean confidence and accuracy (None if it is empty) and the count.

    Raises ValueError for empty input, shapes that do not fit, labels out of range, equal names or scores that are not
    probabilities.
    """
    from sklearn import metrics  # slow to load

    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _check(scores, labels, classes)
    predicted, indices = scores.argmax(axis=1), range(len(classes))
    shares = metrics.precision_recall_fscore_support(labels, predicted, labels=indices, zero_division=0.0)
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (labels, predicted), 1)  # scikit-learn's warns of a single class
    per_class, roc = [], {}
    for index, (name, precision, recall, f1, count) in enumerate(zip(classes, *shares, strict=True)):
        row = {"class": name, "count": int(count)} | dict.fromkeys(("precision", "recall", "f1", "ap", "auc"))
        own, truth = scores[:, index], labels == index
        if count:
            row |= {"precision": float(precision), "recall": float(recall), "f1": float(f1)}
            row["ap"] = average_precision(own, truth)
        if 0 < count < len(labels):
            row["auc"] = float(metrics.roc_auc_score(truth, own))
            fpr, tpr, _ = metrics.roc_curve(truth, own, drop_intermediate=False)
            roc[name] = _thin(np.rint(fpr * (len(labels) - count)), np.rint(tpr * count))
        per_class.append(row)
    calibration, ece = reliability(scores.max(axis=1), predicted == labels)
    macro = {"macro_precision": "precision", "macro_recall": "recall", "macro_f1": "f1", "map": "ap", "auc": "auc"}
    return {
        "accuracy": float((predicted == labels).mean()),
        "top5": float((_ranks(scores, labels) < min(5, len(classes))).mean()),
        **{name: _mean([row[figure] for row in per_class]) for name, figure in macro.items()},
        "ece": ece,
        "majority_accuracy": float(np.bincount(labels).max() / len(labels)),
        "count": len(labels),
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
    """Return the number of classes that rank before the true one, (N,)."""
    own = scores[np.arange(len(labels)), labels][:, None]
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    return ((scores > own) | ((scores == own) & earlier)).sum(axis=1)


def _thin(false_positives: np.ndarray, true_positives: np.ndarray) -> dict[str, list[float]]:
    """Return a ROC curve as shares: its corners only, which loses nothing, or if those are too many, points evenly
    along its length.
    """
    x, y = np.diff(false_positives), np.diff(true_positives)
    corner = x[:-1] * y[1:] != x[1:] * y[:-1]
    kept = np.flatnonzero(np.concatenate([[True], corner, [True]]))
    fpr, tpr = false_positives[kept] / false_positives[-1], true_positives[kept] / true_positives[-1]
    if len(kept) > ROC_POINTS:
        chosen = np.unique(np.searchsorted(fpr + tpr, np.linspace(0, 2, ROC_POINTS)).clip(max=len(kept) - 1))
        fpr, tpr = fpr[chosen], tpr[chosen]
    return {"fpr": fpr.round(6).tolist(), "tpr": tpr.round(6).tolist()}


def reliability(confidence: np.ndarray, right: np.ndarray) -> tuple[dict[str, list[Any]], float]:
    """Return mean confidence, accuracy and count of each bin, and the expected calibration error, from the top
    probability (N,) and whether it is of the true class, bool (N,).
    """
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


def _mean(values: list[float | None]) -> float | None:
    """Return the mean of the defined values, None if there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None
