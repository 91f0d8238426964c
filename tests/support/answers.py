"""Answers about videos that nobody had to compute."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from posture.predict.answers import UNSURE, WHOLE_FRAME, ActionSegment, Lane, Prediction, Track

CLASSES = ("run", "jump", "throw")


def make_track(number: int, frames: int, *, fps: float = 25.0, first: int = 0, width: int = 640) -> Track:
    """An athlete who crosses the image, the even ones from right to left, with a bend that linear boxes do not have."""
    at = np.arange(first, first + frames)
    share = np.linspace(0, 1, frames) if number % 2 else np.linspace(1, 0, frames)
    left = 10 + share * (width - 120)
    top = 120 + 40 * np.sin(share * 5 + number)
    size = 80 + 15 * np.sin(share * 3)
    return Track(
        number,
        at.astype(np.int64),
        at / fps,
        np.stack([left, top, left + size * 0.5, top + size], axis=1).astype(np.float32),
        np.full(frames, 0.9, np.float32),
    )


def make_lane(
    track: int, seconds: float, *, classes: int = 3, window: float = 1.28, stride: float = 0.64, seed: int = 0
) -> Lane:
    """Overlapping windows whose most probable class changes now and then."""
    random = np.random.default_rng((seed, track))
    starts = np.arange(0, max(seconds - window, 0) + 1e-9, stride)
    drift = np.cumsum(random.normal(0, 0.7, (len(starts), classes)), axis=0)
    shares = np.exp(drift - drift.max(axis=1, keepdims=True))
    return Lane(track, starts, starts + window, (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32))


def segments_of(lane: Lane, classes: Sequence[str], *, threshold: float = 0.5) -> list[ActionSegment]:
    """Runs of windows with one answer, cut half-way between the middles of two windows."""
    best, sure = lane.probabilities.argmax(axis=1), lane.probabilities.max(axis=1)
    answers = [(int(at), bool(share >= threshold)) for at, share in zip(best, sure, strict=True)]
    firsts = [0] + [at for at, (before, after) in enumerate(pairwise(answers), start=1) if before != after]
    middles = (lane.starts + lane.ends) / 2
    found = []
    for first, end in pairwise([*firsts, len(answers)]):
        at, is_sure = answers[first]
        found.append(
            ActionSegment(
                lane.track,
                float(lane.starts[0] if first == 0 else middles[first - 1 : first + 1].mean()),
                float(lane.ends[-1] if end == len(answers) else middles[end - 1 : end + 1].mean()),
                classes[at] if is_sure else UNSURE,
                float(sure[first:end].mean()),
                classes[at],
            )
        )
    return found


def make_prediction(
    video: str = "/footage/final.mp4",
    *,
    athletes: int = 2,
    seconds: float = 12.0,
    fps: float = 25.0,
    classes: Sequence[str] = CLASSES,
    failure: str = "",
    stride: float = 0.64,
) -> Prediction:
    """An answer about `athletes` athletes, 0 for the whole frame, with stretches that are unsure."""
    tracks = tuple(make_track(number, round(seconds * fps), fps=fps) for number in range(1, athletes + 1))
    lanes = tuple(
        make_lane(number, seconds, classes=len(classes), stride=stride)
        for number in ([track.id for track in tracks] or [WHOLE_FRAME])
    )
    return Prediction(
        video=video,
        classes=tuple(classes),
        width=640,
        height=360,
        fps=fps,
        seconds=seconds,
        tracks=tracks,
        lanes=lanes,
        segments=tuple(segment for lane in lanes for segment in segments_of(lane, classes)),
        threshold=0.5,
        model={
            "run": "runs/improved",
            "checkpoint": "best, epoch 12",
            "detector": "runs/athletes",
            "tracker": "bytetrack",
        },
        notes=("Athlete 2 is hidden for 8 frames; boxes there are interpolated.",),
        overall=None if athletes else np.array([1 / len(classes)] * len(classes), np.float32),
        failure=failure,
    )
