"""Checkpoints on their way to where a run is kept: into a folder at once, into a bucket while training goes on."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from posture.data.store.files import is_remote
from posture.errors import Busy, InputError, Unreachable
from posture.train.checkpoint import read_state

SaveCheckpoint = Callable[[Path], None]
"""Writes a checkpoint into an existing, empty folder."""


class CheckpointTarget(Protocol):
    """Where a run keeps its results (`posture.runs`)."""

    uri: str

    def publish_checkpoint(self, tag: str, directory: Path, *, best: bool) -> None: ...

    def write_json(self, name: str, value: Any) -> None: ...


def checkpoint_tag(metrics: dict[str, Any]) -> str:
    """`epoch-0003` once epoch 3 is complete, `epoch-0004-step-000012` in the midst of epoch 4."""
    step = f"-step-{metrics['step']:06d}" if metrics.get("step") else ""
    return f"epoch-{metrics['epoch']:04d}{step}"


class Publisher:
    """Publishes a run's checkpoints and the history they hold, one at a time; what was published before stands whatever
    becomes of the next.
    """

    def __init__(self, folder: CheckpointTarget) -> None:
        self._folder = folder
        self._upload: Future[None] | None = None

    def publish(
        self, metrics: dict[str, Any], save: SaveCheckpoint, *, best: bool, then: Callable[[], None] = lambda: None
    ) -> None:
        """Write a checkpoint and publish it as last, and as best if it is; in a bucket it may still be on its way when
        this returns.

        `then` is called once a reader finds it. Raises Unreachable where this one, or the one before, cannot be
        written, Busy where another process took the run.
        """
        self.settle()
        place = tempfile.TemporaryDirectory(prefix="posture-checkpoint-")
        try:
            with self._explained(metrics):
                save(Path(place.name))
        except BaseException:
            place.cleanup()
            raise
        if not is_remote(self._folder.uri):
            self._publish(place, metrics, best, then)
            return
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload")
        self._upload = pool.submit(self._publish, place, metrics, best, then)
        pool.shutdown(wait=False)

    def settle(self) -> None:
        """Wait for what is on its way. Raises Unreachable where it did not arrive, Busy where another process took the
        run.
        """
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.result()

    def _publish(
        self, place: tempfile.TemporaryDirectory, metrics: dict[str, Any], best: bool, then: Callable[[], None]
    ) -> None:
        with place as folder, self._explained(metrics):
            self._folder.publish_checkpoint(checkpoint_tag(metrics), Path(folder), best=best)
            self._folder.write_json("history.json", read_state(Path(folder))["history"])
        then()

    @contextlib.contextmanager
    def _explained(self, metrics: dict[str, Any]) -> Iterator[None]:
        """Raise Unreachable in one sentence where a disk is full or storage takes nothing more from us."""
        from obstore.exceptions import BaseError
        from safetensors import SafetensorError

        try:
            yield
        except Busy:
            raise
        except (InputError, OSError, BaseError, SafetensorError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise Unreachable(
                f"{self._folder.uri}: the checkpoint {checkpoint_tag(metrics)} cannot be written ({why}); the one before it stands: "
                "mend this (space? AWS_* credentials?), then continue with --resume"
            ) from None
