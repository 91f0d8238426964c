"""Ingest on the workers of a Ray cluster. They write Parquet files; only this process commits them to the store."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import ray

from posture.data.ingest import clips, flow, images
from posture.data.ingest.clip_ledger import ClipReport, IngestOptions
from posture.data.ingest.engine import Progress, Returned, Work, attempt, blocks
from posture.data.ingest.image_ledger import ImageOptions, ImageReport
from posture.data.labels.records import AnnotatedImages, LabelledVideos
from posture.data.store.tables import Store
from posture.distributed import cluster
from posture.distributed.metrics import Throughput
from posture.errors import InputError

if TYPE_CHECKING:
    from posture.runs.athlete_finder import Finder
    from posture.runs.trained import TrainedModel

GPU_SHARE = 0.25
"""GPUs per task that finds athletes, if the cluster has GPUs. Tasks also decode, so one alone does not fill a GPU."""


def ingest(
    footage: LabelledVideos,
    store: Store,
    options: IngestOptions,
    *,
    detector: TrainedModel | None = None,
    progress: Progress | None = None,
) -> ClipReport:
    """Ingest videos: `data.ingest.clips.ingest_clips` on Ray, with the `detector` if clips are cut around athletes."""
    spread = functools.partial(on_ray, gpu=detector is not None)
    open_finder = None
    if detector is not None:
        cluster.connect()
        open_finder = functools.partial(_open_finder, detector.digest, [ray.put(detector)])
    return clips.ingest_clips(
        footage, store, options, spread=spread, open_finder=open_finder, progress=_measured(store, progress)
    )


def ingest_images(
    annotated: AnnotatedImages, store: Store, options: ImageOptions, *, progress: Progress | None = None
) -> ImageReport:
    """Ingest images: `data.ingest.images.ingest_images` on Ray."""
    return images.ingest_images(annotated, store, options, spread=on_ray, progress=_measured(store, progress))


def compute_flow(store: Store, method: str, *, progress: Progress | None = None) -> flow.FlowReport:
    """Compute optical flow: `data.ingest.flow.add_flow` on Ray."""
    return flow.add_flow(store, flow.FlowOptions(method), spread=on_ray, progress=progress)


def on_ray(
    work: Work, jobs: list[Any], tasks: int, *, gpu: bool = False
) -> Generator[Returned | InputError, None, None]:
    """Run the work as tasks of Ray Data on the nodes that decode. A lost task is run again."""
    cluster.connect()
    parts = blocks(jobs, max(tasks, int(2 * cluster.decoding_cpus())))
    place: dict[str, Any] = {"num_gpus": GPU_SHARE} if gpu and cluster.gpus() else {"resources": cluster.decoding()}
    # Arrow has no type for jobs and results
    rows = [{"jobs": pickle.dumps(part)} for part in parts]
    data = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _attempt,  # type: ignore[arg-type]
        fn_kwargs={"work": ray.put(work)},
        batch_size=None,
        **place,
    )
    for batch in data.iter_batches(batch_size=None, prefetch_batches=0):
        yield from map(pickle.loads, batch["returned"])


def _attempt(batch: dict[str, Any], work: Any) -> dict[str, Any]:
    import cv2

    cv2.setNumThreads(1)  # there are as many tasks as cores
    attempted: Any = ray.get(work)
    return {"returned": [pickle.dumps(attempt(attempted, pickle.loads(jobs))) for jobs in batch["jobs"]]}


_finders: dict[str, Finder] = {}
"""Detector of this worker process, by its digest."""


def _open_finder(digest: str, held: list[Any]) -> Finder:
    """Return the detector that Ray holds as the only item of `held`. A worker process reads it once."""
    from posture.runs.athlete_finder import Finder

    if digest not in _finders:
        _finders.clear()
        _finders[digest] = Finder(ray.get(held[0]))
    return _finders[digest]


def _measured(store: Store, progress: Progress | None) -> Progress:
    """Return a `progress` that also exports the throughput as metrics of Ray, with the store as the `run`."""
    throughput = Throughput("decode", store.uri)

    def report(done: int, steps: int, made: int, rate: float) -> None:
        throughput.reached(made, rate)
        if progress:
            progress(done, steps, made, rate)

    return report
