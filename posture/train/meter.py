"""Progress of a run, and the loss and speed of its current epoch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from posture.train.context import Context


@dataclass
class Progress:
    """Position and results of a run; saved in a checkpoint's state.json."""

    epoch: int = 0
    """Number of completed epochs."""
    step: int = 0
    """Number of completed optimiser steps of the current epoch."""
    best: float | None = None
    best_epoch: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    """Sum of each loss term over all workers and the steps of the current epoch."""
    loss_counts: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    """One record per completed epoch."""

    @property
    def means(self) -> dict[str, float]:
        """Mean of each loss term in the current epoch; 0 if nothing was counted for it."""
        return {term: total / max(self.loss_counts[term], 1.0) for term, total in self.loss_sums.items()}

    def begin_epoch(self) -> None:
        """Forget the steps of the current epoch."""
        self.step, self.loss_sums, self.loss_counts = 0, {}, {}


class Meter:
    """Loss and speed of an epoch from now on; `progress` keeps the loss sums and counts."""

    def __init__(self, progress: Progress, ctx: Context, *, clips_per_step: int) -> None:
        self.progress, self.ctx, self.clips_per_step = progress, ctx, clips_per_step
        self.loss: float | None = None
        """Mean loss of the epoch when it was last read."""
        self._first_step, self._began, self._waited = progress.step, time.perf_counter(), 0.0
        self._unread: dict[str, Tensor] = {}

    def next(self, steps: Iterator[Any]) -> Any:
        """Return the next step's micro batches and count the time spent waiting for them."""
        began = time.perf_counter()
        micro_batches = next(steps)
        self._waited += time.perf_counter() - began
        return micro_batches

    def add(self, sums: dict[str, Tensor], counts: dict[str, float]) -> None:
        """Count a step: loss sums of this worker, on the device, and counts of all workers."""
        self._unread = added([self._unread, sums])
        self.progress.loss_counts = added([self.progress.loss_counts, counts])
        self.progress.step += 1

    def read(self) -> float | None:
        """Read the losses of all workers since the last reading, and return the mean of the epoch."""
        if self._unread:
            summed = self.ctx.sum([float(total) for total in self._unread.values()])
            read = dict(zip(self._unread, summed.tolist(), strict=True))
            self.progress.loss_sums, self._unread = added([self.progress.loss_sums, read]), {}
            self.loss = sum(self.progress.means.values())
        return self.loss

    @property
    def clips_per_second(self) -> float:
        steps = self.progress.step - self._first_step
        return steps * self.clips_per_step / (time.perf_counter() - self._began)

    def figures(self, rate: float) -> dict[str, Any]:
        """Return the epoch's record: train_loss, its terms if there are several, lr, clips_per_second (images per
        second for a detector) and data_wait_share, the share of time spent waiting for batches.
        """
        means = self.progress.means
        terms = {f"train_loss_{term}": value for term, value in means.items()} if len(means) > 1 else {}
        share = self._waited / (time.perf_counter() - self._began)
        speed = self.clips_per_second
        return {"train_loss": self.loss, **terms, "lr": rate, "clips_per_second": speed, "data_wait_share": share}


def added(terms: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the sums of values with the same name."""
    total: dict[str, Any] = {}
    for values in terms:
        for name, value in values.items():
            total[name] = total[name] + value if name in total else value
    return total
