"""What a detector found in an image beside what is there: every box right or wrong, found or missed, and why; and
images of it.

Legend: D reported and B true boxes of an image, xyxy in pixels. Drawn boxes are told apart by more than colour: what
was reported is solid, what is true is dashed; blue is right, orange wrong, grey counts for nothing: ignore regions, and
what was reported inside one.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from posture.display.heatmaps import GROUND, INK, LINES, SOFT
from posture.tasks.detection_metrics import ScoredImage

ENOUGH = 0.5
"""Overlap (IoU) from which on a reported box counts for a true one of its class, as in mAP@0.5."""
NEAR = 0.1
"""Overlap from which on a box that counts for none was rather drawn badly than for something else (Bolya 2020, arXiv
2008.08115, section 2.2).
"""

FALSE = {
    "nothing": "nothing is labelled there",
    "rough": "overlaps the true box too little",
    "class": "taken for another class",
    "second": "a second box for the same",
}
MISSED = {
    "unseen": "nothing found for it",
    "doubted": "found below the confidence",
    "rough": "its box overlaps too little",
    "class": "taken for another class",
}
"""Why a box was reported in vain, and why a true one was not found."""


@dataclass(frozen=True)
class BoxMark:
    """A box in an image and what became of it."""

    box: tuple[float, float, float, float]
    """xyxy in pixels."""
    kind: Literal["right", "false", "found", "missed", "ignored"]
    """Reported and right, reported in vain; true and found, true and missed; an ignore region or reported inside one.
    """
    name: str
    """Its class."""
    confidence: float | None = None
    """None of true boxes."""
    cause: str = ""
    """A key of FALSE or MISSED."""
    reason: str = ""
    """The cause, with the figures of this box."""

    @property
    def reported(self) -> bool:
        return self.confidence is not None

    @property
    def tag(self) -> str:
        """What is written beside it."""
        if self.confidence is not None:
            return f"{self.name} {self.confidence:.2f}"
        return f"missed: {self.name}" if self.kind == "missed" else ""


MOST_BOXES = 30
"""Drawn in an image; how many are left out is said."""


def drawn_of(marks: Sequence[BoxMark]) -> list[BoxMark]:
    """The marks that are drawn, at most MOST_BOXES: true boxes and right ones first, then those reported in vain, the
    most certain first.
    """
    first = sorted(marks, key=lambda mark: (mark.reported and mark.kind != "right", -(mark.confidence or 0.0)))[
        :MOST_BOXES
    ]
    return [mark for mark in marks if mark in first]


def judge(found: ScoredImage, classes: Sequence[str], *, confidence: float) -> list[BoxMark]:
    """Every true box, every box reported with at least that confidence, best first, and every ignore region.

    As COCO matches: each reported box takes, of the true boxes of its class that none before it took, the one that it
    overlaps most and enough. One that takes none and of which ENOUGH lies in an ignore region of its class counts for
    nothing.
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
            # of equal ones the later, as COCO does
            match[row] = len(free) - 1 - np.where(free, overlaps[row], -1.0)[::-1].argmax()

    marks = []
    for place, (box, label) in enumerate(zip(true_boxes, true_labels, strict=True)):
        if place in match:
            marks.append(BoxMark(_corners(box), "found", classes[label]))
        else:
            cause, reason = _why_missed(
                overlaps[:, place], same[:, place], scores, labels, match, reported=reported, classes=classes
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
    """IoU of each of (D, 4) boxes with each of (B, 4), or the share of the first inside the second: (D, B) float64."""
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
        return "class", f"in truth {classes[true_labels[np.where(same, 0.0, overlaps).argmax()]]}"
    if best_same >= NEAR:
        return "rough", f"overlaps the true one by {best_same:.2f} only"
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
        return "class", f"taken for {classes[labels[mistaken.argmax()]]}"
    rough = np.where(idle & same, overlaps, 0.0).max(initial=0.0)
    if rough >= NEAR:
        return "rough", f"its box overlaps by {rough:.2f} only"
    doubted = same & (places >= reported) & (overlaps >= ENOUGH)
    if doubted.any():
        return "doubted", f"found, but at confidence {scores[doubted].max():.2f}"
    return "unseen", MISSED["unseen"]


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom


COLOURS = {"right": "#4aa8ff", "found": "#ffffff", "false": "#ff9a33", "missed": "#ff9a33", "ignored": "#b4b9bf"}
"""On images, which are neither light nor dark; the pages' blue and orange, brighter."""
TILE, GAP, HEAD, ACROSS = 320, 8, 52, 4


def detections_sheet(
    title: str,
    images: Sequence[np.ndarray],
    predictions: Sequence[ScoredImage],
    classes: Sequence[str],
    *,
    confidence: float,
) -> bytes:
    """Images, uint8 (h, w, 3) RGB, with their boxes, four in a row: a PNG. `predictions` are in pixels of these
    images.
    """
    from PIL import Image, ImageDraw, ImageFont

    judged = [judge(one, classes, confidence=confidence) for one in predictions]
    tiles = [_drawn(image, drawn_of(marks)) for image, marks in zip(images, judged, strict=True)]
    left_out = sum(len(marks) - len(drawn_of(marks)) for marks in judged)
    across = max(2, min(ACROSS, len(tiles)))
    rows = [tiles[start : start + across] for start in range(0, len(tiles), across)]
    heights = [max(tile.height for tile in row) + GAP for row in rows]
    sheet = Image.new("RGB", (across * (TILE + GAP) + GAP, HEAD + sum(heights) + GAP), GROUND)
    write = ImageDraw.Draw(sheet)
    said = f"; {left_out:,} boxes, more than {MOST_BOXES} in an image, are not drawn" if left_out else ""
    write.text((GAP, 8), f"{title}{said}", fill=INK, font=ImageFont.load_default(15))
    key = f"solid: reported from confidence {confidence:.2f} on (blue right, orange in vain); dashed: true (white found, orange missed)"
    write.text((GAP, 29), key, fill=SOFT, font=ImageFont.load_default(12))
    top = HEAD
    for row, height in zip(rows, heights, strict=True):
        for place, tile in enumerate(row):
            sheet.paste(tile, (GAP + place * (TILE + GAP), top))
        top += height
    return _png(sheet)


def _drawn(image: np.ndarray, marks: Sequence[BoxMark]) -> Any:
    """The image, `TILE` pixels wide, with its boxes: a PIL image."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = image.shape[:2]
    scale = TILE / width
    tile = Image.fromarray(np.ascontiguousarray(image)).resize(
        (TILE, max(1, round(height * scale))), Image.Resampling.BILINEAR
    )
    draw, font = ImageDraw.Draw(tile), ImageFont.load_default(12)
    for mark in marks:
        left, top, right, bottom = (scale * side for side in mark.box)
        corners = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
        pieces = [
            piece for edge in itertools.pairwise(corners) for piece in ([edge] if mark.reported else _dashes(*edge))
        ]
        for colour, thickness in (("#000000", 4), (COLOURS[mark.kind], 2)):
            for piece in pieces:
                draw.line(piece, fill=colour, width=thickness)
        if mark.tag:
            at = (
                max(2, min(left, TILE - 2 - draw.textlength(mark.tag, font=font))),
                top - 16 if mark.reported else bottom + 3,
            )
            if not 0 <= at[1] <= tile.height - 14:
                at = (at[0] + 3, top + 3 if mark.reported else bottom - 17)
            draw.text(at, mark.tag, fill=COLOURS[mark.kind], font=font, stroke_width=2, stroke_fill="#000000")
    return tile


def _dashes(
    start: tuple[float, float], end: tuple[float, float], length: float = 6.0
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Every second piece of a line."""
    first, last = np.array(start), np.array(end)
    far = float(np.abs(last - first).max())
    steps = np.arange(0.0, far, 2 * length)
    step = (last - first) / max(far, 1e-9)
    return [(tuple(first + at * step), tuple(first + min(at + length, far) * step)) for at in steps]


def pr_image(title: str, metrics: Mapping[str, Any]) -> bytes:
    """Precision over recall at an overlap of 0.5, of each class and their mean, of `posture.tasks.detection_metrics`: a
    PNG.
    """
    from PIL import Image, ImageDraw, ImageFont

    side, left, top = 2 * 440, 2 * 60, 2 * 80  # twice as large as shown: PIL draws slanted lines in steps
    image = Image.new("RGB", (left + side + 2 * 24, top + side + 2 * 56), GROUND)
    draw, small = ImageDraw.Draw(image), ImageFont.load_default(2 * 12)
    figures = [
        f"{name} {metrics[key]:.3f}"
        for key, name in (("map50", "mAP@0.5"), ("map50_95", "mAP@0.5:0.95"))
        if metrics[key] is not None
    ]
    draw.text((left, 2 * 10), title, fill=INK, font=ImageFont.load_default(2 * 14))
    draw.text((left, 2 * 30), ", ".join(figures) or "nothing to find", fill=SOFT, font=small)
    for tick in np.linspace(0, 1, 6):
        height = top + (1 - tick) * side
        draw.line([(left, height), (left + side, height)], fill=SOFT if tick == 0 else "#e3e0d9", width=2)
        draw.text((left - 12, height), f"{tick:g}", fill=SOFT, font=small, anchor="rm")
        draw.text((left + tick * side, top + side + 12), f"{tick:g}", fill=SOFT, font=small, anchor="mt")
    draw.text((left + side / 2, top + side + 2 * 36), "recall", fill=SOFT, font=small, anchor="mm")
    draw.text((2 * 8, top - 2 * 14), "precision", fill=SOFT, font=small, anchor="lm")
    curves = [curve["precision_at_recall"] for curve in metrics["curves"]["classes"].values()]
    lines = [(curve, "#b4b9bf", 2) for curve in curves if len(curves) > 1] + (
        [(np.mean(curves, axis=0), LINES[0], 5)] if curves else []
    )
    for values, colour, width in lines:
        points = [
            (left + recall * side, top + (1 - value) * side)
            for recall, value in zip(metrics["curves"]["recall"], values, strict=True)
        ]
        draw.line(points, fill=colour, width=width, joint="curve")
    return _png(image.resize((image.width // 2, image.height // 2), Image.Resampling.LANCZOS))


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
