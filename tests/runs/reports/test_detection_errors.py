"""What became of each box: against cases worked by hand, and against how mAP matches boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posture.runs.reports.detection_errors import FALSE, MAX_BOXES, MISSED, drawn_of, judge
from posture.tasks.detection_metrics import ScoredImage, match_detections
from tests.support.figures.detector_report import scored_image

CLASSES = ("athlete", "ball")


def told(one: ScoredImage, confidence: float = 0.5) -> list[tuple[str, str, str]]:
    return [(mark.kind, mark.cause, mark.reason) for mark in judge(one, CLASSES, confidence=confidence)]


BOX = [0, 0, 10, 10]
HALF = [0, 0, 10, 4]  # IoU 0.4 with BOX
AWAY = [50, 50, 60, 60]


@pytest.mark.parametrize(
    ("found", "true", "expected"),
    [
        ([(BOX, 0.9, 0)], [(BOX, 0)], [("found", "", ""), ("right", "", "")]),
        ([(BOX, 0.4, 0)], [(BOX, 0)], [("missed", "doubted", "reported only at confidence 0.40")]),
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
                ("missed", "rough", "its box overlaps by only 0.40"),
                ("false", "rough", "overlaps the true box by only 0.40"),
            ],
        ),
        (
            [(BOX, 0.9, 1)],
            [(BOX, 0)],
            [("missed", "class", "reported as ball"), ("false", "class", "true class athlete")],
        ),
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
    assert told(scored_image(found, true)) == expected


def test_what_is_reported_in_an_ignore_region_is_neither_right_nor_wrong() -> None:
    regions = (np.float32([[40, 40, 80, 80], [0, 0, 10, 10]]), np.array([0, 1]))
    found = [(BOX, 0.9, 0), (AWAY, 0.8, 0), (AWAY, 0.7, 1), ([70, 70, 95, 95], 0.6, 0), (HALF, 0.55, 1)]
    marks = judge((*scored_image(found, [(BOX, 0)]), *regions), CLASSES, confidence=0.5)
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
    marks = judge(scored_image([(BOX, 0.6, 0), (wide, 0.7, 0)], [(BOX, 0), (wide, 0)]), CLASSES, confidence=0.5)
    assert [mark.kind for mark in marks] == ["found", "found", "right", "right"]
    assert [mark.confidence for mark in marks[2:]] == pytest.approx([0.7, 0.6]) and marks[2].box == (0, 0, 12, 10)
    only = judge(scored_image([(BOX, 0.6, 0), (wide, 0.7, 0)], [(BOX, 0)]), CLASSES, confidence=0.5)
    assert [(mark.kind, mark.cause) for mark in only] == [("found", ""), ("right", ""), ("false", "second")] and only[
        2
    ].confidence == pytest.approx(0.6)


def test_tags_say_class_and_confidence_or_what_was_missed() -> None:
    marks = judge(
        scored_image([(BOX, 0.914, 0), (AWAY, 0.7, 1)], [(BOX, 0), ([30, 0, 40, 10], 1)]), CLASSES, confidence=0.5
    )
    assert [(mark.kind, mark.tag, mark.reported) for mark in marks] == [
        ("found", "", False),
        ("missed", "missed: ball", False),
        ("right", "athlete 0.91", True),
        ("false", "ball 0.70", True),
    ]


@st.composite
def scored_images(draw: st.DrawFn) -> ScoredImage:
    side = st.integers(0, 12)

    def box() -> list[float]:
        x, y = draw(side), draw(side)
        return [x, y, x + 1 + draw(side), y + 1 + draw(side)]

    found = [(box(), draw(st.integers(1, 9)) / 10, draw(st.integers(0, 1))) for _ in range(draw(st.integers(0, 6)))]
    return scored_image(found, [(box(), draw(st.integers(0, 1))) for _ in range(draw(st.integers(0, 4)))])


@settings(max_examples=60, deadline=None)
@given(scored_images(), st.integers(0, 10))
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


def test_so_many_boxes_that_none_can_be_seen_are_not_all_drawn() -> None:
    vain = [([x, 50, x + 10, 60], 0.5 + x / 1000, 0) for x in range(67)]
    marks = judge(scored_image([(BOX, 0.51, 0), *vain], [(BOX, 0), ([0, 80, 10, 90], 0)]), CLASSES, confidence=0.5)
    drawn = drawn_of(marks)
    assert len(marks) == 70 and len(drawn) == MAX_BOXES and [mark.kind for mark in drawn[:2]] == ["found", "missed"]
    certain = sorted((mark.confidence for mark in marks if mark.kind == "false"), reverse=True)[: MAX_BOXES - 3]
    assert sorted((mark.confidence for mark in drawn if mark.kind == "false"), reverse=True) == certain and any(
        mark.kind == "right" for mark in drawn
    )
    few = judge(scored_image([(BOX, 0.9, 0)], [(BOX, 0)]), CLASSES, confidence=0.5)
    assert drawn_of(few) == few
