"""Fit a recipe to a store: check a run, write it down, or open one to continue."""

from __future__ import annotations

import difflib
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from posture.config import ActionRun, AnyRun, override
from posture.data.feed.shards import Index
from posture.data.store.files import absolute
from posture.data.store.tables import Store
from posture.display.text import counted
from posture.errors import InputError
from posture.runs.figures import Reads
from posture.runs.folder import RunFolder, RunRecord, refuse_existing, run_names, unique_name
from posture.runs.kinds import KINDS
from posture.runs.recipes import full_path, is_bare, load_recipe
from posture.runs.schedule import schedule

PACKAGES = ("posture", "torch", "ray", "numpy", "pyarrow", "deltalake", "decord2", "wandb")


@dataclass
class Fitted:
    """A run with the values that it takes from a store, and what it reads there."""

    run: AnyRun
    train: Index
    val: Index
    anchors: str = ""
    """A detector's anchors and why it has them, in a sentence; empty if it has none."""
    schedule: str = ""
    """Sentence on the epochs that were chosen (`epochs: auto`); empty if none were."""
    size: str = ""
    """Number of parameters and the least memory that training takes; empty for a run that was begun earlier."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes


@dataclass(kw_only=True)
class Session(Fitted):
    """A run in its folder, ready to train."""

    folder: RunFolder
    resumed: bool
    start: str = ""
    """Sentence on the weights that the run starts from, and its teachers; empty for random ones and without."""


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

    `recipe` is a run, FILE.py:function, or the name of a function. `versions` pins the store's tables, else the newest
    are taken. Clips of the classes `left_out` are not read. `resume` continues the run `name` with the table versions
    it began with; `changes` may then prolong it. "if begun" begins the run if it does not exist. `admit`
    (`Backend.admit`) sees the run before anything is written, and may refuse it.

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
    if resume and folder.exists():
        return _continue(folder, changes, admit)
    if resume is True:
        near = ", ".join(difflib.get_close_matches(name, run_names(runs), n=3))
        raise InputError(
            f"{folder.uri}: there is no run of this name to continue{f' (is it {near}?)' if near else ''}; "
            "leave out --resume to begin it, or give --resume-if-begun"
        )
    refuse_existing(folder)
    store = Store(store_uri)
    versions = versions or store.versions()
    fitted = fit_to_store(asked, store, versions=versions, left_out=left_out, name=name)
    if admit is not None:
        admit(fitted.run)
    path = recipe if isinstance(recipe, str) else recipe.name
    return begin(fitted, folder, recipe=path, store=store, versions=versions, left_out=left_out)


def fit_to_store(
    run: AnyRun, store: Store, *, versions: dict[str, int], left_out: tuple[str, ...] = (), name: str | None = None
) -> Fitted:
    """Return `run`, under a `name` of its own, with the classes, decode recipe and anchors that fit `store`.

    Raises InputError: an empty split, a batch that cannot be filled, footage without flow.
    """
    from posture.models.size import training_need

    kind = KINDS[run.task]
    train = kind.index(run, store, "train", Reads(versions, left_out=left_out))
    changes, anchors = kind.resolve(run, train)
    times, said = schedule(run, len(train))
    run = override(run, {"name": name or run.name, "model.classes": len(train.classes)} | changes | times)
    val = kind.index(run, store, "val", Reads(versions, train.classes, left_out))
    _refuse_unfit(run, train, val)
    return Fitted(run, train, val, anchors, said, str(training_need(run)))


def begin(
    fitted: Fitted,
    folder: RunFolder,
    *,
    recipe: str,
    store: Store,
    versions: dict[str, int],
    left_out: tuple[str, ...] = (),
) -> Session:
    """Write run.json into a new run's folder, and beside it the weights that the run starts from and its teachers.

    Raises InputError if those do not fit.
    """
    run, start = fitted.run, ""
    if run.weights:
        from posture.runs.weights import copy_weights

        run = override(run, {"weights": absolute(run.weights)})
        start = copy_weights(run.weights, folder, run.model, classes=fitted.classes)
    if isinstance(run, ActionRun) and run.teachers:
        from posture.runs.teachers import copy_teachers

        start = "; ".join(filter(None, [start, copy_teachers(run, folder, classes=fitted.classes)]))
        run = override(run, {"teachers": [absolute(uri) for uri in run.teachers]})
    folder.write_record(
        RunRecord(
            run=run,
            recipe=recipe,
            store=store.uri,
            versions=versions,
            classes=fitted.classes,
            left_out=left_out,
            start=start,
            anchors=fitted.anchors,
            footage={index.split: index.counts for index in (fitted.train, fitted.val)},
            software=software(),
            machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
            created=time.time(),
        )
    )
    return Session(**{**vars(fitted), "run": run}, folder=folder, resumed=False, start=start)


def recipe_path(path: str, store_uri: str | None, **said: str) -> str:
    """Return FILE.py:function of a recipe or study. A bare name that several files have means the one for what the
    store holds.

    Raises InputError; `what` was asked for and an `example` are as in `full_path`.
    """
    return full_path(path, task=_task_of(Store(store_uri)) if store_uri is not None and is_bare(path) else None, **said)


def _task_of(store: Store) -> str | None:
    """Return the task of a store that holds only clips, or only images; None if it holds both or neither."""
    held = {
        "action": store.read("segments", columns=["segment"]).num_rows,
        "detection": store.read("images", columns=["image"]).num_rows,
    }
    tasks = [task for task, rows in held.items() if rows]
    return tasks[0] if len(tasks) == 1 else None


def _continue(folder: RunFolder, changes: dict[str, Any], admit: Callable[[AnyRun], None] | None) -> Session:
    record = folder.record()
    for field, option in (("weights", "--weights"), ("teachers", "--teacher")):
        asked = changes.pop(field, None)
        uris = [asked] if isinstance(asked, str) else asked or []
        begun = getattr(record.run, field, ())
        if uris and [absolute(uri) for uri in uris] != ([begun] if isinstance(begun, str) else list(begun)):
            raise InputError(
                f"{folder.uri}: a run that is continued keeps its own {field}; leave out {option}, or choose another "
                "--name"
            )
    if changes.get("epochs") == "auto":
        del changes["epochs"]  # chosen when the run began
    run = override(record.run, {path: value for path, value in changes.items() if path != "name"})
    reads = Reads(record.versions, record.classes, record.left_out)
    train, val = (KINDS[run.task].index(run, Store(record.store), split, reads) for split in ("train", "val"))
    if len(folder.history()) >= run.chosen_epochs:
        longer = "" if run.solved else f"; train it longer with --epochs {run.chosen_epochs * 2}"
        raise InputError(f"{folder.uri}: this run has finished its {counted(run.chosen_epochs, 'epoch')}{longer}")
    if admit is not None:
        admit(run)
    if changes:
        folder.write_record(replace(record, run=run))
    resumed = bool(folder.checkpoints())
    return Session(run, train, val, folder=folder, resumed=resumed, start="" if resumed else record.start)


def _refuse_unfit(run: AnyRun, train: Index, val: Index) -> None:
    unit, multiple = KINDS[run.task].unit, run.scale.multiple
    for index in (train, val):
        if not len(index):
            raise InputError(
                f"{index.store_uri}: the {index.split} split has no {unit}; give every class at least two groups "
                "(--val-share), or name the splits in the footage's labels"
            )
    if run.optim.backbone_lr < 1 and not run.weights:
        raise InputError(
            f"optim.backbone_lr: {run.optim.backbone_lr:g} slows all layers but the last, which is for a network that "
            "starts from trained weights; name them with --weights, or use --set optim.backbone_lr=1"
        )
    if run.scale.global_batch > len(train):
        raise InputError(
            f"scale.global_batch: {run.scale.global_batch} {unit} make a step, but there are only {len(train)} "
            f"training {unit}; use --set scale.global_batch={max(multiple, len(train) // 4 // multiple * multiple)}"
        )


def software() -> dict[str, str]:
    """Return the versions of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
