"""The answer about one video: who did what, and when.

Legend: n frames of a track, w windows of a lane, K classes. Times are in seconds from the video's first frame. Boxes
are xyxy in pixels of the video as it is shown: upright, with square pixels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WHOLE_FRAME = 0
"""The `track` of lanes and segments that are about the whole frame, not about one athlete."""
UNSURE = "unsure"
"""Label of a stretch on which the model is less sure than its threshold."""


@dataclass(frozen=True)
class Track:
    """One athlete."""

    id: int
    """From 1."""
    frames: np.ndarray
    """(n,) int64 frame numbers, ascending, in the order in which the video shows them."""
    times: np.ndarray
    """(n,) float64, when each of these frames is shown."""
    boxes: np.ndarray
    """(n, 4) float32."""
    scores: np.ndarray
    """(n,) float32, confidence of the detector, 0..1."""


@dataclass(frozen=True)
class Lane:
    """Probabilities over time of one athlete, or of the whole frame. Windows are in order, and may overlap."""

    track: int
    """A Track's `id`, or WHOLE_FRAME."""
    starts: np.ndarray
    """(w,) float64, when the first frame of each window is shown."""
    ends: np.ndarray
    """(w,) float64, when the frame after each window is shown."""
    probabilities: np.ndarray
    """(w, K) float32."""


@dataclass(frozen=True)
class ActionSegment:
    """A stretch of the video in which one athlete, or the whole frame, shows one action."""

    track: int
    start: float
    end: float
    label: str
    """One of the classes, or UNSURE."""
    confidence: float
    """Mean probability of the most probable class, 0..1."""
    guess: str = ""
    """The most probable class; differs from `label` only if that is UNSURE."""


@dataclass(frozen=True)
class Prediction:
    """The answer about one video."""

    video: str
    """Path or address."""
    classes: tuple[str, ...]
    """Names of the K classes."""
    width: int
    height: int
    fps: float
    """Average frame rate."""
    seconds: float
    """Duration of the video."""
    tracks: tuple[Track, ...]
    lanes: tuple[Lane, ...]
    segments: tuple[ActionSegment, ...]
    """In the order of their track, then of their start."""
    threshold: float = 0.0
    """Least confidence of an answer; below it the label is UNSURE."""
    model: dict[str, Any] = field(default_factory=dict)
    """Where the answer comes from: run or version, checkpoint, decode recipe, detector, tracker, options."""
    notes: tuple[str, ...] = ()
    """Sentences on what was skipped, guessed or approximated."""
    overall: np.ndarray | None = None
    """(K,) float32, probabilities of the whole video (or of the part that was asked for) as one segment, exactly as
    `posture evaluate` scores it; None if clips are cut along athletes, or there is no classifier.
    """
    failure: str = ""
    """Why the rest of the video could not be read; "" if all of it was."""

    def lane(self, track: int) -> Lane:
        """Return the lane of a track. Raises KeyError if it has none."""
        for lane in self.lanes:
            if lane.track == track:
                return lane
        raise KeyError(track)

    def of(self, track: int) -> Iterator[ActionSegment]:
        """Yield the segments of a track in order."""
        return (segment for segment in self.segments if segment.track == track)
