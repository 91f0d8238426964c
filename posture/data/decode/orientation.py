"""Show a coded image as its file says: turned and mirrored by the display matrix, widened by the pixel aspect ratio."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_ASPECT = 10.0
"""A larger ratio of a pixel's sides is a mistake in the file; pixels are then taken as square."""


@dataclass(frozen=True)
class Orientation:
    """Quarter turns and mirrors: rows and columns are exchanged first, then their order is reversed."""

    exchanged: bool = False
    from_right: bool = False
    from_below: bool = False

    def upright(self, image: np.ndarray) -> np.ndarray:
        """Return the coded image (h, w, 3) as it is shown; a view."""
        if self.exchanged:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.from_below else 1, :: -1 if self.from_right else 1]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Convert coded height and width to shown ones, or back."""
        return (width, height) if self.exchanged else (height, width)


def orientation_of(frame: Any) -> Orientation:
    """Return the orientation of a decoded frame. A matrix with another rotation counts as the nearest quarter turn.

    The matrix (FFmpeg, libavutil/display.h) takes a coded point (x, y) to (a x + c y, b x + d y), with a, b, c, d at 0,
    1, 3, 4.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(np.int64).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, a < 0, d < 0)
    return Orientation(True, c < 0, b < 0)


def shown_width(coded_width: int, aspect: Any) -> int:
    """Return the width in square pixels of `coded_width` pixels with this aspect (width / height), None if unknown."""
    ratio = float(aspect or 1.0)
    return max(1, round(coded_width * ratio)) if 1 / MAX_ASPECT <= ratio <= MAX_ASPECT else coded_width
