"""A schedule that fits the footage: `epochs: auto` gives few clips as many optimiser steps as many clips.

It is chosen once, when a run begins, from the number of training clips. run.json keeps the numbers, so a run that is
resumed keeps its schedule.

Small batches are what helps: on 5 clips of each class, in as many passes, smaller batches were better on both of two
sets, and many more passes were not. Accuracy and loss of `improved` on held-out groups, with a quarter of its width, at
40 pixels, one seed:

| clips | batch | steps | passes | accuracy | loss |
|---|---:|---:|---:|---:|---:|
| 40 of eight generated actions, 96 held out (the linear classifier: 35.4 %) | 32 | 62 | 50 | 42.2 % | 1.19 |
| | 8 | 240 | 48 | 56.8 % | 0.86 |
| | 8 | 600 | 120 | 58.9 % | 1.20 |
| 20 of four UCF101 classes, 62 held out (the linear classifier: 68.3 %) | 20 | 48 | 48 | 77.5 % | 0.59 |
| | 8 | 120 | 48 | 79.2 % | 0.61 |
| | 8 | 240 | 96 | 73.3 % | 0.86 |

So `improved` has `auto` with few `least_steps`. On 150 clips of UCF101, 200 steps in batches of 32 reached 87.8 % of 90
test clips, and 900 steps in batches of 8 reached 86.7 %.
"""

from __future__ import annotations

import math
from typing import Any

from posture.config import AnyRun
from posture.display.text import counted

LEAST_EPOCHS = 50
"""Minimum number of epochs, however many clips there are; as many as a run has without `auto`."""
STEPS_OF_EPOCH = 8
"""Minimum steps of an epoch, if batches of `SMALL_BATCH` allow it: the clips that fill no batch are left out."""
SMALL_BATCH = 8
"""Batches are not made smaller than this."""
WARM_UP = 0.05
"""Minimum share of the epochs for the warm-up."""
WAIT = 0.6
"""Share of the epochs without a better value on `val` after which training stops, if the run has no patience. Few clips
to validate on give a chance maximum early, and networks improve most while the learning rate falls.
"""
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
