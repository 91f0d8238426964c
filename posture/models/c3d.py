"""C3D (Tran 2015, arXiv 1412.0767) and the paper's improved C3D (section 2.2, Figures 4-6), as one network with
toggles.

Tensor legend: N clips, C channels, T frames, H x W pixels. Shapes in comments are for C3D's own 16 frames of 112 x 112.
With every toggle off this is the published C3D: 78,409,573 parameters for 101 classes, 38.55 GMAC. Its fifth pooling
has Caffe's windows, of which the last may be smaller; versions before December 2026 padded instead, so that every
window began a cell earlier (`pool5="padded"`). The other poolings divide the published size evenly and drop the
remainder of other sizes.

Choices the paper leaves open: attention weighs a stage's convolutions before the residual sum, as CBAM does in a
residual block. The poolings are C3D's, except that the 7x7 stem's stride replaces the first one and global averaging
the last one.
"""

# torch types every submodule as Tensor | Module, a bias as optional, and sizes as tuples of fixed length
# pyright: reportArgumentType=false, reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from posture.models import configs
from posture.models.attention import CBAM, STCBAM
from posture.models.frame_inputs import Beside, differences
from posture.models.keyed import KeyedDepth, KeyedDropout

RGB = 3
Triple = tuple[int, int, int]
STANDARDIZING_EPS = 1e-4
"""Constant that keeps the standardisation of an all-zero filter finite."""


class C3D(nn.Module):
    """A clip classifier. `forward`: normalised RGB clips (N, 3, T, H, W), float -> logits (N, classes)."""

    def __init__(self, config: configs.C3D) -> None:
        super().__init__()
        layer = Layer(config)
        c1, c2, c3, c4, c5 = config.channels
        self.input = config.input
        self.stage1 = Stage(config, "stage1", RGB, c1, layer)
        self.pool1 = {"c3d": nn.MaxPool3d((1, 2, 2)), "conv7": nn.Identity()}[config.stem]
        self.stage2 = Stage(config, "stage2", c1, c2, layer)
        self.pool2 = nn.MaxPool3d(2)
        self.stage3 = Stage(config, "stage3", c2, c3, layer)
        self.pool3 = nn.MaxPool3d(2)
        self.stage4 = Stage(config, "stage4", c3, c4, layer)
        self.pool4 = nn.MaxPool3d(2)
        self.stage5 = Stage(config, "stage5", c4, c5, layer)
        self.head = {"fc": _fc_head, "gap": _gap_head}[config.head](config)

    def forward(self, clips: Tensor) -> Tensor:
        x = differences(clips) if self.input == "diff" else clips
        x = self.pool1(self.stage1(x))  # (N, 64, 16, 56, 56)
        x = self.pool2(self.stage2(x))  # (N, 128, 8, 28, 28)
        x = self.pool3(self.stage3(x))  # (N, 256, 4, 14, 14)
        x = self.pool4(self.stage4(x))  # (N, 512, 2, 7, 7)
        x = self.stage5(x)  # (N, 512, 2, 7, 7)
        return self.head(x)  # (N, classes)


class Stage(nn.Sequential):
    """The stem if it is the first stage, convolutions, attention if placed here, and a residual sum around what
    follows the stem; (N, inputs, T, H, W) -> (N, outputs, T, H, W), with half of H and W after a strided stem.
    """

    def __init__(self, config: configs.C3D, name: str, inputs: int, outputs: int, layer: Layer) -> None:
        number = config.stages.index(name)
        depth = config.depths[number]
        stem: list[nn.Module] = []
        if name == "stage1":
            kernel, stride = {"c3d": ((3, 3, 3), 1), "conv7": ((3, 7, 7), 2)}[config.stem]
            stem = [*_stem(config, outputs, layer, kernel, stride), *layer.norm(outputs), nn.ReLU(inplace=True)]
            inputs, depth = outputs, depth - 1
        layers: list[nn.Module] = []
        for position in range(depth):
            layers += [*layer(outputs if position else inputs, outputs), nn.ReLU(inplace=True)]
        attends = config.attention != "none" and name in config.attention_stages
        attention = [_attention(config, outputs)] if attends else []
        if not (config.residual and layers):
            super().__init__(*stem, *layers, *attention)
            return
        layers.pop()  # the last ReLU comes after the sum
        last = layers[-1]  # the norm, or without one the convolution
        (last.gain if isinstance(last, StandardizedConv3d) else last.weight).data *= config.branch_gain
        shortcut = nn.Identity() if inputs == outputs else layer.projection(inputs, outputs)
        drop = config.stochastic_depth * (number + 1) / len(config.stages)
        dropped = [KeyedDepth(drop)] if drop else []  # an idle part would change the keys of the others
        super().__init__(*stem, Residual(nn.Sequential(*layers, *attention, *dropped), shortcut))


class Residual(nn.Module):
    """x + F(x), then ReLU; `shortcut` projects x if F changes its width (section 2.2; He 2016)."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.shortcut(x) + self.branch(x))


class Layer:
    """Builder of a convolution and the norm behind it; called with (inputs, outputs), it returns their modules.

    The convolution is whole or split into smaller ones (Figure 5). Equations (10)-(13) are torch's GroupNorm: mean and
    variance over (C/G, T, H, W) of one sample, eps inside the root.
    """

    def __init__(self, config: configs.C3D) -> None:
        self.split = {"none": _whole, "pair": _pair, "triple": _triple}[config.asymmetric]
        self.convolution = StandardizedConv3d if config.standardize else nn.Conv3d
        self.bias = config.norm == "none"
        self.norm: Callable[[int], list[nn.Module]] = {
            "none": lambda channels: [],
            "batch": lambda channels: [nn.BatchNorm3d(channels, eps=config.eps)],
            "group": lambda channels: [nn.GroupNorm(config.groups, channels, eps=config.eps)],
        }[config.norm]

    def __call__(self, inputs: int, outputs: int, *, kernel: Triple = (3, 3, 3), stride: int = 1) -> list[nn.Module]:
        return [*self.convolutions(inputs, outputs, kernel=kernel, stride=stride), *self.norm(outputs)]

    def convolutions(self, inputs: int, outputs: int, *, kernel: Triple, stride: int) -> list[nn.Module]:
        """Return the convolution, whole or split; `stride` is over H and W."""
        *first, last = self.split(*kernel[:2])
        parts = []
        for part in first:
            parts.append(self._convolution(inputs, outputs, part, stride, bias=False, rectified=False))
            inputs = outputs
        parts.append(self._convolution(inputs, outputs, last, stride, bias=self.bias, rectified=True))
        return parts

    def projection(self, inputs: int, outputs: int) -> nn.Module:
        """Return a 1 x 1 x 1 convolution and a norm, for a shortcut."""
        convolution = self._convolution(inputs, outputs, (1, 1, 1), 1, bias=self.bias, rectified=False)
        return nn.Sequential(convolution, *self.norm(outputs))

    def _convolution(
        self, inputs: int, outputs: int, kernel: Triple, stride: int, *, bias: bool, rectified: bool
    ) -> nn.Conv3d:
        """Return a padded convolution that keeps the variance of its input, through a ReLU if `rectified` (He 2015)."""
        strides = tuple(stride if axis and size > 1 else 1 for axis, size in enumerate(kernel))
        padding = tuple(size // 2 for size in kernel)
        convolution = self.convolution(inputs, outputs, kernel, stride=strides, padding=padding, bias=bias)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu" if rectified else "linear")
        if bias:
            nn.init.zeros_(convolution.bias)
        return convolution


class StandardizedConv3d(nn.Conv3d):
    """A convolution with standardised filters (Qiao 2019, arXiv 1903.10520): mean 0, sum of squares 1, times a learned
    gain.
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


def _whole(t: int, k: int) -> list[Triple]:
    return [(t, k, k)]


def _pair(t: int, k: int) -> list[Triple]:
    return [(t, k, 1), (1, 1, k)]


def _triple(t: int, k: int) -> list[Triple]:
    return [(1, k, 1), (1, 1, k), (t, 1, 1)]


def _stem(config: configs.C3D, outputs: int, layer: Layer, kernel: Triple, stride: int) -> list[nn.Module]:
    """Return the stem's convolutions; for both inputs, those of frames beside those of differences."""
    halves = []
    for width in (outputs // 2, outputs - outputs // 2) if config.input == "both" else (outputs,):
        half = layer.convolutions(RGB, width, kernel=kernel, stride=stride)
        _start_with_motion(next(part for part in half if part.kernel_size[0] > 1), share=config.stem_motion)
        halves.append(half)
    return halves[0] if len(halves) == 1 else [Beside(*(nn.Sequential(*half) for half in halves))]


def _start_with_motion(convolution: nn.Conv3d, *, share: float) -> None:
    """Make the first `share` of the filters antisymmetric in time, with the same norm: they respond to change only."""
    if convolution.weight.is_meta:  # torch would load its compiler to work on shapes alone
        return
    filters = convolution.weight.data[: round(share * len(convolution.weight))]  # (filters, C, t, h, w)
    norms = filters.flatten(1).norm(dim=1)
    filters -= filters.flip(2)
    filters *= (norms / filters.flatten(1).norm(dim=1).clamp(min=1e-12)).view(-1, 1, 1, 1, 1)


def _attention(config: configs.C3D, channels: int) -> nn.Module:
    block = {"cbam": CBAM, "stcbam": STCBAM}[config.attention]
    per_frame = config.spatial_attention == "per_frame"
    return block(channels, pool=config.attention_pool, reduction=config.attention_reduction, per_frame=per_frame)


def _fc_head(config: configs.C3D) -> nn.Module:
    """Return pooling, two hidden layers with dropout, and classes: Tran's pool5, fc6, fc7 and the output."""
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
    """Return global average pooling, dropout and classes, which replace the hidden layers in the paper."""
    return nn.Sequential(GlobalAverage(), KeyedDropout(config.dropout), _output(config.channels[-1], config.classes))


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    nn.init.zeros_(layer.bias)
    return layer


def _output(inputs: int, classes: int) -> nn.Linear:
    """Return a layer whose logits start close to 0, so that the first loss is close to log(classes)."""
    layer = nn.Linear(inputs, classes)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
