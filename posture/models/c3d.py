"""C3D (Tran 2015, arXiv 1412.0767) and the paper's improved C3D (section 2.2, Figures 4-6), as one network with
toggles.

Tensor legend: N clips, C channels, T frames, H x W pixels. Shapes in comments are for C3D's own 16 frames of 112 x 112.
With every toggle off this is the published C3D: 78,409,573 parameters for 101 classes, 38.55 GMAC. Its fifth pooling
has Caffe's windows, of which the last holds what is left; versions before December 2026 padded instead, so that every
window began a cell earlier (`pool5="padded"`). The other poolings divide the published size evenly; other sizes lose
what is left over there.

Choices the paper leaves open: attention weighs a stage's convolutions before the residual sum, as CBAM does in a
residual block; the poolings stay where C3D has them, except that the 7x7 stem's stride stands for the first and global
averaging for the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from posture.models import configs
from posture.models.attention import CBAM, STCBAM
from posture.models.keyed import KeyedDropout

RGB = 3
Triple = tuple[int, int, int]
STANDARDIZING_EPS = 1e-4
"""Keeps the standardisation of a filter of zeros finite."""


class C3D(nn.Module):
    """A clip classifier. `forward`: normalised RGB clips (N, 3, T, H, W), float -> logits (N, classes)."""

    def __init__(self, config: configs.C3D) -> None:
        super().__init__()
        channels = config.channels
        strided = config.stem == "conv7"
        self.stage1 = _stage(config, "stage1", RGB)
        self.pool1 = nn.Identity() if strided else nn.MaxPool3d((1, 2, 2))
        self.stage2 = _stage(config, "stage2", channels[0])
        self.pool2 = nn.MaxPool3d(2)
        self.stage3 = _stage(config, "stage3", channels[1])
        self.pool3 = nn.MaxPool3d(2)
        self.stage4 = _stage(config, "stage4", channels[2])
        self.pool4 = nn.MaxPool3d(2)
        self.stage5 = _stage(config, "stage5", channels[3])
        self.head = {"fc": _fc_head, "gap": _gap_head}[config.head](config)

    def forward(self, clips: Tensor) -> Tensor:
        x = self.pool1(self.stage1(clips))  # (N, 64, 16, 56, 56)
        x = self.pool2(self.stage2(x))  # (N, 128, 8, 28, 28)
        x = self.pool3(self.stage3(x))  # (N, 256, 4, 14, 14)
        x = self.pool4(self.stage4(x))  # (N, 512, 2, 7, 7)
        x = self.stage5(x)  # (N, 512, 2, 7, 7)
        return self.head(x)  # (N, classes)


class Residual(nn.Module):
    """x + F(x), then ReLU; `shortcut` projects x where F changes its width (section 2.2; He 2016)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.branch(x))


class StandardizedConv3d(nn.Conv3d):
    """A convolution whose filters are standardised before use (Qiao 2019, arXiv 1903.10520): mean 0, sum of squares 1,
    times a learned gain.
    """

    without_decay = ("gain",)

    def __init__(self, inputs: int, outputs: int, kernel: Triple, **settings: Any) -> None:
        super().__init__(inputs, outputs, kernel, **settings)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3, 4), keepdim=True, correction=0)
        numbers = self.weight[0].numel()
        weight = (self.weight - mean) * (variance * numbers + STANDARDIZING_EPS).rsqrt() * self.gain
        return self._conv_forward(x, weight, self.bias)


class GlobalAverage(nn.Module):
    """(N, C, T, H, W) -> (N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3, 4))


def _stage(config: configs.C3D, name: str, inputs: int) -> nn.Module:
    """Stage `name` on `inputs` channels: its convolutions, attention where placed, and the residual sum around what
    follows the stem.
    """
    place = config.stages.index(name)
    outputs, depth = config.channels[place], config.depths[place]
    stem = []
    if name == "stage1":
        kernel, stride = {"c3d": ((3, 3, 3), 1), "conv7": ((3, 7, 7), 2)}[config.stem]
        stem = [*_layer(config, inputs, outputs, kernel=kernel, stride=stride), nn.ReLU(inplace=True)]
        _start_with_motion(next(layer for layer in stem if layer.kernel_size[0] > 1), share=config.stem_motion)
        inputs, depth = outputs, depth - 1
    layers: list[nn.Module] = []
    for number in range(depth):
        layers += [*_layer(config, outputs if number else inputs, outputs), nn.ReLU(inplace=True)]
    attends = config.attention != "none" and name in config.attention_stages
    attention = [_attention(config, outputs)] if attends else []
    if not (config.residual and layers):
        return nn.Sequential(*stem, *layers, *attention)
    layers.pop()  # the last ReLU comes after the sum
    last = layers[-1]  # the norm, or without one the convolution
    (last.gain if isinstance(last, StandardizedConv3d) else last.weight).data *= config.branch_gain
    return nn.Sequential(*stem, Residual(nn.Sequential(*layers, *attention), _shortcut(config, inputs, outputs)))


def _layer(
    config: configs.C3D, inputs: int, outputs: int, *, kernel: Triple = (3, 3, 3), stride: int = 1
) -> list[nn.Module]:
    """A t x k x k convolution, whole or split in consecutive smaller ones (Figure 5), then the norm. `stride` is over H
    and W.
    """
    t, k, _ = kernel
    kernels = {"none": [(t, k, k)], "pair": [(t, k, 1), (1, 1, k)], "triple": [(1, k, 1), (1, 1, k), (t, 1, 1)]}[
        config.asymmetric
    ]
    parts = []
    for place, part in enumerate(kernels, start=1):
        last = place == len(kernels)
        strides = tuple(stride if axis and reach > 1 else 1 for axis, reach in enumerate(part))
        parts.append(
            _convolution(
                config, inputs, outputs, part, stride=strides, bias=last and config.norm == "none", rectified=last
            )
        )
        inputs = outputs
    return [*parts, *_norm(config, outputs)]


def _convolution(
    config: configs.C3D,
    inputs: int,
    outputs: int,
    kernel: Triple,
    *,
    stride: Triple = (1, 1, 1),
    bias: bool,
    rectified: bool,
) -> nn.Conv3d:
    """A padded convolution that keeps the variance of what passes through it, and through the ReLU when one follows (He
    2015).
    """
    padding = tuple(reach // 2 for reach in kernel)
    kind = StandardizedConv3d if config.standardize else nn.Conv3d
    convolution = kind(inputs, outputs, kernel, stride=stride, padding=padding, bias=bias)
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if rectified else "linear")
    if bias:
        nn.init.zeros_(convolution.bias)
    return convolution


def _start_with_motion(convolution: nn.Conv3d, *, share: float) -> None:
    """Make the first `share` of the filters antisymmetric in time, of the same norm: they answer to change alone."""
    filters = convolution.weight.data[: round(share * len(convolution.weight))]  # (filters, C, t, h, w)
    norms = filters.flatten(1).norm(dim=1)
    filters -= filters.flip(2)
    filters *= (norms / filters.flatten(1).norm(dim=1).clamp(min=1e-12)).view(-1, 1, 1, 1, 1)


def _norm(config: configs.C3D, channels: int) -> list[nn.Module]:
    """Equations (10)-(13) are torch's GroupNorm: mean and variance over (C/G, T, H, W) of one sample, eps inside the
    root.
    """
    if config.norm == "group":
        return [nn.GroupNorm(config.groups, channels, eps=config.eps)]
    return [nn.BatchNorm3d(channels, eps=config.eps)] if config.norm == "batch" else []


def _shortcut(config: configs.C3D, inputs: int, outputs: int) -> nn.Module:
    if inputs == outputs:
        return nn.Identity()
    projection = _convolution(config, inputs, outputs, (1, 1, 1), bias=config.norm == "none", rectified=False)
    return nn.Sequential(projection, *_norm(config, outputs))


def _attention(config: configs.C3D, channels: int) -> nn.Module:
    block = {"cbam": CBAM, "stcbam": STCBAM}[config.attention]
    per_frame = config.spatial_attention == "per_frame"
    return block(channels, pool=config.attention_pool, reduction=config.attention_reduction, per_frame=per_frame)


def _fc_head(config: configs.C3D) -> nn.Module:
    """Pooling, two hidden layers with dropout, classes: Tran's pool5, fc6, fc7 and the output."""
    side = (config.size + 1) // 2 if config.stem == "conv7" else config.size // 2
    frames, side = config.frames // 8, side // 8  # after three more poolings
    if config.pool5 == "caffe":
        pool, frames, side = nn.MaxPool3d(2, ceil_mode=True), (frames + 1) // 2, (side + 1) // 2
    else:
        pool, frames, side = nn.MaxPool3d(2, padding=(0, 1, 1)), frames // 2, side // 2 + 1
    flat = config.channels[-1] * frames * side * side
    hidden = config.hidden_features
    return nn.Sequential(
        pool,  # (N, 512, 1, 4, 4)
        nn.Flatten(),
        _linear(flat, hidden),
        nn.ReLU(inplace=True),
        KeyedDropout(config.dropout),
        _linear(hidden, hidden),
        nn.ReLU(inplace=True),
        KeyedDropout(config.dropout),
        _output(hidden, config.classes),
    )


def _gap_head(config: configs.C3D) -> nn.Module:
    """Global average pooling, dropout, classes: what the paper puts in place of the hidden layers."""
    return nn.Sequential(GlobalAverage(), KeyedDropout(config.dropout), _output(config.channels[-1], config.classes))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def _output(inputs: int, classes: int) -> nn.Linear:
    """Logits that start close to 0, so that the first loss is close to log(classes)."""
    layer = nn.Linear(inputs, classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
