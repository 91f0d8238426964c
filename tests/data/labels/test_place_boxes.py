import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from posture.data.labels.place_boxes import MIN_SIDE, place_boxes
from posture.data.labels.records import AnnotatedImage
from posture.data.store.files import File
from posture.errors import Unreadable

FILE = File("/x/a.png", "a.png", 1, 0.0)


def boxed_image(*boxes, **settings):
    return AnnotatedImage(FILE, boxes, tuple(f"class{number}" for number in range(len(boxes))), **settings)


def test_boxes_come_in_pixels_and_stay_in_the_image():
    placed = place_boxes(boxed_image((0.25, 0.5, 0.5, 1.0), normalised=True), 48, 64, "clip")
    assert placed == ([[16.0, 24.0, 32.0, 48.0]], [0], [], 0)
    placed = place_boxes(boxed_image((-10, 4, 20, 60), (70, 4, 90, 8), (4, 4, 4.25, 9), (1, 2, 3, 4)), 48, 64, "clip")
    assert (placed.boxes, placed.kept, placed.clipped) == ([[0.0, 4.0, 20.0, 48.0], [1.0, 2.0, 3.0, 4.0]], [0, 3], 1)
    assert placed.complaints == [
        "box 2 (class1) has nothing inside 64 x 48: 70 4 90 8",
        "box 3 (class2) has nothing inside 64 x 48: 4 4 4.25 9",
    ]


@pytest.mark.parametrize(
    ("boxes", "verdict", "reason"),
    [
        ([(1, 2, 3, 4), (4, 4, 4, 9)], "bad_label", "box 2 (class1) has no area: 4 4 4 9"),
        (
            [(9, 9, 5, 20), (5, 9, 5, 9)],
            "bad_label",
            "box 1 (class0) has no area: 9 9 5 20; box 2 (class1) has no area: 5 9 5 9",
        ),
        (
            [(0.1, 0.05, 0.9, 1.0), (0, 0, 0.2, 0.3)],
            "bad_label",
            "all of its boxes are within the first pixel; if they are shares of the image from 0 to 1, "
            "multiply them by its width and height",
        ),
        ([(70, 4, 90, 8)], "box_outside", "box 1 (class0) has nothing inside 64 x 48: 70 4 90 8"),
    ],
)
def test_an_image_whose_boxes_cannot_be_used_is_none_without_boxes(boxes, verdict, reason):
    with pytest.raises(Unreadable) as caught:
        place_boxes(boxed_image(*boxes), 48, 64, "clip")
    assert (caught.value.verdict, str(caught.value)) == (verdict, reason)


def test_an_image_may_be_refused_for_a_box_that_leaves_it():
    assert place_boxes(boxed_image((-0.8, 0, 64.9, 48)), 48, 64, "refuse").boxes == [[0.0, 0.0, 64.0, 48.0]], (
        "labels are rounded"
    )
    for box, complaint in (
        ((-2, 0, 10, 10), r"box 1 \(class0\) leaves 64 x 48: -2 0 10 10"),
        ((70, 5, 75, 9), "has nothing inside"),
    ):
        with pytest.raises(Unreadable, match=complaint) as caught:
            place_boxes(boxed_image(box), 48, 64, "refuse")
        assert caught.value.verdict == "box_outside"


def test_labels_of_another_size_are_refused():
    assert place_boxes(boxed_image((1, 2, 3, 4), size=(48, 64)), 48, 64, "clip").kept == [0]
    with pytest.raises(Unreadable, match="the labels are for 64 x 48 pixels, but the image is 48 x 64") as caught:
        place_boxes(boxed_image((1, 2, 3, 4), size=(48, 64)), 64, 48, "clip")
    assert caught.value.verdict == "size_mismatch"


number = st.floats(-300, 300, allow_nan=False, width=32)
upright = st.tuples(number, number, number, number).map(
    lambda box: (min(box[::2]), min(box[1::2]), max(box[::2]), max(box[1::2]))
)


@settings(max_examples=200, deadline=None)
@example(boxes=[(0, 0, 1, 1)], height=2, width=2)
@given(
    st.lists(st.one_of(st.tuples(number, number, number, number), upright), max_size=6),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_a_box_is_what_it_has_in_common_with_its_image(boxes, height, width):
    expected = {}
    for place, (x1, y1, x2, y2) in enumerate(boxes):
        common = [max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)]
        if common[2] - common[0] >= MIN_SIDE and common[3] - common[1] >= MIN_SIDE:
            expected[place] = common
    as_shares = boxes and max(map(max, boxes)) <= 1 < min(height, width)  # refused: they may be shares of the image
    if any(x2 <= x1 or y2 <= y1 for x1, y1, x2, y2 in boxes) or (boxes and not expected) or as_shares:
        with pytest.raises(Unreadable):
            place_boxes(boxed_image(*boxes), height, width, "clip")
        return
    placed = place_boxes(boxed_image(*boxes), height, width, "clip")
    assert placed.kept == list(expected) and len(placed.complaints) == len(boxes) - len(expected)
    for box, common in zip(placed.boxes, expected.values(), strict=True):
        assert box == pytest.approx(common, abs=1e-4)
        assert 0 <= box[0] < box[2] <= width and 0 <= box[1] < box[3] <= height


def test_ignore_regions_go_into_columns_of_their_own():
    drawn = boxed_image(
        (-10, 4, 20, 60),
        (70, 4, 90, 8),
        (1, 2, 3, 4),
        (0, 0, 9, 9),
        ignored=(True, False, False, True),
        tubes=("a", "b", "c", "d"),
    )
    assert place_boxes(drawn, 48, 64, "clip").columns(drawn) == {
        "boxes": [[1.0, 2.0, 3.0, 4.0]],
        "labels": ["class2"],
        "tubes": ["c"],
        "ignored": [[0.0, 4.0, 20.0, 48.0], [0.0, 0.0, 9.0, 9.0]],
        "ignored_labels": ["class0", "class3"],
    }
    plain = boxed_image((1, 2, 3, 4))
    assert place_boxes(plain, 48, 64, "clip").columns(plain) == {
        "boxes": [[1.0, 2.0, 3.0, 4.0]],
        "labels": ["class0"],
        "tubes": [""],
        "ignored": [],
        "ignored_labels": [],
    }
