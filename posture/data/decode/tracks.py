"""Which way through the video a clip is cut along, and boxes found in single frames linked into such ways.

A tube is one athlete's box through a video (`tube_layouts.Tube`): x1, y1, x2, y2 in pixels of the video's own frames,
by frame from 0. Legend: D boxes of one frame, (D, 4) xyxy; scores are a detector's confidences, 0..1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from posture.data.labels.place_boxes import scale_boxes, size_mismatch
from posture.data.labels.records import Tube

LEAST_SEEN = 0.25
"""Share of a clip's frames through which a tube must last for the clip to be cut along it: the rest would be a guess.
"""
LEAST_OVERLAP = 0.2
"""IoU of two boxes of one athlete from one look to the next; low, because athletes move fast and every second frame is
looked at.
"""
LEAST_CONFIDENCE = 0.1
"""Boxes below are no athlete."""
SURE_CONFIDENCE = 0.25
"""A tube begins with such a box; fainter ones may only continue it."""
MISSED_LOOKS = 3
"""An athlete that was not found in so many looks in a row may still be found again."""


def candidates(tubes: Sequence[Tube], *, athlete: str, group: str, frames: range) -> list[Tube]:
    """The tube, of those that people drew, to cut the segment of these frames along; none where there is none.

    The labelled athlete's; else that of the athlete who is the segment's group, where the video shows that one; else
    the one with most boxes in the segment.
    """
    named = [tube for tube in tubes if tube.name == (athlete or group) and tube.boxes]
    if named or athlete:
        return named[:1]
    counts = [(sum(frame in frames for frame in tube.boxes), tube) for tube in tubes if tube.boxes]
    return [max(counts, key=lambda pair: pair[0])[1]] if counts else []


def is_seen(tube: Tube, numbers: Sequence[int]) -> bool:
    """Whether the tube lasts through enough of the frames `numbers`."""
    first, last = min(tube.boxes), max(tube.boxes)
    return sum(first <= number <= last for number in numbers) >= LEAST_SEEN * len(numbers)


def link(found: Mapping[int, tuple[np.ndarray, np.ndarray]], *, name: str, stride: int) -> list[Tube]:
    """Boxes (D, 4) and scores (D,) by frame -> tubes called `name`, the one with the largest summed confidence first.

    Frame by frame, the pair of tube and box that overlaps most is joined first. `stride` is how many frames lie from
    one look to the next.
    """
    open_tubes: list[_Open] = []
    closed: list[_Open] = []
    for frame in sorted(found):
        boxes, scores = found[frame]
        kept = np.flatnonzero(scores >= LEAST_CONFIDENCE)
        lost = [tube for tube in open_tubes if frame - tube.last > (MISSED_LOOKS + 1) * stride]
        closed += lost
        open_tubes = [tube for tube in open_tubes if tube not in lost]
        taken = _joined(open_tubes, frame, boxes[kept], scores[kept])
        open_tubes += [
            _Open(frame, boxes[place], float(scores[place]))
            for number, place in enumerate(kept)
            if number not in taken and scores[place] >= SURE_CONFIDENCE
        ]
    everyone = sorted([*closed, *open_tubes], key=lambda tube: -tube.confidence)
    return [Tube(name, "", tube.boxes) for tube in everyone]


def tubes_to_json(tubes: Iterable[Tube]) -> list[dict[str, Any]]:
    return [
        {
            "name": tube.name,
            "label": tube.label,
            "frames": list(tube.boxes),
            "boxes": list(tube.boxes.values()),
            "size": tube.size,
        }
        for tube in tubes
    ]


def tubes_from_json(values: Iterable[Mapping[str, Any]]) -> tuple[Tube, ...]:
    return tuple(
        Tube(
            value["name"],
            value["label"],
            dict(zip(value["frames"], map(tuple, value["boxes"]), strict=True)),
            tuple(value["size"]) if value["size"] else None,
        )
        for value in values
    )


def as_shown(tube: Tube, coded: tuple[int, int], shown: tuple[int, int]) -> Tube:
    """The tube in pixels of the video as it is `shown`, (height, width), if its boxes were drawn on frames whose pixels
    are not square, of size `coded`.
    """
    if tube.size != coded or coded == shown:
        return tube
    boxes = scale_boxes(list(tube.boxes.values()), coded, shown)
    return replace(tube, boxes=dict(zip(tube.boxes, boxes, strict=True)), size=shown)


def other_size(tubes: Iterable[Tube], height: int, width: int) -> dict[str, str] | None:
    """The refusal of a video of that size in pixels if boxes in it were drawn on another size; None if they were not,
    or nobody says it.
    """
    sizes = {tube.size for tube in tubes if tube.size} - {(height, width)}
    return {"verdict": "size_mismatch", "reason": size_mismatch(min(sizes), height, width, "video")} if sizes else None


class _Open:
    """A tube that may go on."""

    def __init__(self, frame: int, box: np.ndarray, score: float) -> None:
        self.boxes: dict[int, tuple[float, ...]] = {}
        self.confidence = 0.0
        self.add(frame, box, score)

    def add(self, frame: int, box: np.ndarray, score: float) -> None:
        self.boxes[frame] = tuple(np.asarray(box, np.float64).tolist())
        self.confidence += score
        self.last = frame

    @property
    def box(self) -> tuple[float, ...]:
        return self.boxes[self.last]


def _joined(tubes: list[_Open], frame: int, boxes: np.ndarray, scores: np.ndarray) -> set[int]:
    """Give each tube its box of this frame, if it has one; returns the boxes that are taken."""
    if not tubes or not len(boxes):
        return set()
    overlaps = _overlaps(np.array([tube.box for tube in tubes]), np.asarray(boxes, np.float64))
    taken: set[int] = set()
    while overlaps.max() >= LEAST_OVERLAP:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        tubes[row].add(frame, boxes[column], float(scores[column]))
        taken.add(int(column))
        overlaps[row, :] = overlaps[:, column] = -1.0
    return taken


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of (A, 4) and (B, 4): (A, B). In numpy, since a decoder's process should not have to load torch."""
    corners = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(corners, 0.0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)
