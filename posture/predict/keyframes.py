"""Choose the frames of a track that people need to see in a labelling tool: between them, boxes change linearly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from posture.data.decode.tracks import MISSED_LOOKS
from posture.predict.answers import Track

TOLERANCE = 0.9
"""Maximum difference in pixels between a box and the one interpolated at its frame, before coordinates are rounded."""


def visits(track: Track) -> list[np.ndarray]:
    """Return the indices of the track's boxes, in parts between which the athlete is out of sight.

    An athlete is out of sight after more than MISSED_LOOKS looks without a box.
    """
    if not len(track.frames):
        return []
    gaps = np.diff(track.frames)
    cuts = np.flatnonzero(gaps > (MISSED_LOOKS + 1) * np.median(gaps)) + 1 if len(gaps) else []
    return np.split(np.arange(len(track.frames)), cuts)


def keyframes(track: Track, visit: np.ndarray, forced: Iterable[int] = ()) -> list[int]:
    """Return the indices of few boxes of a visit, in order, such that all others lie within TOLERANCE between them.

    The first, the last and the `forced` ones are kept. The method is that of Douglas and Peucker (1973): wherever a box
    differs too much from the interpolated one, the box that differs most is kept too.
    """
    boxes, frames = np.asarray(track.boxes, np.float64), np.asarray(track.frames, np.float64)
    first, last = int(visit[0]), int(visit[-1])
    kept = sorted({first, last, *(index for index in forced if first <= index <= last)})
    open_parts = list(pairwise(kept))
    chosen = set(kept)
    while open_parts:
        left, right = open_parts.pop()
        if right - left < 2:
            continue
        inner = slice(left + 1, right)
        share = ((frames[inner] - frames[left]) / (frames[right] - frames[left]))[:, None]
        differences = np.abs(boxes[left] + share * (boxes[right] - boxes[left]) - boxes[inner]).max(axis=1)
        worst = int(differences.argmax())
        if differences[worst] > TOLERANCE:
            middle = left + 1 + worst
            chosen.add(middle)
            open_parts += [(left, middle), (middle, right)]
    return sorted(chosen)
