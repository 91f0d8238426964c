"""The detectors' toggles in one place: frozen dataclasses, free of torch, as `posture/models/configs.py` has them for
classifiers.

Every config has `classes` and `size`: networks take letterboxed images, float32 (N, 3, size, size) in 0..1.
`takes_targets` says that a network in training also takes the boxes to find and answers with its losses (torchvision's
do); the others answer with raw outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from posture.models.configs import AtMost, Classes, Share, Size, Width, refuse_too_much, refuse_unknown_choices, require

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
MOST_ANCHORS = 32
"""Of a level."""
STRIDES = (8, 16, 32)
"""Pixels of the image per cell of each level of a YOLO head."""


@dataclass(frozen=True)
class YOLOv5:
    """YOLOv5s 6.x (Jocher 2020) and, toggle by toggle, the paper's improved YOLOv5s (section 2.1, Figure 1). See
    `posture/models/yolov5.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    takes_targets: ClassVar[bool] = False
    placements: ClassVar[tuple[str, ...]] = ("neck", "backbone", "all")

    kind: Literal["yolov5"] = "yolov5"
    classes: Classes = 80
    size: Size = 640
    """Side of the image in pixels; a multiple of 32."""
    depth: Annotated[float, AtMost(16)] = 0.33
    """Multiplies the number of bottlenecks of each C3; 0.33 is the small network's."""
    width: Width = 0.5
    """Multiplies every width, rounded up to a multiple of 8; 0.5 is the small network's."""
    stem: Literal["conv", "focus"] = "conv"
    """`conv`: 6x6 at stride 2. `focus`: every second pixel to channels, then 3x3 (Figure 1)."""
    swin: bool = False
    """The backbone's last C3 has Swin-v2 blocks (Liu 2021), plain and then shifted, in place of its bottlenecks."""
    window: Annotated[int, AtMost(64)] = 8
    """Side of a Swin window in cells."""
    attention: Literal["none", "cbam"] = "none"
    placement: Literal["neck", "backbone", "all"] = "neck"
    """Where CBAM stands: on the three outputs of the neck, after the backbone's stages, or both. Without attention it
    has no effect.
    """
    attention_pool: Literal["avg", "avgmax"] = "avg"
    """What CBAM looks at: averages as the paper prints (equations 1, 2), or averages and maxima (Woo 2018)."""
    norm_momentum: Share = 0.03
    """Of batch normalisation: what each step adds to the statistics that inference uses. Runs of a few hundred steps
    ask for more, such as 0.1.
    """
    anchors: Annotated[Anchors, AtMost(100_000)] = YOLOV5_ANCHORS

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        _refuse_sizes(self, "classes", "depth", "width", "window")
        require(
            0 < self.norm_momentum <= 1, f"norm_momentum must be greater than 0, at most 1, not {self.norm_momentum}"
        )
        _refuse_anchors(self.anchors)


@dataclass(frozen=True)
class YOLOv7:
    """YOLOv7 (Wang 2022, arXiv 2207.02696) from its published layer table. See `posture/models/yolov7.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    takes_targets: ClassVar[bool] = False

    kind: Literal["yolov7"] = "yolov7"
    classes: Classes = 80
    size: Size = 640
    """Side of the image in pixels; a multiple of 32."""
    width: Width = 1.0
    """Multiplies every width, rounded up to a multiple of 8."""
    norm_momentum: Share = 0.03
    """Of batch normalisation: what each step adds to the statistics that inference uses. Runs of a few hundred steps
    ask for more, such as 0.1.
    """
    anchors: Annotated[Anchors, AtMost(100_000)] = YOLOV7_ANCHORS

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        _refuse_sizes(self, "classes", "width")
        require(
            0 < self.norm_momentum <= 1, f"norm_momentum must be greater than 0, at most 1, not {self.norm_momentum}"
        )
        _refuse_anchors(self.anchors)


@dataclass(frozen=True)
class SSD300:
    """SSD300 with VGG-16 (Liu 2015, arXiv 1512.02325), torchvision's. See `posture/models/torchvision_detectors.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    takes_targets: ClassVar[bool] = True

    kind: Literal["ssd300"] = "ssd300"
    classes: Classes = 80
    size: Size = 300
    """Side of the image in pixels, at least 160; the published network has 300."""
    width: Width = 1.0
    """Multiplies every width; other than 1, the result is rounded to a multiple of 8, at least 8, and published weights
    do not fit.
    """

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        for name in ("classes", "width"):
            require(
                0 < getattr(self, name) < math.inf,
                f"{name} must be a finite number greater than 0, not {getattr(self, name)}",
            )
        refuse_too_much(self)
        require(self.size >= 160, f"size must be at least 160 pixels, not {self.size}: smaller images are strided away")


@dataclass(frozen=True)
class FasterRCNN:
    """Faster R-CNN with ResNet-50-FPN (Ren 2015, Lin 2017), torchvision's. See
    `posture/models/torchvision_detectors.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    takes_targets: ClassVar[bool] = True

    kind: Literal["fasterrcnn"] = "fasterrcnn"
    classes: Classes = 80
    size: Size = 640
    """Side of the image in pixels; a multiple of 32."""
    width: Width = 1.0
    """Multiplies every width; other than 1, the result is rounded to a multiple of 8, at least 8, and published weights
    do not fit.
    """

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        _refuse_sizes(self, "classes", "width")


IMPROVED_YOLOV5 = {"stem": "focus", "swin": True, "attention": "cbam", "placement": "neck"}
"""What turns `YOLOv5()` into the paper's improved YOLOv5s: `YOLOv5(**IMPROVED_YOLOV5)`."""


def _refuse_sizes(config: YOLOv5 | YOLOv7 | FasterRCNN, *positive: str) -> None:
    for name in positive:
        require(
            0 < getattr(config, name) < math.inf,
            f"{name} must be a finite number greater than 0, not {getattr(config, name)}",
        )
    refuse_too_much(config)
    require(
        config.size >= 64 and config.size % 32 == 0, f"size must be a multiple of 32, at least 64, not {config.size}"
    )


def _refuse_anchors(anchors: Anchors) -> None:
    require(
        len(anchors) == len(STRIDES)
        and len({len(level) for level in anchors}) == 1
        and 0 < len(anchors[0]) <= MOST_ANCHORS,
        f"anchors must be {len(STRIDES)} levels with equally many (width, height) each, 1 to {MOST_ANCHORS}, not {_shortened(anchors)}",
    )
    require(
        all(len(pair) == 2 and min(pair) > 0 for level in anchors for pair in level),
        f"anchors must be greater than 0 pixels, not {_shortened(anchors)}",
    )


def _shortened(anchors: Anchors) -> str:
    return text if len(text := str(anchors)) <= 200 else f"{text[:200]} ..."
