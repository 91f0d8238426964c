"""Where work runs: in this process, or on Ray (`posture/distributed/backend.py`). A command chooses once and hands its
backend down.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from posture.config import AnyRun
from posture.data.feed.shards import open_index
from posture.data.store.tables import Store
from posture.runs.figures import Views
from posture.runs.kinds import KINDS
from posture.runs.prepare import Session

if TYPE_CHECKING:
    from posture.data.ingest.clip_ledger import ClipReport, IngestOptions
    from posture.data.labels.videos import LabelledVideos


class Backend(Protocol):
    """All that a command, a study or a pass of retraining knows of where its work runs."""

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
        second raises KeyboardInterrupt. `on_progress` is called after steps, `on_record` after each epoch, `on_device`
        once with the name of the device.
        """
        ...

    def predict(
        self,
        index: Any,
        run: AnyRun,
        checkpoint: Path,
        *,
        views: Views,
        batch: int,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Any, str]:
        """Return the checkpoint's predictions, one for each clip or image of `index`, and the name of the device."""
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
        """ "train" or "score" each `posture.compare.study.Job`; return what `Job.work` returned, by the run's name.
        `on_done(job, problem)` is called for each job that was not done before.
        """
        ...

    def ingest(
        self, footage: LabelledVideos, store: Store, options: IngestOptions, *, progress: Callable[..., None]
    ) -> ClipReport:
        """Add the new videos of `footage` to the store."""
        ...

    def add_flow(self, store: Store, method: str, *, progress: Callable[..., None]) -> Any:
        """Compute the optical flow of clips that have none."""
        ...


class Local:
    """This process, without Ray, on its GPU if it has one. Takes in no footage; see
    `posture.distributed.backend.WithoutRay`.
    """

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

    def predict(
        self,
        index: Any,
        run: AnyRun,
        checkpoint: Path,
        *,
        views: Views,
        batch: int,
        workers: int = 1,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Any, str]:
        return KINDS[run.task].predict(index, run, checkpoint, views=views, batch=batch, progress=progress)

    def run_jobs(
        self,
        step: str,
        jobs: list[Any],
        *,
        concurrent: int | None,
        on_progress: Callable[[int, int, str], None],
        on_done: Callable[[Any, str], None],
    ) -> dict[str, str]:
        """One after the other, whatever `concurrent` is."""
        problems = {}
        for number, job in enumerate(jobs):
            on_progress(number, len(jobs), job.run.name)
            was_done = job.is_done(step)
            problems[job.run.name] = job.work(step)
            if not was_done:
                on_done(job, problems[job.run.name])
        return problems


LOCAL = Local()
