"""The command line: `posture COMMAND`, or `python -m posture COMMAND` on a cluster. The only argument parser.

Everything heavy is imported inside the commands: `posture --help` needs neither torch nor ray.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from posture import __version__
from posture.display import console
from posture.errors import InputError

if TYPE_CHECKING:
    from posture.retrain.run_pass import RetrainOptions

app = App(
    name="posture",
    version=__version__,
    help="Train sports-action models on footage, on one machine or a Ray cluster.",
    help_format="plaintext",
)

Repeated = Annotated[list[str], Parameter(name="--set", negative="", consume_multiple=False)]


def main(arguments: list[str] | None = None) -> None:
    """Run a command. Exit code 2 and one sentence for what the user can mend, 130 for Ctrl-C, also as SIGTERM from a
    scheduler.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with console.waiting("loading"):
            app(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(str(error))
    except InputError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nposture: interrupted", file=sys.stderr)
        sys.exit(130)


def fail(message: str) -> None:
    from posture.display.console import visible

    print(f"posture: {visible(message)}", file=sys.stderr)
    sys.exit(2)


@app.command
def ingest(
    footage: str | None = None,
    /,
    *,
    store: str,
    layout: Literal["segments", "kinetics", "ucf101", "folders", "yolo", "coco", "voc", "cvat", "ucf101_24"]
    | None = None,
    size: str = "128x171",
    frames: int = 32,
    stride: int = 2,
    windows: int = 1,
    fit: Literal["stretch", "crop", "pad"] = "stretch",
    jpeg: int = 0,
    min_frames: int = 16,
    short: Literal["pad", "refuse"] = "pad",
    background: bool = False,
    split_number: int = 1,
    val_share: float = 0.2,
    test_share: float | None = None,
    seed: int = 0,
    file_limit: float = 120.0,
    file_memory: float = 4.0,
    max_pixels: float = 100e6,
    max_refused: float = 0.5,
    every: int = 8,
    boxes: Literal["clip", "refuse"] = "clip",
    named_val: Literal["test", "val"] = "test",
    crop: str | None = None,
    margin: float = 0.2,
    flow: Literal["dis", "farneback"] | None = None,
    yes: bool = False,
    report: bool = False,
    outside: bool = False,
    recheck: bool = False,
) -> None:
    """Decode footage, or images with boxes, into a store; what is there already is not decoded again.

    Parameters
    ----------
    footage
        Folder, s3:// prefix, or the file of labels in it (a segments CSV, data.yaml, COCO JSON ...); may be left out
        with --flow, for a store that has clips.
    store
        Folder or s3:// prefix of the store.
    layout
        How labels are given; recognised when left out.
    size
        Height x width of stored frames, in pixels: larger than training's, so that crops can vary.
    frames
        Frames per stored clip: more than training's 16, so that their start can vary.
    stride
        Store every n-th frame of the file.
    windows
        Clips per segment, spread evenly over it.
    fit
        What to do with another aspect ratio.
    jpeg
        JPEG quality of stored frames (1-100, about a tenth of the size, slower to read); 0 stores raw frames.
    min_frames
        Stored frames that make one training clip.
    short
        Segments with fewer: keep them (training repeats their last frame), or refuse them.
    background
        Also cut clips of a class `background` from the gaps between labels.
    split_number
        Which of UCF101's three official splits.
    val_share
        Share of each class's training groups that becomes val, where the footage names no val.
    test_share
        Share of each class's groups that becomes test, where the footage names no test; left out, 0.2 of footage and
        0.3 of images.
    seed
        Of the choice of groups.
    file_limit
        Seconds that one file's decoding may take, a video's or an image's.
    file_memory
        GB of memory that one file's decoding may take (on Linux).
    max_pixels
        Height x width that an image or a video's frame may have.
    max_refused
        Share of refused files above which the command fails.
    every
        Images: take every n-th annotated frame of a video.
    boxes
        Images: cut boxes off at the image's edge, or refuse the image.
    named_val
        Images: what a named val is where no test is named: the part held out for the result, or a val as everywhere.
    crop
        Cut clips around the athlete: along `boxes` that lie beside the videos, or along what a trained detector finds,
        detector=RUN. They stand beside whole clips.
    margin
        What a cropped clip shows around the athlete, on each side, as a share of the athlete's box: from 0 to 2.
    flow
        Then compute the clips' optical flow, for two-stream models, where it is missing: by OpenCV's DIS or Farneback
        method.
    yes
        Do not ask before a long ingest.
    report
        Show the last ingest again instead.
    outside
        Images: read what the `path` of a data.yaml names even if it lies outside of FOOTAGE.
    recheck
        First look at the videos that an earlier version of Posture decoded, and decode again those of which it may have
        stored other frames than asked; FOOTAGE may be left out.
    """
    from posture.commands.ingest import (
        add_flow,
        ask_and_ingest,
        ask_and_ingest_images,
        read_crop,
        recheck_videos,
        show_report,
    )
    from posture.data.decode.cut import Cut
    from posture.data.store.schema import DecodeRecipe

    if report:
        return show_report(store)
    if recheck:
        recheck_videos(store, limit_seconds=file_limit)
        if footage is None and flow is None:
            return
    if footage is None and flow is not None:
        add_flow(store, flow)
        console.suggest(f"posture train jobs/action.py:two_stream --store {store}")
        return
    if footage is None:
        raise InputError("ingest needs FOOTAGE: a folder, an s3:// prefix, or a file of labels")
    height, width = parse_size(size)
    for name, value, least, most in (
        ("--frames", frames, 1, 1024),
        ("--stride", stride, 1, 1000),
        ("--windows", windows, 1, 1000),
        ("--jpeg", jpeg, 0, 100),
        ("--min-frames", min_frames, 1, frames),
        ("--val-share", val_share, 0, 0.9),
        ("--test-share", test_share or 0, 0, 0.9),
        ("--max-refused", max_refused, 0, 1),
        ("--file-limit", file_limit, 1, 86400),
        ("--file-memory", file_memory, 0.5, 1e6),
        ("--max-pixels", max_pixels, 1, 1e10),
        ("--every", every, 1, 100_000),
    ):
        if not least <= value <= most:
            raise InputError(f"{name} {value}: must be from {least} to {most}")
    if crop is not None and fit != "stretch":
        raise InputError(
            f"--fit {fit}: what is cut out has the proportions of --size already; leave --fit out, or --crop"
        )
    cropped, detector = read_crop(crop, margin)
    recipe = DecodeRecipe(height, width, frames, stride, windows, fit, jpeg, cropped)
    from posture.data.decode.limits import DecodeLimits
    from posture.data.ingest.clip_ledger import IngestOptions
    from posture.data.ingest.image_ledger import ImageOptions
    from posture.data.labels import images
    from posture.data.labels.found import choose_layout

    limits = DecodeLimits(pixels=int(max_pixels), memory_bytes=int(file_memory * 1e9))
    if crop is None and layout is None:
        layout = choose_layout(
            footage, clips=fit != "stretch" or windows != 1 or jpeg > 0 or background or flow is not None
        )
    if crop is None and layout in images.LAYOUTS:
        found = images.read_images(
            footage, layout=layout, every=every, named_val=named_val, split_number=split_number, outside=outside
        )
        options = ImageOptions(
            boxes,
            val_share=val_share,
            test_share=0.3 if test_share is None else test_share,
            seed=seed,
            file_limit_seconds=file_limit,
            limits=limits,
            max_refused_share=max_refused,
        )
        ask_and_ingest_images(found, store, options, yes=yes)
        console.suggest(f"posture show {store}, then posture train jobs/detector.py:improved --store {store}")
        return
    options = IngestOptions(
        cut=Cut(recipe, min_frames, short, background),
        val_share=val_share,
        test_share=0.2 if test_share is None else test_share,
        seed=seed,
        file_limit_seconds=file_limit,
        limits=limits,
        max_refused_share=max_refused,
    )
    ask_and_ingest(footage, store, options, layout=layout, split_number=split_number, yes=yes, detector=detector)
    if flow is not None:
        add_flow(store, flow)
    console.suggest(
        f"posture show {store}, then posture train jobs/action.py:{'improved' if flow is None else 'two_stream'} --store {store}"
    )


@app.command
def show(
    store: str, /, *, out: Path = Path("show.html"), recipe: str | None = None, clips: int = 24, seed: int = 0
) -> None:
    """Look into a store: clips and images as training sees them, class balance, splits, versions; an HTML page.

    Parameters
    ----------
    store
        Folder or s3:// prefix of the store.
    out
        Where to write the page.
    recipe
        Whose augmentation to show; jobs/action.py:improved and jobs/detector.py:improved where not given.
    clips
        How many clips, and how many images.
    seed
        Of the augmentation.
    """
    from posture.commands.show import show_store

    with console.waiting(f"reading {store}"):
        show_store(store, out=out, recipe=recipe, items=clips, seed=seed)
    console.suggest(f"posture train RECIPE --store {store}; posture models lists the recipes")


@app.command
def train(
    recipe: str,
    /,
    *,
    store: str,
    runs: str = "runs",
    name: str | None = None,
    epochs: int | None = None,
    workers: str | None = None,
    weights: str | None = None,
    set_file: str | None = None,
    local: bool = False,
    resume: bool = False,
    resume_if_begun: bool = False,
    sets: Repeated = (),
) -> None:
    """Train a recipe on a store: `posture train jobs/action.py:improved --store STORE`.

    Parameters
    ----------
    recipe
        FILE.py:function, or FILE.py:function.NAME of several runs; looked up in the working directory, then among those
        that come with Posture. A bare function, such as c3d, is enough if one file has it, or one whose runs train on
        what the store holds.
    store
        Folder or s3:// prefix of the store.
    runs
        Folder or s3:// prefix for results.
    name
        Name of the run; unique if left out.
    epochs
        As --set epochs=N.
    workers
        Ray Train workers (data-parallel), or a range such as 2-8: as many as the cluster has room for, which may change
        while the run goes on.
    weights
        Start from these: a run, a checkpoint's folder, a .safetensors file, or a state dict (.pt, .pth), torchvision's
        too.
    sets
        Change a field: --set optim.lr=0.01 (repeatable).
    set_file
        Changes from a JSON file: what posture tune found (best.json), or fields and values, or these themselves as
        JSON; --set goes over them.
    local
        In this process, without Ray.
    resume
        Continue the run --name from its last checkpoint.
    resume_if_begun
        Continue the run --name, or begin it: for a job that is handed in again after it was lost.
    """
    from posture.commands.train import train_run
    from posture.config import read_changes

    changes = read_changes(set_file) if set_file is not None else {}
    changes |= _changes(
        sets, epochs=epochs, workers=None if workers is None else parse_workers(workers), weights=weights
    )
    train_run(
        recipe,
        store,
        runs=runs,
        name=name,
        changes=changes,
        local=local,
        resume=resume or ("if begun" if resume_if_begun else False),
    )


@app.command
def evaluate(
    run: str,
    /,
    *,
    split: Literal["test", "val", "train"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    workers: int = 0,
    crops: Literal[1, 3] = 1,
    spans: int = 1,
    source: int = 0,
    store: str | None = None,
    batch: int = 16,
) -> None:
    """Score a run on footage it never saw: metrics.json and report.html, in a folder for each split and protocol.

    Parameters
    ----------
    run
        The run's folder.
    split
        `test` for the result; the others to look around.
    checkpoint
        The best on val, or the last.
    workers
        Ray tasks; 0 scores in this process.
    crops
        Spatial views: the middle, or left, middle and right.
    spans
        Spans of frames within each stored clip, spread evenly.
    source
        Windows per segment decoded from the original files instead of the stored ones.
    store
        Another store than the run's own (its newest versions).
    batch
        Views per forward pass.
    """
    from posture.commands.evaluate import evaluate_run
    from posture.runs.action import Views

    for option, value in (("--spans", spans), ("--batch", batch)):
        if value < 1:
            raise InputError(f"{option} {value}: must be at least 1")
    if source < 0 or workers < 0:
        raise InputError("--source and --workers must not be negative")
    metrics = evaluate_run(
        run, views=Views(crops, spans, source), split=split, which=checkpoint, workers=workers, batch=batch, store=store
    )
    if metrics["notice"]:
        console.suggest("train it to its end: posture train with the same arguments and --resume")
    elif split != "test":
        console.suggest(f"posture evaluate {run} for the result on test")
    elif "map50" in metrics:
        console.suggest(f"posture ingest FOOTAGE --store STORE --crop detector={run} cuts clips around what it finds")
    else:
        console.suggest(f"posture explain {run} VIDEO shows where and when it looks")


@app.command
def runs(
    folder: str = "runs",
    /,
    *,
    sort: Literal["newest", "name", "state", "recipe", "val", "test"] = "newest",
    page: Path | None = None,
) -> None:
    """What was trained: state, recipe, footage, the best on val, and the test result with its interval.

    Parameters
    ----------
    folder
        Folder or s3:// prefix of runs.
    sort
        What comes first: the newest, or the highest on val or test, or by name, state or recipe.
    page
        Also write an HTML page there, which can be sorted.
    """
    from posture.commands.runs import list_runs

    list_runs(folder, order=sort, page=page)
    console.suggest(
        "posture evaluate RUN, or posture train RECIPE --store STORE --name RUN --resume for one that is not finished"
    )


@app.command
def compare(
    study: str,
    /,
    *,
    store: str,
    seeds: int = 3,
    epochs: int | None = None,
    out: str | None = None,
    sets: Repeated = (),
    equal: Literal["epochs", "time"] = "epochs",
    concurrent: int | None = None,
    local: bool = False,
) -> None:
    """Train and score a study's models on one budget, and compare them: `posture compare jobs/action.py:study --store
    STORE`.

    An interrupted study goes on with the same command; runs that are finished are used again.

    Parameters
    ----------
    study
        FILE.py:function that returns a Study; or best.json of a search, whose winner is then compared with the recipe
        it began with.
    store
        Folder or s3:// prefix of the store.
    seeds
        How often each model is trained, with seeds 0, 1, ...
    epochs
        Budget of every model; left out, the study's own.
    out
        Folder or s3:// prefix for runs and page; left out, studies/NAME.
    sets
        Change a field of every model that has it: --set model.width=0.25 (repeatable).
    equal
        The same number of epochs for every model, or the same training time as the study's subject.
    concurrent
        Runs at a time; left out, one for each GPU, or for each CPU where there is none.
    local
        One after the other in this process, without Ray.
    """
    from posture.commands.compare import compare_study

    for option, value in (("--seeds", seeds), ("--epochs", epochs), ("--concurrent", concurrent)):
        if value is not None and value < 1:
            raise InputError(f"{option} {value}: must be at least 1")
    compare_study(
        study,
        store,
        out=out,
        seeds=seeds,
        changes=_changes(sets, epochs=epochs),
        local=local,
        concurrent=concurrent,
        equal=equal,
    )
    console.suggest(f"the same command with --seeds {seeds + 2} trains what is missing, and is surer")


@app.command
def tune(
    space: str,
    /,
    *,
    base: str,
    store: str | None = None,
    trials: int = 40,
    hours: float | None = None,
    objective: str | None = None,
    max_concurrent: int | None = None,
    workers_per_trial: int = 1,
    halving: bool = True,
    name: str | None = None,
    folder: str | None = None,
    storage: str | None = None,
    sampler: Literal["tpe", "random"] = "tpe",
    seed: int = 0,
    epochs: int | None = None,
    sets: Repeated = (),
    out: str | None = None,
    report: bool = False,
) -> None:
    """Search a space for the best changes to a recipe: `posture tune tune_spaces/action.py --base
    jobs/action.py:improved --store STORE`.

    Interrupted or killed, the same command goes on; asked for more trials, it adds them.

    Parameters
    ----------
    space
        FILE.py:function of an Optuna trial (`space` if no function is named).
    base
        FILE.py:function: the recipe that is changed, and the first trial.
    store
        Folder or s3:// prefix of the store.
    trials
        Finished trials in the end, stopped and failed ones included.
    hours
        Begin no trial after that time, and interrupt those that run.
    objective
        What is made best on val: accuracy, map, map50_95 ...; two, such as accuracy,gmacs, give a Pareto front.
    max_concurrent
        Trials at a time; left out, one for each GPU, or for each free CPU where there is none.
    workers_per_trial
        Ray Train workers of each trial.
    halving
        Stop trials early that are behind (never with several objectives).
    name
        Name of the search; left out, those of the space and the recipe.
    folder
        Folder or s3:// prefix for trials, study and report; left out, searches/NAME.
    storage
        The study's database, postgresql://USER@HOST/NAME (its password in PGPASSWORD or ~/.pgpass) or sqlite:///..., or
        the path of an Optuna journal; left out, study.db in the folder.
    sampler
        Who proposes points: Optuna's TPE, or chance, to measure it by.
    seed
        Of the points that are tried.
    epochs
        Of every trial, as --set epochs=N.
    sets
        Change a field of the base recipe: --set optim.name=adamw (repeatable).
    out
        Where to write the winner; left out, best.json in the folder.
    report
        Write the page of what was searched so far, and search nothing.
    """
    from posture.commands.tune import SearchOptions, tune_space
    from posture.runs.prepare import recipe_path

    asked = SearchOptions(
        space, recipe_path(base, store), _changes(sets, epochs=epochs), objective, name, folder, storage, sampler, seed
    )
    if report:
        from posture.commands.tune import write_report

        write_report(asked)
        console.suggest("the same command without --report goes on searching")
        return
    if store is None:
        raise InputError("tune needs --store STORE: the footage to train on, which posture ingest makes")
    for option, value, least in (
        ("--trials", trials, 1),
        ("--max-concurrent", max_concurrent, 1),
        ("--workers-per-trial", workers_per_trial, 1),
        ("--hours", hours, 0),
    ):
        if value is not None and value < least:
            raise InputError(f"{option} {value}: must be at least {least}")
    tune_space(
        asked,
        store,
        trials=trials,
        hours=hours,
        concurrent=max_concurrent,
        workers=workers_per_trial,
        halving=halving,
        out=out,
    )


@app.command
def sweep(
    space: str,
    /,
    *,
    base: str,
    store: str,
    objective: str | None = None,
    trials: int = 40,
    seed: int = 0,
    submit: bool = False,
    sets: Repeated = (),
    out: Path = Path("sweeps"),
) -> None:
    """Write a search space as W&B sweep files: for W&B's Optuna engine, and a plain one.

    Parameters
    ----------
    space
        FILE.py:function of an Optuna trial (`space` if no function is named).
    base
        FILE.py:function: the recipe that is changed.
    store
        Folder or s3:// prefix of the store, as the agents see it.
    objective
        What is made best on val: accuracy, map, map50_95 ...
    trials
        Runs of the sweep.
    seed
        Of the points that are tried.
    submit
        Agents hand each run to the Ray cluster of RAY_ADDRESS (ray job submit) instead of training themselves.
    sets
        Change a field of the base recipe: --set epochs=20 (repeatable).
    out
        Folder for the files.
    """
    from posture.commands.sweep import write_sweep
    from posture.runs.recipes import full_path

    if trials < 1:
        raise InputError(f"--trials {trials}: must be at least 1")
    write_sweep(
        space,
        full_path(base),
        store,
        objective=objective,
        trials=trials,
        seed=seed,
        submit=submit,
        changes=_changes(sets),
        out=out,
    )
    console.suggest(f"wandb sweep {out / 'sweep.yaml'}")


@Parameter(name="*")
@dataclass(frozen=True)
class Retraining:
    """What `posture retrain` and `posture watch` have in common.

    Parameters
    ----------
    footage
        Folder or s3:// prefix where new footage arrives.
    store
        Folder or s3:// prefix of the store.
    registry
        Folder or s3:// prefix of the registry: versions, champion, decisions.
    recipe
        FILE.py:function of the challenger.
    epochs
        Of the challenger, as --set epochs=N.
    sets
        Change a field of the recipe: --set optim.lr=0.01 (repeatable).
    workers
        Ray Train workers (data-parallel).
    local
        Decode, train and score in this process, without Ray.
    runs
        Folder or s3:// prefix of the challengers' runs; left out, in the registry.
    layout
        How labels are given; recognised when left out.
    split_number
        Which of UCF101's three official splits.
    settle
        Seconds that a file must have been left alone; younger ones wait for the next pass.
    min_clips
        New training clips that are worth a challenger.
    min_per_class
        Training clips with which a new class is taken in; with fewer, or none held out, it waits.
    from_scratch
        Start from random weights instead of the champion's.
    val_share
        Share of the new groups of each class that becomes val, where the footage names none.
    test_share
        Share of the new groups of each class that becomes hold-out, where the footage names no test.
    margin
        How much more accurate a challenger must be on the classes that the champion knows too.
    tolerance
        How much less accurate it surely must not be on the frozen hold-out.
    recall_floor
        Recall that every new class must reach.
    max_class_drop
        Recall that no class may lose more of, beyond chance.
    notify_url
        Gets a POST with the verdict as JSON.
    notify_command
        Is run with the same JSON on its standard input.
    """

    footage: str
    store: str
    registry: str
    recipe: str = "jobs/action.py:improved"
    epochs: int | None = None
    sets: Repeated = field(default_factory=list)
    workers: int | None = None
    local: bool = False
    runs: str | None = None
    layout: Literal["segments", "kinetics", "ucf101", "folders"] | None = None
    split_number: int = 1
    settle: float = 300.0
    min_clips: int = 20
    min_per_class: int = 8
    from_scratch: bool = False
    val_share: float = 0.2
    test_share: float = 0.2
    margin: float = 0.01
    tolerance: float = 0.05
    recall_floor: float = 0.5
    max_class_drop: float = 0.1
    notify_url: str | None = None
    notify_command: str | None = None


@app.command
def retrain(*, options: Retraining, force: bool = False) -> None:
    """One pass: take in new footage, train a challenger, judge it beside the champion, promote it or say why not. With
    nothing new it does nothing.

    Exit code 0 whatever the decision, 1 where the challenger could not be trained, 2 where another pass is under way or
    something is wrong.

    Parameters
    ----------
    force
        Train a challenger though too little is new: another recipe, or after posture forget.
    """
    from posture.commands.retrain import retrain_once

    retrain_once(_retrain_options(options, force=force))
    console.suggest(
        f"posture registry list {options.registry}; the same command again if new footage arrives, or posture watch"
    )


@app.command
def watch(
    *, options: Retraining, every: str | None = None, cron: str | None = None, timezone: str | None = None
) -> None:
    """The pass of `posture retrain` again and again, in this process, until Ctrl-C. A pass that fails is told, and the
    schedule goes on.

    Parameters
    ----------
    every
        A pass now, and then one every 30m, 6h, 2d ...
    cron
        Passes at these times, as crontab has them: "0 3 * * *" is every day at three.
    timezone
        Whose clock --cron means, such as Europe/Berlin; left out, this machine's.
    """
    from posture.commands.watch import watch_footage

    watch_footage(_retrain_options(options), every=every, cron=cron, timezone=timezone)


@app.command
def status(*, registry: str) -> None:
    """What a registry is up to: the champion, the last passes, who is at work, when the next pass is due, what waits.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    """
    from posture.commands.watch import print_status

    print_status(registry)
    console.suggest(f"posture registry list {registry}")


def _retrain_options(given: Retraining, *, force: bool = False) -> RetrainOptions:
    """Raises InputError."""
    from posture.distributed.backend import backend
    from posture.retrain.decision import DecisionLimits
    from posture.retrain.notify import Notification
    from posture.retrain.run_pass import RetrainOptions
    from posture.runs.recipes import full_path

    for option, value, least, most in (
        ("--settle", given.settle, 0, 7 * 86400),
        ("--min-clips", given.min_clips, 0, 10**9),
        ("--min-per-class", given.min_per_class, 1, 10**9),
        ("--val-share", given.val_share, 0, 0.9),
        ("--test-share", given.test_share, 0, 0.9),
        ("--margin", given.margin, 0, 1),
        ("--tolerance", given.tolerance, 0, 1),
        ("--recall-floor", given.recall_floor, 0, 1),
        ("--max-class-drop", given.max_class_drop, 0, 1),
    ):
        if not least <= value <= most:
            raise InputError(f"{option} {value}: must be from {least} to {most}")
    changes = _changes(given.sets, epochs=given.epochs, workers=given.workers)
    return RetrainOptions(
        given.footage,
        given.store,
        given.registry,
        full_path(given.recipe, task="action"),
        changes,
        backend=backend(local=given.local),
        runs=given.runs,
        layout=given.layout,
        split_number=given.split_number,
        settle=given.settle,
        min_clips=given.min_clips,
        min_per_class=given.min_per_class,
        from_scratch=given.from_scratch,
        force=force,
        val_share=given.val_share,
        test_share=given.test_share,
        limits=DecisionLimits(given.margin, given.tolerance, given.recall_floor, given.max_class_drop),
        notification=Notification(given.notify_url, given.notify_command),
    )


@app.command
def review(
    *,
    registry: str,
    store: str,
    footage: str,
    port: int = 0,
    count: int = 20,
    only_list: Annotated[bool, Parameter(name="--list", negative="")] = False,
) -> None:
    """Label footage that has no label: a page on this machine shows the clips that would teach the champion most, and
    takes your answers.

    Answers are written into review.csv beside the footage, where posture ingest and posture retrain find them.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry, whose champion suggests labels.
    store
        Folder or s3:// prefix of the store: what is in it is not asked about.
    footage
        Folder or s3:// prefix where new footage arrives.
    port
        Of the page, on 127.0.0.1; 0 takes a free one.
    count
        Clips of one round.
    only_list
        Print the clips, and serve no page.
    """
    for option, value, least, most in (("--port", port, 0, 65535), ("--count", count, 1, 1000)):
        if not least <= value <= most:
            raise InputError(f"{option} {value}: must be from {least} to {most}")
    from posture.commands.review import review_footage

    review_footage(registry, store, footage, port=port, count=count, only_list=only_list)
    console.suggest(
        "the same command without --list asks for labels"
        if only_list
        else f"posture retrain --footage {footage} --store {store} --registry {registry}"
    )


registry_app = App(
    name="registry", help="The versions of a registry, and which one is the champion.", help_format="plaintext"
)
app.command(registry_app)


@registry_app.command(name="list")
def registry_list(registry: str, /) -> None:
    """Every version, and every change of champion.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    """
    from posture.commands.registry import list_versions

    list_versions(registry)


@registry_app.command(name="show")
def registry_show(registry: str, version: str | None = None, /) -> None:
    """One version: what it was trained on, how it did, why it was promoted or not.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    version
        Its name, such as v0003; left out, the champion.
    """
    from posture.commands.registry import show_version

    show_version(registry, version)
    console.suggest(f"posture registry diff {registry} VERSION OTHER")


@registry_app.command(name="promote")
def registry_promote(registry: str, version: str, /, *, why: str = "by hand") -> None:
    """Make a version the champion, whatever was decided.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    version
        Its name, such as v0003.
    why
        Kept with the change.
    """
    from posture.commands.registry import promote_version

    promote_version(registry, version, why=why)
    console.suggest(f"posture registry rollback {registry} takes it back")


@registry_app.command(name="rollback")
def registry_rollback(registry: str, /, *, why: str = "by hand") -> None:
    """Make the former champion the champion again.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    why
        Kept with the change.
    """
    from posture.commands.registry import roll_back

    roll_back(registry, why=why)
    console.suggest(f"posture registry list {registry}")


@registry_app.command(name="diff")
def registry_diff(registry: str, ours: str, theirs: str, /) -> None:
    """What differs between two versions: configuration, footage, metrics.

    Parameters
    ----------
    registry
        Folder or s3:// prefix of the registry.
    ours
        A version, such as v0003.
    theirs
        Another.
    """
    from posture.commands.registry import diff_versions

    diff_versions(registry, ours, theirs)
    console.suggest(f"posture registry promote {registry} VERSION")


@app.command
def forget(
    video: str, /, *, store: str, registry: str | None = None, runs: str | None = None, yes: bool = False
) -> None:
    """Remove a video and all that was made of it from a store for good, and mark the models that were trained on it.

    Parameters
    ----------
    video
        Its path or s3:// address, its file name, or its id in the store.
    store
        Folder or s3:// prefix of the store.
    registry
        Registry whose versions are marked and whose pages are looked through.
    runs
        Folder or s3:// prefix of runs whose reports are looked through.
    yes
        Do not ask.
    """
    from posture.commands.forget import forget_video

    with console.waiting(f"looking for {video}"):
        forget_video(video, store, registry=registry, runs=runs, yes=yes)
    console.suggest(f"posture show {store}")


@app.command
def explain(
    run: str,
    video: str,
    /,
    *,
    start: float | None = None,
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    out: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
) -> None:
    """Why a run takes a video for what it does: probabilities, attention in space and time, Grad-CAM; images and a
    page.

    Parameters
    ----------
    run
        The run's folder.
    video
        A video file.
    start
        Second at which the clip begins; left out, the middle of the video.
    class_name
        Show what speaks for this class, not for the most probable one.
    out
        Folder or s3:// prefix for the files; left out, one below the run's.
    checkpoint
        The best on val, or the last.
    """
    from posture.commands.explain import explain_video

    with console.waiting(f"looking at {video}"):
        explain_video(run, video, start=start, class_name=class_name, out=out, checkpoint=checkpoint)
    console.suggest("--class NAME shows what speaks for another class, --start SECONDS another clip")


@app.command
def models(*, classes: int = 101) -> None:
    """Every classifier and detector with its parameters and what it computes.

    Parameters
    ----------
    classes
        Classes of the last layer.
    """
    from posture.commands.models import print_models

    with console.waiting("building every model"):
        print_models(classes)
    console.suggest("posture train RECIPE --store STORE")


@app.command
def demo(folder: Path = Path("posture-demo"), /, *, footage: str | None = None, local: bool = False) -> None:
    """The whole way in a few minutes: footage -> store -> training -> report, on footage made here or your own.

    Parameters
    ----------
    folder
        Where everything is put.
    footage
        Your footage; left out, Posture generates some.
    local
        Train in this process, without Ray Train.
    """
    from posture.commands.demo import run_demo

    run_demo(folder, footage=footage, local=local)


@app.command
def generate(
    folder: str,
    /,
    *,
    videos: int = 120,
    athletes: int = 20,
    seed: int = 0,
    images: Annotated[str | None, Parameter(name=["--images", "--pictures"])] = None,
    every: int = 10,
) -> None:
    """Generate footage of moving athletes: eight actions in four pairs that only the order of their frames tells apart;
    and images with boxes.

    Parameters
    ----------
    folder
        Where the videos and their segments.csv are put; a folder that holds the same footage already is left as it is.
    videos
        How many, with three labelled actions each.
    athletes
        How many different ones; a fifth of them is kept for testing. More make a comparison surer.
    seed
        Another seed gives other athletes, places and motions.
    images
        Also write images with exact boxes around athletes and bystanders there, in the YOLO layout, to train
        detectors on.
    every
        Images: every n-th frame of the videos.
    """
    if every < 1:
        raise InputError(f"--every {every}: must be at least 1")
    from posture.data.synthetic.footage import generate as generate_footage
    from posture.display.text import counted

    with console.progress("generating videos") as advance:
        path = generate_footage(Path(folder), videos=videos, athletes=athletes, seed=seed, progress=advance)
    console.out.print(f"{path}: {counted(videos, 'video')} of {counted(athletes, 'athlete')}")
    if images is not None:
        from posture.data.synthetic.images import write_images

        with console.waiting("cutting images"):
            made = write_images(path, Path(images), every=every)
        console.out.print(f"{made}: {'every frame' if every == 1 else f'one of {every} frames'} with its boxes")
    console.suggest(
        " and ".join(f"posture ingest {place} --store STORE" for place in (path, images) if place is not None)
    )


@app.command
def bench(
    name: Literal["ingest", "feed", "train", "tracking", "models", "detectors"],
    /,
    *,
    json: Path | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    compile: bool = False,
    rounds: int = 3,
    footage: str | None = None,
) -> None:
    """Measure ours beside its peers, in turn in one run: ratios with their spread.

    Parameters
    ----------
    name
        ingest, feed, train (Ray Train against --local), tracking (W&B failing against off), models (classifiers), or
        detectors.
    json
        Also write the figures there.
    device
        For models and detectors: cpu or cuda.
    compile
        For models: compiled ones too.
    rounds
        How often each is measured.
    footage
        Footage to measure on; left out, generated footage.
    """
    if rounds < 1:
        raise InputError(f"--rounds {rounds}: must be at least 1")
    if compile and name != "models":
        raise InputError(f"--compile: posture bench {name} has nothing to compile; it is for posture bench models")
    if device != "cpu" and name not in ("models", "detectors"):
        raise InputError(
            f"--device {device}: posture bench {name} measures where it runs; it is for posture bench models and detectors"
        )
    if footage is not None and name in ("models", "detectors"):
        raise InputError(
            f"--footage: posture bench {name} makes its own inputs; it is for posture bench ingest, feed, train and tracking"
        )
    from posture.bench import run_bench

    run_bench(name, json=json, device=device, compile=compile, rounds=rounds, footage=footage)


def _changes(sets: list[str], **options: Any) -> dict[str, Any]:
    """What `--set` and the options that stand for a field, such as --epochs, change of a recipe. Raises InputError if
    both name one field.
    """
    from posture.config import parse_assignments

    changes = parse_assignments(sets)
    for option, value in options.items():
        path = {"workers": "scale.workers"}.get(option, option)
        if value is not None and path in changes:
            raise InputError(f"--{option} and --set {path}=... name the same field; give one of them")
        changes |= {path: value} if value is not None else {}
    return changes


def parse_size(text: str) -> tuple[int, int]:
    """`128x171` -> (128, 171). Raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 16 <= int(part) <= 2048 for part in parts):
        raise InputError(f"--size {text}: write height x width in pixels, for example 128x171")
    return int(parts[0]), int(parts[1])


def parse_workers(text: str) -> int | list[int]:
    """`4` -> 4, `2-8` -> [2, 8]. Raises InputError."""
    counts = text.split("-")
    if len(counts) > 2 or not all(count.isdecimal() for count in counts):
        raise InputError(f"--workers {text}: write a number of workers, or a range of them, for example 2-8")
    return int(text) if len(counts) == 1 else [int(count) for count in counts]


if __name__ == "__main__":
    main()
