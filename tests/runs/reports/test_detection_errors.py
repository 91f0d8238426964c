"""What became of each box: against cases worked by hand, and against how mAP matches boxes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from posture.runs.reports.detection_errors import (
    COLOURS,
    FALSE,
    MISSED,
    MOST_BOXES,
    TILE,
    detections_sheet,
    drawn_of,
    judge,
    pr_image,
)
from posture.tasks.detection_metrics import ScoredImage, detection_metrics, match_detections

CLASSES = ("athlete", "ball")


def picture(found: list[tuple[list[float], float, int]], true: list[tuple[list[float], int]]) -> ScoredImage:
    """Of (box, score, label) and (box, label)."""
    return (
        np.array([box for box, _, _ in found], dtype=np.float32).reshape(-1, 4),
        np.array([score for _, score, _ in found], dtype=np.float32),
        np.array([label for _, _, label in found], dtype=np.int64),
        np.array([box for box, _ in true], dtype=np.float32).reshape(-1, 4),
        np.array([label for _, label in true], dtype=np.int64),
    )


def told(one: ScoredImage, confidence: float = 0.5) -> list[tuple[str, str, str]]:
    return [(mark.kind, mark.cause, mark.reason) for mark in judge(one, CLASSES, confidence=confidence)]


BOX = [0, 0, 10, 10]
HALF = [0, 0, 10, 4]  # IoU 0.4 with BOX
AWAY = [50, 50, 60, 60]


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ([(BOX, 0.9, 0)], [(BOX, 0)], [("found", "", ""), ("right", "", "")]),
        ([(BOX, 0.4, 0)], [(BOX, 0)], [("missed", "doubted", "found, but at confidence 0.40")]),
        ([], [(BOX, 0)], [("missed", "unseen", MISSED["unseen"])]),
        ([(HALF, 0.4, 0)], [(BOX, 0)], [("missed", "unseen", MISSED["unseen"])]),  # neither sure nor close
        ([(BOX, 0.9, 0)], [], [("false", "nothing", FALSE["nothing"])]),
        (
            [(AWAY, 0.9, 0)],
            [(BOX, 0)],
            [("missed", "unseen", MISSED["unseen"]), ("false", "nothing", FALSE["nothing"])],
        ),
        (
            [(HALF, 0.9, 0)],
            [(BOX, 0)],
            [
                ("missed", "rough", "its box overlaps by 0.40 only"),
                ("false", "rough", "overlaps the true one by 0.40 only"),
            ],
        ),
        ([(BOX, 0.9, 1)], [(BOX, 0)], [("missed", "class", "taken for ball"), ("false", "class", "in truth athlete")]),
        (
            [(BOX, 0.9, 0), (BOX, 0.8, 0)],
            [(BOX, 0)],
            [("found", "", ""), ("right", "", ""), ("false", "second", FALSE["second"])],
        ),
        (
            [(HALF, 0.9, 1)],
            [(BOX, 0)],
            [("missed", "unseen", MISSED["unseen"]), ("false", "nothing", FALSE["nothing"])],
        ),
        (
            [(BOX, 0.9, 0)],
            [(BOX, 0), (BOX, 0)],
            [("missed", "unseen", MISSED["unseen"]), ("found", "", ""), ("right", "", "")],
        ),  # one box for two
    ],
)
def test_every_box_has_its_fate_and_its_cause(found: Any, true: Any, expected: Any) -> None:
    assert told(picture(found, true)) == expected


def test_what_is_reported_in_an_ignore_region_is_neither_right_nor_wrong() -> None:
    regions = (np.float32([[40, 40, 80, 80], [0, 0, 10, 10]]), np.array([0, 1]))
    found = [(BOX, 0.9, 0), (AWAY, 0.8, 0), (AWAY, 0.7, 1), ([70, 70, 95, 95], 0.6, 0), (HALF, 0.55, 1)]
    marks = judge((*picture(found, [(BOX, 0)]), *regions), CLASSES, confidence=0.5)
    assert [(mark.kind, mark.confidence and round(mark.confidence, 2)) for mark in marks] == [
        ("found", None),
        ("right", 0.9),
        ("ignored", 0.8),
        ("false", 0.7),
        ("false", 0.6),
        ("ignored", 0.55),
        ("ignored", None),
        ("ignored", None),
    ]
    assert [mark.tag for mark in marks[-2:]] == ["", ""] and marks[2].tag == "athlete 0.80"


def test_the_more_certain_box_chooses_first_and_takes_what_it_overlaps_most() -> None:
    wide = [0, 0, 12, 10]  # IoU 10/12 with BOX, 1 with itself
    marks = judge(picture([(BOX, 0.6, 0), (wide, 0.7, 0)], [(BOX, 0), (wide, 0)]), CLASSES, confidence=0.5)
    assert [mark.kind for mark in marks] == ["found", "found", "right", "right"]
    assert [mark.confidence for mark in marks[2:]] == pytest.approx([0.7, 0.6]) and marks[2].box == (0, 0, 12, 10)
    only = judge(picture([(BOX, 0.6, 0), (wide, 0.7, 0)], [(BOX, 0)]), CLASSES, confidence=0.5)
    assert [(mark.kind, mark.cause) for mark in only] == [("found", ""), ("right", ""), ("false", "second")] and only[
        2
    ].confidence == pytest.approx(0.6)


def test_tags_say_class_and_confidence_or_what_was_missed() -> None:
    marks = judge(picture([(BOX, 0.914, 0), (AWAY, 0.7, 1)], [(BOX, 0), ([30, 0, 40, 10], 1)]), CLASSES, confidence=0.5)
    assert [(mark.kind, mark.tag, mark.reported) for mark in marks] == [
        ("found", "", False),
        ("missed", "missed: ball", False),
        ("right", "athlete 0.91", True),
        ("false", "ball 0.70", True),
    ]


def test_a_sheet_shows_ignore_regions() -> None:
    one = (*picture([(AWAY, 0.8, 0)], []), np.float32([[40, 40, 80, 80]]), np.array([0]))
    sheets = [
        detections_sheet("run", [np.zeros((100, 100, 3), np.uint8)], [shown], CLASSES, confidence=0.5)
        for shown in (one, one[:5])
    ]
    assert sheets[0] != sheets[1]


@st.composite
def pictures(draw: st.DrawFn) -> ScoredImage:
    side = st.integers(0, 12)

    def box() -> list[float]:
        x, y = draw(side), draw(side)
        return [x, y, x + 1 + draw(side), y + 1 + draw(side)]

    found = [(box(), draw(st.integers(1, 9)) / 10, draw(st.integers(0, 1))) for _ in range(draw(st.integers(0, 6)))]
    return picture(found, [(box(), draw(st.integers(0, 1))) for _ in range(draw(st.integers(0, 4)))])


@settings(max_examples=60, deadline=None)
@given(pictures(), st.integers(0, 10))
def test_as_many_are_right_as_average_precision_counts(one: ScoredImage, tenths: int) -> None:
    confidence = tenths / 10 - 0.05
    marks = judge(one, CLASSES, confidence=confidence)
    matched = match_detections([one], len(CLASSES))
    hits = sum(
        int(right[0][scores >= confidence].sum()) for right, scores in zip(matched.hits, matched.scores, strict=True)
    )
    kinds = [mark.kind for mark in marks]
    assert kinds.count("right") == kinds.count("found") == hits
    assert kinds.count("found") + kinds.count("missed") == len(one[3])
    assert kinds.count("right") + kinds.count("false") == int((one[1] >= confidence).sum())
    assert all(
        (mark.cause in (MISSED if mark.kind == "missed" else FALSE)) == (mark.kind in ("missed", "false"))
        for mark in marks
    )


def rgb(code: str) -> tuple[int, ...]:
    return tuple(int(code[place : place + 2], 16) for place in (1, 3, 5))


def test_a_sheet_draws_found_solid_and_true_dashed_in_colours_of_their_own() -> None:
    grey = np.full((TILE, TILE, 3), 128, dtype=np.uint8)
    one = picture(
        [([40, 60, 140, 160], 0.9, 0), ([200, 60, 300, 160], 0.8, 0)],
        [([40, 60, 140, 170], 0), ([200, 220, 300, 300], 0)],
    )
    sheet = np.asarray(
        Image.open(io.BytesIO(detections_sheet("run", [grey], [one], CLASSES, confidence=0.5))).convert("RGB")
    ).astype(int)
    top = sheet.shape[0] - TILE - 16  # the image stands at the foot

    def near(row: int, columns: range, colour: str) -> list[bool]:
        """Whether the pixels of a row, or those beside it, have the colour."""
        rows = sheet[top + row - 2 : top + row + 3, 8 + columns.start : 8 + columns.stop]
        return (np.abs(rows - rgb(colour)).sum(axis=-1) < 30).any(axis=0).tolist()

    assert all(near(60, range(50, 130), COLOURS["right"])) and all(near(60, range(210, 290), COLOURS["false"]))
    for row, columns, kind in ((170, range(50, 130), "found"), (220, range(210, 290), "missed")):
        dashes = near(row, columns, COLOURS[kind])
        assert 0.35 < np.mean(dashes) < 0.75, kind
    assert not any(near(60, range(150, 190), COLOURS["false"]))


def test_sheets_and_curves_are_pngs() -> None:
    random = np.random.default_rng(0)
    shown = [random.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(11)] + [
        random.integers(0, 256, (400, 200, 3), dtype=np.uint8)
    ]
    ones = [picture([(BOX, 0.9, 0), (AWAY, 0.8, 1)], [(BOX, 0)])] * 12
    sheets = [
        detections_sheet("<run>", shown, ones, CLASSES, confidence=0.5),
        pr_image("<run>", detection_metrics(ones, CLASSES)),
    ]
    sizes = [Image.open(io.BytesIO(sheet)).size for sheet in sheets]
    assert (
        sizes[0][0] == 4 * (TILE + 8) + 8
        and sizes[0][1] > 2 * 240 + 640
        and all(sheet.startswith(b"\x89PNG") for sheet in sheets)
    )


@pytest.mark.parametrize("ones", [[], [picture([], [])], [picture([(BOX, 0.5, 0)], [])]])
def test_images_of_nothing(ones: list[ScoredImage]) -> None:
    assert detections_sheet(
        "run", [np.zeros((8, 16, 3), dtype=np.uint8)] * len(ones), ones, CLASSES, confidence=0.1
    ).startswith(b"\x89PNG")
    assert pr_image("run", detection_metrics(ones, CLASSES)).startswith(b"\x89PNG")


def test_the_curve_of_precision_goes_through_its_points() -> None:
    # precision 1 up to recall 0.5, then nothing
    ones = [picture([(BOX, 0.9, 0)], [(BOX, 0)]), picture([(AWAY, 0.8, 0)], [(BOX, 0)])]
    drawn = np.asarray(
        Image.open(io.BytesIO(pr_image("run", detection_metrics(ones, CLASSES[:1])))).convert("RGB")
    ).astype(int)
    blue = np.abs(drawn - rgb("#0b5fa5")).sum(axis=-1) < 40
    top, foot = (
        np.flatnonzero(blue[:, column].any(axis=1))[place]
        for column, place in ((slice(60, 260), 0), (slice(300, 480), 0))
    )
    assert foot - top == pytest.approx(440, abs=4)


def test_so_many_boxes_that_none_can_be_seen_are_not_all_drawn() -> None:
    vain = [([x, 50, x + 10, 60], 0.5 + x / 1000, 0) for x in range(67)]
    marks = judge(picture([(BOX, 0.51, 0), *vain], [(BOX, 0), ([0, 80, 10, 90], 0)]), CLASSES, confidence=0.5)
    drawn = drawn_of(marks)
    assert len(marks) == 70 and len(drawn) == MOST_BOXES and [mark.kind for mark in drawn[:2]] == ["found", "missed"]
    certain = sorted((mark.confidence for mark in marks if mark.kind == "false"), reverse=True)[: MOST_BOXES - 3]
    assert sorted((mark.confidence for mark in drawn if mark.kind == "false"), reverse=True) == certain and any(
        mark.kind == "right" for mark in drawn
    )
    few = judge(picture([(BOX, 0.9, 0)], [(BOX, 0)]), CLASSES, confidence=0.5)
    assert drawn_of(few) == few
