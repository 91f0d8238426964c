"""A schedule that fits the footage: `epochs: auto` gives few clips as many optimiser steps as many clips.

It is chosen once, when a run begins, from the number of training clips. run.json keeps the numbers, so a run that is
resumed keeps its schedule.

It is an option and not the default, because more steps did not help on the footage that was measured: `improved` at a
quarter of its width on four classes of UCF101, one seed, 90 test clips. On 150 training clips, 200 steps in batches of
32 reached 87.8 %, and 900 steps in batches of 8 reached 86.7 %. On 10 clips of each class, 50 steps reached 82.2 %;
with at least 400 steps training stopped early after 220 and reached 75.6 %. A linear classifier reached 66.7 % and
54.4 %.
"""

from __future__ import annotations

import math
from typing import Any

from posture.config import AnyRun
from posture.display.text import counted

LEAST_EPOCHS = 30
"""Minimum number of epochs, however many clips there are."""
STEPS_OF_EPOCH = 8
"""Minimum steps of an epoch, if batches of `SMALL_BATCH` allow it: the clips that fill no batch are left out."""
SMALL_BATCH = 8
"""Batches are not made smaller than this."""
WARM_UP = 0.05
"""Minimum share of the epochs for the warm-up."""
WAIT = 0.4
"""Share of the epochs without a better value on `val` after which training stops, if the run has no patience."""
LEAST_WAIT = 10
"""Minimum of these epochs."""


def schedule(run: AnyRun, clips: int) -> tuple[dict[str, Any], str]:
    """Return the changes that make a schedule for `clips` training clips, or images, and a sentence on what was chosen.

    Without `epochs` auto there are none, except for a network that is fitted at once, whose batches need only fit the
    clips.
    """
    if run.solved:
        return {"scale.global_batch": _fitting(run, clips)} if clips >= run.scale.multiple else {}, ""
    if run.epochs != "auto":
        return {}, ""
    batch = _fitting(run, clips)
    while clips // batch < STEPS_OF_EPOCH and (smaller := _rounded(run, batch // 2)) >= SMALL_BATCH:
        batch = smaller
    steps = min(max(1, clips // batch), run.steps_per_epoch or clips)
    epochs = max(LEAST_EPOCHS, math.ceil(run.least_steps / steps))
    wait = run.patience or min(epochs, max(LEAST_WAIT, round(WAIT * epochs)))
    warm_up = max(run.optim.warmup_epochs, round(WARM_UP * epochs, 1))
    smaller_batch = f", instead of {run.scale.global_batch}" if batch != run.scale.global_batch else ""
    said = (
        f"epochs auto: {counted(epochs, 'epoch')} of {counted(steps, 'step')} in batches of {batch}{smaller_batch}, "
        f"{epochs * steps:,} steps in all; the first {warm_up:g} epochs warm up, and training stops after "
        f"{counted(wait, 'epoch')} without a better {run.metric} on val"
    )
    changes = {"epochs": epochs, "patience": wait, "optim.warmup_epochs": warm_up, "scale.global_batch": batch}
    return changes, said


def _fitting(run: AnyRun, clips: int) -> int:
    """Return the run's batch, or the largest one that `clips` can fill."""
    return max(_rounded(run, min(run.scale.global_batch, clips)), run.scale.multiple)


def _rounded(run: AnyRun, batch: int) -> int:
    """Return `batch` rounded down to what the workers can divide."""
    return batch // run.scale.multiple * run.scale.multiple
