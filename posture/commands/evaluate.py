"""`posture evaluate`: arguments, progress, and the result as tables."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import App

from posture.data.store.files import absolute
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted
from posture.distributed.backend import backend
from posture.errors import InputError
from posture.runs.evaluate import evaluate as score_split
from posture.runs.evaluate import unfinished
from posture.runs.figures import Views
from posture.runs.folder import RunFolder
from posture.runs.reports.common import clip_accuracy, interval_text, over_videos
from posture.runs.reports.detection import has_learned

command = App(name="evaluate", help_epilogue="Example: posture evaluate runs/NAME --crops 3 --spans 2")


@command.default
def evaluate(
    run: str,
    /,
    *,
    split: Literal["test", "val", "train"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    workers: Annotated[int, between(0)] = 0,
    crops: Literal[1, 3] = 1,
    spans: Annotated[int, between(1)] = 1,
    source: Annotated[int, between(0)] = 0,
    store: str | None = None,
    untrimmed: str | None = None,
    detector: str | None = None,
    batch: Annotated[int, between(1)] = 16,
) -> None:
    """Score a run on footage that it was not trained on. Each split and protocol gets a folder with metrics.json and
    report.html.

    Parameters
    ----------
    run
        Folder of the run.
    split
        `test` gives the result; the others are for exploration.
    checkpoint
        The checkpoint that is best on val, or the last one.
    workers
        Number of Ray tasks; 0 scores in this process.
    crops
        Views of each frame: the centre, or left, centre and right.
    spans
        Views in time of each stored clip, spread evenly over it.
    source
        Windows per segment to decode from the original videos; 0 scores the stored clips.
    store
        Another store than the run's own, at its newest versions.
    untrimmed
        Labelled long videos, in any layout of `posture ingest`: judge the timelines that `posture predict` finds there.
        If labels name splits, those of `--split`.
    detector
        With --untrimmed, the run of the detector that finds the athletes.
    batch
        Views per forward pass.
    """
    views = Views(crops, spans, source)
    how: dict[str, Any] = {"split": split, "which": checkpoint, "workers": workers, "batch": batch, "store": store}
    metrics = evaluate_run(run, views=views, untrimmed=untrimmed, detector=detector, **how)
    if untrimmed is not None:
        return
    if metrics["notice"]:
        console.suggest("posture train with the same arguments and --resume completes the training")
    elif split != "test":
        console.suggest(f"posture evaluate {run} for the result on test")
    elif "map50" in metrics:
        console.suggest(f"posture ingest FOOTAGE --store STORE --crop detector={run} cuts clips around what it finds")
    else:
        console.suggest(f"posture explain {run} VIDEO shows where and when it looks")


def evaluate_run(
    run: str,
    *,
    views: Views,
    split: str = "test",
    which: str = "best",
    workers: int = 0,
    batch: int = 16,
    store: str | None = None,
    untrimmed: str | None = None,
    detector: str | None = None,
) -> dict[str, Any]:
    """Evaluate the run in the folder `run`, in this process or in `workers` Ray tasks, or on long videos if `untrimmed`
    has their labels. Print and return the metrics.

    Raises InputError, also if other options do not go with long videos.
    """
    if untrimmed is not None:
        if (views, workers, store) != (Views(), 0, None):
            raise InputError(
                "--untrimmed slides windows over videos; leave out --crops, --spans, --source, --store and --workers"
            )
        return evaluate_videos(run, untrimmed, detector=detector, split=split, which=which, batch=batch)
    if detector is not None:
        raise InputError("--detector is for long videos; give their labels with --untrimmed LABELS, or leave it out")
    folder = RunFolder.open(run)
    trained = folder.record().run
    label, show = PRINTED[trained.task]
    if notice := unfinished(trained, folder):
        console.out.print(notice)
    with console.progress(label) as advance:
        metrics = score_split(
            folder,
            views=views,
            split=split,
            which=which,
            batch=batch,
            store_uri=store,
            backend=backend(local=not workers),
            workers=workers,
            progress=advance,
        )
    show(metrics, folder)
    return metrics


def evaluate_videos(
    run: str, labels: str, *, detector: str | None = None, split: str = "test", which: str = "best", batch: int = 16
) -> dict[str, Any]:
    """Judge the run in the folder `run` on the labelled long videos at `labels`. Print and return the metrics."""
    from posture.predict.evaluate import evaluate_untrimmed
    from posture.predict.untrimmed import read_labels
    from posture.retrain.open_model import open_model

    folder = RunFolder.open(run)
    trained = folder.record().run
    if trained.task != "action":
        raise InputError(f"{run}: --untrimmed judges a classifier, and this run is a detector; give it with --detector")
    footage, model = read_labels(labels), open_model(run, detector=detector, which=which)
    if notice := unfinished(trained, folder):
        console.out.print(notice)
    places = {"labels": absolute(labels), "detector": detector and absolute(detector)}
    with console.progress("watching videos") as advance:
        metrics, page = evaluate_untrimmed(
            folder, model, footage, split=split, which=which, batch=batch, progress=advance, **places
        )
    print_untrimmed(metrics, page)
    return metrics


def print_untrimmed(metrics: dict[str, Any], page: str) -> None:
    """Print notes, the result on long videos over tIoU, within frames and of tracks, and the path of the report."""
    for note in metrics["notes"]:
        console.out.print(note)
    for key, levels, form in (("segments", "tiou", "tIoU {:g}"), ("events", "tolerance", "within {:g} frames")):
        if found := metrics[key]:
            console.out.print(
                f"{counted(found['answers'], 'answer')} for {counted(found['count'], 'label')} in "
                f"{counted(found['videos'], 'video')}"
            )
            figures = ("f1", "precision", "recall", "map")
            console.table(
                "",
                *(form.format(level) for level in found[levels]),
                rows=[(FIGURES[name], *map(_figure, found[name])) for name in figures],
            )
            for name in ("f1", "map"):
                told = found["intervals"][f"mean_{name}"]
                console.out.print(f"mean {FIGURES[name]} {_figure(found[f'mean_{name}'])}, {over_videos(told)}")
    if found := metrics["tracks"]:
        for name in ("idf1", "hota"):
            console.out.print(f"{name.upper()} {_figure(found[name])}, {over_videos(found['intervals'][name])}")
    console.out.print(page)


def print_detections(metrics: dict[str, Any], folder: RunFolder) -> None:
    """Print a detector's result, its speed, the classes with the lowest AP, and the path of the report."""
    shown = {
        "map50": "mAP@0.5",
        "map50_95": "mAP@0.5:0.95",
        "precision": "precision",
        "recall": "recall",
        "f1": "F1",
        "mean_iou": "mean IoU",
    }
    console.out.print(
        f"{counted(metrics['count'], metrics['split'] + ' image')}: {metrics['protocol']}; on {metrics['device']}"
    )
    console.table(*shown.values(), rows=[tuple(_figure(metrics[name]) for name in shown)])
    if not has_learned(metrics):
        console.out.print("this detector has learned almost nothing")
    console.out.print(f"mAP@0.5:0.95, {interval_text(metrics, _figure)}")
    console.out.print(f"precision, recall, F1 and mean IoU at confidence {_figure(metrics['confidence'])}, IoU 0.5\n")
    console.table(
        "one image at a time",
        "median ms",
        "10-90 %",
        "FPS",
        rows=[
            (
                {"model": "network alone", "whole": "with letterbox and NMS"}[name],
                f"{times['median']:.1f}",
                f"{times['p10']:.1f}-{times['p90']:.1f}",
                f"{metrics['fps'][name]:.1f}",
            )
            for name, times in metrics["speed"].items()
        ],
    )
    console.out.print()
    worst = sorted((row for row in metrics["per_class"] if row["boxes"]), key=lambda row: row["ap50"])[:20]
    console.table(
        "class",
        "boxes",
        "AP@0.5",
        "AP@0.5:0.95",
        "precision",
        "recall",
        rows=[
            (row["class"], row["boxes"], *(_figure(row[name]) for name in ("ap50", "ap", "precision", "recall")))
            for row in worst
        ],
    )
    if len(worst) < len(metrics["per_class"]):
        console.out.print(
            f"{counted(len(worst), 'class', 'classes')} with boxes, the lowest AP first; "
            f"the report has all {len(metrics['per_class'])}"
        )
    console.out.print(folder.path("evaluation", metrics["name"], "report.html"))


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def print_metrics(metrics: dict[str, Any], folder: RunFolder) -> None:
    """Print a classifier's result, the classes with the lowest F1, and the path of the report."""
    shown = {
        "accuracy": "accuracy",
        "majority_accuracy": "majority class",
        "top5": f"top-{min(5, len(metrics['per_class']))}",
        "macro_precision": "precision",
        "macro_recall": "recall",
        "macro_f1": "F1",
        "map": "mAP",
        "auc": "AUC",
        "ece": "ECE",
    }
    console.out.print(
        f"{counted(metrics['count'], metrics['split'] + ' segment')}, each scored once: {metrics['protocol']}; "
        f"on {metrics['device']}"
    )
    console.table(
        *shown.values(), rows=[tuple("-" if metrics[name] is None else f"{metrics[name]:.4f}" for name in shown)]
    )
    console.out.print(f"accuracy, {interval_text(metrics, _figure)}")
    if clips := clip_accuracy(metrics):
        console.out.print(f"segment accuracy {_figure(metrics['accuracy'])}; clip by clip {clips}")
    if linear := metrics.get("linear"):
        console.out.print(linear["sentence"])
    console.out.print(f"{metrics['calibrated']['sentence']}\n")
    worst = sorted((row for row in metrics["per_class"] if row["count"]), key=lambda row: row["f1"])[:20]
    console.table(
        "class",
        "segments",
        "precision",
        "recall",
        "F1",
        "AP",
        rows=[
            (row["class"], row["count"], *(f"{row[name]:.3f}" for name in ("precision", "recall", "f1", "ap")))
            for row in worst
        ],
    )
    if len(worst) < len(metrics["per_class"]):
        console.out.print(
            f"the {len(worst)} classes with the lowest F1; the report has all {len(metrics['per_class'])}"
        )
    console.out.print(folder.path("evaluation", metrics["name"], "report.html"))


PRINTED = {"action": ("scoring clips", print_metrics), "detection": ("looking for boxes", print_detections)}
"""For each task what the progress bar says, and how the result is printed."""
FIGURES = {"f1": "F1", "precision": "precision", "recall": "recall", "map": "mAP"}
"""Keys and names of the figures of long videos."""
