"""Search spaces of action classifiers: functions of an Optuna trial that return changes to a run.

Parameters have the paths of the fields that they change. A classifier's loss has only one weight, label smoothing; the
lambdas of equation (3) are in `tune_spaces/detector.py`.
"""

from __future__ import annotations

import math
from typing import Any

from posture.config import ActionRun, has_field
from posture.runs.recipes import load_recipe

MAX_GROUPS = 32
LONG = 60
"""Number of epochs from which dropout is searched up to 0.9."""


def space(trial: Any, base: ActionRun | None = None) -> dict[str, Any]:
    """Search learning rate, weight decay, label smoothing and dropout; without optical flow also the input; for a C3D
    also normalisation, its groups and filters, attention and its placement, and stochastic depth.
    """
    base = base or load_recipe("jobs/action.py:improved")
    changes = _training(trial, base)
    if has_field(base, "model.input"):
        changes["model.input"] = trial.suggest_categorical(
            "model.input", _with(base.model.input, "rgb", "diff", "both")
        )
    if base.model.kind != "c3d":
        return changes
    changes["model.standardize"] = trial.suggest_categorical("model.standardize", [True, False])
    if base.model.residual:
        changes["model.stochastic_depth"] = trial.suggest_float(
            "model.stochastic_depth", 0.0, max(0.5, base.model.stochastic_depth)
        )
    changes["model.norm"] = trial.suggest_categorical("model.norm", _with(base.model.norm, "batch", "group"))
    if changes["model.norm"] == "group":
        changes["model.groups"] = trial.suggest_categorical("model.groups", _divisors(base))
    changes["model.attention"] = trial.suggest_categorical("model.attention", ["none", "cbam", "stcbam"])
    if changes["model.attention"] != "none":
        changes["model.placement"] = trial.suggest_categorical(
            "model.placement", _with(base.model.placement, "early", "late", "all")
        )
    return changes


def augmentation(trial: Any, base: ActionRun | None = None) -> dict[str, Any]:
    """Search what is done to clips, labels and weights against overfitting, and the learning rate."""
    base = base or load_recipe("jobs/action.py:improved")
    data = base.data
    changes = {
        "optim.lr": trial.suggest_float("optim.lr", base.optim.lr / 10, base.optim.lr * 10, log=True),
        "optim.ema": trial.suggest_categorical("optim.ema", _with(base.optim.ema, 0.0, 0.99, 0.999)),
        "loss.label_smoothing": trial.suggest_float("loss.label_smoothing", 0.0, max(0.2, base.loss.label_smoothing)),
        "model.dropout": _dropout(trial, base),
        "data.erasing": trial.suggest_float("data.erasing", 0.0, max(0.5, data.erasing)),
        "data.mixup": trial.suggest_categorical("data.mixup", _with(data.mixup, 0.0, 0.2, 0.8)),
        "data.cutmix": trial.suggest_categorical("data.cutmix", _with(data.cutmix, 0.0, 1.0)),
    }
    if "flow" not in base.model.inputs:
        if trial.suggest_categorical("data.steps.several", [bool(data.steps), not data.steps]):
            changes["data.steps"] = data.steps or (data.step, 2 * data.step)
        else:
            changes["data.steps"] = ()
        changes["data.rand_augment"] = trial.suggest_int("data.rand_augment", 0, max(3, data.rand_augment))
        if changes["data.rand_augment"]:
            changes["data.magnitude"] = trial.suggest_float("data.magnitude", 0.0, max(0.6, data.magnitude))
            changes["data.drift"] = trial.suggest_float("data.drift", 0.0, 1.0)
    return changes


def stages(trial: Any, base: ActionRun | None = None) -> dict[str, Any]:
    """Search which of a C3D's five stages have attention, and the learning rate."""
    base = base or load_recipe("jobs/action.py:improved")
    standing = base.model.attention_stages if base.model.attention != "none" else ()
    chosen = [
        stage
        for stage in base.model.stages
        if trial.suggest_categorical(f"model.placement.{stage}", [stage in standing, stage not in standing])
    ]
    changes = {"optim.lr": trial.suggest_float("optim.lr", base.optim.lr / 10, base.optim.lr * 10, log=True)}
    if not chosen:
        return changes | {"model.attention": "none"}
    attention = base.model.attention if standing else "stcbam"
    placement = base.model.placement if tuple(chosen) == standing else "+".join(chosen)
    return changes | {"model.attention": attention, "model.placement": placement}


def _training(trial: Any, base: ActionRun) -> dict[str, Any]:
    decay = base.optim.weight_decay or 1e-4
    return {
        "optim.lr": trial.suggest_float("optim.lr", base.optim.lr / 10, base.optim.lr * 10, log=True),
        "optim.weight_decay": trial.suggest_float("optim.weight_decay", decay / 30, decay * 10, log=True),
        "loss.label_smoothing": trial.suggest_float("loss.label_smoothing", 0.0, max(0.2, base.loss.label_smoothing)),
        "model.dropout": _dropout(trial, base),
    }


def _dropout(trial: Any, base: ActionRun) -> float:
    """Return a dropout up to 0.9 for a long schedule, else up to 0.5: with more, learning takes longer."""
    most = 0.9 if base.epochs == "auto" or base.epochs >= LONG else 0.5
    return trial.suggest_float("model.dropout", 0.0, max(most, base.model.dropout))


def _divisors(base: ActionRun) -> list[int]:
    """Return the numbers of groups that divide the width of every stage."""
    common = math.gcd(*base.model.channels)
    return [groups for groups in range(1, min(common, MAX_GROUPS) + 1) if common % groups == 0]


def _with(value: Any, *choices: Any) -> list[Any]:
    """Return the choices, with the base recipe's value if it is not among them."""
    return list(dict.fromkeys([*choices, value]))
