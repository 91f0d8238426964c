"""`posture train` as a person meets it: what runs where, progress, a line per epoch, and where the results are."""

from __future__ import annotations

from typing import Any, Literal

from posture.data.ingest.small_splits import LEAST, too_few
from posture.display import console
from posture.display.text import counted
from posture.distributed.backend import backend
from posture.runs.folder import RunFolder
from posture.runs.prepare import UNITS, Session, prepare
from posture.runs.tracking import tracking_mode


def train_run(
    recipe: str,
    store: str,
    *,
    runs: str,
    name: str | None,
    changes: dict[str, Any],
    local: bool,
    resume: bool | Literal["if begun"],
) -> RunFolder:
    """Prepare, train, report. Ctrl-C saves, twice stops at once; both say how to go on and exit with 130. Raises
    InputError.
    """
    where = backend(local=local)
    session = prepare(recipe, store, runs=runs, name=name, changes=changes, resume=resume, admit=where.admit)
    unit = UNITS[session.run.task]
    again = (
        f"posture train {recipe} --store {store} --runs {runs} --name {session.run.name} --resume{' --local' * local}"
    )
    _announce(session, unit, local=local)
    with console.progress("training") as advance:

        def on_progress(update: dict[str, Any]) -> None:
            done = (update["epoch"] - 1) * update["steps"] + update["step"]
            loss = "" if update["loss"] is None else f"loss {update['loss']:.3f}, "
            advance(
                done,
                update["epochs"] * update["steps"],
                f"epoch {update['epoch']}, {loss}{update['clips_per_second']:.0f} {unit}/s",
            )

        def on_record(record: dict[str, Any]) -> None:
            if "train_loss" in record:  # not of a run that was stopped within an epoch
                console.out.print(_epoch_line(record, session.run.task))

        try:
            outcome = where.train(session, on_progress=on_progress, on_record=on_record, on_device=_print_device)
        except KeyboardInterrupt:
            console.out.print(f"stopped at once; continue from the last checkpoint with: {again}")
            raise
    if outcome["note"]:
        console.out.print(outcome["note"])
    if outcome.get("stopped") == "asked":
        console.out.print(f"stopped; continue with: {again}")
        raise KeyboardInterrupt
    best, epoch = outcome["best"], outcome["best_epoch"]
    early = (
        f" (stopped early, {counted(session.run.patience, 'epoch')} without a better one)"
        if outcome.get("stopped") == "early"
        else ""
    )
    console.out.print(f"best {session.run.metric} on val {best:.4f} in epoch {epoch}{early}")
    console.out.print(f"{session.folder.uri}")
    console.suggest(f"posture evaluate {session.folder.uri}")
    return session.folder


def _announce(session: Session, unit: str, *, local: bool) -> None:
    run, mode = session.run, tracking_mode(session.run.tracking.mode)
    counts = sorted({run.scale.sizes[0], run.scale.sizes[-1]})
    console.out.print(
        f"{'continuing' if session.resumed else 'training'} {run.name}: {counted(len(session.train), unit.removesuffix('s'))} to train on, "
        f"{len(session.val):,} to validate on, {counted(len(session.classes), 'class', 'classes')}, {counted(run.epochs, 'epoch')}, batches of "
        f"{run.scale.global_batch}"
        + ("" if local else f", {' to '.join(map(str, counts))} Ray Train worker{'s' * (counts[-1] > 1)}")
    )
    small = too_few("val", f"{len(session.val):,} {unit}", points=None) if len(session.val) < LEAST else ""
    for said in (session.size, session.start, session.anchors, small):
        if said:
            console.out.print(said)
    console.out.print(f"Weights & Biases: {mode[0]}, {mode[1]}")


def _print_device(name: str) -> None:
    console.out.print(f"running on {name}")


def _epoch_line(record: dict[str, Any], task: str) -> str:
    figures = {
        "detection": {"mAP@0.5": "val_map50", "mAP@0.5:0.95": "val_map50_95"},
        "action": {"val loss": "val_loss", "val accuracy": "val_accuracy"},
    }
    found = "  ".join(f"{name} {record[key]:.4f}" for name, key in figures[task].items())
    return (
        f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  {found}  {record['clips_per_second']:.1f} {UNITS[task]}/s  "
        f"waiting for {UNITS[task]} {record['data_wait_share']:.0%}"
    )
