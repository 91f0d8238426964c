"""Search spaces as W&B sweeps: for W&B's Optuna engine, which calls our function, and as a plain sweep.

A plain sweep has no conditions. The agents of a sweep run `posture train` with the sweep's choices as JSON in
`--set-file`. W&B's server controls a sweep, so it needs an account.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from posture.config import AnyRun, has_field, override
from posture.errors import InputError
from posture.runs.figures import Objective
from posture.runs.recipes import load_recipe
from posture.search.spaces import base_point, load_space, unconditional

SOURCE = '''"""The space of sweep.yaml for W&B's Optuna engine, written by posture sweep."""

from posture.search import wandb_sweep

SWEPT = wandb_sweep.Swept({space!r}, {base!r}, {changes!r})


def space(trial):
    return SWEPT.space(trial)


def study(_):
    return SWEPT.study(maximize={maximize!r}, seed={seed!r})
'''
SUBMIT = (
    "exec ray job submit --working-dir . --runtime-env-json "
    '"{\\"env_vars\\": {\\"WANDB_SWEEP_ID\\": \\"$WANDB_SWEEP_ID\\", '
    '\\"WANDB_RUN_ID\\": \\"$WANDB_RUN_ID\\"}}" -- python -m posture train "$@"'
)
"""The agent's variables stay on its machine, so the job gets the id of its sweep and run."""


@dataclass(frozen=True)
class Swept:
    """Space and study that the Python file of a sweep asks for."""

    space_path: str
    base_path: str
    changes: dict[str, Any]

    @property
    def base(self) -> AnyRun:
        return override(load_recipe(self.base_path), self.changes)

    def space(self, trial: Any) -> dict[str, Any]:
        """Return the changes for a trial of W&B's study."""
        return load_space(self.space_path).changes(trial, self.base)

    def study(self, *, maximize: bool, seed: int) -> optuna.Study:
        """Return the study for W&B's engine: multivariate, grouped TPE that begins with the base recipe."""
        sampler = optuna.samplers.TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)
        study = optuna.create_study(
            direction="maximize" if maximize else "minimize", sampler=sampler, pruner=optuna.pruners.NopPruner()
        )
        study.enqueue_trial(base_point(load_space(self.space_path), self.base))
        return study


def sweep_files(
    space: str,
    base: str,
    store: str,
    *,
    changes: dict[str, Any],
    objective: Objective,
    trials: int,
    seed: int = 0,
    submit: bool = False,
) -> dict[str, str]:
    """Return {name: content} of `sweep.yaml`, its `sweep_space.py`, and `sweep_plain.yaml`.

    With `submit`, agents hand each run to a Ray cluster. Raises InputError if the space does not fit the base recipe,
    or if training does not report the objective.
    """
    if not objective.key:
        raise InputError(
            f"--objective {objective.name}: training does not report it; choose another, such as accuracy or map"
        )
    run, loaded = override(load_recipe(base), changes), load_space(space)
    base_point(loaded, run)
    always, sometimes = unconditional(loaded, run)
    fields = {name: distribution for name, distribution in always.items() if has_field(run, name)}
    left_out = [*sometimes, *(name for name in always if name not in fields)]
    assignments = [
        part
        for path, value in ({"metric": objective.name} | changes if _selects(objective) else changes).items()
        for part in ("--set", f"{path}={json.dumps(value)}")
    ]
    arguments = [base, "--store", store, *assignments, "--set-file", "${args_json}"]
    command = (
        ["${env}", "sh", "-c", SUBMIT, "posture", *arguments]
        if submit
        else ["${env}", "python", "-m", "posture", "train", *arguments]
    )
    common = {
        "project": run.tracking.project,
        "metric": {"name": f"best_{objective.key}", "goal": "maximize" if objective.maximize else "minimize"},
        "run_cap": trials,
        "command": command,
    }
    engine = (
        {"name": f"{run.name}-optuna"}
        | common
        | {"scheduler": {"engine": "optuna", "source": "sweep_space.py", "search_space": "space", "optimizer": "study"}}
    )
    plain = (
        {"name": f"{run.name}-plain"}
        | common
        | {"method": "bayes", "parameters": {name: parameter(one) for name, one in fields.items()}}
    )
    notes = (
        [
            "Left out, because a plain sweep has no conditions; the base recipe's values are used for:",
            *(f"  {name}" for name in left_out),
        ]
        if left_out
        else ["The whole space: it has no conditions."]
    )
    return {
        "sweep.yaml": _commented(
            engine,
            [
                "Run wandb sweep sweep.yaml, then wandb sweep-scheduler ENTITY/PROJECT/SWEEP in this folder,",
                "and wandb agent ENTITY/PROJECT/SWEEP on each machine, where it finds the store and the recipes.",
            ],
        ),
        "sweep_space.py": SOURCE.format(
            space=space, base=base, changes=changes, maximize=objective.maximize, seed=seed
        ),
        "sweep_plain.yaml": _commented(
            plain, ["Run wandb sweep sweep_plain.yaml, then wandb agent ENTITY/PROJECT/SWEEP.", *notes]
        ),
    }


def parameter(distribution: BaseDistribution) -> dict[str, Any]:
    """Return an Optuna distribution in W&B's notation. Raises InputError if W&B has none for it."""
    if isinstance(distribution, CategoricalDistribution):
        return {"values": list(distribution.choices)}
    bounds = {"min": distribution.low, "max": distribution.high}
    if isinstance(distribution, FloatDistribution):
        if distribution.step is not None:
            return {"distribution": "q_uniform", "q": distribution.step} | bounds
        return {"distribution": "log_uniform_values" if distribution.log else "uniform"} | bounds
    if isinstance(distribution, IntDistribution):
        if distribution.log:
            return {"distribution": "q_log_uniform_values", "q": 1} | bounds
        return (
            {"distribution": "int_uniform"} | bounds
            if distribution.step == 1
            else {"distribution": "q_uniform", "q": distribution.step} | bounds
        )
    raise InputError(f"{distribution}: W&B sweeps have no such distribution")


def _selects(objective: Objective) -> bool:
    """Return True if the best checkpoint can be chosen by the objective."""
    return objective.key == f"val_{objective.name}" and objective.maximize


def _commented(content: dict[str, Any], notes: list[str]) -> str:
    return "".join(f"# {note}\n" for note in notes) + yaml.safe_dump(content, sort_keys=False, width=1000)
