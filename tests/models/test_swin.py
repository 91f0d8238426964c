"""Swin-v2 blocks against the paper's formulas, written out here in float64 numpy for one cell at a time, with the
published cyclic shift.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from posture.models import swin
from posture.models.fuse import fuse
from posture.models.swin import PositionBias, SwinBlock, SwinStage, WindowAttention


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """What networks compute when they are built is exact too."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(module: nn.Module) -> nn.Module:
    """With weights that make every term of the formula matter."""
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, mean=1.0 if "logarithm" in name else 0.0, std=0.5)
    return module.eval()


def values(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def linear(x: np.ndarray, layer: nn.Linear) -> np.ndarray:
    return x @ values(layer.weight).T + (values(layer.bias) if layer.bias is not None else 0)


def norm(x: np.ndarray, layer: nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + layer.eps) * values(layer.weight) + values(
        layer.bias
    )


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def published_windows(length: int, window: int, shift: int) -> list[tuple[int, int]]:
    """For each of `length` positions on one axis: its window after the cyclic shift, and its region there (0, 1, 2; Liu
    2021a, section 3.2).
    """
    padded = -(-length // window) * window
    if length <= window:
        return [(0, 0)] * length
    rolled = [(position - shift) % padded for position in range(length)]
    return [
        (place // window, int(place >= padded - window) + int(place >= padded - shift) if shift else 0)
        for place in rolled
    ]


def attention(x: np.ndarray, module: WindowAttention, window: int, shift: int, heads: int) -> np.ndarray:
    """Section 3.3 for one image (H, W, C): cell by cell, over the cells of its own window and region."""
    height, width, channels = x.shape
    layer = module.queries_keys_values
    bias = np.concatenate([values(layer.query_bias), np.zeros(channels), values(layer.value_bias)])
    parts = (x @ values(layer.weight).T + bias).reshape(height, width, 3, heads, channels // heads)
    scales = np.minimum(np.exp(values(module.scale.logarithm)), 100.0)[:, 0, 0]
    rows, columns = published_windows(height, window, shift), published_windows(width, window, shift)
    cells = list(itertools.product(range(height), range(width)))
    result = np.zeros((height, width, heads, channels // heads))
    for (row, column), head in itertools.product(cells, range(heads)):
        seen = [cell for cell in cells if (rows[cell[0]], columns[cell[1]]) == (rows[row], columns[column])]
        logits = []
        for cell in seen:
            query, key = parts[row, column, 0, head], parts[(*cell, 1, head)]
            cosine = query @ key / (np.linalg.norm(query) * np.linalg.norm(key))
            logits.append(
                cosine * scales[head]
                + position_bias(row - cell[0], column - cell[1], module.position_bias, window)[head]
            )
        weights = np.exp(np.array(logits) - max(logits))
        weights /= weights.sum()
        result[row, column, head] = sum(
            weight * parts[(*cell, 2, head)] for weight, cell in zip(weights, seen, strict=True)
        )
    return linear(result.reshape(height, width, channels), module.projection)


def position_bias(rows: int, columns: int, module: PositionBias, window: int) -> np.ndarray:
    """Equations (3) and (4), scaled as published to -8..8 before the logarithm and to 0..16 behind the network;
    (heads,).
    """
    first, _, last = module.mlp
    apart = np.array([rows, columns]) * 8 / (window - 1)
    spaced = np.sign(apart) * np.log2(1 + np.abs(apart)) / np.log2(8)
    return 16 / (1 + np.exp(-linear(np.maximum(linear(spaced, first), 0), last)))


@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (4, 4), (3, 2), (5, 7), (9, 3), (1, 13), (8, 4)])
def test_window_attention(height: int, width: int, shifted: bool):
    window, heads = 4, 2
    module = randomised(WindowAttention(8, heads=heads, window=window, shift=window // 2 if shifted else 0))
    module.scale.logarithm.data[1] = 9.0  # beyond the limit
    x = torch.randn(2, height, width, 8)
    result = module(x)
    for image in range(2):
        wanted = attention(x[image].numpy(), module, window, window // 2 if shifted else 0, heads)
        np.testing.assert_allclose(values(result[image]), wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("window", [2, 3, 5])
def test_any_window_and_shift(window: int):
    module = randomised(WindowAttention(4, heads=1, window=window, shift=window // 2))
    x = torch.randn(1, 7, 6, 4)
    np.testing.assert_allclose(
        values(module(x)[0]), attention(x[0].numpy(), module, window, window // 2, 1), rtol=1e-9, atol=1e-9
    )


def test_a_stage_is_a_plain_and_a_shifted_block_normalised_after_each_branch():
    stage = randomised(SwinStage(8, window=4, mlp_ratio=3.0))
    x = torch.randn(1, 8, 6, 9)
    wanted = x[0].permute(1, 2, 0).numpy()
    for block, shift in zip(stage.blocks, (0, 2), strict=True):
        wanted = wanted + norm(attention(wanted, block.attention, 4, shift, 1), block.attention_norm)
        wanted = wanted + norm(linear(gelu(linear(wanted, block.mlp[0])), block.mlp[2]), block.mlp_norm)
    np.testing.assert_allclose(values(stage(x)[0]).transpose(1, 2, 0), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 8), (12, 8)])
def test_a_block_is_torchvisions(height: int, width: int, shift: int):
    """With its weights, on maps that are multiples of the window: torchvision lets padding be attended to."""
    theirs = pytest.importorskip("torchvision.models.swin_transformer").SwinTransformerBlockV2
    own = randomised(SwinBlock(64, window=4, shift=shift, mlp_ratio=2.0))
    block = theirs(64, 2, window_size=[4, 4], shift_size=[shift, shift], mlp_ratio=2.0).double().eval()
    layer = own.attention.queries_keys_values
    weights = {
        "attn.qkv.weight": layer.weight,
        "attn.qkv.bias": torch.cat([layer.query_bias, torch.zeros(64), layer.value_bias]),
        "attn.logit_scale": own.attention.scale.logarithm,
        **{f"attn.cpb_mlp.{name}": tensor for name, tensor in own.attention.position_bias.mlp.state_dict().items()},
        **{f"attn.proj.{name}": tensor for name, tensor in own.attention.projection.state_dict().items()},
        **{f"norm1.{name}": tensor for name, tensor in own.attention_norm.state_dict().items()},
        **{f"norm2.{name}": tensor for name, tensor in own.mlp_norm.state_dict().items()},
        "mlp.0.weight": own.mlp[0].weight,
        "mlp.0.bias": own.mlp[0].bias,
        "mlp.3.weight": own.mlp[2].weight,
        "mlp.3.bias": own.mlp[2].bias,
    }
    tables = {name: tensor for name, tensor in block.state_dict().items() if "relative" in name}
    block.load_state_dict(weights | tables)
    x = torch.randn(2, height, width, 64)
    with torch.no_grad():
        torch.testing.assert_close(own(x), block(x), rtol=1e-5, atol=1e-5)  # its tables are float32


@pytest.mark.parametrize("content", [1e4, -1e4])
def test_what_padding_holds_does_not_matter(content: float, monkeypatch: pytest.MonkeyPatch):
    stage = randomised(SwinStage(8, window=4))
    x = torch.randn(2, 8, 6, 9)
    wanted = stage(x)
    monkeypatch.setattr(swin.functional, "pad", pad_of(functional.pad, content))
    torch.testing.assert_close(stage(x), wanted, rtol=1e-12, atol=1e-12)


def pad_of(pad, content: float):
    """`pad` that fills with `content` where it was asked for nothing in particular."""
    return lambda tensor, sides, value=content: pad(tensor, sides, value=value)


def test_a_fresh_stage_is_the_identity():
    x = torch.randn(2, 64, 10, 20)
    assert torch.equal(SwinStage(64)(x), x)


def test_a_map_of_one_cell_gives_its_value():
    module = randomised(WindowAttention(8, heads=2, window=8, shift=4))
    x = torch.randn(3, 1, 1, 8)
    torch.testing.assert_close(module(x), module.projection(module.queries_keys_values(x)[..., 16:]))


def test_queries_and_keys_of_zeros_are_finite():
    module = WindowAttention(8, heads=2, window=4, shift=2)
    nn.init.zeros_(module.queries_keys_values.weight)
    x = torch.randn(1, 6, 6, 8, requires_grad=True)
    module(x).sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    torch.testing.assert_close(fuse(module)(x), module(x))


def test_images_of_a_batch_do_not_meet():
    stage = randomised(SwinStage(8, window=4))
    x = torch.randn(3, 8, 6, 7)
    torch.testing.assert_close(stage(x)[1:2], stage(x[1:2]), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (5, 6), (13, 10)])
def test_gradients_reach_every_parameter(height: int, width: int):
    stage = randomised(SwinStage(16, window=4)).train()
    stage(torch.randn(2, 16, height, width)).square().sum().backward()
    assert [
        name
        for name, parameter in stage.named_parameters()
        if not (parameter.grad.isfinite().all() and parameter.grad.any())
    ] == []


def test_masks_kept_from_inference_serve_training():
    stage = SwinStage(16, window=4)
    x = torch.randn(1, 16, 6, 11)
    swin.padding_bias.cache.cache_clear()
    with torch.inference_mode():
        stage(x)
    stage(x).sum().backward()
    assert swin.padding_bias.cache.cache_info().hits >= 1


def test_weights_fit_every_size_and_nothing_is_stored_for_one():
    """The state dict depends on the network alone: index tables and masks are made."""
    stage = SwinStage(16, window=4)
    stage(torch.randn(1, 16, 6, 11))
    assert set(stage.state_dict()) == {name for name, _ in stage.named_parameters()}


@pytest.mark.parametrize(("channels", "heads"), [(256, 8), (128, 4), (64, 2), (32, 1), (8, 1), (156, 4), (100, 2)])
def test_heads_have_at_least_32_channels_and_divide_them(channels: int, heads: int):
    assert SwinBlock(channels, window=4, shift=0, mlp_ratio=2.0).attention.heads == heads


@pytest.mark.parametrize(("height", "width"), [(7, 9), (8, 8), (4, 4), (3, 2), (1, 13)])
def test_fused_is_equal_and_leaner(height: int, width: int):
    stage = randomised(SwinStage(64, window=4))
    x = torch.randn(2, 64, height, width)
    fused = fuse(stage)
    torch.testing.assert_close(fused(x), stage(x), rtol=1e-12, atol=1e-12)
    assert not any(isinstance(module, PositionBias) for module in fused.modules())
    assert any(isinstance(module, PositionBias) for module in stage.modules())


def test_bfloat16_autocast_stays_close_to_float32():
    stage = SwinStage(64).float()
    for block in stage.blocks:
        nn.init.ones_(block.attention_norm.weight)
        nn.init.ones_(block.mlp_norm.weight)
    x = torch.randn(2, 64, 10, 20).float()
    with torch.no_grad():
        exact = stage(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            close = stage(x)
    assert (close.float() - exact).abs().max() < 0.05 * exact.abs().max()
