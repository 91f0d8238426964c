"""Train a run on one worker: build, load, fit, track."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posture.config import ActionRun, AnyRun
from posture.runs.folder import RunFolder
from posture.runs.kinds import KINDS


def run_worker(
    run: AnyRun, classes: tuple[str, ...], folder: RunFolder, ctx: Any, *, train: Any, val: Any
) -> dict[str, Any]:
    """Train as one worker, on Ray or in this process: build the network, load the last checkpoint or the weights to
    start from, fit. Rank 0 takes the run and tracks it.

    Return what `fit` returns, and a `note` on tracking that failed, else "".
    """
    import torch

    from posture.models.size import refuse_too_large
    from posture.runs.tracking import Tracker
    from posture.runs.weights import build_network, load_start
    from posture.train.loop import fit

    refuse_too_large(run, ctx.device)
    torch.manual_seed(run.seed)
    model, kind = build_network(run), KINDS[run.task]
    task, batches = kind.task(run, classes), kind.batches(train, val, run, ctx)
    teachers = None
    if isinstance(run, ActionRun) and run.teachers:
        from posture.runs.teachers import load_teachers

        teachers = load_teachers(run, folder, classes=classes)
    tracker = None
    if ctx.rank == 0:
        folder.take()
        past = [(record["epoch"] * batches.steps_per_epoch, record) for record in folder.history()]
        tracker = Tracker(run.name, folder=folder.uri, config=run.model_dump(mode="json"), past=past)
    failed = True
    try:
        if folder.checkpoints():
            with folder.checkpoint("last") as checkpoint:
                if ctx.rank == 0:
                    _mend_history(folder, checkpoint)
                outcome = fit(run, task, batches, ctx, tracker, model=model, teachers=teachers, resume=checkpoint)
        else:
            if run.weights:
                load_start(model, folder)
                if tracker is not None:
                    tracker.summarize({"start": folder.record().start})
            outcome = fit(run, task, batches, ctx, tracker, model=model, teachers=teachers)
        failed = False
        if tracker is not None and outcome["best"] is not None:
            tracker.summarize({f"best_val_{run.metric}": outcome["best"], "best_epoch": outcome["best_epoch"]})
            if tracker.is_on and (sheets := kind.sheets(run, classes, folder, val)):
                tracker.show(sheets)
    finally:
        ctx.close()
        if tracker is not None:
            tracker.close(failed=failed)
    return outcome | {"note": tracker.note if tracker is not None else ""}


def _mend_history(folder: RunFolder, checkpoint: Path) -> None:
    """Write the history that the checkpoint holds, which a run that was killed in between did not write itself."""
    from posture.train.checkpoint import read_state

    history = read_state(checkpoint)["history"]
    if folder.read_json("history.json") != history:
        folder.write_json("history.json", history)
