"""Boxes as people drew them -> boxes in an image whose size is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from posture.data.labels.records import AnnotatedImage, Box
from posture.errors import Unreadable

LEAST_SIDE = 0.5
"""Pixels. What is left of a box within its image is nothing where a side is shorter."""
MOST_OUTSIDE = 0.1
"""Share of all boxes that may lie outside of their images before an ingest fails."""
ROUNDING = 1.0
"""Pixels by which a box may leave its image before it counts as outside: labels are rounded."""


class Placed(NamedTuple):
    """An image's boxes in pixels, within it."""

    boxes: list[list[float]]
    kept: list[int]
    """Which of the boxes drawn these are."""
    complaints: list[str]
    """About each of the others."""
    clipped: int
    """How many were cut off at the image's edge."""

    def columns(self, image: AnnotatedImage) -> dict[str, list[Any]]:
        """What the table `boxes` holds of them: true boxes, and ignore regions in columns of their own."""
        regions = [place for place, number in enumerate(self.kept) if image.ignored and image.ignored[number]]
        true = [place for place in range(len(self.kept)) if place not in set(regions)]
        tubes = image.tubes or ("",) * len(image.boxes)
        return {
            "boxes": [self.boxes[place] for place in true],
            "labels": [image.labels[self.kept[place]] for place in true],
            "tubes": [tubes[self.kept[place]] for place in true],
            "ignored": [self.boxes[place] for place in regions],
            "ignored_labels": [image.labels[self.kept[place]] for place in regions],
        }


def place_boxes(image: AnnotatedImage, height: int, width: int, mode: Literal["clip", "refuse"]) -> Placed:
    """The boxes that were drawn, on an image of that size.

    Raises Unreadable if the image is refused: if its boxes belong to another size or are in another unit, one of them
    has no area or none has anything inside the image (then somebody is there, but not where the labels say), and in
    mode `refuse` if one leaves it.
    """
    if image.size and image.size != (height, width):
        raise Unreadable("size_mismatch", size_mismatch(image.size, height, width, "image"))
    if not image.boxes:
        return Placed([], [], [], 0)
    drawn = np.array(image.boxes, np.float64) * ([width, height, width, height] if image.normalised else 1.0)
    flat = np.flatnonzero((drawn[:, 2:] <= drawn[:, :2]).any(axis=1))
    if len(flat):
        raise Unreadable(
            "bad_label",
            "; ".join(
                f"box {place + 1} ({image.labels[place]}) has no area: {_corners(drawn[place])}"
                for place in flat.tolist()
            ),
        )
    if not image.normalised and drawn.max() <= 1.0 < min(height, width):
        raise Unreadable(
            "bad_label",
            "all of its boxes lie within the first pixel; if these are shares of the image from 0 to 1, multiply them by its "
            "width and height",
        )
    clipped = np.clip(drawn, 0.0, [width, height, width, height])
    left = (clipped[:, 2:] - clipped[:, :2]).min(axis=1) >= LEAST_SIDE
    cut = left & (np.abs(drawn - clipped).max(axis=1) > ROUNDING)
    complaints = []
    for number, (box, label) in enumerate(zip(drawn, image.labels, strict=True)):
        if not left[number]:
            complaints.append(f"box {number + 1} ({label}) has nothing inside {width} x {height}: {_corners(box)}")
        elif cut[number] and mode == "refuse":
            complaints.append(f"box {number + 1} ({label}) leaves {width} x {height}: {_corners(box)}")
    if complaints and (mode == "refuse" or not left.any()):
        raise Unreadable("box_outside", "; ".join(complaints))
    return Placed(clipped[left].astype(np.float32).tolist(), np.flatnonzero(left).tolist(), complaints, int(cut.sum()))


def scale_boxes(boxes: Sequence[Box], drawn: tuple[int, int], shown: tuple[int, int]) -> tuple[Box, ...]:
    """Boxes that were drawn on images of one size, (height, width), in pixels of another."""
    down, across = shown[0] / drawn[0], shown[1] / drawn[1]
    return tuple((left * across, top * down, right * across, bottom * down) for left, top, right, bottom in boxes)


def size_mismatch(labelled: tuple[int, int], height: int, width: int, what: str) -> str:
    """The reason to refuse boxes that were drawn on another size, (height, width)."""
    return (
        f"the labels are for {labelled[1]} x {labelled[0]} pixels, the {what} is {width} x {height}; take the {what} that the boxes were drawn on, "
        "or scale the boxes"
    )


def count_outside(boxes: Sequence[Box], height: int, width: int) -> int:
    """How many boxes, in pixels, have less than half of their area in an image of that size."""
    if not boxes:
        return 0
    drawn = np.array(boxes, np.float64)
    inside = np.clip(drawn, 0.0, [width, height, width, height])
    areas, kept = ((corners[:, 2:] - corners[:, :2]).clip(0.0).prod(axis=1) for corners in (drawn, inside))
    return int((kept < areas / 2).sum())


def _corners(box: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in box.tolist())
