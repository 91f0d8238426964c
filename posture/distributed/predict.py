"""Prediction of many videos on Ray Data: an actor per GPU, or per share of the CPUs, holds the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ray

from posture.distributed import cluster
from posture.errors import InputError
from posture.predict.files import Outputs, Predicted, VideoJob

CPUS_PER_ACTOR = 2
"""CPUs of an actor without a GPU: one decodes, the other runs the networks."""


def predict_videos(
    jobs: list[VideoJob],
    models: dict[str, Any],
    outputs: Outputs,
    *,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Predicted]:
    """Return the result of each video, in the order of `jobs`; actors write their files.

    `models` are the arguments of `posture.predict.model.VideoModel`. `progress` gets the number of videos that are
    done, in total, and the name of the last. Raises InputError if the cluster cannot hold that many actors.
    """
    cluster.connect()
    share = _share(workers, most=len(jobs))
    rows = [{"number": number} for number in range(len(jobs))]
    actors: Any = {
        "fn_constructor_args": (ray.put((models, jobs, outputs)),),
        "concurrency": share.pop("actors"),
        **share,
    }
    found: list[Predicted | None] = [None] * len(jobs)
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_PredictingActor, **actors)  # type: ignore[arg-type]
    for done, row in enumerate(data.iter_rows(), 1):
        number = row["number"]
        if isinstance(row["result"], InputError):  # its files cannot be written
            raise row["result"]
        found[number] = row["result"]
        if progress is not None:
            progress(done, len(jobs), jobs[number].uri.rpartition("/")[2])
    return [one for one in found if one is not None]


def _share(workers: int | None, *, most: int) -> dict[str, Any]:
    """Return the number of actors, and the resources of each. Raises InputError if there is no room."""
    gpus, cpus = int(cluster.gpus()), sum(cpus for cpus, _ in cluster.sizes())
    if gpus:
        if workers is not None and workers > gpus:
            raise InputError(f"--workers {workers}: the cluster has {gpus} GPUs, one for each worker")
        return {"actors": min(most, workers or gpus), "num_gpus": 1}
    actors = min(most, workers or max(1, int(cpus // CPUS_PER_ACTOR)))
    if actors > cpus:
        raise InputError(f"--workers {actors}: the cluster has {cpus:g} CPUs, and each worker needs one")
    # Ray Data itself needs no CPU to hand out the names of files
    return {"actors": actors, "num_cpus": max(1.0, min(CPUS_PER_ACTOR, cpus // actors))}


class _PredictingActor:
    """An actor with the model. Called with the number of a video, it predicts it."""

    def __init__(self, held: Any) -> None:
        import torch

        from posture.predict.model import VideoModel

        torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
        models, self._jobs, self._outputs = ray.get(held)
        self._model = VideoModel(**models)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from posture.predict.files import predict_file

        try:
            return row | {"result": predict_file(self._model, self._jobs[row["number"]], self._outputs)}
        except InputError as error:
            return row | {"result": InputError(str(error))}
