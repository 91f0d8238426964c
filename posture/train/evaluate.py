"""Evaluation of a network: validation during training, and probabilities for every clip afterwards.

Tensor legend: n clips, K classes, D features, T frames, S the network's side in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from posture.data.feed.clip_transforms import evaluation_view, frame_indices, network_inputs
from posture.models.features import penultimate
from posture.tasks.action import probabilities as task_probabilities
from posture.train.batches import Batches, chunks, prefetched
from posture.train.clip_batches import ClipSource, StreamedClipSource, read, stack, stored_frames
from posture.train.context import Context
from posture.train.optim import Precision


@torch.inference_mode()
def validate(model: nn.Module, task: Any, batches: Batches, ctx: Context, *, precision: Precision) -> dict[str, float]:
    """Return the task's metrics over all validation data; each worker computes its share, centred in time and space."""
    model.eval()
    totals = None
    for batch in batches.evaluation():
        inputs, targets = batch.tensors(batches.run, ctx.device)
        with precision.autocast():
            outputs = model(*inputs)
        found = task.totals(outputs, targets)
        totals = found if totals is None else task.added(totals, found)
    metrics = task.metrics(ctx.gather(totals.cpu() if isinstance(totals, torch.Tensor) else totals))
    if (count := metrics.pop("count")) != len(batches.validation):
        raise RuntimeError(f"validation saw {count} of {len(batches.validation)} {batches.unit}")
    return metrics


@torch.inference_mode()
def score(
    model: nn.Module,
    source: ClipSource | StreamedClipSource,
    indices: np.ndarray,
    run: Any,
    device: torch.device,
    *,
    crops: int = 1,
    temporal_views: int = 1,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """Return class probabilities of the clips `indices`, averaged over crops and temporal views: (n, K) float32.

    Row i is for `indices[i]`. `batch` is the number of views per forward pass; `progress` is called with the number of
    clips done and in total. Raises RuntimeError if the source does not yield every clip exactly once.
    """
    probabilities = np.zeros((len(indices), run.model.classes), dtype=np.float32)
    for rows, outputs in _outputs(
        model, source, indices, run, device, crops=crops, temporal_views=temporal_views, batch=batch, progress=progress
    ):
        probabilities[rows] += task_probabilities(outputs).cpu().numpy() / (crops * temporal_views)
    return probabilities


@torch.inference_mode()
def describe(
    model: nn.Module,
    source: ClipSource | StreamedClipSource,
    run: Any,
    device: torch.device,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return class probabilities (n, K) and penultimate features (n, D) of every clip, centred, float32."""
    probabilities = np.zeros((len(source), run.model.classes), dtype=np.float32)
    features: np.ndarray | None = None
    with penultimate(model) as taken:
        for rows, outputs in _outputs(
            model,
            source,
            np.arange(len(source)),
            run,
            device,
            crops=1,
            temporal_views=1,
            batch=batch,
            progress=progress,
        ):
            described = torch.cat([layer.flatten(1).float() for layer in taken], dim=1).cpu().numpy()
            if features is None:
                features = np.zeros((len(source), described.shape[1]), dtype=np.float32)
            probabilities[rows], features[rows] = task_probabilities(outputs).cpu().numpy(), described
    return probabilities, np.zeros((0, 0), dtype=np.float32) if features is None else features


def _outputs(
    model: nn.Module,
    source: ClipSource | StreamedClipSource,
    indices: np.ndarray,
    run: Any,
    device: torch.device,
    *,
    crops: int,
    temporal_views: int,
    batch: int,
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Yield (rows, network outputs of those clips) for every view of every clip; row i is `indices[i]`."""
    model = model.to(device).eval()
    precision = Precision(run.scale.amp, device)
    row_of = {int(index): row for row, index in enumerate(indices)}
    seen = np.zeros(len(indices), dtype=np.int64)
    names = run.model.inputs
    clips = ((row_of[index], arrays) for index, arrays, _ in read(source, indices, names) if index in row_of)
    for chunk in prefetched(chunks(clips, max(1, batch // (crops * temporal_views)))):
        rows = [row for row, _ in chunk]
        for view, crop in product(range(temporal_views), range(crops)):
            place = {"view": view, "views": temporal_views, "crop": crop, "crops": crops}
            outputs = clip_outputs(model, [arrays for _, arrays in chunk], run, device, precision=precision, **place)
            yield rows, outputs
        np.add.at(seen, rows, 1)
        if progress is not None:
            progress(int(seen.sum()), len(indices))
    if not (seen == 1).all():
        raise RuntimeError(f"{int((seen != 1).sum())} of {len(indices)} clips were not evaluated exactly once")


def clip_outputs(
    model: nn.Module,
    clips: list[tuple[np.ndarray, ...]],
    run: Any,
    device: torch.device,
    *,
    precision: Precision,
    view: int = 0,
    views: int = 1,
    crop: int = 0,
    crops: int = 1,
) -> torch.Tensor:
    """Return the outputs of a network, on `device` and in evaluation mode, for clips of one size in one pass.

    A clip has an array for each of `run.model.inputs`: uint8 frames (T, H, W, 3) or flow (T - 1, H, W, 2), as stored.
    Of `views` spans and `crops` squares, the network sees number `view` and number `crop`.
    """
    names, lengths = run.model.inputs, [stored_frames(run.model.inputs, clip) for clip in clips]
    span = {"step": run.data.step, "view": view, "views": views}
    stored = stack(names, clips, [frame_indices(length, run.model.frames, **span) for length in lengths])
    square = evaluation_view(next(iter(stored.values())).shape[2:4], clips=len(clips), crop=crop, crops=crops)
    inputs = network_inputs(_on_device(stored, device), square, data=run.data, size=run.model.size)
    with precision.autocast():
        return model(*inputs)


def _on_device(stored: dict[str, np.ndarray], device: torch.device) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array).to(device) for name, array in stored.items()}


@dataclass(frozen=True)
class SegmentScores:
    """One row per segment, ordered by segment number."""

    segments: np.ndarray
    """(s,) int64 segment numbers."""
    labels: np.ndarray
    """(s,) int64 class indices."""
    scores: np.ndarray
    """(s, K) float32, mean probabilities over the segment's clips."""
    views: np.ndarray
    """(s,) int64, numbers of clips."""


def merge_by_segment(probabilities: np.ndarray, segments: np.ndarray, labels: np.ndarray) -> SegmentScores:
    """Return the mean of each segment's clips: probabilities (n, K), segments (n,), labels (n,) -> one row per segment.

    Raises ValueError if the clips of a segment have different labels.
    """
    numbers, first, segment_of, views = np.unique(segments, return_index=True, return_inverse=True, return_counts=True)
    if not (labels == labels[first][segment_of]).all():
        raise ValueError("clips of one segment have different labels")
    summed = np.zeros((len(numbers), probabilities.shape[1]), dtype=np.float64)
    np.add.at(summed, segment_of, probabilities)
    return SegmentScores(
        segments=numbers, labels=labels[first], scores=(summed / views[:, None]).astype(np.float32), views=views
    )
