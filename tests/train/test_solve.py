"""A linear classifier is fitted at once: to the optimum, from every clip, by the loop that trains networks in steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from posture.config import override
from posture.errors import InputError
from posture.models import build
from posture.models.configs import Linear
from posture.models.linear import LinearClassifier
from posture.models.meta import class_tensors
from posture.runs.recipes import load_recipe
from posture.tasks.action import ActionTask
from posture.train.checkpoint import load_weights
from posture.train.clip_batches import ClipBatches
from posture.train.context import LocalContext
from posture.train.loop import fit
from posture.train.solve import solve
from tests.support.small_run import CLASSES, DiskFolder, SmallFootage, StreamedFootage, small_run

RUN = override(
    load_recipe("jobs/action.py:linear"),
    {
        "model.classes": 3,
        "model.frames": 8,
        "model.size": 16,
        "model.grid": 8,
        "scale.global_batch": 5,
        "data.flip": 0.0,  # it matters which way a bar walks
    },
)
TRAINING, VALIDATION = SmallFootage(41), SmallFootage(20, seed=1)


def batches_of(run: Any, footage: SmallFootage | StreamedFootage = TRAINING) -> ClipBatches:
    return ClipBatches(footage, run, rank=0, world_size=1, validation=VALIDATION)


def fitted(run: Any, footage: SmallFootage | StreamedFootage = TRAINING) -> tuple[dict, LinearClassifier]:
    model: Any = build(run.model)
    ctx = LocalContext(device="cpu")
    figures, asked = solve(model, batches_of(run, footage), ctx)
    assert asked == "" and isinstance(model, LinearClassifier)
    return figures, model


def test_it_is_one_epoch_of_a_run_with_a_checkpoint_like_any_other(tmp_path: Path) -> None:
    folder, updates = DiskFolder(tmp_path), []
    with LocalContext(folder, device="cpu", on_progress=updates.append) as ctx:
        model = build(RUN.model)
        result = fit(RUN, ActionTask(RUN, CLASSES), batches_of(RUN), ctx, None, model=model)
    (record,) = result["history"]
    assert record["val_accuracy"] > 0.6 and record["val_loss"] < np.log(3) and record["clips_per_second"] > 0
    assert (result["epoch"], result["best"], result["stopped"]) == (1, record["val_accuracy"], "")
    saved = build(RUN.model)
    load_weights(saved, folder.last / "model.safetensors")
    assert all(torch.equal(saved.state_dict()[name], value) for name, value in model.state_dict().items())
    assert max(update["step"] for update in updates) == len(TRAINING)


def test_the_last_layer_is_at_the_optimum_for_its_weight_decay() -> None:
    """The gradient of the loss over all clips and their mirror images, plus the decay's, vanishes."""
    figures, model = fitted(override(RUN, {"data.flip": 0.5}))
    batches = batches_of(RUN)
    with torch.no_grad():
        clips = torch.cat([batch.tensors(RUN, torch.device("cpu"))[0][0] for batch in batches.once(TRAINING)])
        features = model.features(torch.cat([clips, clips.flip(-1)]))
    labels = torch.from_numpy(np.tile(TRAINING.labels, 2))
    standardised = (features - model.mean) / model.deviation
    assert standardised.mean(dim=0).abs().max() < 1e-4
    torch.testing.assert_close(standardised.std(dim=0, correction=0), torch.ones(len(model.mean)), rtol=1e-3, atol=0)
    loss = torch.nn.functional.cross_entropy(model.classify(standardised), labels)
    assert float(loss.detach()) == pytest.approx(figures["train_loss"], rel=1e-4)
    loss = loss + figures["weight_decay"] / 2 * model.classify.weight.square().sum()
    weight, bias = torch.autograd.grad(loss, [model.classify.weight, model.classify.bias])
    assert weight.abs().max() < 2e-3 and bias.abs().max() < 2e-3


def test_mirror_images_follow_the_flips_of_the_recipe() -> None:
    mirrored, alone = (fitted(override(RUN, {"data.flip": flip}))[1] for flip in (0.5, 0.0))
    grid = mirrored.mean[: 3 * 64].view(3, 8, 8)
    torch.testing.assert_close(grid, grid.flip(-1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(
        alone.mean[: 3 * 64].view(3, 8, 8), alone.mean[: 3 * 64].view(3, 8, 8).flip(-1), atol=1e-3
    )


def test_a_stream_gives_what_clips_in_memory_do() -> None:
    streamed = StreamedFootage(TRAINING, shares=[[*range(20, 41), *range(20)]])
    (figures, model), (again, other) = fitted(RUN), fitted(RUN, streamed)
    assert figures["weight_decay"] == again["weight_decay"]
    for name, value in model.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value)


def test_a_class_without_training_clips_is_never_predicted_and_two_classes_are_told_apart() -> None:
    footage = SmallFootage(41)
    footage.labels = np.where(footage.labels == 2, 0, footage.labels)
    _, model = fitted(RUN, footage)
    with torch.no_grad():
        scores = torch.cat([
            model(*batch.tensors(RUN, torch.device("cpu"))[0]) for batch in batches_of(RUN).once(footage)
        ])
    assert (scores.argmax(dim=1).numpy() == footage.labels).mean() > 0.9 and (scores[:, 2] < scores[:, :2].min()).all()
    footage.labels = np.ones_like(footage.labels)
    assert fitted(RUN, footage)[1].classify.bias.argmax() == 1


def test_balanced_classes_weigh_the_same() -> None:
    """Of clips without any difference, each class is as likely as its share, or as any other if they are balanced."""
    run = override(RUN, {"model.grid": 1, "data.feed": "materialize"})
    footage = SmallFootage(41)
    footage.frames = [np.zeros_like(frames) for frames in footage.frames]
    footage.labels = np.array([0] * 30 + [1] * 8 + [2] * 3)
    for balanced, expected in ((False, np.array([30, 8, 3]) / 41), (True, np.full(3, 1 / 3))):
        _, model = fitted(override(run, {"data.balanced": balanced}), footage)
        np.testing.assert_allclose(model.classify.bias.detach().softmax(dim=0), expected, atol=0.01)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, "epochs must be 1 for linear, which is fitted at once, not 2"),
        ({"weights": "runs/a"}, "weights must be empty for linear"),
    ],
)
def test_what_it_cannot_do_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(RUN, changes)
    assert isinstance(RUN.model, Linear)


PROBED = {"probe": True, "epochs": 1, "weights": "start.safetensors", "data.flip": 0.5}


@pytest.mark.parametrize("input", ["rgb", "late"])
def test_a_probe_fits_the_last_layer_of_each_stream_and_nothing_else(input: str, tmp_path: Path) -> None:
    run = small_run(model__input=input, model__norm="batch", scale__global_batch=5)
    run = override(run, PROBED)
    torch.manual_seed(0)
    model = build(run.model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with LocalContext(DiskFolder(tmp_path), device="cpu") as ctx:
        batches = batches_of(run)
        result = fit(run, ActionTask(run, CLASSES), batches, ctx, None, model=model)
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == class_tensors(run.model)
    (record,) = result["history"]
    scores: dict[bool, list] = {False: [], True: []}
    with torch.no_grad():
        for mirrored, found in scores.items():
            for batch in batches.once(TRAINING):
                inputs, _ = batch.tensors(run, torch.device("cpu"), mirrored=mirrored)
                found.append(model(*inputs))
    logits = torch.cat(scores[False] + scores[True])  # (2 n, K), or (2 n, M, K)
    streams = logits.unsqueeze(1) if logits.ndim == 2 else logits
    labels = torch.from_numpy(np.tile(TRAINING.labels, 2))
    losses = [float(torch.nn.functional.cross_entropy(streams[:, place], labels)) for place in range(streams.shape[1])]
    assert len(losses) == (2 if input == "late" else 1)
    assert record["train_loss"] == pytest.approx(np.mean(losses), rel=1e-3) and max(losses) < np.log(3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probe": True, "epochs": 1}, "probe needs the weights of a trained network: name them with --weights"),
        (PROBED | {"epochs": 3}, "epochs must be 1 with probe, .* not 3"),
    ],
)
def test_a_probe_needs_a_trained_network_and_one_epoch(changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(small_run(), changes)
