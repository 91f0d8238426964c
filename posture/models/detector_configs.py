"""Configurations of the detectors: frozen dataclasses that import no torch, like `posture/models/configs.py`.

Every configuration has `classes` and `size`: networks take letterboxed images, float32 (N, 3, size, size) in 0..1. If
`takes_targets` is true (torchvision's networks), a network in training also takes the true boxes and returns its
losses. The others return raw outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from posture.models.configs import AtMost, Classes, ModelConfig, Share, Size, Width, require

Anchors = tuple[tuple[tuple[float, float], ...], ...]
"""For each level, from the finest on, the (width, height) of its anchor boxes in pixels of the network's image."""

YOLOV5_ANCHORS: Anchors = (
    ((10, 13), (16, 30), (33, 23)),
    ((30, 61), (62, 45), (59, 119)),
    ((116, 90), (156, 198), (373, 326)),
)
YOLOV7_ANCHORS: Anchors = (
    ((12, 16), (19, 36), (40, 28)),
    ((36, 75), (76, 55), (72, 146)),
    ((142, 110), (192, 243), (459, 401)),
)
"""As published, for images of 640 pixels."""
MAX_ANCHORS = 32
"""Maximum number of anchors of a level."""
STRIDES = (8, 16, 32)
"""Pixels of the image per cell of each level of a YOLO head."""


class _Strided32(ModelConfig):
    """Base of detectors whose image side must be a multiple of 32."""

    size: int

    def check(self) -> None:
        require(self.size >= 64 and self.size % 32 == 0, f"size must be a multiple of 32, at least 64, not {self.size}")


class _YOLO(_Strided32):
    """Base of the YOLO networks."""

    norm_momentum: float
    anchors: Anchors

    def check(self) -> None:
        super().check()
        momentum = self.norm_momentum
        require(0 < momentum <= 1, f"norm_momentum must be greater than 0, at most 1, not {momentum}")
        _refuse_anchors(self.anchors)


@dataclass(frozen=True)
class YOLOv5(_YOLO):
    """YOLOv5s 6.x (Jocher 2020) and, toggle by toggle, the paper's improved YOLOv5s (section 2.1, Figure 1).

    See `posture/models/yolov5.py`.
    """

    positive: ClassVar[tuple[str, ...]] = ("classes", "depth", "width", "window")
    takes_targets: ClassVar[bool] = False
    placements: ClassVar[tuple[str, ...]] = ("neck", "backbone", "all")

    kind: Literal["yolov5"] = "yolov5"
    classes: Classes = 80
    size: Size = 640
    """Side of the image in pixels; a multiple of 32."""
    depth: Annotated[float, AtMost(16)] = 0.33
    """Factor on the number of bottlenecks of each C3; 0.33 is the small network's."""
    width: Width = 0.5
    """Factor on every width, rounded up to a multiple of 8; 0.5 is the small network's."""
    stem: Literal["conv", "focus"] = "conv"
    """First layer. `conv`: 6x6 at stride 2. `focus`: every second pixel to channels, then 3x3 (Figure 1)."""
    swin: bool = False
    """Put Swin-v2 blocks (Liu 2021), plain and then shifted, in place of the bottlenecks of the backbone's last C3."""
    window: Annotated[int, AtMost(64)] = 8
    """Side of a Swin window in cells."""
    attention: Literal["none", "cbam"] = "none"
    """Attention: none, or CBAM (channel and space)."""
    placement: Literal["neck", "backbone", "all"] = "neck"
    """Position of CBAM: on the three outputs of the neck, after the backbone's stages, or both. No effect without
    attention.
    """
    attention_pool: Literal["avg", "avgmax"] = "avg"
    """Pooling that CBAM is computed from: averages as the paper prints (equations 1, 2), or averages and maxima
    (Woo 2018).
    """
    norm_momentum: Share = 0.03
    """Momentum of batch normalisation, 0 to 1: the share of each step in the running statistics. Short runs of a few
    hundred steps need more, such as 0.1.
    """
    anchors: Annotated[Anchors, AtMost(100_000)] = YOLOV5_ANCHORS
    """Anchor boxes of each level, the finest first: (width, height) in pixels of the network's image."""


@dataclass(frozen=True)
class YOLOv7(_YOLO):
    """YOLOv7 (Wang 2022, arXiv 2207.02696) from its published layer table. See `posture/models/yolov7.py`."""

    takes_targets: ClassVar[bool] = False

    kind: Literal["yolov7"] = "yolov7"
    classes: Classes = 80
    size: Size = 640
    """Side of the image in pixels; a multiple of 32."""
    width: Width = 1.0
    """Factor on every width, rounded up to a multiple of 8."""
    norm_momentum: Share = 0.03
    """Momentum of batch normalisation, 0 to 1: the share of each step in the running statistics. Short runs of a few
    hundred steps need more, such as 0.1.
    """
    anchors: Annotated[Anchors, AtMost(100_000)] = YOLOV7_ANCHORS
    """Anchor boxes of each level, the finest first: (width, height) in pixels of the network's image."""


@dataclass(frozen=True)
class SSD300(ModelConfig):
    """torchvision's SSD300 with VGG-16 (Liu 2015, arXiv 1512.02325). See `posture/models/torchvision_detectors.py`."""

    takes_targets: ClassVar[bool] = True

    kind: Literal["ssd300"] = "ssd300"
    classes: Classes = 80
    size: Size = 300
    """Side of the image in pixels, at least 160; the published network has 300."""
    width: Width = 1.0
    """Factor on every width. Unless it is 1, results are rounded to multiples of 8, at least 8, and published weights
    do not fit.
    """

    def check(self) -> None:
        require(self.size >= 160, f"size must be at least 160 pixels, not {self.size}: smaller images are strided away")


@dataclass(frozen=True)
class FasterRCNN(_Strided32):
    """torchvision's Faster R-CNN with ResNet-50-FPN (Ren 2015, Lin 2017). See
    `posture/models/torchvision_detectors.py`.
    """

    takes_targets: ClassVar[bool] = True

    kind: Literal["fasterrcnn"] = "fasterrcnn"
    classes: Classes = 80
    size: Size = 640
    """Side of the image in pixels; a multiple of 32."""
    width: Width = 1.0
    """Factor on every width. Unless it is 1, results are rounded to multiples of 8, at least 8, and published weights
    do not fit.
    """


IMPROVED_YOLOV5 = {"stem": "focus", "swin": True, "attention": "cbam", "placement": "neck"}
"""Changes that make `YOLOv5()` the paper's improved YOLOv5s: `YOLOv5(**IMPROVED_YOLOV5)`."""


def _refuse_anchors(anchors: Anchors) -> None:
    require(
        len(anchors) == len(STRIDES)
        and len({len(level) for level in anchors}) == 1
        and 0 < len(anchors[0]) <= MAX_ANCHORS,
        f"anchors must be {len(STRIDES)} levels with equally many (width, height) each, 1 to {MAX_ANCHORS}, "
        f"not {_shortened(anchors)}",
    )
    require(
        all(len(pair) == 2 and min(pair) > 0 for level in anchors for pair in level),
        f"anchors must be greater than 0 pixels, not {_shortened(anchors)}",
    )


def _shortened(anchors: Anchors) -> str:
    return text if len(text := str(anchors)) <= 200 else f"{text[:200]} ..."
