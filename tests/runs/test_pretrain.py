"""Runs that learn without labels: what they read, what a classifier takes from them, and where they are refused."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from posture.config import Study, identity, override, validate
from posture.data.feed.pretext_views import pretext_outputs
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D
from posture.models.meta import build_on_meta, class_tensors
from posture.runs.calibration import calibrate
from posture.runs.evaluate import evaluate
from posture.runs.explain import explain
from posture.runs.folder import RunFolder
from posture.runs.recipes import load_recipe
from posture.runs.trained import open_trained
from posture.runs.weights import copy_weights, load_start
from tests.support.processes import posture_here
from tests.support.small_run import SMALL_ACTION, sets, small_run

SMALL = C3D(classes=3, frames=8, size=32, width=0.125, head="gap", norm="batch")
LAST = {"head.2.weight", "head.2.bias"}
RECIPES = ("improved", "improved_paper", "c3d", "r3d_18", "mc3_18", "r2plus1d_18")


@pytest.fixture
def pretrained(tmp_path):
    """A run that learned without labels, with random weights."""
    outputs = pretext_outputs("contrast")
    run = override(small_run(pretext="contrast"), {"model": {**vars(SMALL), "classes": len(outputs)}})
    folder = RunFolder(str(tmp_path / "runs"), "first")
    folder.write_json(
        "run.json", {"run": run.model_dump(mode="json"), "store": "s", "versions": {}, "classes": outputs}
    )
    torch.manual_seed(1)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    save_file(build(run.model).state_dict(), checkpoint / "model.safetensors")
    folder.publish_checkpoint("epoch-0001", checkpoint, best=True)
    return folder


def test_a_classifier_takes_all_but_the_last_layer(pretrained, tmp_path):
    new = RunFolder(str(tmp_path / "runs"), "new")
    said = copy_weights(pretrained.uri, new, SMALL, classes=("left", "right", "still"))
    torch.manual_seed(2)
    network = build(SMALL)
    fresh = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    load_start(network, new)
    with pretrained.checkpoint("best") as checkpoint:
        learned = load_file(checkpoint / "model.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in LAST else learned[name]), name
    assert said.endswith(
        f", which learned without labels (contrast): {len(fresh) - 2} tensors are loaded, and head.2.weight, "
        "head.2.bias start afresh"
    )


def test_a_class_of_the_same_name_or_number_keeps_nothing_of_the_pretext(pretrained, tmp_path):
    outputs = pretext_outputs("contrast")
    for number, classes in enumerate([(outputs[0], "walk", "run"), tuple(f"class {n}" for n in range(len(outputs)))]):
        new = RunFolder(str(tmp_path / "runs"), f"new-{number}")
        copy_weights(pretrained.uri, new, C3D(**{**vars(SMALL), "classes": len(classes)}), classes=classes)
        assert not LAST & set(load_file(tmp_path / "runs" / f"new-{number}" / "start.safetensors"))


def test_another_network_is_refused(pretrained, tmp_path):
    with pytest.raises(InputError, match="stage"):
        copy_weights(
            pretrained.uri,
            RunFolder(str(tmp_path / "runs"), "new"),
            C3D(**{**vars(SMALL), "width": 0.25}),
            classes=("a",),
        )


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_differs_from_its_classifier_in_the_last_layer_only(name):
    run, classifier = load_recipe(f"jobs/pretrain.py:pretrain.{name}"), load_recipe(f"jobs/action.py:{name}")
    assert run.pretext
    outputs = override(run, {"model.classes": len(pretext_outputs(run.pretext))}).model
    ours, theirs = (
        {part: tensor.shape for part, tensor in build_on_meta(model).state_dict().items()}
        for model in (outputs, classifier.model)
    )
    assert {part for part in ours if ours[part] != theirs[part]} == class_tensors(classifier.model)
    assert ours.keys() == theirs.keys() and len(class_tensors(classifier.model)) == 2


def test_what_names_no_class_is_neither_evaluated_nor_compared(pretrained):
    said = "this run was pretrained without labels and names no class; train a classifier from it with: posture train"
    for refuse in (
        lambda: evaluate(pretrained),
        lambda: calibrate(pretrained),
        lambda: explain(pretrained, "video.mp4"),
        lambda: open_trained(pretrained.uri, task="action"),
    ):
        with pytest.raises(InputError, match=re.escape(said)):
            refuse()
    with pytest.raises(ValueError, match="compares classifiers, but 'small' has pretext=contrast and names no class"):
        Study(name="both", subject=small_run(), references=(small_run(pretext="contrast"),))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.mixup": 0.2, "data.balanced": True}, "data.balanced and data.mixup must stay at the default"),
        ({"data.labels_per_class": 5}, "data.labels_per_class must stay at the default with pretext"),
        ({"metric": "map"}, "metric must stay at the default with pretext, which learns without labels"),
        ({"model": {"kind": "two_stream"}}, "pretext needs a network that sees frames alone"),
        ({"model": {"kind": "linear"}, "epochs": 1}, "pretext needs a network that sees frames alone"),
        ({"pretext": "rotation"}, "pretext: input should be '', 'transformations' or 'contrast'"),
    ],
)
def test_what_pretraining_would_ignore_is_refused(changes, message):
    with pytest.raises(InputError, match=re.escape(message)):
        override(small_run(pretext="contrast"), changes)


def test_runs_without_a_pretext_keep_their_identity():
    run = small_run()
    tree = run.model_dump(mode="json")
    del tree["pretext"]
    assert validate(tree) == run and "pretext" not in identity(run, without=set())
    assert identity(small_run(pretext="contrast"), without=set())["pretext"] == "contrast"


@pytest.mark.slow
@pytest.mark.ray
def test_from_clips_without_labels_to_a_classifier_on_the_command_line(small_store, tmp_path):
    small = sets(SMALL_ACTION | {"tracking.mode": "off"})
    where = ["--store", small_store, "--runs", str(tmp_path)]
    done = posture_here(
        "train", "pretrain.improved", *where, "--name", "pre", "--workers", "2", "--epochs", "2", *small
    )
    assert done.returncode == 0 and "without labels (" in done.stdout, done.stderr
    assert f"posture train RECIPE --store {small_store} --weights {tmp_path / 'pre'}" in " ".join(done.stdout.split())
    history = json.loads((tmp_path / "pre" / "history.json").read_text())
    assert len(history) == 2 and all(np.isfinite([row["train_loss"], row["val_loss"]]).all() for row in history)
    done = posture_here(
        "train", "jobs/action.py:improved", *where, "--name", "tuned", "--local", "--epochs", "1", *small,
        "--weights", str(tmp_path / "pre"), "--set", "data.labels_per_class=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tensors are loaded, and head.2.weight, head.2.bias start afresh" in " ".join(done.stdout.split())
    assert posture_here("evaluate", str(tmp_path / "tuned")).returncode == 0
    done = posture_here("evaluate", str(tmp_path / "pre"))
    assert done.returncode == 2 and "names no class" in done.stderr and "Traceback" not in done.stderr
