"""Every architecture's toggles in one place: frozen dataclasses, free of torch, so that configuration stays fast.

All defaults are the published baseline; each toggle is one ablation row and one search dimension.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

Five = tuple[int, int, int, int, int]
"""One number for each of C3D's five stages."""


@dataclass(frozen=True)
class C3D:
    """C3D (Tran 2015) and, toggle by toggle, the paper's improved C3D (section 2.2, Figures 4-6). See `posture/models/c3d.py`.

    Raises ValueError, naming the field and what is allowed, for values that cannot be built.
    """

    __pydantic_config__: ClassVar = {"extra": "forbid"}
    stages: ClassVar[tuple[str, ...]] = ("stage1", "stage2", "stage3", "stage4", "stage5")
    placements: ClassVar[dict[str, tuple[str, ...]]] = {"early": stages[:2], "late": stages[3:], "all": stages}

    kind: Literal["c3d"] = "c3d"
    classes: int = 101
    frames: int = 16
    """Frames in a clip: at least 16, or 8 with the `gap` head, which has no fifth pooling."""
    size: int = 112
    """Height and width of a frame in pixels, at least 16."""

    width: float = 1.0
    """Multiplies every width, `hidden` too; other than 1, the result is rounded to a multiple of 8, at least 8."""
    widths: Five = (64, 128, 256, 512, 512)
    """Channels of each stage."""
    depths: Five = (1, 1, 2, 2, 2)
    """Convolutions of each stage; the stem is stage 1's first."""
    stem: Literal["c3d", "conv7"] = "c3d"
    """`c3d`: 3x3x3, then a 1x2x2 pooling. `conv7`: 3x7x7 at spatial stride 2 instead of both; split as `asymmetric` says (Figure 5)."""
    residual: bool = False
    """Each stage is x + F(x), with a 1x1x1 projection of x where the width changes. The stem stands before the first sum."""
    norm: Literal["none", "batch", "group"] = "none"
    """After each convolution; `group` is equations (10)-(13)."""
    groups: int = 8
    """Groups of `norm = "group"`; must divide every stage's width."""
    eps: float = 1e-5
    """Inside the normalisation's square root, equation (10)."""
    asymmetric: Literal["none", "pair", "triple"] = "none"
    """t x k x k kernels split into `pair` = (t,k,1), (1,1,k) or `triple` = (1,k,1), (1,1,k), (t,1,1)."""
    attention: Literal["none", "cbam", "stcbam"] = "none"
    """`cbam`: channel, then space, equations (14), (15). `stcbam`: and then time, equation (16)."""
    placement: str = "all"
    """Stages with attention: early (1, 2), late (4, 5), all, or names such as "stage3+stage5". Without attention it has no effect."""
    attention_pool: Literal["avg", "avgmax"] = "avg"
    """What attention looks at: averages as the paper prints, or averages and maxima (CBAM, Woo 2018)."""
    attention_reduction: int = 16
    """The channel attention's hidden layer has width / this many units, at least 8."""
    spatial_attention: Literal["shared", "per_frame"] = "shared"
    """One H x W map for the whole clip ("two-dimensional", section 2.2), or one for each frame."""
    head: Literal["fc", "gap"] = "fc"
    """`fc`: pooling, two hidden layers, classes. `gap`: average over T, H, W, then classes."""
    hidden: int = 4096
    """Units of the `fc` head's two hidden layers."""
    dropout: float = 0.5

    def __post_init__(self) -> None:
        refuse_unknown_choices(self)
        for name in ("classes", "width", "hidden", "groups", "eps", "attention_reduction"):
            _require(0 < getattr(self, name) < math.inf, f"{name} must be a finite number greater than 0, not {getattr(self, name)}")
        for name in ("widths", "depths"):
            values = getattr(self, name)
            _require(len(values) == len(self.stages) and min(values) > 0, f"{name} must be five numbers greater than 0, not {values}")
        _require(0.0 <= self.dropout < 1.0, f"dropout must be at least 0 and less than 1, not {self.dropout}")
        shorter = f"; head 'gap' takes {_LEAST_FRAMES['gap']}" if self.head == "fc" else ""
        _require(self.frames >= self.least_frames, f"frames must be at least {self.least_frames} with head {self.head!r}, "
                 f"not {self.frames}: fewer are pooled away{shorter}")
        _require(self.size >= 16, f"size must be at least 16 pixels, not {self.size}: smaller frames are pooled away")
        _ = self.attention_stages
        if self.norm == "group":
            self._refuse_groups()

    @property
    def channels(self) -> Five:
        """Channels of each stage after `width`."""
        return tuple(self._scaled(width) for width in self.widths)  # type: ignore[return-value]

    @property
    def hidden_features(self) -> int:
        """Units of the `fc` head's hidden layers after `width`."""
        return self._scaled(self.hidden)

    @property
    def least_frames(self) -> int:
        """The shortest clip that survives the poolings over time: three, and a fourth before the `fc` head."""
        return _LEAST_FRAMES[self.head]

    @property
    def attention_stages(self) -> tuple[str, ...]:
        """Names of the stages that `placement` selects, in order. Raises ValueError where it selects none, or one that is not there."""
        names = [name for name in re.split(r"[+,\s]+", self.placement) if name]
        allowed = f"allowed are {', '.join([*self.placements, *self.stages])}, or several joined by +"
        _require(bool(names), f"placement {self.placement!r} selects no stage; {allowed}")
        for name in names:
            _require(name in self.placements or name in self.stages, f"placement {self.placement!r}: there is no {name!r}; {allowed}")
        selected = {stage for name in names for stage in self.placements.get(name, (name,))}
        return tuple(stage for stage in self.stages if stage in selected)

    def _scaled(self, width: int) -> int:
        return width if self.width == 1.0 else max(8, 8 * round(width * self.width / 8))

    def _refuse_groups(self) -> None:
        common = math.gcd(*self.channels)
        allowed = ", ".join(str(count) for count in range(1, common + 1) if common % count == 0)
        for stage, width in zip(self.stages, self.channels, strict=True):
            _require(width % self.groups == 0, f"groups {self.groups} does not divide {stage}'s width {width}; "
                     f"widths {self.channels} allow groups {allowed}")


IMPROVED: dict[str, Any] = {
    "stem": "conv7",
    "residual": True,
    "norm": "group",
    "groups": 8,
    "asymmetric": "pair",
    "attention": "stcbam",
    "placement": "late",
    "head": "gap",
    "size": 56,
}
"""What turns `C3D()` into the paper's improved C3D at its own frame size: `C3D(**IMPROVED)`."""

_LEAST_FRAMES = {"fc": 16, "gap": 8}


def refuse_unknown_choices(config: Any) -> None:
    """Raises ValueError where a `Literal` field of a dataclass holds something else; dataclasses themselves do not look."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        if get_origin(hints[field.name]) is Literal and getattr(config, field.name) not in get_args(hints[field.name]):
            allowed = ", ".join(map(repr, get_args(hints[field.name])))
            raise ValueError(f"{field.name} must be one of {allowed}, not {getattr(config, field.name)!r}")


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)
