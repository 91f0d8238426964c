"""A round: the whole way with one fault at a random moment. It must end as if nothing had happened.

Outside the bucket, what comes before the command that is disturbed is not done again: the round begins with what the
undisturbed way left.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tests.faults.site import (
    COMMANDS,
    EPOCHS,
    TITLES,
    Command,
    Place,
    Result,
    Site,
    checkpoints_of,
    difference,
    read_result,
)
from tests.support.processes import descendants

ATTEMPTS = 6
FAULTS = {
    "decode worker": ("ingest",),
    "training worker": ("train",),
    "node": COMMANDS,
    "driver": COMMANDS,
    "bucket": COMMANDS,
}
"""What is taken away, and from which commands."""
AWAY_SECONDS = 20.0
"""So long the bucket's server is away."""
TOLERANCE = 1e-3
"""Of metrics, relative: workers that are placed otherwise add up in another order."""


@dataclass
class Fault:
    """What is taken away from which command, and when."""

    kind: str
    how: str
    command: str
    epoch: int
    """Of training: so many epochs are complete."""
    seconds: float
    """After that, or after the command's first worker has begun."""

    @property
    def moment(self) -> str:
        return f"{self.command}, {self.seconds:.1f} s into " + (
            f"epoch {self.epoch + 1}" if self.command == "train" else "its work"
        )


@dataclass
class Round:
    """One line of the table."""

    number: int
    fault: str
    moment: str
    recovered: str = ""
    rows_lost: int = 0
    epochs_repeated: int = 0
    difference: float = float("nan")
    seconds: float = 0.0
    error: str = ""

    @property
    def good(self) -> bool:
        return not self.error and self.rows_lost == 0 and self.epochs_repeated <= 1 and self.difference <= TOLERANCE


class Missed(Exception):
    """The command had ended when the fault was to come."""


def draw(seed: int, number: int, attempt: int = 0) -> Fault:
    """The fault of a round: every kind once in five rounds, in random order, and every command of a kind in turn."""
    kinds = list(FAULTS)
    turn, place = divmod(number, len(kinds))
    which = int(np.random.default_rng((seed, turn)).permutation(len(kinds))[place])
    kind, commands = kinds[which], FAULTS[kinds[which]]
    random = np.random.default_rng((seed, number, 1 + attempt))
    how = {"decode worker": ("Ray worker", "decoder"), "bucket": ("refuses", "frozen")}.get(kind, ("",))
    return Fault(
        kind,
        str(random.choice(how)),
        commands[(seed + turn + which) % len(commands)],
        int(random.integers(EPOCHS)),
        float(random.uniform(0.0, 1.5)),
    )


def play(site: Site, calm: Place, *, seed: int, number: int) -> Round:
    """Play one round, anew with another moment, each time sooner, if its fault came too late; its `error` tells what
    failed.
    """
    for attempt in range(ATTEMPTS):
        fault = draw(seed, number, attempt)
        fault = replace(fault, epoch=max(0, fault.epoch - attempt), seconds=fault.seconds / (1 + attempt))
        with contextlib.suppress(Missed):
            return _play(site, calm, read_result(calm), fault, f"{seed}-{number}-{attempt}", number)
    raise RuntimeError(f"round {number} of seed {seed}: the fault came too late {ATTEMPTS} times")


def _play(site: Site, calm: Place, wanted: Result, fault: Fault, name: str, number: int) -> Round:
    place = Place(
        f"s3://lab/{name}" if fault.kind == "bucket" else str(site.folder / name),
        evaluate_workers=2 if fault.command == "evaluate" else 0,
    )
    first = COMMANDS[0] if fault.kind == "bucket" else fault.command
    if first in ("train", "evaluate"):
        shutil.copytree(calm.store, place.store)
    if first == "evaluate":
        shutil.copytree(calm.run, place.run, ignore=shutil.ignore_patterns("evaluation"))
    line = Round(number, f"{fault.kind} {fault.how}".strip(), fault.moment)
    began = time.monotonic()
    with watch(site, place) as seen:

        def disturb(name: str, command: Command) -> bool:
            if name != fault.command:
                return False
            strike(site, fault, seen, command)
            return fault.kind == "driver"

        try:
            result = site.whole_way(place, first=first, disturb=disturb)
            lost = [set(wanted.rows[name]) - set(rows) for name, rows in result.rows.items()]
            line.rows_lost = sum(map(len, lost))
            assert result.rows == wanted.rows, "the store differs"
            line.difference = difference(result, wanted)
        except Missed:
            raise
        except Exception as error:
            line.error = f"{type(error).__name__}: {error}"
    groups = len(seen.workers) // 2
    again = ["the command given again"] if fault.kind == "driver" else []
    again += [f"{groups - 1} x workers started again"] if groups > 1 and not again else []
    line.recovered = "; ".join(again) or {"bucket": "storage asked again"}.get(fault.kind, "tasks run again")
    line.epochs_repeated = max(0, len(seen.checkpoints) - EPOCHS, int(groups > 1))
    line.seconds = time.monotonic() - began
    if fault.kind == "node":
        site.nodes.tell("add")
    return line


@dataclass
class Seen:
    """While a round runs: its training workers and its checkpoints, all that ever were."""

    workers: set[int]
    checkpoints: set[str]


@contextmanager
def watch(site: Site, place: Place) -> Iterator[Seen]:
    seen, done = Seen(set(), set()), threading.Event()

    def look() -> None:
        while not done.wait(0.2):
            seen.workers.update(site.nodes.workers(TITLES["train"]))
            seen.checkpoints.update(checkpoints_of(site, place))

    looking = threading.Thread(target=look)
    looking.start()
    try:
        yield seen
    finally:
        done.set()
        looking.join()


def strike(site: Site, fault: Fault, seen: Seen, command: Command) -> None:
    """Wait for the moment, then do it. Raises Missed where the command was done before."""

    def ready() -> Any:
        workers = site.nodes.workers(TITLES[fault.command])
        return workers if fault.command != "train" or len(seen.checkpoints) >= fault.epoch else None

    while not (workers := ready()):
        if command.process.poll() is not None:
            raise Missed
        time.sleep(0.1)
    time.sleep(fault.seconds)
    workers = site.nodes.workers(TITLES[fault.command])
    if not workers:
        command.finish()
        raise Missed
    if fault.kind == "driver":
        os.kill(command.process.pid, signal.SIGKILL)
    elif fault.kind == "node":
        site.nodes.kill_node(
            next((raylet for raylet in workers.values() if raylet in site.nodes.others()), site.nodes.others()[-1])
        )
    elif fault.kind == "bucket":
        (site.gate.shut if fault.how == "refuses" else lambda: os.kill(site.server, signal.SIGSTOP))()
        time.sleep(AWAY_SECONDS)
        (site.gate.open if fault.how == "refuses" else lambda: os.kill(site.server, signal.SIGCONT))()
    else:
        victim = min(workers)
        decoders = [process for process, title in descendants(victim).items() if "posture.data.decode.sandbox" in title]
        os.kill(decoders[0] if fault.how == "decoder" and decoders else victim, signal.SIGKILL)
