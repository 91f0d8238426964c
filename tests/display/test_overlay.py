"""Marks on footage: inside the image at any size, no tag over another, and a playhead over the timeline."""

import numpy as np
import pytest

from posture.display.overlay import GROUND, Mark, Overlay, Row, RowPart, rgb, tag

BLUE, ORANGE = "#2b83c6", "#e0851f"
ROWS = [Row("1", [RowPart(0.0, 4.0, BLUE, "run"), RowPart(4.0, 10.0, ORANGE, "jump")]), Row("2", [])]


def drawn(overlay, height, width, marks, time=2.0):
    image = overlay.canvas(np.full((height, width, 3), 90, np.uint8))
    overlay.playhead(image, time)
    overlay.marks(image, marks)
    return image


def columns_of(image, colour):
    return np.flatnonzero((image == rgb(colour)).all(axis=-1))


@pytest.mark.parametrize(("height", "width"), [(320, 240), (1080, 1920), (64, 64), (97, 161), (16, 400), (2, 2)])
@pytest.mark.parametrize("box", [(-50, -50, 20, 30), (0, 0, 9999, 9999), (100, 60, 101, 61), (-9, -9, -5, -5)])
def test_any_box_can_be_drawn_on_any_image(height, width, box):
    overlay = Overlay(height, width, ROWS, start=0.0, end=10.0)
    image = drawn(overlay, height, width, [Mark(box, "1 Übergang zum Weitsprung 93 %", BLUE)] * 3)
    assert image.shape[1:] == (width, 3) and image.shape[0] % 2 == 0 and image.shape[0] > height


def test_tags_do_not_hide_each_other():
    overlay = Overlay(360, 640, [], start=0.0, end=10.0)
    marks = [Mark((200 + 5 * number, 150, 260, 200), f"{number} run", BLUE) for number in range(6)]
    image = drawn(overlay, 360, 640, marks)
    for mark in marks:
        whole = tag(mark.text, BLUE, size=overlay.text, room=(360, 640))
        assert any(
            (image[y : y + whole.shape[0], x : x + whole.shape[1]] == whole).all()
            for y in range(50, 300)
            for x in range(190, 230)
        )


def test_stretches_lie_at_their_time():
    image = Overlay(360, 640, ROWS, start=0.0, end=10.0).canvas(np.full((360, 640, 3), 90, np.uint8))
    row = image[364]
    blue, orange = columns_of(row, BLUE), columns_of(row, ORANGE)
    margin = blue[0]
    assert margin < 30 and orange[-1] > 630
    assert orange[0] == pytest.approx(margin + 0.4 * (640 - margin), abs=3) and blue[-1] < orange[0]


def test_the_playhead_moves_over_the_timeline_and_boxes_do_not_hide_it():
    overlay = Overlay(360, 640, ROWS, start=0.0, end=10.0)
    low = Mark((10, 10, 600, 359), "1", BLUE)
    at = [columns_of(drawn(overlay, 360, 640, [low], time)[-3], "#ffffff").mean() for time in (0.0, 5.0, 10.0, 99.0)]
    assert at[1] == pytest.approx((at[0] + at[2]) / 2, abs=2) and at[0] < 30 and at[2] == at[3] > 630


def test_text_fits_its_room():
    short = tag("a name", GROUND, size=40, room=(100, 400))
    assert short.shape[0] > 40 and short.shape[1] < 400
    for room in ((100, 60), (10, 400), (5, 5)):
        sprite = tag("a name that is much too long for its room", GROUND, size=40, room=room)
        assert sprite.shape[0] <= room[0] and sprite.shape[1] <= room[1]
