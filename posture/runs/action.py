"""A trained run on footage it never saw: every test segment scored exactly once, metrics, and the report."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import ActionRun, AnyRun, DetectionRun, validate
from posture.data.feed.clips import ClipIndex, index_footage
from posture.data.feed.origins import Origin, places_of
from posture.data.feed.shards import open_index
from posture.data.feed.source_windows import SourceFootage, SourceIndex, index_sources
from posture.data.store.files import write_bytes
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs import statistics
from posture.runs.backend import LOCAL, Backend
from posture.runs.detection import evaluate_detector
from posture.runs.folder import RunFolder, evaluation_name

EXAMPLES = 12
EXAMPLE_FRAMES = 5


@dataclass(frozen=True)
class Views:
    """How often each segment is looked at; scores are averaged over all of it."""

    crops: int = 1
    """1: the middle; 3: left, middle and right."""
    temporal: int = 1
    """Spans of `model.frames` within each stored clip, spread evenly."""
    source: int = 0
    """Windows decoded from the original file instead of the stored ones; 0 uses the store."""

    def describe(self) -> str:
        """In words, for the report."""
        windows = (
            f"{self.source} windows per segment, decoded from the original files"
            if self.source
            else "the windows in the store"
        )
        crops = "the middle of the frame" if self.crops == 1 else f"{self.crops} crops of the frame"
        return f"{windows}; of each, {self.temporal} span{'s' * (self.temporal > 1)} in time and {crops}"


@dataclass
class Predictions:
    """One row per segment."""

    segments: list[str]
    labels: np.ndarray  # (s,) int64
    scores: np.ndarray  # (s, K) float32
    views: np.ndarray  # (s,) int64, looks at the segment
    classes: tuple[str, ...]


def evaluate(
    folder: RunFolder,
    *,
    views: Views,
    split: str = "test",
    which: str = "best",
    batch: int = 16,
    store_uri: str | None = None,
    backend: Backend = LOCAL,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score the run's `which` checkpoint on a split; writes {metrics.json, predictions.parquet, report.html} and
    returns the metrics.

    They go into evaluation/`metrics["name"]`, a folder for each split and protocol. `metrics["notice"]` says if
    training is not finished. `backend` defaults to this process; on Ray, `workers` tasks predict. Raises InputError.
    """
    from posture.train.checkpoint import read_state  # loads torch

    began = time.time()
    record = folder.read_json("run.json")
    run, classes = validate(record["run"]), tuple(record["classes"])
    store = Store(store_uri or record["store"])
    name = evaluation_name(
        split,
        crops=views.crops,
        spans=views.temporal,
        source=views.source,
        checkpoint=which,
        store=store.uri if store_uri is not None else None,
    )
    about = {"name": name, "split": split, "checkpoint": which, "store": store.uri, "notice": unfinished(run, folder)}
    if isinstance(run, DetectionRun):
        if views != Views():
            raise InputError(
                f"{folder.uri} is a detector, which looks at each image once: --crops, --spans and --source are for action classifiers"
            )
        return evaluate_detector(
            folder,
            record,
            run,
            about=about,
            batch=batch,
            store=store,
            pinned=store_uri is None,
            detect=functools.partial(backend.predict, views=views, workers=workers),
            progress=progress,
        )
    reads = {"inputs": run.model.inputs, "flow": run.data.flow}
    index = index_footage(
        store,
        split,
        versions=record["versions"] if store_uri is None else None,
        recipe=run.data.recipe,
        classes=classes,
        # windows cut anew get flow of their own
        left_out=tuple(record.get("left_out", ())),
        **({} if views.source else reads),
    )
    if not len(index):
        raise InputError(
            f"{store.uri}: the {split} split has no clips to evaluate on; name a test split in the labels, or ingest with --test-share"
        )
    looked_at: ClipIndex | SourceIndex = (
        index_sources(store, index, windows=views.source, **reads) if views.source else index
    )
    about["tag"] = folder.checkpoints().get(which)
    with folder.checkpoint(which) as checkpoint:
        found, device = backend.predict(
            looked_at, run, checkpoint, views=views, batch=batch, workers=workers, progress=progress
        )
        state = read_state(checkpoint)
    predictions = merge(np.asarray(found), looked_at, views)
    places = places_of(store, predictions.segments, versions=record["versions"] if store_uri is None else None)
    metrics = measure(predictions) | {"interval": accuracy_interval(predictions, places)}
    metrics |= about | {
        "epoch": state["epoch"],
        "views": [int(predictions.views.min()), int(predictions.views.max())],
        "protocol": views.describe(),
        "device": device,
        "seconds": time.time() - began,
    }
    _write(folder, record, run, store, index, predictions, metrics, places)
    return metrics


def unfinished(run: AnyRun, folder: RunFolder) -> str:
    """What to know before reading the figures of a run that is not trained to its end, in a sentence; empty if it is,
    or stopped early by itself.
    """
    values = [record.get(f"val_{run.metric}") or 0.0 for record in folder.read_json("history.json") or []]
    if not values:
        return f"{run.name} is untrained: no epoch of {run.epochs} is finished yet. These figures say nothing of the recipe."
    waited = len(values) - 1 - values.index(max(values))
    if len(values) >= run.epochs or 0 < run.patience <= waited:
        return ""
    return f"{run.name} is unfinished: {len(values)} of its {run.epochs} epochs are trained. Its figures may change until the last one."


def score_here(
    index: ClipIndex | SourceIndex,
    run: ActionRun,
    checkpoint: Path,
    *,
    views: Views,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, str]:
    """Class probabilities (clips, K) of every clip of the index, and the device that made them."""

    from posture.models import build
    from posture.train.checkpoint import load_weights
    from posture.train.context import LocalContext
    from posture.train.evaluate import score

    model = build(run.model)
    load_weights(model, checkpoint / "model.safetensors")
    ctx = LocalContext()
    footage = SourceFootage(index) if isinstance(index, SourceIndex) else open_index(index, feed=run.data.feed)
    probabilities = score(
        model,
        footage,
        np.arange(len(footage)),
        run,
        ctx.device,
        crops=views.crops,
        temporal_views=views.temporal,
        batch=batch,
        progress=progress,
    )
    return probabilities, ctx.device_name


def merge(probabilities: np.ndarray, index: ClipIndex | SourceIndex, views: Views) -> Predictions:
    """Average the windows of each segment. Raises RuntimeError where a segment has none: every one counts, once."""
    from posture.train.evaluate import merge_by_segment

    merged = merge_by_segment(probabilities, index.segments, index.labels)
    if len(merged.segments) != len(index.segment_ids):
        raise RuntimeError(f"{len(merged.segments)} of {len(index.segment_ids)} segments were scored")
    return Predictions(
        [index.segment_ids[number] for number in merged.segments],
        merged.labels,
        merged.scores,
        merged.views * views.crops * views.temporal,
        index.classes,
    )


def measure(predictions: Predictions) -> dict[str, Any]:
    from posture.tasks.metrics import classification_metrics

    return classification_metrics(predictions.scores, predictions.labels, predictions.classes)


def accuracy_interval(predictions: Predictions, places: Mapping[str, Origin]) -> dict[str, Any]:
    """How sure the accuracy is, as `posture.runs.statistics.told_interval` says it: a bootstrap over the groups that the segments
    are of.
    """
    groups = [places[segment].group for segment in predictions.segments]
    right = predictions.scores.argmax(axis=1) == predictions.labels
    values = statistics.resampled_accuracy(right, groups, statistics.resampled_groups(groups))
    return statistics.told_interval(values, of="accuracy", groups=len(set(groups)))


def _write(
    folder: RunFolder,
    record: dict[str, Any],
    run: ActionRun,
    store: Store,
    index: ClipIndex,
    predictions: Predictions,
    metrics: dict[str, Any],
    places: Mapping[str, Origin],
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from posture.runs.reports.action import write_report

    table = pa.table(
        {
            "segment": predictions.segments,
            "label": predictions.labels,
            "scores": list(predictions.scores),
            "views": predictions.views,
        },
        metadata={"classes": json.dumps(predictions.classes)},
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    with tempfile.TemporaryDirectory(prefix="posture-report-") as place:
        page = Path(place, "report.html")
        write_report(
            page,
            run=record["run"],
            metrics=metrics,
            history=folder.read_json("history.json") or [],
            examples=_examples(index, predictions, places),
            facts=_facts(record, run, store, metrics, folder),
        )
        write_bytes(folder.path("evaluation", metrics["name"], "report.html"), page.read_bytes())
    write_bytes(folder.path("evaluation", metrics["name"], "predictions.parquet"), buffer.getvalue())
    folder.write_json(f"evaluation/{metrics['name']}/metrics.json", metrics)


def _examples(index: ClipIndex, predictions: Predictions, places: Mapping[str, Origin]) -> list[dict[str, Any]]:
    """Filmstrips of the most confident right and wrong answers, from the stored clips."""
    guesses, confidence = predictions.scores.argmax(axis=1), predictions.scores.max(axis=1)
    right = guesses == predictions.labels
    ranked = np.argsort(-confidence)
    chosen = [*[row for row in ranked if right[row]][:EXAMPLES], *[row for row in ranked if not right[row]][:EXAMPLES]]
    clip_of = {index.segment_ids[number]: place for place, number in reversed(list(enumerate(index.segments.tolist())))}
    clips = np.array(sorted({clip_of[predictions.segments[row]] for row in chosen}), dtype=np.int64)
    footage = open_index(replace(index.part(clips), inputs=("rgb",)), feed="materialize")
    place = {int(clip): number for number, clip in enumerate(clips)}
    examples = []
    for row in chosen:
        frames = footage.clip(place[clip_of[predictions.segments[row]]])
        picked = np.linspace(0, len(frames) - 1, EXAMPLE_FRAMES).round().astype(int)
        origin = places[predictions.segments[row]]
        examples.append({
            "segment": predictions.segments[row],
            "uri": origin.uri,
            "start": origin.start,
            "truth": index.classes[predictions.labels[row]],
            "guess": index.classes[guesses[row]],
            "confidence": float(confidence[row]),
            "frames": [frames[at] for at in picked],
        })
    return examples


def _facts(
    record: dict[str, Any], run: ActionRun, store: Store, metrics: dict[str, Any], folder: RunFolder
) -> dict[str, Any]:
    from posture.models import build
    from posture.models.summary import gmacs, parameters

    history = folder.read_json("history.json") or []
    speeds = [row["clips_per_second"] for row in history]
    return {
        "evaluated": datetime.fromtimestamp(time.time(), UTC),
        "protocol": metrics["protocol"],
        "views": metrics["views"],
        "recipe": record.get("recipe"),
        "store": store.uri,
        "tables": record["versions"],
        "hardware": f"{record['machine']}; scored on {metrics['device']}",
        "software": record["software"],
        "seed": run.seed,
        "epochs": f"{len(history)} of {run.epochs}",
        "checkpoint": f"{metrics['checkpoint']}, epoch {metrics['epoch']}",
        "parameters": parameters(build(run.model)),
        "gmacs": gmacs(build(run.model), frames=run.model.frames, size=run.model.size, inputs=run.model.inputs),
        "clips_per_second": float(np.median(speeds)) if speeds else None,
        "wall_seconds": sum(row["seconds"] for row in history),
        "footage": record["footage"] | {metrics["split"]: {"segments": metrics["count"]}},
    }
