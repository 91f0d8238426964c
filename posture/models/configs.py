"""Every architecture's toggles in one place: frozen dataclasses, free of torch, so that configuration stays fast.

All defaults are the published baseline; each toggle is one ablation row and one search dimension. Every config has
`classes`, `frames`, `size` and `inputs`: what its network's `forward` takes, in order, of "rgb", float32 (N, 3, frames,
size, size), and "flow", float32 (N, 2, frames - 1, size, size); see `posture/data/feed/clip_transforms.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class AtMost:
    """For `Annotated`: the largest absolute value of a number, or of each number of a tuple. What is larger is a
    mistake, or an attack on memory.
    """

    most: float


Classes = Annotated[int, AtMost(25_000)]
Frames = Annotated[int, AtMost(1024)]
Size = Annotated[int, AtMost(4096)]
Width = Annotated[float, AtMost(16)]
Share = Annotated[float, AtMost(1)]
Five = tuple[int, int, int, int, int]
"""One number for each of C3D's five stages."""


@dataclass(frozen=True)
class C3D:
    """C3D (Tran 2015) and, toggle by toggle, the paper's improved C3D (section 2.2, Figures 4-6). See
    `posture/models/c3d.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    stages: ClassVar[tuple[str, ...]] = ("stage1", "stage2", "stage3", "stage4", "stage5")
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)
    placements: ClassVar[dict[str, tuple[str, ...]]] = {"early": stages[:2], "late": stages[3:], "all": stages}

    kind: Literal["c3d"] = "c3d"
    classes: Classes = 101
    frames: Frames = 16
    """Frames in a clip: at least 16, or 8 with the `gap` head, which has no fifth pooling."""
    size: Size = 112
    """Height and width of a frame in pixels, at least 16."""

    width: Width = 1.0
    """Multiplies every width, `hidden` too; other than 1, the result is rounded to a multiple of 8, at least 8."""
    widths: Annotated[Five, AtMost(4096)] = (64, 128, 256, 512, 512)
    """Channels of each stage."""
    depths: Annotated[Five, AtMost(64)] = (1, 1, 2, 2, 2)
    """Convolutions of each stage; the stem is stage 1's first."""
    stem: Literal["c3d", "conv7"] = "c3d"
    """`c3d`: 3x3x3, then a 1x2x2 pooling. `conv7`: 3x7x7 at spatial stride 2 instead of both; split as `asymmetric`
    says (Figure 5).
    """
    stem_motion: Share = 0.0
    """Share of the stem's filters that start as differences over time, antisymmetric about the middle frame: what
    stands still is not there.
    """
    residual: bool = False
    """Each stage is x + F(x), with a 1x1x1 projection of x where the width changes. The stem stands before the first
    sum.
    """
    branch_gain: Annotated[float, AtMost(100)] = 0.0
    """Gain of the last layer of F before training. At 0 a stage starts as its shortcut; at 1, F has its say from the
    first step.
    """
    norm: Literal["none", "batch", "group"] = "none"
    """After each convolution; `group` is equations (10)-(13)."""
    groups: Annotated[int, AtMost(65_536)] = 8
    """Groups of `norm = "group"`; must divide every stage's width."""
    eps: Share = 1e-5
    """Inside the normalisation's square root, equation (10)."""
    standardize: bool = False
    """Every filter's weights have mean 0 and variance 1 / (their number), times a gain (Qiao 2019): what group
    normalisation learns fast with.
    """
    asymmetric: Literal["none", "pair", "triple"] = "none"
    """t x k x k kernels split into `pair` = (t,k,1), (1,1,k) or `triple` = (1,k,1), (1,1,k), (t,1,1)."""
    attention: Literal["none", "cbam", "stcbam"] = "none"
    """`cbam`: channel, then space, equations (14), (15). `stcbam`: and then time, equation (16)."""
    placement: str = "all"
    """Stages with attention: early (1, 2), late (4, 5), all, or names such as "stage3+stage5". Without attention it has
    no effect.
    """
    attention_pool: Literal["avg", "avgmax"] = "avg"
    """What attention looks at: averages as the paper prints, or averages and maxima (CBAM, Woo 2018)."""
    attention_reduction: Annotated[int, AtMost(65_536)] = 16
    """The channel attention's hidden layer has width / this many units, at least 8."""
    spatial_attention: Literal["shared", "per_frame"] = "shared"
    """One H x W map for the whole clip ("two-dimensional", section 2.2), or one for each frame."""
    head: Literal["fc", "gap"] = "fc"
    """`fc`: pooling, two hidden layers, classes. `gap`: average over T, H, W, then classes."""
    pool5: Literal["caffe", "padded"] = "caffe"
    """The `fc` head's pooling. `caffe`: windows begin with the first cell and frame, and the last may be smaller, as
    the published network has it. `padded`: they begin a cell before, as in runs of versions before December 2026, which
    have no such field.
    """
    hidden: Annotated[int, AtMost(65_536)] = 4096
    """Units of the `fc` head's two hidden layers."""
    dropout: Share = 0.5

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        for name in ("classes", "width", "hidden", "groups", "eps", "attention_reduction"):
            require(
                0 < getattr(self, name) < math.inf,
                f"{name} must be a finite number greater than 0, not {getattr(self, name)}",
            )
        for name in ("widths", "depths"):
            values = getattr(self, name)
            require(
                len(values) == len(self.stages) and min(values) > 0,
                f"{name} must be five numbers greater than 0, not {values}",
            )
        refuse_too_much(self)
        require(0.0 <= self.dropout < 1.0, f"dropout must be at least 0 and less than 1, not {self.dropout}")
        require(0.0 <= self.stem_motion <= 1.0, f"stem_motion must be a share from 0 to 1, not {self.stem_motion}")
        shorter = f"; head 'gap' takes {_LEAST_FRAMES['gap']}" if self.head == "fc" else ""
        require(
            self.frames >= self.least_frames,
            f"frames must be at least {self.least_frames} with head {self.head!r}, "
            f"not {self.frames}: fewer are pooled away{shorter}",
        )
        require(self.size >= 16, f"size must be at least 16 pixels, not {self.size}: smaller frames are pooled away")
        _ = self.attention_stages
        if self.norm == "group":
            self._refuse_groups()

    @property
    def channels(self) -> Five:
        """Channels of each stage after `width`."""
        return tuple(_scaled(width, self.width) for width in self.widths)  # type: ignore[return-value]

    @property
    def hidden_features(self) -> int:
        """Units of the `fc` head's hidden layers after `width`."""
        return _scaled(self.hidden, self.width)

    @property
    def least_frames(self) -> int:
        """The shortest clip that survives the poolings over time: three, and a fourth before the `fc` head."""
        return _LEAST_FRAMES[self.head]

    @property
    def attention_stages(self) -> tuple[str, ...]:
        """Names of the stages that `placement` selects, in order. Raises ValueError where it selects none, or one that
        is not there.
        """
        names = [name for name in re.split(r"[+,\s]+", self.placement) if name]
        allowed = f"allowed are {', '.join([*self.placements, *self.stages])}, or several joined by +"
        require(bool(names), f"placement {self.placement!r} selects no stage; {allowed}")
        for name in names:
            require(
                name in self.placements or name in self.stages,
                f"placement {self.placement!r}: there is no {name!r}; {allowed}",
            )
        selected = {stage for name in names for stage in self.placements.get(name, (name,))}
        return tuple(stage for stage in self.stages if stage in selected)

    def _refuse_groups(self) -> None:
        common = math.gcd(*self.channels)
        allowed = ", ".join(str(count) for count in range(1, common + 1) if common % count == 0)
        for stage, width in zip(self.stages, self.channels, strict=True):
            require(
                width % self.groups == 0,
                f"groups {self.groups} does not divide {stage}'s width {width}; "
                f"widths {self.channels} allow groups {allowed}",
            )


IMPROVED: dict[str, Any] = {
    "widths": (32, 64, 128, 256, 512),
    "depths": (1, 2, 2, 2, 2),
    "stem": "conv7",
    "stem_motion": 1.0,
    "residual": True,
    "branch_gain": 1.0,
    "norm": "group",
    "groups": 4,
    "standardize": True,
    "asymmetric": "pair",
    "attention": "stcbam",
    "placement": "late",
    "head": "gap",
    "dropout": 0.2,
    "size": 56,
}
"""What turns `C3D()` into the paper's improved C3D at its own frame size: `C3D(**IMPROVED)`."""

BEFORE: dict[str, dict[str, str]] = {"c3d": {"pool5": "padded"}, "two_stream": {"pooling": "2x2"}}
"""Of runs that were saved before a field existed, what it would have been, by kind of model."""

_LEAST_FRAMES = {"fc": 16, "gap": 8}


@dataclass(frozen=True)
class VideoResNet:
    """torchvision's 18-layer video ResNets with random weights: references that people would pick instead. See
    `posture/models/torchvision_videos.py`.

    `r3d_18` convolves over time throughout, `mc3_18` in its stem and first stage alone, `r2plus1d_18` splits every
    convolution in space and time (Tran 2018, arXiv 1711.11248). They have no width. Raises ValueError, naming the field
    and what is allowed.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)

    kind: Literal["r3d_18", "mc3_18", "r2plus1d_18"] = "r3d_18"
    classes: Classes = 101
    frames: Frames = 16
    """Frames in a clip, any number: averaging over time is the last step."""
    size: Size = 112
    """Height and width of a frame in pixels, at least 16."""
    dropout: Share = 0.0
    """Before the last layer; the published networks have none."""

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        for name in ("classes", "frames"):
            require(getattr(self, name) > 0, f"{name} must be greater than 0, not {getattr(self, name)}")
        refuse_too_much(self)
        require(self.size >= 16, f"size must be at least 16 pixels, not {self.size}: smaller frames are strided away")
        require(0.0 <= self.dropout < 1.0, f"dropout must be at least 0 and less than 1, not {self.dropout}")


@dataclass(frozen=True)
class TwoStream:
    """Two-Stream (Simonyan & Zisserman 2014): one network looks at a frame, another at stacked optical flow. See
    `posture/models/two_stream.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    kind: Literal["two_stream"] = "two_stream"
    classes: Classes = 101
    frames: Frames = 16
    """Frames in a clip: at least `flow_frames` + 1 where there is a temporal stream."""
    size: Size = 224
    """Height and width of a frame in pixels, at least 16 with `resnet18`, 25 with `cnn_m`."""

    streams: Literal["both", "spatial", "temporal"] = "both"
    """`spatial` sees the clip's middle frame, `temporal` the flow around it; `both` average their scores (late fusion).
    """
    backbone: Literal["cnn_m", "resnet18"] = "cnn_m"
    """Of each stream: CNN-M-2048 (Chatfield 2014), as published, or ResNet-18 (He 2015)."""
    pooling: Literal["3x3", "2x2"] = "3x3"
    """Windows of `cnn_m`'s first two poolings, at stride 2; 3x3 is published. Runs of versions before December 2026,
    which have no such field, have 2x2.
    """
    flow_frames: Annotated[int, AtMost(1023)] = 10
    """Flow fields that the temporal stream stacks; each is two channels."""
    subtract_mean_flow: bool = True
    """Take each flow field's mean vector from it, which takes out much of the camera's motion (section 3.1)."""
    width: Width = 1.0
    """Multiplies every width, hidden layers too; other than 1, the result is rounded to a multiple of 8, at least 8."""
    dropout: Share = 0.9
    """Before each of `cnn_m`'s last two layers, and before `resnet18`'s last. As published for training from scratch;
    small footage asks for less.
    """

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        for name in ("classes", "width", "frames", "flow_frames"):
            require(
                0 < getattr(self, name) < math.inf,
                f"{name} must be a finite number greater than 0, not {getattr(self, name)}",
            )
        refuse_too_much(self)
        require(0.0 <= self.dropout < 1.0, f"dropout must be at least 0 and less than 1, not {self.dropout}")
        require(
            "flow" not in self.inputs or self.frames > self.flow_frames,
            f"frames must be greater than flow_frames {self.flow_frames}, not {self.frames}: flow is between neighbouring frames",
        )
        least = {"cnn_m": 25, "resnet18": 16}[self.backbone]
        require(
            self.size >= least,
            f"size must be at least {least} pixels with backbone {self.backbone!r}, not {self.size}: smaller frames are "
            "strided away",
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """What `forward` takes, in order."""
        return {"both": ("rgb", "flow"), "spatial": ("rgb",), "temporal": ("flow",)}[self.streams]

    def scaled(self, width: int) -> int:
        """A published width after `width`."""
        return _scaled(width, self.width)


def refuse_unknown_choices(config: Any) -> None:
    """Raises ValueError where a `Literal` field of a dataclass holds something else; dataclasses themselves do not
    look.
    """
    hints = get_type_hints(type(config))
    for field in fields(config):
        if get_origin(hints[field.name]) is Literal and getattr(config, field.name) not in get_args(hints[field.name]):
            allowed = ", ".join(map(repr, get_args(hints[field.name])))
            raise ValueError(f"{field.name} must be one of {allowed}, not {getattr(config, field.name)!r}")


def refuse_too_much(config: Any) -> None:
    """Raises ValueError if a field of a dataclass holds a number above the bound in its type (`AtMost`), or one that is
    not finite.
    """
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):
        for bound in getattr(hints[field.name], "__metadata__", ()):
            for number in _numbers(getattr(config, field.name)):
                require(
                    not number > bound.most and not number < -bound.most and number == number,
                    f"{field.name} must be a finite number of at most "
                    f"{bound.most:,}, not {number if isinstance(number, float) or abs(number) < 10**40 else 'a number of more than 40 digits'}",
                )


def _numbers(value: Any) -> list[float]:
    """All numbers in tuples within tuples, or the number itself."""
    return [number for part in value for number in _numbers(part)] if isinstance(value, tuple | list) else [value]


def _scaled(width: int, by: float) -> int:
    return width if by == 1.0 else max(8, 8 * round(width * by / 8))


def require(condition: bool, message: str) -> None:
    """Raises ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)
