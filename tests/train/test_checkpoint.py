"""What is saved comes back; what does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from posture.config import Optim
from posture.errors import InputError
from posture.train import checkpoint
from posture.train.optim import Average, build_optimizer
from tests.support.small_run import SmallNetwork


def trained(name: str, *, seed: int = 0, steps: int = 3) -> tuple[SmallNetwork, torch.optim.Optimizer, Average]:
    model = SmallNetwork(seed=seed)
    optimizer, average = build_optimizer(model, Optim(name=name, lr=0.01)), Average(model, decay=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 16, 16, generator=torch.Generator().manual_seed(step))).square().sum().backward()
        optimizer.step()
        average.update(model, step=step)
    return model, optimizer, average


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("averaged", [True, False])
def test_round_trip(tmp_path: Path, name: str, averaged: bool) -> None:
    model, optimizer, average = trained(name)
    checkpoint.save(
        tmp_path,
        model=model,
        average=average.model if averaged else None,
        optimizer=optimizer,
        state={"epoch": 3, "x": 0.1},
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "state.json", "train.safetensors"]
    other, other_optimizer, other_average = trained(name, seed=1, steps=0)
    state = checkpoint.load(
        tmp_path, model=other, average=other_average.model if averaged else None, optimizer=other_optimizer
    )
    assert state["epoch"] == 3 and state["x"] == 0.1
    for ours, theirs in ((model, other), (average.model, other_average.model)) if averaged else ((model, other),):
        assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in ours.state_dict().items())
    before, after = optimizer.state_dict()["state"], other_optimizer.state_dict()["state"]
    assert before.keys() == after.keys() and len(before) == 6
    assert all(torch.equal(before[index][key], after[index][key]) for index in before for key in before[index])


def test_weights_for_evaluation_are_the_average(tmp_path: Path) -> None:
    model, optimizer, average = trained("sgd")
    checkpoint.save(tmp_path, model=model, average=average.model, optimizer=optimizer, state={})
    fresh = SmallNetwork(seed=5)
    checkpoint.load_weights(fresh, tmp_path / "model.safetensors")
    assert torch.equal(fresh.classify.weight, average.model.classify.weight)
    assert not torch.equal(fresh.classify.weight, model.classify.weight)


def test_another_memory_layout_is_stored_and_restored(tmp_path: Path) -> None:
    model, optimizer, _ = trained("sgd")
    model = model.to(memory_format=torch.channels_last_3d)
    checkpoint.save(tmp_path, model=model, average=None, optimizer=optimizer, state={})
    fresh = SmallNetwork(seed=5)
    checkpoint.load_weights(fresh, tmp_path / "model.safetensors")
    assert torch.equal(fresh.convolution.weight, model.convolution.weight)


def test_a_mismatch_names_the_tensor_and_changes_nothing(tmp_path: Path) -> None:
    model, optimizer, average = trained("sgd")
    checkpoint.save(tmp_path, model=model, average=None, optimizer=optimizer, state={})
    path = tmp_path / "model.safetensors"

    wider = SmallNetwork()
    wider.classify = nn.Linear(48, 4)
    before = wider.convolution.weight.clone()
    with pytest.raises(
        InputError, match=r"tensor classify.weight has shape \[3, 48\], but this network needs \[4, 48\]"
    ):
        checkpoint.load_weights(wider, path)
    assert torch.equal(wider.convolution.weight, before)

    longer = SmallNetwork()
    longer.extra = nn.Linear(2, 2)
    with pytest.raises(InputError, match=r"has no tensor extra.weight"):
        checkpoint.load_weights(longer, path)
    shorter = SmallNetwork()
    shorter.norm = nn.Identity()
    with pytest.raises(InputError, match=r"has a tensor norm.bias, which this network lacks"):
        checkpoint.load_weights(shorter, path)

    with pytest.raises(InputError, match=r"no moving average of the weights, but optim.ema asks for one"):
        checkpoint.load(tmp_path, model=model, average=average.model, optimizer=optimizer)
    with pytest.raises(InputError, match=r"trained with SGD, but optim.name now asks for AdamW"):
        checkpoint.load(tmp_path, model=model, average=None, optimizer=build_optimizer(model, Optim(name="adamw")))

    tensors = load_file(tmp_path / "train.safetensors")
    tensors["optimizer/classify.bias/momentum_buffer"] = torch.zeros(9)
    save_file(tensors, tmp_path / "train.safetensors")
    with pytest.raises(
        InputError, match=r"optimizer/classify.bias/momentum_buffer has shape \[9\], but its parameter has \[3\]"
    ):
        checkpoint.load(tmp_path, model=model, average=None, optimizer=optimizer)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    model, optimizer, _ = trained("sgd")
    with pytest.raises(InputError, match=r"is no checkpoint: it has no state.json"):
        checkpoint.load(tmp_path, model=model, average=None, optimizer=optimizer)
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state.json is damaged"):
        checkpoint.read_state(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps({"optimizer": "SGD"}))
    with pytest.raises(InputError, match=r"there is no file .*train.safetensors"):
        checkpoint.load(tmp_path, model=model, average=None, optimizer=optimizer)
    (tmp_path / "train.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"train.safetensors is damaged"):
        checkpoint.load(tmp_path, model=model, average=None, optimizer=optimizer)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_and_leave_the_network(tmp_path: Path, value: float) -> None:
    model, optimizer, average = trained("sgd")
    checkpoint.save(tmp_path, model=model, average=average.model, optimizer=optimizer, state={"epoch": 3})
    tensors = load_file(tmp_path / checkpoint.MODEL)
    name = next(name for name, tensor in tensors.items() if tensor.is_floating_point())
    tensors[name].view(-1)[0] = value
    save_file(tensors, tmp_path / checkpoint.MODEL)
    other = SmallNetwork(seed=1)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(InputError, match=rf"model.safetensors: tensor {name} holds numbers that are not finite"):
        checkpoint.load_weights(other, tmp_path / checkpoint.MODEL)
    assert all(torch.equal(tensor, before[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "7",
        "{",
        '{"epoch": -1}',
        '{"epoch": "3"}',
        '{"history": [7]}',
        '{"best": "x"}',
        "[" * 100_000,
        '{"epoch": ' + "9" * 5000 + "}",
        '{"optimizer": null}',
        '{"scaler": []}',
        "\0",
    ],
)
def test_a_state_of_odd_content_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / checkpoint.STATE).write_text(content)
    with pytest.raises(InputError, match=r"state\.json is damaged") as told:
        checkpoint.read_state(tmp_path)
    assert "\n" not in str(told.value)


def test_a_state_that_lacks_a_field_is_refused(tmp_path: Path) -> None:
    model, optimizer, average = trained("sgd")
    checkpoint.save(tmp_path, model=model, average=average.model, optimizer=optimizer, state={"epoch": 3})
    (tmp_path / checkpoint.STATE).write_text("{}")
    with pytest.raises(InputError, match="the field 'optimizer' is missing"):
        checkpoint.load(tmp_path, model=model, average=average.model, optimizer=optimizer)
