"""The winner of a search: best.json, which `posture tune` writes, and `posture compare` and --set-file read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.config import Study, override, validate
from posture.data.store.checked import Count, Name, checked_json
from posture.errors import InputError
from posture.runs.recipes import load_recipe
from posture.search.study import leading


class Best(TypedDict):
    """Fields of best.json that `winner_study` needs; `winner` says what else it has."""

    search: Name
    trial: Count
    base: str
    base_changes: dict[str, Any]
    changes: dict[str, Any]


def winner(study: optuna.Study, *, recipe: str, base_changes: Mapping[str, Any], runs: str) -> dict[str, Any]:
    """Return the content of best.json.

    `changes` turn the recipe at `recipe` into the best trial's run; `base_changes` are those that all trials have.
    `is_base` says whether the best trial is the base recipe itself. `front` has the Pareto front of several objectives.
    `runner_up` is the best complete trial with another run, if there is one. Raises InputError if no trial is complete.
    """
    trials, terms = leading(study), study.user_attrs["terms"]
    if not trials:
        raise InputError(f"{study.study_name}: no trial is complete yet, so there is no winner")

    def entry(trial: FrozenTrial) -> dict[str, Any]:
        return {
            "trial": trial.number,
            "run": f"{runs}/{trial.user_attrs['run']}",
            **dict(zip(terms["objectives"], trial.values, strict=True)),
            "changes": dict(base_changes) | trial.user_attrs["changes"],
        }

    base = validate(terms["base"])
    complete = [trial for trial in study.get_trials(deepcopy=False) if trial.state == TrialState.COMPLETE]
    made = {trial.number: override(base, trial.user_attrs["changes"]) for trial in complete}
    best = made[trials[0].number]
    others = sorted(
        (trial for trial in complete if made[trial.number] != best),
        key=lambda trial: trial.values[0],
        reverse=study.directions[0] == StudyDirection.MAXIMIZE,
    )
    return {
        "base": recipe,
        "base_changes": dict(base_changes),
        "search": study.study_name,
        "is_base": best == base,
        **entry(trials[0]),
        **({"front": [entry(trial) for trial in trials]} if len(terms["objectives"]) > 1 else {}),
        **({"runner_up": entry(others[0])} if others else {}),
    }


def winner_study(file: str) -> Study:
    """Return a study of the winner in the best.json at `file` and its base recipe, on the same budget.

    If the winner is the base recipe itself, its subject is the best other trial, named `runner-up`. Raises InputError
    if the file is not a best.json, or if there is no such trial.
    """
    try:
        best = checked_json(Path(file).read_bytes(), file, Best)
        base, before, changes = load_recipe(best["base"]), best["base_changes"], best["changes"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{file}: not a best.json, which posture tune writes into the search's folder "
            f"({type(error).__name__}: {error})"
        ) from None
    name, trial = "winner", best["trial"]
    if override(base, changes) == override(base, before):
        if not isinstance(best.get("runner_up"), dict):
            raise InputError(
                f"{file}: the best trial of this search is {best['base']} unchanged, so there is nothing to compare "
                "it with; search on with more --trials, or in another space"
            )
        name, trial, changes = "runner-up", best["runner_up"]["trial"], best["runner_up"]["changes"]
    subject, default = override(base, changes | {"name": name}), override(base, before | {"name": "default"})
    return Study(
        name=f"{best['search'][:40]}-{name}",
        subject=subject,
        baselines=(default,),
        learning_rates=(1.0,),
        epochs=subject.epochs,
        titles={name: f"{base.name}, trial {trial}", "default": f"{base.name} unchanged"},
    )
