"""Scale decoded frames to RGB images that are upright and have square pixels."""

from __future__ import annotations

from typing import Any

import numpy as np

from posture.data.decode.orientation import Orientation
from posture.data.decode.stream import failures, plain
from posture.errors import Unreadable

UNSPECIFIED = 2
"""FFmpeg's number for unspecified colours."""


class FrameScaler:
    """Scalers of one video, one for each size."""

    def __init__(self, orientation: Orientation) -> None:
        self._orientation = orientation
        self._scalers: dict[tuple[int, int], Any] = {}

    def image(self, frame: Any, size: tuple[int, int]) -> np.ndarray:
        """Return a decoded frame as uint8 (H, W, 3) RGB of `size` (H, W), upright.

        Raises Unreadable (no_decoder) if its colours cannot be converted.
        """
        from av.video.reformatter import VideoReformatter

        height, width = self._orientation.size(*size)
        if size not in self._scalers:
            self._scalers[size] = VideoReformatter()
        size_and_format = {
            "width": width,
            "height": height,
            "format": "rgb24",
            "interpolation": "BICUBIC",
            "threads": 1,
        }
        try:
            scaled = self._scalers[size].reformat(frame, **size_and_format)
        except failures():  # the file declares an unknown kind of colours
            frame.colorspace = frame.color_trc = frame.color_primaries = UNSPECIFIED
            try:
                scaled = self._scalers[size].reformat(frame, **size_and_format)
            except failures() as error:
                raise Unreadable("no_decoder", f"its images cannot be converted to RGB: {plain(error)}") from None
        return self._orientation.upright(scaled.to_ndarray())
