"""A detector of red and blue things, in place of a trained one."""

from __future__ import annotations

import numpy as np


class ColourFinder:
    """Finds the red and the blue square."""

    size = 160

    def __call__(self, frames):
        return [self.of_frame(frame) for frame in frames.astype(np.int64)]

    def of_frame(self, frame):
        boxes = []
        for channel, other in ((0, 2), (2, 0)):
            rows, columns = np.nonzero(frame[..., channel] - frame[..., other] > 90)
            if len(rows) > 20:
                boxes.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        return np.array(boxes, np.float32).reshape(-1, 4), np.full(len(boxes), 0.9, np.float32)
