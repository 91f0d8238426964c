"""Optical flow between neighbouring frames of a stored clip, stored in one byte per component.

Legend: T stored frames of H x W pixels. Flow t, of T - 1, says where each pixel of frame t is in frame t + 1: dx to the
right and dy down, in pixels of the stored frame. It is stored as uint8 (T - 1, H, W, 2), dx then dy, with `code =
round(127 d / BOUND) + 128`. So 128 is exactly no motion, a negated vector is 256 - code, and displacements beyond
+-BOUND are clipped (codes 1 to 255; 0 is never used).
"""

# cv2 declares neither None for a flow that is to be made nor settings by name
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import time
from typing import Any, Literal, get_args

import numpy as np

Method = Literal["dis", "farneback"]
METHODS: tuple[str, ...] = get_args(Method)

BOUND = 20.0
"""Largest stored displacement, in pixels of the stored frame: an eighth of the usual 171."""
ZERO = 128
"""The code of no motion."""
PIXELS_PER_STEP = BOUND / 127
"""Pixels per step of the code; the error is at most half of that, 0.08 pixels."""


def encode(flow: np.ndarray) -> np.ndarray:
    """Encode displacements in pixels, float (..., 2), as uint8 of the same shape; values not finite are no motion."""
    clipped = np.clip(np.nan_to_num(flow, nan=0.0), -BOUND, BOUND)
    return (np.rint(clipped / PIXELS_PER_STEP) + ZERO).astype(np.uint8)


def decode(codes: np.ndarray) -> np.ndarray:
    """Decode uint8 codes to float32 displacements in pixels of the stored frame."""
    return (codes.astype(np.float32) - ZERO) * np.float32(PIXELS_PER_STEP)


def flow_of_clip(frames: np.ndarray, method: str) -> np.ndarray:
    """Return the encoded flow, uint8 (T - 1, H, W, 2), of RGB frames uint8 (T, H, W, 3).

    `dis` is Dense Inverse Search (Kroeger 2016), `farneback` polynomial expansion (Farnebäck 2003), both OpenCV's,
    between grey frames.
    """
    import cv2

    between = _METHODS[method]()
    greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.empty((len(frames) - 1, *frames.shape[1:3], 2), dtype=np.uint8)
    for index in range(len(flow)):
        flow[index] = encode(between(greys[index], greys[index + 1]))
    return flow


def milliseconds(frames: np.ndarray, method: str, *, repeats: int = 10) -> float:
    """Return the median milliseconds to compute the flow of frames uint8 (T, H, W, 3), after one warm-up."""
    took = []
    for _ in range(1 + repeats):
        began = time.perf_counter()
        flow_of_clip(frames, method)
        took.append(1e3 * (time.perf_counter() - began))
    return float(np.median(took[1:]))


def sampled(flow: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the flow between stored frames `numbers` (T'), ascending by one: uint8 (T' - 1, H, W, 2).

    If a short clip repeats its last frame, there is no motion.
    """
    starts, moves = numbers[:-1], np.diff(numbers) > 0
    between = np.full((len(starts), *flow.shape[1:]), ZERO, dtype=np.uint8)
    between[moves] = flow[starts[moves]]
    return between


def _dis() -> Any:
    import cv2

    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return lambda first, second: search.calc(first, second, None)


def _farneback() -> Any:
    import cv2

    settings = {
        "pyr_scale": 0.5,
        "levels": 3,
        "winsize": 15,
        "iterations": 3,
        "poly_n": 5,
        "poly_sigma": 1.2,
        "flags": 0,
    }
    return lambda first, second: cv2.calcOpticalFlowFarneback(first, second, None, **settings)


_METHODS = {"dis": _dis, "farneback": _farneback}
