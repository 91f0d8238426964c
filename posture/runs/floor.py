"""The linear classifier that every action classifier is shown beside, fitted on the same training clips.

It is `jobs/action.py:linear`, fitted when it is needed and kept in the run's folder.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import ActionRun, Scale
from posture.data.store.files import read_bytes, write_bytes
from posture.data.store.tables import Store
from posture.display.text import percent
from posture.errors import InputError
from posture.models.configs import Linear
from posture.runs.action import ActionRuns, merge
from posture.runs.backend import Backend
from posture.runs.figures import ONE_VIEW, Reads
from posture.runs.folder import RunFolder, RunRecord

NAME = "a linear classifier on mean frame and motion"
FILE = "linear.safetensors"
"""File in the run's folder with the fitted weights."""
MOST_CLIPS = 4000
"""Maximum number of training clips, spread evenly over all, so that the fit takes seconds."""


def floor_run(record: RunRecord) -> ActionRun:
    """Return the linear classifier as a run on the footage, frames and clips of the action run in `record`."""
    run = record.run
    assert isinstance(run, ActionRun)
    model = Linear(classes=len(record.classes), frames=max(2, run.model.frames))
    return ActionRun(name="linear", seed=run.seed, model=model, data=run.data, scale=Scale(global_batch=32, amp="off"))


@contextlib.contextmanager
def floor_weights(folder: RunFolder) -> Iterator[Path]:
    """Yield a temporary folder with the model.safetensors of `floor_run`; fit it first if the run has none yet.

    A folder that cannot be written is left as it is. Raises InputError if the run's store cannot be read.
    """
    content = read_bytes(folder.path(FILE))
    if content is None:
        content = _fit(folder.record())
        with contextlib.suppress(InputError):
            write_bytes(folder.path(FILE), content)
    with tempfile.TemporaryDirectory(prefix="posture-linear-") as place:
        Path(place, "model.safetensors").write_bytes(content)
        yield Path(place)


def linear_figures(
    folder: RunFolder, *, split: str, store_uri: str | None, backend: Backend, batch: int, workers: int
) -> dict[str, Any]:
    """Return `metrics["linear"]`: `accuracy` on the segments of `split`, each from its stored clips, and a `sentence`;
    or the sentence alone, if the store cannot be read.

    `store_uri` names another store than the run's own, at its newest versions.
    """
    record = folder.record()
    reads = Reads(record.versions if store_uri is None else None, record.classes, record.left_out)
    try:
        run = floor_run(record)
        index = ActionRuns().index(run, Store(store_uri or record.store), split, reads)
        with floor_weights(folder) as weights:
            scores, _ = backend.predict(index, run, weights, views=ONE_VIEW, batch=batch, workers=workers)
        clips = _training_clips(record)
    except InputError as error:
        return {"sentence": f"{NAME} was not fitted: {error}"}
    found = merge(np.asarray(scores), index, ONE_VIEW)
    accuracy = float((found.scores.argmax(axis=1) == found.labels).mean())
    some = f", fitted on {MOST_CLIPS:,} of {clips:,} training clips" if clips > MOST_CLIPS else ""
    return {"accuracy": accuracy, "sentence": f"{NAME}: {percent(accuracy)}{some}"}


def _training_clips(record: RunRecord) -> int:
    """Return the number of the run's training clips, which runs of older versions did not write down."""
    if counts := record.footage.get("train"):
        return int(counts["clips"])
    reads = Reads(record.versions, record.classes, record.left_out)
    return len(ActionRuns().index(floor_run(record), Store(record.store), "train", reads))


def _fit(record: RunRecord) -> bytes:
    """Return the fitted weights as safetensors."""
    from safetensors.torch import save

    from posture.data.feed.shards import open_index
    from posture.models import build
    from posture.train.context import LocalContext
    from posture.train.loop import fit

    run, kind, store = floor_run(record), ActionRuns(), Store(record.store)
    reads = Reads(record.versions, record.classes, record.left_out)
    sources = []
    for split in ("train", "val"):
        index = kind.index(run, store, split, reads)
        few = np.unique(np.linspace(0, len(index) - 1, min(MOST_CLIPS, len(index))).astype(np.int64))
        sources.append(open_index(index.part(few), feed=run.data.feed))
    train, val = sources
    run = run.model_copy(update={"scale": Scale(global_batch=min(run.scale.global_batch, len(train)), amp="off")})
    model, ctx = build(run.model), LocalContext()
    fit(run, kind.task(run, record.classes), kind.batches(train, val, run, ctx), ctx, None, model=model)
    return save({name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()})
