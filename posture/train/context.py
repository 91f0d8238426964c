"""Where training runs, as the loop sees it: which worker this is, how to add up over workers, when to stop, where
checkpoints go.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from posture.display.text import counted
from posture.errors import InputError
from posture.train.publish import CheckpointTarget, Publisher, SaveCheckpoint

log = logging.getLogger(__name__)


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
        """Whether somebody asked this worker to stop (Ctrl-C); the loop makes the workers agree."""
        ...

    def should_save(self) -> bool:
        """Whether to save now and go on, since a worker's machine is about to be taken away; once for each such notice."""
        ...

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint | None, *, best: bool) -> None:
        """Rank 0 writes the checkpoint and publishes it as last, and as best if it is. It may still be on its way to a
        bucket when this returns.

        Raises InputError, on all workers, where this one or the one before cannot be written.
        """
        ...

    def settle(self) -> None:
        """Wait until what was reported can be read. Raises InputError, on all workers, where it cannot be written."""
        ...

    def close(self) -> None:
        """However training ended: let what is on its way arrive."""
        ...

    def progress(self, update: dict[str, Any]) -> None:
        """Called every step with epoch, epochs, step, steps, loss, clips_per_second."""
        ...


class LocalContext:
    """This process alone. Use as a context manager: within it, the first Ctrl-C asks training to stop and save, a
    second one interrupts.

    `device` defaults to the GPU if there is one, else the CPU; `on_progress` gets every progress update.
    """

    rank = 0
    world_size = 1

    def __init__(
        self,
        folder: CheckpointTarget | None = None,
        *,
        device: str | torch.device | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.folder = folder
        self._publisher = Publisher(folder) if folder is not None else None
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
        return f"{self.device} ({counted(torch.get_num_threads(), 'thread')})"

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread handle signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous_handlers[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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

    def should_save(self) -> bool:
        return False

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint | None, *, best: bool) -> None:
        if self._publisher is not None and checkpoint is not None:
            self._publisher.publish(metrics, checkpoint, best=best)

    def settle(self) -> None:
        if self._publisher is not None:
            self._publisher.settle()

    def close(self) -> None:
        with contextlib.suppress(InputError):  # said already, or training has failed for a reason of its own
            self.settle()

    def progress(self, update: dict[str, Any]) -> None:
        if self.on_progress is not None:
            self.on_progress(update)
