"""Attention and group normalisation against the paper's equations, written out here in float64 numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from posture.models.attention import CBAM, STCBAM, ChannelAttention, SpatialAttention, TemporalAttention

N, C, T, H, W = 2, 8, 5, 9, 6


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module: nn.Module) -> nn.Module:
    """In float64, with weights that make every term of the formula matter."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.double().eval()


def features() -> torch.Tensor:
    return torch.randn(N, C, T, H, W, dtype=torch.float64)


def values(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def convolve(maps: np.ndarray, layer: nn.Module) -> np.ndarray:
    """`layer` over the last axes of maps (channels, ...), zero-padded, one output position at a time."""
    kernel, bias = values(layer.weight), values(layer.bias)
    reach = [side // 2 for side in kernel.shape[2:]]
    padded = np.pad(maps, [(0, 0), *((r, r) for r in reach)])
    result = np.zeros((kernel.shape[0], *maps.shape[1:]))
    for place in np.ndindex(*maps.shape[1:]):
        window = padded[(slice(None), *(slice(p, p + side) for p, side in zip(place, kernel.shape[2:], strict=True)))]
        for output in range(kernel.shape[0]):
            result[(output, *place)] = (window * kernel[output]).sum() + bias[output]
    return result


def channel_weights(x: np.ndarray, module: ChannelAttention, pool: str) -> np.ndarray:
    """Equation (1) with the mean over T too, for one sample (C, T, H, W)."""
    first, _, last = module.mlp

    def mlp(vector: np.ndarray) -> np.ndarray:
        return values(last.weight) @ relu(values(first.weight) @ vector + values(first.bias)) + values(last.bias)

    logits = mlp(x.reshape(C, -1).mean(1))
    if pool == "avgmax":
        logits = logits + mlp(x.reshape(C, -1).max(1))
    return sigmoid(logits)[:, None, None, None]


def spatial_weights(x: np.ndarray, module: SpatialAttention, pool: str, per_frame: bool) -> np.ndarray:
    over = (0,) if per_frame else (0, 1)
    maps = [x.mean(over)] + ([x.max(over)] if pool == "avgmax" else [])
    stacked = np.stack(maps) if per_frame else np.stack(maps)[:, None]  # (1 or 2, T or 1, H, W)
    convolutions = [layer for layer in module.mlp if isinstance(layer, nn.Conv3d)]
    for place, layer in enumerate(convolutions):
        stacked = convolve(relu(stacked) if place else stacked, layer)
    return sigmoid(stacked)


def temporal_weights(x: np.ndarray, module: TemporalAttention, pool: str) -> np.ndarray:
    frames = x.transpose(1, 0, 2, 3).reshape(T, -1)
    series = np.stack([frames.mean(1)] + ([frames.max(1)] if pool == "avgmax" else []))
    return sigmoid(convolve(series, module.convolution))[:, :, None, None]


POOLS = pytest.mark.parametrize("pool", ["avg", "avgmax"])


@POOLS
def test_channel_attention_is_equation_1(pool: str):
    module, x = randomised(ChannelAttention(C, pool=pool, reduction=2)), features()
    expected = np.stack([channel_weights(sample, module, pool) for sample in x.numpy()])
    weights = module(x)
    assert weights.shape == (N, C, 1, 1, 1)
    np.testing.assert_allclose(weights.detach(), expected, rtol=1e-12)


@POOLS
@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("hidden", [None, 3])
def test_spatial_attention_is_equation_2(pool: str, per_frame: bool, hidden: int | None):
    module, x = randomised(SpatialAttention(pool=pool, per_frame=per_frame, hidden=hidden)), features()
    expected = np.stack([spatial_weights(sample, module, pool, per_frame) for sample in x.numpy()])
    weights = module(x)
    assert weights.shape == (N, 1, T if per_frame else 1, H, W)
    np.testing.assert_allclose(weights.detach(), expected, rtol=1e-12)


@POOLS
def test_temporal_attention_weighs_frames(pool: str):
    module, x = randomised(TemporalAttention(pool=pool)), features()
    expected = np.stack([temporal_weights(sample, module, pool) for sample in x.numpy()])
    weights = module(x)
    assert weights.shape == (N, 1, T, 1, 1)
    np.testing.assert_allclose(weights.detach(), expected, rtol=1e-12)


@POOLS
@pytest.mark.parametrize("per_frame", [False, True])
def test_stcbam_is_equations_14_to_16_in_order(pool: str, per_frame: bool):
    module, x = randomised(STCBAM(C, pool=pool, reduction=2, per_frame=per_frame)), features()
    expected = []
    for sample in x.numpy():
        f1 = channel_weights(sample, module.channel, pool) * sample  # (14)
        f2 = spatial_weights(f1, module.spatial, pool, per_frame) * f1  # (15)
        expected.append(temporal_weights(f2, module.temporal, pool) * f2)  # (16)
    np.testing.assert_allclose(module(x).detach(), np.stack(expected), rtol=1e-12)


def test_cbam_of_an_image_is_equations_1_and_2():
    module = randomised(CBAM(C, reduction=2, hidden=4))
    images = torch.randn(N, C, 1, H, W, dtype=torch.float64)
    expected = []
    for sample in images.numpy():
        f1 = channel_weights(sample, module.channel, "avg") * sample
        expected.append(spatial_weights(f1, module.spatial, "avg", False) * f1)
    np.testing.assert_allclose(module(images).detach(), np.stack(expected), rtol=1e-12)


@POOLS
@pytest.mark.parametrize(("block", "gates"), [(CBAM, 2), (STCBAM, 3)])
def test_fresh_attention_lets_nearly_everything_through(block: type[nn.Module], gates: int, pool: str):
    x = torch.randn(N, 64, T, H, W).relu() + 0.1
    passed = (block(64, pool=pool)(x) / x).detach()
    open_gate = sigmoid(np.array(3.0)) ** gates  # 0.86 for three
    assert passed.min() > open_gate - 0.05 and passed.max() < open_gate + 0.05


@pytest.mark.parametrize("groups", [1, 2, 4, 8])
def test_torch_group_norm_is_equations_10_to_13(groups: int):
    eps, x = 0.3, features()  # an eps large enough to tell inside the root from outside it
    norm = nn.GroupNorm(groups, C, eps=eps).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = np.empty(x.shape)
    for sample in range(N):  # k_N = i_N: one sample at a time
        for channel in range(C):
            same = [k for k in range(C) if k // (C // groups) == channel // (C // groups)]  # (13)
            members = x.numpy()[sample, same]
            mean = members.mean()
            sigma = np.sqrt(((members - mean) ** 2).mean() + eps)  # (10)
            normalised = (x.numpy()[sample, channel] - mean) / sigma  # (11)
            expected[sample, channel] = norm.weight[channel].item() * normalised + norm.bias[channel].item()  # (12)
    np.testing.assert_allclose(norm(x).detach(), expected, rtol=1e-10, atol=1e-12)
