"""Errors of a detector, box by box: true positives, false positives and missed boxes, with the cause of each error.

Legend: D reported and B true boxes of an image, xyxy in pixels.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from posture.display.boxed_images import Box
from posture.tasks.detection_metrics import ScoredImage

ENOUGH = 0.5
"""IoU at which a reported box matches a true one of its class, as in mAP@0.5."""
NEAR = 0.1
"""IoU at which an unmatched box is a badly placed one of this object (Bolya 2020, arXiv 2008.08115, section 2.2)."""

FALSE = {
    "nothing": "no object is labelled there",
    "rough": "overlaps the true box too little",
    "class": "object of another class",
    "second": "a second box for the same object",
}
MISSED = {
    "unseen": "no box was reported for it",
    "doubted": "reported below the confidence threshold",
    "rough": "its box overlaps too little",
    "class": "reported as another class",
}
"""Causes of false positives, and of missed boxes."""


@dataclass(frozen=True)
class BoxMark:
    """A box in an image and its outcome."""

    box: tuple[float, float, float, float]
    """xyxy in pixels."""
    kind: Literal["right", "false", "found", "missed", "ignored"]
    """True positive, false positive; true box that is found, true box that is missed; ignore region or box inside one.
    """
    name: str
    """Its class."""
    confidence: float | None = None
    """None for true boxes."""
    cause: str = ""
    """A key of FALSE or MISSED."""
    reason: str = ""
    """The cause in words, with the figures of this box."""

    @property
    def reported(self) -> bool:
        return self.confidence is not None

    @property
    def tag(self) -> str:
        """Text beside the box."""
        if self.confidence is not None:
            return f"{self.name} {self.confidence:.2f}"
        return f"missed: {self.name}" if self.kind == "missed" else ""


MAX_BOXES = 30
"""Maximum number of boxes drawn in an image."""


def drawn_of(marks: Sequence[BoxMark]) -> list[BoxMark]:
    """Return at most MAX_BOXES marks to draw: true boxes and true positives, then false positives by confidence."""
    first = sorted(marks, key=lambda mark: (mark.reported and mark.kind != "right", -(mark.confidence or 0.0)))[
        :MAX_BOXES
    ]
    return [mark for mark in marks if mark in first]


def judge(found: ScoredImage, classes: Sequence[str], *, confidence: float) -> list[BoxMark]:
    """Return a mark for every true box, every box reported with at least `confidence` (best first), and every ignore
    region.

    Boxes are matched as in COCO: each reported box takes the free true box of its class with the highest IoU, if that
    is at least ENOUGH. An unmatched box with a share of at least ENOUGH inside an ignore region of its class does not
    count.
    """
    boxes, scores, labels, true_boxes, true_labels, regions, region_labels = (
        np.asarray(part) for part in ScoredImage(*found)
    )
    order = np.argsort(-scores, kind="stable")
    boxes, scores, labels = boxes[order], scores[order], labels[order]
    overlaps = _overlaps(boxes, true_boxes)  # (D, B)
    same = labels[:, None] == true_labels
    reported = int((scores >= confidence).sum())
    match = np.full(len(boxes), -1)
    for row in range(reported):
        free = same[row] & (overlaps[row] >= ENOUGH) & ~np.isin(np.arange(len(true_boxes)), match)
        if free.any():
            # the later of two equal ones, as COCO does
            match[row] = len(free) - 1 - np.where(free, overlaps[row], -1.0)[::-1].argmax()

    marks = []
    for index, (box, label) in enumerate(zip(true_boxes, true_labels, strict=True)):
        if index in match:
            marks.append(BoxMark(_corners(box), "found", classes[label]))
        else:
            cause, reason = _why_missed(
                overlaps[:, index], same[:, index], scores, labels, match, reported=reported, classes=classes
            )
            marks.append(BoxMark(_corners(box), "missed", classes[label], cause=cause, reason=reason))
    inside = (_overlaps(boxes, regions, inside=True) * (labels[:, None] == region_labels)).max(
        axis=1, initial=0.0
    ) >= ENOUGH
    for row in range(reported):
        right = match[row] >= 0
        if inside[row] and not right:
            marks.append(BoxMark(_corners(boxes[row]), "ignored", classes[labels[row]], float(scores[row])))
            continue
        cause, reason = ("", "") if right else _why_false(overlaps[row], same[row], true_labels, match, classes=classes)
        marks.append(
            BoxMark(
                _corners(boxes[row]),
                "right" if right else "false",
                classes[labels[row]],
                float(scores[row]),
                cause,
                reason,
            )
        )
    return marks + [
        BoxMark(_corners(region), "ignored", classes[label])
        for region, label in zip(regions, region_labels, strict=True)
    ]


def _overlaps(boxes: np.ndarray, others: np.ndarray, *, inside: bool = False) -> np.ndarray:
    """Return the IoU of (D, 4) with (B, 4) boxes, or the share of the first inside the second: (D, B) float64."""
    import torch

    from posture.models.boxes import pairwise_iou, share_inside

    return (share_inside if inside else pairwise_iou)(
        *(torch.as_tensor(np.asarray(part, dtype=np.float64).reshape(-1, 4)) for part in (boxes, others))
    ).numpy()


def _why_false(
    overlaps: np.ndarray, same: np.ndarray, true_labels: np.ndarray, match: np.ndarray, *, classes: Sequence[str]
) -> tuple[str, str]:
    taken = np.isin(np.arange(len(overlaps)), match)
    best_same, best_other = (np.where(which, overlaps, 0.0).max(initial=0.0) for which in (same, ~same))
    if (same & taken & (overlaps >= ENOUGH)).any():
        return "second", FALSE["second"]
    if best_other >= ENOUGH:
        return "class", f"true class {classes[true_labels[np.where(same, 0.0, overlaps).argmax()]]}"
    if best_same >= NEAR:
        return "rough", f"overlaps the true box by only {best_same:.2f}"
    return "nothing", FALSE["nothing"]


def _why_missed(
    overlaps: np.ndarray,
    same: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    match: np.ndarray,
    *,
    reported: int,
    classes: Sequence[str],
) -> tuple[str, str]:
    places = np.arange(len(overlaps))
    idle = (places < reported) & (match < 0)
    mistaken = np.where(idle & ~same, overlaps, 0.0)
    if mistaken.max(initial=0.0) >= ENOUGH:
        return "class", f"reported as {classes[labels[mistaken.argmax()]]}"
    rough = np.where(idle & same, overlaps, 0.0).max(initial=0.0)
    if rough >= NEAR:
        return "rough", f"its box overlaps by only {rough:.2f}"
    doubted = same & (places >= reported) & (overlaps >= ENOUGH)
    if doubted.any():
        return "doubted", f"reported only at confidence {scores[doubted].max():.2f}"
    return "unseen", MISSED["unseen"]


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom


def box_of(mark: BoxMark) -> Box:
    """Return the mark as a box to draw."""
    outcome = {
        "right": "true positive",
        "false": f"false positive: {mark.reason}",
        "found": "true box, found",
        "missed": f"missed: {mark.reason}",
        "ignored": "in an ignore region, so not counted" if mark.reported else "ignore region",
    }[mark.kind]
    confidence = "" if mark.confidence is None else f", confidence {mark.confidence:.2f}"
    return Box(mark.box, mark.kind, mark.tag, f"{mark.name}{confidence}: {outcome}", above=mark.reported)
