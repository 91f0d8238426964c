"""Inputs of a network's first layer, `model.input`: frames, differences of neighbouring frames, or both.

Differences are computed within the network, so every caller passes RGB clips. They remove everything that stands still.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LATE = ("rgb", "diff")
"""Inputs of the two networks of `late`."""


def differences(clips: Tensor) -> Tensor:
    """Return each frame minus the one before it, (N, 3, T, H, W); the first frame has the second one's difference."""
    changes = clips[:, :, 1:] - clips[:, :, :-1]
    return torch.cat([changes[:, :, :1], changes], dim=2)


class Beside(nn.Module):
    """The first layers of `both`: some filters see frames, the others differences; (N, 3, T, H, W) -> (N, C, T, H, W).

    A filter of six channels would see little of the differences, which are small beside the frames. Here the norm
    that follows gives both the same size.
    """

    def __init__(self, frames: nn.Module, changes: nn.Module) -> None:
        super().__init__()
        self.frames = frames
        self.changes = changes

    def forward(self, clips: Tensor) -> Tensor:
        return torch.cat([self.frames(clips), self.changes(differences(clips))], dim=1)


class StemConv3d(nn.Conv3d):
    """A network's first convolution, with the weights of the one that it replaces: for `diff` on differences, for
    `both` with half of its filters on frames and the others on differences.
    """

    def __init__(self, replaced: nn.Conv3d, kind: str) -> None:
        super().__init__(
            replaced.in_channels,
            replaced.out_channels,
            replaced.kernel_size,  # type: ignore[arg-type]
            replaced.stride,  # type: ignore[arg-type]
            replaced.padding,  # type: ignore[arg-type]
            bias=replaced.bias is not None,
            device="meta",
        )
        self.weight, self.bias = replaced.weight, replaced.bias
        self.on_frames = {"diff": 0, "both": replaced.out_channels // 2}[kind]

    def forward(self, input: Tensor) -> Tensor:
        count = self.on_frames
        changes = differences(input)
        if not count:
            return super().forward(changes)
        biases = (None, None) if self.bias is None else (self.bias[:count], self.bias[count:])
        halves = zip((input, changes), (self.weight[:count], self.weight[count:]), biases, strict=True)
        return torch.cat([self._conv_forward(x, weight, bias) for x, weight, bias in halves], dim=1)


class LateFusion(nn.Module):
    """Two networks with inputs of their own: clips (N, 3, T, H, W) -> logits (N, 2, K).

    Their scores are averaged by `posture.tasks.action.probabilities`, as those of Two-Stream are.
    """

    def __init__(self, streams: dict[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(streams)

    def forward(self, clips: Tensor) -> Tensor:
        return torch.stack([stream(clips) for stream in self.streams.values()], dim=1)
