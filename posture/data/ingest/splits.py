"""Division of groups into train, val and test. No athlete or source video is ever in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from posture.data.decode.cut import BACKGROUND
from posture.data.labels.records import AnnotatedVideo, Label
from posture.data.store.schema import SPLITS, content_id
from posture.errors import InputError


def refuse_two_sides(videos: Iterable[AnnotatedVideo], *, stored: Mapping[str, str]) -> None:
    """Check the splits that the footage names, before anything is decoded.

    Raises InputError if a group is in two splits, or in another one than the one that is `stored` ({group: split}).
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
    """Return the split of every group that `labels` name: `stored` ones as they are, new ones class by class.

    The splits depend only on `labels`, those of the segments that were kept, in any order. If the labels name a test
    split, it is used; otherwise `test_share` of the groups of each class become `test`. If they name no `val` split,
    `val_share` of the remaining groups of each class are taken from `train`. The order is a hash of seed and group. The
    class of a group is the one of most of its segments.
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
    """Return a sentence for the report: how many groups are in each split, and how the splits were chosen."""
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
    """Return the share of `count` groups: at least one and not all of them, but none of a single group."""
    return min(count - 1, max(1, round(share * count))) if share and count > 1 else 0
