"""Find athletes in the frames of any video with a trained detector, to cut clips around them.

Legend: n frames of h x w pixels, uint8 RGB; found boxes (D, 4) float32 xyxy in pixels of the frame, scores (D,)
float32, best first.
"""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from posture.config import DetectionRun, override
from posture.data.decode.tracks import MIN_CONFIDENCE
from posture.errors import InputError
from posture.runs.folder import RunFolder

PEOPLE = frozenset({"athlete", "person", "player"})
"""Names of classes that are athletes. A detector without any of them is taken to have classes of athletes only."""

MOST_OVERLAP = 0.45
"""Maximum IoU of two athletes. (Evaluation keeps boxes with more overlap, for recall in crowds; here they would give
one athlete two tubes.)
"""


@dataclass(frozen=True)
class AthleteDetector:
    """A detector that can be sent to workers: it does not need the run's folder."""

    uri: str
    run: DetectionRun
    classes: tuple[str, ...]
    weights: bytes
    """Content of the best checkpoint's model.safetensors."""

    @cached_property
    def digest(self) -> str:
        """First 8 hexadecimal digits of the weights' hash, which name the detector in a decode recipe."""
        return hashlib.blake2b(self.weights, digest_size=16).hexdigest()[:8]


def open_detector(uri: str) -> AthleteDetector:
    """Open the best checkpoint of the run at `uri`. Raises InputError if there is no run, no checkpoint, or the run is
    not a detector.
    """
    folder = RunFolder.open(uri)
    record = folder.record()
    run = record.run
    if not isinstance(run, DetectionRun):
        raise InputError(
            f"{uri}: this run classifies clips ({run.model.kind}), and finding athletes takes a detector; "
            "train one with: posture train jobs/detector.py:improved --store STORE"
        )
    with folder.checkpoint("best") as checkpoint:
        return AthleteDetector(folder.uri, run, record.classes, (checkpoint / "model.safetensors").read_bytes())


class Finder:
    """A detector's network in memory, on the GPU if there is one. Call it with frames."""

    def __init__(self, detector: AthleteDetector) -> None:
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
        with tempfile.TemporaryDirectory(prefix="posture-weights-") as place:
            Path(place, "model.safetensors").write_bytes(detector.weights)
            network, self._task = load_detector(self._run, detector.classes, Path(place))
        self._network = network.to(self._device)

    def __call__(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return boxes and scores of the athletes in each of the frames (n, h, w, 3)."""
        from posture.train.detect import detect_frames

        found = detect_frames(self._network, self._task, frames, self._run, self._device)
        chosen = [np.isin(labels, self._athletes) for _, _, labels in found]
        return [(boxes[mine], scores[mine]) for (boxes, scores, _), mine in zip(found, chosen, strict=True)]
