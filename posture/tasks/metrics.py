"""Average precision of a class's scores."""

from __future__ import annotations

import numpy as np


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the sum of (R_n - R_n-1) P_n over distinct thresholds, without interpolation.

    `scores` (N,) in any order-preserving unit, `truth` (N,) bool with at least one True.
    """
    order = np.argsort(-scores, kind="stable")
    # last position of each distinct score: equal scores enter together
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    true_positives = np.cumsum(truth[order])[ends]
    return float((np.diff(true_positives, prepend=0) / truth.sum() * true_positives / (ends + 1)).sum())
