"""The loop's view of where training runs: rank, sums over workers, requests to stop, and checkpoints."""

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
    """Everything that the loop knows of where it runs. Every worker makes the same calls in the same order."""

    rank: int
    world_size: int
    device: torch.device

    def wrap(self, model: nn.Module) -> nn.Module:
        """Return the model, averaging gradients if there are several workers (DDP)."""
        ...

    def sum(self, totals: ArrayLike) -> np.ndarray:
        """Return the element-wise float64 sum over workers."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Return the `value` of every worker, by rank: arrays and plain values."""
        ...

    def broadcast(self, value: Any) -> Any:
        """Return rank 0's `value`: anything JSON can hold."""
        ...

    def should_stop(self) -> bool:
        """Return True if this worker was asked to stop (Ctrl-C); the loop makes the workers agree."""
        ...

    def should_save(self) -> bool:
        """Return True, once for each notice, if a worker's machine is about to be taken away: save and go on."""
        ...

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint | None, *, best: bool) -> None:
        """Write the checkpoint on rank 0 and publish it as last, and as best if it is.

        Its upload to a bucket may go on after this returns. Raises InputError, on all workers, if this checkpoint or
        the one before cannot be written.
        """
        ...

    def settle(self) -> None:
        """Wait until reported checkpoints can be read. Raises InputError, on all workers, if one cannot be written."""
        ...

    def close(self) -> None:
        """Let uploads finish, however training ended."""
        ...

    def progress(self, update: dict[str, Any]) -> None:
        """Receive epoch, epochs, step, steps, loss and clips_per_second after every step."""
        ...


class LocalContext:
    """Context of training in this process. Use it as a context manager: within it, the first Ctrl-C asks training to
    stop and save, and a second one interrupts.

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
        """Display name: the GPU's name, or the CPU with its number of threads."""
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
        with contextlib.suppress(InputError):  # reported already, or training has failed for another reason
            self.settle()

    def progress(self, update: dict[str, Any]) -> None:
        if self.on_progress is not None:
            self.on_progress(update)
