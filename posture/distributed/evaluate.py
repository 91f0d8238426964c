"""Predictions by several Ray tasks: clips or images are dealt to them, each is looked at once."""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportCallIssue=false

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

from posture.config import AnyRun
from posture.distributed import cluster
from posture.distributed.resources import refuse_crowd, resources
from posture.runs.backend import Local


def predict(
    index: Any,
    run: AnyRun,
    checkpoint: Path,
    *,
    views: Any,
    batch: int,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Any], str]:
    """Return a prediction for each clip or image of `index`, made by `workers` tasks, and their devices.

    All clips of a segment go to one task. Raises InputError if the cluster cannot hold that many tasks.
    """
    cluster.connect()
    scale = run.scale.model_copy(update={"workers": workers})
    if cluster.is_alone():
        refuse_crowd(scale, nodes=cluster.sizes())
    cpus, gpus = resources(scale, nodes=cluster.sizes())
    together = getattr(index, "segments", np.arange(len(index)))
    shares = [share for worker in range(workers) if len(share := np.flatnonzero(together % workers == worker))]
    weights = ray.put((checkpoint / "model.safetensors").read_bytes())
    task = _work.options(num_cpus=cpus, num_gpus=gpus, label_selector={} if gpus else cluster.off_decoders())
    running = {task.remote(index.part(share), run, weights, views=views, batch=batch): share for share in shares}
    found: list[Any] = [None] * len(index)
    devices, done = [], 0
    while running:
        (ended,), _ = ray.wait(list(running), num_returns=1)
        share, (predictions, device) = running.pop(ended), ray.get(ended)
        for row, prediction in zip(share.tolist(), predictions, strict=True):
            found[row] = prediction
        devices.append(device)
        done += len(share)
        if progress:
            progress(done, len(index))
    return found, f"{len(devices)} x {' and '.join(sorted(set(devices)))}"


@ray.remote
def _work(index: Any, run: AnyRun, weights: bytes, **options: Any) -> tuple[Any, str]:
    import os
    import tempfile

    import torch

    torch.set_num_threads(
        max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)) or (os.cpu_count() or 1))
    )
    with tempfile.TemporaryDirectory(prefix="posture-weights-") as place:
        Path(place, "model.safetensors").write_bytes(weights)
        return Local().predict(index, run, Path(place), **options)
