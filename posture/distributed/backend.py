"""The two backends of a command: Ray, or this process without it. Ray is imported when work begins."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from posture.config import AnyRun
from posture.data.ingest.clip_ledger import ClipReport, IngestOptions
from posture.data.labels.records import LabelledVideos
from posture.data.store.tables import Store
from posture.display.console import interruptible
from posture.runs.backend import LOCAL, Backend
from posture.runs.prepare import Session


def backend(*, local: bool) -> Backend:
    """Return the backend of a command: this process with --local, else Ray."""
    return LOCAL if local else OnRay()


class OnRay:
    """The cluster that `cluster.connect` finds, or a Ray started on this machine."""

    def admit(self, run: AnyRun) -> None:
        from posture.distributed.train import room_for

        room_for(run.scale)

    def train(
        self,
        session: Session,
        *,
        on_progress: Callable[[dict[str, Any]], None],
        on_record: Callable[[dict[str, Any]], None],
        on_device: Callable[[str], None],
    ) -> dict[str, Any]:
        from posture.distributed.train import train

        with interruptible() as asked:
            hooks: Any = {"on_progress": on_progress, "on_record": on_record, "on_device": on_device}
            return train(session, asked_to_stop=asked.is_set, **hooks)

    def predict(self, index: Any, run: AnyRun, checkpoint: Path, **options: Any) -> Any:
        from posture.distributed.evaluate import predict

        return predict(index, run, checkpoint, **options)

    def run_jobs(self, step: str, jobs: list[Any], **options: Any) -> dict[str, str]:
        from posture.distributed.jobs import execute

        return execute(step, jobs, **options)

    def ingest(self, footage: LabelledVideos, store: Store, options: IngestOptions, **progress: Any) -> ClipReport:
        from posture.distributed.ingest import ingest

        return ingest(footage, store, options, **progress)

    def add_flow(self, store: Store, method: str, **progress: Any) -> Any:
        from posture.distributed.ingest import compute_flow

        return compute_flow(store, method, **progress)
