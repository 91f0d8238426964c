"""A trained detector that finds athletes in frames of any video, for clips that are cut around them.

Legend: n frames of h x w pixels, uint8 RGB; found boxes (D, 4) float32 xyxy in pixels of the frame, scores (D,)
float32, best first.
"""

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
"""Classes that are athletes, of a detector that knows other things too; one that knows none of them was trained on
athletes by what they do.
"""

MOST_OVERLAP = 0.45
"""Of two boxes of different athletes: what judging lets stand, so as to miss nobody in a crowd, would give one athlete
two tubes here.
"""


@dataclass(frozen=True)
class AthleteDetector:
    """A detector as it travels to workers: nothing here needs the run's folder again."""

    uri: str
    run: DetectionRun
    classes: tuple[str, ...]
    weights: bytes
    """The best checkpoint's safetensors."""

    @cached_property
    def digest(self) -> str:
        """The first 8 hexadecimal digits of the weights' hash: what names it in a decode recipe."""
        return hashlib.blake2b(self.weights, digest_size=16).hexdigest()[:8]


def open_detector(uri: str) -> AthleteDetector:
    """The best checkpoint of the run at `uri`. Raises InputError where there is no run, no checkpoint, or a run that is
    no detector.
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
    """A detector's network in memory, on this process's GPU if it has one. Call it with frames."""

    def __init__(self, detector: AthleteDetector) -> None:
        from posture.runs.detection import load_detector
        from posture.train.context import LocalContext

        self.size = detector.run.model.size
        """Side in pixels of the network's square: frames need be no larger."""
        overlap = min(detector.run.detect.overlap, MOST_OVERLAP)
        self._run = override(detector.run, {"detect.confidence": MIN_CONFIDENCE, "detect.overlap": overlap})
        self._device = LocalContext().device
        self._athletes = [place for place, name in enumerate(detector.classes) if name.lower() in PEOPLE] or list(
            range(len(detector.classes))
        )
        with tempfile.TemporaryDirectory(prefix="posture-weights-") as place:
            Path(place, "model.safetensors").write_bytes(detector.weights)
            network, self._task = load_detector(self._run, detector.classes, Path(place))
        self._network = network.to(self._device)

    def __call__(self, frames: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Boxes and scores of the athletes in each of the frames (n, h, w, 3)."""
        from posture.train.detect import detect_frames

        found = detect_frames(self._network, self._task, frames, self._run, self._device)
        chosen = [np.isin(labels, self._athletes) for _, _, labels in found]
        return [(boxes[mine], scores[mine]) for (boxes, scores, _), mine in zip(found, chosen, strict=True)]
