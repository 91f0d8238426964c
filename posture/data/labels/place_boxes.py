"""Fit boxes as drawn to an image whose size is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from posture.data.labels.records import AnnotatedImage, Box
from posture.errors import Unreadable

MIN_SIDE = 0.5
"""Pixels. A box with a shorter side inside its image is dropped."""
MAX_OUTSIDE = 0.1
"""Maximum share of all boxes that may be outside their images in an ingest."""
ROUNDING = 1.0
"""Pixels by which a box may leave its image without being counted: labels are rounded."""


class Placed(NamedTuple):
    """Boxes of an image in pixels, clipped to it."""

    boxes: list[list[float]]
    kept: list[int]
    """Indices of the drawn boxes that they come from."""
    complaints: list[str]
    """One sentence for each other box."""
    clipped: int
    """Number of boxes cut off at the image's edge."""

    def columns(self, image: AnnotatedImage) -> dict[str, list[Any]]:
        """Return the columns of the table `boxes`. Ignore regions have their own columns."""
        regions = [index for index, number in enumerate(self.kept) if image.ignored and image.ignored[number]]
        true = [index for index in range(len(self.kept)) if index not in set(regions)]
        tubes = image.tubes or ("",) * len(image.boxes)
        return {
            "boxes": [self.boxes[index] for index in true],
            "labels": [image.labels[self.kept[index]] for index in true],
            "tubes": [tubes[self.kept[index]] for index in true],
            "ignored": [self.boxes[index] for index in regions],
            "ignored_labels": [image.labels[self.kept[index]] for index in regions],
        }


def place_boxes(image: AnnotatedImage, height: int, width: int, mode: Literal["clip", "refuse"]) -> Placed:
    """Fit the drawn boxes to an image of that size.

    Raises Unreadable if the boxes were drawn on another size or are in another unit, or one has no area. The same holds
    if none has a part inside the image, because then the labels are wrong, or in mode `refuse` if one leaves the image.
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
                f"box {index + 1} ({image.labels[index]}) has no area: {_corners(drawn[index])}"
                for index in flat.tolist()
            ),
        )
    if not image.normalised and drawn.max() <= 1.0 < min(height, width):
        raise Unreadable(
            "bad_label",
            (
                "all of its boxes are within the first pixel; if they are shares of the image from 0 to 1, "
                "multiply them by its width and height"
            ),
        )
    clipped = np.clip(drawn, 0.0, [width, height, width, height])
    left = (clipped[:, 2:] - clipped[:, :2]).min(axis=1) >= MIN_SIDE
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
    """Scale boxes in pixels from one image size, (height, width), to another."""
    down, across = shown[0] / drawn[0], shown[1] / drawn[1]
    return tuple((left * across, top * down, right * across, bottom * down) for left, top, right, bottom in boxes)


def size_mismatch(labelled: tuple[int, int], height: int, width: int, what: str) -> str:
    """Return the reason to refuse boxes that were drawn on another size, (height, width)."""
    return (
        f"the labels are for {labelled[1]} x {labelled[0]} pixels, but the {what} is {width} x {height}; use the "
        f"{what} that the boxes were drawn on, or scale the boxes"
    )


def count_outside(boxes: Sequence[Box], height: int, width: int) -> int:
    """Count the boxes, in pixels, that have less than half of their area inside an image of that size."""
    if not boxes:
        return 0
    drawn = np.array(boxes, np.float64)
    inside = np.clip(drawn, 0.0, [width, height, width, height])
    areas, kept = ((corners[:, 2:] - corners[:, :2]).clip(0.0).prod(axis=1) for corners in (drawn, inside))
    return int((kept < areas / 2).sum())


def _corners(box: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in box.tolist())
