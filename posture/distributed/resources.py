"""What fits on a cluster, a run's workers or the trials of a search, and what each of them gets: decided before
anything starts, so that nothing waits for what cannot come.

Nodes are (CPUs, GPUs), of those that may train.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from posture.config import Scale
from posture.errors import InputError

READER_CPUS = 0.5
"""Kept free for the tasks that read footage, and for those that read it again when a node is lost."""
LEAST_CPUS = 0.5
"""Of a trial on one device."""
LEAST_WORKER_CPUS = 0.2
LEAST_SHARE = 0.1
"""Of a run's worker."""
DRIVER_CPUS = 0.1
"""Of a trial on several workers, for the process that waits for them."""


@dataclass(frozen=True)
class Room:
    """What trials get."""

    concurrent: int
    """Trials at a time."""
    trial: dict[str, float]
    """CPUs and GPUs of the trial's own process."""
    threads: int
    """That a trial on one CPU device computes with."""
    workers: int = 1
    cpus_per_worker: float = 0.0
    gpus_per_worker: float = 0.0


def resources(scale: Scale, *, nodes: list[tuple[float, float]], reading: float = READER_CPUS) -> tuple[float, float]:
    """CPUs and GPUs for each of a run's workers; `reading` CPUs stay free. Where workers have GPUs, only the nodes that
    have some count.

    Of a range of workers as many as there is room for now get a whole CPU or more each; the least of them must fit.
    Raises InputError, with the numbers, where the nodes cannot hold them all.
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
        f"scale.workers {workers} x scale.cpus_per_worker {least:g}{read} need {workers * least + reading:g} CPUs, the cluster has "
        f"{_said(able)}{' with GPUs' if wanted_gpus else ''}; use fewer workers, or a smaller share"
    )


def refuse_crowd(scale: Scale, *, nodes: list[tuple[float, float]]) -> None:
    """On one machine without a cluster: raise InputError, with the numbers, if it has fewer CPUs (or GPUs) than
    workers.

    On a cluster, or with `scale.cpus_per_worker` given, workers may share a CPU.
    """
    workers, (cpus, gpus) = scale.sizes[0], (sum(node[place] for node in nodes) for place in (0, 1))
    if scale.cpus_per_worker == "auto" and workers > max(cpus, gpus, 1):
        raise InputError(
            f"{workers} workers: this machine has {cpus:g} CPU{'s' * (cpus != 1)}{f' and {gpus:g} GPU' + 's' * (gpus != 1) if gpus else ''}, and "
            f"more workers than that only wait for each other; use at most {max(cpus, gpus, 1):g}, or a cluster (RAY_ADDRESS)"
        )


def refuse_none(nodes: list[tuple[float, float]]) -> None:
    """Raises InputError where no node may train."""
    if not nodes:
        raise InputError(
            "the cluster has 0 nodes to train on: all that have CPUs have the resource `decode` and no GPU, so they only decode"
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
    cpus, gpus = (sum(node[place] for node in nodes) for place in (0, 1))
    workers = scale.workers
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
            f"{at_once} trial{'s' * (at_once > 1)} at a time{each}, with {asked or least:g} CPUs each{own} and {reading:g} to read "
            f"footage, need {needed:g} CPUs, the cluster has {_said(able)}; use fewer: --max-concurrent, --workers-per-trial"
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
            f"scale.gpus_per_worker {wanted:g}: {devices} devices at a time need {wanted * devices:g} GPUs, the cluster has {gpus:g}"
        )
    return wanted


def _able(nodes: list[tuple[float, float]], gpus: float) -> list[tuple[float, float]]:
    """Those that have GPUs, where some are wanted."""
    return [node for node in nodes if node[1] > 0] if gpus else nodes


def _share(
    count: int, nodes: list[tuple[float, float]], *, taken: float, least: float, most: float | None, gpus: float = 0.0
) -> float | None:
    """The most CPUs that `count` processes of `gpus` GPUs can have each, whole ones or tenths, each on one node, with
    `taken` left over; or None.
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


def _said(nodes: list[tuple[float, float]]) -> str:
    cpus = sum(node[0] for node in nodes)
    return f"{cpus:g}" if len(nodes) == 1 else f"{cpus:g} on {len(nodes)} nodes"
