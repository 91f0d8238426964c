"""Choose the clips of a file: which labels are accepted, their windows, and the frames of each window. Decodes nothing.

Legend: T stored frames, H x W stored pixels; times in seconds from the first frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posture.data.decode.tracks import candidates, following, is_seen
from posture.data.labels.athletes import labelled_tube
from posture.data.labels.records import Label, Tube
from posture.data.store.schema import UNLABELLED, DecodeRecipe, segment_id

BACKGROUND = "background"
"""Class of the gaps between the labels: no action. `posture predict` answers nothing there."""

PAST_END_SECONDS = 0.5
"""Labels are often rounded: an end at most this much past the video's counts as the video's end."""


@dataclass(frozen=True)
class Cut:
    """How segments are cut into clips."""

    recipe: DecodeRecipe = DecodeRecipe()
    min_frames: int = 16
    """A segment with fewer stored frames is shorter than one clip."""
    short: str = "pad"
    """`pad` keeps short segments, and training repeats their last frame; `refuse` gives them the verdict too_short."""
    background: bool = False
    """Also cut clips of class `background` from every gap between an athlete's labels that fits a window."""
    unlabelled: int = 0
    """Maximum number of stretches of a clip's length that are cut from a video without a label."""


@dataclass(frozen=True)
class Clip:
    """A row of `clips`, plus `times`, when each frame is shown. `pixels` are raw, or JPEG frames at `offsets`."""

    row: dict[str, Any]
    pixels: bytes | memoryview


def accept(
    labels: Sequence[Label],
    cut: Cut,
    *,
    seconds: float,
    fps: float,
    shown: np.ndarray | None = None,
    stored: Callable[[Label], int] = lambda label: 0,
) -> tuple[list[Label], list[dict[str, str]]]:
    """Return the labels that can give clips, in seconds, background included, and {verdict, reason} of each other
    label.

    `shown` (frames,) is when each frame is shown, in seconds; without it a constant frame rate is assumed. `stored`
    returns the number of frames of a label's stored clip, or 0.
    """
    labels = [part for label in labels for part in _stretches(label.timed(fps), seconds, cut, fps)]
    accepted, refused = [], []
    for label in [*labels, *(_gaps(labels, seconds, cut, fps) if cut.background else ())]:
        end = seconds if label.end is None else label.end
        name = f"{label.label} from {label.start:g} s to {'its end' if label.end is None else f'{end:g} s'}"
        frames = max(stored(label), math.ceil(_frames_in(label, min(end, seconds), fps, shown) / cut.recipe.stride))
        if label.start >= seconds or end > seconds + PAST_END_SECONDS:
            refused.append({"verdict": "segment_past_end", "reason": f"{name}: the video lasts {seconds:.2f} s"})
        elif (
            frames < cut.min_frames
            if cut.short == "refuse"
            else frames < 1 and round((min(end, seconds) - label.start) * fps) < 1
        ):
            needed = (
                f"{frames} frames to store; one clip needs {cut.min_frames}"
                if cut.short == "refuse"
                else "no frame is shown in that time"
            )
            refused.append({"verdict": "too_short", "reason": f"{name}: {needed}"})
        else:
            accepted.append(label)
    return accepted, refused


def _frames_in(label: Label, end: float, fps: float, shown: np.ndarray | None) -> int:
    """Return how many frames of the video the label covers up to `end`, in seconds."""
    if shown is not None:
        first, last = label.frames or np.searchsorted(shown, [label.start - 1e-6, end - 1e-6]).tolist()
        return min(last, len(shown)) - first
    return math.ceil(end * fps - 1e-3) - math.ceil(label.start * fps - 1e-3)


def span_of(label: Label, seconds: float, shown: np.ndarray) -> range:
    """Return the segment's frames, at least one. `shown` (frames,) is when each frame is shown, in seconds."""
    end = seconds if label.end is None else min(label.end, seconds)
    first, last = label.frames or (int(index) for index in np.searchsorted(shown, [label.start - 1e-6, end - 1e-6]))
    first = min(first, len(shown) - 1)  # a segment may begin while the last frame is shown
    return range(first, max(min(last, len(shown)), first + 1))


def segment_of(video: str, label: Label) -> str:
    """Return the key of the label's segment. The label's times must be in seconds."""
    return segment_id(video, label.start, label.end, label.athlete)


def windows_of(
    label: Label, segment: str, span: range, recipe: DecodeRecipe, tubes: Sequence[Tube]
) -> Iterator[tuple[int, list[int], Tube | None]]:
    """Yield the segment's windows: index, frames, and the tube to crop along. If frames are cropped, each has a tube.

    `span` is the segment's frames. Tubes that a detector found are named by the segment's key, the best first. If the
    label names an athlete with a drawn tube, those that follow it are taken.
    """
    if recipe.searched:
        along = [tube for tube in tubes if tube.name == segment]
        drawn = labelled_tube((tube for tube in tubes if tube.name != segment), label.athlete)
        along = following(along, drawn) if drawn and label.athlete else along
    else:
        along = candidates(tubes, athlete=label.athlete, group=label.group, frames=span) if recipe.crop else []
    for window, numbers in enumerate(frame_numbers(span.start, span.stop, recipe)):
        tube = next((tube for tube in along if is_seen(tube, numbers)), None)
        if tube is not None or not recipe.crop:
            yield window, numbers, tube


def no_athlete(label: Label, end: float) -> dict[str, str]:
    """Return the refusal of a segment without an athlete."""
    who = f"the athlete {label.athlete} is not" if label.athlete else "no athlete is"
    return {
        "verdict": "no_athlete",
        "reason": f"{label.label} from {label.start:g} s to {end:g} s: {who} there, or in too few frames",
    }


def frame_numbers(first: int, last: int, recipe: DecodeRecipe) -> list[list[int]]:
    """Return the frames that each window of the segment [first, last) stores.

    Windows are spread evenly from the segment's start to its end; a single one is in the middle. A segment shorter than
    a window gives one shorter window.
    """
    span = (recipe.frames - 1) * recipe.stride + 1
    slack = last - first - span
    if slack < 0:
        short = list(range(first, last, recipe.stride))
        return [short] if short else []
    shares = np.linspace(0.0, 1.0, recipe.windows) if recipe.windows > 1 else np.array([0.5])
    starts = sorted({first + round(float(share) * slack) for share in shares})
    return [list(range(start, start + span, recipe.stride)) for start in starts]


def _stretches(label: Label, seconds: float, cut: Cut, fps: float) -> Iterator[Label]:
    """Yield the stretches of a video without a label, of a clip's length and spread evenly, or any other label."""
    length = ((cut.recipe.frames - 1) * cut.recipe.stride + 1) / fps
    number = min(cut.unlabelled, int(seconds / length))
    if label.label != UNLABELLED or label.end is not None or number < 1:
        yield label
        return
    for start in np.linspace(0.0, seconds - length, number) if number > 1 else [(seconds - length) / 2]:
        yield replace(label, start=round(float(start), 3), end=round(float(start) + length, 3))


def _gaps(labels: Sequence[Label], seconds: float, cut: Cut, fps: float) -> Iterator[Label]:
    """Yield a `background` label for every gap that fits a window, for each athlete whom labels name.

    A gap of an athlete has neither a label of the athlete nor one of the whole video; a gap of the whole video has no
    label at all. It stays in its neighbours' group.
    """
    length = ((cut.recipe.frames - 1) * cut.recipe.stride + 1) / fps
    for athlete in dict.fromkeys(label.athlete for label in labels):
        own = [label for label in labels if label.athlete == athlete]
        at = 0.0
        for label in [*sorted(labels, key=lambda item: item.start), None]:
            if label is not None and athlete and label.athlete not in ("", athlete):
                continue
            until = seconds if label is None else min(seconds, label.start)
            if until - at >= length:
                times = round(at, 3), round(until, 3)
                yield Label(*times, BACKGROUND, own[0].group, own[0].split, athlete)
            if label is not None:
                at = max(at, seconds if label.end is None else label.end)
