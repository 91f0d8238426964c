"""Predictions of classifiers for held-out segments: each segment once, its clips averaged."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posture.config import ActionRun
from posture.data.feed.clips import ClipIndex, index_footage
from posture.data.store.files import write_bytes
from posture.data.store.tables import Store
from posture.retrain.comparison import Answers
from posture.retrain.intake import Progress, silent
from posture.runs.backend import LOCAL, Backend
from posture.runs.figures import Views

BATCH = 16
"""Clips per forward pass."""


def score_segments(
    store: Store,
    run: ActionRun,
    weights: Path,
    segments: Iterable[str],
    *,
    versions: dict[str, int],
    split: str = "test",
    backend: Backend = LOCAL,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[str], np.ndarray]:
    """Return the segments that have clips in `split`, sorted, and their probabilities (s, K) by the model `run`.

    `weights` is the folder of its model.safetensors. On Ray in `workers` tasks.
    """
    from posture.train.evaluate import merge_by_segment

    index = only_segments(
        index_footage(
            store, split, versions=versions, recipe=run.data.recipe, inputs=run.model.inputs, flow=run.data.flow
        ),
        set(segments),
    )
    if not len(index):
        return [], np.zeros((0, run.model.classes), dtype=np.float32)
    probabilities, _ = backend.predict(
        index, run, weights, views=Views(), batch=BATCH, workers=workers, progress=progress
    )
    merged = merge_by_segment(np.asarray(probabilities), index.segments, index.labels)
    return [index.segment_ids[number] for number in merged.segments], merged.scores


def only_segments(index: ClipIndex, segments: set[str]) -> ClipIndex:
    """Return the clips of those segments only."""
    wanted = np.array([segment in segments for segment in index.segment_ids], dtype=bool)
    return index.part(np.flatnonzero(wanted[index.segments]) if len(index) else np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class Model:
    """A model to evaluate."""

    run: ActionRun
    classes: tuple[str, ...]
    weights: AbstractContextManager[Path]
    """Context manager that gives the folder of its model.safetensors."""


def ask(
    store: Store,
    versions: dict[str, int],
    held_out: dict[str, list[str]],
    frozen: frozenset[str],
    challenger: Model,
    champion: Model | None,
    *,
    floor: Model | None = None,
    backend: Backend = LOCAL,
    workers: int = 1,
    progress: Progress = silent,
) -> Answers:
    """Return the predictions of both models, and of the linear classifier `floor` if it is given, for `held_out` ({id:
    label, split, group}).

    Segments are left out if neither model knows their class, or if one of the models has no clips of them.
    """
    known = {*challenger.classes, *(champion.classes if champion else ())}
    asked = {segment: said for segment, said in held_out.items() if said[0] in known}
    said: dict[str, np.ndarray] = {}
    segments = sorted(asked)
    for name, model in (("challenger", challenger), ("champion", champion), ("linear classifier", floor)):
        if model is not None:
            with progress(f"scoring the {name}") as advance, model.weights as weights:
                found, scores = score_segments(
                    store,
                    model.run,
                    weights,
                    segments,
                    versions=versions,
                    backend=backend,
                    workers=workers,
                    progress=advance,
                )
            kept = np.isin(segments, found)
            said = {other: before[kept] for other, before in said.items()} | {
                name: spread(scores, model.classes, tuple(sorted(known)))
            }
            segments = found
    labels = np.array([sorted(known).index(asked[segment][0]) for segment in segments], dtype=np.int64)
    return Answers(
        segments,
        [asked[segment][2] for segment in segments],
        labels,
        np.array([segment in frozen for segment in segments], dtype=bool),
        tuple(sorted(known)),
        said["challenger"],
        frozenset(challenger.classes),
        said.get("champion"),
        frozenset(champion.classes if champion else ()),
        said.get("linear classifier"),
    )


def spread(scores: np.ndarray, own: tuple[str, ...], classes: tuple[str, ...]) -> np.ndarray:
    """Return scores (s, K) of the classes `own` as columns of `classes`, 0 for those that the model does not know."""
    wide = np.zeros((len(scores), len(classes)), dtype=np.float32)
    wide[:, [classes.index(name) for name in own]] = scores
    return wide


def write_predictions(uri: str, answers: Answers) -> None:
    """Write the hold-out's segments and both models' probabilities as a Parquet file.

    Its metadata `classes` names the columns of the probabilities.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    floats = pa.list_(pa.float32())
    champion = [None] * len(answers.segments) if answers.champion is None else answers.champion.tolist()
    table = pa.table({
        "segment": pa.array(answers.segments, pa.string()),
        "set": pa.array(["frozen" if frozen else "new" for frozen in answers.frozen], pa.string()),
        "label": pa.array([answers.classes[label] for label in answers.labels], pa.string()),
        "group": pa.array(answers.groups, pa.string()),
        "champion": pa.array(champion, floats),
        "challenger": pa.array(answers.challenger.tolist(), floats),
    }).replace_schema_metadata({"classes": json.dumps(answers.classes)})
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    write_bytes(uri, buffer.getvalue())


def figures(answers: Answers, scores: np.ndarray | None, known: frozenset[str]) -> dict[str, Any] | None:
    """Return `classification_metrics` of a model on the segments of its own classes, `known`; None if there are
    none.
    """
    from posture.runs.classification_metrics import classification_metrics

    names = sorted(known)
    places = [answers.classes.index(name) for name in names]
    chosen = np.isin(answers.labels, places)
    if scores is None or not chosen.any():
        return None
    return classification_metrics(
        scores[chosen][:, places], np.searchsorted(places, answers.labels[chosen]), tuple(names)
    )
