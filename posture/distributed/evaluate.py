"""Scoring on several Ray tasks: segments are dealt to them, every clip is scored exactly once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray

from posture.config import Run
from posture.distributed import cluster


def score_on_ray(index: Any, run: Run, checkpoint: Path, *, views: Any, workers: int, batch: int,
                 progress: Callable[[int, int], None] | None = None) -> tuple[np.ndarray, str]:
    """Class probabilities (clips, K) of every clip of `index`, by `workers` tasks; and the devices that made them.

    Raises InputError where the cluster cannot hold so many.
    """
    from posture.distributed.train import resources

    cluster.connect()
    cpus, gpus = resources(run.scale.model_copy(update={"workers": workers}), cpus=cluster.cpus(), gpus=cluster.gpus())
    weights = ray.put((checkpoint / "model.safetensors").read_bytes())
    shares = [np.flatnonzero(index.segments % workers == worker) for worker in range(workers)]
    task = _score.options(num_cpus=cpus, num_gpus=gpus)
    jobs = {task.remote(index.part(share), run, weights, views, batch): share for share in shares if len(share)}
    probabilities = np.full((len(index), run.model.classes), np.nan, dtype=np.float32)
    devices = set()
    done, waiting = 0, list(jobs)
    while waiting:
        (job,), waiting = ray.wait(waiting, num_returns=1)
        scores, device = ray.get(job)
        probabilities[jobs[job]] = scores
        devices.add(device)
        done += len(scores)
        if progress:
            progress(done, len(index))
    if np.isnan(probabilities).any():
        raise RuntimeError("some clips were not scored")
    return probabilities, f"{len(jobs)} x {' and '.join(sorted(devices))}"


@ray.remote
def _score(index: Any, run: Run, weights: bytes, views: Any, batch: int) -> tuple[np.ndarray, str]:
    import os
    import tempfile

    import torch

    from posture.evaluation import score_here

    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)) or (os.cpu_count() or 1)))
    with tempfile.TemporaryDirectory(prefix="posture-weights-") as place:
        (Path(place) / "model.safetensors").write_bytes(weights)
        return score_here(index, run, Path(place), views=views, batch=batch)
