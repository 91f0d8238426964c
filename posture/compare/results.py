"""The results of a study, as the analysis and the page read them: one entry per model, one scored run per seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

Kind = Literal["ours", "baseline", "ablation", "reference"]
Resampled = dict[str, dict[str, np.ndarray]]
"""{entry name: {tested figure: float64 (1 + B,)}}: the value on the footage itself, then on every resample of its
groups.
"""


@dataclass(frozen=True)
class Measures:
    """The figures by which the models of one task are compared: keys of metrics.json, dotted if they are nested."""

    unit: str
    """Name of one scored unit, each in a group: segment, image."""
    count: str
    """Key of the number of these in comparison.json."""
    spread: tuple[str, ...]
    """Figures shown with their mean and spread over seeds."""
    tested: dict[str, str]
    """Figures whose differences are tested, with their titles."""
    shares: tuple[str, ...]
    """Figures shown in percent, with differences in points."""
    phrases: dict[str, tuple[str, str, str]]
    """Tested figures that the verdict names, each with the words for: above, below, no significant difference."""
    ablated: str
    """The tested figure by which ablations and tried learning rates are shown."""
    compute: tuple[str, float]
    """The unit of compute, and how many of it make one GMAC."""
    per_class: str
    """The figure of each class."""
    opening: Callable[[Mapping[str, Any], Mapping[str, Any]], str]
    """Returns the verdict's first sentence from the analysis and the subject's row."""

    def unit_of(self, figure: str) -> str:
        """Return the unit of a difference of `figure` in a sentence: points, or nothing."""
        return "points" if figure in self.shares else ""


@dataclass
class Scored:
    """One trained run and its figures on the test split."""

    seed: int
    run: str
    """Its folder."""
    history: list[dict[str, Any]]
    """history.json: a row per epoch with `epoch`, `train_loss`, `clips_per_second`, `seconds` and the figures on `val`.
    """
    metrics: dict[str, Any]
    """evaluation/test/metrics.json."""

    @property
    def truths(self) -> dict[str, Any]:
        """The true answer of each segment or image, by its id."""
        raise NotImplementedError


@dataclass
class Entry:
    """One model of the comparison, trained once per seed."""

    name: str
    title: str
    kind: Kind
    parameters: int
    gmacs: float
    """Compute of one clip, or of one image."""
    epochs: int
    lr: float
    """0 for a network that is fitted at once."""
    lr_search: list[dict[str, float | None]] = field(default_factory=list)
    """For each learning rate tried: {`lr`, `val_loss`, other figures on `val`}; infinite or None if it diverged."""
    optimizer: str = ""
    """In words: `AdamW, beta1 0.9, weight decay 0.05`."""
    budget: str = ""
    """Training budget of each run: `30 epochs`, `120 steps`."""
    search_budget: str = ""
    """Training budget of each learning rate that was tried."""
    latency_ms: dict[str, float] | None = None
    """{`median`, `least`, `most`} of the network on one clip. A detector's speed is in its metrics."""
    flow: str = ""
    """Method of the optical flow that the network reads; empty if it reads none. `gmacs` does not include it."""
    flow_ms: float | None = None
    """Median milliseconds to compute the flow of one clip from its frames."""
    streams: int = 1
    """Number of streams of a late-fusing network; its training loss is their sum."""
    loss: dict[str, Any] = field(default_factory=dict)
    """The run's section `loss`: losses with different settings cannot be compared."""
    clips_per_second: float | None = None
    """Clips or images per second in training."""
    device_hours: float | None = None
    """Mean hours of a run's epochs, validation included, times its workers: GPU hours if each worker has a GPU."""
    results: list[Any] = field(default_factory=list)
    """One `Scored` per seed."""
    not_measured: str = ""
    """Why there are no results; empty if there are."""
    replaced: bool = False
    """True for an ablation that replaces a part, such as the loss, instead of removing it."""


@dataclass
class Comparison:
    """A finished study."""

    name: str
    entries: list[Entry]
    subject: str
    """Name of the entry that the others are compared with."""
    groups: dict[str, str]
    """{segment or image id: group}; items of one group are not independent."""
    classes: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """How the study was done; see `posture.compare.action.write_page`."""
