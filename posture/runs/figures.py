"""Types that evaluations of both tasks share: views of a clip, objectives, judged predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Views:
    """Number of views of each segment that an action classifier scores; their probabilities are averaged."""

    crops: int = 1
    """1: the middle; 3: left, middle and right."""
    temporal: int = 1
    """Spans of `model.frames` frames within each stored clip, spread evenly."""
    source: int = 0
    """Windows decoded from the original file instead of the stored ones; 0 uses the store."""

    def describe(self) -> str:
        """Return the protocol in words, for the report."""
        windows = (
            f"{self.source} windows per segment, decoded from the original files"
            if self.source
            else "the windows in the store"
        )
        crops = "the middle of the frame" if self.crops == 1 else f"{self.crops} crops of the frame"
        return f"{windows}; of each, {self.temporal} span{'s' * (self.temporal > 1)} in time and {crops}"


ONE_VIEW = Views()


@dataclass(frozen=True)
class Reads:
    """The part of a store that a run reads."""

    versions: dict[str, int] | None
    """Versions of the tables; None: the newest."""
    classes: tuple[str, ...] | None = None
    """Classes in their order; None: all but those `left_out`."""
    left_out: tuple[str, ...] = ()
    views: Views = ONE_VIEW


@dataclass(frozen=True)
class Objective:
    """A figure that a search makes as large or as small as it can."""

    name: str
    key: str
    """Its name in a record of history.json; empty for a cost, which is known before training."""
    maximize: bool

    def best(self, values: list[float]) -> float:
        return max(values) if self.maximize else min(values)


@dataclass(frozen=True)
class Judged:
    """An evaluation's figures, its predictions, and its report."""

    metrics: dict[str, Any]
    table: pa.Table
    """One row for each segment or image: predictions.parquet."""
    write_report: Callable[..., None]
    """Write report.html: `write_report(path, run=, metrics=, history=, facts=)`."""
