"""`posture compare`: arguments, progress, a line for each finished run, and the result."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App

from posture.commands.options import Sets, read_sets
from posture.compare import action as actions
from posture.compare import detection
from posture.compare import label_curve as label_curves
from posture.compare.analysis import flow_notes, optimizer_notes, write_json
from posture.compare.results import Comparison
from posture.compare.study import Job, StudyRunner, tried_for
from posture.config import Study
from posture.data.store.files import absolute, join, write_bytes
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted, duration
from posture.distributed.backend import backend
from posture.errors import InputError
from posture.runs.backend import Backend
from posture.runs.prepare import recipe_path
from posture.runs.recipes import load_study
from posture.search.winner import winner_study

command = App(name="compare", help_epilogue="Example: posture compare jobs/action.py:study --store STORE")


@command.default
def compare(
    study: str,
    /,
    *,
    store: str,
    seeds: Annotated[int, between(1)] = 3,
    epochs: Annotated[int | Literal["auto"] | None, between(1)] = None,
    out: str | None = None,
    sets: Sets = (),
    equal: Literal["epochs", "time"] = "epochs",
    concurrent: Annotated[int | None, between(1)] = None,
    label_curve: str | None = None,
    local: bool = False,
) -> None:
    """Train and score the models of a study on one budget, and compare them on one page.

    If the study is interrupted, the same command continues it; finished runs are used again.

    Parameters
    ----------
    study
        FILE.py:function that returns a Study; or best.json of a search, to compare its winner with its base recipe.
    store
        Folder or s3:// prefix of the store.
    seeds
        Train each model with the seeds 0, 1, ... up to this number of runs.
    epochs
        Epochs of each model; by default the study's own. auto chooses enough of them for the subject's clips.
    out
        Folder or s3:// prefix for runs and page; by default studies/NAME.
    sets
        Change a field of every model that has it: --set model.width=0.25 (repeatable).
    equal
        Give every model the same number of epochs, or the training time of the study's subject.
    label_curve
        Instead of comparing networks, train the subject and a linear classifier on few labelled segments of each class
        and on more: 5,10,20,all. A curve shows what labelling more would bring.
    concurrent
        Maximum runs at a time; by default one for each GPU, or for each CPU if there is no GPU.
    local
        Run one after the other in this process, without Ray.
    """
    if label_curve is not None:
        if equal != "epochs":
            raise InputError(f"--equal {equal}: a label curve trains all for equal epochs; leave it out")
        draw_label_curve(
            study,
            store,
            label_curve,
            out=out,
            seeds=seeds,
            changes=read_sets(sets, epochs=epochs),
            local=local,
            concurrent=concurrent,
        )
        return
    compare_study(
        study,
        store,
        out=out,
        seeds=seeds,
        changes=read_sets(sets, epochs=epochs),
        local=local,
        concurrent=concurrent,
        equal=equal,
    )
    console.suggest(f"the same command with --seeds {seeds + 2} trains only the missing runs, and is more certain")


def compare_study(
    recipe: str,
    store: str,
    *,
    out: str | None,
    seeds: int,
    changes: dict[str, Any],
    local: bool,
    concurrent: int | None,
    equal: str = "epochs",
) -> dict[str, Any]:
    """Train and score the runs of the study at `recipe`, or of a search's winner and its base.

    Write comparison.html and comparison.json.

    Returns the analysis. Raises InputError.
    """
    study = _load(recipe, store)
    if study.subject.name == "runner-up":
        console.out.print(
            "the search found nothing better than its base recipe, which is compared with the best other trial: "
            f"{study.titles['runner-up']}"
        )
    folder = absolute(out or f"studies/{study.name}")
    execute = functools.partial(_execute, backend(local=local), concurrent=concurrent)
    comparing = StudyRunner(
        study, store, runs=join(folder, "runs"), seeds=seeds, changes=changes, execute=execute, equal=equal
    )
    rates = len(study.learning_rates)
    searched = (
        f"{rates} learning rates tried first, each for {tried_for(study, comparing.subject.run)} of these"
        if rates > 1
        else "learning rates as in the recipes"
    )
    console.out.print(
        f"{study.name}: {counted(len(comparing.contenders), 'model')}, {counted(seeds, 'seed')}, "
        f"{counted(comparing.subject.run.chosen_epochs, 'epoch')} each, {searched}; runs in {join(folder, 'runs')}"
    )
    if comparing.schedule:
        console.out.print(comparing.schedule)
    try:
        with console.waiting("comparing"):
            comparison = comparing.run()
    except KeyboardInterrupt:
        console.out.print("stopped; the same command continues the study")
        raise
    return _show(comparison, study.subject.task, folder)


def draw_label_curve(
    recipe: str,
    store: str,
    sizes: str,
    *,
    out: str | None,
    seeds: int,
    changes: dict[str, Any],
    local: bool,
    concurrent: int | None,
) -> dict[str, Any]:
    """Train the subject of the study at `recipe` on subsets of the labels; write label_curve.html and label_curve.json.

    Returns the curve. Raises InputError.
    """
    study, wanted = _load(recipe, store), label_curves.parse_sizes(sizes)
    folder = absolute(out or f"studies/{study.name}")
    execute = functools.partial(_execute, backend(local=local), concurrent=concurrent)
    options: dict[str, Any] = {"runs": join(folder, "runs"), "seeds": seeds, "changes": changes, "execute": execute}
    try:
        with console.waiting("comparing"):
            curve = label_curves.run_label_curve(study, store, wanted, tell=console.out.print, **options)
    except KeyboardInterrupt:
        console.out.print("stopped; the same command continues the curve")
        raise
    _write(
        folder,
        {
            "label_curve.json": lambda path: write_json(path, curve),
            "label_curve.html": lambda path: label_curves.write_curve_page(path, curve),
        },
    )
    columns, rows = label_curves.rows_for_console(curve)
    console.table(*columns, rows=rows)
    for sentence in curve["sentences"]:
        console.out.print(sentence)
    console.out.print(join(folder, "label_curve.html"))
    return curve


def _load(recipe: str, store: str) -> Study:
    if recipe.endswith(".json"):
        return winner_study(recipe)
    return load_study(recipe_path(recipe, store, what="study", example="jobs/action.py:study"))


def _write(folder: str, files: dict[str, Callable[[Path], None]]) -> None:
    """Write files into a folder or s3:// prefix; each function writes its file to the path that it gets."""
    with tempfile.TemporaryDirectory(prefix="posture-comparison-") as place:
        for name, write in files.items():
            write(Path(place, name))
            write_bytes(join(folder, name), Path(place, name).read_bytes())


def _execute(where: Backend, step: str, jobs: list[Job], *, concurrent: int | None) -> dict[str, str]:
    with console.progress({"train": "training", "score": "scoring"}[step]) as advance:
        return where.run_jobs(
            step, jobs, concurrent=concurrent, on_progress=advance, on_done=functools.partial(_print_run, step)
        )


def _print_run(step: str, job: Job, said: str) -> None:
    if said:
        console.out.print(f"{job.run.name}: {said}")
    elif step == "train":
        history = job.history
        best = max(record[f"val_{job.run.metric}"] for record in history)
        losses = [record["val_loss"] for record in history if "val_loss" in record]
        budget = f"lr {job.run.optim.lr:g}, {counted(len(history), 'epoch')}"
        budget = "fitted at once" if job.run.solved else budget
        took = duration(sum(record["seconds"] for record in history))
        console.out.print(
            f"{job.run.name}: {budget} in {took}, "
            f"best val {job.run.metric} {best:.3f}" + (f", lowest val loss {min(losses):.3f}" if losses else "")
        )


def _show(comparison: Comparison, task: str, folder: str) -> dict[str, Any]:
    words = detection if task == "detection" else actions
    analysis = words.analyse(comparison)
    _write(
        folder,
        {
            "comparison.json": lambda path: write_json(path, analysis),
            "comparison.html": lambda path: words.write_page(path, comparison, analysis),
        },
    )
    columns, rows = words.rows_for_console(analysis)
    console.table(*columns, rows=rows)
    for sentence in [
        *optimizer_notes(analysis),
        *flow_notes(analysis),
        *analysis["verdict"],
        *analysis["ablations"].values(),
    ]:
        console.out.print(sentence)
    console.out.print(join(folder, "comparison.html"))
    return analysis
