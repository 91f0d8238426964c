"""Run a search on Ray Tune: several trials at a time, stopped early by successive halving, on footage that is read
once.

A trial on one device is a plain Tune function that trains in its own process. A trial on several devices is a driver
that trains its run on Ray Train. `posture/search/study.py` keeps the search; Tune is started anew each time and keeps
nothing.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import ray
import ray.tune
import torch
from ray.exceptions import RayActorError
from ray.tune.execution.placement_groups import PlacementGroupFactory
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from posture.config import override
from posture.data.store.files import is_remote, join, write_bytes
from posture.distributed import cluster
from posture.distributed.context import TuneContext, new_board, report_epoch
from posture.distributed.feed import feed
from posture.distributed.metrics import emit_trials
from posture.distributed.resources import READER_CPUS, Room, refuse_crowd, room
from posture.distributed.train import refuse_unshared
from posture.errors import InputError
from posture.runs.folder import RunFolder
from posture.runs.worker import run_worker
from posture.search.study import Search, state_of
from posture.search.trial import Plan, Point, TrialResult, conclude, failure, read, start

REDUCTION = 3
"""Reduction factor of successive halving: about one in 3 trials continues after each rung."""
FIRST_RUNG = 1 / 6
"""Share of the epochs before the first rung; the next rung comes after three times as many.

Measured on twelve learning curves of 9 epochs of UCF101, in all orders. First rung after 1 epoch: 28 % of the epochs
trained, the best accuracy missed by 2.5 points on average; after 2: 43 %, 0 points; after 3: 57 %, 0 points.
"""
RETRIES = 3
"""Number of restarts of a trial whose process or node was lost, from its last checkpoint."""
LOOK_EVERY_SECONDS = 1.0


@dataclass(frozen=True)
class Options:
    """Limits of a search."""

    trials: int
    """Total number of finished trials, including those of earlier sessions."""
    seconds: float = math.inf
    """Time after which no trial is begun and running ones are interrupted; a later session resumes them."""
    concurrent: int | None = None
    """Maximum number of trials at a time; None: as many as there is room for."""
    halving: bool = True
    """Stop trials early that fall behind."""


def search_on_tune(
    search: Search,
    plan: Plan,
    options: Options,
    *,
    on_update: Callable[[dict[str, dict[str, Any]]], None],
    on_trial: Callable[[int], None],
    asked_to_stop: Callable[[], bool],
) -> None:
    """Run trials until `options.trials` are finished, time is up or `asked_to_stop`. Interrupted trials are queued
    again.

    `on_update` gets the newest numbers of the trials by run name, about once a second; `on_trial` gets the number of
    each trial that ended.
    Raises InputError, with the numbers, if the cluster has no room for the trials.
    """
    _settle(search, plan)
    missing = options.trials - len(search.finished)
    if missing <= 0:
        return
    workers = plan.base.run.scale.sizes[-1]
    cluster.connect(**({"include_dashboard": True} if workers > 1 else {}))
    if cluster.nodes() > 1 and not is_remote(plan.runs):
        write_bytes(join(plan.runs, ".search"), search.name.encode())
        refuse_unshared(join(plan.runs, ".search"))
    if cluster.is_alone():
        refuse_crowd(plan.base.run.scale, nodes=cluster.sizes())
    shape = room(
        plan.base.run.scale,
        concurrent=options.concurrent,
        trials=missing,
        nodes=cluster.sizes(),
        reading=0.0 if cluster.decoding() else READER_CPUS,
    )
    feeds = feed([plan.base.train, plan.base.val], mode=plan.base.run.data.feed, wait=True)
    board, asking = new_board(), StudySearcher(search, plan, on_trial)
    ending = StopCallback(
        asking, board, until=time.monotonic() + options.seconds, asked_to_stop=asked_to_stop, on_update=on_update
    )
    halving = options.halving and len(plan.objectives) == 1 and plan.base.run.chosen_epochs > 1
    place = {} if "GPU" in shape.trial else {"bundle_label_selector": [cluster.off_decoders()]}
    trial = ray.tune.with_parameters(
        _trial if workers == 1 else _trial_on_workers, plan=plan, feeds=feeds, board=board, shape=shape
    )
    try:
        _run(
            ray.tune.with_resources(trial, PlacementGroupFactory([shape.trial], strategy="SPREAD", **place)),
            ray.tune.TuneConfig(
                num_samples=missing,
                search_alg=asking,
                max_concurrent_trials=shape.concurrent,
                reuse_actors=workers == 1,
                scheduler=Halving(search, plan, board, asking) if halving else None,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            callbacks=[ending, NoOutput()],
        )
    finally:
        ray.kill(board)
    _settle(search, plan)


def _run(trial: Any, config: ray.tune.TuneConfig, *, callbacks: list[ray.tune.Callback]) -> None:
    """Run Tune; its files are removed afterwards."""
    os.environ |= {
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
    }
    with tempfile.TemporaryDirectory(prefix="posture-tune-", ignore_cleanup_errors=True) as scratch:
        failures = ray.tune.FailureConfig(max_failures=RETRIES)
        settings = ray.tune.RunConfig(
            name="search", storage_path=scratch, verbose=0, callbacks=callbacks, failure_config=failures
        )
        ray.tune.Tuner(trial, tune_config=config, run_config=settings).fit()


def _settle(search: Search, plan: Plan) -> None:
    search.recover(lambda run: read(RunFolder(plan.runs, run)))


class NotKept:
    """Base of objects that Tune pickles to restore them later. A search resumes from its storage, so their state is
    left out.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(NotKept, Searcher):
    """Tune's searcher: proposes the points of the search, and tells it the results."""

    def __init__(self, search: Search, plan: Plan, on_trial: Callable[[int], None]) -> None:
        super().__init__()
        self.points: dict[str, Point] = {}
        """Points by Tune's trial id."""
        self.ended = False
        self._search, self._plan, self._on_trial = search, plan, on_trial

    def suggest(self, trial_id: str) -> Any:
        if self.ended:
            return Searcher.FINISHED
        point = self.points[trial_id] = self._search.ask()
        self.emit()
        return {"point": asdict(point)}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "values" in result:
            self._search.report(self.points[trial_id].number, result["values"])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the search the result. Without one, the trial was interrupted, or its process was lost too often."""
        point = self.points[trial_id]
        outcome = read(RunFolder(self._plan.runs, point.run))
        if outcome is None and error:
            lost = InputError(f"its process was lost {RETRIES + 1} times (out of memory, or its node)")
            outcome = failure(self._plan, point, lost)
        if outcome is not None:
            self._search.tell(point.number, outcome)
            self._on_trial(point.number)
        self.emit()

    def emit(self) -> None:
        emit_trials(self._search.name, [state_of(trial) for trial in self._search.trials])

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: Tune saves searchers regularly, but the search is in its storage."""
        open(checkpoint_path, "w").close()

    def restore(self, checkpoint_path: str) -> None:
        raise RuntimeError("a search resumes from its storage, never from Tune's")


class Halving(NotKept, AsyncHyperBandScheduler):
    """Asynchronous successive halving (Li 2018, arXiv 1810.05934). Decisions are written on the board; trials end by
    themselves.

    A resumed search keeps its rungs: results of earlier trials are read from the study.
    """

    def __init__(self, search: Search, plan: Plan, board: Any, asking: StudySearcher) -> None:
        run = plan.base.run
        super().__init__(
            time_attr="epoch",
            metric="value",
            mode="max",
            max_t=run.chosen_epochs + 1,
            reduction_factor=REDUCTION,
            grace_period=first_rung(run.chosen_epochs, warmup_epochs=run.optim.warmup_epochs),
        )
        self._board, self._asking = board, asking
        sign = 1.0 if plan.objectives[0].maximize else -1.0
        for trial in search.finished:
            if state_of(trial) != "failed":
                for epoch, value in sorted(trial.intermediate_values.items()):
                    self._brackets[0].on_result(_Before(f"before-{trial.number}"), epoch, sign * value)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        if super().on_trial_result(tune_controller, trial, result) == TrialScheduler.STOP and not result.get("done"):
            ray.get(self._board.stop.remote(self._asking.points[trial.trial_id].run))
        return TrialScheduler.CONTINUE


def first_rung(epochs: int, *, warmup_epochs: float) -> int:
    """Return the epoch of the first rung, which comes after the warm-up."""
    return min(epochs, max(1 + math.ceil(warmup_epochs), round(epochs * FIRST_RUNG)))


@dataclass(frozen=True)
class _Before:
    """A trial of an earlier session, for a rung."""

    trial_id: str


class StopCallback(NotKept, ray.tune.Callback):
    """Between Tune's steps, ends the search if time is up or the user asks to, and passes on the board's numbers."""

    def __init__(
        self,
        asking: StudySearcher,
        board: Any,
        *,
        until: float,
        asked_to_stop: Callable[[], bool],
        on_update: Callable[[dict[str, dict[str, Any]]], None],
    ) -> None:
        self._asking, self._board, self._until, self._asked_to_stop, self._on_update = (
            asking,
            board,
            until,
            asked_to_stop,
            on_update,
        )
        self._looked = 0.0

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        now = time.monotonic()
        if not self._asking.ended and (now >= self._until or self._asked_to_stop()):
            self._asking.ended = True
            ray.get(self._board.end.remote())
        if now - self._looked >= LOOK_EVERY_SECONDS:
            self._looked = now
            self._on_update(ray.get(self._board.read.remote()))


class NoOutput(TrialProgressCallback):
    """Replaces Tune's printed progress, which no setting turns off; `posture tune` shows its own."""

    def on_trial_result(self, *_: Any, **__: Any) -> None: ...

    def on_trial_complete(self, *_: Any, **__: Any) -> None: ...

    def on_trial_error(self, *_: Any, **__: Any) -> None: ...


def _trial(config: dict[str, Any], *, plan: Plan, feeds: list[Any], board: Any, shape: Room) -> None:
    """Run a trial on one device, in this process."""
    point = Point(**config["point"])
    _attempt(
        plan,
        point,
        board,
        lambda session: run_worker(
            session.run,
            session.classes,
            session.folder,
            TuneContext(
                session.folder, board, plan.objectives[0], threads=shape.threads, use_gpu=shape.trial.get("GPU", 0) > 0
            ),
            train=feeds[0].open(),
            val=feeds[1].open(),
        ),
    )


def _trial_on_workers(config: dict[str, Any], *, plan: Plan, feeds: list[Any], board: Any, shape: Room) -> None:
    """Run a trial on several devices: this process waits while Ray Train's workers train."""
    from posture.distributed.train import train

    point = Point(**config["point"])

    def work(session: Any) -> dict[str, Any]:
        share = {"scale.cpus_per_worker": shape.cpus_per_worker, "scale.gpus_per_worker": shape.gpus_per_worker}
        session = replace(session, run=override(session.run, share))
        return train(
            session,
            feeds=feeds,
            on_device=lambda _: None,
            on_progress=lambda update: board.post.remote(point.run, update),
            on_record=lambda record: (
                report_epoch(session.folder, plan.objectives[0]) if "train_loss" in record else None
            ),
            asked_to_stop=lambda: ray.get(board.asked_to_stop.remote(point.run)),
        )

    _attempt(plan, point, board, work)


def _attempt(plan: Plan, point: Point, board: Any, work: Callable[[Any], dict[str, Any]]) -> TrialResult | None:
    """Train a trial and write its result; an error fails the trial, not the search. Return None if interrupted."""
    try:
        session = start(plan, point)
        stopped = work(session)["stopped"] == "asked"
        if stopped and not ray.get(board.was_stopped.remote(point.run)):
            return None
        return conclude(plan, session, stopped=stopped)
    except RayActorError:  # the board is gone with the search's driver, and this process follows
        return None
    except Exception as error:
        return failure(plan, point, error)
    finally:
        torch.cuda.empty_cache()  # the process stays for the next point, and others need the memory
