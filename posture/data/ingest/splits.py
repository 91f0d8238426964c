"""Division of groups into train, val and test. No athlete or source video is ever in two splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from posture.data.decode.cut import BACKGROUND
from posture.data.ingest.together import OPEN, Joined, fixed_sides
from posture.data.labels.names import first_few
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


def split_videos(
    videos: Iterable[AnnotatedVideo], *, stored: Mapping[str, str], held: Mapping[str, Collection[tuple[str, bool]]]
) -> tuple[list[AnnotatedVideo], list[dict[str, str]]]:
    """Return the videos whose groups can be on one side, and the refusals of the others, before anything is decoded.

    `held` are the segments that are stored of a video, by its address: each one's group, and True if it is of one
    athlete. What is stored stays, unless the labels no longer name its group.
    """
    videos = list(videos)
    joined = Joined(fixed_sides(stored, _given(label for video in videos for label in video.labels)))
    kept, refused = [], []
    for video in videos:
        groups, kinds = {label.group for label in video.labels}, {bool(label.athlete) for label in video.labels}
        segments = held.get(video.file.uri, ())
        here = {group for group, of_athlete in segments if group in groups or of_athlete not in kinds}
        if joined.join(here | groups):
            kept.append(video)
            continue
        labels = tuple(label for label in video.labels if label.group in here)
        kept += [replace(video, labels=labels)] if labels else []
        if gone := sorted(groups - here):
            refused.append({"uri": video.file.uri, "verdict": "two_sides", "reason": _two_sides(joined, here, gone)})
    return kept, refused


def _two_sides(joined: Joined, held: Collection[str], gone: Collection[str]) -> str:
    """Return why the groups `gone` of a video that has the `held` ones are refused."""
    sides = {group: (joined.side(group) or "no split yet").partition(" or ")[0] for group in sorted({*held, *gone})}
    shown = first_few([f"{group} ({side})" for group, side in sides.items()])
    left = f"; left out: {first_few(gone)}" if held else ""
    return f"the same frames would be on two sides, because it shows {shown}{left}; name one split, or use a new store"


def assign_splits(
    labels: Iterable[Label],
    *,
    stored: Mapping[str, str],
    together: Iterable[Collection[str]] = (),
    val_share: float = 0.2,
    test_share: float = 0.2,
    seed: int = 0,
) -> dict[str, str]:
    """Return the split of every group that `labels` name: `stored` ones as they are, new ones class by class.

    The splits depend only on `labels`, those of the segments that were kept, in any order. If the labels name a test
    split, it is used; otherwise `test_share` of the groups of each class become `test`. If they name no `val` split,
    `val_share` of the remaining groups of each class are taken from `train`. The order is a hash of seed and group. The
    class of a group is the one of most of its segments. The groups of each collection in `together` count as one
    group, unless they are on two sides already.
    """
    labels = list(labels)
    given = _given(labels)
    joined = Joined(fixed_sides(stored, given))
    for groups in together:
        joined.join(groups)
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    for item in labels:
        classes[joined.unit(item.group)][item.label] += item.label != BACKGROUND
    carve_test, carve_val = "test" not in given.values(), "val" not in given.values()
    strata: dict[str, list[str]] = defaultdict(list)
    for unit in sorted(classes, key=lambda name: content_id("split", seed, name)):
        strata[min(classes[unit], key=lambda label, counts=classes[unit]: (-counts[label], label))].append(unit)
    splits = {unit: joined.side(unit) for unit in classes}
    for units in strata.values():
        open_units = [unit for unit in units if splits[unit] is None]
        if carve_test:
            wanted = _share(test_share, len(units)) - sum(splits[unit] == "test" for unit in units)
            for unit in open_units[: max(0, wanted)]:
                splits[unit] = "test"
        for unit in units:
            splits[unit] = splits[unit] or OPEN
        if carve_val:
            training = [unit for unit in units if splits[unit] != "test"]
            wanted = _share(val_share, len(training)) - sum(splits[unit] == "val" for unit in training)
            free = [unit for unit in training if splits[unit] == OPEN]
            for unit in free[: max(0, wanted)]:
                splits[unit] = "val"
    drawn = {item.group: splits[joined.unit(item.group)] or OPEN for item in labels}
    return {group: "train" if split == OPEN else split for group, split in drawn.items()}


def _given(labels: Iterable[Label]) -> dict[str, str]:
    """Return the split of each group for which the labels name one."""
    return {item.group: item.split for item in labels if item.split}


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
