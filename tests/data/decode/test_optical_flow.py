"""Optical flow of images that move by a known amount, and its encoding in one byte."""

from __future__ import annotations

import numpy as np
import pytest

from posture.data.decode.optical_flow import BOUND, METHODS, ZERO, decode, encode, flow_of_clip, sampled


def panned(frames: int, *, dx: int, dy: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Return uint8 (T, H, W, 3) of a smooth pattern whose points all move by (dx, dy) pixels per frame."""
    y, x = np.mgrid[:height, :width]
    images = []
    for frame in range(frames):
        u, v = x - dx * frame, y - dy * frame
        pattern = np.sin(u / 3.1) + np.sin(v / 2.7) + np.sin((u + v) / 4.3) + np.sin((u - 2 * v) / 7.9)
        images.append(np.repeat((128 + 30 * pattern)[..., None], 3, axis=2))
    return np.stack(images).round().astype(np.uint8)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -1), (-1, 2), (0, 0)])
def test_a_pattern_that_moves_is_seen_to_move(method: str, dx: int, dy: int) -> None:
    flow = flow_of_clip(panned(4, dx=dx, dy=dy), method)
    assert flow.shape == (3, 48, 64, 2) and flow.dtype == np.uint8
    inner = decode(flow)[:, 8:-8, 8:-8]  # pixels that enter at the borders were not there before
    np.testing.assert_allclose(np.median(inner, axis=(1, 2)), np.tile([dx, dy], (3, 1)), atol=0.25)
    assert np.abs(inner - [dx, dy]).mean() < 0.3


def test_a_single_frame_has_no_flow() -> None:
    assert flow_of_clip(panned(1, dx=1, dy=1), "dis").shape == (0, 48, 64, 2)


def test_codes_follow_their_formula() -> None:
    displacements = np.array([0.0, 0.5, -0.5, BOUND, -BOUND, 3 * BOUND, -3 * BOUND, np.inf, -np.inf, np.nan, 0.07])
    assert encode(displacements).tolist() == [128, 131, 125, 255, 1, 255, 1, 255, 1, ZERO, 128]
    assert decode(np.array([128, 255, 1], dtype=np.uint8)).tolist() == [0.0, BOUND, -BOUND]


def test_what_is_stored_is_off_by_half_a_step_at_most() -> None:
    displacements = np.random.default_rng(0).uniform(-BOUND, BOUND, (100, 100))
    stored = encode(displacements)
    assert np.abs(decode(stored) - displacements).max() <= 0.5 * BOUND / 127 + 1e-6
    np.testing.assert_array_equal(256 - stored.astype(int), encode(-displacements))


def test_flow_follows_the_frames_that_are_taken() -> None:
    flow = np.arange(5, dtype=np.uint8)[:, None, None, None] + np.zeros((5, 2, 3, 2), np.uint8)  # of 6 frames
    assert sampled(flow, np.array([2, 3, 4, 5]))[:, 0, 0, 0].tolist() == [2, 3, 4]
    repeated = sampled(flow, np.array([3, 4, 5, 5, 5]))
    assert repeated[:, 1, 2, 1].tolist() == [3, 4, ZERO, ZERO]
    assert sampled(flow[:0], np.array([0, 0, 0]))[:, 0, 0, 0].tolist() == [ZERO, ZERO]
