"""Scoring on several Ray tasks: segments or images are dealt to them, everything is scored exactly once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray

from posture.config import ActionRun, AnyRun, DetectionRun
from posture.distributed import cluster
from posture.distributed.resources import refuse_crowd, resources


def score_on_ray(
    index: Any,
    run: ActionRun,
    checkpoint: Path,
    *,
    views: Any,
    workers: int,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[np.ndarray, str]:
    """Class probabilities (clips, K) of every clip of `index`, by `workers` tasks; and the devices that made them.

    Raises InputError where the cluster cannot hold so many.
    """
    shares = [np.flatnonzero(index.segments % workers == worker) for worker in range(workers)]
    probabilities = np.full((len(index), run.model.classes), np.nan, dtype=np.float32)
    devices = []
    for share, scores, device in _deal(
        "score", index, shares, run, checkpoint, {"views": views, "batch": batch}, progress
    ):
        probabilities[share] = scores
        devices.append(device)
    if np.isnan(probabilities).any():
        raise RuntimeError("some clips were not scored")
    return probabilities, _together(devices)


def detect_on_ray(
    index: Any,
    run: DetectionRun,
    checkpoint: Path,
    *,
    workers: int,
    batch: int,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Any], str]:
    """What is found in every image of `index`, by `workers` tasks; and the devices that found it. Raises InputError
    as `score_on_ray` does.
    """
    shares = [np.arange(len(index))[worker::workers] for worker in range(workers)]
    found: list[Any] = [None] * len(index)
    devices = []
    for share, part, device in _deal("detect", index, shares, run, checkpoint, {"batch": batch}, progress):
        for place, one in zip(share.tolist(), part, strict=True):
            found[place] = one
        devices.append(device)
    if any(one is None for one in found):
        raise RuntimeError("some images were not looked at")
    return found, _together(devices)


def _deal(
    what: str,
    index: Any,
    shares: list[np.ndarray],
    run: AnyRun,
    checkpoint: Path,
    options: dict[str, Any],
    progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[np.ndarray, Any, str]]:
    """(share, what its task made of it, the device) as the tasks end."""
    cluster.connect()
    scale = run.scale.model_copy(update={"workers": len(shares)})
    if cluster.is_alone():
        refuse_crowd(scale, nodes=cluster.sizes())
    cpus, gpus = resources(scale, nodes=cluster.sizes())
    weights = ray.put((checkpoint / "model.safetensors").read_bytes())
    task = _work.options(num_cpus=cpus, num_gpus=gpus, label_selector={} if gpus else cluster.off_decoders())
    jobs = {task.remote(what, index.part(share), run, weights, options): share for share in shares if len(share)}
    done, waiting = 0, list(jobs)
    while waiting:
        (job,), waiting = ray.wait(waiting, num_returns=1)
        made, device = ray.get(job)
        yield jobs[job], made, device
        done += len(jobs[job])
        if progress:
            progress(done, len(index))


def _together(devices: list[str]) -> str:
    return f"{len(devices)} x {' and '.join(sorted(set(devices)))}"


@ray.remote
def _work(what: str, index: Any, run: AnyRun, weights: bytes, options: dict[str, Any]) -> tuple[Any, str]:
    import os
    import tempfile

    import torch

    from posture.runs.action import score_here
    from posture.runs.detection import detect_here

    torch.set_num_threads(
        max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)) or (os.cpu_count() or 1))
    )
    with tempfile.TemporaryDirectory(prefix="posture-weights-") as place:
        (Path(place) / "model.safetensors").write_bytes(weights)
        return {"score": score_here, "detect": detect_here}[what](index, run, Path(place), **options)
