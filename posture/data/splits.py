"""Groups to train, val and test: no athlete or source video stands on two sides, ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from posture.data.annotations import AnnotatedVideo
from posture.data.rows import content_id
from posture.errors import InputError


def assign_splits(videos: Iterable[AnnotatedVideo], *, stored: Mapping[str, str], val_share: float = 0.2, test_share: float = 0.2,
                  seed: int = 0) -> dict[str, str]:
    """The split of every group that `videos` name, new ones decided class by class, stored ones as they are.

    Where the footage names a test split, `test` is that; else `test_share` of the groups of each class. Where it names no
    `val`, `val_share` of each class's remaining groups are carved from `train`. The order is a hash of seed and group.
    Raises InputError where a group would stand on two sides.
    """
    given: dict[str, str] = {}
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for video in videos:
        for item in video.labels:
            classes[item.group][item.label] += 1
            if item.split and given.setdefault(item.group, item.split) != item.split:
                raise InputError(f"{video.file.relative}: group {item.group!r} is in {given[item.group]} and in {item.split}; "
                                 "a group must be on one side only")
    for group, split in given.items():
        if group in stored and stored[group] != split and not (split == "train" and stored[group] == "val"):
            raise InputError(f"group {group!r} is stored as {stored[group]}, and the footage now says {split}; "
                             "a group never changes sides in a store: use a new store for another split")
    carve_test, carve_val = "test" not in given.values(), "val" not in given.values()
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(classes, key=lambda name: content_id("split", seed, name)):
        strata[classes[group].most_common(1)[0][0]].append(group)
    splits = {group: stored.get(group) or given.get(group) for group in classes}
    for groups in strata.values():
        open_groups = [group for group in groups if splits[group] is None]
        if carve_test:
            wanted = _share(test_share, len(groups)) - sum(splits[group] == "test" for group in groups)
            for group in open_groups[:max(0, wanted)]:
                splits[group] = "test"
        for group in groups:
            splits[group] = splits[group] or "train"
        if carve_val:
            training = [group for group in groups if splits[group] != "test"]
            wanted = _share(val_share, len(training)) - sum(splits[group] == "val" for group in training)
            free = [group for group in training if splits[group] == "train" and group not in stored]
            for group in free[:max(0, wanted)]:
                splits[group] = "val"
    return {group: split for group, split in splits.items() if split}


def _share(share: float, count: int) -> int:
    """How many of `count` groups; at least one where two remain, none of a single one."""
    return min(count - 1, max(1, round(share * count))) if share and count > 1 else 0
