"""A trained model that can be sent to workers: they need no access to the run's folder."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from posture.config import AnyRun
from posture.display.text import counted
from posture.errors import InputError
from posture.runs.folder import RunFolder

OTHER_TASK = {
    "action": "this run is a detector ({kind}), and naming actions takes a classifier; train one with: posture train "
    "jobs/action.py:improved --store STORE",
    "detection": "this run classifies clips ({kind}), and finding athletes takes a detector; train one with: posture "
    "train jobs/detector.py:improved --store STORE",
}
"""Why a run is refused whose task is not the one that is needed."""


@dataclass(frozen=True)
class TrainedModel:
    """Configuration, classes and weights of one checkpoint."""

    uri: str
    """Folder of the run, or of the version in a registry."""
    run: AnyRun
    classes: tuple[str, ...]
    weights: bytes
    """Content of the checkpoint's model.safetensors."""
    checkpoint: str = "best"

    @cached_property
    def digest(self) -> str:
        """First 8 hexadecimal digits of the weights' hash. They name a detector in a decode recipe."""
        return hashlib.blake2b(self.weights, digest_size=16).hexdigest()[:8]

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Yield a temporary folder with the checkpoint's weights, as `posture.runs.weights.load_network` reads it."""
        with tempfile.TemporaryDirectory(prefix="posture-weights-") as place:
            Path(place, "model.safetensors").write_bytes(self.weights)
            yield Path(place)


def aim(run: AnyRun, classes: Sequence[str]) -> str:
    """Return in words what a run learns: `8 classes`, or `without labels (contrast)`."""
    return f"without labels ({run.pretext})" if run.pretext else counted(len(classes), "class", "classes")


def refuse_pretrained_only(run: AnyRun, uri: str) -> None:
    """Raise InputError if `run`, which lies at `uri`, learned without labels: it names no class."""
    if run.pretext:
        raise InputError(
            f"{uri}: this run was pretrained without labels and names no class; train a classifier from it with: "
            f"posture train RECIPE --store STORE --weights {uri}"
        )


def open_trained(uri: str, *, task: str, which: str = "best") -> TrainedModel:
    """Return the checkpoint `which`, best or last, of the run at `uri`, whose task must be `task`: action or detection.

    Raises InputError if there is no such run or checkpoint, or the run has the other task.
    """
    folder = RunFolder.open(uri)
    record = folder.record()
    if record.run.task != task:
        raise InputError(f"{uri}: {OTHER_TASK[task].format(kind=record.run.model.kind)}")
    refuse_pretrained_only(record.run, uri)
    with folder.checkpoint(which) as checkpoint:
        return TrainedModel(
            folder.uri, record.run, record.classes, (checkpoint / "model.safetensors").read_bytes(), which
        )
