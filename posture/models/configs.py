"""Configurations of the clip classifiers: frozen dataclasses that import no torch, so that configuration stays fast.

All defaults are the published baseline; each toggle is one ablation row and one search dimension. Every configuration
has `classes`, `frames`, `size` and `inputs`. `inputs` lists the arguments of the network's `forward`, in order: "rgb"
is float32 (N, 3, frames, size, size), "flow" is float32 (N, 2, frames - 1, size, size). See
`posture/data/feed/clip_transforms.py`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class AtMost:
    """For `Annotated`: the largest absolute value of a number, or of each number of a tuple.

    A larger value is a mistake, or an attack on memory.
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
class ModelConfig:
    """Base of all network configurations.

    Raises ValueError, with the field and the allowed values, if the network cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    positive: ClassVar[tuple[str, ...]] = ("classes", "width")
    """Fields that must be greater than 0."""
    solved: ClassVar[bool] = False
    """True if the network is fitted at once (`posture/train/solve.py`), not in steps."""

    def __post_init__(self) -> None:
        _refuse_unknown_choices(self)
        for name in self.positive:
            value = getattr(self, name)
            require(0 < value < math.inf, f"{name} must be a finite number greater than 0, not {value}")
        _refuse_too_much(self)
        for name in ("dropout", "stochastic_depth"):
            share = getattr(self, name, None) or 0.0
            require(0.0 <= share < 1.0, f"{name} must be at least 0 and less than 1, not {share}")
        require(
            getattr(self, "input", "rgb") == "rgb" or getattr(self, "frames", 2) >= 2,
            "frames must be at least 2 for differences of neighbouring frames, not 1",
        )
        self.check()

    def check(self) -> None:
        """Raise ValueError for what else cannot be built."""


@dataclass(frozen=True)
class C3D(ModelConfig):
    """C3D (Tran 2015) and, toggle by toggle, the paper's improved C3D (section 2.2, Figures 4-6).

    See `posture/models/c3d.py`.
    """

    positive: ClassVar[tuple[str, ...]] = ("classes", "width", "hidden", "groups", "eps", "attention_reduction")
    stages: ClassVar[tuple[str, ...]] = ("stage1", "stage2", "stage3", "stage4", "stage5")
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)
    placements: ClassVar[dict[str, tuple[str, ...]]] = {"early": stages[:2], "late": stages[3:], "all": stages}

    kind: Literal["c3d"] = "c3d"
    classes: Classes = 101
    frames: Frames = 16
    """Frames of a clip: at least 16, or 8 with the `gap` head, which has no fifth pooling."""
    size: Size = 112
    """Height and width of a frame in pixels, at least 16."""
    input: Literal["rgb", "diff", "both", "late"] = "rgb"
    """Input of the first layer. `diff`: differences of neighbouring frames. `both`: half of its filters see frames, the
    others differences. `late`: two networks, one for each, with averaged scores. Clips are RGB in any case.
    """

    width: Width = 1.0
    """Factor on every width, including `hidden`. Unless it is 1, results are rounded to multiples of 8, at least 8."""
    widths: Annotated[Five, AtMost(4096)] = (64, 128, 256, 512, 512)
    """Channels of each stage."""
    depths: Annotated[Five, AtMost(64)] = (1, 1, 2, 2, 2)
    """Convolutions of each stage; the stem is stage 1's first."""
    stem: Literal["c3d", "conv7"] = "c3d"
    """First layers. `c3d`: 3x3x3, then a 1x2x2 pooling. `conv7`: 3x7x7 at spatial stride 2 instead of both, split as
    `asymmetric` says (Figure 5).
    """
    stem_motion: Share = 0.0
    """Share, 0 to 1, of the stem's filters that start as differences over time (antisymmetric about the middle frame).
    They do not respond to what does not move.
    """
    residual: bool = False
    """Compute x + F(x) in each stage, with a 1x1x1 projection of x if the width changes. The stem comes before the
    first sum.
    """
    branch_gain: Annotated[float, AtMost(100)] = 0.0
    """Initial gain of the last layer of F. At 0 a stage starts as its shortcut; at 1, F counts from the first step."""
    stochastic_depth: Share = 0.0
    """Probability that training leaves out F of stage 5 for a clip; earlier stages have it in proportion to their
    number (Huang 2016).
    """
    norm: Literal["none", "batch", "group"] = "none"
    """Normalisation after each convolution; `group` is equations (10)-(13)."""
    groups: Annotated[int, AtMost(65_536)] = 8
    """Number of groups with `norm = "group"`; must divide every stage's width."""
    eps: Share = 1e-5
    """Constant inside the normalisation's square root, equation (10)."""
    standardize: bool = False
    """Standardise every filter: mean 0 and variance 1 / (number of weights), times a learned gain (Qiao 2019). Group
    normalisation learns fast with it.
    """
    asymmetric: Literal["none", "pair", "triple"] = "none"
    """Split of t x k x k kernels: `pair` = (t,k,1), (1,1,k) or `triple` = (1,k,1), (1,1,k), (t,1,1)."""
    attention: Literal["none", "cbam", "stcbam"] = "none"
    """`cbam`: channel, then space, equations (14), (15). `stcbam`: and then time, equation (16)."""
    placement: str = "all"
    """Stages with attention: early (1, 2), late (4, 5), all, or names such as "stage3+stage5". No effect without
    attention.
    """
    attention_pool: Literal["avg", "avgmax"] = "avg"
    """Pooling before attention: averages as the paper prints, or averages and maxima (CBAM, Woo 2018)."""
    attention_reduction: Annotated[int, AtMost(65_536)] = 16
    """Divisor of the width that gives the units of channel attention's hidden layer, at least 8."""
    spatial_attention: Literal["shared", "per_frame"] = "shared"
    """One H x W map for the whole clip ("two-dimensional", section 2.2), or one for each frame."""
    head: Literal["fc", "gap"] = "fc"
    """`fc`: pooling, two hidden layers, classes. `gap`: average over T, H, W, then classes."""
    pool5: Literal["caffe", "padded"] = "caffe"
    """Pooling of the `fc` head. `caffe`: windows begin with the first cell and frame, and the last may be smaller, as
    in the published network. `padded`: windows begin one cell earlier. Runs saved before December 2026 have no such
    field and use `padded`.
    """
    hidden: Annotated[int, AtMost(65_536)] = 4096
    """Units of the `fc` head's two hidden layers."""
    dropout: Share = 0.5
    """Probability of dropout before the last layers."""

    def check(self) -> None:
        for name in ("widths", "depths"):
            values = getattr(self, name)
            require(
                len(values) == len(self.stages) and min(values) > 0,
                f"{name} must be five numbers greater than 0, not {values}",
            )
        require(0.0 <= self.stem_motion <= 1.0, f"stem_motion must be a share from 0 to 1, not {self.stem_motion}")
        shorter = f"; head 'gap' takes {_LEAST_FRAMES['gap']}" if self.head == "fc" else ""
        require(
            self.frames >= self.least_frames,
            f"frames must be at least {self.least_frames} with head {self.head!r}, "
            f"not {self.frames}: fewer are pooled away{shorter}",
        )
        require(self.size >= 16, f"size must be at least 16 pixels, not {self.size}: smaller frames are pooled away")
        require(
            self.residual or not self.stochastic_depth,
            "stochastic_depth needs residual = true: only a residual stage works without its branch",
        )
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
        """Frames of the shortest clip that survives the three poolings over time, and a fourth before `fc`."""
        return _LEAST_FRAMES[self.head]

    @property
    def attention_stages(self) -> tuple[str, ...]:
        """Names of the stages that `placement` selects, in order. Raises ValueError for an unknown or empty choice."""
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
"""Changes that make `C3D()` the paper's improved C3D at its own frame size: `C3D(**IMPROVED)`."""

LITTLE_FOOTAGE: dict[str, Any] = {"norm": "batch", "input": "both", "stem_motion": 0.0}
"""Changes of that network that learn more from little footage: the recipe `jobs/action.py:improved` has them."""

BEFORE: dict[str, dict[str, str]] = {"c3d": {"pool5": "padded"}, "two_stream": {"pooling": "2x2"}}
"""Values of fields that older saved runs do not have, by kind of model."""

_LEAST_FRAMES = {"fc": 16, "gap": 8}


@dataclass(frozen=True)
class TorchvisionVideo(ModelConfig):
    """torchvision's video networks, unchanged but for the number of classes. See
    `posture/models/torchvision_videos.py`.

    18-layer ResNets (Tran 2018, arXiv 1711.11248): `r3d_18` convolves over time throughout, `mc3_18` only in its stem
    and first stage, `r2plus1d_18` splits every convolution in space and time. `s3d` (Xie 2018, arXiv 1712.04851) is
    an Inception network with such convolutions. `mvit_v2_s` (Li 2022, arXiv 2112.01526) and `swin3d_t` (Liu 2022, arXiv
    2106.13230) are transformers. They have no width.
    """

    positive: ClassVar[tuple[str, ...]] = ("classes", "frames")
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)

    kind: Literal["r3d_18", "mc3_18", "r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"] = "r3d_18"
    classes: Classes = 101
    frames: Frames = 16
    """Frames of a clip: any number, because averaging over time is the last step; `s3d` takes at least 14, `mvit_v2_s`
    exactly 16.
    """
    size: Size = 112
    """Height and width of a frame in pixels: at least 16, 32 with `s3d` and `swin3d_t`; `mvit_v2_s` takes exactly 224.
    """
    input: Literal["rgb", "diff", "both", "late"] = "rgb"
    """Input of the first layer, as in `C3D`."""
    dropout: Share = 0.0
    """Probability of dropout before the last layer. Published: 0.2 in `s3d`, 0.5 in `mvit_v2_s`, else none."""
    stochastic_depth: Annotated[float | None, AtMost(1)] = None
    """Probability that training leaves out the last residual branch for a clip; earlier ones have it in proportion to
    their number. None: as published, 0.2 in `mvit_v2_s`, 0.1 in `swin3d_t`, else 0.
    """

    def check(self) -> None:
        require(
            self.kind != "s3d" or not self.stochastic_depth,
            f"stochastic_depth must be 0 with s3d, which has no residual branches, not {self.stochastic_depth}",
        )
        require(
            self.kind != "swin3d_t" or self.input == "rgb" or self.frames % 2 == 0,
            f"frames must be even for differences with swin3d_t, not {self.frames}: it pads the last one with zeros",
        )
        require(
            self.kind != "mvit_v2_s" or (self.frames, self.size) == (16, 224),
            f"mvit_v2_s takes exactly 16 frames of 224 pixels, for which its tables of positions are made, "
            f"not {self.frames} of {self.size}; set model.frames=16 and model.size=224",
        )
        require(self.kind != "s3d" or self.frames >= 14, f"frames must be at least 14 with s3d, not {self.frames}")
        least = {"s3d": 32, "swin3d_t": 32}.get(self.kind, 16)
        require(
            self.size >= least,
            f"size must be at least {least} pixels with {self.kind}, not {self.size}: smaller frames are strided away",
        )


VideoResNet = TorchvisionVideo
"""Name in recipes written before December 2026."""


@dataclass(frozen=True)
class Linear(ModelConfig):
    """A linear classifier on a coarse mean frame and coarse motion, the least that a network must exceed. See
    `posture/models/linear.py`.
    """

    positive: ClassVar[tuple[str, ...]] = ("classes", "grid")
    inputs: ClassVar[tuple[str, ...]] = ("rgb",)
    solved: ClassVar[bool] = True

    kind: Literal["linear"] = "linear"
    classes: Classes = 101
    frames: Frames = 16
    """Frames of a clip, at least 2."""
    size: Size = 56
    """Height and width of a frame in pixels, at least `grid`."""
    grid: Annotated[int, AtMost(112)] = 14
    """Cells along each side of a frame over which colour and motion are averaged."""

    def check(self) -> None:
        require(
            self.frames >= 2, f"frames must be at least 2, not {self.frames}: motion is between neighbouring frames"
        )
        require(self.size >= self.grid, f"size must be at least grid {self.grid}, not {self.size}")


@dataclass(frozen=True)
class TwoStream(ModelConfig):
    """Two-Stream (Simonyan & Zisserman 2014): one network for a frame, another for stacked optical flow. See
    `posture/models/two_stream.py`.
    """

    positive: ClassVar[tuple[str, ...]] = ("classes", "width", "frames", "flow_frames")

    kind: Literal["two_stream"] = "two_stream"
    classes: Classes = 101
    frames: Frames = 16
    """Frames of a clip: at least `flow_frames` + 1 with a temporal stream."""
    size: Size = 224
    """Height and width of a frame in pixels, at least 16 with `resnet18`, 25 with `cnn_m`."""

    streams: Literal["both", "spatial", "temporal"] = "both"
    """`spatial` sees the clip's middle frame, `temporal` the flow around it; `both` averages their scores (late
    fusion).
    """
    backbone: Literal["cnn_m", "resnet18"] = "cnn_m"
    """Network of each stream: CNN-M-2048 (Chatfield 2014), as published, or ResNet-18 (He 2015)."""
    pooling: Literal["3x3", "2x2"] = "3x3"
    """Windows of `cnn_m`'s first two poolings, at stride 2; 3x3 is published. Runs saved before December 2026 have no
    such field and use 2x2.
    """
    flow_frames: Annotated[int, AtMost(1023)] = 10
    """Flow fields that the temporal stream stacks; each is two channels."""
    subtract_mean_flow: bool = True
    """Subtract each flow field's mean vector, which removes much of the camera's motion (section 3.1)."""
    width: Width = 1.0
    """Factor on every width, hidden layers too. Unless it is 1, results are rounded to multiples of 8, at least 8."""
    dropout: Share = 0.9
    """Probability of dropout before each of `cnn_m`'s last two layers, and before `resnet18`'s last. 0.9 is published
    for training from scratch; small data sets need less.
    """

    def check(self) -> None:
        require(
            "flow" not in self.inputs or self.frames > self.flow_frames,
            f"frames must be greater than flow_frames {self.flow_frames}, not {self.frames}: "
            "flow is between neighbouring frames",
        )
        least = {"cnn_m": 25, "resnet18": 16}[self.backbone]
        require(
            self.size >= least,
            f"size must be at least {least} pixels with backbone {self.backbone!r}, not {self.size}: "
            "smaller frames are strided away",
        )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Arguments of `forward`, in order."""
        return {"both": ("rgb", "flow"), "spatial": ("rgb",), "temporal": ("flow",)}[self.streams]

    def scaled(self, width: int) -> int:
        """Return a published width times `width`, rounded."""
        return _scaled(width, self.width)


_types = cache(get_type_hints)  # evaluating annotations takes longer than all other checks


def _refuse_unknown_choices(config: Any) -> None:
    """Raise ValueError if a `Literal` field holds another value: dataclasses do not check."""
    hints = _types(type(config))
    for field in fields(config):
        if get_origin(hints[field.name]) is Literal and getattr(config, field.name) not in get_args(hints[field.name]):
            allowed = ", ".join(map(repr, get_args(hints[field.name])))
            raise ValueError(f"{field.name} must be one of {allowed}, not {getattr(config, field.name)!r}")


def _refuse_too_much(config: Any) -> None:
    """Raise ValueError if a field holds a number above the bound in its type (`AtMost`), or one that is not finite."""
    hints = _types(type(config), include_extras=True)
    for field in fields(config):
        for bound in getattr(hints[field.name], "__metadata__", ()):
            for number in _numbers(getattr(config, field.name)):
                short = isinstance(number, float) or abs(number) < 10**40
                require(
                    -bound.most <= number <= bound.most,
                    f"{field.name} must be a finite number of at most {bound.most:,}, "
                    f"not {number if short else 'a number of more than 40 digits'}",
                )


def _numbers(value: Any) -> list[float]:
    """Return all numbers in nested tuples, or the number itself; None has none."""
    if isinstance(value, tuple | list):
        return [number for part in value for number in _numbers(part)]
    return [] if value is None else [value]


def _scaled(width: int, by: float) -> int:
    return width if by == 1.0 else max(8, 8 * round(width * by / 8))


def require(condition: bool, message: str) -> None:
    """Raise ValueError(message) unless the condition holds."""
    if not condition:
        raise ValueError(message)
