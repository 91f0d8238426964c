import json

import pytest

from posture.errors import InputError
from posture.search.winner import winner_study


def test_a_winner_is_compared_with_the_recipe_it_came_from(tmp_path):
    file = tmp_path / "best.json"
    best = {
        "base": "jobs/action.py:improved",
        "base_changes": {"epochs": 7},
        "search": "action-improved",
        "trial": 4,
        "accuracy": 0.9,
        "changes": {"epochs": 7, "optim.lr": 0.01},
    }
    file.write_text(json.dumps(best))
    study = winner_study(str(file))
    assert study.subject.optim.lr == 0.01 and study.baselines[0].optim.lr == 0.002 and study.epochs == 7
    assert {run.epochs for run in study.runs} == {7} and study.learning_rates == (1.0,)
    file.write_text(json.dumps(best | {"changes": {"epochs": 7}}))
    with pytest.raises(
        InputError,
        match=r"the best trial of this search is jobs/action.py:improved unchanged, so there is nothing to compare",
    ):
        winner_study(str(file))
    file.write_text(
        json.dumps(
            best
            | {
                "changes": {"epochs": 7, "optim.lr": 0.002},
                "runner_up": {"trial": 2, "changes": {"epochs": 7, "optim.lr": 0.03}},
            }
        )
    )
    study = winner_study(str(file))
    assert study.subject.optim.lr == 0.03 and study.subject.name == "runner-up" and study.baselines[0].optim.lr == 0.002
    assert study.titles == {"runner-up": "improved, trial 2", "default": "improved unchanged"}
    file.write_text("{}")
    with pytest.raises(InputError, match=r"not a best\.json, which posture tune writes"):
        winner_study(str(file))
