"""YOLOv5s 6.x (Jocher 2020) and the paper's improved YOLOv5s (section 2.1, Figure 1), as one network with toggles.

Tensor legend: N images, C channels, H x W cells, A anchors for each level, K classes. Shapes in comments are for 640
x 640 at width 0.5. With every toggle off this is the published YOLOv5s: 7,235,389 parameters for 80 classes.

Toggles: `stem="focus"` puts every second pixel in a channel of its own before a 3x3 convolution. `swin` replaces the
bottlenecks of the backbone's last C3 by Swin-v2 blocks. `attention="cbam"` weighs the neck's three outputs, the outputs
of the backbone's four stages, or both.

Choices the paper leaves open: two Swin blocks (plain, shifted), because the stage's own depth of one would never shift;
8 channels between the two convolutions of equation (2).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from posture.errors import InputError
from posture.models import detector_configs as configs
from posture.models.attention import CBAM
from posture.models.swin import SwinStage
from posture.models.ultralytics_blocks import ultralytics_blocks

RGB = 3
SPATIAL_HIDDEN = 8
"""Channels between the two convolutions of equation (2)."""
SWIN_DEPTH = 2
SWIN_MLP_RATIO = 4.0

FOCUS_KERNEL = "stem.conv.conv.weight"
PUBLISHED = {
    "stem": "model.0",
    "down1": "model.1",
    "stage1": "model.2",
    "down2": "model.3",
    "stage2": "model.4",
    "down3": "model.5",
    "stage3": "model.6",
    "down4": "model.7",
    "stage4": "model.8",
    "pyramid": "model.9",
    "reduce5": "model.10",
    "merge4": "model.13",
    "reduce4": "model.14",
    "merge3": "model.17",
    "down_out3": "model.18",
    "merge_out4": "model.20",
    "down_out4": "model.21",
    "merge_out5": "model.23",
    "head.levels": "model.24.m",
}
"""Our layers -> their names in published weights, which number the layers."""


class YOLOv5(nn.Module):
    """A detector. `forward`: images (N, 3, S, S), float in 0..1, S a multiple of 32 -> raw outputs (N, A, H, W, 5 +
    K) at strides 8, 16, 32.

    Raises InputError if ultralytics, which provides its blocks, cannot be imported.
    """

    branches = (("attend_out3", "head.levels.0"), ("attend_out4", "head.levels.1"), ("attend_out5", "head.levels.2"))
    """First and last module of each output, see `posture.models.graphs`."""

    def __init__(self, config: configs.YOLOv5) -> None:
        super().__init__()
        blocks = ultralytics_blocks()
        Conv, C3 = blocks.Conv, blocks.C3
        c1, c2, c3, c4, c5 = (scaled(channels, config.width) for channels in (64, 128, 256, 512, 1024))
        few, some, many = (max(round(bottlenecks * config.depth), 1) for bottlenecks in (3, 6, 9))
        # backbone
        self.stem = {"conv": lambda: Conv(RGB, c1, 6, 2, 2), "focus": lambda: blocks.Focus(RGB, c1, 3)}[config.stem]()
        self.down1, self.stage1 = Conv(c1, c2, 3, 2), C3(c2, c2, few)
        self.down2, self.stage2 = Conv(c2, c3, 3, 2), C3(c3, c3, some)
        self.down3, self.stage3 = Conv(c3, c4, 3, 2), C3(c4, c4, many)
        self.down4, self.stage4 = Conv(c4, c5, 3, 2), C3(c5, c5, few)
        if config.swin:
            self.stage4.m = SwinStage(c5 // 2, depth=SWIN_DEPTH, window=config.window, mlp_ratio=SWIN_MLP_RATIO)
        self.pyramid = blocks.SPPF(c5, c5, 5)
        self.pyramid.cv1.act = nn.SiLU()  # as in YOLOv5: newer ultralytics leave it out
        # neck, from coarse to fine and back
        self.upsample = nn.Upsample(scale_factor=2)
        self.reduce5, self.merge4 = Conv(c5, c4, 1), C3(2 * c4, c4, few, False)
        self.reduce4, self.merge3 = Conv(c4, c3, 1), C3(2 * c3, c3, few, False)
        self.down_out3, self.merge_out4 = Conv(c3, c3, 3, 2), C3(2 * c3, c4, few, False)
        self.down_out4, self.merge_out5 = Conv(c4, c4, 3, 2), C3(2 * c4, c5, few, False)
        # attention and head
        self.attend1, self.attend2, self.attend3, self.attend4 = (
            _attention(config, "backbone", channels) for channels in (c2, c3, c4, c5)
        )
        self.attend_out3, self.attend_out4, self.attend_out5 = (
            _attention(config, "neck", channels) for channels in (c3, c4, c5)
        )
        self.head = Head(config, [predictor(config, level, channels) for level, channels in enumerate((c3, c4, c5))])
        set_norms(self, config.norm_momentum)

    def forward(self, images: Tensor) -> list[Tensor]:
        x = self.attend1(self.stage1(self.down1(self.stem(images))))  # (N, 64, 160, 160)
        p3 = self.attend2(self.stage2(self.down2(x)))  # (N, 128, 80, 80)
        p4 = self.attend3(self.stage3(self.down3(p3)))  # (N, 256, 40, 40)
        p5 = self.pyramid(self.attend4(self.stage4(self.down4(p4))))  # (N, 512, 20, 20)

        n5 = self.reduce5(p5)  # (N, 256, 20, 20)
        n4 = self.reduce4(self.merge4(torch.cat([self.upsample(n5), p4], 1)))  # (N, 128, 40, 40)
        out3 = self.merge3(torch.cat([self.upsample(n4), p3], 1))  # (N, 128, 80, 80)
        raw3 = self.head(0, self.attend_out3(out3))  # (N, A, 80, 80, 5 + K)
        out4 = self.merge_out4(torch.cat([self.down_out3(out3), n4], 1))  # (N, 256, 40, 40)
        raw4 = self.head(1, self.attend_out4(out4))  # (N, A, 40, 40, 5 + K)
        out5 = self.merge_out5(torch.cat([self.down_out4(out4), n5], 1))  # (N, 512, 20, 20)
        raw5 = self.head(2, self.attend_out5(out5))  # (N, A, 20, 20, 5 + K)
        return [raw3, raw4, raw5]


class Head(nn.Module):
    """A predictor for each level; (N, C, H, W) -> logits (N, A, H, W, 5 + K): x, y, width, height, objectness and
    classes of each anchor.
    """

    def __init__(self, config: configs.YOLOv5 | configs.YOLOv7, levels: Sequence[nn.Module]) -> None:
        super().__init__()
        self.anchors = len(config.anchors[0])
        self.levels = nn.ModuleList(levels)

    def forward(self, level: int, x: Tensor) -> Tensor:
        raw = self.levels[level](x)  # (N, A * (5 + K), H, W)
        return raw.unflatten(1, (self.anchors, -1)).permute(0, 1, 3, 4, 2)


class ImageCBAM(nn.Module):
    """Equations (1) and (2), channel and then space, with an image as a clip of one frame; (N, C, H, W) -> the same."""

    def __init__(self, channels: int, *, pool: str) -> None:
        super().__init__()
        self.pool = pool
        self.cbam = CBAM(channels, pool=pool, hidden=SPATIAL_HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.cbam(x.unsqueeze(2)).squeeze(2)


def predictor(config: configs.YOLOv5 | configs.YOLOv7, level: int, channels: int) -> nn.Conv2d:
    """Return the 1x1 convolution of a level, with biases for 8 objects in an image of 640 pixels and for rare classes
    (Lin 2017, 3.3).
    """
    anchors = len(config.anchors[level])
    layer = nn.Conv2d(channels, anchors * (5 + config.classes), 1)
    assert layer.bias is not None
    biases = layer.bias.data.view(anchors, -1)
    biases[:, 4] += math.log(8 / (640 / configs.STRIDES[level]) ** 2)
    biases[:, 5:] += math.log(0.6 / (config.classes - 0.99999))
    return layer


def published_names(config: configs.YOLOv5) -> dict[str, str]:
    """Return {name in the state dict of a published YOLOv5 6.x (`model.0.conv.weight`): our name}, for the same width
    and depth.

    Parts that plain YOLOv5 lacks are left out: Swin blocks, attention, and a Focus stem's kernel (which
    `from_published` computes). So is `model.24.anchors`: anchors are `config.anchors` here, in pixels instead of cells.
    Published files (.pt) are pickles of whole models, which are unsafe to load. Load one with its own code and save
    `model.float().state_dict()`; that file fits here.
    """
    with torch.device("meta"):
        ours = list(YOLOv5(config).state_dict())
    prefixes = dict(PUBLISHED)
    if config.stem == "focus":
        ours.remove(FOCUS_KERNEL)
        prefixes["stem.conv"] = prefixes.pop("stem")
    return {
        theirs: name
        for theirs, name in rename(ours, prefixes).items()
        if not (config.swin and name.startswith("stage4.m."))
    }


def from_published(tensors: Mapping[str, Tensor], config: configs.YOLOv5) -> dict[str, Tensor]:
    """Return the tensors of a published YOLOv5 6.x state dict that fit (see `published_names`), under our names.

    The published 6x6 kernel of the stem becomes the Focus stem's 3x3 kernel, which sees the same pixels with the same
    weights. Raises InputError with the name of the first missing tensor.
    """
    names = published_names(config)
    kernel = f"{PUBLISHED['stem']}.conv.weight"
    for name in (kernel, *names):
        if name not in tensors:
            raise InputError(
                f"these weights have no tensor {name}, which a published YOLOv5 6.x has; save the state_dict() of one"
            )
    fitting = {ours: tensors[theirs] for theirs, ours in names.items()}
    return fitting | ({FOCUS_KERNEL: unfocus_kernel(tensors[kernel])} if config.stem == "focus" else {})


def focus_kernel(kernel: Tensor) -> Tensor:
    """Return the weights (outputs, C, 6, 6) at stride 2 that equal 3x3 weights behind Focus (outputs, 4 * C, 3, 3).

    Focus stacks the pixels of even rows and columns, odd rows, odd columns, and odd both.
    """
    odd_columns, odd_rows, channels = (2, 2, kernel.shape[1] // 4)
    phases = kernel.unflatten(1, (odd_columns, odd_rows, channels))  # (outputs, odd column, odd row, C, 3, 3)
    return phases.permute(0, 3, 4, 2, 5, 1).flatten(4, 5).flatten(2, 3)


def unfocus_kernel(kernel: Tensor) -> Tensor:
    """Return the inverse of `focus_kernel`: (outputs, C, 6, 6) -> (outputs, 4 * C, 3, 3)."""
    return kernel.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 5, 3, 1, 2, 4).flatten(1, 3)


def rename(names: Iterable[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    """Return {name with its prefix replaced by `prefixes`: name}, without names that have none of the prefixes."""
    return {
        theirs + name.removeprefix(ours): name
        for name in names
        for ours, theirs in prefixes.items()
        if name.startswith(f"{ours}.")
    }


def set_norms(network: nn.Module, momentum: float) -> None:
    """Set the constants of batch normalisation: YOLO's eps, and a momentum."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, momentum


def scaled(channels: int, width: float) -> int:
    """Return channels * width, rounded up to a multiple of 8."""
    return math.ceil(channels * width / 8) * 8


def _attention(config: configs.YOLOv5, place: str, channels: int) -> nn.Module:
    attends = config.attention == "cbam" and config.placement in (place, "all")
    return ImageCBAM(channels, pool=config.attention_pool) if attends else nn.Identity()
