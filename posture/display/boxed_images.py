"""The layout of images with boxes: every image in a frame of one shape, every box with its tag beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.display.charts import LONGEST
from posture.display.text import short

WIDE = 340.0
"""Width of a frame in the units of its drawing, which are about pixels of the screen."""
TAG_LETTER = 7.4
"""Mean width of a letter of a tag, in these units."""
COLOURS = {
    "right": "#4aa8ff",
    "found": "#ffffff",
    "labelled": "#ffffff",
    "false": "#ff9a33",
    "missed": "#ff9a33",
    "ignored": "#b4b9bf",
}
"""Colour of each kind of box on an image; the same as in shots.html."""
DASHED = ("found", "missed", "ignored")
"""Kinds drawn dashed."""


@dataclass(frozen=True)
class Box:
    """A box to draw."""

    corners: tuple[float, float, float, float]
    """xyxy in pixels of the image."""
    kind: str
    """Style of its edge: a key of COLOURS."""
    tag: str
    """Text beside it."""
    text: str
    """Text shown on hover."""
    above: bool = True
    """Place the tag above the box, or below; inside if there is no room."""


def frame_all(images: Sequence[tuple[np.ndarray, Sequence[Box]]]) -> list[dict[str, Any]]:
    """Return the layout of images, uint8 (h, w, 3) RGB, and their boxes, in frames of the median shape.

    `shots.html` and `posture.display.sheets` draw it.
    """
    if not images:
        return []
    tall = round(WIDE * min(1.0, float(np.median([image.shape[0] / image.shape[1] for image, _ in images]))), 1)
    return [_framed(image, boxes, tall) for image, boxes in images]


def _framed(image: np.ndarray, boxes: Sequence[Box], tall: float) -> dict[str, Any]:
    height, width = image.shape[:2]
    scale = min(WIDE / width, tall / height)
    left, top = (WIDE - scale * width) / 2, (tall - scale * height) / 2
    return {
        "pixels": image,
        "width": WIDE,
        "height": tall,
        "left": round(left, 1),
        "top": round(top, 1),
        "image_width": round(scale * width, 1),
        "image_height": round(scale * height, 1),
        "marks": [_placed(box, left, top, scale, tall) for box in boxes],
    }


def _placed(box: Box, left: float, top: float, scale: float, tall: float) -> dict[str, Any]:
    """Return a box in units of its drawing, with the position of its tag."""
    x1, y1, x2, y2 = (
        round(start + scale * side, 1) for start, side in zip((left, top, left, top), box.corners, strict=True)
    )
    tag = short(box.tag, LONGEST)
    tag_x = max(2.0, min(x1, WIDE - 2 - TAG_LETTER * len(tag)))
    tag_y = (y1 - 5 if y1 > 17 else y1 + 15) if box.above else (y2 + 14 if y2 < tall - 18 else y2 - 6)
    return {
        "kind": box.kind,
        "x": x1,
        "y": y1,
        "width": round(x2 - x1, 1),
        "height": round(y2 - y1, 1),
        "tag": tag,
        "tag_x": round(tag_x, 1),
        "tag_y": round(tag_y, 1),
        "text": box.text,
    }
