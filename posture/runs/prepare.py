"""Where a recipe meets a store: a run is checked and written down, then trained in this process or on Ray."""

from __future__ import annotations

import difflib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from posture.config import AnyRun, override, validate
from posture.data.feed.clips import ClipIndex, index_footage
from posture.data.feed.images import ImageIndex, index_images
from posture.data.feed.shards import open_index
from posture.data.store.files import absolute
from posture.data.store.tables import Store
from posture.display.text import counted
from posture.errors import InputError
from posture.runs.folder import RunFolder, refuse_existing, run_names, unique_name
from posture.runs.recipes import full_path, is_bare, load_recipe

PACKAGES = ("posture", "torch", "ray", "numpy", "pyarrow", "deltalake", "decord2", "wandb")
RECALL = 0.98
"""Share of the training boxes that anchors must reach to be kept (YOLOv5's)."""

UNITS = {"action": "clips", "detection": "images"}
"""What runs of each task train on."""

Index = ClipIndex | ImageIndex


@dataclass
class Session:
    """A run, its folder, and the clips or images it trains and validates on."""

    run: AnyRun
    folder: RunFolder
    train: Index
    val: Index
    resumed: bool
    start: str = ""
    """What `weights` were taken, in a sentence; empty where the network starts from random ones."""
    anchors: str = ""
    """What anchors a detector has, and why, in a sentence; empty where it has none."""
    size: str = ""
    """How many parameters the network has, and what memory training takes at least; empty if that was said when the run
    began.
    """

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes


def prepare(
    recipe: str | AnyRun,
    store_uri: str,
    *,
    runs: str,
    name: str | None = None,
    changes: dict[str, Any] | None = None,
    resume: bool | Literal["if begun"] = False,
    versions: dict[str, int] | None = None,
    left_out: tuple[str, ...] = (),
    admit: Callable[[AnyRun], None] | None = None,
) -> Session:
    """Check everything that can be checked before hardware is taken, and write run.json.

    `recipe` is a run, or FILE.py:function, or a bare function that says enough with what the store holds; `versions`
    pins the store's tables, else the newest are taken; clips of the classes `left_out` stay out. `resume` continues the
    run `name` with the footage versions it began with; `changes` may then prolong it. "if begun" begins it if it is not
    there. `admit` sees the run before anything is written, and may refuse it: `Backend.admit`.
    Raises InputError: unknown recipe or field, missing store, a name that is taken, an empty split, a batch that cannot
    be filled, weights that do not fit.
    """
    changes = dict(changes or {})
    recipe = recipe_path(recipe, store_uri) if isinstance(recipe, str) else recipe
    asked = override(load_recipe(recipe) if isinstance(recipe, str) else recipe, changes)
    if resume and not name and "name" not in changes:
        raise InputError("--resume needs the --name of the run to continue")
    name = name or (asked.name if "name" in changes else unique_name(asked.name))
    folder = RunFolder(runs, name)
    record = folder.read_json("run.json") if resume else None
    if record is not None:
        return _continue(folder, record, changes, admit)
    if resume is True:
        near = ", ".join(difflib.get_close_matches(name, run_names(runs), n=3))
        raise InputError(
            f"{folder.uri}: there is no run of this name to continue{f' (is it {near}?)' if near else ''}; leave out --resume to begin it, or "
            "give --resume-if-begun"
        )
    refuse_existing(folder)
    store = Store(store_uri)
    versions = versions or store.versions()
    fitted = fit_to_store(override(asked, {"name": name}), store, versions=versions, left_out=left_out)
    if admit is not None:
        admit(fitted.run)
    return begin(
        fitted,
        folder,
        recipe=recipe if isinstance(recipe, str) else recipe.name,
        store=store,
        versions=versions,
        left_out=left_out,
    )


@dataclass
class Fitted:
    """A run with what it takes over from a store, and what it reads of it."""

    run: AnyRun
    train: Index
    val: Index
    anchors: str
    size: str = ""
    """As in `Session`."""


def fit_to_store(run: AnyRun, store: Store, *, versions: dict[str, int], left_out: tuple[str, ...] = ()) -> Fitted:
    """`run` for the classes, clips and boxes of `store`. Raises InputError: an empty split, a batch that cannot be
    filled, footage without flow.
    """
    from posture.models.size import training_need

    train = index_run(run, store, "train", versions=versions, left_out=left_out)
    run, anchors = _fitted(override(run, {"model.classes": len(train.classes)}), train)
    val = index_run(run, store, "val", versions=versions, classes=train.classes, left_out=left_out)
    _refuse_unfit(run, train, val)
    return Fitted(run, train, val, anchors, str(training_need(run)))


def begin(
    fitted: Fitted,
    folder: RunFolder,
    *,
    recipe: str,
    store: Store,
    versions: dict[str, int],
    left_out: tuple[str, ...] = (),
) -> Session:
    """Write run.json into a new run's folder, and beside it the weights that it starts from. Raises InputError where
    those do not fit.
    """
    run, train, val, start = fitted.run, fitted.train, fitted.val, ""
    if run.weights:
        from posture.runs.weights import copy_weights

        run = override(run, {"weights": absolute(run.weights)})
        start = copy_weights(run.weights, folder, run.model, classes=train.classes)
    folder.write_json(
        "run.json",
        {
            "run": run.model_dump(mode="json"),
            "recipe": recipe,
            "store": store.uri,
            "versions": versions,
            "classes": train.classes,
            "left_out": left_out,
            "start": start,
            "anchors": fitted.anchors,
            "footage": {index.split: index.counts for index in (train, val)},
            "software": software(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            "created": time.time(),
        },
    )
    return Session(run, folder, train, val, resumed=False, start=start, anchors=fitted.anchors, size=fitted.size)


def recipe_path(path: str, store_uri: str | None, **said: str) -> str:
    """FILE.py:function of a recipe or study; of several with the bare name `path`, that for what the store holds.

    Raises InputError, with `what` was asked for and an `example` if they are given as in `full_path`.
    """
    return full_path(path, task=_task_of(Store(store_uri)) if store_uri is not None and is_bare(path) else None, **said)


def _task_of(store: Store) -> str | None:
    """What can be trained on a store that holds only clips, or only images; None if it holds both or neither."""
    held = {
        "action": store.read("segments", columns=["segment"]).num_rows,
        "detection": store.read("images", columns=["image"]).num_rows,
    }
    tasks = [task for task, rows in held.items() if rows]
    return tasks[0] if len(tasks) == 1 else None


def tables_of(run: AnyRun) -> tuple[str, ...]:
    """The store's tables that `run` reads."""
    if run.task == "detection":
        return ("images", "boxes")
    return ("segments", "clips", *(("flows",) if "flow" in run.model.inputs else ()))


def index_run(
    run: AnyRun,
    store: Store,
    split: str,
    *,
    versions: dict[str, int],
    classes: tuple[str, ...] | None = None,
    left_out: tuple[str, ...] = (),
) -> Index:
    """What `run` reads of a split of `store`, its classes as given or all but those `left_out`. Raises InputError where
    the store lacks it.
    """
    if run.task == "detection":
        return index_images(store, split, versions=versions, classes=classes)
    return index_footage(
        store,
        split,
        versions=versions,
        recipe=run.data.recipe,
        classes=classes,
        left_out=left_out,
        inputs=run.model.inputs,
        flow=run.data.flow,
    )


def open_run(index: Index, *, feed: str) -> Any:
    """The clips or images of this process alone."""
    return open_index(index, feed=feed) if isinstance(index, ImageIndex) else open_index(index, feed=feed)


def _fitted(run: AnyRun, train: Index) -> tuple[AnyRun, str]:
    """The run with what it takes over from its footage; and a sentence on its anchors."""
    if isinstance(train, ClipIndex):
        return override(run, {"data.recipe": train.recipe, "data.flow": train.flow or run.data.flow}), ""
    if not hasattr(run.model, "anchors") or not len(train):
        return run, ""
    from posture.tasks.anchors import best_possible_recall, kmeans_anchors

    sides = train.box_sides(run.model.size)
    recall = best_possible_recall(sides, run.model.anchors, ratio=run.loss.anchor_ratio)
    if run.data.anchors == "keep" or not len(sides) or (run.data.anchors == "auto" and recall >= RECALL):
        return run, f"anchors kept: they reach {recall:.1%} of {len(sides):,} training boxes"
    found = kmeans_anchors(sides, ratio=run.loss.anchor_ratio, seed=run.seed)
    now = best_possible_recall(sides, found, ratio=run.loss.anchor_ratio)
    return override(
        run, {"model.anchors": found}
    ), f"anchors by k-means of {len(sides):,} training boxes reach {now:.1%} of them, the model's own {recall:.1%}"


def _continue(
    folder: RunFolder, record: dict[str, Any], changes: dict[str, Any], admit: Callable[[AnyRun], None] | None
) -> Session:
    began = validate(record["run"])
    if (weights := changes.pop("weights", None)) and absolute(weights) != began.weights:
        raise InputError(
            f"{folder.uri}: a run that is continued keeps its own weights; leave out --weights, or choose another --name"
        )
    run = override(began, {path: value for path, value in changes.items() if path != "name"})
    store, classes, left_out = Store(record["store"]), tuple(record["classes"]), tuple(record.get("left_out", ()))
    train, val = (
        index_run(run, store, split, versions=record["versions"], classes=classes, left_out=left_out)
        for split in ("train", "val")
    )
    done = len(folder.read_json("history.json") or [])
    if done >= run.epochs:
        raise InputError(
            f"{folder.uri}: this run has finished its {counted(run.epochs, 'epoch')}; train it longer with --epochs {run.epochs * 2}"
        )
    if admit is not None:
        admit(run)
    if changes:
        folder.write_json("run.json", record | {"run": run.model_dump(mode="json")})
    resumed = bool(folder.checkpoints())
    return Session(run, folder, train, val, resumed=resumed, start="" if resumed else record.get("start", ""))


def _refuse_unfit(run: AnyRun, train: Index, val: Index) -> None:
    unit, multiple = UNITS[run.task], run.scale.multiple
    for index in (train, val):
        if not len(index):
            raise InputError(
                f"{index.store_uri}: the {index.split} split has no {unit}; give every class at least two groups (--val-share), "
                "or name the splits in the footage's labels"
            )
    if run.scale.global_batch > len(train):
        raise InputError(
            f"scale.global_batch: {run.scale.global_batch} {unit} make a step, but there are only {len(train)} training {unit}; "
            f"use --set scale.global_batch={max(multiple, len(train) // 4 // multiple * multiple)}"
        )


def software() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
