"""How many trials fit on a cluster, and what each of them gets: decided before anything starts, so that nothing waits for what cannot come."""

from __future__ import annotations

import math
from dataclasses import dataclass

from posture.config import Scale
from posture.distributed.train import READER_CPUS
from posture.errors import InputError

LEAST_CPUS = 0.5
"""Of a trial on one device."""
LEAST_WORKER_CPUS = 0.2
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


def room(scale: Scale, *, concurrent: int | None, trials: int, nodes: list[tuple[float, float]]) -> Room:
    """Room for trials of runs with `scale` on nodes with so many (CPUs, GPUs); at most `trials` at a time.

    Left to itself, a trial on one device gets a GPU, or a CPU where there is none. `READER_CPUS` stay free for tasks that read footage.
    Raises InputError with the numbers where `concurrent` trials do not fit.
    """
    cpus, gpus = (sum(node[place] for node in nodes) for place in (0, 1))
    workers = scale.workers
    at_once = min(concurrent or _at_once(workers, cpus=cpus, gpus=gpus), max(1, trials))
    gpu = _gpus_each(scale, at_once * workers, gpus)
    drivers = DRIVER_CPUS * at_once if workers > 1 else 0.0
    least = LEAST_CPUS if workers == 1 else LEAST_WORKER_CPUS
    asked = None if scale.cpus_per_worker == "auto" else float(scale.cpus_per_worker)
    share = _share(at_once * workers, nodes, taken=READER_CPUS + drivers, least=asked or least, most=asked)
    if share is None:
        needed = at_once * workers * (asked or least) + drivers + READER_CPUS
        each = f" of {workers} workers" if workers > 1 else ""
        own = f", {drivers:g} for the trials themselves" if drivers else ""
        raise InputError(f"{at_once} trial{'s' * (at_once > 1)} at a time{each}, with {asked or least:g} CPUs each{own} and {READER_CPUS:g} to read "
                         f"footage, need {needed:g} CPUs, the cluster has {_said(nodes, cpus)}; use fewer: --max-concurrent, --workers-per-trial")
    if workers > 1:
        return Room(at_once, {"CPU": DRIVER_CPUS}, threads=1, workers=workers, cpus_per_worker=share, gpus_per_worker=gpu)
    threads = max(1, round(min(max(node[0] for node in nodes), cpus / at_once)))
    return Room(at_once, {"CPU": share} | ({"GPU": gpu} if gpu else {}), threads=threads)


def _at_once(workers: int, *, cpus: float, gpus: float) -> int:
    if gpus >= workers:
        return int(gpus / workers)
    return max(1, int(cpus - READER_CPUS)) if workers == 1 else 1


def _gpus_each(scale: Scale, devices: int, gpus: float) -> float:
    wanted = (1.0 if gpus >= devices else math.floor(gpus / devices * 100) / 100) if scale.gpus_per_worker == "auto" else float(scale.gpus_per_worker)
    if wanted * devices > gpus:
        raise InputError(f"scale.gpus_per_worker {wanted:g}: {devices} devices at a time need {wanted * devices:g} GPUs, the cluster has {gpus:g}")
    return wanted


def _share(count: int, nodes: list[tuple[float, float]], *, taken: float, least: float, most: float | None) -> float | None:
    """The most CPUs that `count` processes can have each, whole ones or tenths of one, each on one node, with `taken` left over; or None."""
    largest = most or max(node[0] for node in nodes)
    whole = [float(value) for value in range(int(largest), 0, -1)] if most is None else [most]
    tenths = [value / 10 for value in range(9, 0, -1)] if most is None else []
    total = sum(node[0] for node in nodes)
    for value in [*whole, *tenths]:
        fits = sum(math.floor(node[0] / value + 1e-9) for node in nodes) >= count
        if value >= least and fits and total - count * value >= taken - 1e-9:
            return value
    return None


def _said(nodes: list[tuple[float, float]], cpus: float) -> str:
    return f"{cpus:g}" if len(nodes) == 1 else f"{cpus:g} on {len(nodes)} nodes"
