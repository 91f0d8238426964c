"""Choose the frames of a track that people need to see in a labelling tool: between them, boxes change linearly."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from posture.data.decode.tracks import MISSED_LOOKS
from posture.predict.answers import Track

TOLERANCE = 0.9
"""Maximum difference in pixels between a box and the one interpolated at its frame, before coordinates are rounded."""
MAX_SHARE = 0.1
"""Share of a visit's frames that may be keyframes. If boxes tremble too much for that, the tolerance grows."""
GROWTH = 1.5
"""Factor by which it grows."""
MAX_TOLERANCE = 0.1
"""Maximum tolerance as a share of the athlete's median height."""


def visits(track: Track) -> list[np.ndarray]:
    """Return the indices of the track's boxes, in parts between which the athlete is out of sight.

    An athlete is out of sight after more than MISSED_LOOKS looks without a box.
    """
    if not len(track.frames):
        return []
    gaps = np.diff(track.frames)
    cuts = np.flatnonzero(gaps > (MISSED_LOOKS + 1) * np.median(gaps)) + 1 if len(gaps) else []
    return np.split(np.arange(len(track.frames)), cuts)


def keyframes(track: Track, visit: np.ndarray, forced: Iterable[int] = ()) -> tuple[list[int], float]:
    """Return the indices of few boxes of a visit, in order, and the tolerance in pixels within which all others lie.

    The first, the last and the `forced` ones are kept. The method is that of Douglas and Peucker (1973): wherever a box
    differs too much from the interpolated one, the box that differs most is kept too. The tolerance is TOLERANCE. If
    more than MAX_SHARE of the frames would be kept, it grows, at most to MAX_TOLERANCE of the athlete's height: people
    cannot correct a track with a keyframe in every other frame.
    """
    boxes, frames = np.asarray(track.boxes, np.float64), np.asarray(track.frames, np.float64)
    first, last = int(visit[0]), int(visit[-1])
    kept = sorted({first, last, *(index for index in forced if first <= index <= last)})
    limit = MAX_TOLERANCE * float(np.median(boxes[visit, 3] - boxes[visit, 1]))
    enough = max(len(kept), MAX_SHARE * (frames[last] - frames[first] + 1))
    tolerance = TOLERANCE
    while len(chosen := _chosen(boxes, frames, kept, tolerance)) > enough and tolerance * GROWTH <= limit:
        tolerance *= GROWTH
    return chosen, tolerance


def _chosen(boxes: np.ndarray, frames: np.ndarray, kept: list[int], tolerance: float) -> list[int]:
    open_parts, chosen = list(pairwise(kept)), set(kept)
    while open_parts:
        left, right = open_parts.pop()
        if right - left < 2:
            continue
        inner = slice(left + 1, right)
        share = ((frames[inner] - frames[left]) / (frames[right] - frames[left]))[:, None]
        differences = np.abs(boxes[left] + share * (boxes[right] - boxes[left]) - boxes[inner]).max(axis=1)
        worst = int(differences.argmax())
        if differences[worst] > tolerance:
            middle = left + 1 + worst
            chosen.add(middle)
            open_parts += [(left, middle), (middle, right)]
    return sorted(chosen)
