"""The training clips that few labels would give: nested subsets of a split, drawn group by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from posture.data.feed.clips import ClipIndex


def few_labels(index: ClipIndex, groups: Mapping[str, str], *, each: int, seed: int) -> ClipIndex:
    """Return the clips of at most `each` segments of every class.

    `groups` is the group of each segment. The groups of a class come in a random order, and all segments of a group
    before the next group's, as a lab labels one athlete after the other. So a smaller number is part of a larger one,
    and only the last group may be cut. A class with fewer segments keeps all of them.
    """
    label_of = dict(zip(index.segments.tolist(), index.labels.tolist(), strict=True))
    kept: list[int] = []
    for label in range(len(index.classes)):
        members = [number for number, its in label_of.items() if its == label]
        present = sorted({groups[index.segment_ids[number]] for number in members})
        generator = np.random.default_rng(np.random.SeedSequence((seed % 2**64, label)))
        place = {present[at]: order for order, at in enumerate(generator.permutation(len(present)).tolist())}
        ordered = sorted(
            members, key=lambda number: (place[groups[index.segment_ids[number]]], index.segment_ids[number])
        )
        kept += ordered[:each]
    kept.sort()
    part = index.part(np.flatnonzero(np.isin(index.segments, kept)))
    numbers = np.searchsorted(kept, part.segments).astype(np.int64)
    return replace(part, segments=numbers, segment_ids=[index.segment_ids[number] for number in kept])


def segments_of_classes(index: ClipIndex) -> dict[str, int]:
    """Return the number of segments of each class."""
    _, first = np.unique(index.segments, return_index=True)
    counts = np.bincount(index.labels[first], minlength=len(index.classes)).tolist()
    return dict(zip(index.classes, counts, strict=True))
