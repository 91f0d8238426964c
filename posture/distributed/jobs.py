"""Run the jobs of a study on the cluster, one task each, as many at a time as there is room for.

A task trains in its own process as `--local` does, and writes to its run's folder after every epoch; the driver reads
its progress there. A lost task is started again and resumes from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable

import ray

from posture.compare.study import Job
from posture.config import Scale
from posture.data.store.files import is_remote
from posture.distributed import cluster
from posture.distributed.resources import room
from posture.distributed.train import refuse_unshared
from posture.errors import InputError

LOOK_EVERY_SECONDS = 2.0
ATTEMPTS = 3


def execute(
    what: str,
    jobs: list[Job],
    *,
    concurrent: int | None,
    on_progress: Callable[[int, int, str], None],
    on_done: Callable[[Job, str], None],
) -> dict[str, str]:
    """ "train" or "score" all jobs, as `Backend.run_jobs` does. Each gets a GPU if there are any, and an equal share of
    the CPUs.

    `on_progress(done, total, note)` counts epochs in training and runs in scoring. Raises InputError if a run's folder
    is not shared by all nodes.
    """
    waiting = {job.run.name: job for job in jobs}
    said = {name: "" for name, job in waiting.items() if job.is_done(what)}
    if len(said) == len(waiting):
        return said
    cluster.connect()
    if cluster.nodes() > 1 and not is_remote(jobs[0].runs):
        refuse_unshared(jobs[0].folder.path("run.json"))
    cpus, gpus = share_of_a_run(concurrent, jobs=len(waiting) - len(said), nodes=cluster.sizes())
    place = {} if gpus else cluster.off_decoders()
    task = _work.options(num_cpus=cpus, num_gpus=gpus, label_selector=place, max_retries=ATTEMPTS)
    running = {task.remote(what, job): job for name, job in waiting.items() if name not in said}
    total = sum(job.run.chosen_epochs for job in waiting.values()) if what == "train" else len(waiting)
    try:
        while running:
            ended, _ = ray.wait(list(running), timeout=LOOK_EVERY_SECONDS)
            for reference in ended:
                job = running.pop(reference)
                said[job.run.name] = ray.get(reference)
                on_done(job, said[job.run.name])
            epochs = (
                sum(job.run.chosen_epochs if name in said else len(job.history) for name, job in waiting.items())
                if what == "train"
                else len(said)
            )
            on_progress(epochs, total, f"{len(said)} of {len(waiting)} runs")
    except BaseException:
        for reference in running:
            ray.cancel(reference, force=True)
        raise
    return said


def share_of_a_run(concurrent: int | None, *, jobs: int, nodes: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the CPUs and GPUs of one run of a study. Raises InputError if `concurrent` runs do not fit."""
    cpus = sum(node[0] for node in nodes if node[1] or not any(node[1] for node in nodes))
    if concurrent is not None and not 1 <= concurrent <= cpus:
        raise InputError(f"--concurrent {concurrent}: the cluster has {cpus:g} CPUs, a run needs at least one of them")
    share = room(Scale(), concurrent=concurrent, trials=jobs, nodes=nodes, reading=0.0, least=1.0).trial
    return share["CPU"], share.get("GPU", 0.0)


@ray.remote
def _work(what: str, job: Job) -> str:
    import torch

    torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
    return job.work(what)
