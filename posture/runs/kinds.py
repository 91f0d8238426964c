"""The two tasks, action recognition and detection, as two implementations of one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from posture.data.feed.shards import Index
from posture.data.store.tables import Store
from posture.runs.action import ActionRuns
from posture.runs.detection import DetectionRuns
from posture.runs.figures import Judged, Objective, Reads, Views
from posture.runs.folder import RunFolder, RunRecord


class TaskRuns(Protocol):
    """The differences between runs of the two tasks. `run` is an ActionRun or a DetectionRun."""

    unit: str
    """Plural of what a run trains on: "clips" or "images"."""
    objectives: tuple[Objective, ...]
    """Figures on val that a search can optimise; the first is the default."""
    epoch_figures: Mapping[str, str]
    """Names and history.json keys of the figures that `posture train` prints after every epoch."""

    def tables(self, run: Any) -> tuple[str, ...]:
        """Return the names of the store's tables that `run` reads."""
        ...

    def index(self, run: Any, store: Store, split: str, reads: Reads) -> Index:
        """Return the index of what `run` reads of a split. Raises InputError if the store lacks a part of it."""
        ...

    def resolve(self, run: Any, train: Any) -> tuple[dict[str, Any], str]:
        """Return the changes that a run takes from its training index, and a sentence on its anchors."""
        ...

    def lacking(self, run: Any) -> str:
        """Return in a sentence what stored footage lacks for a resolved `run`; empty if nothing."""
        ...

    def task(self, run: Any, classes: tuple[str, ...]) -> Any:
        """Return the task that the training loop asks for losses and metrics."""
        ...

    def batches(self, train: Any, val: Any, run: Any, ctx: Any) -> Any:
        """Return the batches of one worker."""
        ...

    def protocol(self, run: Any, views: Views) -> str:
        """Return the evaluation protocol in words. Raises InputError for views that the task does not have."""
        ...

    def seen(self, run: Any, store: Store, index: Any, views: Views) -> Any:
        """Return the index of what an evaluation looks at: `index` itself, or windows of the original files."""
        ...

    def predict(
        self,
        index: Any,
        run: Any,
        checkpoint: Path,
        *,
        views: Views,
        batch: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Any, str]:
        """Return this process's predictions, one for each clip or image, and the name of its device."""
        ...

    def judge(
        self, predictions: Any, run: Any, checkpoint: Path, *, index: Any, seen: Any, store: Store, reads: Reads
    ) -> Judged:
        """Compare predictions with the labels."""
        ...

    def compute(self, run: Any, network: Any) -> float:
        """Return the GMACs of one clip or image."""
        ...

    def facts(self, run: Any, record: RunRecord, *, gmacs: float, speed: float | None) -> dict[str, Any]:
        """Return what the report says besides the facts of both tasks; `speed` is in clips or images per second."""
        ...

    def sheets(self, run: Any, classes: tuple[str, ...], folder: RunFolder, val: Any) -> dict[str, bytes]:
        """Return PNG images, by name, to track a finished run with."""
        ...

    def footage_fields(self, run: Any) -> dict[str, Any]:
        """Return the fields that decide which footage is read: the same for all trials of a search."""
        ...


KINDS: dict[str, TaskRuns] = {"action": ActionRuns(), "detection": DetectionRuns()}
"""The implementations, by the name of the task."""
