import re

import pytest
import torch

from posture.config import ActionRun, override
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, IMPROVED
from posture.models.summary import gmacs
from posture.runs.prepare import recipe_path
from posture.runs.recipes import PACKAGE, full_path, functions, load_module, load_recipe, load_study, points
from posture.search.spaces import load_space, sample
from tests.support.image_store import make_images, write_image_store
from tests.support.processes import posture_here


@pytest.mark.parametrize(
    "path",
    [
        "jobs/action.py:c3d",
        "jobs/action.py:improved",
        "jobs/action.py:r3d_18",
        "jobs/action.py:mc3_18",
        "jobs/action.py:r2plus1d_18",
        "jobs/demo.py:demo",
    ],
)
def test_recipes_that_come_with_posture(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = load_recipe(path)
    assert isinstance(run, ActionRun) and run.name == path.rpartition(":")[2]


def test_recipes_for_fine_tuning_have_the_values_of_torchvisions_tables():
    from torchvision.models import get_model_weights

    runs = load_module("jobs/action.py").finetune()
    assert [run.model.kind for run in runs] == ["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"]
    for run in runs:
        weights = get_model_weights(run.model.kind).KINETICS400_V1
        table, documented = weights.transforms(), weights.meta["_docs"]
        assert [run.model.size] * 2 == list(table.crop_size), run.name
        assert (list(run.data.mean), list(run.data.std)) == (list(table.mean), list(table.std)), run.name
        assert f"`clip_len={run.model.frames}`" in documented, run.name
        assert ("`frame_rate=7.5`" if run.name == "mvit_v2_s" else "`frame_rate=15`") in documented, run.name


@pytest.mark.parametrize(
    ("file", "named"),
    [
        ("jobs/action.py", ("AdamW", "Stem", "tandardised", "Input", "Widths", "Dropout", "Attention", "branches")),
        ("jobs/detector.py", ("warm-up", "mosaics", "objectness", "windows of 8", "DIoU")),
    ],
)
def test_what_departs_from_the_paper_stands_in_the_recipe_and_is_true(file, named):
    """And a study takes it from there."""
    recipes = functions(load_module(file))
    listed = points(recipes["improved"])
    assert recipes["study"]().departures == listed and all(any(word in point for point in listed) for word in named)
    assert all(point.endswith(".") and "* " not in point and "\n" not in point for point in listed)
    run, text = recipes["improved"](), " ".join(listed)
    if run.task == "action":
        for value in (
            run.optim.lr,
            run.optim.weight_decay,
            run.model.dropout,
            ", ".join(map(str, run.model.widths)),
            ", ".join(map(str, run.model.depths)),
            f"{recipes['improved_paper']().model.groups} groups",
            f"gain {run.model.branch_gain:g}",
        ):
            assert str(value) in text, value
        assert (
            run.optim.name == "adamw"
            and run.optim.clip_norm == 0
            and run.model.standardize
            and run.model.stem == "conv7"
            and (run.model.norm, run.model.input) == ("batch", "both")
        )
    else:
        for value in (
            f"{run.optim.warmup_epochs:g} epochs",
            f"norm of {run.optim.clip_norm:g}",
            run.optim.ema,
            f"Weights {run.loss.l1:g} of the class",
            f"windows of {run.model.window}",
        ):
            assert str(value) in text, value
        assert run.detect.nms_overlap == "diou" and run.data.mosaic_until == 0.9


def test_points_of_a_docstring():
    def recipe():
        """A run.

        * One point
          on two lines.
        * Another.

        No point.
        """

    assert points(recipe) == ("One point on two lines.", "Another.") and points(lambda: None) == ()


def test_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    code = (
        "from posture.config import Run\nfrom posture.models.configs import C3D\n\n"
        "def mine():\n    return Run(name='mine', model=C3D())\n"
    )
    (tmp_path / "jobs" / "action.py").write_text(code)
    assert load_recipe("jobs/action.py:mine").name == "mine"


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("improved", "names 2 recipes; write one of jobs/action.py:improved, jobs/detector.py:improved"),
        ("two_streem", "'two_streem' names no recipe; write FILE.py:function, for example jobs/action.py:two_stream"),
        ("qqqqqqqqqqqq", "names no recipe; write FILE.py:function, for example jobs/action.py:improved"),
        ("improved.py", "names no recipe; write FILE.py:function"),
        ("jobs/action.py:ablations", r"is a list of runs; write jobs/action.py:ablations.A1, or another of A2, "),
        ("jobs/action.py:ablations.Z9", "jobs/action.py:ablations has no run 'Z9'; it has A1, A2"),
        ("jobs/action.py:ablations[Z9]", "jobs/action.py:ablations has no run 'Z9'; it has A1, A2"),
        (
            "jobs/action.py:study",
            r"study of several runs; compare them with posture compare jobs/action.py:study, or name one .* "
            r"jobs/action.py:study.improved,",
        ),
        ("jobs/action.py:c3d.A1", "jobs/action.py:c3d is a single recipe; leave out .A1"),
        ("jobs/action.py:ablations[A1", "names no recipe; write FILE.py:function"),
        ("jobs/none.py:improved", "no such file here; recipes that come with Posture: jobs/action.py, jobs/demo.py"),
        ("jobs/action.py:imporved", r"has no recipe 'imporved'; it has .*c3d, .*improved, .*r3d_18"),
    ],
)
def test_wrong_paths_say_what_there_is(path, complaint):
    with pytest.raises(InputError, match=complaint):
        load_recipe(path)


def test_a_wrong_study_is_told_with_a_study_as_the_example(small_store):
    with pytest.raises(
        InputError, match=r"'qqqqqqqqqqqq' names no study; write FILE.py:function, for example jobs/action.py:study"
    ):
        load_study("qqqqqqqqqqqq")
    done = posture_here("compare", "qqqqqqqqqqqq", "--store", small_store)
    assert done.returncode == 2 and done.stderr.rstrip().endswith(
        "names no study; write FILE.py:function, for example jobs/action.py:study"
    ), done.stderr


@pytest.mark.parametrize("file", ["jobs/action.py", "jobs/detector.py"])
@pytest.mark.parametrize("function", ["ablations", "study"])
def test_every_run_of_a_list_or_study_is_named_in_two_spellings(file, function):
    """And the error that lists them gives a spelling that works."""
    with pytest.raises(InputError) as said:
        load_recipe(f"{file}:{function}")
    example = re.search(rf"({file}:{function}\.\w+), or another of (.+)$", str(said.value))
    names = [example[1].rpartition(".")[2], *example[2].split(", ")]
    assert load_recipe(example[1]).name == names[0]
    assert [load_recipe(f"{file}:{function}.{name}").name for name in names] == names
    assert [load_recipe(f"{file}:{function}[{name}]") for name in names] == [
        load_recipe(f"{file}:{function}.{name}") for name in names
    ]
    assert len(set(names)) == len(names) > 4


def test_the_papers_setting_stays_and_costs_as_much_as_the_default():
    new, paper = load_recipe("jobs/action.py:improved"), load_recipe("jobs/action.py:improved_paper")
    assert paper.model == C3D(**IMPROVED) and (paper.model.norm, paper.model.input) == ("group", "rgb")
    other = {"epochs": 50, "least_steps": 1000, "model.norm": "group", "model.input": "rgb", "model.stem_motion": 1.0}
    assert override(new, {"name": "improved_paper"} | other) == paper
    with torch.device("meta"):
        costs = [gmacs(build(run.model), 16, 56) for run in (new, paper)]
    assert costs[0] <= costs[1]


def test_a_name_without_its_file_is_enough_if_one_file_has_it_or_the_task_says_which(tmp_path, monkeypatch):
    assert (
        full_path("c3d") == "jobs/action.py:c3d"
        and full_path("yolov7") == "jobs/detector.py:yolov7"
        and load_recipe("demo").name == "demo"
    )
    assert (
        full_path("improved", task="detection") == "jobs/detector.py:improved"
        and full_path("ablations.B1", task="action") == "jobs/action.py:ablations.B1"
    )
    assert (
        full_path("study", task="action") == "jobs/action.py:study"
        and full_path("jobs/x.py:improved") == "jobs/x.py:improved"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "mine.py").write_text(
        "from posture.runs.recipes import load_recipe\n\ndef ours():\n    return load_recipe('c3d')\n\n"
        "def with_argument(width):\n    return None\n\ndef _hidden():\n    return None\n"
    )
    (tmp_path / "jobs" / "broken.py").write_text("def ours(:\n")
    (tmp_path / "jobs" / "never_run.py").write_text("raise SystemExit(3)\n")
    assert load_recipe("ours").name == "c3d" and full_path("c3d") == "jobs/action.py:c3d"
    for name in ("with_argument", "_hidden"):
        with pytest.raises(InputError, match="names no recipe"):
            load_recipe(name)
    # hides the file of that name that comes with Posture
    (tmp_path / "jobs" / "action.py").write_text("def elsewhere():\n    return None\n")
    with pytest.raises(InputError, match="'c3d' names no recipe"):
        full_path("c3d")


def test_the_store_decides_between_recipes_of_one_name(small_store, tmp_path):
    images = write_image_store(tmp_path / "pictures", make_images(8, splits=("train", "val"))).uri
    assert recipe_path("improved", small_store) == "jobs/action.py:improved"
    assert recipe_path("improved", images) == "jobs/detector.py:improved"
    with pytest.raises(InputError, match="names 2 recipes"):
        recipe_path("improved", None)


def test_only_a_modules_own_functions_are_recipes():
    found = set(functions(load_module("jobs/action.py")))
    assert {"c3d", "improved", "r3d_18", "mc3_18", "r2plus1d_18"} <= found and not found & {
        "Run",
        "Optim",
        "override",
        "C3D",
    }


def test_a_file_that_fails_says_where(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("def oops(:\n")
    with pytest.raises(InputError, match=r"broken.py: invalid syntax"):
        load_recipe("broken.py:oops")
    (tmp_path / "number.py").write_text("def seven():\n    return 7\n")
    with pytest.raises(InputError, match="returns int, but a recipe returns a Run"):
        load_recipe("number.py:seven")
    assert PACKAGE.name == "posture"


def test_all_networks_have_a_study_at_112_pixels():
    at_56, at_112 = (load_study(f"jobs/action.py:{name}") for name in ("study", "study_112"))
    for run, larger in zip(at_56.runs, at_112.runs, strict=True):
        assert larger.model.size == (56 if run.model.solved else 112)
        assert run == override(larger, {"model.size": 56})
    assert load_recipe("improved_112").model.size == 112


def test_each_augmentation_is_a_row_of_its_own_study_and_a_dimension_of_its_search():
    study, base = load_study("jobs/action.py:augmentation_study"), load_recipe("jobs/action.py:improved")
    assert study.subject == base and set(study.replacements) == {run.name for run in study.ablations}
    plain = base.model_dump() | {"name": ""}
    changed = set()
    for run in study.ablations:
        sections = ((name, run.model_dump()[name], plain[name]) for name in ("data", "loss", "model", "optim"))
        own = {f"{name}.{key}" for name, new, old in sections for key in new if new[key] != old[key]}
        assert own and run.name in study.titles
        changed |= own
    searched = {
        name
        for space in ("augmentation", "space")
        for _, changes in sample(load_space(f"tune_spaces/action.py:{space}"), base, 100)
        for name in changes
    }
    crops = {f"data.{name}" for name in ("crop_scale", "crop_aspect", "brightness", "contrast", "saturation")}
    assert changed - searched == crops, "the search has no dimension for crops and colours"
