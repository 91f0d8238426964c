"""Encode frames of a stored clip as bytes and decode them: raw pixels, or one JPEG per frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from posture.errors import InputError


def encode_frames(frames: np.ndarray, quality: int) -> tuple[bytes | memoryview, list[int]]:
    """Encode frames uint8 (T, H, W, 3); return the bytes and where each JPEG starts. `quality` 0 keeps raw pixels."""
    if not quality:
        return np.ascontiguousarray(frames).data.cast("B"), []
    import cv2

    images = [
        cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for frame in frames
    ]
    return b"".join(images), [0, *np.cumsum([len(image) for image in images[:-1]]).tolist()]


def decode_frames(
    pixels: Any, offsets: Sequence[int], shape: tuple[int, int, int], *, numbers: Sequence[int] | None = None
) -> np.ndarray:
    """Decode stored bytes to uint8 (T, H, W, 3); raw frames are a read-only view. Only the frames `numbers` are
    decoded.

    Raises InputError if the bytes do not hold T frames of that size.
    """
    length, height, width = shape
    if not len(offsets):
        if len(pixels) != length * height * width * 3:
            raise InputError(
                f"a clip of the store has {len(pixels):,} bytes, not {length} frames of {height} x {width} pixels"
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
            f"a clip of the store has {len(data):,} bytes, which do not match the offsets of its {length} frames"
        )
    decoded = (cv2.imdecode(data[offsets[n] : ends[n]], cv2.IMREAD_COLOR_RGB) for n in wanted)
    frames = [frame for frame in decoded if frame is not None and frame.shape == (height, width, 3)]
    if len(frames) != len(wanted):
        raise InputError(f"a clip of the store does not decode to frames of {height} x {width} pixels")
    return np.stack(frames)
