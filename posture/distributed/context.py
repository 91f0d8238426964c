"""The training loop's context on Ray, for a worker of Ray Train and for a trial of Ray Tune; and the board through
which both talk to the driver that waits for them.

The scheduler of a search writes its decisions on the board and trials end by themselves, with checkpoints saved
and tracking closed. A trial on several workers that Ray Tune kills would leave its placement group behind, and the next
would wait for ever (ray#54305).
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportReturnType=false

from __future__ import annotations

import math
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
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from torch import nn

from posture.display.text import counted
from posture.distributed.metrics import emit_epoch, emit_step
from posture.errors import InputError, Unreachable
from posture.runs.figures import Objective
from posture.runs.folder import RunFolder
from posture.search.trial import by_epoch
from posture.train.context import LocalContext
from posture.train.publish import Publisher, SaveCheckpoint
from posture.train.workers import spread


@ray.remote(num_cpus=0)
class Board:
    """The newest numbers of runs, by name, on their way to the driver, and the wish to stop on its way to them."""

    def __init__(self) -> None:
        self._updates: dict[str, dict[str, Any]] = {}
        self._stopped: set[str] = set()
        self._ended = False

    def post(self, run: str, update: dict[str, Any]) -> bool:
        """Take a run's newest numbers; return True if it should stop."""
        self._updates[run] = self._updates.get(run, {}) | update
        return self.asked_to_stop(run)

    def read(self) -> dict[str, dict[str, Any]]:
        return self._updates

    def stop(self, run: str) -> None:
        self._stopped.add(run)

    def end(self) -> None:
        """Ask all trials to stop; a later session resumes them."""
        self._ended = True

    def asked_to_stop(self, run: str) -> bool:
        return self._ended or run in self._stopped

    def was_stopped(self, run: str) -> bool:
        """Return True if the scheduler stopped this trial for good."""
        return run in self._stopped


def new_board() -> Any:
    """Start a board on this node, so that the loss of another node does not end it."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Board.options(scheduling_strategy=here).remote()


class Posts:
    """Posts of one run to a board, which training does not wait for."""

    def __init__(self, board: Any, run: str) -> None:
        self.stop = False
        """The board has answered that the run should stop."""
        self._board, self._run, self._answer = board, run, None

    def post(self, update: dict[str, Any]) -> None:
        """Post, unless the last post is still under way."""
        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                return
            self.stop = self.stop or ray.get(self._answer)
        self._answer = self._board.post.remote(self._run, update)


class RayContext:
    """This Ray Train worker among its peers: a `posture.train.context.Context`."""

    def __init__(self, folder: RunFolder, board: Any, *, clips_per_step: int) -> None:
        place = ray.train.get_context()
        self.rank, self.world_size = place.get_world_rank(), place.get_world_size()
        self.device = ray.train.torch.get_device()
        self._folder, self._board, self._clips_per_step = folder, board, clips_per_step
        self._publisher, self._posts = Publisher(folder), Posts(board, folder.name)
        self._notice: Any = None
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.get_local_world_size()))
        if self.rank == 0:
            self._post({
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
        return self._posts.stop

    def should_save(self) -> bool:
        """Return True once for each notice, on rank 0 alone: workers get the notice in different steps."""
        notice = _preemption_notice() if self.rank == 0 else None
        new = notice is not None and notice != self._notice
        self._notice = notice
        return new

    def report(self, metrics: dict[str, Any], checkpoint: SaveCheckpoint, *, best: bool) -> None:
        """Publish the checkpoint, then post the record."""
        problem = None
        if self.rank == 0:
            emit_epoch(self._folder.name, metrics)
            problem = _problem(
                lambda: self._publisher.publish(
                    metrics, checkpoint, best=best, then=lambda: self._post({"record": metrics})
                )
            )
        self._agree(problem)
        ray.train.report(metrics)

    def settle(self) -> None:
        self._agree(_problem(self._publisher.settle))

    def close(self) -> None:
        _problem(self._publisher.settle)  # said already, or training has failed for a reason of its own

    def progress(self, update: dict[str, Any]) -> None:
        if self.rank == 0:
            emit_step(self._folder.name, update, clips=self._clips_per_step)
            self._posts.post(update)

    def _post(self, update: dict[str, Any]) -> None:
        self._board.post.remote(self._folder.name, update)

    def _agree(self, problem: str | None) -> None:
        """Raise rank 0's problem on all workers, so that none waits for the others."""
        if problem := self.broadcast(problem):
            raise Unreachable(problem)


class TuneContext(LocalContext):
    """This process alone, in a Ray Tune trial: epochs are reported to Tune, the wish to stop is read from the board."""

    def __init__(self, folder: RunFolder, board: Any, objective: Objective, *, threads: int, use_gpu: bool) -> None:
        torch.set_num_threads(threads)
        super().__init__(folder, device="cuda" if use_gpu else "cpu")
        self._run, self._board, self._objective = folder, board, objective
        self._posts = Posts(board, folder.name)

    def report(self, metrics: dict[str, Any], checkpoint: Any, *, best: bool) -> None:
        super().report(metrics, checkpoint, best=best)
        self.settle()
        report_epoch(self._run, self._objective)
        # Tune has decided when its report returns
        self._posts.stop = bool(ray.get(self._board.asked_to_stop.remote(self._run.name)))

    def should_stop(self) -> bool:
        return self._posts.stop

    def progress(self, update: dict[str, Any]) -> None:
        self._posts.post(update | {"process": os.getpid(), "node": ray.get_runtime_context().get_node_id()})


def report_epoch(folder: RunFolder, objective: Objective) -> None:
    """Report to Tune the best value up to every finished epoch: `value` is the last of `values`, negated if less is
    better, and left out if it is NaN.
    """
    import ray.tune

    values = by_epoch(folder, objective)
    report = {"epoch": len(values), "values": values}
    if values and math.isfinite(values[-1]):
        report["value"] = values[-1] if objective.maximize else -values[-1]
    ray.tune.report(report)


def _problem(attempt: Callable[[], None]) -> str | None:
    """Return the reason why `attempt` failed, if the user can mend it; None if it succeeded."""
    try:
        attempt()
    except InputError as error:
        return str(error)
    return None


def _preemption_notice() -> Any | None:
    """Return what Ray Train knows of nodes that are about to be taken away, from the notice of this worker.

    Its public `get_preemption_info` asks all workers each time, which takes too long for every step.
    """
    from ray.train.v2._internal.execution.context import get_train_context

    return get_train_context().preemption_context.preemption_info
