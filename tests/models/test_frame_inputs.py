"""What networks see of RGB clips, and branches that training leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from posture.config import validate
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, IMPROVED, TorchvisionVideo
from posture.models.evidence import evidence
from posture.models.features import penultimate
from posture.models.frame_inputs import StemConv3d, differences
from posture.models.keyed import KeyedDepth, set_keys
from posture.tasks.action import probabilities

SMALL = {
    "improved": C3D(**IMPROVED | {"classes": 3, "width": 0.125, "size": 24, "frames": 8, "dropout": 0.0}),
    "c3d": C3D(classes=3, width=0.125, size=16, dropout=0.0),
    "s3d": TorchvisionVideo(kind="s3d", classes=3, frames=16, size=32),
    "swin3d_t": TorchvisionVideo(kind="swin3d_t", classes=3, frames=4, size=32),
    "mc3_18": TorchvisionVideo(kind="mc3_18", classes=3, frames=4, size=16),
}
EACH = pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def clips(config: Any, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, config.frames, config.size, config.size)


def test_differences_are_to_the_frame_before() -> None:
    x = torch.randn(2, 3, 4, 5, 6)
    changes = differences(x)
    torch.testing.assert_close(changes[:, :, 1:].cumsum(2) + x[:, :, :1], x[:, :, 1:])
    assert torch.equal(changes[:, :, 0], changes[:, :, 1])


@pytest.mark.parametrize("name", [name for name in SMALL if name != "s3d"])  # a fresh one has no signal at its end
def test_with_differences_alone_what_is_added_to_all_frames_does_not_count(name: str) -> None:
    config = SMALL[name]
    network, x = build(replace(config, input="diff", stochastic_depth=0.0)).train(), clips(config)
    moved = x + torch.randn(2, 3, 1, config.size, config.size)
    torch.testing.assert_close(network(moved), network(x), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(network(x.flip(2)), network(x), rtol=1e-3, atol=1e-5)


@EACH
@pytest.mark.parametrize("kind", ["diff", "both", "late"])
def test_every_input_trains_all_parameters(config: Any, kind: str) -> None:
    network, x = build(replace(config, input=kind)).train(), clips(config, 4)
    for parameter in network.parameters():  # away from the start, where a zero gain lets none through
        parameter.data += 0.02 * torch.randn_like(parameter)
    outputs = network(x)
    assert outputs.shape == ((4, 2, 3) if kind == "late" else (4, 3))
    functional.nll_loss(probabilities(outputs).log(), torch.tensor([0, 1, 2, 0])).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("kind", ["r3d_18", "r2plus1d_18", "s3d", "swin3d_t"])
def test_weights_that_were_trained_on_frames_start_any_input(kind: str) -> None:
    with torch.device("meta"):
        config = TorchvisionVideo(kind=kind, classes=3, frames=16, size=32)
        frames, *others = (build(replace(config, input=input)).state_dict() for input in ("rgb", "diff", "both"))
    shapes = {name: tensor.shape for name, tensor in frames.items()}
    assert all({name: tensor.shape for name, tensor in other.items()} == shapes for other in others)


@pytest.mark.parametrize("bias", [True, False])
def test_filters_on_frames_and_on_differences_are_those_of_the_replaced_convolution(bias: bool) -> None:
    stem, x = nn.Conv3d(3, 5, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2), bias=bias), torch.randn(2, 3, 6, 12, 12)
    both, changes = StemConv3d(stem, "both")(x), StemConv3d(stem, "diff")(x)
    torch.testing.assert_close(changes, stem(differences(x)))
    torch.testing.assert_close(both, torch.cat([stem(x)[:, :2], changes[:, 2:]], dim=1))


@pytest.mark.parametrize("name", ["improved", "c3d"])
def test_half_of_the_stem_of_both_does_not_see_what_stands_still(name: str) -> None:
    config = SMALL[name]
    stem, x = build(replace(config, input="both", stem_motion=0.0)).stage1[0], clips(config)
    seen, moved = stem(x), stem(x + torch.randn(2, 3, 1, config.size, config.size))
    half = config.channels[0] // 2
    torch.testing.assert_close(moved[:, half:], seen[:, half:], rtol=1e-3, atol=1e-5)
    assert not torch.allclose(moved[:, :half], seen[:, :half], rtol=0.1, atol=0.1)


def test_late_fusion_is_two_networks_of_which_each_has_its_input() -> None:
    config = SMALL["improved"]
    network, x = build(replace(config, input="late")).eval(), clips(config)
    outputs = network(x)
    for number, kind in enumerate(("rgb", "diff")):
        alone = build(replace(config, input=kind)).eval()
        alone.load_state_dict(network.streams[kind].state_dict())
        torch.testing.assert_close(alone(x), outputs[:, number])
    with penultimate(network) as taken:
        network(x)
    assert [layer.shape for layer in taken] == [(2, config.channels[-1])] * 2


def test_a_single_frame_has_no_differences() -> None:
    with pytest.raises(ValueError, match="frames must be at least 2 for differences of neighbouring frames, not 1"):
        TorchvisionVideo(frames=1, input="both")


def test_two_stream_has_no_such_field() -> None:
    with pytest.raises(InputError, match=r"input"):
        validate({"name": "x", "model": {"kind": "two_stream", "input": "diff"}})


def test_a_row_keeps_its_branches_in_any_batch() -> None:
    config = replace(SMALL["improved"], stochastic_depth=0.8)
    network, x, keys = build(config).train(), clips(config, 6), np.arange(6) * 77
    set_keys(network, keys)
    whole = network(x)
    set_keys(network, keys[2:5])
    torch.testing.assert_close(network(x[2:5]), whole[2:5])


@pytest.mark.parametrize(
    ("name", "shares", "published"),
    [
        ("improved", [0.2, 0.3, 0.4, 0.5], []),
        ("mc3_18", [0.0625 * n for n in range(1, 9)], []),
        ("swin3d_t", [n / 24 for n in range(1, 13)], [0.1 * n / 11 for n in range(12)]),
    ],
)
def test_later_branches_are_left_out_more_often(name: str, shares: list[float], published: list[float]) -> None:
    network = build(replace(SMALL[name], stochastic_depth=0.5))
    parts = [part.p for part in network.modules() if isinstance(part, KeyedDepth)]
    assert parts == pytest.approx(shares)
    plain = build(SMALL[name])
    assert [part.p for part in plain.modules() if isinstance(part, KeyedDepth)] == pytest.approx(published)
    assert list(plain.state_dict()) == list(network.state_dict())


def test_without_residual_sums_no_branch_can_be_left_out() -> None:
    with pytest.raises(ValueError, match="stochastic_depth needs residual = true"):
        C3D(stochastic_depth=0.2)


@EACH
@pytest.mark.parametrize("kind", ["diff", "both", "late"])
def test_evidence_is_found_with_every_input(config: Any, kind: str) -> None:
    found = evidence(build(replace(config, input=kind)).eval(), [clips(config, 1)], target=1)
    assert {part.stream for part in found.class_maps} == ({0, 1} if kind == "late" else {0})
