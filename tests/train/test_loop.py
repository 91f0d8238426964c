"""The loop on one worker: it learns, stops, resumes and judges as it says."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from posture.config import ActionRun
from posture.data.feed.clip_transforms import draw_augmentation, network_input
from posture.errors import InputError
from posture.models import build
from posture.tasks.action import ActionTask
from posture.train.checkpoint import load_weights, read_state
from posture.train.clip_batches import ClipBatches
from posture.train.context import LocalContext
from posture.train.evaluate import validate
from posture.train.loop import Diverged, fit
from posture.train.optim import Precision
from tests.support.small_run import CLASSES, DiskFolder, SmallFootage, SmallNetwork, StreamedFootage, small_run

pytestmark = pytest.mark.long

TRAINING, VALIDATION = SmallFootage(41), SmallFootage(20, seed=1)
RESUMABLE = {
    "optim__ema": 0.8,
    "optim__name": "adamw",
    "optim__lr": 0.01,
    "data__balanced": True,
    "loss__label_smoothing": 0.1,
}
UNTIMED = ("epoch", "train_loss", "val_loss", "val_accuracy", "val_mean_class_accuracy", "val_map", "lr")


class Log:
    """A tracker that keeps what it is told."""

    def __init__(self) -> None:
        self.entries: list[tuple[dict[str, Any], int]] = []

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self.entries.append((metrics, step))

    def close(self) -> None:
        self.entries.clear()


def train(
    run: ActionRun,
    folder: DiskFolder | None = None,
    *,
    network: nn.Module | None = None,
    resume: Path | None = None,
    stop_at: tuple[int, int] | None = None,
    tracker: Log | None = None,
    footage: SmallFootage | StreamedFootage = TRAINING,
) -> tuple[dict[str, Any], nn.Module, list[dict[str, Any]]]:
    """Result, network and progress updates. `stop_at` (epoch, step) presses Ctrl-C there."""
    model, updates = network or SmallNetwork(dropout=0.5), []

    def follow(update: dict[str, Any]) -> None:
        updates.append(update)
        if (update["epoch"], update["step"]) == stop_at:
            os.kill(os.getpid(), signal.SIGINT)

    with LocalContext(folder, device="cpu", on_progress=follow) as ctx:
        batches = ClipBatches(footage, run, rank=0, world_size=1, validation=VALIDATION)
        result = fit(run, ActionTask(run, CLASSES), batches, ctx, tracker, model=model, resume=resume)
    return result, model, updates


class Recorder(SmallNetwork):
    """Notes, for each forward pass, a random number and whether the network was in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.passes: list[tuple[float, bool]] = []

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        self.passes.append((float(torch.rand(())), self.training))
        return super().forward(clips)


def assert_same(ours: tuple[dict[str, Any], nn.Module, Any], theirs: tuple[dict[str, Any], nn.Module, Any]) -> None:
    assert [[record[name] for name in UNTIMED] for record in ours[0]["history"]] == [
        [record[name] for name in UNTIMED] for record in theirs[0]["history"]
    ]
    assert {**ours[0], "history": None} == {**theirs[0], "history": None}
    for (name, tensor), other in zip(ours[1].state_dict().items(), theirs[1].state_dict().values(), strict=True):
        assert torch.equal(tensor, other), name


def test_a_run_leaves_a_history_checkpoints_and_a_log(folder: DiskFolder) -> None:
    tracker = Log()
    result, _, updates = train(small_run(epochs=3), folder, tracker=tracker)
    assert result["stopped"] == "" and result["epoch"] == 3
    assert [record["epoch"] for record in result["history"]] == [1, 2, 3]
    assert set(result["history"][0]) == {*UNTIMED, "clips_per_second", "seconds", "data_wait_share"}
    assert all(0 <= record["data_wait_share"] <= 1 and record["clips_per_second"] > 0 for record in result["history"])
    best = max(record["val_accuracy"] for record in result["history"])
    first = next(record["epoch"] for record in result["history"] if record["val_accuracy"] == best)
    assert (result["best"], result["best_epoch"]) == (best, first)
    assert folder.tags == {"last": "epoch-0003", "best": f"epoch-{first:04d}"}
    assert json.loads((folder.path / "history.json").read_text()) == result["history"]
    assert read_state(folder.last)["run"] == small_run(epochs=3).model_dump(mode="json")
    assert [(update["epoch"], update["step"]) for update in updates] == [
        (epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3)
    ]
    assert (
        updates[0]["epochs"] == 3
        and updates[0]["steps"] == 3
        and updates[0]["loss"] > 0
        and updates[0]["clips_per_second"] > 0
    )
    assert [step for metrics, step in tracker.entries if "val_accuracy" in metrics] == [3, 6, 9]
    assert [step for _, step in tracker.entries] == sorted(step for _, step in tracker.entries)


@pytest.mark.parametrize(("network", "rate"), [("small", 0.01), ("c3d", 0.003)])
def test_eighty_steps_on_one_batch_learn_it(network: str, rate: float) -> None:
    still = {"data__flip": 0.0, "data__temporal_jitter": False, "data__crop_scale": (1.0, 1.0)}
    run = small_run(epochs=80, optim__name="adamw", optim__lr=rate, optim__schedule="constant", **still)
    torch.manual_seed(0)
    model = SmallNetwork() if network == "small" else build(run.model)
    result, _, _ = train(run, network=model, footage=SmallFootage(12))
    losses = [record["train_loss"] for record in result["history"]]
    assert losses[0] > 0.8
    assert min(losses[-20:]) < 0.15


def test_the_same_seed_gives_the_same_run_and_another_does_not() -> None:
    first = train(small_run(epochs=2))
    assert_same(first, train(small_run(epochs=2)))
    assert train(small_run(epochs=2, seed=1))[0]["history"][1]["train_loss"] != first[0]["history"][1]["train_loss"]


def test_every_forward_pass_has_its_own_randomness_and_its_mode() -> None:
    recorder = Recorder()
    # 3 steps of 2 micro batches, then 20 clips to validate
    train(small_run(epochs=2, scale__micro_batch=6), network=recorder)
    assert [mode for _, mode in recorder.passes] == ([True] * 6 + [False] * 4) * 2
    training = [number for number, mode in recorder.passes if mode]
    assert len(set(training)) == 12


def test_the_loss_of_an_epoch_is_the_mean_over_its_clips() -> None:
    """With a rate of practically zero it can be computed apart."""
    run = small_run(epochs=1, optim__lr=1e-12, loss__label_smoothing=0.2, data__temporal_jitter=False)
    footage = SmallFootage(36)
    model = SmallNetwork()
    result, _, _ = train(run, network=model, footage=footage)
    losses = []
    for index in range(36):
        augmentation = draw_augmentation(run.data, (20, 24), seed=0, epoch=0, clips=np.array([index]))
        frames = footage.clip(index)
        start = (len(frames) - 8) // 2
        logits = model(
            network_input(torch.from_numpy(frames[None, start : start + 8]), augmentation, data=run.data, size=16)
        )
        label = torch.from_numpy(footage.labels[index : index + 1])
        losses.append(nn.functional.cross_entropy(logits, label, label_smoothing=0.2).item())
    assert result["history"][0]["train_loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_accumulated_micro_batches_equal_one_batch() -> None:
    whole = train(small_run(epochs=2, optim__clip_norm=0.5), network=SmallNetwork())
    parts = train(small_run(epochs=2, optim__clip_norm=0.5, scale__micro_batch=3), network=SmallNetwork())
    for ours, theirs in zip(whole[0]["history"], parts[0]["history"], strict=True):
        assert [ours[name] for name in UNTIMED] == pytest.approx([theirs[name] for name in UNTIMED], rel=1e-4)
    for ours, theirs in zip(whole[1].parameters(), parts[1].parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_two_epochs_and_two_more_equal_four(tmp_path: Path) -> None:
    run = small_run(epochs=4, **RESUMABLE)
    undisturbed = train(run, DiskFolder(tmp_path / "a"))
    folder = DiskFolder(tmp_path / "b")
    half, _, _ = train(run, folder, stop_at=(2, 3))  # asked after the last step of epoch 2: that epoch is finished
    assert half["stopped"] == "asked" and half["epoch"] == 2 and folder.tags["last"] == "epoch-0002"
    assert_same(train(run, folder, network=SmallNetwork(dropout=0.5, seed=9), resume=folder.last), undisturbed)


@pytest.mark.parametrize("stop_at", [(1, 1), (2, 2)])
def test_a_stop_within_an_epoch_and_a_resume_equal_an_undisturbed_run(tmp_path: Path, stop_at: tuple[int, int]) -> None:
    run = small_run(epochs=3, scale__micro_batch=6, **RESUMABLE)
    undisturbed = train(run, DiskFolder(tmp_path / "a"))
    folder = DiskFolder(tmp_path / "b")
    part, _, _ = train(run, folder, stop_at=stop_at)
    epoch, step = stop_at
    assert (
        part["stopped"] == "asked"
        and part["epoch"] == epoch - 1
        and folder.tags["last"] == f"epoch-{epoch:04d}-step-{step:06d}"
    )
    resumed = train(run, folder, network=SmallNetwork(dropout=0.5, seed=9), resume=folder.last)
    assert (resumed[2][0]["epoch"], resumed[2][0]["step"]) == (epoch, step + 1)
    assert_same(resumed, undisturbed)


def test_a_finished_run_resumes_to_its_end(folder: DiskFolder) -> None:
    finished = train(small_run(epochs=2), folder)
    resumed = train(small_run(epochs=2), folder, network=SmallNetwork(seed=9), resume=folder.last)
    assert resumed[2] == []
    assert_same(resumed, finished)


def test_within_an_epoch_only_the_same_order_can_go_on(folder: DiskFolder) -> None:
    train(small_run(epochs=2), folder, stop_at=(1, 2))
    with pytest.raises(
        InputError, match=r"stopped within epoch 1, with .*global_batch 12.* within that epoch with .*global_batch 6"
    ):
        train(small_run(epochs=2, scale__global_batch=6), resume=folder.last)


def test_an_epoch_of_streamed_footage_begins_again_on_another_number_of_workers(folder: DiskFolder) -> None:
    """They see other clips in the steps that are left; so that every clip is seen, all come again."""
    run, streamed = small_run(epochs=2), StreamedFootage(TRAINING, shares=[list(range(41))])
    train(run, folder, footage=streamed, stop_at=(1, 2))
    same, _, updates = train(run, footage=streamed, resume=folder.last)
    assert (updates[0]["epoch"], updates[0]["step"]) == (1, 3)
    state = json.loads((folder.last / "state.json").read_text())
    assert state["order"]["workers"] == 1 and state["step"] == 2
    (folder.last / "state.json").write_text(json.dumps(state | {"order": state["order"] | {"workers": 2}}))
    other, _, updates = train(run, footage=streamed, resume=folder.last)
    assert [(update["epoch"], update["step"]) for update in updates[:2]] == [(1, 1), (1, 2)]
    assert [record["epoch"] for record in other["history"]] == [record["epoch"] for record in same["history"]] == [1, 2]


class Warned(LocalContext):
    """Told that its machine will be taken away, after the steps `notices`."""

    def __init__(self, folder: DiskFolder, *notices: tuple[int, int]) -> None:
        super().__init__(folder, device="cpu", on_progress=self.follow)
        self.notices, self.told = notices, False

    def follow(self, update: dict[str, Any]) -> None:
        self.told = (update["epoch"], update["step"]) in self.notices

    def should_save(self) -> bool:
        told, self.told = self.told, False
        return told


def test_a_notice_saves_within_an_epoch_and_training_goes_on(tmp_path: Path) -> None:
    """After the last step of an epoch too, when there is nothing new to save."""
    run = small_run(epochs=3, **RESUMABLE)
    undisturbed = train(run, DiskFolder(tmp_path / "a"))
    folder, model = DiskFolder(tmp_path / "b"), SmallNetwork(dropout=0.5)
    with Warned(folder, (1, 3), (2, 1), (2, 2)) as ctx:
        batches = ClipBatches(TRAINING, run, rank=0, world_size=1, validation=VALIDATION)
        result = fit(run, ActionTask(run, CLASSES), batches, ctx, None, model=model)
    assert_same((result, model, None), undisturbed)
    assert sorted(path.name for path in folder.path.glob("epoch-*")) == [
        "epoch-0001",
        "epoch-0002",
        "epoch-0002-step-000001",
        "epoch-0002-step-000002",
        "epoch-0003",
    ]
    resumed = train(run, network=SmallNetwork(dropout=0.5, seed=9), resume=folder.path / "epoch-0002-step-000001")
    assert_same(resumed, undisturbed)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_saved_weights_are_those_that_were_judged(folder: DiskFolder, ema: float) -> None:
    run = small_run(epochs=2, optim__ema=ema)
    result, trained, _ = train(run, folder)
    judged = SmallNetwork(dropout=0.5, seed=9)
    load_weights(judged, folder.last / "model.safetensors")
    batches, ctx = ClipBatches(TRAINING, run, rank=0, world_size=1, validation=VALIDATION), LocalContext(device="cpu")
    metrics = validate(judged, ActionTask(run, CLASSES), batches, ctx, precision=Precision("off", ctx.device))
    assert {f"val_{name}": value for name, value in metrics.items()}.items() <= result["history"][-1].items()
    assert torch.equal(judged.classify.weight, trained.classify.weight) == (ema == 0)


def test_patience_ends_a_run_that_gets_no_better(folder: DiskFolder) -> None:
    run = small_run(epochs=9, patience=2, optim__lr=1e-9)
    result, _, _ = train(run, folder)
    assert result["stopped"] == "early" and result["epoch"] == 3 and result["best_epoch"] == 1
    assert folder.tags == {"best": "epoch-0001", "last": "epoch-0003"}
    again, _, updates = train(run, folder, resume=folder.last)
    assert again["stopped"] == "early" and updates == []


def test_mean_class_accuracy_can_choose_the_best() -> None:
    result, _, _ = train(small_run(epochs=3, metric="mean_class_accuracy"))
    assert result["best"] == max(record["val_mean_class_accuracy"] for record in result["history"])


def test_gradients_are_clipped_to_their_norm() -> None:
    plain = {
        "optim__momentum": 0.0,
        "optim__weight_decay": 0.0,
        "optim__warmup_epochs": 0.0,
        "optim__schedule": "constant",
    }
    run = small_run(epochs=1, optim__lr=1.0, optim__clip_norm=0.01, **plain)
    before = nn.utils.parameters_to_vector(SmallNetwork().parameters()).detach()
    _, model, _ = train(run, network=SmallNetwork(), footage=SmallFootage(12))  # a single step
    moved = nn.utils.parameters_to_vector(model.parameters()).detach() - before
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-3)


def test_divergence_is_said_in_a_sentence(folder: DiskFolder) -> None:
    with pytest.raises(
        Diverged, match=r"the loss became (nan|inf) in epoch \d, at step \d+; lower optim.lr \(now 1e\+30\)"
    ):
        train(small_run(optim__lr=1e30), folder)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in _saved(folder).values())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="mixed precision trains on a GPU alone")
def test_bfloat16_trains() -> None:
    result, model, _ = train(small_run(epochs=2, scale__amp="bf16"))
    full, _, _ = train(small_run(epochs=2))
    assert (
        math.isfinite(result["history"][-1]["train_loss"])
        and result["history"][0]["train_loss"] != full["history"][0]["train_loss"]
    )
    assert result["history"][0]["train_loss"] == pytest.approx(full["history"][0]["train_loss"], rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one_does(folder: DiskFolder) -> None:
    compiled, _, _ = train(small_run(epochs=1, scale__compile=True), folder, network=SmallNetwork())
    plain, _, _ = train(small_run(epochs=1), network=SmallNetwork())
    assert compiled["history"][0]["train_loss"] == pytest.approx(plain["history"][0]["train_loss"], rel=1e-4)
    load_weights(SmallNetwork(), folder.last / "model.safetensors")


def _saved(folder: DiskFolder) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    tensors: dict[str, torch.Tensor] = {}
    for tag in set(folder.tags.values()):
        tensors |= load_file(folder.path / tag / "model.safetensors")
    return tensors


def test_a_frozen_network_trains_its_last_layer_alone() -> None:
    model = {"norm": "batch", "width": 0.125, "size": 32, "head": "gap", "frames": 8}
    run = small_run(epochs=2, optim__name="adamw", optim__backbone_lr=0.0, weights="start.safetensors")
    run = run.model_copy(update={"model": replace(run.model, **model)})
    torch.manual_seed(0)
    network = build(run.model)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    train(run, network=network)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.2.weight", "head.2.bias"}
