"""Frames of a stored clip as bytes, and back: raw pixels, or one JPEG a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from posture.errors import InputError


def encode_frames(frames: np.ndarray, quality: int) -> tuple[bytes | memoryview, list[int]]:
    """Frames as stored bytes, and where each JPEG frame starts; `quality` 0 keeps raw pixels and has no starts."""
    if not quality:
        return memoryview(np.ascontiguousarray(frames)).cast("B"), []
    import cv2

    images = [
        cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for frame in frames
    ]
    return b"".join(images), [0, *np.cumsum([len(image) for image in images[:-1]]).tolist()]


def decode_frames(
    pixels: Any, offsets: Sequence[int], shape: tuple[int, int, int], *, numbers: Sequence[int] | None = None
) -> np.ndarray:
    """Stored bytes -> uint8 (T, H, W, 3); raw frames are a read-only view. `numbers` picks frames, and only those are
    decoded.

    Raises InputError if the bytes are not so many frames of that size.
    """
    length, height, width = shape
    if not len(offsets):
        if len(pixels) != length * height * width * 3:
            raise InputError(
                f"a clip of the store has {len(pixels):,} bytes, which are not {length} frames of {height} x {width} pixels"
            )
        frames = np.frombuffer(pixels, np.uint8).reshape(length, height, width, 3)
        frames.flags.writeable = False
        return frames if numbers is None else frames[list(numbers)]
    import cv2

    data = np.frombuffer(pixels, np.uint8)
    ends = [*list(offsets)[1:], len(data)]
    wanted = range(length) if numbers is None else numbers
    if len(offsets) != length or any(
        not 0 <= start < end <= len(data) for start, end in zip(offsets, ends, strict=True)
    ):
        raise InputError(
            f"a clip of the store has {len(data):,} bytes, in which the places of its {length} frames do not lie"
        )
    frames = [cv2.imdecode(data[offsets[n] : ends[n]], cv2.IMREAD_COLOR_RGB) for n in wanted]
    if any(frame is None or frame.shape != (height, width, 3) for frame in frames):
        raise InputError(f"a clip of the store does not decode to frames of {height} x {width} pixels")
    return np.stack(frames)
