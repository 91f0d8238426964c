import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posture.data.decode.cropping import cut_out, cuts_along
from posture.data.labels.records import Tube

HEIGHT, WIDTH = 240, 320


def tube(boxes):
    return Tube("ann", "", dict(boxes))


@st.composite
def wanderings(draw):
    """Draw a tube that jumps about, partly outside the image, with missing frames; and the frames of a clip."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    known = sorted(random.choice(90, size=draw(st.integers(1, 60)), replace=False).tolist())
    centres = np.cumsum(random.normal(0, draw(st.floats(0, 9)), (len(known), 2)), axis=0) + random.uniform(
        (0, 0), (WIDTH, HEIGHT)
    )
    sides = random.uniform(4, 90, (len(known), 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
    boxes = boxes.clip([-30, -30, -30, -30], [WIDTH + 30, HEIGHT + 30] * 2)
    first = draw(st.integers(0, 40))
    return tube({frame: tuple(box) for frame, box in zip(known, boxes.tolist(), strict=True)}), list(
        range(first, first + 2 * draw(st.integers(1, 24)), 2)
    )


@given(wanderings(), st.floats(0, 2), st.floats(0.4, 2.5), st.booleans())
def test_the_athlete_is_inside_and_the_size_is_constant(wandering, margin, aspect, centred):
    path, numbers = wandering
    cuts = cuts_along(path, numbers, margin=margin, height=HEIGHT, width=WIDTH, aspect=aspect, centred=centred)
    sides = cuts[:, 2:] - cuts[:, :2]
    np.testing.assert_allclose(sides, np.round(sides[0]) + np.zeros_like(sides), atol=1e-9)
    assert abs(sides[0, 0] - sides[0, 1] * aspect) <= 1 + aspect
    inside = np.array([0, 0, WIDTH, HEIGHT])
    for number, cut in zip(numbers, cuts, strict=True):
        if number in path.boxes:
            box = np.clip(path.boxes[number], [0, 0, 0, 0], [WIDTH, HEIGHT, WIDTH, HEIGHT])
            assert (box[:2] >= cut[:2] - 1e-6).all() and (box[2:] <= cut[2:] + 1e-6).all()
        for axis in range(0 if centred else 2):
            fits = sides[0, axis] <= inside[2 + axis]
            low, high = cut[axis], cut[2 + axis]
            assert (low >= 0 and high <= inside[2 + axis]) if fits else (low <= 0 and high >= inside[2 + axis])


def test_a_still_athlete_by_hand():
    still = tube({frame: (100, 80, 140, 100) for frame in range(20)})
    cuts = cuts_along(still, [0, 10, 19], margin=0.5, height=HEIGHT, width=WIDTH, aspect=1.0)
    # 40 x 20 pixels with half of that on each side: 80 x 40, made square
    np.testing.assert_allclose(cuts, [[80, 50, 160, 130]] * 3)
    wide = cuts_along(still, [0], margin=0.0, height=HEIGHT, width=WIDTH, aspect=4.0)
    np.testing.assert_allclose(wide, [[80, 80, 160, 100]])


@pytest.mark.parametrize(("centred", "cut"), [(True, [270, -20, 350, 60]), (False, [240, 0, 320, 80])])
def test_an_athlete_at_the_edge_is_in_the_middle_of_the_cut_except_in_earlier_stores(centred: bool, cut: list[int]):
    corner = tube({0: (300, 0, 320, 40)})
    size = {"height": HEIGHT, "width": WIDTH, "aspect": 1.0}
    np.testing.assert_allclose(cuts_along(corner, [0], margin=0.5, centred=centred, **size), [cut])


def test_a_cut_that_is_too_large_holds_the_image():
    for centred in (True, False):
        size = {"height": HEIGHT, "width": WIDTH, "aspect": 4 / 3}
        large = cuts_along(tube({0: (0, 0, 320, 240)}), [0], margin=0.25, centred=centred, **size)
        np.testing.assert_allclose(large, [[-80, -60, 400, 300]])


def test_steady_motion_is_followed_without_delay():
    steady = tube({frame: (10 + 3 * frame, 20 + frame, 40 + 3 * frame, 80 + frame) for frame in range(40)})
    numbers = list(range(0, 40, 3))
    cuts = cuts_along(steady, numbers, margin=0.1, height=600, width=900, aspect=0.5)
    centres = (cuts[:, :2] + cuts[:, 2:]) / 2
    expected = np.stack([25 + 3.0 * np.array(numbers), 50 + np.array(numbers)], axis=1)
    inner = (cuts[:, :2] > 0).all(axis=1)
    assert inner.sum() > 8
    np.testing.assert_allclose(centres[inner], expected[inner], atol=1e-6)


def test_missing_boxes_lie_on_a_line_and_ends_stay():
    whole = tube({frame: (100 + 2 * frame, 100, 140 + 2 * frame, 150) for frame in range(10, 31)})
    sparse = tube({frame: whole.boxes[frame] for frame in (10, 14, 25, 30)})
    numbers = [4, 10, 13, 20, 30, 36]
    every, some = (cuts_along(one, numbers, margin=0.2, height=400, width=600, aspect=1.0) for one in (whole, sparse))
    np.testing.assert_allclose(some, every, atol=1e-6)
    np.testing.assert_allclose(every[0], every[1])
    np.testing.assert_allclose(every[-1], every[-2])


def test_trembling_boxes_make_the_cut_tremble_less():
    random = np.random.default_rng(0)
    shifts = random.uniform(-6, 6, (64, 2))
    trembling = tube({frame: (200 + x, 200 + y, 260 + x, 290 + y) for frame, (x, y) in enumerate(shifts.tolist())})
    cuts = cuts_along(trembling, list(range(64)), margin=0.2, height=600, width=600, aspect=1.0)
    steps = np.abs(np.diff(cuts[:, :2], axis=0)).mean()
    assert steps < np.abs(np.diff(shifts, axis=0)).mean() / 4


def ramp():
    """Red increases to the right, green downwards: (60, 80, 3)."""
    rows, columns = np.mgrid[0:60, 0:80]
    return np.stack([2 * columns, 3 * rows, np.full_like(rows, 9)], axis=-1).astype(np.uint8)


def test_a_cut_of_the_same_size_is_a_copy():
    frame = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    np.testing.assert_array_equal(cut_out(frame, np.array([10.0, 5, 50, 35]), height=30, width=40), frame[5:35, 10:50])


@pytest.mark.parametrize("left", [10.0, 10.3, 11.75])
def test_an_enlarged_cut_lies_between_pixels(left):
    found = cut_out(ramp(), np.array([left, 8.0, left + 20, 23]), height=45, width=60)
    columns, rows = left + (np.arange(60) + 0.5) / 3 - 0.5, 8 + (np.arange(45) + 0.5) / 3 - 0.5
    assert np.abs(found[..., 0] - 2 * columns[None]).max() <= 1.1
    assert np.abs(found[..., 1] - 3 * rows[:, None]).max() <= 1.1


def test_a_reduced_cut_averages():
    frame = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    found = cut_out(frame, np.array([8.0, 12, 72, 44]), height=8, width=16)
    expected = frame[12:44, 8:72].astype(float).reshape(8, 4, 16, 4, 3).mean(axis=(1, 3))
    assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize(("height", "width"), [(180, 240), (30, 40)])
def test_outside_the_image_is_black(height, width):
    found = cut_out(np.full((60, 80, 3), 200, np.uint8), np.array([-20.0, -15, 100, 75]), height=height, width=width)
    inner = np.zeros((height, width), bool)
    inner[height // 6 + 2 : -(height // 6) - 2, width // 6 + 2 : -(width // 6) - 2] = True
    outer = np.ones((height, width), bool)
    outer[height // 6 - 2 : -(height // 6) + 2, width // 6 - 2 : -(width // 6) + 2] = False
    assert (found[inner] == 200).all() and (found[outer] == 0).all()
