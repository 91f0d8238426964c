"""The default tracker keeps the ids of athletes who cross, whatever the detector misses."""

from __future__ import annotations

from functools import reduce
from operator import add

import numpy as np
import pytest

from posture.predict.track_metrics import Look, count_tracks
from posture.predict.tracker import TRACKERS
from tests.support.crossings import crossing, detections, judge

pytestmark = pytest.mark.long


def exchanged(looks: list[Look]) -> list[Look]:
    """Return the looks with two ids exchanged from the middle on."""
    return [
        (np.where(place > len(looks) / 2, np.array([1, 0, 2])[ids], ids), boxes)
        for place, (ids, boxes) in enumerate(looks)
    ]


def test_three_athletes_who_cross_keep_their_ids():
    videos = [crossing(seed) for seed in range(3)]
    found = [detections(truths, seed) for seed, (truths, _) in enumerate(videos)]
    exact = sum(len(boxes) for truths, _ in videos for _, boxes in truths)
    assert sum(len(boxes) for looks in found for boxes, _ in looks) < 0.93 * exact, "the detector misses some"
    judged = [judge(TRACKERS[0], truths, boxes, frames) for (truths, frames), boxes in zip(videos, found, strict=True)]
    assert reduce(add, judged).metrics()["idf1"] >= 0.9
    swapped = [count_tracks(truths, exchanged(truths)) for truths, _ in videos]
    assert reduce(add, swapped).metrics()["idf1"] < 0.9, "one exchange of ids in each video is worse"
