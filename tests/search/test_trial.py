import math

import pytest

from posture.config import override
from posture.errors import InputError
from posture.runs.folder import RunFolder
from posture.runs.prepare import Fitted, Session
from posture.runs.recipes import load_recipe
from posture.search.trial import (
    Plan,
    Point,
    TrialResult,
    by_epoch,
    conclude,
    cost,
    failure,
    parse_objectives,
    read,
    start,
)
from tests.support.small_run import SMALL_ACTION

BASE = override(load_recipe("jobs/action.py:improved"), SMALL_ACTION | {"epochs": 50})


def plan(folder, objectives="accuracy"):
    return Plan(
        "mine",
        Fitted(BASE, None, None, ""),
        "recipe",
        str(folder / "store"),
        {},
        str(folder),
        parse_objectives(objectives, BASE),
    )


def session(folder, *accuracies):
    run = RunFolder(str(folder), "trial")
    run.write_json(
        "history.json",
        [
            {"epoch": epoch, "val_accuracy": value, "val_loss": 1.0 / epoch}
            for epoch, value in enumerate(accuracies, start=1)
        ],
    )
    return Session(BASE, None, None, folder=run, resumed=False)


def test_a_trial_is_worth_its_best_epoch(tmp_path):
    (loss,) = parse_objectives("loss", BASE)
    found = conclude(plan(tmp_path), session(tmp_path, 0.2, 0.6, 0.5), stopped=False)
    assert found == TrialResult("complete", [0.6], [0.2, 0.6, 0.6]) == read(RunFolder(str(tmp_path), "trial"))
    assert conclude(plan(tmp_path), session(tmp_path, 0.2, 0.1), stopped=True) == TrialResult(
        "stopped", by_epoch=[0.2, 0.2]
    )
    assert (
        by_epoch(RunFolder(str(tmp_path), "trial"), loss) == [1.0, 0.5]
        and by_epoch(RunFolder(str(tmp_path), "none"), loss) == []
    )


def test_costs_are_those_of_the_network(tmp_path):
    found = conclude(plan(tmp_path, "accuracy,gmacs,parameters"), session(tmp_path, 0.5), stopped=False)
    assert found.values == [0.5, cost(BASE)["gmacs"], cost(BASE)["parameters"]] and min(found.values) > 0
    assert cost(override(BASE, {"model.attention": "none"}))["parameters"] < cost(BASE)["parameters"]


@pytest.mark.parametrize("values", [[math.nan, math.nan], []])
def test_what_is_no_number_is_a_failure(tmp_path, values):
    found = conclude(plan(tmp_path), session(tmp_path, *values), stopped=False)
    assert (
        found.state == "failed"
        and found.reason == "accuracy on val is not a finite number"
        and math.isnan(found.by_epoch[-1] if values else math.nan)
    )
    assert by_epoch(session(tmp_path, math.nan, 0.3).folder, plan(tmp_path).objectives[0])[1] == 0.3


def test_a_crash_keeps_its_reason_in_a_line(tmp_path):
    session(tmp_path, 0.4)
    found = failure(
        plan(tmp_path), Point(3, "trial", {}), RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB")
    )
    assert (
        found
        == TrialResult("failed", by_epoch=[0.4], reason="RuntimeError: CUDA out of memory.")
        == read(RunFolder(str(tmp_path), "trial"))
    )


def test_a_point_that_asks_for_other_footage_or_is_no_run_is_refused(tmp_path):
    for changes, complaint in (
        ({"data.recipe": "other"}, "data.recipe is other, but None in the base recipe; trials share the footage"),
        ({"model.norm": "group", "model.groups": 7}, "groups 7 does not divide"),
        ({"optim.rl": 1}, "there is no field 'rl'"),
        ({"epochs": "auto"}, "epochs: auto is chosen when a run begins"),
    ):
        with pytest.raises(InputError, match=complaint):
            start(plan(tmp_path), Point(0, "trial", changes))
    assert not (tmp_path / "trial").exists()
