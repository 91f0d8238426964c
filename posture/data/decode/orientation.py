"""How a coded image is shown: turned and mirrored as the file's display matrix says, its pixels as wide as its pixel
aspect ratio says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LARGEST_ASPECT = 10.0
"""A pixel whose sides differ by a larger factor is a mistake in the file; then pixels are taken to be square."""


@dataclass(frozen=True)
class Orientation:
    """Quarter turns and mirrors: rows and columns are exchanged first, then their order is reversed."""

    exchanged: bool = False
    from_right: bool = False
    from_below: bool = False

    def upright(self, image: np.ndarray) -> np.ndarray:
        """The coded image (h, w, 3) as it is shown; a view."""
        if self.exchanged:
            image = image.transpose(1, 0, 2)
        return image[:: -1 if self.from_below else 1, :: -1 if self.from_right else 1]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width shown of those coded, or those coded of those shown."""
        return (width, height) if self.exchanged else (height, width)


def orientation_of(frame: Any) -> Orientation:
    """That of a decoded frame. A matrix that turns by no quarter counts as the nearest that does.

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
    """The width in square pixels of `coded_width` pixels of this aspect (width / height), None if the file says none."""
    ratio = float(aspect or 1.0)
    return max(1, round(coded_width * ratio)) if 1 / LARGEST_ASPECT <= ratio <= LARGEST_ASPECT else coded_width
