"""Where training runs, as the loop sees it: which worker this is, how to add up over workers, when to stop, where checkpoints go."""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from posture.errors import InputError
from posture.train.checkpoint import read_state

log = logging.getLogger(__name__)

SaveCheckpoint = Callable[[Path], None]
"""Writes a checkpoint into an existing, empty folder."""


class Context(Protocol):
    """All the loop knows of where it runs. Every worker makes the same calls in the same order."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, averaging gradients over workers where there are several (DDP)."""
        ...

    def sum(self, totals: ArrayLike) -> np.ndarray:
        """Element-wise float64 sum over workers."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every worker, by rank: arrays and plain values."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Rank 0's `value`: anything JSON can hold."""
        ...

    def should_stop(self) -> bool:
        """Whether somebody asked this worker to stop (Ctrl-C, preemption); the loop makes the workers agree."""
        ...

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint | None, *, best: bool) -> None:
        """Rank 0 writes the checkpoint and publishes it as last, and as best if it is. Done when this returns."""
        ...

    def progress(self, update: dict[str, Any]) -> None:
        """Called every step with epoch, epochs, step, steps, loss, clips_per_second."""
        ...


class RunFolder(Protocol):
    """Where a run keeps its results (`posture.runs`)."""

    def publish_checkpoint(self, tag: str, directory: Path, *, best: bool) -> None: ...

    def write_json(self, name: str, value: Any) -> None: ...


def checkpoint_tag(metrics: dict[str, Any]) -> str:
    """`epoch-0003` once epoch 3 is complete, `epoch-0004-step-000012` in the midst of epoch 4."""
    step = f"-step-{metrics['step']:06d}" if metrics.get("step") else ""
    return f"epoch-{metrics['epoch']:04d}{step}"


def publish(folder: RunFolder, metrics: dict[str, Any], checkpoint: SaveCheckpoint, *, best: bool) -> None:
    """Write a checkpoint, publish it in the run's folder, and its history with it. Raises InputError where there is no room, or no access any more."""
    with tempfile.TemporaryDirectory(prefix="posture-checkpoint-") as place:
        try:
            checkpoint(Path(place))
            folder.publish_checkpoint(checkpoint_tag(metrics), Path(place), best=best)
            folder.write_json("history.json", read_state(Path(place))["history"])
        except InputError as error:
            raise InputError(f"{error}; the checkpoint before stands: mend this, then go on with --resume") from None


class LocalContext:
    """This process alone. Use as a context manager: within it, the first Ctrl-C asks training to stop and save, a second one interrupts.

    `device` defaults to the GPU if there is one, else the CPU; `on_progress` gets every progress update.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        folder: RunFolder | None = None,
        *,
        device: str | torch.device | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.folder = folder
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.on_progress = on_progress
        self._stop = False
        self._previous_handlers: dict[int, Any] = {}
        log.info("training on %s", self.device_name)

    @property
    def device_name(self) -> str:
        """For people: the GPU's name, or the CPU with its number of threads."""
        if self.device.type == "cuda":
            return f"{self.device} ({torch.cuda.get_device_name(self.device)})"
        return f"{self.device} ({torch.get_num_threads()} threads)"

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)
        self._previous_handlers.clear()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._stop:
            raise KeyboardInterrupt
        self._stop = True

    def wrap(self, model: nn.Module) -> nn.Module:
        return model

    def sum(self, totals: ArrayLike) -> np.ndarray:
        return np.asarray(totals, dtype=np.float64)

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value

    def should_stop(self) -> bool:
        return self._stop

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint | None, *, best: bool) -> None:
        if self.folder is not None and checkpoint is not None:
            publish(self.folder, metrics, checkpoint, best=best)

    def progress(self, update: dict[str, Any]) -> None:
        if self.on_progress is not None:
            self.on_progress(update)
