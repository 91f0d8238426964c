"""Swin Transformer V2 blocks (Liu 2021, arXiv 2111.09883) for feature maps of any height and width.

Tensor legend: N images, C channels, H x W cells, `heads` x D = C, windows of w x w cells, L = w * w. The second
version's parts: attention by cosine with a learned temperature (section 3.3), a position bias that a small network
computes from log-spaced distances (section 3.2), and normalisation after each branch, whose gain starts at 0, so that a
fresh block is the identity.

Windows end at the map's edge: a map that is no multiple of w is padded, and padding is never attended to. Shifted
windows begin half a window before the map's first cell. That equals the published cyclic shift with region masks, in
which each part of a window that wraps around attends only to itself. A map that fits in one window is not shifted.
"""

# torch types every submodule as Tensor | Module
# pyright: reportArgumentType=false

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_CHANNELS = 32
"""Channels of each head of attention, as published."""
LARGEST_SCALE = math.log(100.0)
"""Logarithm of the inverse of the lowest temperature (section 3.3: the temperature stays above 0.01)."""
LARGEST_BIAS = 16.0
FARTHEST = 8.0
"""Distance across a window before the logarithm: the same range for windows of all sizes."""
SMALLEST_NORM = 1e-6
"""Constant that keeps the direction of an all-zero query or key finite, in half precision too."""


class SwinStage(nn.Module):
    """Pairs of blocks, plain and then shifted by half a window; (N, C, H, W) -> (N, C, H, W)."""

    rate_field = "attention_lr"

    def __init__(self, channels: int, *, depth: int = 2, window: int = 8, mlp_ratio: float = 4.0) -> None:
        super().__init__()
        shifts = [0 if number % 2 == 0 else window // 2 for number in range(depth)]
        self.blocks = nn.Sequential(
            *(SwinBlock(channels, window=window, shift=shift, mlp_ratio=mlp_ratio) for shift in shifts)
        )

    def forward(self, features: Tensor) -> Tensor:
        cells = features.permute(0, 2, 3, 1).contiguous()  # linear layers are faster on contiguous cells
        return self.blocks(cells).permute(0, 3, 1, 2)


class SwinBlock(nn.Module):
    """x + norm(attention(x)), then x + norm(mlp(x)) (Figure 1, right); (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int, *, window: int, shift: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = round(channels * mlp_ratio)
        self.attention = WindowAttention(channels, heads=_heads(channels), window=window, shift=shift)
        self.attention_norm = _silent(nn.LayerNorm(channels))
        self.mlp = nn.Sequential(_linear(channels, hidden), nn.GELU(), _linear(hidden, channels))
        self.mlp_norm = _silent(nn.LayerNorm(channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention_norm(self.attention(x))
        return x + self.mlp_norm(self.mlp(x))


class WindowAttention(nn.Module):
    """Each cell attends to the cells of its window; (N, H, W, C) -> (N, H, W, C).

    Equation (2) and section 3.3: softmax(cos(q, k) / temperature + bias) v, for each head.
    """

    def __init__(self, channels: int, *, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.queries_keys_values = QueriesKeysValues(channels)
        self.scale = CosineScale(heads)
        self.position_bias = PositionBias(heads, window)
        self.projection = _linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        images, height, width, _ = x.shape
        (top, bottom), (left, right) = (_padding(length, self.window, self.shift) for length in (height, width))
        parts = self.queries_keys_values(x)
        bias = self.position_bias()  # (heads, L, L)
        if top + bottom + left + right:
            parts = functional.pad(parts, (0, 0, left, right, top, bottom))
            # (windows, heads, L, L)
            bias = padding_bias(height, width, self.window, self.shift, bias.dtype, bias.device) + bias
            bias = bias.repeat(images, 1, 1, 1) if images > 1 else bias  # (N * windows, heads, L, L)
        parts = self._to_windows(parts)  # (3, N * windows, heads, L, D)
        queries, keys = functional.normalize(parts[:2], dim=-1, eps=SMALLEST_NORM)
        values = functional.scaled_dot_product_attention(
            queries * self.scale(), keys, parts[2], attn_mask=bias, scale=1.0
        )
        x = self.projection(self._from_windows(values, images, top + height + bottom, left + width + right))
        return x[:, top : top + height, left : left + width]

    def _to_windows(self, parts: Tensor) -> Tensor:
        """(N, R * w, S * w, 3C) -> (3, N * R * S, heads, L, D)."""
        images, height, width, channels = parts.shape
        side, depth = self.window, channels // (3 * self.heads)
        parts = parts.reshape(images, height // side, side, width // side, side, 3, self.heads, depth).permute(
            5, 0, 1, 3, 6, 2, 4, 7
        )
        return parts.reshape(3, -1, self.heads, side * side, depth)

    def _from_windows(self, values: Tensor, images: int, height: int, width: int) -> Tensor:
        """(N * R * S, heads, L, D) -> (N, R * w, S * w, C), which is `height` x `width` cells."""
        side = self.window
        values = values.reshape(images, height // side, width // side, self.heads, side, side, -1).permute(
            0, 1, 4, 2, 5, 3, 6
        )
        return values.reshape(images, height, width, -1)


class QueriesKeysValues(nn.Module):
    """A linear layer for all three, without a bias for the keys; (..., C) -> (..., 3C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.trunc_normal_(torch.empty(3 * channels, channels), std=0.02))
        self.query_bias = nn.Parameter(torch.zeros(channels))
        self.value_bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias())

    def bias(self) -> Tensor:
        return torch.cat([self.query_bias, torch.zeros_like(self.query_bias), self.value_bias])  # (3C,)


class CosineScale(nn.Module):
    """One over each head's temperature, at most 100, initially 10; () -> (heads, 1, 1)."""

    without_decay = ("logarithm",)
    """As in the authors' training code, like the network of `PositionBias`."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.logarithm = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0)))

    def forward(self) -> Tensor:
        return self.logarithm.clamp(max=LARGEST_SCALE).exp()


class PositionBias(nn.Module):
    """Bias for each distance in rows and columns between query and key (equations 3, 4): () -> (heads, L, L), 0..16."""

    without_decay = ("mlp",)

    def __init__(self, heads: int, window: int, *, hidden: int = 512) -> None:
        super().__init__()
        self.mlp = nn.Sequential(_linear(2, hidden), nn.ReLU(), nn.Linear(hidden, heads, bias=False))
        nn.init.trunc_normal_(self.mlp[2].weight, std=0.02)
        distances = torch.arange(1 - window, window, dtype=torch.get_default_dtype()) * FARTHEST / max(window - 1, 1)
        spaced = distances.sign() * (distances.abs() + 1).log2() / math.log2(FARTHEST)
        self.register_buffer("distances", torch.cartesian_prod(spaced, spaced), persistent=False)  # ((2w - 1)**2, 2)
        cells = torch.cartesian_prod(torch.arange(window), torch.arange(window))  # (L, 2)
        apart = cells[:, None] - cells[None] + window - 1  # (L, L, 2)
        self.register_buffer("index", apart[..., 0] * (2 * window - 1) + apart[..., 1], persistent=False)  # (L, L)

    def forward(self) -> Tensor:
        biases = LARGEST_BIAS * self.mlp(self.distances).sigmoid()  # ((2w - 1)**2, heads)
        return biases[self.index].permute(2, 0, 1)


def _padding(length: int, window: int, shift: int) -> tuple[int, int]:
    """Return the padding before and after `length` cells: windows begin `shift` cells into the map, and the first and
    last are whole.
    """
    before = (window - shift) % window if length > window else 0
    return before, -(before + length) % window


def in_windows(values: Tensor, window: int, shift: int, *, padding: float) -> Tensor:
    """Return a value for each cell (H, W), and `padding` around them, by window: (R * S, L)."""
    height, width = values.shape
    padded = functional.pad(values, (*_padding(width, window, shift), *_padding(height, window, shift)), value=padding)
    return padded.unflatten(0, (-1, window)).unflatten(2, (-1, window)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)


def kept(make: Callable[..., Any]) -> Callable[..., Any]:
    """Cache what `make` returns, except while torch.compile traces it. It serves inference and training alike.

    Nothing is ever dropped: a recording of the network reads it at the same address.
    """

    def make_for_training(*settings: Any) -> Any:
        with torch.inference_mode(False):
            return make(*settings)

    cached = functools.cache(make_for_training)

    @functools.wraps(make)
    def call(*settings: Any) -> Any:
        return make_for_training(*settings) if torch.compiler.is_compiling() else cached(*settings)

    call.cache = cached  # type: ignore[attr-defined]
    return call


@kept
def padding_bias(height: int, width: int, window: int, shift: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return -inf for keys that are padding, else 0: (windows, 1, 1, L)."""
    zeros = torch.zeros(height, width, dtype=dtype, device=device)
    return in_windows(zeros, window, shift, padding=-math.inf)[:, None, None]


def _heads(channels: int) -> int:
    """Return the maximum number of heads that divides the channels, with at least 32 channels each."""
    return next(heads for heads in range(max(1, channels // HEAD_CHANNELS), 0, -1) if channels % heads == 0)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer


def _silent(norm: nn.LayerNorm) -> nn.LayerNorm:
    nn.init.zeros_(norm.weight)
    return norm
