import json

import pytest

from posture.config import Run
from posture.errors import InputError
from posture.recipes import PACKAGE, functions, load_module, load_recipe, winner_study


@pytest.mark.parametrize("path", ["jobs/action.py:c3d", "jobs/action.py:improved", "jobs/action.py:r3d_18", "jobs/action.py:mc3_18",
                                  "jobs/action.py:r2plus1d_18", "jobs/demo.py:demo"])
def test_recipes_that_come_with_posture(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_recipe(path)
    assert isinstance(run, Run) and run.name == path.rpartition(":")[2]


def test_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    code = "from posture.config import Run\nfrom posture.models.configs import C3D\n\ndef mine():\n    return Run(name='mine', model=C3D())\n"
    (tmp_path / "jobs" / "action.py").write_text(code)
    assert load_recipe("jobs/action.py:mine").name == "mine"


@pytest.mark.parametrize(("path", "complaint"), [
    ("improved", "names no recipe; write FILE.py:function"),
    ("jobs/none.py:improved", "no such file here; recipes that come with Posture: jobs/action.py, jobs/demo.py"),
    ("jobs/action.py:imporved", r"has no recipe 'imporved'; it has .*c3d, .*improved, .*r3d_18"),
])
def test_wrong_paths_say_what_there_is(path, complaint):
    with pytest.raises(InputError, match=complaint):
        load_recipe(path)


def test_only_a_modules_own_functions_are_recipes():
    found = set(functions(load_module("jobs/action.py")))
    assert {"c3d", "improved", "r3d_18", "mc3_18", "r2plus1d_18"} <= found and not found & {"Run", "Optim", "override", "C3D"}


def test_a_file_that_fails_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def oops(:\n")
    with pytest.raises(InputError, match=r"broken.py: invalid syntax"):
        load_recipe("broken.py:oops")
    (tmp_path / "number.py").write_text("def seven():\n    return 7\n")
    with pytest.raises(InputError, match="returns int, but a recipe returns a Run"):
        load_recipe("number.py:seven")
    assert PACKAGE.name == "posture"


def test_a_winner_is_compared_with_the_recipe_it_came_from(tmp_path):
    file = tmp_path / "best.json"
    file.write_text(json.dumps({"base": "jobs/action.py:improved", "base_changes": {"epochs": 7}, "search": "action-improved", "trial": 4, "accuracy": 0.9,
                                "changes": {"epochs": 7, "optim.lr": 0.01}}))
    study = winner_study(str(file))
    assert study.subject.optim.lr == 0.01 and study.baselines[0].optim.lr == 0.002 and study.epochs == 7
    assert {run.epochs for run in study.runs} == {7} and study.learning_rates == (1.0,)
    file.write_text("{}")
    with pytest.raises(InputError, match="not what posture tune writes"):
        winner_study(str(file))
