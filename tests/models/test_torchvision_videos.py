"""torchvision's video networks: published sizes, any clip, gradients, and names that torchvision's weights have."""

from __future__ import annotations

import sys
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from posture.errors import InputError
from posture.models import build
from posture.models.configs import TorchvisionVideo
from posture.models.keyed import Keyed, KeyedDropout
from posture.models.summary import gmacs, parameters, table

pytestmark = pytest.mark.long

RESNETS = ("r3d_18", "mc3_18", "r2plus1d_18")
KINDS = (*RESNETS, "s3d", "swin3d_t")
"""Those that take clips of any size."""


@pytest.mark.parametrize(
    ("kind", "millions", "cost"), [("r3d_18", 33.22, 40.697), ("mc3_18", 11.54, 43.343), ("r2plus1d_18", 31.35, 40.519)]
)
def test_published_size_and_cost(kind: str, millions: float, cost: float):
    (row,) = table({kind: TorchvisionVideo(kind=kind, classes=101)})
    assert row["parameters"] / 1e6 == pytest.approx(millions, abs=0.005)
    with torch.device("meta"):
        kinetics = build(TorchvisionVideo(kind=kind, classes=400))
    # published for 400 classes, a share of 0.0002 in the last layer
    assert gmacs(kinetics) == pytest.approx(cost, abs=1e-3)
    assert row["gmacs_112"] == pytest.approx(cost, abs=1e-3)


@pytest.mark.parametrize(
    ("kind", "millions", "cost"), [("s3d", 8.320, 17.979), ("mvit_v2_s", 34.538, 64.224), ("swin3d_t", 28.158, 43.882)]
)
def test_published_size_and_cost_at_224(kind: str, millions: float, cost: float):
    with torch.device("meta"):
        kinetics = build(TorchvisionVideo(kind=kind, classes=400, size=224))
    assert parameters(kinetics) / 1e6 == pytest.approx(millions, abs=5e-4)
    assert gmacs(kinetics, 16, 224) == pytest.approx(cost, abs=1e-3)


def test_a_network_of_one_size_has_no_cost_at_others():
    (row,) = table({"mvit": TorchvisionVideo(kind="mvit_v2_s", size=224)})
    assert row["parameters"] > 34_000_000 and row["gmacs_112"] is None and row["gmacs_56"] is None


def test_parameters_of_r3d_18_add_up():
    """A stem of 3x7x7, sixteen 3x3x3 convolutions, three projections, a gain and a bias for each norm, the classes."""
    widths = (64, 128, 256, 512)
    convolutions = 3 * 64 * 147 + sum(27 * width * width * 3 for width in widths) + 27 * 64 * 64
    convolutions += sum(27 * narrow * wide + narrow * wide for narrow, wide in pairwise(widths))
    norms = 2 * (64 + sum(4 * width for width in widths) + sum(widths[1:]))
    with torch.device("meta"):
        assert parameters(build(TorchvisionVideo(classes=101))) == convolutions + norms + 512 * 101 + 101


@pytest.mark.parametrize("kind", [*KINDS, "mvit_v2_s"])
def test_names_are_torchvisions_with_dropout_too(kind: str):
    from torchvision.models import video

    with torch.device("meta"):
        published = getattr(video, kind)(weights=None, num_classes=400)
        network = build(TorchvisionVideo(kind=kind, classes=400, dropout=0.3, size=224))
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == {
        name: tensor.shape for name, tensor in published.state_dict().items()
    }
    assert [module.p for module in network.modules() if isinstance(module, KeyedDropout)] == [0.3]
    drawn = [module for module in network.modules() if isinstance(module, nn.Dropout) and module.p]
    assert all(isinstance(module, Keyed) for module in drawn)
    assert not any(type(module).__name__ == "StochasticDepth" for module in network.modules())


@pytest.mark.parametrize(("kind", "size"), [("s3d", 224), ("swin3d_t", 64)])
def test_scores_are_torchvisions_with_its_weights(kind: str, size: int):
    from torchvision.models import video

    torch.manual_seed(0)
    published = getattr(video, kind)(weights=None, num_classes=5).eval()
    network = build(TorchvisionVideo(kind=kind, classes=5, size=size)).eval()
    network.load_state_dict(published.state_dict())
    clips = torch.randn(1, 3, 16, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(network(clips), published(clips))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter(kind: str):
    torch.manual_seed(0)
    frames, size = {"s3d": (14, 32), "swin3d_t": (4, 32)}.get(kind, (4, 16))
    network = build(TorchvisionVideo(kind=kind, classes=3, frames=frames, size=size))
    logits = network(torch.randn(3, 3, frames, size, size))
    assert logits.shape == (3, 3)
    functional.cross_entropy(logits, torch.tensor([0, 1, 2])).backward()
    missing = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert missing == []


@pytest.mark.parametrize(("frames", "size"), [(1, 16), (32, 56), (16, 112)])
def test_any_clip_size(frames: int, size: int):
    with torch.device("meta"):
        network = build(TorchvisionVideo(kind="r2plus1d_18", classes=5, frames=frames, size=size))
        assert network(torch.empty(2, 3, frames, size, size)).shape == (2, 5)


def test_a_machine_without_torchvision_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(
        InputError, match=r"model.kind 'mc3_18' is torchvision's, which cannot be imported: .*torchvision"
    ):
        build(TorchvisionVideo(kind="mc3_18"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "r3d_34"}, "kind must be one of 'r3d_18', .* 's3d', 'mvit_v2_s', 'swin3d_t', not 'r3d_34'"),
        ({"kind": "s3d", "frames": 13}, "frames must be at least 14 with s3d, not 13"),
        ({"kind": "s3d", "size": 16}, "size must be at least 32 pixels with s3d, not 16"),
        ({"kind": "mvit_v2_s", "size": 224, "frames": 32}, "exactly 16 frames of 224 pixels.*not 32 of 224; set model"),
        ({"classes": 0}, "classes must be a finite number greater than 0, not 0"),
        ({"frames": 0}, "frames must be a finite number greater than 0, not 0"),
        ({"size": 8}, "size must be at least 16 pixels with r3d_18, not 8"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1, not 1.0"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        TorchvisionVideo(**changes)


def test_a_few_steps_of_its_recipe_learn_one_batch():
    from posture.runs.recipes import load_recipe
    from posture.train.optim import build_optimizer

    torch.manual_seed(0)
    network = build(TorchvisionVideo(kind="mc3_18", classes=4, frames=4, size=16)).train()
    optimizer = build_optimizer(network, load_recipe("jobs/action.py:mc3_18").optim)
    clips, labels = torch.randn(8, 3, 4, 16, 16), torch.arange(8) % 4
    losses = []
    for _ in range(15):
        loss = functional.cross_entropy(network(clips), labels)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[0] > 1.0 and losses[-1] < 0.1
