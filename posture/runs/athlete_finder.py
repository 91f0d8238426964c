"""Find athletes in the frames of any video with a trained detector, to cut clips around them.

Legend: n frames of h x w pixels, uint8 RGB; found boxes (D, 4) float32 xyxy in pixels of the frame, scores (D,)
float32, best first.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import numpy as np

from posture.config import override
from posture.data.decode.tracks import MIN_CONFIDENCE
from posture.runs.trained import TrainedModel

PEOPLE = frozenset({"athlete", "person", "player"})
"""Names of classes that are athletes. A detector without any of them is taken to have classes of athletes only."""

MOST_OVERLAP = 0.45
"""Maximum IoU of two athletes. (Evaluation keeps boxes with more overlap, for recall in crowds; here they would give
one athlete two tubes.)
"""


class Finder:
    """A detector's network in memory, on the GPU if there is one. Call it with frames."""

    def __init__(self, detector: TrainedModel) -> None:
        from posture.runs.detection import load_detector
        from posture.train.context import LocalContext

        self.size = detector.run.model.size
        """Side of the network's input in pixels; frames need not be larger."""
        overlap = min(detector.run.detect.overlap, MOST_OVERLAP)
        self._run = override(detector.run, {"detect.confidence": MIN_CONFIDENCE, "detect.overlap": overlap})
        self._device = LocalContext().device
        self._athletes = [index for index, name in enumerate(detector.classes) if name.lower() in PEOPLE] or list(
            range(len(detector.classes))
        )
        with detector.folder() as place:
            network, self._task = load_detector(self._run, detector.classes, place)
        self._network = network.to(self._device)

    def __call__(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return boxes and scores of the athletes in each of the frames (n, h, w, 3)."""
        from posture.train.detect import detect_frames

        found = detect_frames(self._network, self._task, frames, self._run, self._device)
        chosen = [np.isin(labels, self._athletes) for _, _, labels in found]
        return [(boxes[mine], scores[mine]) for (boxes, scores, _), mine in zip(found, chosen, strict=True)]
