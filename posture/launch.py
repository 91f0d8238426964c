"""Where a recipe meets a store: a run is checked and written down, then trained in this process or on Ray."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from posture.config import Run, override, validate
from posture.data.files import absolute
from posture.data.footage import FootageIndex, index_footage, open_footage
from posture.data.store import Store
from posture.errors import InputError
from posture.recipes import load_recipe
from posture.runs import RunFolder, refuse_existing, unique_name

PACKAGES = ("posture", "torch", "ray", "numpy", "pyarrow", "deltalake", "decord2", "wandb")


@dataclass
class Session:
    """A run, its folder, and the clips it trains and validates on."""

    run: Run
    folder: RunFolder
    train: FootageIndex
    val: FootageIndex
    resumed: bool
    start: str = ""
    """What `weights` were taken, in a sentence; empty where the network starts from random ones."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.train.classes


def prepare(recipe: str | Run, store_uri: str, *, runs: str, name: str | None = None, changes: dict[str, Any] | None = None,
            resume: bool = False, versions: dict[str, int] | None = None) -> Session:
    """Check everything that can be checked before hardware is taken, and write run.json.

    `recipe` is a run, or FILE.py:function; `versions` pins the store's tables, else the newest are taken.
    `resume` continues the run `name` with the footage versions it began with; `changes` may then prolong it.
    Raises InputError: unknown recipe or field, missing store, a name that is taken, an empty split, a batch that cannot be filled, weights that
    do not fit.
    """
    changes = dict(changes or {})
    asked = override(recipe if isinstance(recipe, Run) else load_recipe(recipe), changes)
    if resume and not name and "name" not in changes:
        raise InputError("--resume needs the --name of the run to continue")
    name = name or (asked.name if "name" in changes else unique_name(asked.name))
    folder = RunFolder(runs, name)
    record = folder.read_json("run.json") if resume else None
    if record is not None:
        return _continue(folder, record, changes)
    refuse_existing(folder)
    store = Store(store_uri)
    versions = versions or store.versions()
    train = index_run(asked, store, "train", versions=versions)
    run = override(asked, {"name": name, "model.classes": len(train.classes), "data.recipe": train.recipe, "data.flow": train.flow or asked.data.flow})
    val = index_run(run, store, "val", versions=versions, classes=train.classes)
    _refuse_unfit(run, train, val)
    start = ""
    if run.weights:
        from posture.weights import copy_weights

        run = override(run, {"weights": absolute(run.weights)})
        start = copy_weights(run.weights, folder, run.model, classes=train.classes)
    folder.write_json("run.json", {
        "run": run.model_dump(mode="json"), "recipe": recipe if isinstance(recipe, str) else recipe.name, "store": store.uri, "versions": versions,
        "classes": train.classes, "start": start,
        "footage": {index.split: {"clips": len(index), "segments": len(index.segment_ids)} for index in (train, val)},
        "software": software(), "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs", "created": time.time()})
    return Session(run, folder, train, val, resumed=False, start=start)


def index_run(run: Run, store: Store, split: str, *, versions: dict[str, int], classes: tuple[str, ...] | None = None) -> FootageIndex:
    """What `run` reads of a split of `store`, its classes as given or all. Raises InputError where the store lacks it."""
    return index_footage(store, split, versions=versions, recipe=run.data.recipe, classes=classes, inputs=run.model.inputs, flow=run.data.flow)


def _continue(folder: RunFolder, record: dict[str, Any], changes: dict[str, Any]) -> Session:
    began = validate(record["run"])
    if (weights := changes.pop("weights", None)) and absolute(weights) != began.weights:
        raise InputError(f"{folder.uri}: a run that is continued keeps its own weights; leave out --weights, or choose another --name")
    run = override(began, {path: value for path, value in changes.items() if path != "name"})
    store, classes = Store(record["store"]), tuple(record["classes"])
    train, val = (index_run(run, store, split, versions=record["versions"], classes=classes) for split in ("train", "val"))
    done = len(folder.read_json("history.json") or [])
    if done >= run.epochs:
        raise InputError(f"{folder.uri}: this run has finished its {run.epochs} epochs; train it longer with --set epochs={run.epochs * 2}")
    if changes:
        folder.write_json("run.json", record | {"run": run.model_dump(mode="json")})
    resumed = bool(folder.checkpoints())
    return Session(run, folder, train, val, resumed=resumed, start="" if resumed else record.get("start", ""))


def _refuse_unfit(run: Run, train: FootageIndex, val: FootageIndex) -> None:
    for index in (train, val):
        if not len(index):
            raise InputError(f"{index.store_uri}: the {index.split} split has no clips; give every class at least two groups (--val-share), "
                             "or name the splits in the footage's labels")
    if run.scale.global_batch > len(train):
        raise InputError(f"scale.global_batch: {run.scale.global_batch} clips make a step, but there are only {len(train)} training clips; "
                         f"use --set scale.global_batch={max(run.scale.workers, len(train) // 4 // run.scale.workers * run.scale.workers)}")


def train_here(session: Session, *, on_progress: Callable[[dict[str, Any]], None], on_record: Callable[[dict[str, Any]], None],
               on_device: Callable[[str], None]) -> dict[str, Any]:
    """Train in this process, without Ray, on its GPU if it has one. Returns what `fit` returns. The first Ctrl-C saves and stops."""
    from posture.train.context import LocalContext

    class Here(LocalContext):
        def report(self, metrics: dict[str, Any], checkpoint: Any, *, best: bool) -> None:
            super().report(metrics, checkpoint, best=best)
            on_record(metrics)

    with Here(session.folder, on_progress=on_progress) as ctx:
        on_device(ctx.device_name)
        mode = session.run.data.feed
        return run_worker(session.run, session.classes, session.folder, ctx, train=open_footage(session.train, feed=mode),
                          val=open_footage(session.val, feed=mode))


def run_worker(run: Run, classes: tuple[str, ...], folder: RunFolder, ctx: Any, *, train: Any, val: Any) -> dict[str, Any]:
    """What every worker does, wherever it runs: build, load the last checkpoint or the weights to start from, fit, track on rank 0."""
    import torch

    from posture.models import build
    from posture.tasks.action import ActionTask
    from posture.tracking import Tracker
    from posture.train.batches import Batches
    from posture.train.loop import fit
    from posture.weights import load_start

    torch.manual_seed(run.seed)
    model = build(run.model)
    batches = Batches(train, run, rank=ctx.rank, world_size=ctx.world_size, validation=val)
    tracker = Tracker(run.name, folder=folder.uri, config=run.model_dump(mode="json")) if ctx.rank == 0 else None
    failed = True
    try:
        if folder.checkpoints():
            with folder.checkpoint("last") as checkpoint:
                outcome = fit(run, ActionTask(run, classes), batches, ctx, tracker, model=model, resume=checkpoint)
        else:
            if run.weights:
                load_start(model, folder)
                if tracker is not None:
                    tracker.summarize({"start": folder.read_json("run.json")["start"]})
            outcome = fit(run, ActionTask(run, classes), batches, ctx, tracker, model=model)
        failed = False
        if tracker is not None and outcome["best"] is not None:
            tracker.summarize({f"best_val_{run.metric}": outcome["best"], "best_epoch": outcome["best_epoch"]})
        return outcome
    finally:
        if tracker is not None:
            tracker.close(failed=failed)


def software() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
