"""A trained detector on images it never saw: every test image judged exactly once, metrics, speed, and the report."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import DetectionRun
from posture.data.feed.images import ImageIndex, index_images
from posture.data.feed.origins import image_uris
from posture.data.feed.shards import open_index
from posture.data.store.files import write_bytes
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs import statistics
from posture.runs.folder import RunFolder

Detect = Callable[..., tuple[list[Any], str]]
"""What was found in every image of an index, and the devices that found it; `Backend.predict` of some backend."""

TIMED = 50
"""Images that the speed is measured on."""
RESAMPLES = 2_000
"""Of the groups of images, for the interval of mAP@0.5:0.95."""


@dataclass(frozen=True)
class FoundBoxes:
    """What was found in one image, best first, in pixels of the stored image."""

    boxes: np.ndarray
    """(D, 4) float32, xyxy."""
    scores: np.ndarray
    """(D,) float32."""
    labels: np.ndarray
    """(D,) int64."""


def evaluate_detector(
    folder: RunFolder,
    record: dict[str, Any],
    run: DetectionRun,
    *,
    about: dict[str, Any],
    batch: int,
    store: Store,
    pinned: bool,
    detect: Detect,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Judge a checkpoint of the run on a split, as `posture.runs.action.evaluate` does a classifier's; returns the
    metrics.

    `about` is what metrics.json says besides: `name` (of the evaluation's folder), `split`, `checkpoint` (best or
    last), `store`, `notice`. `pinned`: at the table versions that the run read.
    Raises InputError.
    """
    from posture.tasks.detection_metrics import detection_metrics
    from posture.train.checkpoint import read_state

    began = time.time()
    classes, split, which = tuple(record["classes"]), about["split"], about["checkpoint"]
    index = index_images(store, split, versions=record["versions"] if pinned else None, classes=classes)
    if not len(index):
        raise InputError(
            f"{store.uri}: the {split} split has no images to evaluate on; name a test split in the labels, or ingest with --test-share"
        )
    about["tag"] = folder.checkpoints().get(which)
    with folder.checkpoint(which) as checkpoint:
        found, device = detect(index, run, checkpoint, batch=batch, progress=progress)
        speed = measure_speed(index, run, checkpoint)
        state = read_state(checkpoint)
    judged = _judged(found, index)
    counts = statistics.resampled_groups(index.groups, resamples=RESAMPLES)
    values = statistics.resampled_map(judged, index.groups, counts, classes=len(classes))["map50_95"]
    metrics = detection_metrics(judged, classes) | {
        "interval": statistics.told_interval(values, of="map50_95", groups=counts.shape[1])
    }
    metrics |= about | {
        "epoch": state["epoch"],
        "protocol": describe(run),
        "device": device,
        "speed": speed,
        "fps": {name: 1000.0 / times["median"] for name, times in speed.items()},
        "seconds": time.time() - began,
    }
    uris = image_uris(store, index.keys, versions=record["versions"] if pinned else None)
    _write(folder, record, run, store, index, found, metrics, uris)
    return metrics


def describe(run: DetectionRun) -> str:
    """How images are judged, in words, for the report."""
    detect = run.detect
    return (
        f"each image once, letterboxed to {run.model.size} x {run.model.size} pixels; boxes above confidence {detect.confidence:g}, "
        f"overlaps ({detect.nms_overlap}) above {detect.overlap:g} suppressed, at most {detect.most} in an image"
    )


def detect_here(
    index: ImageIndex,
    run: DetectionRun,
    checkpoint: Path,
    *,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[FoundBoxes], str]:
    """What is found in every image of the index, and the device that found it."""
    from posture.train.context import LocalContext
    from posture.train.detect import detect_images

    ctx = LocalContext()
    network, task = load_detector(run, index.classes, checkpoint)
    found = detect_images(
        network, task, open_index(index, feed=run.data.feed), run, ctx.device, batch=batch, progress=progress
    )
    return [FoundBoxes(*one) for one in found], ctx.device_name


def load_detector(run: DetectionRun, classes: tuple[str, ...], checkpoint: Path) -> tuple[Any, Any]:
    """The checkpoint's network, fused for inference, and its task."""
    from posture.models import build
    from posture.models.fuse import fuse
    from posture.tasks.detection import DetectionTask
    from posture.train.checkpoint import load_weights

    network = build(run.model, detect=run.detect)
    load_weights(network, checkpoint / "model.safetensors")
    return fuse(network.eval()), DetectionTask(run, classes)


def measure_speed(index: ImageIndex, run: DetectionRun, checkpoint: Path) -> dict[str, dict[str, float]]:
    """Milliseconds per image, one after the other: of the `model` alone, and of the `whole` way from decoded pixels
    to boxes.

    Median, tenth and ninetieth percentile over `TIMED` images, on the GPU if there is one.
    """
    from posture.train.context import LocalContext
    from posture.train.detect import time_images

    network, task = load_detector(run, index.classes, checkpoint)
    part = index.part(np.arange(min(TIMED, len(index))))
    times = time_images(network, task, open_index(part, feed="materialize"), run, LocalContext().device)
    return {
        name: dict(zip(("median", "p10", "p90"), np.percentile(values, (50, 10, 90)).tolist(), strict=True))
        for name, values in times.items()
    }


def _write(
    folder: RunFolder,
    record: dict[str, Any],
    run: DetectionRun,
    store: Store,
    index: ImageIndex,
    found: list[FoundBoxes],
    metrics: dict[str, Any],
    uris: dict[str, str],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from posture.runs.reports.detection import write_detector_report

    table = pa.table(
        {
            "image": index.keys,
            "group": index.groups,
            "boxes": [one.boxes.tolist() for one in found],
            "scores": [one.scores for one in found],
            "labels": [one.labels for one in found],
            "true_boxes": [boxes.tolist() for boxes in index.boxes],
            "true_labels": list(index.labels),
            "ignored": [boxes.tolist() for boxes in index.ignored],
            "ignored_labels": list(index.ignored_labels),
        },
        metadata={"classes": json.dumps(index.classes)},
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    with tempfile.TemporaryDirectory(prefix="posture-report-") as place:
        page = Path(place, "report.html")
        write_detector_report(
            page,
            run=record["run"],
            metrics=metrics,
            history=folder.read_json("history.json") or [],
            index=index,
            found=found,
            images=_Shown(index),
            uris=uris,
            facts=_facts(record, run, store, metrics, folder),
        )
        write_bytes(folder.path("evaluation", metrics["name"], "report.html"), page.read_bytes())
    write_bytes(folder.path("evaluation", metrics["name"], "predictions.parquet"), buffer.getvalue())
    folder.write_json(f"evaluation/{metrics['name']}/metrics.json", metrics)


class _Shown:
    """The few images of an index that a report shows, each read when it is asked for."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index

    def picture(self, number: int) -> np.ndarray:
        return open_index(self._index.part(np.array([number])), feed="materialize").image(0)


def sheets(
    run: DetectionRun, classes: tuple[str, ...], folder: RunFolder, val: ImageIndex, *, most: int = 96
) -> dict[str, bytes]:
    """Images (PNG) to track a finished run with, of its best checkpoint on the first `most` validation images:
    detections, and the PR curve.
    """
    from posture.runs.reports.detection import detections_sheet, precision_recall_sheet
    from posture.tasks.detection_metrics import detection_metrics

    part = val.part(np.arange(min(most, len(val))))
    with folder.checkpoint("best") as checkpoint:
        found, _ = detect_here(part, run, checkpoint, batch=8)
    judged = _judged(found, part)
    metrics = detection_metrics(judged, classes)
    shown = np.linspace(0, len(part) - 1, min(12, len(part))).round().astype(int).tolist()
    images = _Shown(part)
    sheet = detections_sheet(
        f"{run.name} on val",
        [images.image(number) for number in shown],
        [judged[number] for number in shown],
        classes,
        confidence=metrics["confidence"] or 0.5,
    )
    return {"detections": sheet, "precision_recall": precision_recall_sheet(f"{run.name} on val", metrics)}


def _judged(found: list[FoundBoxes], index: ImageIndex) -> list[tuple[np.ndarray, ...]]:
    """Each image's detections and what is there, as `detection_metrics` takes them."""
    there = zip(index.boxes, index.labels, index.ignored, index.ignored_labels, strict=True)
    return [(one.boxes, one.scores, one.labels, *boxes) for one, boxes in zip(found, there, strict=True)]


def _facts(
    record: dict[str, Any], run: DetectionRun, store: Store, metrics: dict[str, Any], folder: RunFolder
) -> dict[str, Any]:
    from posture.models import build
    from posture.models.summary import image_gflops, parameters

    history = folder.read_json("history.json") or []
    speeds = [row["clips_per_second"] for row in history]
    network = build(run.model)
    return {
        "evaluated": datetime.fromtimestamp(time.time(), UTC),
        "protocol": metrics["protocol"],
        "recipe": record.get("recipe"),
        "store": store.uri,
        "anchors": record.get("anchors", ""),
        "tables": record["versions"],
        "hardware": f"{record['machine']}; judged on {metrics['device']}",
        "software": record["software"],
        "seed": run.seed,
        "epochs": f"{len(history)} of {run.epochs}",
        "checkpoint": f"{metrics['checkpoint']}, epoch {metrics['epoch']}",
        "parameters": parameters(network),
        "gflops": image_gflops(network, run.model.size),
        "pictures_per_second": float(np.median(speeds)) if speeds else None,
        "wall_seconds": sum(row["seconds"] for row in history),
        "footage": record["footage"] | {metrics["split"]: {"pictures": metrics["count"]}},
    }
