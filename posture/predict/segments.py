"""From probabilities of overlapping windows to segments: smooth, choose the most probable sequence of classes, merge.

Legend: w windows, c cells (the stretches between neighbouring window edges), K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from posture.data.decode.cut import BACKGROUND
from posture.predict.answers import UNSURE, ActionSegment, Lane

LEAST_PROBABILITY = 1e-3
"""Smaller probabilities are raised to it: a network is often surer than it should be."""


def cells(lane: Lane, start: float, end: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges (c + 1,) in seconds of the cells from `start` to `end`, and their probabilities (c, K).

    The probabilities of a cell are the mean over the windows that cover it, which smooths over half a window. The first
    and the last window reach to `start` and `end`; a gap between windows takes the nearest ones.
    """
    edges = np.unique(np.concatenate([[start, end], lane.starts, lane.ends]))
    edges = edges[(edges >= start) & (edges <= end)]
    middles = (edges[:-1] + edges[1:]) / 2
    # Windows are in order, so those that cover a cell are neighbours; sums of all windows up to each give their mean.
    first, stop = np.searchsorted(lane.ends, middles, "right"), np.searchsorted(lane.starts, middles, "right")
    before, after = np.maximum(first - 1, 0), np.minimum(stop, len(lane.starts) - 1)
    to_before, to_after = middles - lane.ends[before], lane.starts[after] - middles
    to_before[first == 0] = to_after[stop == len(lane.starts)] = np.inf
    bare = first >= stop
    first[bare] = np.where(to_before <= to_after + 1e-9, before, after)[bare]
    stop[bare] = np.where(to_after <= to_before + 1e-9, after, before)[bare] + 1
    sums = np.concatenate([np.zeros((1, lane.probabilities.shape[1])), np.cumsum(lane.probabilities, 0, np.float64)])
    return edges, (sums[stop] - sums[first]) / (stop - first)[:, None]


def segments_of(
    lane: Lane, classes: Sequence[str], *, start: float, end: float, threshold: float = 0.0, shortest: float = 0.0
) -> list[ActionSegment]:
    """Return the segments of a lane from `start` to `end` seconds, one after the other.

    They are the most probable sequence of classes, as `likeliest` finds it, so that a doubtful moment does not tear an
    action into pieces. A segment whose most probable class stays below `threshold` is UNSURE. A segment shorter than
    `shortest` seconds joins its more confident neighbour. Only stretches of the class `background` have no segment: no
    action is there.
    """
    if not len(lane.starts) or end <= start:
        return []
    edges, probabilities = cells(lane, start, end)
    lengths = np.diff(edges)
    best = likeliest(probabilities, lengths / np.median(lane.ends - lane.starts))
    stretches = [
        _Stretch(int(name), float(left), float(right), row * (right - left))
        for name, left, right, row in zip(best, edges[:-1], edges[1:], probabilities, strict=True)
    ]
    merged = _merged(stretches)
    while len(merged) > 1 and min(part.length for part in merged) < shortest:
        place = min(range(len(merged)), key=lambda index: merged[index].length)
        beside = [index for index in (place - 1, place + 1) if 0 <= index < len(merged)]
        into = max(beside, key=lambda index: merged[index].confidence)
        merged[place] = merged[place].renamed(merged[into].best)
        merged = _merged(merged)
    segments = [part.segment(lane.track, classes, threshold) for part in merged]
    return [segment for segment in segments if segment.label != BACKGROUND]


def likeliest(probabilities: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the most probable sequence of classes (c,) of cells with these probabilities (c, K) and lengths (c,).

    Lengths are in windows: cells that a window covers count as one observation together. Actions are taken to last as
    long as a window on average, and each of the K classes to follow with equal probability. Then another class follows
    after the time of a window with a probability of (1 - 1 / e) / K, and a change costs log(1 + K / (e - 1)). The
    sequence is found by dynamic programming (Viterbi 1967). Of two equal ones, that with the later change is taken.
    """
    count, classes = probabilities.shape
    change = np.log1p(classes / (np.e - 1))
    gains = np.log(np.maximum(probabilities, LEAST_PROBABILITY)) * lengths[:, None]
    stays, before = np.zeros((count, classes), bool), np.zeros(count, np.int64)
    sums = gains[0]
    for cell in range(1, count):
        before[cell] = sums.argmax()
        changed = sums.max() - change
        stays[cell] = sums - changed > 1e-9
        sums = np.where(stays[cell], sums, changed) + gains[cell]
    best = np.full(count, sums.argmax())
    for cell in range(count - 1, 0, -1):
        best[cell - 1] = best[cell] if stays[cell, best[cell]] else before[cell]
    return best


class _Stretch:
    """Neighbouring cells of one class. `weighted` is the integral of the probabilities over time, (K,)."""

    def __init__(self, best: int, start: float, end: float, weighted: np.ndarray) -> None:
        self.best, self.start, self.end, self.weighted = best, start, end, weighted

    @property
    def length(self) -> float:
        return self.end - self.start

    @property
    def confidence(self) -> float:
        return float(self.weighted[self.best] / max(self.length, 1e-9))

    def renamed(self, best: int) -> _Stretch:
        return _Stretch(best, self.start, self.end, self.weighted)

    def segment(self, track: int, classes: Sequence[str], threshold: float) -> ActionSegment:
        guess = classes[self.best]
        label = guess if self.confidence >= threshold else UNSURE
        return ActionSegment(track, self.start, self.end, label, self.confidence, guess)


def _merged(stretches: list[_Stretch]) -> list[_Stretch]:
    joined: list[_Stretch] = []
    for part in stretches:
        if joined and joined[-1].best == part.best:
            before = joined.pop()
            part = _Stretch(part.best, before.start, part.end, before.weighted + part.weighted)
        joined.append(part)
    return joined
