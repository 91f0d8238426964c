"""Publishing of checkpoints: into a folder at once, into a bucket while training goes on."""

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
"""Function that writes a checkpoint into an existing, empty folder."""


class CheckpointTarget(Protocol):
    """Folder of a run's results (`posture.runs.folder`)."""

    uri: str

    def publish_checkpoint(self, tag: str, directory: Path, *, best: bool) -> None: ...

    def write_json(self, name: str, value: Any) -> None: ...


def checkpoint_tag(metrics: dict[str, Any]) -> str:
    """Return `epoch-0003` after epoch 3, `epoch-0004-step-000012` within epoch 4."""
    step = f"-step-{metrics['step']:06d}" if metrics.get("step") else ""
    return f"epoch-{metrics['epoch']:04d}{step}"


class Publisher:
    """Publisher of a run's checkpoints and their history, one at a time; if one fails, the one before remains."""

    def __init__(self, folder: CheckpointTarget) -> None:
        self._folder = folder
        self._upload: Future[None] | None = None

    def publish(
        self, metrics: dict[str, Any], save: SaveCheckpoint, *, best: bool, then: Callable[[], None] = lambda: None
    ) -> None:
        """Write a checkpoint and publish it as last, and as best if it is.

        Its upload to a bucket may go on after this returns. `then` is called once readers find it. Raises Unreachable
        if this checkpoint, or the one before, cannot be written, Busy if another process took the run.
        """
        self.settle()
        written = tempfile.TemporaryDirectory(prefix="posture-checkpoint-")
        try:
            with self._explained(metrics):
                save(Path(written.name))
        except BaseException:
            written.cleanup()
            raise
        if not is_remote(self._folder.uri):
            self._publish(written, metrics, best, then)
            return
        pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="upload")
        self._upload = pool.submit(self._publish, written, metrics, best, then)
        pool.shutdown(wait=False)

    def settle(self) -> None:
        """Wait for the upload. Raises Unreachable if it failed, Busy if another process took the run."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.result()

    def _publish(
        self, written: tempfile.TemporaryDirectory, metrics: dict[str, Any], best: bool, then: Callable[[], None]
    ) -> None:
        with written as folder, self._explained(metrics):
            self._folder.publish_checkpoint(checkpoint_tag(metrics), Path(folder), best=best)
            self._folder.write_json("history.json", read_state(Path(folder))["history"])
        then()

    @contextlib.contextmanager
    def _explained(self, metrics: dict[str, Any]) -> Iterator[None]:
        """Raise Unreachable, in one sentence, if the disk is full or the storage refuses to write."""
        from obstore.exceptions import BaseError
        from safetensors import SafetensorError

        try:
            yield
        except Busy:
            raise
        except (InputError, OSError, BaseError, SafetensorError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0][:300]
            raise Unreachable(
                f"{self._folder.uri}: the checkpoint {checkpoint_tag(metrics)} cannot be written ({why}); "
                "the one before it is kept: check free space and AWS_* credentials, then continue with --resume"
            ) from None
