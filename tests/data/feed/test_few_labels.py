"""Nested subsets of the labels of a split."""

from __future__ import annotations

import numpy as np
import pytest

from posture.data.feed.clips import ClipIndex
from posture.data.feed.few_labels import few_labels, segments_of_classes

GROUPS = {f"s{number:02d}": f"g{number // 4}" for number in range(24)}


@pytest.fixture
def index() -> ClipIndex:
    """Two clips of each of 24 segments: 16 of the first class, 8 of the other; 4 segments to a group."""
    segments = np.repeat(np.arange(24), 2)
    labels = (segments >= 16).astype(np.int64)
    keys = [f"c{number:02d}" for number in range(48)]
    return ClipIndex("s", "train", "r", ("a", "b"), keys, labels, segments, list(GROUPS), [])


def drawn(index: ClipIndex, each: int, seed: int = 0) -> set[str]:
    part = few_labels(index, GROUPS, each=each, seed=seed)
    assert all(
        part.segment_ids[number] == f"s{int(key[1:]) // 2:02d}"
        for number, key in zip(part.segments, part.keys, strict=True)
    )
    assert len(part) == 2 * len(part.segment_ids) == part.counts["clips"] and part.counts["segments"] == len(part) // 2
    assert set(part.segments.tolist()) == set(range(len(part.segment_ids)))
    return set(part.segment_ids)


@pytest.mark.parametrize("seed", range(5))
def test_each_number_is_a_part_of_the_next_and_has_so_many_of_every_class(index: ClipIndex, seed: int) -> None:
    before: set[str] = set()
    for each in (1, 3, 4, 8, 12, 16, 100):
        found = drawn(index, each, seed)
        counts = segments_of_classes(few_labels(index, GROUPS, each=each, seed=seed))
        assert counts == {"a": min(each, 16), "b": min(each, 8)} and before <= found
        before = found
    assert before == set(GROUPS)


def test_whole_groups_are_drawn_and_others_with_another_seed(index: ClipIndex) -> None:
    """As a lab labels: one athlete after the other."""
    for seed in range(5):
        of_first = [segment for segment in drawn(index, 4, seed) if segment < "s16"]
        assert len({GROUPS[segment] for segment in of_first}) == 1
    assert len({frozenset(drawn(index, 4, seed)) for seed in range(8)}) > 1
    assert drawn(index, 3) == drawn(index, 3)
