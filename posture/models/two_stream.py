"""Two-Stream (Simonyan & Zisserman 2014, arXiv 1406.2199): a frame and its motion, classified separately and averaged.

Tensor legend: N clips, T frames, S pixels, L = `flow_frames`, K classes. Shapes in comments are CNN-M-2048's at 224 x
224. CNN-M-2048 (Chatfield 2014, arXiv 1405.3531) is as published, with one exception: its last pooling makes at most
6 x 6 cells, so that frames of other sizes work. At the published size, with 13 x 13 cells, those are the published
windows, 3 x 3 at stride 2. The first two poolings have the same windows; versions before December 2026 had 2 x 2 there
(`pooling="2x2"`). ResNet-18 (He 2015, arXiv 1512.03385) is the choice for small frames.
"""

# torch types every submodule as Tensor | Module
# pyright: reportArgumentType=false

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from posture.models import configs
from posture.models.keyed import KeyedDropout


class TwoStream(nn.Module):
    """A clip classifier. `forward`, as `config.inputs` says: clips (N, 3, T, S, S), flow (N, 2, T - 1, S, S), or both.

    One stream gives logits (N, K), both give (N, 2, K): their scores are averaged by
    `posture.tasks.action.probabilities`.
    """

    def __init__(self, config: configs.TwoStream) -> None:
        super().__init__()
        streams = {"rgb": Spatial, "flow": Temporal}
        self.streams = nn.ModuleDict({name: streams[name](config) for name in config.inputs})
        self.join = _stacked if len(config.inputs) > 1 else _only

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.join([stream(x) for stream, x in zip(self.streams.values(), inputs, strict=True)])


class Spatial(nn.Module):
    """The clip's middle frame: (N, 3, T, S, S) -> logits (N, K)."""

    def __init__(self, config: configs.TwoStream) -> None:
        super().__init__()
        self.network = _backbone(config, channels=3, norms=2)

    def forward(self, clips: Tensor) -> Tensor:
        return self.network(clips[:, :, clips.shape[2] // 2])


class Temporal(nn.Module):
    """Stacked flow (section 3.1) around that frame: (N, 2, T - 1, S, S) -> logits (N, K)."""

    def __init__(self, config: configs.TwoStream) -> None:
        super().__init__()
        self.length = config.flow_frames
        self.steady = _without_mean if config.subtract_mean_flow else nn.Identity()
        # Without the second normalisation, section 3.3: the streams' only difference.
        self.network = _backbone(config, channels=2 * config.flow_frames, norms=1)

    def forward(self, flow: Tensor) -> Tensor:
        first = (flow.shape[2] - self.length) // 2
        flow = self.steady(flow[:, :, first : first + self.length])  # (N, 2, L, S, S)
        # (N, 2 L, S, S): dx, dy of the first, dx, dy of the second, ...
        return self.network(flow.transpose(1, 2).flatten(1, 2))


class ResidualBlock(nn.Module):
    """ResNet's basic block: x + two 3 x 3 convolutions, with a projection of x if its shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *_normed(inputs, outputs, 3, stride=stride), nn.ReLU(inplace=True), *_normed(outputs, outputs, 3)
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normed(inputs, outputs, 1, stride=stride))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.shortcut(x) + self.branch(x))


def _only(logits: list[Tensor]) -> Tensor:
    return logits[0]


def _stacked(logits: list[Tensor]) -> Tensor:
    return torch.stack(logits, dim=1)


def _without_mean(flow: Tensor) -> Tensor:
    """Subtract each field's mean vector, (N, 2, L, S, S)."""
    return flow - flow.mean((3, 4), keepdim=True)


def _backbone(config: configs.TwoStream, *, channels: int, norms: int) -> nn.Module:
    network = _cnn_m(config, channels, norms) if config.backbone == "cnn_m" else _resnet18(config, channels)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # logits that start close to 0, so that the first loss is close to log(K)
    nn.init.normal_(network[-1].weight, std=0.01)
    return network


def _cnn_m(config: configs.TwoStream, channels: int, norms: int) -> nn.Sequential:
    """Return CNN-M-2048: five convolutions, the first `norms` of them normalised, and three linear layers."""
    wide = {width: config.scaled(width) for width in (96, 256, 512, 2048, 4096)}
    side = ((config.size - 5) // 2 // 2 - 1) // 2 // 2  # 13 cells after the convolutions
    cells = min(6, side)

    def pool() -> nn.Module:
        """Return a pooling; both kinds make as many cells. Caffe rounds up: the last window may cross the edge."""
        return nn.MaxPool2d(3, stride=2, ceil_mode=True) if config.pooling == "3x3" else nn.MaxPool2d(2)

    def response_norm(number: int) -> list[nn.Module]:
        return [nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)] if number <= norms else []

    return nn.Sequential(
        nn.Conv2d(channels, wide[96], 7, stride=2),  # (N, 96, 109, 109)
        nn.ReLU(inplace=True),
        *response_norm(1),
        pool(),  # (N, 96, 54, 54)
        nn.Conv2d(wide[96], wide[256], 5, stride=2, padding=1),  # (N, 256, 26, 26)
        nn.ReLU(inplace=True),
        *response_norm(2),
        pool(),  # (N, 256, 13, 13)
        nn.Conv2d(wide[256], wide[512], 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(wide[512], wide[512], 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(wide[512], wide[512], 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveMaxPool2d(cells),  # (N, 512, 6, 6)
        nn.Flatten(),
        nn.Linear(wide[512] * cells**2, wide[4096]),
        nn.ReLU(inplace=True),
        KeyedDropout(config.dropout),
        nn.Linear(wide[4096], wide[2048]),
        nn.ReLU(inplace=True),
        KeyedDropout(config.dropout),
        nn.Linear(wide[2048], config.classes),
    )


def _resnet18(config: configs.TwoStream, channels: int) -> nn.Sequential:
    widths = [config.scaled(width) for width in (64, 64, 128, 256, 512)]
    blocks = []
    for stage, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        blocks += [ResidualBlock(inputs, outputs, stride=2 if stage else 1), ResidualBlock(outputs, outputs, stride=1)]
    return nn.Sequential(
        *_normed(channels, widths[0], 7, stride=2),  # (N, 64, 112, 112)
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, stride=2, padding=1),  # (N, 64, 56, 56)
        *blocks,  # (N, 512, 7, 7)
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        KeyedDropout(config.dropout),
        nn.Linear(widths[-1], config.classes),
    )


def _normed(inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)]
