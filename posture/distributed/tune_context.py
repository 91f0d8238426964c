"""A trial of a search, as the training loop sees it; and the board on which trials read whether to stop.

The scheduler's decisions are written on the board and trials end by themselves, at once, with checkpoints saved and
tracking closed: a trial that Ray Tune kills would leave its placement group behind where it trains on several workers,
and the next would wait for ever (ray#54305).
"""

from __future__ import annotations

import math
import os
from typing import Any

import ray
import ray.tune
import torch

from posture.runs.figures import Objective
from posture.runs.folder import RunFolder
from posture.search.trial import by_epoch
from posture.train.context import LocalContext


@ray.remote(num_cpus=0)
class SearchBoard:
    """Progress of all trials, by name of their runs, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._updates: dict[str, dict[str, Any]] = {}
        self._stopped: set[str] = set()
        self._ended = False

    def post(self, run: str, update: dict[str, Any]) -> bool:
        """Take a trial's newest numbers; answer whether it should stop."""
        self._updates[run] = update
        return self.asked_to_stop(run)

    def read(self) -> dict[str, dict[str, Any]]:
        return self._updates

    def stop(self, run: str) -> None:
        self._stopped.add(run)

    def end(self) -> None:
        """All trials stop, to be gone on with another time."""
        self._ended = True

    def asked_to_stop(self, run: str) -> bool:
        return self._ended or run in self._stopped

    def was_stopped(self, run: str) -> bool:
        """Whether the scheduler stopped it for good."""
        return run in self._stopped


class TuneContext(LocalContext):
    """This process alone, in a Ray Tune trial: epochs are reported to Tune, whether to stop is read from the board."""

    def __init__(self, folder: RunFolder, board: Any, objective: Objective, *, threads: int, use_gpu: bool) -> None:
        torch.set_num_threads(threads)
        super().__init__(folder, device="cuda" if use_gpu else "cpu")
        self._board, self._objective = board, objective
        self._answer: Any = None

    def report(self, metrics: dict[str, Any], checkpoint: Any, *, best: bool) -> None:
        super().report(metrics, checkpoint, best=best)
        self.settle()
        report_epoch(self.folder, self._objective)
        # Tune has decided when its report returns
        self._stop = ray.get(self._board.asked_to_stop.remote(self.folder.name))

    def progress(self, update: dict[str, Any]) -> None:
        """Post to the board without waiting for it, unless the last post is still under way; its answer says whether to
        stop.
        """
        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                return
            self._stop = self._stop or ray.get(self._answer)
        self._answer = self._board.post.remote(
            self.folder.name, update | {"process": os.getpid(), "node": ray.get_runtime_context().get_node_id()}
        )


def report_epoch(folder: RunFolder, objective: Objective) -> None:
    """Tell Tune the best value up to every finished epoch: `value` is the last of `values`, turned so that more is
    better; NaN is left out.
    """
    values = by_epoch(folder, objective)
    told = {"epoch": len(values), "values": values}
    if values and math.isfinite(values[-1]):
        told["value"] = values[-1] if objective.maximize else -values[-1]
    ray.tune.report(told)
