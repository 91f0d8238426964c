"""Groups to train, val and test: no athlete or source video stands on two sides, ever."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from posture.data.decode.cut import BACKGROUND
from posture.data.labels.records import AnnotatedVideo, Label
from posture.data.store.schema import SPLITS, content_id
from posture.errors import InputError


def refuse_two_sides(videos: Iterable[AnnotatedVideo], *, stored: Mapping[str, str]) -> None:
    """Check the splits that the footage names, before anything is decoded.

    Raises InputError if a group is named on two sides, or on another side than the one that is `stored` ({group:
    split}).
    """
    given: dict[str, str] = {}
    for video in videos:
        for item in video.labels:
            if item.split and given.setdefault(item.group, item.split) != item.split:
                raise InputError(
                    f"{video.file.relative}: group {item.group!r} is in {given[item.group]} and in {item.split}; "
                    "a group must be on one side only"
                )
    for group, split in given.items():
        if group in stored and stored[group] != split and not (split == "train" and stored[group] == "val"):
            raise InputError(
                f"group {group!r} is stored as {stored[group]}, and the footage now says {split}; "
                "a group never changes sides in a store: use a new store for another split"
            )


def assign_splits(
    labels: Iterable[Label],
    *,
    stored: Mapping[str, str],
    val_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
) -> dict[str, str]:
    """The split of every group that `labels` name, new ones decided class by class, `stored` ones as they are.

    `labels` are those of the segments that were kept, in any order: the splits depend on nothing else. If they name a
    test split, `test` is that; else `test_share` of the groups of each class. If they name no `val`, `val_share` of
    each class's remaining groups are carved from `train`. The order is a hash of seed and group. A group's class is the
    one that it has most segments of.
    """
    given: dict[str, str] = {}
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for item in labels:
        classes[item.group][item.label] += item.label != BACKGROUND
        if item.split:
            given[item.group] = item.split
    carve_test, carve_val = "test" not in given.values(), "val" not in given.values()
    strata: dict[str, list[str]] = defaultdict(list)
    for group in sorted(classes, key=lambda name: content_id("split", seed, name)):
        strata[min(classes[group], key=lambda label, counts=classes[group]: (-counts[label], label))].append(group)
    splits = {group: stored.get(group) or given.get(group) for group in classes}
    for groups in strata.values():
        open_groups = [group for group in groups if splits[group] is None]
        if carve_test:
            wanted = _share(test_share, len(groups)) - sum(splits[group] == "test" for group in groups)
            for group in open_groups[: max(0, wanted)]:
                splits[group] = "test"
        for group in groups:
            splits[group] = splits[group] or "train"
        if carve_val:
            training = [group for group in groups if splits[group] != "test"]
            wanted = _share(val_share, len(training)) - sum(splits[group] == "val" for group in training)
            free = [group for group in training if splits[group] == "train" and group not in stored]
            for group in free[: max(0, wanted)]:
                splits[group] = "val"
    return {group: split for group, split in splits.items() if split}


def splits_drawn(
    labels: Iterable[Label], splits: Mapping[str, str], *, val_share: float, test_share: float, seed: int
) -> str:
    """One sentence for the report: how many groups stand on each side, and what put them there."""
    named = {item.split for item in labels if item.split}
    counts = Counter(splits.values())
    drawn = [
        f"{split} ({share:g})" for split, share in (("test", test_share), ("val", val_share)) if split not in named
    ]
    how = (
        f"; {' and '.join(drawn)} drawn by group from what was kept, seed {seed}"
        if drawn
        else "; as the footage names them"
    )
    return f"groups: {', '.join(f'{counts[split]:,} {split}' for split in SPLITS)}{how}"


def _share(share: float, count: int) -> int:
    """How many of `count` groups; at least one where two remain, none of a single one."""
    return min(count - 1, max(1, round(share * count))) if share and count > 1 else 0
