"""Crop frames along an athlete's tube: compute the crop in each frame, and cut it out.

Legend: T stored frames of H x W pixels, h x w the video's own; boxes and crops (T, 4) float64 x1, y1, x2, y2 in pixels
of the video's frames. A box around pixel columns 0 to 9 has x1 = 0, x2 = 10.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from posture.data.labels.records import Tube

SMOOTHED_FRAMES = 4
"""Frames on each side over which a box is averaged: boxes drawn by hand or detected frame by frame jitter."""
MIN_SIDE = 2.0
"""Pixels. A crop is never smaller."""


def cuts_along(
    tube: Tube, numbers: Sequence[int], *, margin: float, height: int, width: int, aspect: float, centred: bool = True
) -> np.ndarray:
    """Return the crops (T, 4) of the frames `numbers`, all of one size, in a video of `height` x `width` pixels.

    The centre is that of the smoothed box. The size is the smallest that contains every box of these frames, plus
    `margin` of the largest box on each side, extended to `aspect` (width / height). If not `centred`, crops are
    shifted into the image if they fit: then nothing tells the athlete from another one beside them.
    """
    boxes, smooth = _boxes_at(tube, numbers, height, width)
    centres = (smooth[:, :2] + smooth[:, 2:]) / 2
    # smoothing must not push the athlete out
    reach = np.maximum(centres - boxes[:, :2], boxes[:, 2:] - centres).max(axis=0)
    largest = (boxes[:, 2:] - boxes[:, :2]).max(axis=0)
    across, down = np.maximum(2 * (reach + margin * largest), MIN_SIDE)
    side = np.ceil([max(across, down * aspect), max(down, across / aspect)])
    corners = centres - side / 2
    if not centred:
        room = np.array([width, height]) - side  # negative if the crop is larger than the image
        corners = np.clip(corners, np.minimum(0.0, room), np.maximum(0.0, room))
    return np.concatenate([corners, corners + side], axis=1)


def cut_out(frame: np.ndarray, cut: np.ndarray, *, height: int, width: int) -> np.ndarray:
    """Cut `cut` out of uint8 (h, w, 3) and resize it to (H, W, 3); black outside the image.

    An enlarged crop has subpixel corners, so that a slow centre does not move in steps. In a reduced one a step is less
    than one pixel of the result.
    """
    across, down = cut[2] - cut[0], cut[3] - cut[1]
    scale_x, scale_y = width / across, height / down
    if min(scale_x, scale_y) >= 1.0:
        # OpenCV counts from the middle of the first pixel; this maps result coordinates to the frame's
        inverse = np.array([
            [1 / scale_x, 0.0, cut[0] + 0.5 / scale_x - 0.5],
            [0.0, 1 / scale_y, cut[1] + 0.5 / scale_y - 0.5],
        ])
        return cv2.warpAffine(
            frame,
            inverse,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_CONSTANT,
        )
    left, top = round(float(cut[0])), round(float(cut[1]))
    piece = np.zeros((round(float(down)), round(float(across)), 3), np.uint8)
    shown = frame[max(0, top) : max(0, top + piece.shape[0]), max(0, left) : max(0, left + piece.shape[1])]
    piece[max(0, -top) : max(0, -top) + shown.shape[0], max(0, -left) : max(0, -left) + shown.shape[1]] = shown
    return cv2.resize(piece, (width, height), interpolation=cv2.INTER_AREA)


def _boxes_at(tube: Tube, numbers: Sequence[int], height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the tube's boxes in these frames, and smoothed ones, (T, 4) each, inside the image.

    Boxes are interpolated linearly between annotated frames and constant outside them. Near an end of the tube a frame
    uses equally few neighbours on both sides, so that steady motion is not held back.
    """
    known = sorted(tube.boxes)
    frames = np.arange(known[0], known[-1] + 1)
    drawn = np.clip(np.array([tube.boxes[frame] for frame in known], np.float64), 0.0, [width, height, width, height])
    every = np.stack([np.interp(frames, known, drawn[:, side]) for side in range(4)], axis=1)
    sums = np.concatenate([np.zeros((1, 4)), every.cumsum(axis=0)])
    index = np.clip(np.asarray(numbers), known[0], known[-1]) - known[0]
    reach = np.minimum(SMOOTHED_FRAMES, np.minimum(index, len(frames) - 1 - index))
    return every[index], (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)[:, None]
