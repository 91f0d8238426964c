"""Frames that are in memory already, streamed as a video's are (`data/decode/stream_frames.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip
from posture.data.decode.decode_file import FRAMES_AT_ONCE, fit_frames
from posture.data.decode.stream import VideoStream
from posture.data.decode.stream_frames import look_every, role_sizes
from posture.data.store.schema import DecodeRecipe
from posture.errors import InputError


def stream_array(
    frames: np.ndarray,
    fps: float,
    *,
    recipe: DecodeRecipe | None = None,
    longest: int | None = None,
    fps_cap: float | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[dict[str, Any] | Clip]:
    """Yield frames uint8 (frames, H, W, 3) RGB at a constant rate as `stream_frames` yields those of a file.

    Raises InputError if the array has another shape or type, or no frames.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InputError(f"frames: give uint8 (frames, height, width, 3) RGB, not {frames.dtype} {frames.shape}")
    count, height, width, _ = frames.shape
    times = np.arange(count) / fps
    stream = VideoStream(fps, width, height, width, height, "", "", "", times)
    first, stop = np.searchsorted(times, [start - 1e-6, np.inf if end is None else end - 1e-6]).tolist()
    every = look_every(fps, fps_cap)
    yield {"kind": "stream", **stream.columns, "first": first, "stop": stop, "every": every}
    for begin in range(first, stop, FRAMES_AT_ONCE):
        for role, size in role_sizes(stream, recipe, longest).items():
            numbers = range(begin, min(begin + FRAMES_AT_ONCE, stop))
            numbers = numbers[(first - begin) % every :: every] if role == "search" else numbers
            if not numbers:
                continue
            scaled = np.stack([_scaled(frames[number], *size) for number in numbers])
            if role == "clip" and recipe is not None:
                scaled = fit_frames(scaled, recipe)
            row = {"times": times[numbers].tolist(), "ends": ((np.array(numbers) + 1) / fps).tolist()}
            shape = {"height": scaled.shape[1], "width": scaled.shape[2]}
            yield Clip(
                {"role": role, "numbers": list(numbers), **row, **shape}, np.ascontiguousarray(scaled).data.cast("B")
            )


def _scaled(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the frame (H, W, 3) in another size, by the same scaler and filter as frames of a file."""
    if frame.shape[:2] == (height, width):
        return frame
    from av import VideoFrame

    return (
        VideoFrame
        .from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        .reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
        .to_ndarray()
    )
