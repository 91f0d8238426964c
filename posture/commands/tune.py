"""`posture tune`: arguments, a live table of trials, and the winner."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import optuna
from cyclopts import App, Parameter

from posture.commands.options import Sets, read_sets
from posture.config import AnyRun, override
from posture.data.store.files import absolute, is_remote, join, write_bytes
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted
from posture.errors import InputError
from posture.runs.folder import NAME
from posture.runs.kinds import KINDS
from posture.runs.prepare import fit_to_store, recipe_path
from posture.runs.recipes import load_recipe
from posture.runs.tracking import tracking_mode
from posture.search.live_trials import LiveTrials, best_text, parameters_text
from posture.search.spaces import Space, load_space
from posture.search.study import (
    Search,
    Terms,
    leading,
    open_storage,
    refuse_other_terms,
    stands,
    state_of,
    stored_terms,
)
from posture.search.trial import Plan, parse_objectives
from posture.search.winner import winner

command = App(
    name="tune",
    help_epilogue="Example: posture tune tune_spaces/action.py --base jobs/action.py:improved --store STORE --trials 9",
)


@command.default
def tune(
    space: str,
    /,
    *,
    base: str,
    store: str | None = None,
    trials: Annotated[int, between(1)] = 40,
    hours: Annotated[float | None, between(0)] = None,
    objective: str | None = None,
    max_concurrent: Annotated[int | None, between(1)] = None,
    workers_per_trial: Annotated[int, between(1)] = 1,
    halving: Annotated[bool, Parameter(negative="--no-halving")] = True,
    name: str | None = None,
    folder: str | None = None,
    storage: str | None = None,
    sampler: Literal["tpe", "random"] = "tpe",
    seed: int = 0,
    epochs: int | None = None,
    sets: Sets = (),
    out: str | None = None,
    report: bool = False,
) -> None:
    """Search a space for the best changes to a recipe.

    If the search is interrupted, the same command continues it; with more --trials it adds them.

    Parameters
    ----------
    space
        FILE.py:function of an Optuna trial (`space` if no function is named).
    base
        FILE.py:function of the recipe to change, which is also the first trial.
    store
        Folder or s3:// prefix of the store.
    trials
        Total number of trials, including stopped and failed ones.
    hours
        Start no trial after this time, and interrupt those that run.
    objective
        Metric on val to optimise: accuracy, map, map50_95 ... Two, such as accuracy,gmacs, give a Pareto front.
    max_concurrent
        Maximum trials at a time; by default one for each GPU, or for each free CPU if there is no GPU.
    workers_per_trial
        Ray Train workers of each trial.
    halving
        Stop trials early that fall behind (never with several objectives).
    name
        Name of the search; by default made of the names of the space and the recipe.
    folder
        Folder or s3:// prefix for trials, study and report; by default searches/NAME.
    storage
        Database of the study: postgresql://USER@HOST/NAME (with the password in PGPASSWORD or ~/.pgpass),
        sqlite:///..., or the path of an Optuna journal; by default study.db in the folder.
    sampler
        Propose points with Optuna's TPE, or at random as a baseline for it.
    seed
        Seed of the sampler.
    epochs
        Epochs of each trial, as --set epochs=N.
    sets
        Change a field of the base recipe: --set optim.name=adamw (repeatable).
    out
        File to write the winner to; by default best.json in the folder.
    report
        Write the page about the trials so far, and search no further.
    """
    asked = SearchOptions(
        space, recipe_path(base, store), read_sets(sets, epochs=epochs), objective, name, folder, storage, sampler, seed
    )
    if report:
        write_report(asked)
        console.suggest("the same command without --report continues the search")
        return
    if store is None:
        raise InputError("tune needs --store STORE: the footage to train on, which posture ingest makes")
    tune_space(
        asked,
        store,
        trials=trials,
        hours=hours,
        concurrent=max_concurrent,
        workers=workers_per_trial,
        halving=halving,
        out=out,
    )


@dataclass(frozen=True)
class SearchOptions:
    """Options that define a search."""

    space: str
    base: str
    changes: dict[str, Any]
    objective: str | None = None
    name: str | None = None
    folder: str | None = None
    storage: str | None = None
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0


@dataclass(frozen=True)
class SearchPaths:
    """Space, base recipe and places of a search."""

    space: Space
    recipe: AnyRun
    name: str
    folder: str
    storage: str


def place_of(asked: SearchOptions) -> SearchPaths:
    """Return the paths of a search. Raises InputError for an unknown space or recipe, a bad name, or a bucket without
    --storage, since a bucket holds no database.
    """
    space, recipe = load_space(asked.space), override(load_recipe(asked.base), asked.changes)
    file, _, function = space.path.partition(":")
    name = (
        "-".join([Path(file).stem, *([function] if function != "space" else []), recipe.name])
        if asked.name is None
        else asked.name
    )
    folder = absolute(asked.folder or f"searches/{name}")
    if not NAME.fullmatch(f"{name}-0000-0000"):
        raise InputError(
            f"--name {name!r}: use letters, digits, '.', '_' and '-', at most 90, beginning with a letter or digit"
        )
    if asked.storage is None and is_remote(folder):
        raise InputError(
            f"--folder {folder}: a bucket holds no database; name one with --storage, such as "
            "postgresql://user@host/database"
        )
    return SearchPaths(space, recipe, name, folder, asked.storage or f"sqlite:///{folder}/study.db")


def tune_space(
    asked: SearchOptions,
    store: str,
    *,
    trials: int,
    hours: float | None,
    concurrent: int | None,
    workers: int,
    halving: bool,
    out: str | None,
) -> None:
    """Search, or continue a search, until `trials` trials are finished. Ctrl-C interrupts it, with exit code 130.

    Raises InputError.
    """
    place, footage = place_of(asked), Store(store)
    if out is not None and Path(out).is_dir():
        raise InputError(f"--out {out}: this is a folder; name a file, such as {out}/best.json")
    begun = stored_terms(open_storage(place.storage), place.name) if stands(place.storage) else None
    versions = begun["versions"] if begun else footage.versions()
    recipe = override(place.recipe, {"scale.workers": workers})
    fitted = fit_to_store(recipe, footage, versions=versions)
    objectives = parse_objectives(asked.objective, recipe)
    if objectives[0].key == f"val_{objectives[0].name}":  # the best checkpoint is chosen by what is searched for
        fitted.run = override(fitted.run, {"metric": objectives[0].name})
    terms = Terms(
        place.space,
        override(fitted.run, {"scale.workers": 1}),
        objectives,
        footage.uri,
        versions,
        asked.seed,
        asked.sampler,
        folder="" if asked.storage is None else place.folder,
    )
    plan = Plan(place.name, fitted, asked.base, footage.uri, versions, join(place.folder, "runs"), objectives)
    if begun:
        refuse_other_terms(place.name, begun, terms.record())
    storage = open_storage(place.storage) if asked.storage is not None else None
    _make(place.folder)
    with Lease(place.folder, who="search", place="folder"), console.interruptible() as interrupted:
        search = Search(place.name, storage or open_storage(place.storage), terms)
        _announce(place, search, plan, trials)
        from posture.distributed.tune import Options, search_on_tune

        options = Options(
            trials, seconds=3600 * hours if hours is not None else float("inf"), concurrent=concurrent, halving=halving
        )
        with LiveTrials(search, plan, trials) as watch:
            search_on_tune(
                search, plan, options, on_update=watch.update, on_trial=watch.ended, asked_to_stop=interrupted.is_set
            )
    _conclude(place, search, plan, asked, trials, out=out, interrupted=interrupted.is_set())


def _make(folder: str) -> None:
    try:
        if not is_remote(folder):
            Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--folder {folder}: cannot be made: {error.strerror}") from None


def _announce(place: SearchPaths, search: Search, plan: Plan, trials: int) -> None:
    run, finished = plan.base.run, len(search.finished)
    goals = ", ".join(
        f"{'highest' if objective.maximize else 'lowest'} {objective.name}" for objective in plan.objectives
    )
    console.out.print(
        f"{'continuing to search' if finished else 'searching'} {place.space.path} for {goals} on val: "
        f"{counted(trials, 'trial')} of {run.name}"
        + (f", {finished} of them finished" if finished else "")
        + f", {counted(run.chosen_epochs, 'epoch')} each on {len(plan.base.train):,} "
        f"{KINDS[run.task].unit}" + (f", {run.scale.sizes[-1]} workers each" if run.scale.sizes[-1] > 1 else "")
    )
    mode, why = tracking_mode(run.tracking.mode)
    console.out.print(f"study {search.name} in {place.storage}")
    console.out.print(f"Weights & Biases: {mode}, {why}; group {run.tracking.group or place.name}")


def write_report(asked: SearchOptions) -> None:
    """Write report.html of a search, running or not. Raises InputError if there is no such search."""
    place = place_of(asked)
    unknown = InputError(
        f"{place.folder}: there is no search {place.name!r} here; start it with: "
        f"posture tune {asked.space} --base {asked.base} --store STORE"
    )
    if not stands(place.storage):
        raise unknown
    storage = open_storage(place.storage)
    if stored_terms(storage, place.name) is None:
        raise unknown
    console.out.print(_write_page(place, optuna.load_study(study_name=place.name, storage=storage)))


def _write_page(place: SearchPaths, study: optuna.Study) -> str:
    from posture.search.page import write_search_page

    with tempfile.TemporaryDirectory(prefix="posture-search-") as folder:
        write_search_page(Path(folder, "report.html"), study)
        write_bytes(join(place.folder, "report.html"), Path(folder, "report.html").read_bytes())
    return join(place.folder, "report.html")


def _conclude(
    place: SearchPaths,
    search: Search,
    plan: Plan,
    asked: SearchOptions,
    trials: int,
    *,
    out: str | None,
    interrupted: bool,
) -> None:
    finished = search.finished
    if leading(search.study):
        best = winner(search.study, recipe=asked.base, base_changes=asked.changes, runs=plan.runs)
        target = absolute(out) if out else join(place.folder, "best.json")
        write_bytes(target, (json.dumps(best, indent=1) + "\n").encode())
        trial = leading(search.study)[0]
        console.out.print(f"{best_text(search, plan.objectives)}: {parameters_text(trial)}")
        console.out.print(f"{_write_page(place, search.study)}\n{target}")
        if best["is_base"]:
            console.out.print(
                f"the winner is {asked.base} unchanged: none of {counted(len(finished), 'trial')} was better on val"
            )
            console.suggest(
                f"more --trials, another space, or posture compare {target} --store {plan.store}, "
                "which compares it with the best other trial"
            )
        else:
            console.suggest(
                f"posture train {asked.base} --set-file {target} --store {plan.store}, "
                f"and posture compare {target} --store {plan.store}"
            )
    failed = sum(state_of(trial) == "failed" for trial in finished)
    if finished and failed == len(finished):
        raise InputError(f"all of {counted(failed, 'trial')} failed; the last one: {finished[-1].user_attrs['reason']}")
    if len(finished) < trials:
        console.out.print(f"{len(finished)} of {trials} trials are finished; the same command continues the search")
    if interrupted:
        raise KeyboardInterrupt
