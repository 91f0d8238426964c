"""One window of one video: cut by a store's decode recipe, and once more at a size for display.

Legend: T frames of the network's clip, H x W the recipe's pixels, h x w those of the images for display.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip, Cut
from posture.data.decode.sandbox import Sandbox
from posture.data.feed.clip_transforms import frame_indices
from posture.data.labels.records import Label
from posture.data.store.files import local_copy
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe
from posture.errors import InputError, Unreadable

LIMIT_SECONDS = 120.0
"""Time limit for decoding one window."""
SHOWN_PIXELS = 288
"""Minimum shorter side of the images for display; a small video is enlarged."""


@dataclass(frozen=True)
class Window:
    """A clip of one video."""

    frames: np.ndarray
    """(T, H, W, 3) uint8, like stored clips."""
    images: np.ndarray
    """(T, h, w, 3) uint8: the same frames for display, cut to the middle square as in evaluation, in the video's own
    proportions.
    """
    seconds: np.ndarray
    """(T,) float64, time of each frame."""


def cut_window(video: str, recipe: DecodeRecipe, *, frames: int, step: int = 1, start: float | None = None) -> Window:
    """Return `frames` frames of the file `video`, every `step`-th of those that `recipe` stores.

    They begin at `start` seconds, or lie in the middle, as in a store with the whole video as one segment of one
    window. Raises InputError if the file is not a readable video, or is too short for one clip from `start` on, or if
    the recipe cuts clips around an athlete, whose position is unknown here.
    """
    if recipe.crop:
        raise InputError(
            f"{video}: this run was trained on clips cut around the athlete ({recipe.crop}), whose position is unknown "
            "here; explain a run that was trained on whole frames"
        )
    recipe = replace(recipe, windows=1, jpeg=0)
    try:
        with local_copy(video) as path, Sandbox() as sandbox:

            def cut(*labels: Label, recipe: DecodeRecipe) -> list[Any]:
                return list(sandbox.cut(path, "", labels, Cut(recipe), limit_seconds=LIMIT_SECONDS))

            stream = cut(recipe=recipe)[0]
            label, recipe = _place(video, stream, recipe, frames=frames, step=step, start=start)
            clips = [_decoded(cut(label, recipe=size)) for size in (recipe, _larger(recipe))]
    except (OSError, Unreadable) as error:
        raise InputError(f"{video}: the video cannot be read: {error}") from None
    (stored, times), (large, _) = clips
    chosen = frame_indices(len(stored), frames, step=step)
    return Window(stored[chosen], _as_seen(large[chosen], stream, recipe), times[chosen])


def _place(
    video: str, stream: dict[str, Any], recipe: DecodeRecipe, *, frames: int, step: int, start: float | None
) -> tuple[Label, DecodeRecipe]:
    """Return the stretch of the video to cut, and the recipe that cuts one window of it."""
    stored = min(recipe.frames, (frames - 1) * step + 1)  # a longer clip repeats its last frame, as in training
    span, fps, seconds = (stored - 1) * recipe.stride + 1, stream["fps"], stream["seconds"]
    if span > stream["frames"]:
        raise InputError(f"{video}: too short: one clip needs {span / fps:.2f} s, the video lasts {seconds:.2f} s")
    if start is None:
        return Label(0.0, None, "", "", ""), recipe
    latest = (stream["frames"] - span) / fps
    if not 0.0 <= start <= latest + 1e-6:
        raise InputError(
            f"--start {start:g}: {video} lasts {seconds:.2f} s and one clip needs {span / fps:.2f} s; "
            f"give a second from 0 to {math.floor(100 * latest) / 100:.2f}"
        )
    return Label(start, min(seconds, start + (span + 0.5) / fps), "", "", ""), replace(recipe, frames=stored)


def _larger(recipe: DecodeRecipe) -> DecodeRecipe:
    """Return the same recipe at the size of the images for display."""
    scale = max(1.0, SHOWN_PIXELS / min(recipe.height, recipe.width))
    return replace(recipe, height=round(recipe.height * scale), width=round(recipe.width * scale))


def _decoded(messages: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (T, H, W, 3) of the only clip, and the time of each, (T,) seconds."""
    clip = next((item for item in messages if isinstance(item, Clip)), None)
    if clip is None:
        raise Unreadable("no_frames", "nothing could be decoded there")
    return decode_frames(clip.pixels, [], (clip.row["frames"], clip.row["height"], clip.row["width"])), np.array(
        clip.row["times"]
    )


def _as_seen(frames: np.ndarray, stream: dict[str, Any], recipe: DecodeRecipe) -> np.ndarray:
    """Return the middle square of stored frames; if the recipe stretches frames, undo that."""
    import cv2

    side = min(frames.shape[1:3])
    top, left = ((length - side) // 2 for length in frames.shape[1:3])
    square = frames[:, top : top + side, left : left + side]
    if recipe.fit != "stretch":
        return square
    stretched = (recipe.width / recipe.height) / (stream["width"] / stream["height"])
    width, height = (side, round(side * stretched)) if stretched > 1 else (round(side / stretched), side)
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in square])
