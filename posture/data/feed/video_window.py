"""One window of one video: cut as a store's decode recipe cuts it, and once more as large as a person wants to see it.

Legend: T frames of the network's clip, H x W the recipe's pixels, h x w those of the images.
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
"""For decoding one window."""
SHOWN_PIXELS = 288
"""Shorter side of the images, at least; a small video is enlarged."""


@dataclass(frozen=True)
class Window:
    """A clip of one video."""

    frames: np.ndarray
    """(T, H, W, 3) uint8, as stored footage would be."""
    pictures: np.ndarray
    """(T, h, w, 3) uint8: of the same frames what evaluation shows the network, the middle square, in the video's own
    proportions.
    """
    seconds: np.ndarray
    """(T,) float64, when each frame is shown."""


def cut_window(video: str, recipe: DecodeRecipe, *, frames: int, step: int = 1, start: float | None = None) -> Window:
    """`frames` frames of the file `video`, every `step`-th of those that `recipe` stores: from `start` seconds on, or
    from the middle.

    The middle is where a store with one window per segment has it, the whole video being the segment. Raises InputError
    where the file is no readable video, or shorter than one clip, or ends within one clip from `start` on; and where
    the recipe cuts clips around an athlete, whose place nobody says here.
    """
    if recipe.crop:
        raise InputError(
            f"{video}: this run was trained on clips cut around the athlete ({recipe.crop}), and nothing says where the athlete is here; "
            "explain a run that was trained on whole frames"
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
        raise InputError(f"{video}: this is no video that can be read: {error}") from None
    (stored, times), (large, _) = clips
    numbers = frame_indices(len(stored), frames, step=step)
    return Window(stored[numbers], _as_seen(large[numbers], stream, recipe), times[numbers])


def _place(
    video: str, stream: dict[str, Any], recipe: DecodeRecipe, *, frames: int, step: int, start: float | None
) -> tuple[Label, DecodeRecipe]:
    """The stretch of the video to cut, and the recipe that cuts one window of it."""
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
    """The same cut at the size of the images."""
    scale = max(1.0, SHOWN_PIXELS / min(recipe.height, recipe.width))
    return replace(recipe, height=round(recipe.height * scale), width=round(recipe.width * scale))


def _decoded(messages: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Frames (T, H, W, 3) of the one clip that was cut, and when each is shown, (T,) seconds."""
    clip = next((item for item in messages if isinstance(item, Clip)), None)
    if clip is None:
        raise Unreadable("no_frames", "nothing could be decoded there")
    return decode_frames(clip.pixels, [], (clip.row["frames"], clip.row["height"], clip.row["width"])), np.array(
        clip.row["times"]
    )


def _as_seen(frames: np.ndarray, stream: dict[str, Any], recipe: DecodeRecipe) -> np.ndarray:
    """The middle square of stored frames; where storing stretched the image, that is undone."""
    import cv2

    side = min(frames.shape[1:3])
    top, left = ((length - side) // 2 for length in frames.shape[1:3])
    square = frames[:, top : top + side, left : left + side]
    if recipe.fit != "stretch":
        return square
    stretched = (recipe.width / recipe.height) / (stream["width"] / stream["height"])
    width, height = (side, round(side * stretched)) if stretched > 1 else (round(side / stretched), side)
    return np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in square])
