"""Runs of detectors: which images they read, what they find, how that is judged."""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import DetectionRun
from posture.data.feed.images import ImageIndex, index_images
from posture.data.feed.origins import image_uris
from posture.data.feed.shards import open_index
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs import statistics
from posture.runs.figures import ONE_VIEW, Judged, Objective, Reads, Views
from posture.runs.folder import RunFolder, RunRecord

RECALL = 0.98
"""Share of the training boxes that anchors must reach to be kept (YOLOv5's)."""
TIMED = 50
"""Images that the speed is measured on."""
TRACKED = 96
"""Validation images whose detections are tracked."""
RESAMPLES = 2_000
"""Resamples of the groups of images, for the interval of mAP@0.5:0.95."""


@dataclass(frozen=True)
class FoundBoxes:
    """Detections in one image, best first, in pixels of the stored image."""

    boxes: np.ndarray
    """(D, 4) float32, xyxy."""
    scores: np.ndarray
    """(D,) float32."""
    labels: np.ndarray
    """(D,) int64."""


class DetectionRuns:
    """`posture.runs.kinds.TaskRuns` of detectors."""

    unit = "images"
    objectives: tuple[Objective, ...] = (
        Objective("map50_95", "val_map50_95", maximize=True),
        Objective("map50", "val_map50", maximize=True),
    )
    epoch_figures: Mapping[str, str] = {"mAP@0.5": "val_map50", "mAP@0.5:0.95": "val_map50_95"}

    def tables(self, run: DetectionRun) -> tuple[str, ...]:
        return ("images", "boxes")

    def index(self, run: DetectionRun, store: Store, split: str, reads: Reads) -> ImageIndex:
        return index_images(store, split, versions=reads.versions, classes=reads.classes)

    def resolve(self, run: DetectionRun, train: ImageIndex) -> tuple[dict[str, Any], str]:
        if not hasattr(run.model, "anchors") or not len(train):
            return {}, ""
        from posture.tasks.anchors import best_possible_recall, kmeans_anchors

        sides = train.box_sides(run.model.size)
        recall = best_possible_recall(sides, run.model.anchors, ratio=run.loss.anchor_ratio)
        if run.data.anchors == "keep" or not len(sides) or (run.data.anchors == "auto" and recall >= RECALL):
            return {}, f"anchors kept: they reach {recall:.1%} of {len(sides):,} training boxes"
        anchors = kmeans_anchors(sides, ratio=run.loss.anchor_ratio, seed=run.seed)
        reached = best_possible_recall(sides, anchors, ratio=run.loss.anchor_ratio)
        return {"model.anchors": anchors}, (
            f"anchors by k-means of {len(sides):,} training boxes reach {reached:.1%} of them, "
            f"the model's own {recall:.1%}"
        )

    def lacking(self, run: DetectionRun) -> str:
        return ""

    def task(self, run: DetectionRun, classes: tuple[str, ...]) -> Any:
        from posture.tasks.detection import DetectionTask

        return DetectionTask(run, classes)

    def batches(self, train: Any, val: Any, run: DetectionRun, ctx: Any) -> Any:
        from posture.train.image_batches import ImageBatches

        return ImageBatches(train, run, rank=ctx.rank, world_size=ctx.world_size, validation=val)

    def protocol(self, run: DetectionRun, views: Views) -> str:
        if views != ONE_VIEW:
            raise InputError(
                f"{run.name} is a detector, which looks at each image once: --crops, --spans and --source are for "
                "action classifiers"
            )
        detect = run.detect
        return (
            f"each image once, letterboxed to {run.model.size} x {run.model.size} pixels; boxes above confidence "
            f"{detect.confidence:g}, overlaps ({detect.nms_overlap}) above {detect.overlap:g} suppressed, at most "
            f"{detect.most} in an image"
        )

    def seen(self, run: DetectionRun, store: Store, index: ImageIndex, views: Views) -> ImageIndex:
        return index

    def predict(
        self,
        index: ImageIndex,
        run: DetectionRun,
        checkpoint: Path,
        *,
        views: Views = ONE_VIEW,
        batch: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[list[FoundBoxes], str]:
        """Return the boxes found in each image and the name of the device."""
        from posture.train.context import LocalContext
        from posture.train.detect import detect_images

        ctx = LocalContext()
        network, task = load_detector(run, index.classes, checkpoint)
        images = open_index(index, feed=run.data.feed)
        found = detect_images(network, task, images, run, ctx.device, batch=batch, progress=progress)
        return [FoundBoxes(*one) for one in found], ctx.device_name

    def judge(
        self,
        predictions: list[FoundBoxes],
        run: DetectionRun,
        checkpoint: Path,
        *,
        index: ImageIndex,
        seen: Any,
        store: Store,
        reads: Reads,
    ) -> Judged:
        import pyarrow as pa

        from posture.runs.reports.detection import write_detector_report
        from posture.tasks.detection_metrics import detection_metrics

        judged, speed = _judged(predictions, index), measure_speed(index, run, checkpoint)
        counts = statistics.resampled_groups(index.groups, resamples=RESAMPLES)
        values = statistics.resampled_map(judged, index.groups, counts, classes=len(index.classes))["map50_95"]
        metrics = detection_metrics(judged, index.classes) | {
            "interval": statistics.told_interval(values, of="map50_95", groups=counts.shape[1]),
            "speed": speed,
            "fps": {name: 1000.0 / times["median"] for name, times in speed.items()},
        }
        columns = {
            "image": index.keys,
            "group": index.groups,
            "boxes": [one.boxes.tolist() for one in predictions],
            "scores": [one.scores for one in predictions],
            "labels": [one.labels for one in predictions],
            "true_boxes": [boxes.tolist() for boxes in index.boxes],
            "true_labels": list(index.labels),
            "ignored": [boxes.tolist() for boxes in index.ignored],
            "ignored_labels": list(index.ignored_labels),
        }
        table = pa.table(columns, metadata={"classes": json.dumps(index.classes)})
        uris = image_uris(store, index.keys, versions=reads.versions)
        report = partial(write_detector_report, index=index, found=predictions, images=_Shown(index), uris=uris)
        return Judged(metrics, table, report)

    def compute(self, run: DetectionRun, network: Any) -> float:
        from posture.models.summary import image_gflops

        return image_gflops(network, run.model.size) / 2

    def facts(self, run: DetectionRun, record: RunRecord, *, gmacs: float, speed: float | None) -> dict[str, Any]:
        return {"anchors": record.anchors, "gflops": 2 * gmacs, "pictures_per_second": speed}

    def sheets(self, run: DetectionRun, classes: tuple[str, ...], folder: RunFolder, val: Any) -> dict[str, bytes]:
        """Return detections of the best checkpoint on the first `TRACKED` validation images, and their PR curve."""
        from posture.runs.reports.detection import detections_sheet, precision_recall_sheet
        from posture.tasks.detection_metrics import detection_metrics

        part = val.index.part(np.arange(min(TRACKED, len(val.index))))
        with folder.checkpoint("best") as checkpoint:
            found, _ = self.predict(part, run, checkpoint, batch=8)
        judged = _judged(found, part)
        metrics = detection_metrics(judged, classes)
        shown = np.linspace(0, len(part) - 1, min(12, len(part))).round().astype(int).tolist()
        images = _Shown(part)
        sheet = detections_sheet(
            f"{run.name} on val",
            [images.image(index) for index in shown],
            [judged[index] for index in shown],
            classes,
            confidence=metrics["confidence"] or 0.5,
        )
        return {"detections": sheet, "precision_recall": precision_recall_sheet(f"{run.name} on val", metrics)}

    def footage_fields(self, run: DetectionRun) -> dict[str, Any]:
        return {}


def load_detector(run: DetectionRun, classes: tuple[str, ...], checkpoint: Path) -> tuple[Any, Any]:
    """Return the checkpoint's network, fused for inference, and its task."""
    from posture.models.fuse import fuse
    from posture.runs.weights import load_network
    from posture.tasks.detection import DetectionTask

    return fuse(load_network(run, checkpoint)), DetectionTask(run, classes)


def measure_speed(index: ImageIndex, run: DetectionRun, checkpoint: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds per image, one at a time: the `model` alone, and end to end (`whole`): letterbox, network,
    NMS.

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


class _Shown:
    """The few images of an index that a report shows, each read when it is asked for."""

    def __init__(self, index: ImageIndex) -> None:
        self._index = index

    def image(self, number: int) -> np.ndarray:
        return open_index(self._index.part(np.array([number])), feed="materialize").image(0)


def _judged(found: list[FoundBoxes], index: ImageIndex) -> list[tuple[np.ndarray, ...]]:
    """Each image's detections and what is there, as `detection_metrics` takes them."""
    there = zip(index.boxes, index.labels, index.ignored, index.ignored_labels, strict=True)
    return [(one.boxes, one.scores, one.labels, *boxes) for one, boxes in zip(found, there, strict=True)]
