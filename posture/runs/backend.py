"""Backends run the work of a command: this process, or Ray (`posture/distributed/backend.py`). A command chooses one
and hands it down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posture.config import AnyRun
from posture.data.feed.shards import open_index
from posture.data.store.tables import Store
from posture.runs.kinds import KINDS
from posture.runs.prepare import Session

if TYPE_CHECKING:
    from posture.data.ingest.clip_ledger import ClipReport, IngestOptions
    from posture.data.labels.videos import LabelledVideos


class Backend(Protocol):
    """The interface of commands, studies and retraining to the place where their work runs."""

    def admit(self, run: AnyRun) -> None:
        """Raise InputError if there is no room for the run."""
        ...

    def train(
        self,
        session: Session,
        *,
        on_progress: Callable[[dict[str, Any]], None],
        on_record: Callable[[dict[str, Any]], None],
        on_device: Callable[[str], None],
    ) -> dict[str, Any]:
        """Train and return {"epoch", "best", "best_epoch", "stopped", "note"}. The first Ctrl-C saves and stops, the
        second raises KeyboardInterrupt.

        `on_progress(update)` is called after steps, `on_record(record)` after each epoch, `on_device(name)` once.
        """
        ...

    def predict(self, index: Any, run: AnyRun, checkpoint: Path, *, workers: int = 1, **options: Any) -> Any:
        """Return what `TaskRuns.predict`, which takes the `options`, returns. `workers` counts Ray tasks."""
        ...

    def run_jobs(
        self,
        step: str,
        jobs: list[Any],
        *,
        concurrent: int | None,
        on_progress: Callable[[int, int, str], None],
        on_done: Callable[[Any, str], None],
    ) -> dict[str, str]:
        """Do the step "train" or "score" of each `posture.compare.study.Job`, at most `concurrent` at a time. Return
        what `Job.work` returned, by the run's name.

        `on_done(job, problem)` is called for each job that was not done before.
        """
        ...

    def ingest(self, footage: LabelledVideos, store: Store, options: IngestOptions, **progress: Any) -> ClipReport:
        """Add the new videos of `footage` to the store, as `posture.data.ingest.clips.ingest_clips` does."""
        ...

    def add_flow(self, store: Store, method: str, **progress: Any) -> Any:
        """Compute the optical flow of clips that have none."""
        ...


class Local:
    """This process, without Ray, on its GPU if it has one."""

    def admit(self, run: AnyRun) -> None:
        from posture.models.size import refuse_too_large
        from posture.train.context import LocalContext

        refuse_too_large(run, LocalContext().device)

    def train(
        self,
        session: Session,
        *,
        on_progress: Callable[[dict[str, Any]], None],
        on_record: Callable[[dict[str, Any]], None],
        on_device: Callable[[str], None],
    ) -> dict[str, Any]:
        from posture.runs.worker import run_worker
        from posture.train.context import LocalContext

        class Here(LocalContext):
            def report(self, metrics: dict[str, Any], checkpoint: Any, *, best: bool) -> None:
                super().report(metrics, checkpoint, best=best)
                on_record(metrics)

        with Here(session.folder, on_progress=on_progress) as ctx:
            on_device(ctx.device_name)
            train, val = (open_index(index, feed=session.run.data.feed) for index in (session.train, session.val))
            return run_worker(session.run, session.classes, session.folder, ctx, train=train, val=val)

    def predict(self, index: Any, run: AnyRun, checkpoint: Path, *, workers: int = 1, **options: Any) -> Any:
        return KINDS[run.task].predict(index, run, checkpoint, **options)

    def run_jobs(
        self,
        step: str,
        jobs: list[Any],
        *,
        concurrent: int | None,
        on_progress: Callable[[int, int, str], None],
        on_done: Callable[[Any, str], None],
    ) -> dict[str, str]:
        """Do one job after the other, whatever `concurrent` is."""
        problems = {}
        for number, job in enumerate(jobs):
            on_progress(number, len(jobs), job.run.name)
            was_done = job.is_done(step)
            problems[job.run.name] = job.work(step)
            if not was_done:
                on_done(job, problems[job.run.name])
        return problems

    def ingest(self, footage: LabelledVideos, store: Store, options: IngestOptions, **progress: Any) -> ClipReport:
        from posture.data.ingest.clips import ingest_clips

        return ingest_clips(footage, store, options, **progress)

    def add_flow(self, store: Store, method: str, **progress: Any) -> Any:
        from posture.data.ingest.flow import FlowOptions, add_flow

        return add_flow(store, FlowOptions(method), **progress)


LOCAL = Local()
