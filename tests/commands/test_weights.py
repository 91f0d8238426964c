"""`posture train --weights` for every network: what it is given is what training starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from posture.__main__ import app
from posture.config import KINDS, override
from posture.data.store.tables import Store
from posture.models import build
from posture.runs.folder import RunFolder
from posture.runs.prepare import fit_to_store
from posture.runs.recipes import functions, load_module, load_recipe
from posture.runs.weights import START, copy_weights
from tests.support.image_store import make_images, write_image_store

pytestmark = pytest.mark.long

RECIPES = [
    f"jobs/{file}.py:{name}"
    for file in ("action", "detector")
    for name, make in functions(load_module(f"jobs/{file}.py")).items()
    if not isinstance(make(), list) and hasattr(make(), "model") and not make().model.solved
]
RECIPES += [f"jobs/action.py:finetune.{kind}" for kind in ("s3d", "swin3d_t")]
LARGE = ["jobs/action.py:finetune.mvit_v2_s"]
"""Recipes of networks that cannot be made small."""
EACH = pytest.mark.parametrize("recipe", [*RECIPES, *(pytest.param(one, marks=pytest.mark.slow) for one in LARGE)])


@pytest.fixture(scope="module")
def image_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_image_store(tmp_path_factory.mktemp("images") / "store", make_images(12)).uri


def small(recipe: str) -> dict[str, object]:
    """Changes that make the recipe's network small, leave its parts as they are, and train it for one step that changes
    nothing.
    """
    model = load_recipe(recipe).model
    narrow = {"model.width": 0.125} if hasattr(model, "width") else {}
    size = {"ssd300": 160, "yolov5": 64, "yolov7": 64, "fasterrcnn": 64, "mvit_v2_s": 224}.get(model.kind, 32)
    short = {"model.frames": 16} if hasattr(model, "frames") else {}
    return (
        narrow
        | short
        | {
            "model.size": size,
            "epochs": 1,
            "steps_per_epoch": 1,
            "scale.global_batch": 2,
            "tracking.mode": "off",
            "optim.lr": 1e-12,
            "optim.weight_decay": 0.0,
            "optim.warmup_epochs": 0.0,
            "optim.ema": 0.0,
            "optim.backbone_lr": 1.0,
        }
    )


def test_every_kind_of_network_has_a_recipe():
    assert {load_recipe(recipe).model.kind for recipe in RECIPES + LARGE} == set(KINDS) - {"linear"}


@EACH
def test_a_state_dict_of_every_network_is_taken_whole(recipe: str, flow_store: str, image_store: str, tmp_path: Path):
    store = image_store if "detector" in recipe else flow_store
    run = override(load_recipe(recipe), small(recipe))
    fitted = fit_to_store(run, Store(store), versions=Store(store).versions()).run
    torch.manual_seed(5)
    given, file = build(fitted.model).state_dict(), str(tmp_path / "given.pt")
    torch.save(given, file)
    changes = [part for path, value in small(recipe).items() for part in ("--set", f"{path}={value}")]
    with pytest.raises(SystemExit) as ended:
        app(
            [
                "train",
                recipe,
                "--store",
                store,
                "--runs",
                str(tmp_path),
                "--name",
                "on",
                "--weights",
                file,
                "--local",
                *changes,
            ],
            exit_on_error=False,
        )
    assert ended.value.code == 0
    folder = RunFolder(str(tmp_path), "on")
    assert folder.read_json("run.json")["start"] == f"starting from {file}"
    taken = load_file(folder.path(START))
    assert taken.keys() == given.keys() and all(torch.equal(taken[name], tensor) for name, tensor in given.items())
    with folder.checkpoint("last") as checkpoint:
        trained = load_file(checkpoint / "model.safetensors")
    for name, tensor in given.items():
        if "running_" not in name and "num_batches" not in name:  # a norm's statistics move with what it has seen
            torch.testing.assert_close(trained[name], tensor, rtol=1e-5, atol=1e-9, msg=name)


@EACH
def test_of_weights_with_other_classes_the_last_layer_alone_starts_afresh(recipe: str, tmp_path: Path):
    config = override(load_recipe(recipe), small(recipe) | {"model.classes": 2}).model
    given, own = (build(replace(config, classes=classes)).state_dict() for classes in (5, 2))
    torch.save(given, tmp_path / "given.pt")
    folder = RunFolder(str(tmp_path), "on")
    said = copy_weights(str(tmp_path / "given.pt"), folder, config, classes=("one", "other"))
    taken = load_file(folder.path(START))
    last = [name for name in own if name not in taken]
    assert last == [name for name in own if own[name].shape != given[name].shape] and 0 < len(last) < len(own)
    assert said.endswith(f"whose 5 classes are not the footage's 2: {', '.join(last)} start afresh")
