"""Clips of each optimiser step: a function of seed, epoch and step, independent of the number of workers.

An epoch is an array of clip indices. Step k takes the k-th `global_batch` indices; worker r takes the r-th contiguous
part of those, and its micro batches are contiguous parts again. So any number of workers and any accumulation add up to
the same global batch.
"""

from __future__ import annotations

import numpy as np

from posture.errors import InputError


def permutation(clips: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return all clip indices once, (clips,) int64, in this epoch's order."""
    return _generator(seed, epoch).permutation(clips)


def balanced(labels: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Return as many draws as there are clips, (clips,) int64, with every class equally often (to within one draw).

    Classes without clips are left out. A class uses all of its clips before one of them is repeated.
    """
    generator = _generator(seed, epoch)
    present = generator.permutation(np.unique(labels))
    quota, rest = divmod(len(labels), len(present))
    draws = []
    for number, label in enumerate(present):
        members = np.flatnonzero(labels == label)
        wanted = quota + (number < rest)
        rounds = -(-wanted // len(members))
        draws.append(np.concatenate([generator.permutation(members) for _ in range(rounds)])[:wanted])
    return generator.permutation(np.concatenate(draws))


def repeats(order: np.ndarray) -> np.ndarray:
    """Return the occurrence number of each entry's clip within the epoch, (clips,) int64: all 0 in a permutation."""
    by_clip = np.argsort(order, kind="stable")
    ordered = order[by_clip]
    first = np.searchsorted(ordered, ordered)
    times = np.empty(len(order), dtype=np.int64)
    times[by_clip] = np.arange(len(order)) - first
    return times


def steps_per_epoch(clips: int, *, global_batch: int, unit: str = "clips") -> int:
    """Return the number of whole global batches in an epoch; the remaining clips differ from epoch to epoch.

    Raises InputError if not even one batch can be filled.
    """
    if global_batch > clips:
        raise InputError(
            f"scale.global_batch is {global_batch}, but there are only {clips} training {unit}; choose at most {clips}"
        )
    return clips // global_batch


def share_size(global_batch: int, *, world_size: int) -> int:
    """Return the clips of one step for each worker. Raises InputError if they cannot be dealt evenly."""
    share, rest = divmod(global_batch, world_size)
    if rest or not share:
        raise InputError(
            f"scale.global_batch {global_batch} cannot be dealt evenly to {world_size} workers; choose a multiple"
        )
    return share


def share_of_step(order: np.ndarray, step: int, *, global_batch: int, rank: int, world_size: int) -> np.ndarray:
    """Return the part of `order` (an epoch, or an array aligned with it) that worker `rank` computes in `step`."""
    share = share_size(global_batch, world_size=world_size)
    start = step * global_batch + rank * share
    return order[start : start + share]


def _generator(seed: int, epoch: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed % 2**64, epoch))))
