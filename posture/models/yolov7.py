"""YOLOv7 (Wang 2022, arXiv 2207.02696), the network for 640 pixels, in training form, from its published layer table.

Tensor legend: N images, C channels, H x W cells, A anchors for each level, K classes. Shapes in comments are for 640
x 640 at width 1. It has 37,622,682 parameters for 80 classes in training; `posture.models.fuse.fuse` reduces them to
the 36.9 M of inference.

It is trained with the assigner of our YOLOv5: anchors by the ratio of their sides, in the cell and its neighbours. The
published training adds an optimal transport assignment (simOTA), so do not expect its published accuracy on COCO.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from posture.errors import InputError
from posture.models import detector_configs as configs
from posture.models.ultralytics_blocks import ultralytics_blocks
from posture.models.yolov5 import RGB, Head, predictor, rename, scaled, set_norms


class YOLOv7(nn.Module):
    """A detector. `forward`: images (N, 3, S, S), float in 0..1, S a multiple of 32 -> raw outputs (N, A, H, W, 5 +
    K) at strides 8, 16, 32.

    Raises InputError if ultralytics, which provides its Conv, cannot be imported.
    """

    branches = (("widen3", "head.levels.0"), ("widen4", "head.levels.1"), ("widen5", "head.levels.2"))
    """First and last module of each output, see `posture.models.graphs`."""

    def __init__(self, config: configs.YOLOv7) -> None:
        super().__init__()
        c32, c64, c128, c256, c512, c1024 = (
            scaled(channels, config.width) for channels in (32, 64, 128, 256, 512, 1024)
        )
        # backbone
        self.stem = nn.Sequential(_conv(RGB, c32, 3), _conv(c32, c64, 3, 2), _conv(c64, c64, 3), _conv(c64, c128, 3, 2))
        self.stage1 = Aggregation(c128, c64, c64, c256, every=2)
        self.down2, self.stage2 = Down(c256, c128), Aggregation(c256, c128, c128, c512, every=2)
        self.down3, self.stage3 = Down(c512, c256), Aggregation(c512, c256, c256, c1024, every=2)
        self.down4, self.stage4 = Down(c1024, c512), Aggregation(c1024, c256, c256, c1024, every=2)
        self.pyramid = SPPCSPC(c1024, c512)
        # neck, from coarse to fine and back
        self.upsample = nn.Upsample(scale_factor=2)
        self.reduce5, self.route4, self.merge4 = (
            _conv(c512, c256, 1),
            _conv(c1024, c256, 1),
            Aggregation(c512, c256, c128, c256, every=1),
        )
        self.reduce4, self.route3, self.merge3 = (
            _conv(c256, c128, 1),
            _conv(c512, c128, 1),
            Aggregation(c256, c128, c64, c128, every=1),
        )
        self.down_out3, self.merge_out4 = Down(c128, c128), Aggregation(c512, c256, c128, c256, every=1)
        self.down_out4, self.merge_out5 = Down(c256, c256), Aggregation(c1024, c512, c256, c512, every=1)
        # head
        self.widen3, self.widen4, self.widen5 = RepConv(c128, c256), RepConv(c256, c512), RepConv(c512, c1024)
        self.head = Head(
            config, [ImplicitPredictor(config, level, channels) for level, channels in enumerate((c256, c512, c1024))]
        )
        set_norms(self, config.norm_momentum)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.stage1(self.stem(images))  # (N, 256, 160, 160)
        p3 = self.stage2(self.down2(x))  # (N, 512, 80, 80)
        p4 = self.stage3(self.down3(p3))  # (N, 1024, 40, 40)
        p5 = self.pyramid(self.stage4(self.down4(p4)))  # (N, 512, 20, 20)

        n4 = self.merge4(torch.cat([self.route4(p4), self.upsample(self.reduce5(p5))], 1))  # (N, 256, 40, 40)
        out3 = self.merge3(torch.cat([self.route3(p3), self.upsample(self.reduce4(n4))], 1))  # (N, 128, 80, 80)
        raw3 = self.head(0, self.widen3(out3))  # (N, A, 80, 80, 5 + K)
        out4 = self.merge_out4(torch.cat([self.down_out3(out3), n4], 1))  # (N, 256, 40, 40)
        raw4 = self.head(1, self.widen4(out4))  # (N, A, 40, 40, 5 + K)
        out5 = self.merge_out5(torch.cat([self.down_out4(out4), p5], 1))  # (N, 512, 20, 20)
        raw5 = self.head(2, self.widen5(out5))  # (N, A, 20, 20, 5 + K)
        return [raw3, raw4, raw5]


class Aggregation(nn.Module):
    """ELAN (section 4.1): a chain of 3x3 convolutions whose intermediate results are all joined; (N, inputs, H, W) ->
    (N, outputs, H, W).

    `every` = 2 joins the results of the second and fourth convolution, `every` = 1 all four.
    """

    def __init__(self, inputs: int, hidden: int, narrow: int, outputs: int, *, every: int) -> None:
        super().__init__()
        self.every = every
        self.beside = _conv(inputs, hidden, 1)
        self.before = _conv(inputs, hidden, 1)
        self.chain = nn.ModuleList(_conv(narrow if number else hidden, narrow, 3) for number in range(4))
        self.join = _conv(2 * hidden + 4 // every * narrow, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        results = [self.beside(x), self.before(x)]
        x = results[-1]
        for number, convolution in enumerate(self.chain, start=1):
            x = convolution(x)
            if number % self.every == 0:
                results.append(x)
        return self.join(torch.cat(results[::-1], 1))


class Down(nn.Module):
    """Strided convolution and pooling side by side; (N, C, H, W) -> (N, 2 * outputs, H / 2, W / 2)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pooled = nn.Sequential(nn.MaxPool2d(2), _conv(inputs, outputs, 1))
        self.strided = nn.Sequential(_conv(inputs, outputs, 1), _conv(outputs, outputs, 3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.strided(x), self.pooled(x)], 1)


class SPPCSPC(nn.Module):
    """Spatial pyramid pooling in one of two parallel branches; (N, inputs, H, W) -> (N, outputs, H, W)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.before = nn.Sequential(_conv(inputs, outputs, 1), _conv(outputs, outputs, 3), _conv(outputs, outputs, 1))
        self.beside = _conv(inputs, outputs, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.after = nn.Sequential(_conv(4 * outputs, outputs, 1), _conv(outputs, outputs, 3))
        self.join = _conv(2 * outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = [self.before(x)]
        for _ in range(3):  # windows of 5, 9 and 13: the maximum over maxima
            pooled.append(self.pool(pooled[-1]))
        return self.join(torch.cat([self.after(torch.cat(pooled, 1)), self.beside(x)], 1))


class RepConv(nn.Module):
    """The sum of a 3x3 and a 1x1 convolution, each normalised (Ding 2021, arXiv 2101.03697; without the identity,
    section 4.2).
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wide = nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
        self.narrow = nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.activation = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.wide(x) + self.narrow(x))


class ImplicitPredictor(nn.Module):
    """A predictor with implicit knowledge (Wang 2021, arXiv 2105.04206): a learned vector is added to its input, and
    another one multiplies its output.
    """

    without_decay = ("added", "factor")
    """As in the authors' training code."""

    def __init__(self, config: configs.YOLOv7, level: int, channels: int) -> None:
        super().__init__()
        self.predictor = predictor(config, level, channels)
        self.added = nn.Parameter(torch.randn(1, channels, 1, 1) * 0.02)
        self.factor = nn.Parameter(1 + torch.randn(1, self.predictor.out_channels, 1, 1) * 0.02)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.predictor(self.added + x)


def published_names(config: configs.YOLOv7) -> dict[str, str]:
    """Return {name in the state dict of the published YOLOv7 in training form (`model.0.conv.weight`): our name}.

    Its anchors are left out: they are `config.anchors` here, in pixels instead of cells. Published files (.pt) are
    pickles of whole models, which are unsafe to load. Load one with its own code and save `model.float().state_dict()`;
    that file fits here. It must be the training form (`yolov7_training.pt`): files for inference have no implicit
    vectors.
    """
    with torch.device("meta"):
        ours = list(YOLOv7(config).state_dict())
    implicit = [(level, theirs, name) for level in range(3) for theirs, name in (("ia", "added"), ("im", "factor"))]
    return rename(ours, _published_prefixes()) | {
        f"model.105.{theirs}.{level}.implicit": f"head.levels.{level}.{name}" for level, theirs, name in implicit
    }


def from_published(tensors: Mapping[str, Tensor], config: configs.YOLOv7) -> dict[str, Tensor]:
    """Return the tensors of a published YOLOv7 state dict in training form (see `published_names`), under our names.

    Raises InputError with the name of the first missing tensor.
    """
    names = published_names(config)
    if missing := next((name for name in names if name not in tensors), None):
        raise InputError(
            f"these weights have no tensor {missing}, which a published YOLOv7 in training form has; save the "
            "state_dict() of yolov7_training.pt (files for inference have no implicit vectors)"
        )
    return {ours: tensors[theirs] for theirs, ours in names.items()}


def _published_prefixes() -> dict[str, str]:
    """Return {our layer: its name in published weights}, which number the layers and split blocks such as ELAN."""
    layers: dict[str, int | str] = {f"stem.{number}": number for number in range(4)}
    for name, first in {
        "stage1": 4,
        "stage2": 17,
        "stage3": 30,
        "stage4": 43,
        "merge4": 56,
        "merge3": 68,
        "merge_out4": 81,
        "merge_out5": 94,
    }.items():
        layers |= {f"{name}.beside": first, f"{name}.before": first + 1, f"{name}.join": first + 7}
        layers |= {f"{name}.chain.{number}": first + 2 + number for number in range(4)}
    for name, first in {"down2": 12, "down3": 25, "down4": 38, "down_out3": 76, "down_out4": 89}.items():
        layers |= {f"{name}.pooled.1": first + 1, f"{name}.strided.0": first + 2, f"{name}.strided.1": first + 3}
    pyramid = ("before.0", "beside", "before.1", "before.2", "after.0", "after.1", "join")
    layers |= {f"pyramid.{name}": f"51.cv{number}" for number, name in enumerate(pyramid, start=1)}
    layers |= {"reduce5": 52, "route4": 54, "reduce4": 64, "route3": 66}
    for level, name in enumerate(("widen3", "widen4", "widen5")):
        layers |= {f"{name}.wide": f"{102 + level}.rbr_dense", f"{name}.narrow": f"{102 + level}.rbr_1x1"}
        layers |= {f"head.levels.{level}.predictor": f"105.m.{level}"}
    return {ours: f"model.{theirs}" for ours, theirs in layers.items()}


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Module:
    """Return a convolution, batch normalisation and SiLU."""
    return ultralytics_blocks().Conv(inputs, outputs, kernel, stride)
