"""The contents of a store for its page: counts, tables, commits, refused files, augmented clips and images."""

# the task of a run decides its type, which a checker cannot follow
# pyright: reportArgumentType=false, reportAssignmentType=false

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from posture.config import ActionRun, DetectionRun, override
from posture.data.feed.clips import ClipIndex, index_footage
from posture.data.feed.images import index_images
from posture.data.feed.origins import image_uris, places_of
from posture.data.feed.shards import open_index
from posture.data.store import schema
from posture.data.store.tables import Store

FRAMES_SHOWN = 6
"""Number of frames of a clip."""
COMMITS_SHOWN = 30
"""Maximum number of commits."""


def summarize(store: Store) -> dict[str, Any]:
    """Return the `summary` of `posture.runs.reports.store.write_show_page` from the tables of a store."""
    segments = store.read("segments").to_pylist()
    clips = store.read("clips", columns=["segment", "recipe"]).to_pylist()
    labels = Counter((row["label"], row["split"]) for row in segments)
    bad = pc.field("verdict") != "ok"
    refused = [
        row
        for table in ("videos", "pictures")
        for row in store.read(table, columns=["uri", "verdict", "reason"], where=bad).to_pylist()
    ]
    recipes = Counter(clip["recipe"] for clip in clips)
    tables, history = _versions(store)
    return {
        "uri": store.uri,
        "tables": tables,
        "classes": [
            {"class": name, **{split: labels[name, split] for split in schema.SPLITS}}
            for name in sorted({name for name, _ in labels})
        ],
        "splits": _splits(segments, Counter(clip["segment"] for clip in clips)),
        "athletes": _athletes(segments),
        "on_two_sides": _on_two_sides(segments),
        "refused": refused + _absences(store, segments),
        "recipes": [{"recipe": name, "clips": count} for name, count in sorted(recipes.items())],
        "history": history,
    }


def _splits(segments: list[dict[str, Any]], windows: Counter[str]) -> list[dict[str, Any]]:
    """Return counts of each split; `windows`: {segment: number of clips}."""
    splits = []
    for split in schema.SPLITS:
        mine = [row for row in segments if row["split"] == split]
        splits.append({
            "split": split,
            "segments": len(mine),
            "clips": sum(windows[row["segment"]] for row in mine),
            "groups": len({row["group"] for row in mine}),
            "seconds": sum(row["end"] - row["start"] for row in mine),
        })
    return splits


def _athletes(segments: list[dict[str, Any]]) -> list[dict[str, int]]:
    """Return the number of videos and of their segments by the number of athletes who are labelled in a video.

    There are none if every label is about the whole video.
    """
    named: dict[str, list[str]] = defaultdict(list)
    for row in segments:
        if row["athlete"]:
            named[row["video"]].append(row["athlete"])
    videos = Counter(len(set(athletes)) for athletes in named.values())
    labelled = Counter[int]()
    for athletes in named.values():
        labelled[len(set(athletes))] += len(athletes)
    return [{"athletes": count, "videos": videos[count], "segments": labelled[count]} for count in sorted(videos)]


def _on_two_sides(segments: list[dict[str, Any]]) -> int:
    """Return the number of videos with segments in several splits, which earlier versions allowed."""
    sides: dict[str, set[str]] = defaultdict(set)
    for row in segments:
        if row["split"]:
            sides[row["video"]].add(row["split"])
    return sum(len(splits) > 1 for splits in sides.values())


def _versions(store: Store) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the tables with their sizes, and their latest commits."""
    tables, history = [], []
    for name, (version, count, size) in store.sizes().items():
        commits = store.history(name)
        row = {"name": name, "version": version, "rows": count, "bytes": size}
        tables.append(row | {"modified": _time(commits[0])})
        history += [
            {
                "table": name,
                "version": commit["version"],
                "time": _time(commit),
                "operation": commit["operation"],
                "rows": (commit.get("operationMetrics") or {}).get("num_added_rows"),
            }
            for commit in commits
        ]
    return tables, sorted(history, key=lambda row: row["time"], reverse=True)[:COMMITS_SHOWN]


def _time(commit: dict[str, Any]) -> datetime:
    return datetime.fromtimestamp(commit["timestamp"] / 1000, UTC)


def _absences(store: Store, segments: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the segments in which the detector found no athlete, as rows of refused files."""
    uris = {row["video"]: row["uri"] for row in store.read("videos", columns=["video", "uri"]).to_pylist()}
    video = {row["segment"]: row["video"] for row in segments}
    return [
        {
            "uri": uris.get(row["video"] or video.get(row["segment"], ""), row["segment"]),
            "verdict": row["verdict"],
            "reason": f"{row['reason']} ({row['recipe']})",
        }
        for row in store.read("absences").to_pylist()
    ]


def summarize_images(store: Store) -> dict[str, Any] | None:
    """Return counts of the images with boxes; None if the store has none."""
    labelled = store.read("boxes", columns=["group", "split", "labels"]).to_pylist()
    if not labelled:
        return None
    of_split = {split: [row for row in labelled if row["split"] == split] for split in schema.SPLITS}
    counts = {split: Counter(name for row in mine for name in row["labels"]) for split, mine in of_split.items()}
    names = sorted(set().union(*counts.values()))
    return {
        "classes": [{"class": name, **{split: counts[split][name] for split in schema.SPLITS}} for name in names],
        "splits": [
            {
                "split": split,
                "pictures": len(mine),
                "empty": sum(not row["labels"] for row in mine),
                "boxes": counts[split].total(),
                "groups": len({row["group"] for row in mine}),
            }
            for split, mine in of_split.items()
        ],
    }


def image_sheet(store: Store, run: DetectionRun, *, count: int, seed: int) -> list[dict[str, Any]]:
    """Return up to `count` training images after augmentation, with mosaics: {image, uri, pixels, boxes, labels}."""
    from posture.train.image_batches import ImageBatches

    index = index_images(store, "train")
    if not len(index):
        return []
    count = min(count, len(index))
    run = override(run, {"seed": seed, "scale.global_batch": count, "scale.micro_batch": None})
    images = open_index(index, feed=run.data.feed)
    steps = ImageBatches(images, run, rank=0, world_size=1, validation=images).training(0)
    (batch,) = next(steps)
    steps.close()
    keys = [index.keys[number] for number in batch.indices]
    uris = image_uris(store, keys)
    return [
        {
            "image": keys[at],
            "uri": uris.get(keys[at], ""),
            "pixels": batch.pixels[at],
            "boxes": batch.boxes[batch.images == at],
            "labels": [index.classes[label] for label in batch.labels[batch.images == at]],
        }
        for at in range(count)
    ]


def contact_sheet(store: Store, run: ActionRun, *, clips: int, seed: int) -> list[dict[str, Any]]:
    """Return up to `clips` training clips after augmentation, classes in turn: {label, split, group, uri, start,
    frames}.

    If the store has several decode recipes and `run` names none, each has its share and is named beside the group.
    """
    recipes = (
        [run.data.recipe]
        if run.data.recipe
        else sorted(set(store.read("clips", columns=["recipe"])["recipe"].to_pylist())) or [None]
    )
    share = -(-clips // len(recipes))
    sheet = []
    for name in recipes:
        items = _clips_of(store, override(run, {"data.recipe": name}), clips=share, seed=seed)
        sheet += [item | {"group": f"{item['group']} · {name}"} for item in items] if len(recipes) > 1 else items
    return sheet[:clips]


def _clips_of(store: Store, run: ActionRun, *, clips: int, seed: int) -> list[dict[str, Any]]:
    """Return the clips of one decode recipe."""
    import torch

    from posture.data.feed.clip_transforms import (
        TEMPORAL,
        augmented_frames,
        clip_generator,
        draw_augmentation,
        frame_indices,
    )

    index = index_footage(store, "train", recipe=run.data.recipe)
    chosen = _one_class_after_another(index, clips, seed)
    footage = open_index(index.part(chosen), feed="materialize")
    origins = places_of(store, [index.segment_ids[number] for number in index.segments[chosen]])
    sheet = []
    for at, clip in enumerate(chosen.tolist()):
        stored = footage.clip(at)
        generator = clip_generator(TEMPORAL, seed=seed, epoch=0, clip=clip) if run.data.temporal_jitter else None
        frames = stored[frame_indices(len(stored), run.model.frames, step=run.data.step, generator=generator)][None]
        augmentation = draw_augmentation(run.data, frames.shape[2:4], seed=seed, epoch=0, clips=np.array([clip]))
        images = augmented_frames(torch.from_numpy(frames), augmentation, size=run.model.size)[0].numpy()
        picked = np.linspace(0, len(images) - 1, FRAMES_SHOWN).round().astype(int)
        origin = origins[index.segment_ids[index.segments[clip]]]
        sheet.append({
            "label": index.classes[index.labels[clip]],
            "split": "train",
            "group": origin.group,
            "uri": origin.uri,
            "start": origin.start,
            "frames": [images[frame] for frame in picked],
        })
    return sheet


def _one_class_after_another(index: ClipIndex, count: int, seed: int) -> np.ndarray:
    """Return `count` clip indices, ascending, balanced over classes."""
    order = np.random.default_rng(seed).permutation(len(index))
    by_class = [[clip for clip in order.tolist() if index.labels[clip] == label] for label in np.unique(index.labels)]
    turns = [clips[turn] for turn in range(count) for clips in by_class if turn < len(clips)]
    return np.array(sorted(turns[:count]), dtype=np.int64)
