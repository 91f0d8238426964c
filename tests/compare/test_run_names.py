"""The name of a study's run is what it was before runs had more fields."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posture.config import LATER, identity, override, validate
from posture.runs.recipes import load_recipe

KEPT = Path(__file__).parents[1] / "written_before" / "kept" / "runs"


def added(before: dict[str, Any], now: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Return the fields of `now` that `before` has not, by dotted path."""
    found = {}
    for name, value in now.items():
        if name not in before:
            found[path + name] = value
        elif isinstance(value, dict) and isinstance(before[name], dict):
            found |= added(before[name], value, f"{path}{name}.")
    return found


@pytest.mark.parametrize("task", ["action", "detector"])
def test_every_field_that_was_added_is_left_out_of_names_with_the_value_of_runs_before(task: str):
    run = json.loads((KEPT / task / "run.json").read_text())["run"]
    new = added(run, validate(run).model_dump(mode="json"))
    assert new and all(path in LATER and LATER[path] == value for path, value in new.items()), new


def test_a_reference_of_torchvision_keeps_its_name_too():
    run = {"name": "r3d_18", "model": {"kind": "r3d_18"}}
    new = added(run["model"], validate(run).model_dump(mode="json")["model"], "model.")
    assert all(new[path] in (LATER[path], None) for path in new if path in LATER)
    assert {"model.input", "model.stochastic_depth"} <= set(new)


def test_the_least_steps_count_only_while_epochs_are_to_be_chosen():
    run = load_recipe("jobs/action.py:c3d")
    names = [
        json.dumps(identity(override(run, {"epochs": epochs, "least_steps": least}), without={"tracking"}))
        for epochs in (50, "auto")
        for least in (150, 1000)
    ]
    assert names[0] == names[1] and len(set(names)) == 3
