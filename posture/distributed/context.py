"""A Ray Train worker, as the training loop sees it; and the board through which it talks to the command that waits for
it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from posture.display.text import counted
from posture.distributed.metrics import emit_epoch, emit_step
from posture.errors import InputError, Unreachable
from posture.runs.folder import RunFolder
from posture.train.publish import Publisher, SaveCheckpoint
from posture.train.workers import spread


@ray.remote(num_cpus=0)
class Board:
    """Progress from rank 0 to the command, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._update: dict[str, Any] = {}
        self._stop = False

    def post(self, update: dict[str, Any]) -> bool:
        """Take rank 0's newest numbers; answer whether training should stop."""
        self._update |= update
        return self._stop

    def read(self) -> dict[str, Any]:
        return self._update

    def ask_to_stop(self) -> None:
        self._stop = True


class RayContext:
    """This Ray Train worker among its peers."""

    def __init__(self, folder: RunFolder, board: Any, *, clips_per_step: int) -> None:
        place = ray.train.get_context()
        self.rank, self.world_size = place.get_world_rank(), place.get_world_size()
        self.device = ray.train.torch.get_device()
        self._folder, self._board, self._clips_per_step, self._publisher = (
            folder,
            board,
            clips_per_step,
            Publisher(folder),
        )
        self._notice: Any = None
        self._answer: Any = None
        self._stop = False
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.get_local_world_size()))
        if self.rank == 0:
            board.post.remote({
                "device": self.device_name,
                "world_size": self.world_size,
                "host": socket.gethostname(),
                "process": os.getpid(),
            })

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU ({counted(torch.get_num_threads(), 'thread')})"

    def wrap(self, model: nn.Module) -> nn.Module:
        return model if self.world_size == 1 else spread(model, self.device)

    def sum(self, totals: Any) -> np.ndarray:
        values = np.asarray(totals, dtype=np.float64)
        if self.world_size == 1:
            return values
        tensor = torch.from_numpy(values.copy()).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def should_stop(self) -> bool:
        return self._stop

    def should_save(self) -> bool:
        """Rank 0 alone says so: all workers get the notice, though not in the same step."""
        notice = _preemption_notice() if self.rank == 0 else None
        new = notice is not None and notice != self._notice
        self._notice = notice
        return new

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint, *, best: bool) -> None:
        """The record is posted once its checkpoint can be read."""
        problem = None
        if self.rank == 0:
            emit_epoch(self._folder.name, metrics)
            problem = _problem(
                lambda: self._publisher.publish(
                    metrics, checkpoint, best=best, then=lambda: self._board.post.remote({"record": metrics})
                )
            )
        self._agree(problem)
        ray.train.report(metrics)

    def settle(self) -> None:
        self._agree(_problem(self._publisher.settle))

    def close(self) -> None:
        _problem(self._publisher.settle)  # said already, or training has failed for a reason of its own

    def _agree(self, problem: str | None) -> None:
        """What only rank 0 met is met by all, so that none waits for the others."""
        if problem := self.broadcast(problem):
            raise Unreachable(problem)

    def progress(self, update: dict[str, Any]) -> None:
        """Post to the board without waiting for it, unless the last post is still under way; its answer says whether to
        stop.
        """
        if self.rank != 0:
            return
        emit_step(self._folder.name, update, clips=self._clips_per_step)
        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                return
            self._stop = self._stop or ray.get(self._answer)
        self._answer = self._board.post.remote(update)


def _problem(attempt: Callable[[], None]) -> str | None:
    """Why it did not succeed, where that is the user's to mend."""
    try:
        attempt()
    except InputError as error:
        return str(error)
    return None


def _preemption_notice() -> Any | None:
    """What Ray Train knows of nodes that are about to be taken away, as told to this worker.

    Its public `get_preemption_info` asks all workers each time: too dear for every step.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info
