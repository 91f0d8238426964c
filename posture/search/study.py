"""A search in its storage: an Optuna study that is asked for points and told what they came to, by one driver at a
time.

Ray Tune's OptunaSearch is not used: it tells stopped trials as complete, so that the sampler learns from half-trained
scores, loses those whose value is NaN, keeps no reasons, and begins its random numbers again when a search goes on,
which would repeat the first points. Everything a search needs to go on stands in the storage and in the trials'
folders; there is no other state.
"""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from posture.config import AnyRun, override, validate
from posture.errors import InputError
from posture.search.spaces import Space, base_point, sample
from posture.search.trial import LOSS, Objective, Point, TrialResult

RANDOM_TRIALS = 10
"""Points drawn at random, the base recipe's among them, before the sampler models what it was told (Optuna's default).
"""
TRIED_POINTS = 50
"""Sampled before a search begins, to find a space's mistakes."""

DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""Packages of the modules by which SQLAlchemy, from 2.1 and before it, reaches PostgreSQL."""


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """`sqlite:///FILE`, `postgresql://...` or another database, or the path of an Optuna journal.

    Raises InputError where it cannot be opened and read, or where the address has a password: process lists and a job's
    metadata would show it.
    """
    if _has_password(url):
        raise InputError(
            f"--storage {_without_password(url)}: leave the password out of the address, where others can read it; PostgreSQL takes it from "
            "the variable PGPASSWORD or the file ~/.pgpass"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = (
            optuna.storages.RDBStorage(url)
            if "://" in url
            else optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(url))
        )
        storage.get_all_studies()
        return storage
    except ImportError as error:
        missing = getattr(error.__cause__, "name", None) or "its driver"
        raise InputError(
            f"--storage {_without_password(url)}: {missing} is not installed; for PostgreSQL: pip install "
            f"{DRIVERS.get(missing, 'psycopg[binary]')}"
        ) from None
    except Exception as error:  # of whatever driver the address asks for
        raise InputError(
            f"--storage {_without_password(url)}: cannot be opened: {str(error).splitlines()[0]}"
        ) from None


def stands(url: str) -> bool:
    """Whether a study's file is there; a server's database is taken to be."""
    file = url.removeprefix("sqlite:///").partition("?")[0]
    return "://" in file or Path(file).exists()


def _has_password(url: str) -> bool:
    account = url.partition("://")[2].rpartition("@")[0]
    return ":" in account or "password=" in url.partition("?")[2]


def _without_password(url: str) -> str:
    """The address of a storage as it may be shown: without its account and what follows a question mark, and where
    these overlap, nothing at all.
    """
    scheme, colon, rest = url.partition("://")
    bare = rest.partition("?")[0].rpartition("@")[2]
    return f"{scheme}{colon}{bare if bare == rest.rpartition('@')[2].partition('?')[0] else '...'}" if colon else url


@dataclass(frozen=True)
class Terms:
    """What every trial of a search has in common: a study goes on under the same alone.

    Raises InputError: a space that does not fit the base recipe, or that fails; the loss as objective of a space that
    weighs it.
    """

    space: Space
    base: AnyRun
    objectives: tuple[Objective, ...]
    store: str
    versions: dict[str, int]
    seed: int = 0
    sampler: Literal["tpe", "random"] = "tpe"
    folder: str = ""
    """Where the trials are, of a study that is kept elsewhere: nobody else's search may answer for it."""

    def __post_init__(self) -> None:
        _refuse_moving_loss(self)
        base_point(self.space, self.base)
        for _ in sample(self.space, self.base, TRIED_POINTS, seed=self.seed):
            pass

    def record(self) -> dict[str, Any]:
        return {
            "space": self.space.path,
            "identity": self.space.identity,
            "objectives": [objective.name for objective in self.objectives],
            "base": self.base.model_dump(mode="json", exclude={"tracking"}),
            "store": self.store,
            "versions": self.versions,
            "seed": self.seed,
            "sampler": self.sampler,
            "folder": self.folder,
        }


def stored_terms(storage: optuna.storages.BaseStorage, name: str) -> dict[str, Any] | None:
    """The terms (`Terms.record`) under which a study of this name was begun; None where there is none."""
    if name not in optuna.study.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage).user_attrs.get("terms")


class Search:
    """A study, new or gone on with. Raises InputError: other terms than it began with, a study of that name that is
    none of ours.
    """

    def __init__(self, name: str, storage: optuna.storages.BaseStorage, terms: Terms) -> None:
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self.name, self.terms = name, terms
        self.study = optuna.create_study(
            study_name=name,
            storage=storage,
            load_if_exists=True,
            pruner=optuna.pruners.NopPruner(),
            directions=["maximize" if objective.maximize else "minimize" for objective in terms.objectives],
        )
        if begun := self.study.user_attrs.get("terms"):
            refuse_other_terms(name, begun, terms.record())
        elif self.trials:
            raise InputError(f"study {name!r} was not made by posture tune; choose another --name")
        else:
            self.study.set_user_attr("token", secrets.token_hex(2))
            self.study.set_user_attr("terms", terms.record())
        if not self.trials:
            self.study.enqueue_trial(base_point(terms.space, terms.base))
        self._asked: dict[int, optuna.Trial] = {}

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Trials that count: complete, stopped by the scheduler, or failed of their own."""
        return [trial for trial in self.trials if state_of(trial) in ("complete", "stopped", "failed")]

    def recover(self, read: Callable[[str], TrialResult | None]) -> int:
        """Settle what an interrupted driver left running, and return how many points are queued again.

        A trial that ended meanwhile (`read` gives what the run of that name came to) is told so; any other is failed,
        its point queued again under the same run, whose checkpoints it goes on from. Killed within, this can be called
        again.
        """
        queued_again = {trial.user_attrs.get("again") for trial in self.trials}
        requeued = 0
        for trial in [trial for trial in self.trials if trial.state == TrialState.RUNNING]:
            live = optuna.Trial(self.study, trial._trial_id)
            self._asked[trial.number] = live
            outcome = read(trial.user_attrs["run"]) if "run" in trial.user_attrs else None
            if outcome is not None:
                self.tell(trial.number, outcome)
                continue
            if trial.number not in queued_again:
                kept = {"again": trial.number} | {
                    key: trial.user_attrs[key] for key in ("run",) if key in trial.user_attrs
                }
                self.study.enqueue_trial(
                    {**trial.system_attrs.get("fixed_params", {}), **trial.params}, user_attrs=kept
                )
            self.study.tell(live, state=TrialState.FAIL)
            requeued += 1
        return requeued

    def ask(self) -> Point:
        """The next point: one that is queued, else one the sampler proposes. The same seed proposes the same from the
        same past.

        Where the space fails, which it did for none of the points tried before, the point says so, and is a trial that
        failed.
        """
        self.study.sampler = self._sampler(len(self.trials))
        trial, changes, refused = self.study.ask(), {}, ""
        try:
            changes = self.terms.space.changes(trial, self.terms.base)
        except InputError as error:
            refused = str(error)
        run = trial.user_attrs.get("run") or f"{self.name}-{self.study.user_attrs['token']}-{trial.number:04d}"
        trial.set_user_attr("run", run)
        trial.set_user_attr("changes", changes)
        self._asked[trial.number] = trial
        return Point(trial.number, run, changes, refused)

    def report(self, number: int, values: list[float]) -> None:
        """The first objective's best up to each epoch so far, of a trial that goes on. Of several objectives Optuna
        takes none meanwhile.
        """
        trial = self._asked[number]
        if len(self.terms.objectives) > 1:
            return
        known = self.study.get_trials(deepcopy=False)[number].intermediate_values
        for epoch, value in enumerate(values, start=1):
            if epoch not in known and math.isfinite(value):
                trial.report(value, step=epoch)

    def tell(self, number: int, outcome: TrialResult) -> None:
        """What a trial came to. A complete trial without a finite value for every objective is a failed one."""
        self.report(number, outcome.by_epoch)
        trial = self._asked.pop(number)
        trial.set_user_attr("epochs", len(outcome.by_epoch))
        if outcome.state == "complete" and all(math.isfinite(value) for value in outcome.values):
            self.study.tell(trial, outcome.values)
        elif outcome.state == "stopped" and len(self.terms.objectives) == 1:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("reason", outcome.reason or "an objective is no number")
            self.study.tell(trial, state=TrialState.FAIL)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence((self.terms.seed, number)).generate_state(1)[0])
        if self.terms.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=RANDOM_TRIALS, seed=seed
        )


def state_of(trial: FrozenTrial) -> str:
    """complete, stopped, failed, interrupted (queued again since), running or waiting."""
    if trial.state == TrialState.FAIL:
        return "failed" if "reason" in trial.user_attrs else "interrupted"
    return {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "stopped",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }[trial.state]


def leading(study: optuna.Study) -> list[FrozenTrial]:
    """The best complete trial; of several objectives the Pareto front, the first objective's best first. Empty before
    any is complete.
    """
    if len(study.directions) > 1:
        return sorted(
            study.best_trials,
            key=lambda trial: trial.values[0],
            reverse=study.directions[0] == optuna.study.StudyDirection.MAXIMIZE,
        )
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    return [study.best_trial] if complete else []


def winner(study: optuna.Study, *, recipe: str, base_changes: Mapping[str, Any], runs: str) -> dict[str, Any]:
    """What --out writes and --set-file reads: `changes` turn the base recipe into the best trial's run, `base_changes`
    are those all trials had.

    `is_base`: that is the base recipe as it stands. `runner_up` is the best complete trial that is another run, if
    there is one.
    Raises InputError before any trial is complete.
    """
    trials, names = leading(study), study.user_attrs["terms"]["objectives"]
    if not trials:
        raise InputError(f"{study.study_name}: no trial is complete yet, so that there is no winner")

    def entry(trial: FrozenTrial) -> dict[str, Any]:
        changes = dict(base_changes) | trial.user_attrs["changes"]
        return {
            "trial": trial.number,
            "run": f"{runs}/{trial.user_attrs['run']}",
            **dict(zip(names, trial.values, strict=True)),
            "changes": changes,
        }

    front = {"front": [entry(trial) for trial in trials]} if len(names) > 1 else {}
    base = validate(study.user_attrs["terms"]["base"])
    made = {
        trial.number: override(base, trial.user_attrs["changes"])
        for trial in study.get_trials(deepcopy=False)
        if trial.state == TrialState.COMPLETE
    }
    sign = -1 if study.directions[0] == optuna.study.StudyDirection.MAXIMIZE else 1
    others = sorted(
        (
            trial
            for trial in study.get_trials(deepcopy=False)
            if trial.number in made and made[trial.number] != made[trials[0].number]
        ),
        key=lambda trial: sign * trial.values[0],
    )
    found = {
        "base": recipe,
        "base_changes": dict(base_changes),
        "search": study.study_name,
        "is_base": made[trials[0].number] == base,
    }
    return found | entry(trials[0]) | front | ({"runner_up": entry(others[0])} if others else {})


def _refuse_moving_loss(terms: Terms) -> None:
    if LOSS not in terms.objectives:
        return
    moving = {
        path
        for _, changes in sample(terms.space, terms.base, TRIED_POINTS)
        for path in changes
        if path.startswith("loss.") and override(terms.base, {path: changes[path]}) != terms.base
    }
    if moving:
        raise InputError(
            f"--objective loss: {terms.space.path} varies {', '.join(sorted(moving))}, and losses that are weighted differently "
            "cannot be compared; search by accuracy or map"
        )


def refuse_other_terms(name: str, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises InputError naming the first term that differs from those the study began with."""
    advice = "take that back, or begin another search with --name"
    if begun["space"] != now["space"] or begun["identity"] != now["identity"]:
        what = f"{now['space']} has changed since" if begun["space"] == now["space"] else f"not {now['space']}"
        raise InputError(f"search {name!r} was begun in the space {begun['space']}; {what}: {advice}")
    for key, words in (
        ("objectives", "--objective"),
        ("store", "--store"),
        ("versions", "table versions"),
        ("seed", "--seed"),
        ("sampler", "--sampler"),
        ("folder", "--folder"),
    ):
        if begun.get(key) != now[key]:
            then, given = (
                ",".join(value) if isinstance(value, list) else value for value in (begun.get(key), now[key])
            )
            raise InputError(f"search {name!r} was begun with {words} {then}, not {given}: {advice}")
    if begun["base"] != now["base"]:
        differing = ", ".join(
            f"{path} {old!r}, not {new!r}" for path, old, new in _differences(begun["base"], now["base"])
        )
        raise InputError(f"search {name!r} was begun with a base recipe whose {differing}: {advice}")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Fields of two runs that differ: (path, old, new)."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append((f"{prefix}{key}", before, after))
    return found
