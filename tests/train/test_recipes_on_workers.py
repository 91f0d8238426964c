"""The shipped recipes, narrow and on small clips and images, but otherwise as they are: two workers learn what one
does.

Networks with batch normalisation compute in float64 here: on so few and small images they magnify float32's rounding
a thousandfold in a few steps, on one worker as on two.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from posture.config import AnyRun, override
from posture.models import build
from posture.runs.recipes import load_recipe
from posture.tasks.action import ActionTask
from posture.tasks.detection import DetectionTask
from posture.train.clip_batches import ClipBatches
from posture.train.context import LocalContext
from posture.train.image_batches import ImageBatches
from posture.train.loop import fit
from tests.support.image_store import SmallImages
from tests.support.small_run import DiskFolder, FlowFootage, ProcessContext

pytestmark = pytest.mark.long

CLASSIFIERS = ("improved", "c3d", "two_stream", "mc3_18", "linear")
DETECTORS = ("improved", "yolov7")
RECIPES = [*(f"jobs/action.py:{name}" for name in CLASSIFIERS), *(f"jobs/detector.py:{name}" for name in DETECTORS)]
SMALL = {"epochs": 2, "steps_per_epoch": 2, "scale.global_batch": 4, "tracking.mode": "off"}
SIZES = {"c3d": 48, "two_stream": 56, "mc3_18": 16, "linear": 28, "yolov5": 64, "yolov7": 64}


def recipe(path: str, **changes: Any) -> AnyRun:
    run = load_recipe(path)
    narrow = {"model.width": 0.125} if hasattr(run.model, "width") else {}
    classes = {"model.classes": 3 if run.task == "action" else 2}
    # one cannot be narrowed, and its first steps magnify rounding most; the other has no steps
    few = {"epochs": 1, "steps_per_epoch": 1} if "mc3" in path or "linear" in path else {}
    return override(run, SMALL | few | narrow | classes | {"model.size": SIZES[run.model.kind]} | changes)


def train(path: str, ctx: LocalContext, **changes: Any) -> list[float]:
    """The losses of each epoch, in training and validation."""
    run = recipe(path, **changes)
    if run.task == "action":
        footage, validation = FlowFootage(14), FlowFootage(6, seed=1)
        task, batches = ActionTask(run, footage.classes), ClipBatches
    else:
        footage, validation = SmallImages(14), SmallImages(6, seed=1)
        task, batches = DetectionTask(run, footage.classes), ImageBatches
    torch.manual_seed(run.seed)
    model = build(run.model)
    if normalises(model):
        model.double().register_forward_pre_hook(lambda _, inputs: tuple(x.double() for x in inputs))
    with ctx:
        result = fit(
            run,
            task,
            batches(footage, run, rank=ctx.rank, world_size=ctx.world_size, validation=validation),
            ctx,
            None,
            model=model,
        )
    return [record[name] for record in result["history"] for name in ("train_loss", "val_loss")]


def normalises(model: nn.Module) -> bool:
    return any(isinstance(module, _BatchNorm) for module in model.modules())


def work(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=world_size)
    found = {}
    for place, path in enumerate(RECIPES):
        own = Path(folder, str(place))
        own.mkdir(exist_ok=True)
        found[path] = train(path, ProcessContext(rank, world_size, DiskFolder(own)), **{"scale.workers": world_size})
    Path(folder, f"rank{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(work, args=(2, str(folder)), nprocs=2)
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0] == ranks[1]
    return ranks[0]


def test_the_recipes_have_what_could_depend_on_workers() -> None:
    """Dropout, mosaics and batch normalisation, as they are shipped."""
    runs = {path: recipe(path) for path in RECIPES}
    assert all(runs[f"jobs/action.py:{name}"].model.dropout > 0 for name in ("improved", "c3d", "two_stream"))
    assert all(runs[f"jobs/detector.py:{name}"].data.mosaic == 1.0 for name in DETECTORS)
    assert {path for path, run in runs.items() if normalises(build(run.model))} == {
        path for path in RECIPES if "detector" in path or "mc3" in path or path == "jobs/action.py:improved"
    }


@functools.cache
def by_one(path: str) -> list[float]:
    return train(path, LocalContext(device="cpu"))


@pytest.mark.parametrize("path", RECIPES)
def test_two_workers_learn_what_one_does(path: str, by_two: dict[str, list[float]]) -> None:
    assert by_two[path] == pytest.approx(by_one(path), rel=1e-4)


@pytest.mark.parametrize("path", [f"jobs/action.py:{name}" for name in ("improved_paper", "c3d", "two_stream")])
def test_so_do_micro_batches(path: str) -> None:
    """Without batch normalisation, which sees the clips of one forward pass."""
    found = train(path, LocalContext(device="cpu"), **{"scale.micro_batch": 2})
    assert found == pytest.approx(by_one(path), rel=1e-4)


def test_other_seeds_drop_other_units() -> None:
    other = train("jobs/action.py:c3d", LocalContext(device="cpu"), seed=1)
    assert not np.allclose(by_one("jobs/action.py:c3d"), other, rtol=1e-4)
