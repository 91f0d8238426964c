"""Train a run on one worker: build, load, fit, track."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posture.config import AnyRun
from posture.runs.folder import RunFolder


def run_worker(
    run: AnyRun, classes: tuple[str, ...], folder: RunFolder, ctx: Any, *, train: Any, val: Any
) -> dict[str, Any]:
    """What every worker does, wherever it runs: build, load the last checkpoint or the weights to start from, fit; rank
    0 takes the run and tracks it.

    Returns what `fit` returns, and a `note` where tracking did not go as it should.
    """
    import torch

    from posture.models import build
    from posture.models.size import refuse_too_large
    from posture.runs.tracking import Tracker
    from posture.runs.weights import load_start
    from posture.train.loop import fit

    refuse_too_large(run, ctx.device)
    torch.manual_seed(run.seed)
    model = build(run.model, detect=run.detect if run.task == "detection" else None)
    task, batches = _task(run, classes), _batches(run, train, val, ctx)
    tracker = None
    if ctx.rank == 0:
        folder.take()
        past = [
            (record["epoch"] * batches.steps_per_epoch, record) for record in folder.read_json("history.json") or []
        ]
        tracker = Tracker(run.name, folder=folder.uri, config=run.model_dump(mode="json"), past=past)
    failed = True
    try:
        if folder.checkpoints():
            with folder.checkpoint("last") as checkpoint:
                if ctx.rank == 0:
                    _mend_history(folder, checkpoint)
                outcome = fit(run, task, batches, ctx, tracker, model=model, resume=checkpoint)
        else:
            if run.weights:
                load_start(model, folder)
                if tracker is not None:
                    tracker.summarize({"start": folder.read_json("run.json")["start"]})
            outcome = fit(run, task, batches, ctx, tracker, model=model)
        failed = False
        if tracker is not None and outcome["best"] is not None:
            tracker.summarize({f"best_val_{run.metric}": outcome["best"], "best_epoch": outcome["best_epoch"]})
            if run.task == "detection" and tracker.is_on:
                from posture.runs.detection import sheets

                tracker.show(sheets(run, classes, folder, val.index))
    finally:
        ctx.close()
        if tracker is not None:
            tracker.close(failed=failed)
    return outcome | {"note": tracker.note if tracker is not None else ""}


def _mend_history(folder: RunFolder, checkpoint: Path) -> None:
    """A run that was killed between publishing a checkpoint and its history gets the history that the checkpoint holds."""
    from posture.train.checkpoint import read_state

    history = read_state(checkpoint)["history"]
    if folder.read_json("history.json") != history:
        folder.write_json("history.json", history)


def _task(run: AnyRun, classes: tuple[str, ...]) -> Any:
    if run.task == "detection":
        from posture.tasks.detection import DetectionTask

        return DetectionTask(run, classes)
    from posture.tasks.action import ActionTask

    return ActionTask(run, classes)


def _batches(run: AnyRun, train: Any, val: Any, ctx: Any) -> Any:
    from posture.train.batches import Batches
    from posture.train.image_batches import ImageBatches

    return (ImageBatches if run.task == "detection" else Batches)(
        train, run, rank=ctx.rank, world_size=ctx.world_size, validation=val
    )
