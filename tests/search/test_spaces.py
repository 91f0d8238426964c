import math

import pytest

from posture.config import override
from posture.errors import InputError
from posture.runs.recipes import load_recipe
from posture.search.spaces import BaseAnswers, base_point, load_space, sample, unconditional

SPACES = [
    ("tune_spaces/action.py", "jobs/action.py:improved", {}),
    ("tune_spaces/action.py", "jobs/action.py:improved", {"model.width": 0.25}),
    ("tune_spaces/action.py", "jobs/action.py:c3d", {}),
    ("tune_spaces/action.py", "jobs/action.py:two_stream", {}),
    ("tune_spaces/action.py", "jobs/action.py:r3d_18", {}),
    ("tune_spaces/action.py:augmentation", "jobs/action.py:improved", {}),
    ("tune_spaces/action.py:augmentation", "jobs/action.py:two_stream", {}),
    ("tune_spaces/action.py:stages", "jobs/action.py:improved", {}),
    ("tune_spaces/action.py:stages", "jobs/action.py:c3d", {}),
    ("tune_spaces/detector.py", "jobs/detector.py:improved", {}),
    ("tune_spaces/detector.py", "jobs/detector.py:yolov7", {}),
    ("tune_spaces/detector.py", "jobs/detector.py:ssd300", {}),
    ("tune_spaces/detector.py:lambdas", "jobs/detector.py:improved", {}),
    ("tune_spaces/detector.py:augmentation", "jobs/detector.py:improved", {}),
    ("tune_spaces/detector.py:augmentation", "jobs/detector.py:yolov5s", {"optim.ema_horizon": 0.5}),
    ("tune_spaces/detector.py:augmentation", "jobs/detector.py:faster_rcnn", {}),
]


def written(folder, text):
    (folder / "mine.py").write_text(text)
    return load_space(str(folder / "mine.py"))


@pytest.mark.parametrize(("path", "recipe", "changes"), SPACES)
def test_every_sampled_point_is_a_valid_run_and_the_base_is_one_of_them(path, recipe, changes):
    space, base = load_space(path), override(load_recipe(recipe), changes)
    points = [point for _, point in sample(space, base, 200)]
    assert len(points) == 200 and len({str(point) for point in points}) > 100
    assert override(base, space.changes(BaseAnswers(base, space=path), base)) == base and base_point(space, base)


def test_what_only_matters_sometimes_is_asked_for_only_then():
    base = load_recipe("jobs/action.py:improved")
    for distributions, changes in sample(load_space("tune_spaces/action.py"), base, 200):
        assert ("model.groups" in distributions) == (changes["model.norm"] == "group")
        assert ("model.placement" in distributions) == (changes["model.attention"] != "none")
        assert all(width % changes.get("model.groups", 1) == 0 for width in base.model.channels)
    groups = {changes.get("model.groups") for _, changes in sample(load_space("tune_spaces/action.py"), base, 200)}
    assert groups == {None, 1, 2, 4, 8, 16, 32} and math.gcd(*base.model.channels) == 32


def test_much_dropout_is_searched_only_on_a_long_schedule():
    base = load_recipe("jobs/action.py:improved")
    for name in ("space", "augmentation"):
        highest = {
            epochs: max(
                changes["model.dropout"]
                for _, changes in sample(
                    load_space(f"tune_spaces/action.py:{name}"), override(base, {"epochs": epochs}), 200
                )
            )
            for epochs in (30, 60, "auto")
        }
        assert highest[30] <= 0.5 < 0.8 < highest[60] <= 0.9 and 0.8 < highest["auto"] <= 0.9


def test_stages_reach_every_placement():
    base = load_recipe("jobs/action.py:improved")
    found = {
        (
            changes["model.attention"],
            override(base, changes).model.attention_stages if changes["model.attention"] != "none" else (),
        )
        for _, changes in sample(load_space("tune_spaces/action.py:stages"), base, 400)
    }
    assert len(found) == 32 and ("none", ()) in found and ("stcbam", ("stage4", "stage5")) in found


def test_of_the_lambdas_one_stays_as_it_is():
    base = load_recipe("jobs/detector.py:improved")
    runs = [override(base, changes) for _, changes in sample(load_space("tune_spaces/detector.py"), base, 50)]
    assert {run.loss.l2 for run in runs} == {base.loss.l2}
    assert len({run.loss.l1 for run in runs}) == len({run.loss.l3 for run in runs}) == 50


def test_a_space_may_do_without_the_base(tmp_path):
    space = written(
        tmp_path, "def space(trial):\n    return {'optim.lr': trial.suggest_float('optim.lr', 1e-4, 1e-1, log=True)}\n"
    )
    base = load_recipe("jobs/action.py:improved")
    assert base_point(space, base) == {"optim.lr": base.optim.lr} and len(list(sample(space, base, 3))) == 3


def test_what_is_unconditional_is_told_from_the_rest():
    always, sometimes = unconditional(load_space("tune_spaces/action.py"), load_recipe("jobs/action.py:improved"))
    assert set(sometimes) == {"model.groups", "model.placement"}
    assert set(always) == {
        "optim.lr",
        "optim.weight_decay",
        "loss.label_smoothing",
        "model.dropout",
        "model.input",
        "model.norm",
        "model.standardize",
        "model.stochastic_depth",
        "model.attention",
    }


def test_comments_and_words_do_not_change_a_space_but_its_numbers_do(tmp_path):
    text = "def space(trial):\n    return {'optim.lr': trial.suggest_float('optim.lr', 1e-4, 0.1, log=True)}\n"
    first = written(tmp_path, text).identity
    assert written(tmp_path, "# mine\n\n" + text.replace("):\n", "):\n    '''Words.'''\n")).identity == first
    assert written(tmp_path, text.replace("0.1", "0.2")).identity != first


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("def space(trial):\n    return [1]\n", "returned list; a space returns a dict"),
        (
            "def space(trial):\n    return {'optim.lr': trial.suggest_float('optim.lr', 0.1, 0.2)}\n",
            r"optim\.lr is 0\.002, outside",
        ),
        (
            "def space(trial):\n    return {'optim.lr': trial.suggest_float('speed', 0.1, 0.2)}\n",
            "speed is not a field of the run",
        ),
        (
            "def space(trial):\n    trial.suggest_float('optim.lr', 1e-4, 1e-1)\n    return {'epochs': 3}\n",
            "it still changes epochs",
        ),
    ],
)
def test_a_space_that_cannot_begin_with_the_base_is_refused(tmp_path, text, complaint):
    with pytest.raises(InputError, match=complaint):
        base_point(written(tmp_path, text), load_recipe("jobs/action.py:improved"))


def test_mistakes_are_named(tmp_path):
    with pytest.raises(
        InputError,
        match=r"no such file here; search spaces that come with Posture: tune_spaces/action\.py, "
        r"tune_spaces/detector\.py",
    ):
        load_space("tune_spaces/none.py")
    with pytest.raises(InputError, match="has no search space 'nothing'; it has augmentation, space, stages"):
        load_space("tune_spaces/action.py:nothing")
    with pytest.raises(InputError, match="names no search space"):
        load_space("tune_spaces")
    space = written(
        tmp_path, "def space(trial):\n    return {'model.groups': trial.suggest_int('model.groups', 1, 7)}\n"
    )
    with pytest.raises(InputError, match=r"gives an invalid run: .*groups [3567] does not divide"):
        list(sample(space, load_recipe("jobs/action.py:improved_paper"), 50))
