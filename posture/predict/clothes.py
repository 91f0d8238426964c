"""Tell athletes apart by the colours of what they wear, without a trained network."""

from __future__ import annotations

import numpy as np

BANDS = ((0.0, 0.2), (0.15, 0.5), (0.45, 0.75), (0.7, 1.0))
"""Heights of head, torso, thighs and feet in an athlete's box, as shares of it from the top; they overlap."""
WIDTH = 0.4
"""Share of a box's width that is looked at: its sides show more background than athlete."""
LEVELS = 6
"""Shades of each of red, green and blue."""
LONGEST = 96
"""Most rows, and most columns, of a box that are read."""


def clothes_of(frame: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the colours in the boxes (D, 4) xyxy of a frame (H, W, 3) uint8: (D, 4 * 216) float32, of length 1.

    They are square roots of the shares of 216 colours in four bands, so that a dot product is the mean Bhattacharyya
    coefficient of the bands, 0..1. Parts of a box beyond the frame are not read.
    """
    height, width = frame.shape[:2]
    found = np.zeros((len(boxes), len(BANDS), LEVELS**3), np.float32)
    for place, (left, top, right, bottom) in enumerate(boxes.tolist()):
        middle, half = (left + right) / 2, WIDTH * (right - left) / 2
        columns = _inside(middle - half, middle + half, width)
        for band, (start, end) in enumerate(BANDS):
            rows = _inside(top + start * (bottom - top), top + end * (bottom - top), height)
            shades = frame[rows, columns].reshape(-1, 3).astype(np.int64) * LEVELS // 256
            counts = np.bincount(shades @ (LEVELS**2, LEVELS, 1), minlength=LEVELS**3)
            found[place, band] = np.sqrt(counts / (counts.sum() * len(BANDS)))
    return found.reshape(len(boxes), len(BANDS) * LEVELS**3)


def _inside(start: float, end: float, size: int) -> slice:
    """Return at least one and at most LONGEST indices from `start` to `end`, within 0 to `size`."""
    first = int(np.clip(start, 0, size - 1))
    last = int(np.clip(end, first + 1, size))
    return slice(first, last, -(-(last - first) // LONGEST))
