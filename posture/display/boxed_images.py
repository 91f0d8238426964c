"""Images with boxes, as pages draw them: every image in a frame of one shape, every box with its tag beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.display.charts import LONGEST
from posture.display.text import short

WIDE = 340.0
"""Width of a frame in its drawing's own units, about those of the screen."""
TAG_LETTER = 7.4
"""Mean width of a letter of a tag, in those units."""


@dataclass(frozen=True)
class Box:
    """A box to draw."""

    corners: tuple[float, float, float, float]
    """xyxy in pixels of the image."""
    kind: str
    """How it looks: a class of shots.html."""
    tag: str
    """Written beside it."""
    text: str
    """Shown to who points at it."""
    above: bool = True
    """Whether the tag stands above it or below; inside where there is no room."""


def frame_all(images: Sequence[tuple[np.ndarray, Sequence[Box]]]) -> list[dict[str, Any]]:
    """What `shots.html` draws of images, uint8 (h, w, 3) RGB each, with their boxes: in frames of the shape that the
    middle one of them has.
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
        "picture": image,
        "width": WIDE,
        "height": tall,
        "left": round(left, 1),
        "top": round(top, 1),
        "across": round(scale * width, 1),
        "down": round(scale * height, 1),
        "marks": [_placed(box, left, top, scale, tall) for box in boxes],
    }


def _placed(box: Box, left: float, top: float, scale: float, tall: float) -> dict[str, Any]:
    """A box in its drawing's units, and where its tag stands."""
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
