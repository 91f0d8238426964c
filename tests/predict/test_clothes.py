"""Colours of clothes: alike for one athlete, different for another, whatever the size of the frame."""

from __future__ import annotations

import numpy as np

from posture.predict.clothes import clothes_of


def athlete(frame: np.ndarray, left: int, shirt: tuple[int, ...], shorts: tuple[int, ...]) -> list[float]:
    """Paint an athlete of 20 x 60 pixels; return the box."""
    frame[20:50, left : left + 20] = shirt
    frame[50:80, left : left + 20] = shorts
    return [left, 20, left + 20, 80]


def test_the_same_clothes_are_alike_and_others_are_not():
    rng = np.random.default_rng(0)
    frame = rng.integers(100, 140, (100, 200, 3)).astype(np.uint8)
    red, white, blue = (220, 20, 20), (240, 240, 240), (20, 20, 220)
    boxes = np.array([
        athlete(frame, 10, red, white),
        athlete(frame, 60, red, white),
        athlete(frame, 110, white, red),
        athlete(frame, 160, blue, white),
    ])
    colours = clothes_of(frame, boxes + rng.normal(0, 1, boxes.shape))
    alike = colours @ colours.T
    assert colours.shape == (4, 864) and colours.dtype == np.float32
    assert np.allclose(alike.diagonal(), 1, atol=1e-5)
    assert alike[0, 1] > 0.9 and alike[0, 2] < 0.4 and alike[0, 3] < 0.7
    larger = clothes_of(frame.repeat(9, 0).repeat(9, 1), boxes * 9.0)
    assert ((larger * clothes_of(frame, boxes)).sum(axis=1) > 0.99).all()


def test_boxes_beyond_the_frame_have_colours_too():
    frame = np.full((40, 60, 3), 255, np.uint8)
    boxes = np.array([[-30.0, -20, -5, -1], [50, 30, 90, 80], [5, 5, 5.2, 5.2], [70, 50, 90, 90]])
    assert np.allclose(np.linalg.norm(clothes_of(frame, boxes), axis=1), 1, atol=1e-5)
    assert clothes_of(frame, boxes[:0]).shape == (0, 864)
