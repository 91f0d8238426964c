"""`posture train`: arguments, progress, a line for each epoch, and the path of the run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from posture.commands.options import Sets, read_sets
from posture.config import AnyRun, read_changes
from posture.data.ingest.small_splits import LEAST, too_few
from posture.display import console
from posture.display.text import counted, duration
from posture.distributed.backend import backend
from posture.errors import InputError
from posture.runs.folder import RunFolder
from posture.runs.kinds import KINDS
from posture.runs.prepare import Session, prepare
from posture.runs.tracking import tracking_mode
from posture.runs.trained import aim

Teacher = Annotated[Sequence[str], Parameter(metavar="RUN", consume_multiple=False)]

command = App(
    name="train", help_epilogue="Example: posture train jobs/action.py:improved --store STORE --set epochs=80"
)

FIRST_STEPS = 10
"""Steps from whose speed the length of training is estimated."""


@command.default
def train(
    recipe: str,
    /,
    *,
    store: str,
    runs: str = "runs",
    name: str | None = None,
    epochs: int | Literal["auto"] | None = None,
    workers: str | None = None,
    weights: str | None = None,
    probe: bool = False,
    teacher: Teacher = (),
    set_file: str | None = None,
    local: bool = False,
    resume: bool = False,
    resume_if_begun: bool = False,
    sets: Sets = (),
) -> None:
    """Train a recipe on a store. The run's folder gets its configuration, checkpoints and history.

    Parameters
    ----------
    recipe
        FILE.py:function, or FILE.py:function.NAME for one of several runs; looked up in the working directory, then
        among the recipes of Posture. A bare function, such as `c3d`, is enough if only one file has it, or only one
        whose runs train on what the store holds.
    store
        Folder or s3:// prefix of the store.
    runs
        Folder or s3:// prefix for runs.
    name
        Name of the run; unique by default.
    epochs
        Number of epochs, as --set epochs=N; auto chooses enough of them for the number of clips.
    workers
        Number of Ray Train workers (data-parallel), or a range such as 2-8: as many as the cluster has room for, which
        may change during the run.
    weights
        Initial weights: a run, a checkpoint's folder, a .safetensors file, or a state dict (.pt, .pth) such as
        torchvision's.
    probe
        Fit only the last layer, at once, to what the network of --weights computes before it: seconds instead of
        epochs.
    teacher
        Trained run whose probabilities are learned beside the labels (repeatable: the mean of several).
    set_file
        JSON file of changes: best.json of posture tune, or fields and values; or the JSON itself. --set takes
        precedence.
    local
        Train in this process, without Ray.
    resume
        Resume the run --name from its last checkpoint.
    resume_if_begun
        Resume the run --name, or begin it: for jobs that are submitted again after a failure.
    sets
        Change a field of the recipe: --set optim.lr=0.01 (repeatable).
    """
    changes = read_changes(set_file) if set_file is not None else {}
    changes |= read_sets(
        sets,
        epochs=1 if probe and epochs is None else epochs,
        probe=probe or None,
        teacher=list(teacher) or None,
        workers=None if workers is None else parse_workers(workers),
        weights=weights,
    )
    train_run(
        recipe,
        store,
        runs=runs,
        name=name,
        changes=changes,
        local=local,
        resume=resume or ("if begun" if resume_if_begun else False),
    )


def parse_workers(text: str) -> int | list[int]:
    """Return a number of workers or a range: `4` -> 4, `2-8` -> [2, 8]. Raises InputError."""
    counts = text.split("-")
    if len(counts) > 2 or not all(count.isdecimal() for count in counts):
        raise InputError(f"--workers {text}: write a number of workers, or a range of them, for example 2-8")
    return int(text) if len(counts) == 1 else [int(count) for count in counts]


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
    """Prepare and train a run, and print the result.

    The first Ctrl-C saves and stops, the second stops at once; both print how to resume, and exit with code 130. Raises
    InputError.
    """
    where = backend(local=local)
    session = prepare(recipe, store, runs=runs, name=name, changes=changes, resume=resume, admit=where.admit)
    unit = KINDS[session.run.task].unit
    again = (
        f"posture train {recipe} --store {store} --runs {runs} --name {session.run.name} --resume{' --local' * local}"
    )
    _announce(session, unit, local=local)
    told: list[str] = []
    with console.progress("training") as advance:

        def on_progress(update: dict[str, Any]) -> None:
            done = (update["epoch"] - 1) * update["steps"] + update["step"]
            if not told and (said := estimate(update, session.run)):
                told.append(said)
                console.out.print(said)
            loss = "" if update["loss"] is None else f"loss {update['loss']:.3f}, "
            advance(
                done,
                update["epochs"] * update["steps"],
                f"epoch {update['epoch']}, {loss}{update['clips_per_second']:.0f} {unit}/s",
            )

        def on_record(record: dict[str, Any]) -> None:
            if "train_loss" in record:  # missing if the run was stopped within an epoch
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
    console.suggest(
        f"posture train RECIPE --store {store} --weights {session.folder.uri}"
        if session.run.pretext
        else f"posture evaluate {session.folder.uri}"
    )
    return session.folder


def estimate(update: dict[str, Any], run: AnyRun) -> str:
    """Return a sentence on how long training will take, once `FIRST_STEPS` steps, or the first epoch, are done; "" if
    it is not known yet, or if only a few steps are left.
    """
    if run.solved:
        return ""
    left = (update["epochs"] - update["epoch"]) * update["steps"] + update["steps"] - update["step"]
    if update["step"] < min(FIRST_STEPS, update["steps"]) or left < FIRST_STEPS or not update["clips_per_second"]:
        return ""
    time = duration(left * run.scale.global_batch / update["clips_per_second"])
    early = "; it may stop early" if run.patience else ""
    return f"about {time} for the {left:,} steps that are left, without validation{early}"


def _announce(session: Session, unit: str, *, local: bool) -> None:
    run, mode = session.run, tracking_mode(session.run.tracking.mode)
    counts = sorted({run.scale.sizes[0], run.scale.sizes[-1]})
    console.out.print(
        f"{'resuming' if session.resumed else 'training'} {run.name}: "
        f"{counted(len(session.train), unit.removesuffix('s'))} to train on, {len(session.val):,} to validate on, "
        f"{aim(session.run, session.classes)}, {counted(run.chosen_epochs, 'epoch')}, "
        f"batches of {run.scale.global_batch}"
        + ("" if local else f", {' to '.join(map(str, counts))} Ray Train worker{'s' * (counts[-1] > 1)}")
    )
    small = too_few("val", f"{len(session.val):,} {unit}", points=None) if len(session.val) < LEAST else ""
    for said in (session.schedule, session.size, session.start, session.anchors, KINDS[run.task].lacking(run), small):
        if said:
            console.out.print(said)
    console.out.print(f"Weights & Biases: {mode[0]}, {mode[1]}")


def _print_device(name: str) -> None:
    console.out.print(f"running on {name}")


def _epoch_line(record: dict[str, Any], task: str) -> str:
    kind = KINDS[task]
    found = "  ".join(f"{name} {record[key]:.4f}" for name, key in kind.epoch_figures.items())
    return (
        f"epoch {record['epoch']:3d}  train loss {record['train_loss']:.4f}  {found}  "
        f"{record['clips_per_second']:.1f} {kind.unit}/s  waiting for {kind.unit} {record['data_wait_share']:.0%}"
    )
