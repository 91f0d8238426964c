"""Inputs of a network's first layer, `model.input`: frames, differences of neighbouring frames, or both.

Differences are computed within the network, so every caller passes RGB clips. They remove everything that stands still.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

CHANNELS = {"rgb": 3, "diff": 3, "both": 6}
"""Channels of the first layer's input."""
LATE = ("rgb", "diff")
"""Inputs of the two networks of `late`."""


def network_channels(clips: Tensor, kind: str) -> Tensor:
    """Return the first layer's input for clips (N, 3, T, H, W): (N, 3 or 6, T, H, W).

    `diff` is each frame minus the one before it; the first frame has the second one's difference. `both` is the frames
    and then the differences.
    """
    if kind == "rgb":
        return clips
    changes = clips[:, :, 1:] - clips[:, :, :-1]
    changes = torch.cat([changes[:, :, :1], changes], dim=2)
    return changes if kind == "diff" else torch.cat([clips, changes], dim=1)


class StemConv3d(nn.Conv3d):
    """A convolution, with the weights of the one that it replaces, on `network_channels` of its input."""

    def __init__(self, replaced: nn.Conv3d, kind: str) -> None:
        super().__init__(
            CHANNELS[kind],
            replaced.out_channels,
            replaced.kernel_size,  # type: ignore[arg-type]
            replaced.stride,  # type: ignore[arg-type]
            replaced.padding,  # type: ignore[arg-type]
            bias=replaced.bias is not None,
            device="meta",
        )
        repeats = CHANNELS[kind] // replaced.in_channels
        # the same variance from more channels
        self.weight = nn.Parameter(replaced.weight.detach().repeat(1, repeats, 1, 1, 1) / repeats**0.5)
        self.bias, self.kind = replaced.bias, kind

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(network_channels(input, self.kind))


class LateFusion(nn.Module):
    """Two networks with inputs of their own: clips (N, 3, T, H, W) -> logits (N, 2, K).

    Their scores are averaged by `posture.tasks.action.probabilities`, as those of Two-Stream are.
    """

    def __init__(self, streams: dict[str, nn.Module]) -> None:
        super().__init__()
        self.streams = nn.ModuleDict(streams)

    def forward(self, clips: Tensor) -> Tensor:
        return torch.stack([stream(clips) for stream in self.streams.values()], dim=1)
