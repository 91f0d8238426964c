"""Choose the tube that a clip is cut along, and link boxes of single frames to tubes.

A tube (`records.Tube`) has an athlete's boxes x1, y1, x2, y2 in pixels of the video, by frame from 0. Legend: D boxes
of one frame, (D, 4) xyxy; scores are a detector's confidences, 0..1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from posture.data.labels.athletes import labelled_tube
from posture.data.labels.place_boxes import scale_boxes, size_mismatch
from posture.data.labels.records import Box, Tube

MIN_SEEN = 0.25
"""Minimum share of a clip's frames that a tube must cover for the clip to be cut along it."""
MIN_OVERLAP = 0.2
"""Minimum IoU of an athlete's boxes in consecutive looks; low, because athletes move fast and frames are skipped."""
MIN_CONFIDENCE = 0.1
"""Minimum confidence of an athlete's box."""
SURE_CONFIDENCE = 0.25
"""Minimum confidence to begin a tube; fainter boxes may only continue one."""
MISSED_LOOKS = 3
"""Looks in a row after which an athlete that was not found may still be found again."""


def candidates(tubes: Sequence[Tube], *, athlete: str, group: str, frames: range) -> list[Tube]:
    """Return the annotated tube to cut a segment of these frames along; none if there is none.

    It is the labelled athlete's, by its name or by its number in the video; else that of the athlete who is the
    segment's group, if the video shows them; else the one with most boxes in the segment.
    """
    if athlete:
        drawn = labelled_tube(tubes, athlete)
        return [drawn] if drawn else []
    if named := [tube for tube in tubes if tube.name == group and tube.boxes]:
        return named[:1]
    counts = [(sum(frame in frames for frame in tube.boxes), tube) for tube in tubes if tube.boxes]
    return [max(counts, key=lambda pair: pair[0])[1]] if counts else []


def following(found: Iterable[Tube], drawn: Tube) -> list[Tube]:
    """Return those of the `found` tubes that follow the athlete of a `drawn` one, the largest total overlap first."""
    frames = sorted(drawn.boxes)
    corners = np.array([drawn.boxes[frame] for frame in frames])
    overlaps: list[tuple[float, Tube]] = []
    for tube in found:
        looks = [frame for frame in tube.boxes if frames[0] <= frame <= frames[-1]]
        if not looks:
            continue
        there = np.stack([np.interp(looks, frames, corners[:, side]) for side in range(4)], axis=1)
        shared = _overlaps(there, np.array([tube.boxes[frame] for frame in looks])).diagonal()
        if shared.mean() >= MIN_OVERLAP:
            overlaps.append((float(shared.sum()), tube))
    return [tube for _, tube in sorted(overlaps, key=lambda pair: -pair[0])]


def is_seen(tube: Tube, numbers: Sequence[int]) -> bool:
    """Return True if the tube covers enough of the frames `numbers`."""
    first, last = min(tube.boxes), max(tube.boxes)
    return sum(first <= number <= last for number in numbers) >= MIN_SEEN * len(numbers)


def link(found: Mapping[int, tuple[np.ndarray, np.ndarray]], *, name: str, stride: int) -> list[Tube]:
    """Link boxes (D, 4) and scores (D,) by frame to tubes called `name`, the largest summed confidence first.

    In each frame, the pair of tube and box with the largest overlap is joined first. `stride` is the number of frames
    between looks. Greedy linking is enough for the one athlete of a labelled segment; it needs no torch, which the
    trackers of `predict` load, and stored clips must not change with a library's version.
    """
    open_tubes: list[_Open] = []
    closed: list[_Open] = []
    for frame in sorted(found):
        boxes, scores = found[frame]
        kept = np.flatnonzero(scores >= MIN_CONFIDENCE)
        lost = [tube for tube in open_tubes if frame - tube.last > (MISSED_LOOKS + 1) * stride]
        closed += lost
        open_tubes = [tube for tube in open_tubes if tube not in lost]
        taken = _joined(open_tubes, frame, boxes[kept], scores[kept])
        open_tubes += [
            _Open(frame, boxes[index], float(scores[index]))
            for number, index in enumerate(kept)
            if number not in taken and scores[index] >= SURE_CONFIDENCE
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
    """Scale the tube to the shown video, (height, width), if its boxes were drawn on frames of size `coded`.

    The sizes differ if pixels are not square.
    """
    if tube.size != coded or coded == shown:
        return tube
    boxes = scale_boxes(list(tube.boxes.values()), coded, shown)
    return replace(tube, boxes=dict(zip(tube.boxes, boxes, strict=True)), size=shown)


def other_size(tubes: Iterable[Tube], height: int, width: int) -> dict[str, str] | None:
    """Return the refusal of a video of that size in pixels if its boxes were drawn on another one, else None."""
    sizes = {tube.size for tube in tubes if tube.size} - {(height, width)}
    return {"verdict": "size_mismatch", "reason": size_mismatch(min(sizes), height, width, "video")} if sizes else None


class _Open:
    """A tube that may continue."""

    def __init__(self, frame: int, box: np.ndarray, score: float) -> None:
        self.boxes: dict[int, Box] = {}
        self.confidence = 0.0
        self.add(frame, box, score)

    def add(self, frame: int, box: np.ndarray, score: float) -> None:
        left, top, right, bottom = np.asarray(box, np.float64).tolist()
        self.boxes[frame] = left, top, right, bottom
        self.confidence += score
        self.last = frame

    @property
    def box(self) -> Box:
        return self.boxes[self.last]


def _joined(tubes: list[_Open], frame: int, boxes: np.ndarray, scores: np.ndarray) -> set[int]:
    """Give each tube its box of this frame, if it has one; return the indices of the boxes used."""
    if not tubes or not len(boxes):
        return set()
    overlaps = _overlaps(np.array([tube.box for tube in tubes]), np.asarray(boxes, np.float64))
    taken: set[int] = set()
    while overlaps.max() >= MIN_OVERLAP:
        row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
        tubes[row].add(frame, boxes[column], float(scores[column]))
        taken.add(int(column))
        overlaps[row, :] = overlaps[:, column] = -1.0
    return taken


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the IoU of (A, 4) and (B, 4): (A, B). Uses numpy so that decoder processes need not load torch."""
    corners = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.clip(corners, 0.0, None).prod(axis=2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1) for boxes in (a, b)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)
