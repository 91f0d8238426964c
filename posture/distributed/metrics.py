"""Export our metrics beside Ray's own, for Prometheus; Ray adds the prefix `ray_` to their names.

An update takes microseconds. Errors are logged and never stop the work that is measured.
"""

from __future__ import annotations

import logging
import math
import sys
from typing import Any

log = logging.getLogger(__name__)

METRICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "posture_clips_total": ("Clips or images decoded (stage decode) or trained on (stage train)", ("stage", "run")),
    "posture_clips_per_second": ("Clips or images a second, of this ingest or epoch so far", ("stage", "run")),
    "posture_data_wait_share": ("Share of the last epoch's time that training waited for data", ("run",)),
    "posture_epoch": ("Epoch in progress, counted from 1", ("run",)),
    "posture_validation": ("Result of the last epoch on val", ("run", "metric")),
    "posture_trials": ("Trials of a search", ("search", "state")),
}
"""Description and tags of each metric; names that end in `_total` are counters, the others gauges."""
TRIAL_STATES = ("waiting", "running", "complete", "stopped", "failed", "interrupted")

_made: dict[str, Any] = {}


def emit(name: str, value: float | None, **tags: str) -> None:
    """Set a gauge, or add to a counter. Do nothing without Ray, or if the value is not finite. Never raises."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized() or value is None or not math.isfinite(value):
        return
    try:
        if name not in _made:
            from ray.util.metrics import Counter, Gauge

            description, keys = METRICS[name]
            _made[name] = (Counter if name.endswith("_total") else Gauge)(name, description=description, tag_keys=keys)
        if not name.endswith("_total"):
            _made[name].set(value, tags=tags)
        elif value > 0:
            _made[name].inc(value, tags=tags)
    except Exception as error:
        log.debug("%s cannot be exported: %s", name, error)


class Throughput:
    """Exports `posture_clips_total` and `posture_clips_per_second` of one stage."""

    def __init__(self, stage: str, run: str) -> None:
        self._tags = {"stage": stage, "run": run}
        self._counted = 0

    def reached(self, clips: int, rate: float) -> None:
        """Export the number of clips since the beginning, and the rate per second."""
        emit("posture_clips_total", clips - self._counted, **self._tags)
        emit("posture_clips_per_second", rate, **self._tags)
        self._counted = max(self._counted, clips)


def emit_trials(search: str, states: list[str]) -> None:
    """Export how many trials of a search are in each state, 0 included."""
    for state in TRIAL_STATES:
        emit("posture_trials", states.count(state), search=search, state=state)


def emit_step(run: str, update: dict[str, Any], *, clips: int) -> None:
    """Export a training step of `clips` clips, from the loop's progress update."""
    emit("posture_clips_total", clips, stage="train", run=run)
    emit("posture_clips_per_second", update["clips_per_second"], stage="train", run=run)
    emit("posture_epoch", update["epoch"], run=run)


def emit_epoch(run: str, record: dict[str, Any]) -> None:
    """Export a finished epoch, from its record."""
    emit("posture_data_wait_share", record.get("data_wait_share"), run=run)
    for name, value in record.items():
        if name.startswith("val_") and isinstance(value, int | float):
            emit("posture_validation", value, run=run, metric=name.removeprefix("val_"))
