"""An Optuna study in its storage: one driver at a time asks it for points and reports their results.

Ray Tune's OptunaSearch is not used. It reports stopped trials as complete, so the sampler learns from half-trained
scores; it loses trials whose value is NaN, keeps no reasons, and restarts its random numbers when a search resumes,
which would repeat the first points. The state of a search is in the storage and in the trials' folders only.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportAttributeAccessIssue=false

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

from posture.config import AnyRun, identity, override
from posture.errors import InputError
from posture.runs.figures import Objective
from posture.search.spaces import Space, base_point, sample
from posture.search.trial import Point, TrialResult

RANDOM_TRIALS = 10
"""Random points, the base recipe included, before the sampler uses its model (Optuna's default)."""
TRIED_POINTS = 50
"""Points sampled before a search begins, to find mistakes in the space."""

DRIVERS = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary"}
"""Package of each driver of PostgreSQL that SQLAlchemy imports: from version 2.1 on, and before it."""


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Open `sqlite:///FILE`, `postgresql://...`, another database, or the path of an Optuna journal.

    Raises InputError if it cannot be opened and read, or if the address has a password, which process lists and a job's
    metadata would show.
    """
    if _has_password(url):
        raise InputError(
            f"--storage {_without_password(url)}: leave out the password, which others could read; PostgreSQL "
            "takes it from the variable PGPASSWORD or the file ~/.pgpass"
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
    except Exception as error:  # each database driver has its own
        raise InputError(
            f"--storage {_without_password(url)}: cannot be opened: {str(error).splitlines()[0]}"
        ) from None


def stands(url: str) -> bool:
    """Return True if the file of a storage exists; a database on a server is assumed to."""
    file = url.removeprefix("sqlite:///").partition("?")[0]
    return "://" in file or Path(file).exists()


def _has_password(url: str) -> bool:
    account = url.partition("://")[2].rpartition("@")[0]
    return ":" in account or "password=" in url.partition("?")[2]


def _without_password(url: str) -> str:
    """Return a storage's address without its account and query, or with `...` for its path if these overlap."""
    scheme, colon, rest = url.partition("://")
    bare = rest.partition("?")[0].rpartition("@")[2]
    return f"{scheme}{colon}{bare if bare == rest.rpartition('@')[2].partition('?')[0] else '...'}" if colon else url


@dataclass(frozen=True)
class Terms:
    """Settings that all trials of a search share; a study resumes only with the settings it began with.

    Raises InputError if the space fails, does not fit the base recipe, or weighs the loss that is the objective.
    """

    space: Space
    base: AnyRun
    objectives: tuple[Objective, ...]
    store: str
    versions: dict[str, int]
    seed: int = 0
    sampler: Literal["tpe", "random"] = "tpe"
    folder: str = ""
    """Folder of the trials if the study is stored elsewhere, so that another search cannot be taken for this one."""

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
            "base": identity(self.base, without={"tracking"}),
            "store": self.store,
            "versions": self.versions,
            "seed": self.seed,
            "sampler": self.sampler,
            "folder": self.folder,
        }


def stored_terms(storage: optuna.storages.BaseStorage, name: str) -> dict[str, Any] | None:
    """Return the `Terms.record` that the study of this name began with; None if there is no such study."""
    if name not in optuna.study.get_all_study_names(storage):
        return None
    return optuna.load_study(study_name=name, storage=storage).user_attrs.get("terms")


class Search:
    """A new or resumed study.

    Raises InputError if the terms are not those it began with, or if `posture tune` did not make the study.
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
        """Trials that are complete, were stopped by the scheduler, or failed by themselves."""
        return [trial for trial in self.trials if state_of(trial) in ("complete", "stopped", "failed")]

    def recover(self, read: Callable[[str], TrialResult | None]) -> int:
        """End the trials that an interrupted driver left running, and return the number of points queued again.

        `read` returns the result of the run of that name, or None if the run has not ended. Its trial gets that result.
        Any other trial fails, and its point is queued again under the same run, which resumes from its checkpoints. If
        this is killed, it can be called again.
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
        """Return the next queued point, or one that the sampler proposes: the same for the same seed and trials.

        If the space fails, `Point.refused` has the reason.
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
        """Report the best value of the only objective up to each epoch; Optuna takes none of several objectives."""
        trial = self._asked[number]
        if len(self.terms.objectives) > 1:
            return
        known = self.study.get_trials(deepcopy=False)[number].intermediate_values
        for epoch, value in enumerate(values, start=1):
            if epoch not in known and math.isfinite(value):
                trial.report(value, step=epoch)

    def tell(self, number: int, outcome: TrialResult) -> None:
        """Store the result of a trial. A complete trial fails if an objective has no finite value."""
        self.report(number, outcome.by_epoch)
        trial = self._asked.pop(number)
        trial.set_user_attr("epochs", len(outcome.by_epoch))
        if outcome.state == "complete" and all(math.isfinite(value) for value in outcome.values):
            self.study.tell(trial, outcome.values)
        elif outcome.state == "stopped" and len(self.terms.objectives) == 1:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            trial.set_user_attr("reason", outcome.reason or "an objective is not a number")
            self.study.tell(trial, state=TrialState.FAIL)

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        seed = int(np.random.SeedSequence((self.terms.seed, number)).generate_state(1)[0])
        if self.terms.sampler == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(
            multivariate=True, group=True, constant_liar=True, n_startup_trials=RANDOM_TRIALS, seed=seed
        )


def state_of(trial: FrozenTrial) -> str:
    """Return complete, stopped, failed, interrupted (its point is queued again), running or waiting."""
    if trial.state == TrialState.FAIL:
        return "failed" if "reason" in trial.user_attrs else "interrupted"
    return {
        TrialState.COMPLETE: "complete",
        TrialState.PRUNED: "stopped",
        TrialState.RUNNING: "running",
        TrialState.WAITING: "waiting",
    }[trial.state]


def leading(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best complete trial, or the Pareto front of several objectives, sorted by the first one.

    Empty if no trial is complete.
    """
    if len(study.directions) > 1:
        return sorted(
            study.best_trials,
            key=lambda trial: trial.values[0],
            reverse=study.directions[0] == optuna.study.StudyDirection.MAXIMIZE,
        )
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    return [study.best_trial] if complete else []


def _refuse_moving_loss(terms: Terms) -> None:
    if "loss" not in {objective.name for objective in terms.objectives}:
        return
    moving = {
        path
        for _, changes in sample(terms.space, terms.base, TRIED_POINTS)
        for path in changes
        if path.startswith("loss.") and override(terms.base, {path: changes[path]}) != terms.base
    }
    if moving:
        raise InputError(
            f"--objective loss: {terms.space.path} varies {', '.join(sorted(moving))}, and losses with other weights "
            "cannot be compared; choose accuracy or map"
        )


def refuse_other_terms(name: str, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise InputError that names the first term that differs from those the study began with."""
    advice = "undo the change, or start a new search with --name"
    if begun["space"] != now["space"] or begun["identity"] != now["identity"]:
        what = f"{now['space']} has changed since" if begun["space"] == now["space"] else f"not {now['space']}"
        raise InputError(f"search {name!r} began in the space {begun['space']}; {what}: {advice}")
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
            raise InputError(f"search {name!r} began with {words} {then}, not {given}: {advice}")
    if begun["base"] != now["base"]:
        differing = ", ".join(
            f"{path} {old!r}, not {new!r}" for path, old, new in _differences(begun["base"], now["base"])
        )
        raise InputError(f"search {name!r} began with a base recipe whose {differing}: {advice}")


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """Return the fields in which two runs differ: (path, old, new)."""
    found = []
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += _differences(before, after, f"{prefix}{key}.")
        elif before != after:
            found.append((f"{prefix}{key}", before, after))
    return found
