"""Runs of action classifiers: which clips they read, what they predict, how that is judged."""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import ActionRun
from posture.data.feed.clips import ClipIndex, index_footage
from posture.data.feed.few_labels import few_labels
from posture.data.feed.origins import Origin, places_of
from posture.data.feed.pretext_views import pretext_outputs
from posture.data.feed.shards import open_index
from posture.data.feed.source_windows import SourceFootage, SourceIndex, index_sources
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.runs import statistics
from posture.runs.figures import Judged, Objective, Reads, Views
from posture.runs.folder import RunFolder, RunRecord

EXAMPLES = 12
EXAMPLE_FRAMES = 5


@dataclass
class Predictions:
    """One row per segment."""

    segments: list[str]
    labels: np.ndarray  # (s,) int64
    scores: np.ndarray  # (s, K) float32
    views: np.ndarray  # (s,) int64, views of the segment
    classes: tuple[str, ...]


class ActionRuns:
    """`posture.runs.kinds.TaskRuns` of action classifiers."""

    unit = "clips"
    objectives: tuple[Objective, ...] = (
        Objective("accuracy", "val_accuracy", maximize=True),
        Objective("map", "val_map", maximize=True),
        Objective("mean_class_accuracy", "val_mean_class_accuracy", maximize=True),
        Objective("loss", "val_loss", maximize=False),
    )
    epoch_figures: Mapping[str, str] = {"val loss": "val_loss", "val accuracy": "val_accuracy"}

    def tables(self, run: ActionRun) -> tuple[str, ...]:
        return ("segments", "clips", *(("flows",) if "flow" in run.model.inputs else ()))

    def index(self, run: ActionRun, store: Store, split: str, reads: Reads) -> ClipIndex:
        if run.pretext:
            index = index_footage(
                store, split, versions=reads.versions, recipe=run.data.recipe, left_out=reads.left_out, unlabelled=True
            )
            return replace(index, classes=pretext_outputs(run.pretext), labels=np.zeros_like(index.labels))
        # flow of windows cut from the original files is computed anew
        inputs: Any = {} if reads.views.source else {"inputs": run.model.inputs, "flow": run.data.flow}
        index = index_footage(
            store,
            split,
            versions=reads.versions,
            recipe=run.data.recipe,
            classes=reads.classes,
            left_out=reads.left_out,
            **inputs,
        )
        if split == "train" and run.data.labels_per_class:
            rows = store.read("segments", columns=["segment", "group"], version=(reads.versions or {}).get("segments"))
            groups = dict(zip(*(rows[name].to_pylist() for name in ("segment", "group")), strict=True))
            index = few_labels(index, groups, each=run.data.labels_per_class, seed=run.seed)
        return index

    def resolve(self, run: ActionRun, train: ClipIndex) -> tuple[dict[str, Any], str]:
        return {"data.recipe": train.recipe, "data.flow": train.flow or run.data.flow}, ""

    def lacking(self, run: ActionRun) -> str:
        stored, frames = (
            DecodeRecipe.parse(run.data.recipe),
            (run.model.frames - 1) * max((run.data.step, *run.data.steps)) + 1,
        )
        said = []
        if run.pretext and stored.frames < 2 * frames - 1:
            said.append(
                f"stored clips have {stored.frames} of the {2 * frames - 1} frames that a clip spans at twice the "
                "speed: it plays to the end and back"
            )
        elif stored.frames < frames:
            said.append(
                f"stored clips have {stored.frames} of the {frames} frames that a clip spans: the last is repeated"
            )
        if min(stored.height, stored.width) < run.model.size:
            said.append(f"stored frames of {stored.height}x{stored.width} are enlarged to {run.model.size}")
        return "; ".join(said)

    def task(self, run: ActionRun, classes: tuple[str, ...]) -> Any:
        from posture.tasks.action import ActionTask
        from posture.tasks.pretext import PretextTask

        if run.pretext:
            return PretextTask(run)

        return ActionTask(run, classes)

    def batches(self, train: Any, val: Any, run: ActionRun, ctx: Any) -> Any:
        from posture.train.clip_batches import ClipBatches
        from posture.train.pretext_batches import PretextBatches

        batches = PretextBatches if run.pretext else ClipBatches
        return batches(train, run, rank=ctx.rank, world_size=ctx.world_size, validation=val)

    def protocol(self, run: ActionRun, views: Views) -> str:
        return views.describe()

    def seen(self, run: ActionRun, store: Store, index: ClipIndex, views: Views) -> ClipIndex | SourceIndex:
        if not views.source:
            return index
        return index_sources(store, index, windows=views.source, inputs=run.model.inputs, flow=run.data.flow)

    def predict(
        self,
        index: ClipIndex | SourceIndex,
        run: ActionRun,
        checkpoint: Path,
        *,
        views: Views,
        batch: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[np.ndarray, str]:
        """Return class probabilities (clips, K) and the name of the device."""
        from posture.runs.weights import load_network
        from posture.train.context import LocalContext
        from posture.train.evaluate import score

        ctx = LocalContext()
        footage = SourceFootage(index) if isinstance(index, SourceIndex) else open_index(index, feed=run.data.feed)
        probabilities = score(
            load_network(run, checkpoint),
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

    def judge(
        self,
        predictions: Any,
        run: ActionRun,
        checkpoint: Path,
        *,
        index: ClipIndex,
        seen: Any,
        store: Store,
        reads: Reads,
    ) -> Judged:
        import pyarrow as pa

        from posture.runs.classification_metrics import classification_metrics
        from posture.runs.reports.action import write_report

        found = merge(np.asarray(predictions), seen, reads.views)
        places = places_of(store, found.segments, versions=reads.versions)
        metrics = classification_metrics(found.scores, found.labels, found.classes)
        metrics |= {
            "interval": accuracy_interval(found, places),
            "views": [int(found.views.min()), int(found.views.max())],
            "clips": len(seen.labels),
            "clip_accuracy": float((np.asarray(predictions).argmax(axis=1) == seen.labels).mean()),
        }
        columns = {"segment": found.segments, "label": found.labels, "scores": list(found.scores), "views": found.views}
        table = pa.table(columns, metadata={"classes": json.dumps(found.classes)})
        return Judged(metrics, table, partial(write_report, examples=_examples(index, found, places)))

    def compute(self, run: ActionRun, network: Any) -> float:
        from posture.models.summary import gmacs

        return gmacs(network, run.model.frames, run.model.size, inputs=run.model.inputs)

    def facts(self, run: ActionRun, record: RunRecord, *, gmacs: float, speed: float | None) -> dict[str, Any]:
        return {"gmacs": gmacs, "clips_per_second": speed}

    def sheets(self, run: ActionRun, classes: tuple[str, ...], folder: RunFolder, val: Any) -> dict[str, bytes]:
        return {}

    def footage_fields(self, run: ActionRun) -> dict[str, Any]:
        return {
            "model.inputs": run.model.inputs,
            "data.recipe": run.data.recipe,
            "data.flow": run.data.flow,
            "data.feed": run.data.feed,
            "data.labels_per_class": run.data.labels_per_class,
        }


def merge(probabilities: np.ndarray, index: ClipIndex | SourceIndex, views: Views) -> Predictions:
    """Average the clips (n, K) of each segment. Raises RuntimeError if a segment has none: each one counts once."""
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


def accuracy_interval(predictions: Predictions, places: Mapping[str, Origin]) -> dict[str, Any]:
    """Return the interval of the accuracy by a bootstrap over groups, as `statistics.told_interval` does."""
    groups = [places[segment].group for segment in predictions.segments]
    right = predictions.scores.argmax(axis=1) == predictions.labels
    values = statistics.resampled_accuracy(right, groups, statistics.resampled_groups(groups))
    return statistics.told_interval(values, of="accuracy", groups=len(set(groups)))


def _examples(index: ClipIndex, predictions: Predictions, places: Mapping[str, Origin]) -> list[dict[str, Any]]:
    """Return filmstrips of the most confident right and wrong answers, from the stored clips."""
    guesses, confidence = predictions.scores.argmax(axis=1), predictions.scores.max(axis=1)
    right = guesses == predictions.labels
    ranked = np.argsort(-confidence)
    chosen = [*[row for row in ranked if right[row]][:EXAMPLES], *[row for row in ranked if not right[row]][:EXAMPLES]]
    clip_of = {index.segment_ids[number]: clip for clip, number in reversed(list(enumerate(index.segments.tolist())))}
    clips = np.array(sorted({clip_of[predictions.segments[row]] for row in chosen}), dtype=np.int64)
    footage = open_index(replace(index.part(clips), inputs=("rgb",)), feed="materialize")
    position = {int(clip): number for number, clip in enumerate(clips)}
    examples = []
    for row in chosen:
        frames = footage.clip(position[clip_of[predictions.segments[row]]])
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
