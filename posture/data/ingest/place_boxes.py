"""Boxes as people drew them -> boxes in a picture whose size is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from posture.data.decode.video import Unreadable
from posture.data.labels.tree import AnnotatedPicture, Box

LEAST_SIDE = 0.5
"""Pixels. What is left of a box within its picture is nothing where a side is shorter."""
MOST_OUTSIDE = 0.1
"""Share of all boxes that may lie outside of their pictures before an ingest fails."""
ROUNDING = 1.0
"""Pixels by which a box may leave its picture before it counts as outside: labels are rounded."""


class Placed(NamedTuple):
    """A picture's boxes in pixels, within it."""

    boxes: list[list[float]]
    kept: list[int]
    """Which of the boxes drawn these are."""
    complaints: list[str]
    """About each of the others."""
    clipped: int
    """How many were cut off at the picture's edge."""

    def columns(self, picture: AnnotatedPicture) -> dict[str, list[Any]]:
        """What the table `boxes` holds of them: true boxes, and ignore regions in columns of their own."""
        regions = [place for place, number in enumerate(self.kept) if picture.ignored and picture.ignored[number]]
        true = [place for place in range(len(self.kept)) if place not in set(regions)]
        tubes = picture.tubes or ("",) * len(picture.boxes)
        return {
            "boxes": [self.boxes[place] for place in true],
            "labels": [picture.labels[self.kept[place]] for place in true],
            "tubes": [tubes[self.kept[place]] for place in true],
            "ignored": [self.boxes[place] for place in regions],
            "ignored_labels": [picture.labels[self.kept[place]] for place in regions],
        }


def place_boxes(picture: AnnotatedPicture, height: int, width: int, mode: Literal["clip", "refuse"]) -> Placed:
    """The boxes that were drawn, on a picture of that size.

    Raises Unreadable if the picture is refused: if its boxes belong to another size or are in another unit, one of them
    has no area or none has anything inside the picture (then somebody is there, but not where the labels say), and in
    mode `refuse` if one leaves it.
    """
    if picture.size and picture.size != (height, width):
        raise Unreadable("size_mismatch", size_mismatch(picture.size, height, width, "picture"))
    if not picture.boxes:
        return Placed([], [], [], 0)
    drawn = np.array(picture.boxes, np.float64) * ([width, height, width, height] if picture.normalised else 1.0)
    flat = np.flatnonzero((drawn[:, 2:] <= drawn[:, :2]).any(axis=1))
    if len(flat):
        raise Unreadable(
            "bad_label",
            "; ".join(
                f"box {place + 1} ({picture.labels[place]}) has no area: {_corners(drawn[place])}"
                for place in flat.tolist()
            ),
        )
    if not picture.normalised and drawn.max() <= 1.0 < min(height, width):
        raise Unreadable(
            "bad_label",
            "all of its boxes lie within the first pixel; if these are shares of the picture from 0 to 1, multiply them by its "
            "width and height",
        )
    clipped = np.clip(drawn, 0.0, [width, height, width, height])
    left = (clipped[:, 2:] - clipped[:, :2]).min(axis=1) >= LEAST_SIDE
    cut = left & (np.abs(drawn - clipped).max(axis=1) > ROUNDING)
    complaints = []
    for number, (box, label) in enumerate(zip(drawn, picture.labels, strict=True)):
        if not left[number]:
            complaints.append(f"box {number + 1} ({label}) has nothing inside {width} x {height}: {_corners(box)}")
        elif cut[number] and mode == "refuse":
            complaints.append(f"box {number + 1} ({label}) leaves {width} x {height}: {_corners(box)}")
    if complaints and (mode == "refuse" or not left.any()):
        raise Unreadable("box_outside", "; ".join(complaints))
    return Placed(clipped[left].astype(np.float32).tolist(), np.flatnonzero(left).tolist(), complaints, int(cut.sum()))


def scale_boxes(boxes: Sequence[Box], drawn: tuple[int, int], shown: tuple[int, int]) -> tuple[Box, ...]:
    """Boxes that were drawn on pictures of one size, (height, width), in pixels of another."""
    down, across = shown[0] / drawn[0], shown[1] / drawn[1]
    return tuple((left * across, top * down, right * across, bottom * down) for left, top, right, bottom in boxes)


def size_mismatch(labelled: tuple[int, int], height: int, width: int, what: str) -> str:
    """The reason to refuse boxes that were drawn on another size, (height, width)."""
    return (
        f"the labels are for {labelled[1]} x {labelled[0]} pixels, the {what} is {width} x {height}; take the {what} that the boxes were drawn on, "
        "or scale the boxes"
    )


def count_outside(boxes: Sequence[Box], height: int, width: int) -> int:
    """How many boxes, in pixels, have less than half of their area in a picture of that size."""
    if not boxes:
        return 0
    drawn = np.array(boxes, np.float64)
    inside = np.clip(drawn, 0.0, [width, height, width, height])
    areas, kept = ((corners[:, 2:] - corners[:, :2]).clip(0.0).prod(axis=1) for corners in (drawn, inside))
    return int((kept < areas / 2).sum())


def _corners(box: np.ndarray) -> str:
    return " ".join(f"{value:.6g}" for value in box.tolist())
