"""Turn the time stamps of a file's frames into increasing times. Only wrong stamps are changed."""

from __future__ import annotations

import numpy as np

from posture.errors import Unreadable

MIN_RATE, MAX_RATE = 1 / 60, 10_000.0
"""Average frames per second: from a time-lapse of one frame a minute to a high-speed camera."""
NOMINAL_WITHIN = 0.02
"""Relative difference up to which the file's nominal rate is used: times are often rounded to milliseconds."""
MAX_GAP_SECONDS = 3600.0
"""A longer gap is a wrong stamp, not a still image."""
DISORDER_SECONDS = 1.0
"""A stamp that goes back by less is a frame in the wrong order; by more, a second recording in the file."""


def frame_times(stamps: np.ndarray, *, rate: float, largest_gap: float = MAX_GAP_SECONDS) -> np.ndarray:
    """Return increasing times in seconds from the first frame, (frames,) float64.

    `stamps` are those of the frames in the order they are shown, in seconds, NaN if missing.

        * Missing stamps, and single ones that are out of order, are interpolated between their neighbours.
        * Repeated stamps are spread evenly up to the next.
        * After a jump, back or ahead by more than `largest_gap` seconds, time continues with the usual step.

    `rate` (frames per second) gives the step if the stamps give none.
    """
    indices = np.arange(len(stamps))
    known = np.isfinite(stamps)
    steps = np.diff(stamps[known]) / np.diff(indices[known])
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    if not 0 < step <= largest_gap:
        step = 1.0 / rate if MIN_RATE <= rate <= MAX_RATE else 0.0
    if known.sum() < 2 or not step:
        return indices * (step or 1.0)
    stamps = _without_outliers(stamps.astype(np.float64), largest_gap)
    known = np.isfinite(stamps)
    joined = _without_jumps(stamps[known], step * np.diff(indices[known]), largest_gap)
    stamps = np.interp(indices, indices[known], joined)
    first, last = indices[known][[0, -1]]
    stamps[:first] = joined[0] - step * (first - indices[:first])
    stamps[last + 1 :] = joined[-1] + step * (indices[last + 1 :] - last)
    stamps = _spread(np.sort(stamps), step)
    return stamps - stamps[0]


def average_rate(times: np.ndarray, nominal: float) -> float:
    """Return the frames per second of these times, or `nominal` if they agree with it.

    Raises Unreadable (bad_times) if no video has such a rate.
    """
    rate = (len(times) - 1) / float(times[-1]) if len(times) > 1 else nominal
    if nominal > 0 and abs(rate - nominal) <= NOMINAL_WITHIN * nominal:
        rate = nominal
    if not MIN_RATE <= rate <= MAX_RATE:
        raise Unreadable(
            "bad_times",
            (f"its time stamps give {rate:.3g} frames per second; the range is {MIN_RATE:.3g} to {MAX_RATE:,.0f}"),
        )
    return rate


def _without_outliers(stamps: np.ndarray, largest_gap: float) -> np.ndarray:
    """Return NaN for single stamps far from both neighbours, if those agree with each other."""
    before, after = np.roll(stamps, 1), np.roll(stamps, -1)
    with np.errstate(invalid="ignore"):
        far = (
            (np.abs(stamps - before) > DISORDER_SECONDS)
            & (np.abs(stamps - after) > DISORDER_SECONDS)
            & (np.sign(stamps - before) == np.sign(stamps - after))
        )
        alone = far & (after >= before) & (after - before <= np.minimum(largest_gap, np.abs(stamps - before)))
    alone[[0, -1]] = False
    return np.where(alone, np.nan, stamps)


def _without_jumps(stamps: np.ndarray, usual: np.ndarray, largest_gap: float) -> np.ndarray:
    """Return the stamps with each step that is a jump replaced by the `usual` one (steps,)."""
    steps = np.diff(stamps)
    jumps = (steps < -DISORDER_SECONDS) | (steps > np.maximum(largest_gap, 2 * usual))
    return stamps[0] + np.concatenate([[0.0], np.cumsum(np.where(jumps, usual, steps))])


def _spread(stamps: np.ndarray, step: float) -> np.ndarray:
    """Spread repeated stamps, which are sorted, up to the next stamp; the last run as the run before it."""
    values, counts = np.unique(stamps, return_counts=True)
    if len(values) == len(stamps):
        return stamps
    shares = np.diff(values) / counts[:-1]
    last = min(step, float(shares[-1])) if len(shares) else step
    within = np.arange(len(stamps)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(values, counts) + within * np.repeat(np.append(shares, last), counts)
