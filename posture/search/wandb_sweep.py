"""Search spaces as W&B sweeps: a file for W&B's Optuna engine, which asks our function, and a plain one for what needs
no conditions.

The agents of a sweep run `posture train`, with the sweep's choices as JSON in `--set-file`; W&B's server is in charge,
so sweeps need an account.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import optuna
import yaml
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from posture.config import AnyRun, override
from posture.errors import InputError
from posture.runs.recipes import load_recipe
from posture.search.spaces import base_point, load_space, unconditional
from posture.search.trial import Objective

SOURCE = '''"""The space of sweep.yaml for W&B's Optuna engine, written by posture sweep."""

from posture.search import wandb_sweep

SWEPT = wandb_sweep.Swept({space!r}, {base!r}, {changes!r})


def space(trial):
    return SWEPT.space(trial)


def study(_):
    return SWEPT.study(maximize={maximize!r}, seed={seed!r})
'''
SUBMIT = (
    'exec ray job submit --working-dir . --runtime-env-json "{\\"env_vars\\": {\\"WANDB_SWEEP_ID\\": \\"$WANDB_SWEEP_ID\\", '
    '\\"WANDB_RUN_ID\\": \\"$WANDB_RUN_ID\\"}}" -- python -m posture train "$@"'
)
"""The agent's variables are those of its machine: the job must be told which run it is."""


@dataclass(frozen=True)
class Swept:
    """What a sweep's own Python file asks of us."""

    space_path: str
    base_path: str
    changes: dict[str, Any]

    @property
    def base(self) -> AnyRun:
        return override(load_recipe(self.base_path), self.changes)

    def space(self, trial: Any) -> dict[str, Any]:
        """The changes for a trial of W&B's study."""
        return load_space(self.space_path).changes(trial, self.base)

    def study(self, *, maximize: bool, seed: int) -> optuna.Study:
        """The study that W&B's engine asks: TPE, multivariate and grouped, the base recipe first."""
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
    """{name: content} of `sweep.yaml` with `sweep_space.py` (a), and of `sweep_plain.yaml` (b). `submit`: agents hand
    each run to a Ray cluster.

    Raises InputError: a space that does not fit the base, an objective that training does not report.
    """
    if not objective.key:
        raise InputError(
            f"--objective {objective.name}: a sweep goes by what training reports, such as accuracy or map"
        )
    run, loaded = override(load_recipe(base), changes), load_space(space)
    base_point(loaded, run)
    always, sometimes = unconditional(loaded, run)
    fields = {name: distribution for name, distribution in always.items() if _is_field(run, name)}
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
            "Left out, since a plain sweep knows no conditions; they stay as the base recipe has them:",
            *(f"  {name}" for name in left_out),
        ]
        if left_out
        else ["The whole space: it has no conditions."]
    )
    return {
        "sweep.yaml": _commented(
            engine,
            [
                "wandb sweep sweep.yaml, then wandb sweep-scheduler ENTITY/PROJECT/SWEEP (here, beside sweep_space.py),",
                "and on each machine wandb agent ENTITY/PROJECT/SWEEP, where the store and the recipes are.",
            ],
        ),
        "sweep_space.py": SOURCE.format(
            space=space, base=base, changes=changes, maximize=objective.maximize, seed=seed
        ),
        "sweep_plain.yaml": _commented(
            plain, ["wandb sweep sweep_plain.yaml, then wandb agent ENTITY/PROJECT/SWEEP.", *notes]
        ),
    }


def parameter(distribution: BaseDistribution) -> dict[str, Any]:
    """An Optuna distribution as W&B writes it. Raises InputError for one that W&B cannot write."""
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
    raise InputError(f"{distribution}: a plain sweep cannot be written of it")


def _selects(objective: Objective) -> bool:
    """Whether the best checkpoint can be chosen by it."""
    return objective.key == f"val_{objective.name}" and objective.maximize


def _is_field(run: AnyRun, name: str) -> bool:
    node: Any = run.model_dump()
    for part in name.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def _commented(content: dict[str, Any], notes: list[str]) -> str:
    return "".join(f"# {note}\n" for note in notes) + yaml.safe_dump(content, sort_keys=False, width=1000)
