"""Compute the CPUs and GPUs of a run's workers, or of the trials of a search, before anything starts: nothing may wait
for resources that the cluster does not have.

Nodes are the (CPUs, GPUs) of those that may train.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from posture.config import Scale
from posture.errors import InputError

READER_CPUS = 0.5
"""CPUs kept free for tasks that read footage, also again after a node is lost."""
LEAST_CPUS = 0.5
"""Minimum CPUs of a trial on one device."""
LEAST_WORKER_CPUS = 0.2
"""Minimum CPUs of a worker of a trial."""
LEAST_SHARE = 0.1
"""Minimum CPUs of a run's worker."""
DRIVER_CPUS = 0.1
"""CPUs of the process that waits for the workers of a trial."""


@dataclass(frozen=True)
class Room:
    """Resources of the trials of a search."""

    concurrent: int
    """Trials at a time."""
    trial: dict[str, float]
    """CPUs and GPUs of the trial's own process."""
    threads: int
    """Threads of a trial on CPUs."""
    workers: int = 1
    cpus_per_worker: float = 0.0
    gpus_per_worker: float = 0.0


def resources(scale: Scale, *, nodes: list[tuple[float, float]], reading: float = READER_CPUS) -> tuple[float, float]:
    """Return the CPUs and GPUs for each of a run's workers; `reading` CPUs stay free. If workers have GPUs, only nodes
    with GPUs count.

    From a range of workers, take the largest number that gets a whole CPU each; the smallest must fit.
    Raises InputError, with the numbers, if the nodes have no room for them.
    """
    refuse_none(nodes)
    workers, gpus = scale.sizes[0], sum(node[1] for node in nodes)
    wanted_gpus = (1.0 if gpus >= workers else 0.0) if scale.gpus_per_worker == "auto" else float(scale.gpus_per_worker)
    if workers * wanted_gpus > gpus:
        raise InputError(
            f"scale.workers {workers} x scale.gpus_per_worker {wanted_gpus:g} need {workers * wanted_gpus:g} GPUs, "
            f"the cluster has {gpus:g}"
        )
    able = _able(nodes, wanted_gpus)
    asked = None if scale.cpus_per_worker == "auto" else float(scale.cpus_per_worker)
    for size, least in [*((size, asked or 1.0) for size in reversed(scale.sizes)), (workers, asked or LEAST_SHARE)]:
        share = _share(size, able, taken=reading, least=least, most=asked, gpus=wanted_gpus)
        if share is not None:
            return share, wanted_gpus
    read = f" and {reading:g} to read footage" if reading else ""
    raise InputError(
        f"scale.workers {workers} x scale.cpus_per_worker {least:g}{read} need {workers * least + reading:g} CPUs, the "
        f"cluster has {_cpus_text(able)}{' with GPUs' if wanted_gpus else ''}; use fewer workers, or a smaller share"
    )


def refuse_crowd(scale: Scale, *, nodes: list[tuple[float, float]]) -> None:
    """Raise InputError, with the numbers, if a machine without a cluster has fewer CPUs (or GPUs) than workers.

    On a cluster, or if `scale.cpus_per_worker` is given, workers may share a CPU.
    """
    workers, cpus, gpus = scale.sizes[0], sum(node[0] for node in nodes), sum(node[1] for node in nodes)
    if scale.cpus_per_worker == "auto" and workers > max(cpus, gpus, 1):
        raise InputError(
            f"{workers} workers: this machine has {cpus:g} CPU{'s' * (cpus != 1)}"
            f"{f' and {gpus:g} GPU' + 's' * (gpus != 1) if gpus else ''}, and more workers than that only wait for "
            f"each other; use at most {max(cpus, gpus, 1):g}, or a cluster (RAY_ADDRESS)"
        )


def refuse_none(nodes: list[tuple[float, float]]) -> None:
    """Raise InputError if no node may train."""
    if not nodes:
        raise InputError(
            "the cluster has 0 nodes to train on: all that have CPUs have the resource `decode` and no GPU, so they "
            "only decode"
        )


def room(
    scale: Scale,
    *,
    concurrent: int | None,
    trials: int,
    nodes: list[tuple[float, float]],
    reading: float = READER_CPUS,
    least: float = LEAST_CPUS,
) -> Room:
    """Return the room for `trials` trials of a search, or runs of a study, with `scale`.

    Without `concurrent`, there are as many at a time as GPUs, or as CPUs if there is no GPU. `reading` CPUs stay free
    for tasks that read footage; a trial on one device gets at least `least`.
    Raises InputError, with the numbers, if `concurrent` trials do not fit.
    """
    refuse_none(nodes)
    cpus, gpus = map(sum, zip(*nodes, strict=True))
    workers = scale.sizes[-1]
    at_once = min(concurrent or _at_once(workers, cpus=cpus - reading, gpus=gpus), max(1, trials))
    gpu = _gpus_each(scale, at_once * workers, gpus)
    drivers = DRIVER_CPUS * at_once if workers > 1 else 0.0
    least = least if workers == 1 else LEAST_WORKER_CPUS
    asked = None if scale.cpus_per_worker == "auto" else float(scale.cpus_per_worker)
    able = _able(nodes, gpu)
    share = _share(at_once * workers, able, taken=reading + drivers, least=asked or least, most=asked, gpus=gpu)
    if share is None:
        needed = at_once * workers * (asked or least) + drivers + reading
        each = f" of {workers} workers" if workers > 1 else ""
        own = f", {drivers:g} for the trials themselves" if drivers else ""
        raise InputError(
            f"{at_once} trial{'s' * (at_once > 1)} at a time{each}, with {asked or least:g} CPUs each{own} and "
            f"{reading:g} to read footage, need {needed:g} CPUs, the cluster has {_cpus_text(able)}; use fewer: "
            "--max-concurrent, --workers-per-trial"
        )
    if workers > 1:
        return Room(
            at_once, {"CPU": DRIVER_CPUS}, threads=1, workers=workers, cpus_per_worker=share, gpus_per_worker=gpu
        )
    threads = max(1, round(min(max(node[0] for node in able), cpus / at_once)))
    return Room(at_once, {"CPU": share} | ({"GPU": gpu} if gpu else {}), threads=threads)


def _at_once(workers: int, *, cpus: float, gpus: float) -> int:
    if gpus >= workers:
        return int(gpus / workers)
    return max(1, int(cpus)) if workers == 1 else 1


def _gpus_each(scale: Scale, devices: int, gpus: float) -> float:
    wanted = (
        (1.0 if gpus >= devices else math.floor(gpus / devices * 100) / 100)
        if scale.gpus_per_worker == "auto"
        else float(scale.gpus_per_worker)
    )
    if wanted * devices > gpus:
        raise InputError(
            f"scale.gpus_per_worker {wanted:g}: {devices} devices at a time need {wanted * devices:g} GPUs, the "
            f"cluster has {gpus:g}"
        )
    return wanted


def _able(nodes: list[tuple[float, float]], gpus: float) -> list[tuple[float, float]]:
    """Return the nodes with GPUs if GPUs are wanted, else all."""
    return [node for node in nodes if node[1] > 0] if gpus else nodes


def _share(
    count: int, nodes: list[tuple[float, float]], *, taken: float, least: float, most: float | None, gpus: float = 0.0
) -> float | None:
    """Return the most CPUs, whole ones or tenths, that each of `count` processes with `gpus` GPUs can have on its node
    while `taken` CPUs stay free; or None.
    """
    largest = most or max(node[0] for node in nodes)
    whole = [float(value) for value in range(int(largest), 0, -1)] if most is None else [most]
    tenths = [value / 10 for value in range(9, 0, -1)] if most is None else []
    total = sum(node[0] for node in nodes)
    for value in [*whole, *tenths]:
        fits = (
            sum(math.floor(min(node[0] / value, node[1] / gpus if gpus else math.inf) + 1e-9) for node in nodes)
            >= count
        )
        if value >= least and fits and total - count * value >= taken - 1e-9:
            return value
    return None


def _cpus_text(nodes: list[tuple[float, float]]) -> str:
    cpus = sum(node[0] for node in nodes)
    return f"{cpus:g}" if len(nodes) == 1 else f"{cpus:g} on {len(nodes)} nodes"
