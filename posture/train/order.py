"""Which clips make up each optimiser step: a function of seed, epoch and step, never of how many workers there are.

An epoch is an array of clip indices. Step k is its k-th run of `global_batch` indices; worker r takes the r-th
contiguous part of that, and its micro batches are contiguous parts again. So any number of workers and any accumulation
add up to the same global batch.
"""

from __future__ import annotations

import numpy as np

from posture.errors import InputError


def permutation(clips: int, *, seed: int, epoch: int) -> np.ndarray:
    """All clip indices once, (clips,) int64, in this epoch's order."""
    return _generator(seed, epoch).permutation(clips)


def balanced(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """As many draws as there are clips, (clips,) int64, every class that has clips equally often (to within one draw).

    A class runs through all of its clips before one of them comes again.
    """
    generator = _generator(seed, epoch)
    present = generator.permutation(np.unique(labels))
    quota, rest = divmod(len(labels), len(present))
    draws = []
    for place, label in enumerate(present):
        members = np.flatnonzero(labels == label)
        wanted = quota + (place < rest)
        rounds = -(-wanted // len(members))
        draws.append(np.concatenate([generator.permutation(members) for _ in range(rounds)])[:wanted])
    return generator.permutation(np.concatenate(draws))


def repeats(order: np.ndarray) -> np.ndarray:
    """How often each entry's clip came earlier in the same epoch, (clips,) int64: 0 everywhere in a permutation."""
    by_clip = np.argsort(order, kind="stable")
    ordered = order[by_clip]
    first = np.searchsorted(ordered, ordered)
    times = np.empty(len(order), dtype=np.int64)
    times[by_clip] = np.arange(len(order)) - first
    return times


def steps_per_epoch(clips: int, *, global_batch: int) -> int:
    """Whole global batches in an epoch; the clips left over differ from epoch to epoch, as the order does.

    Raises InputError where not even one batch can be filled.
    """
    if global_batch > clips:
        raise InputError(
            f"scale.global_batch is {global_batch}, but there are only {clips} training clips; choose at most {clips}"
        )
    return clips // global_batch


def share_size(global_batch: int, *, world_size: int) -> int:
    """Clips of one step that fall to each worker. Raises InputError where they cannot be dealt evenly."""
    share, rest = divmod(global_batch, world_size)
    if rest or not share:
        raise InputError(
            f"scale.global_batch {global_batch} cannot be dealt evenly to {world_size} workers; choose a multiple"
        )
    return share


def share_of_step(order: np.ndarray, step: int, *, global_batch: int, rank: int, world_size: int) -> np.ndarray:
    """The part of `order` (an epoch, or anything aligned with it) that worker `rank` computes in `step`: (share,)."""
    share = share_size(global_batch, world_size=world_size)
    start = step * global_batch + rank * share
    return order[start : start + share]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed % 2**64, epoch))))
