"""Pasted boxes: what is labelled is where the label says, and what is covered is no longer labelled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posture.data.feed.copy_paste import FADED, MOST_COVERED, RESIZE, paste_boxes
from posture.data.feed.image_transforms import BoxedImage

BLACK, WHITE = 0, 255


def flat(height: int, width: int, level: int, boxes: list[list[float]], labels: list[int] | None = None) -> BoxedImage:
    """An image of one level with these boxes."""
    return BoxedImage(
        np.full((height, width, 3), level, np.uint8),
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(range(len(boxes)) if labels is None else labels, np.int64),
    )


SIDES = st.integers(8, 90)


@st.composite
def donors(draw: st.DrawFn) -> BoxedImage:
    """A white image with one box, of any real corners."""
    height, width = draw(SIDES), draw(SIDES)
    x1, y1 = draw(st.floats(0, width - 4)), draw(st.floats(0, height - 4))
    x2, y2 = draw(st.floats(x1 + 3, width)), draw(st.floats(y1 + 3, height))
    return flat(height, width, WHITE, [[x1, y1, x2, y2]], [5])


@settings(max_examples=150, deadline=None)
@given(donors(), SIDES, SIDES, st.integers(0, 2**32))
def test_a_pasted_box_is_around_what_was_pasted(donor: BoxedImage, height: int, width: int, seed: int) -> None:
    """White pixels on black; the box is at most two of their sides larger, because it is cut out in whole pixels."""
    result = paste_boxes(flat(height, width, BLACK, []), donor, np.random.default_rng(seed))
    assert result.pixels.shape == (height, width, 3) and result.boxes.dtype == np.float32
    assert result.labels.tolist() == [5] and result.labels.dtype == np.int64
    (box,) = result.boxes
    assert (box[:2] >= -1e-3).all() and (box[2:] <= np.array([width, height]) + 1e-3).all()
    rows, columns = np.nonzero(result.pixels[..., 0])
    seen = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    cut = np.ceil(donor.boxes[0, 2:]) - np.floor(donor.boxes[0, :2])
    one = (seen[2:] - seen[:2]) / cut  # a pixel of the donor
    assert (np.abs(box - seen) <= np.tile(one, 2) + 1e-3).all()


@settings(max_examples=100, deadline=None)
@given(donors(), SIDES, SIDES, st.integers(0, 2**32))
def test_a_pasted_box_keeps_its_size_beside_the_image_within_the_range(
    donor: BoxedImage, height: int, width: int, seed: int
) -> None:
    (box,) = paste_boxes(flat(height, width, BLACK, []), donor, np.random.default_rng(seed)).boxes
    before = (donor.boxes[0, 2:] - donor.boxes[0, :2]) / max(donor.pixels.shape[:2])
    factor = (box[2:] - box[:2]) / max(height, width) / before
    cut = np.ceil(donor.boxes[0, 2:]) - np.floor(donor.boxes[0, :2])
    rounding = max(height, width) / max(donor.pixels.shape[:2]) * cut
    assert (factor <= RESIZE * (1 + 1e-4)).all() or (rounding * RESIZE < 2).any()  # a side is at least one pixel
    fits = (cut * max(height, width) / max(donor.pixels.shape[:2]) * RESIZE < [width, height]).all()
    assert not fits or (factor >= (1 / RESIZE) * (1 - RESIZE / rounding) - 1e-3).all()


def test_the_middle_is_opaque_and_edges_fade() -> None:
    donor = flat(60, 60, WHITE, [[10, 10, 50, 50]])
    result = paste_boxes(flat(60, 60, BLACK, []), donor, np.random.default_rng(1))
    left, top, right, bottom = np.rint(result.boxes[0]).astype(int).tolist()
    row = result.pixels[(top + bottom) // 2, left:right, 0].astype(int)
    fade = FADED * (right - left)
    ramp = np.minimum(1.0, (0.5 + np.minimum(np.arange(len(row)), np.arange(len(row))[::-1])) / fade)
    np.testing.assert_allclose(row, ramp * WHITE, atol=2)
    assert row[len(row) // 2] == WHITE and row[0] < 100


def test_half_of_them_are_flipped_with_their_boxes() -> None:
    """A box that is not in the middle of its pixels tells the two apart: the cut begins half a pixel before it."""
    donor = flat(40, 40, WHITE, [[10.5, 10, 30, 30]])
    donor.pixels[:, :20] = 100  # the left half is darker
    flips = []
    for seed in range(60):
        result = paste_boxes(flat(40, 40, BLACK, []), donor, np.random.default_rng(seed))
        left, top, right, bottom = result.boxes[0]
        row = result.pixels[int(top + bottom) // 2, int(left) + 3 : int(right) - 3, 0].astype(int)
        flips.append(row[0] > row[-1])
        whole = left == round(left), right == round(right)  # the true edge of the donor's box is a whole pixel
        assert whole == ((True, False) if flips[-1] else (False, True)) or (right - left) % 1 == 0
    assert 15 < sum(flips) < 45


def test_the_same_seed_pastes_the_same_and_the_arguments_stay_as_they_were() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    image, donor = (
        flat(50, 70, 30, [[1, 1, 20, 20]]),
        flat(50, 70, 0, [[3, 4, 30, 40], [40, 5, 60, 45]])._replace(pixels=pixels),
    )
    kept = [part.copy() for part in (image.pixels, image.boxes, donor.pixels, donor.boxes)]
    first, again, other = (paste_boxes(image, donor, np.random.default_rng(seed)) for seed in (7, 7, 8))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not np.array_equal(first.pixels, other.pixels)
    for before, now in zip(kept, (image.pixels, image.boxes, donor.pixels, donor.boxes), strict=True):
        np.testing.assert_array_equal(before, now)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.integers(0, 2**32))
def test_a_box_stays_exactly_while_half_of_it_is_seen(data: st.DataObject, seed: int) -> None:
    """Boxes of whole pixels, each pasted box in a grey of its own: the share that is seen can be counted."""
    corners = st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(4, 40), st.integers(4, 40))
    there = [[x, y, min(x + w, 64), min(y + h, 64)] for x, y, w, h in data.draw(st.lists(corners, max_size=4))]
    image = flat(64, 64, BLACK, there, [9] * len(there))
    donor = flat(80, 80, WHITE, [[4, 4, 34, 34], [44, 44, 76, 60]], [1, 2])
    result = paste_boxes(image, donor, np.random.default_rng(seed))
    left = [box.tolist() for box, label in zip(result.boxes, result.labels, strict=True) if label == 9]
    for box in there:
        x1, y1, x2, y2 = box
        covered = (result.pixels[y1:y2, x1:x2, 0] > 0).mean()
        assert (box in left) == (covered <= MOST_COVERED), covered


def test_boxes_that_share_pixels_are_not_cut_out() -> None:
    """Part of another athlete would come without a label; so would what an ignore region hides."""
    image = flat(90, 90, BLACK, [])
    donor = flat(90, 90, WHITE, [[0, 0, 30, 30], [20, 0, 50, 30], [60, 60, 80, 80], [29, 60, 40, 80]])
    assert set(paste_boxes(image, donor, np.random.default_rng(0)).labels.tolist()) <= {2, 3}
    near = donor._replace(ignored=np.array([[60, 60, 66, 80]], np.float32), ignored_labels=np.zeros(1, np.int64))
    assert set(paste_boxes(image, near, np.random.default_rng(0)).labels.tolist()) <= {3}


@pytest.mark.parametrize("boxes", [[], [[5, 5, 5, 5]], [[30, 30, 50, 50]]])
def test_without_anything_to_paste_the_image_stays(boxes: list[list[float]]) -> None:
    image = flat(20, 20, 40, [[2, 2, 9, 9]])._replace(
        ignored=np.array([[0, 0, 4, 4]], np.float32), ignored_labels=np.array([1])
    )
    result = paste_boxes(image, flat(20, 20, WHITE, boxes), np.random.default_rng(0))
    np.testing.assert_array_equal(result.pixels, image.pixels)
    assert result.boxes.tolist() == [[2, 2, 9, 9]] and result.labels.tolist() == [0]
    assert result.ignored.tolist() == [[0, 0, 4, 4]] and result.ignored_labels.tolist() == [1]
