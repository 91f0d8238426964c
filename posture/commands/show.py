"""`posture show`: reads a store and shows it, on the terminal and as a page."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow.compute as pc
from cyclopts import App

from posture.commands.options import between
from posture.config import ActionRun, DetectionRun, override
from posture.data.feed.clips import ClipIndex, index_footage
from posture.data.feed.images import index_images
from posture.data.feed.origins import image_uris, places_of
from posture.data.feed.shards import open_index
from posture.data.store import schema
from posture.data.store.tables import Store
from posture.display import console
from posture.runs.recipes import load_recipe
from posture.runs.reports.store import write_show_page

command = App(name="show", help_epilogue="Example: posture show STORE")


@command.default
def show(
    store: str,
    /,
    *,
    out: Path = Path("show.html"),
    recipe: str | None = None,
    clips: Annotated[int, between(0)] = 24,
    seed: int = 0,
) -> None:
    """Look into a store: clips and images as training sees them, class balance, splits and table versions, on the
    terminal and as an HTML page.

    Parameters
    ----------
    store
        Folder or s3:// prefix of the store.
    out
        File to write the page to.
    recipe
        Recipe whose augmentation is shown; by default jobs/action.py:improved and jobs/detector.py:improved.
    clips
        Maximum number of clips, and of images, on the page.
    seed
        Seed of the augmentation.
    """
    with console.waiting(f"reading {store}"):
        show_store(store, out=out, recipe=recipe, items=clips, seed=seed)
    console.suggest(f"posture train RECIPE --store {store}; posture models lists the recipes")


FRAMES_SHOWN = 6
COMMITS_SHOWN = 30


RECIPES = {"action": "jobs/action.py:improved", "detection": "jobs/detector.py:improved"}
"""Whose augmentation is shown where nobody says."""


def show_store(uri: str, *, out: Path, recipe: str | None, items: int, seed: int) -> None:
    """Write the page about the store at `uri` to `out`, and its figures to the terminal. Raises InputError.

    `recipe` augments clips or images, whichever it is for.
    """
    store = Store(uri)
    runs = {task: load_recipe(name) for task, name in RECIPES.items()}
    if recipe is not None:
        chosen = load_recipe(recipe)
        runs[chosen.task] = chosen
    summary, images = summarize(store), summarize_images(store)
    segments = sum(row["segments"] for row in summary["splits"])
    if images:
        images["sheet"] = image_sheet(store, runs["detection"], count=items, seed=seed)
    sheet = contact_sheet(store, runs["action"], clips=items, seed=seed) if segments or not images else []
    write_show_page(out, summary=summary, sheet=sheet, images=images)
    console.out.print(f"{store.uri}: {console.size(sum(table['bytes'] for table in summary['tables']))}")
    if segments:
        console.table("class", *schema.SPLITS, rows=[tuple(row.values()) for row in summary["classes"]])
        console.out.print()
        console.table(
            "split",
            "segments",
            "clips",
            "groups",
            "footage",
            rows=[
                (row["split"], row["segments"], row["clips"], row["groups"], console.duration(row["seconds"]))
                for row in summary["splits"]
            ],
        )
        console.out.print()
    if images:
        console.table("class of boxes", *schema.SPLITS, rows=[tuple(row.values()) for row in images["classes"]])
        console.out.print()
        console.table(
            "split",
            "images",
            "without a box",
            "boxes",
            "groups",
            rows=[tuple(row.values()) for row in images["splits"]],
        )
        console.out.print()
    console.table(
        "table",
        "version",
        "rows",
        "size",
        rows=[(row["name"], row["version"], row["rows"], console.size(row["bytes"])) for row in summary["tables"]],
    )
    console.out.print(f"\n{out.resolve()}")


def summarize(store: Store) -> dict[str, Any]:
    """What `posture.show.write_show_page` shows of a store, from its tables."""
    segments = store.read("segments").to_pylist()
    clips = store.read("clips", columns=["segment", "recipe"]).to_pylist()
    windows: dict[str, int] = {}
    for clip in clips:
        windows[clip["segment"]] = windows.get(clip["segment"], 0) + 1
    classes = [
        {
            "class": name,
            **{
                split: sum(row["label"] == name and row["split"] == split for row in segments)
                for split in schema.SPLITS
            },
        }
        for name in sorted({row["label"] for row in segments})
    ]
    splits = []
    for split in schema.SPLITS:
        mine = [row for row in segments if row["split"] == split]
        splits.append({
            "split": split,
            "segments": len(mine),
            "clips": sum(windows.get(row["segment"], 0) for row in mine),
            "groups": len({row["group"] for row in mine}),
            "seconds": sum(row["end"] - row["start"] for row in mine),
        })
    tables, history = [], []
    for name, (version, count, size) in store.sizes().items():
        commits = store.history(name)
        tables.append({
            "name": name,
            "version": version,
            "rows": count,
            "bytes": size,
            "modified": _moment(commits[0]["timestamp"]),
        })
        history += [
            {
                "table": name,
                "version": commit["version"],
                "time": _moment(commit["timestamp"]),
                "operation": commit["operation"],
                "rows": (commit.get("operationMetrics") or {}).get("num_added_rows"),
            }
            for commit in commits
        ]
    recipes: dict[str, int] = {}
    for clip in clips:
        recipes[clip["recipe"]] = recipes.get(clip["recipe"], 0) + 1
    bad = pc.field("verdict") != "ok"
    refused = [
        row
        for table in ("videos", "pictures")
        for row in store.read(table, columns=["uri", "verdict", "reason"], where=bad).to_pylist()
    ]
    refused += _absences(store, segments)
    return {
        "uri": store.uri,
        "tables": tables,
        "classes": classes,
        "splits": splits,
        "refused": refused,
        "recipes": [{"recipe": name, "clips": count} for name, count in sorted(recipes.items())],
        "history": sorted(history, key=lambda row: row["time"], reverse=True)[:COMMITS_SHOWN],
    }


def _absences(store: Store, segments: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Segments in which a detector found nobody, as refused files are listed."""
    uris = {row["video"]: row["uri"] for row in store.read("videos", columns=["video", "uri"]).to_pylist()}
    video = {row["segment"]: row["video"] for row in segments}
    return [
        {
            "uri": uris.get(video.get(row["segment"], ""), row["segment"]),
            "verdict": row["verdict"],
            "reason": f"{row['reason']} ({row['recipe']})",
        }
        for row in store.read("absences").to_pylist()
    ]


def summarize_images(store: Store) -> dict[str, Any] | None:
    """What the page shows of a store's images with boxes, but for the images; None where it has none."""
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
    """Up to `count` training images after the recipe's augmentation, mosaics too: {image, uri, pixels, boxes,
    labels}.
    """
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
            "image": keys[place],
            "uri": uris.get(keys[place], ""),
            "pixels": batch.pictures[place],
            "boxes": batch.boxes[batch.images == place],
            "labels": [index.classes[label] for label in batch.labels[batch.images == place]],
        }
        for place in range(count)
    ]


def contact_sheet(store: Store, run: ActionRun, *, clips: int, seed: int) -> list[dict[str, Any]]:
    """Up to `clips` training clips, classes in turn, after the recipe's augmentation: {label, split, group, uri, start,
    frames}.

    Where the store has several decode recipes and `run` names none, each has its share, and stands beside the group.
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
    """Those of one decode recipe."""
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
    places = places_of(store, [index.segment_ids[number] for number in index.segments[chosen]])
    sheet = []
    for place, clip in enumerate(chosen.tolist()):
        stored = footage.clip(place)
        generator = clip_generator(TEMPORAL, seed=seed, epoch=0, clip=clip) if run.data.temporal_jitter else None
        frames = stored[frame_indices(len(stored), run.model.frames, step=run.data.step, generator=generator)][None]
        augmentation = draw_augmentation(run.data, frames.shape[2:4], seed=seed, epoch=0, clips=np.array([clip]))
        images = augmented_frames(torch.from_numpy(frames), augmentation, size=run.model.size)[0].numpy()
        picked = np.linspace(0, len(images) - 1, FRAMES_SHOWN).round().astype(int)
        origin = places[index.segment_ids[index.segments[clip]]]
        sheet.append({
            "label": index.classes[index.labels[clip]],
            "split": "train",
            "group": origin.group,
            "uri": origin.uri,
            "start": origin.start,
            "frames": [images[at] for at in picked],
        })
    return sheet


def _one_class_after_another(index: ClipIndex, count: int, seed: int) -> np.ndarray:
    """Clip indices, ascending: as many of each class as `count` allows."""
    order = np.random.default_rng(seed).permutation(len(index))
    by_class = [[clip for clip in order.tolist() if index.labels[clip] == label] for label in np.unique(index.labels)]
    turns = [clips[turn] for turn in range(count) for clips in by_class if turn < len(clips)]
    return np.array(sorted(turns[:count]), dtype=np.int64)


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
