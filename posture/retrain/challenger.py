"""The challenger of a pass: its name and its training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

from posture.config import ActionRun
from posture.retrain.intake import Progress
from posture.runs.backend import Backend
from posture.runs.kinds import KINDS
from posture.runs.prepare import Session


def digest_of_wish(run: ActionRun, *, store: str, from_scratch: bool) -> str:
    """Return a digest of the request without the footage; a killed pass resumes only if it is the same."""
    return _digest(run.model_dump(mode="json", exclude={"tracking"}) | {"store": store, "from_scratch": from_scratch})


def name_of(
    run: ActionRun, *, wish: str, champion: str | None, versions: dict[str, int], left_out: tuple[str, ...]
) -> str:
    """Return a name that is the same for the same request (`digest_of_wish`), champion and footage.

    So nothing is trained twice.
    """
    read = {name: versions.get(name) for name in KINDS[run.task].tables(run)}
    return f"{run.name[:80]}-{_digest({'asked': wish, 'champion': champion, 'left_out': left_out, 'versions': read})}"


def fit(
    session: Session,
    *,
    backend: Backend,
    on_device: Callable[[str], None],
    tell: Callable[[str], None],
    progress: Progress,
) -> dict[str, Any]:
    """Train the challenger to its end or to Ctrl-C, and return the result of training.

    `on_device` gets the device once training has begun. Raises InputError if it cannot be trained.
    """
    with progress("training") as advance:

        def on_progress(update: dict[str, Any]) -> None:
            done = (update["epoch"] - 1) * update["steps"] + update["step"]
            advance(done, update["epochs"] * update["steps"], f"epoch {update['epoch']}")

        def on_record(record: dict[str, Any]) -> None:
            if "train_loss" in record:
                tell(
                    f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  val accuracy "
                    f"{record['val_accuracy']:.4f}"
                )

        return backend.train(session, on_progress=on_progress, on_record=on_record, on_device=on_device)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=4).hexdigest()
