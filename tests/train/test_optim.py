"""Optimiser, schedule, average, precision."""

from __future__ import annotations

import copy
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from posture.config import Optim
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, IMPROVED, TorchvisionVideo, TwoStream
from posture.models.detector_configs import IMPROVED_YOLOV5, SSD300, FasterRCNN, YOLOv5, YOLOv7
from posture.models.meta import build_on_meta, class_tensors
from posture.train.optim import (
    Average,
    Precision,
    average_decay,
    build_optimizer,
    layer_rates,
    learning_rate,
    set_learning_rate,
)
from tests.support.small_run import SmallNetwork


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_norms_and_biases_are_spared_weight_decay(name: str) -> None:
    model = SmallNetwork()
    decay = {}
    for group in build_optimizer(model, Optim(name=name, weight_decay=0.1)).param_groups:
        decay |= {parameter: group["weight_decay"] for parameter in group["params"]}
    assert {name: decay[parameter] for name, parameter in model.named_parameters()} == {
        "convolution.weight": 0.1,
        "convolution.bias": 0,
        "norm.weight": 0,
        "norm.bias": 0,
        "classify.weight": 0.1,
        "classify.bias": 0,
    }


@pytest.mark.parametrize(
    ("config", "spared"),
    [
        (C3D(**IMPROVED), r"\.gain"),
        (C3D(), None),
        (TwoStream(), None),
        (SSD300(), None),
        (FasterRCNN(), None),
        (YOLOv5(), None),
        (YOLOv5(**IMPROVED_YOLOV5), r"\.scale\.logarithm|\.position_bias\.mlp\.\d\.weight"),
        (YOLOv7(), r"head\.levels\.\d\.(added|factor)"),
    ],
    ids=["improved c3d", "c3d", "two_stream", "ssd300", "fasterrcnn", "yolov5", "improved yolov5", "yolov7"],
)
def test_what_weighs_something_else_is_spared_too(config: object, spared: str | None) -> None:
    """Of parameters with more than one dimension: filters and matrices decay, gains, temperatures and the position
    network do not.
    """
    with torch.device("meta"):
        network = build(config)
    groups = build_optimizer(network, Optim(name="adamw", weight_decay=0.1)).param_groups
    kept = {id(parameter) for group in groups if not group["weight_decay"] for parameter in group["params"]}
    wide = {name: id(parameter) in kept for name, parameter in network.named_parameters() if parameter.ndim > 1}
    expected = {name: spared is not None and bool(re.search(rf"({spared})$", name)) for name in wide}
    assert wide == expected and any(wide.values()) == (spared is not None)
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))


def test_a_frozen_network_part_is_left_alone() -> None:
    model = SmallNetwork()
    model.convolution.requires_grad_(False)
    trained = [parameter for group in build_optimizer(model, Optim()).param_groups for parameter in group["params"]]
    assert not any(parameter is model.convolution.weight for parameter in trained) and len(trained) == 4


@pytest.mark.parametrize(
    ("config", "last"),
    [
        (C3D(**IMPROVED), ["head.2.bias", "head.2.weight"]),
        (TorchvisionVideo(kind="s3d"), ["classifier.1.bias", "classifier.1.weight"]),
        (TorchvisionVideo(kind="mvit_v2_s", size=224), ["head.1.bias", "head.1.weight"]),
        (TorchvisionVideo(kind="swin3d_t"), ["head.bias", "head.weight"]),
        (YOLOv5(), [f"head.levels.{level}.{name}" for level in range(3) for name in ("bias", "weight")]),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_the_last_layer_is_the_one_whose_size_depends_on_the_classes(config: object, last: list[str]) -> None:
    assert sorted(class_tensors(config)) == last


def test_rates_fall_block_by_block_towards_the_input() -> None:
    config = TorchvisionVideo(kind="r3d_18")
    network, last = build_on_meta(config), class_tensors(config)
    optim = Optim(name="adamw", lr=0.01, backbone_lr=0.5, layer_decay=0.8)
    rates = layer_rates(network, optim, last=last)
    blocks = ["stem.0", "stem.1", *(f"layer{stage}.{block}" for stage in range(1, 5) for block in range(2))]
    expected = {block: 0.5 * 0.8 ** (9 - number) for number, block in enumerate(blocks)} | {"fc": 1.0}
    assert {
        name: rate for name, rate in rates.items() if rate != expected[name.rsplit(".", 1)[0][:8].rstrip(".")]
    } == {}
    optimizer = build_optimizer(network, optim, last=last)
    set_learning_rate(optimizer, 0.002)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    found = {names[id(one)]: group["lr"] for group in optimizer.param_groups for one in group["params"]}
    assert found == {name: pytest.approx(0.002 * rate) for name, rate in rates.items()}


@pytest.mark.parametrize(
    ("config", "attention"),
    [
        (YOLOv5(**IMPROVED_YOLOV5), r"attend_out[345]\.|stage4\.m\."),
        (YOLOv5(), None),
        (YOLOv7(), None),
        (SSD300(), None),
        (FasterRCNN(), None),
        (C3D(**IMPROVED), r"\.channel\.|\.spatial\.|\.temporal\."),
    ],
    ids=["improved yolov5", "yolov5", "yolov7", "ssd300", "fasterrcnn", "improved c3d"],
)
def test_each_part_has_its_own_rate_and_every_parameter_one(config: object, attention: str | None) -> None:
    network, last = build_on_meta(config), class_tensors(config)
    optim = Optim(name="adamw", lr=0.1, head_lr=2.0, attention_lr=3.0, backbone_lr=5.0)
    groups = build_optimizer(network, optim, last=last).param_groups
    every = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(every) == sorted(id(parameter) for parameter in network.parameters())
    rates = {id(parameter): group["rate"] for group in groups for parameter in group["params"]}
    found = {name: rates[id(parameter)] for name, parameter in network.named_parameters()}
    attends = {name for name in found if attention and re.search(attention, name)}
    assert bool(attends) == bool(attention)
    assert found == {name: 2.0 if name in last else 15.0 if name in attends else 5.0 for name in found}


@given(st.floats(0.0, 0.9999), st.floats(0.0, 1.0), st.integers(1, 100_000))
def test_the_average_looks_back_over_its_share_of_the_steps(ema: float, share: float, steps: int) -> None:
    decay = average_decay(Optim(ema=ema, ema_horizon=share), steps=steps)
    assert 0.0 <= decay <= ema
    if share * steps >= 1 and decay < ema:
        assert 1 / (1 - decay) == pytest.approx(share * steps)
    assert decay == ema or 0 < share * steps < 1 / (1 - ema) * (1 + 1e-9)


def test_a_horizon_by_hand() -> None:
    """A tenth of 400 steps are 40, whose decay is 1 - 1 / 40; of 40,000 steps they are more than 0.999 looks back."""
    optim = Optim(ema=0.999, ema_horizon=0.1)
    assert average_decay(optim, steps=400) == pytest.approx(0.975)
    assert average_decay(optim, steps=40_000) == average_decay(Optim(ema=0.999), steps=400) == 0.999
    assert average_decay(optim, steps=5) == average_decay(Optim(ema_horizon=0.1), steps=400) == 0.0


def test_the_two_streams_lie_side_by_side() -> None:
    config = TwoStream(backbone="resnet18")
    rates = layer_rates(build_on_meta(config), Optim(layer_decay=0.5), last=class_tensors(config))
    streams = [
        {name.split(".", 2)[2]: rate for name, rate in rates.items() if f".{one}." in name} for one in ("rgb", "flow")
    ]
    assert streams[0] == streams[1] and len(set(streams[0].values())) > 4


def test_the_rate_warms_up_then_follows_half_a_cosine() -> None:
    optim = Optim(lr=0.4, warmup_epochs=2)
    rates = [learning_rate(step, optim=optim, steps_per_epoch=10, epochs=6) for step in range(60)]
    assert rates[0] == pytest.approx(0.02) and rates[19] == pytest.approx(0.4) and rates[20] == pytest.approx(0.4)
    assert rates[40] == pytest.approx(0.2)  # halfway down
    assert rates[59] < 0.001
    assert learning_rate(59, optim=Optim(lr=0.4, schedule="constant"), steps_per_epoch=10, epochs=6) == 0.4


@given(st.integers(1, 20), st.integers(1, 20), st.floats(0, 30), st.sampled_from(["cosine", "constant"]))
def test_the_rate_is_always_within_bounds(
    steps_per_epoch: int, epochs: int, warmup_epochs: float, schedule: str
) -> None:
    optim = Optim(lr=0.1, warmup_epochs=warmup_epochs, schedule=schedule)
    for step in range(steps_per_epoch * epochs):
        assert 0 < learning_rate(step, optim=optim, steps_per_epoch=steps_per_epoch, epochs=epochs) <= 0.1


def test_the_average_follows_its_recurrence() -> None:
    model = torch.nn.BatchNorm1d(3)
    average = Average(model, decay=0.5)
    expected = model.weight.detach().double().clone()
    for step in range(12):
        with torch.no_grad():
            model.weight.copy_(torch.randn(3, generator=torch.Generator().manual_seed(step)))
        model(torch.randn(4, 3))
        average.update(model, step=step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
    torch.testing.assert_close(average.model.weight.double(), expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(average.model.running_mean, model.running_mean) and int(average.model.num_batches_tracked) == 12
    assert not average.model.training and not average.model.weight.requires_grad and model.weight.requires_grad


def test_precision_on_the_cpu() -> None:
    network = copy.deepcopy(SmallNetwork())
    cpu = torch.device("cpu")
    for amp in ("auto", "off"):
        with Precision(amp, cpu).autocast():
            assert network(torch.zeros(1, 3, 8, 16, 16)).dtype == torch.float32
    for amp in ("bf16", "fp16"):
        with pytest.raises(InputError, match=f"{amp} needs a GPU"):
            Precision(amp, cpu)
