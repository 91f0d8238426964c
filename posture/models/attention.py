"""Attention on feature maps: channel, space and time (the paper's equations 1, 2 and 14-16; Figures 2 and 6).

Tensor legend: N clips, C channels, T frames, H x W positions. An image is a clip of one frame: `features.unsqueeze(2)`.
Each attention returns weights in 0..1 that broadcast over its input; a block multiplies them in turn.
The arrangement is that of CBAM (Woo 2018, arXiv 1807.06521), to which the paper adds time.
"""

# torch types every submodule as Tensor | Module
# pyright: reportArgumentType=false

from __future__ import annotations

import torch
from torch import Tensor, nn

START = 3.0
"""Logit of every weight before training, so that a fresh block is close to the identity: sigmoid(3) = 0.95."""


class ChannelAttention(nn.Module):
    """T_C of equation (14), M_c of equation (1): sigmoid(MLP(mean over T, H, W)); (N, C, T, H, W) -> (N, C, 1, 1, 1).

    `avgmax` adds the same MLP of the maximum before the sigmoid.
    """

    def __init__(self, channels: int, *, pool: str = "avg", reduction: int = 16) -> None:
        super().__init__()
        hidden = max(8, channels // reduction)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), _starting(nn.Linear(hidden, channels)))
        self.pooled = {"avg": _mean, "avgmax": _mean_and_max}[pool]
        if pool == "avgmax":
            nn.init.constant_(self.mlp[-1].bias, START / 2)  # it is added twice

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pooled(features, (2, 3, 4)).flatten(2)  # (N, C, T, H, W) -> (N, 1 or 2, C)
        return self.mlp(pooled).sum(dim=1).sigmoid()[:, :, None, None, None]  # (N, C, 1, 1, 1)


class SpatialAttention(nn.Module):
    """T_S of equation (15): sigmoid(conv7x7(mean over C and T)); (N, C, T, H, W) -> (N, 1, 1, H, W), one map for the
    whole clip.

    `per_frame` averages over C only: (N, 1, T, H, W). With `hidden` channels between two convolutions it is M_s of
    equation (2), whose MLP_s has two layers. `avgmax` gives the convolution the maximum as a second channel.
    """

    def __init__(self, *, pool: str = "avg", per_frame: bool = False, hidden: int | None = None) -> None:
        super().__init__()
        self.over = (1,) if per_frame else (1, 2)
        self.pooled = {"avg": _mean, "avgmax": _mean_and_max}[pool]
        maps = {"avg": 1, "avgmax": 2}[pool]
        window = {"kernel_size": (1, 7, 7), "padding": (0, 3, 3)}
        if hidden is None:
            self.mlp = nn.Sequential(_starting(nn.Conv3d(maps, 1, **window)))
        else:
            self.mlp = nn.Sequential(
                nn.Conv3d(maps, hidden, **window), nn.ReLU(), _starting(nn.Conv3d(hidden, 1, **window))
            )

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pooled(features, self.over).squeeze(2)  # (N, C, T, H, W) -> (N, 1 or 2, 1 or T, H, W)
        return self.mlp(pooled).sigmoid()


class TemporalAttention(nn.Module):
    """T_M of equation (16), which finds key frames: sigmoid(conv3(mean over C, H, W)); (N, C, T, H, W) -> (N, 1, T, 1,
    1).

    `avgmax` gives the convolution the maximum as a second channel.
    """

    def __init__(self, *, pool: str = "avg") -> None:
        super().__init__()
        self.pooled = {"avg": _mean, "avgmax": _mean_and_max}[pool]
        self.convolution = _starting(nn.Conv1d({"avg": 1, "avgmax": 2}[pool], 1, kernel_size=3, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        pooled = self.pooled(features, (1, 3, 4)).flatten(2)  # (N, C, T, H, W) -> (N, 1 or 2, T)
        return self.convolution(pooled).sigmoid()[..., None, None]  # (N, 1, T, 1, 1)


class CBAM(nn.Module):
    """Channel, then space: equations (14) and (15), without time; (N, C, T, H, W) -> the same."""

    rate_field = "attention_lr"

    def __init__(
        self,
        channels: int,
        *,
        pool: str = "avg",
        reduction: int = 16,
        per_frame: bool = False,
        hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, pool=pool, reduction=reduction)
        self.spatial = SpatialAttention(pool=pool, per_frame=per_frame, hidden=hidden)

    def forward(self, features: Tensor) -> Tensor:
        features = self.channel(features) * features  # (14)
        return self.spatial(features) * features  # (15)


class STCBAM(nn.Module):
    """The improved CBAM of Figure 6: channel, space, then time, equations (14)-(16); (N, C, T, H, W) -> the same."""

    rate_field = "attention_lr"

    def __init__(self, channels: int, *, pool: str = "avg", reduction: int = 16, per_frame: bool = False) -> None:
        super().__init__()
        self.channel = ChannelAttention(channels, pool=pool, reduction=reduction)
        self.spatial = SpatialAttention(pool=pool, per_frame=per_frame)
        self.temporal = TemporalAttention(pool=pool)

    def forward(self, features: Tensor) -> Tensor:
        features = self.channel(features) * features  # (14)
        features = self.spatial(features) * features  # (15)
        return self.temporal(features) * features  # (16)


def _mean(features: Tensor, over: tuple[int, ...]) -> Tensor:
    """Reduce `over` to 1 and add an axis of statistics: (N, C, T, H, W) -> (N, 1, ...)."""
    return features.mean(over, keepdim=True).unsqueeze(1)


def _mean_and_max(features: Tensor, over: tuple[int, ...]) -> Tensor:
    return torch.stack([features.mean(over, keepdim=True), features.amax(over, keepdim=True)], dim=1)


def _starting(layer: nn.Module) -> nn.Module:
    """Initialise the last layer before a sigmoid: small weights, and a bias that lets nearly everything through."""
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.constant_(layer.bias, START)
    return layer
