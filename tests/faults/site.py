"""Where the rounds happen: nodes, a bucket behind a gate, small footage, and the whole way from it to metrics as a user
types it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from posture.data.store.files import is_remote
from posture.data.store.tables import Store
from posture.runs.folder import RunFolder
from tests.faults.gate import Gate
from tests.faults.nodes import Nodes
from tests.support.footage import make_class_folders
from tests.support.processes import descendants, s3_server
from tests.support.small_run import CALM, SMALL_ACTION, sets

EPOCHS, VIDEOS = 4, 40
CPUS = (1, 1, 1)
"""Of the nodes. Two workers get a whole node each; when one is lost they have the others, and leave no CPU."""
DECODE = ("--size", "32x40", "--frames", "20")
TRAIN = ("--workers", "2", *sets(SMALL_ACTION | CALM | {"epochs": EPOCHS}))
"""A narrow network with a calm start, which does not magnify rounding errors."""
LIMIT_SECONDS = 600.0
"""Of a command: one that takes longer hangs."""
COMMANDS = ("ingest", "train", "evaluate")
"""The whole way."""
TITLES = {"ingest": "MapBatches", "train": "RayTrainWorker", "evaluate": "::_work"}
"""What Ray calls the workers of each command."""


@dataclass
class Place:
    """Where a round's store and run are, below a folder or in the bucket."""

    root: str
    evaluate_workers: int = 0
    other_store: str = ""
    """The store, where it is not this place's own."""

    @property
    def store(self) -> str:
        return self.other_store or f"{self.root}/store"

    @property
    def run(self) -> str:
        return f"{self.root}/runs/small"

    def command(self, name: str, footage: Path) -> list[str]:
        """`ingest`, `train` or `evaluate`, to be given again as it is after it was interrupted."""
        if name == "ingest":
            return ["ingest", str(footage), "--store", self.store, *DECODE]
        if name == "train":
            return [
                "train",
                "jobs/action.py:improved_paper",
                "--store",
                self.store,
                "--runs",
                f"{self.root}/runs",
                "--name",
                "small",
                "--resume-if-begun",
                *TRAIN,
            ]
        return ["evaluate", self.run, "--workers", str(self.evaluate_workers)]


@dataclass
class Result:
    """What came out: `rows` of the store by table, `metrics` of every epoch and of the evaluation."""

    rows: dict[str, list[str]]
    metrics: np.ndarray


@dataclass
class Command:
    """One that runs, and what it showed."""

    process: subprocess.Popen[str]
    began: float = field(default_factory=time.monotonic)

    def finish(self, *, again: bool = False) -> str:
        """Its output. Raises AssertionError where it fails or hangs. Given `again`, it may find that it was done before
        it was killed.
        """
        try:
            output, _ = self.process.communicate(timeout=max(1.0, LIMIT_SECONDS - (time.monotonic() - self.began)))
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"it hangs: {self.process.communicate()[0][-3000:]}") from None
        done = self.process.returncode == 0 or (again and "this run has finished its" in output)
        assert done, f"exit code {self.process.returncode}: {output[-3000:]}"
        return output


class Site:
    """Use in a `with` block."""

    def __enter__(self) -> Site:
        with ExitStack() as stack:
            self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="posture-faults-")))
            bucket = stack.enter_context(s3_server())
            (self.server,) = [
                process for process, command in descendants(os.getpid()).items() if "moto.server" in command
            ]
            self.gate = Gate(int(bucket["AWS_ENDPOINT_URL"].rpartition(":")[2]))
            stack.callback(self.gate.close)
            bucket["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{self.gate.port}"
            environment = stack.enter_context(pytest.MonkeyPatch.context())
            for name, value in bucket.items():
                environment.setenv(name, value)
            self.nodes = Nodes(*CPUS, environment=bucket)
            stack.callback(self.nodes.close)
            self.footage = make_class_folders(self.folder / "footage", per_class=VIDEOS // 2, frames=50)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self, arguments: list[str], **environment: str) -> Command:
        """Start a command of Posture on the nodes."""
        variables = os.environ | self.nodes.environment | {"WANDB_MODE": "disabled"} | environment
        return Command(
            subprocess.Popen(
                [sys.executable, "-m", "posture", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env=variables,
                start_new_session=True,
            )
        )

    def whole_way(
        self,
        place: Place,
        *,
        first: str = COMMANDS[0],
        disturb: Callable[[str, Command], bool] = lambda name, command: False,
    ) -> Result:
        """Ingest, train, evaluate, from the command `first` on. `disturb` sees each running, and says whether it is to
        be given again.

        Raises AssertionError.
        """
        for name in COMMANDS[COMMANDS.index(first) :]:
            command = self.begin(place.command(name, self.footage))
            if again := disturb(name, command):
                command.process.communicate(timeout=60)
                command = self.begin(place.command(name, self.footage))
            command.finish(again=again)
        return read_result(place)


def read_result(place: Place) -> Result:
    """Of a round that is at its end."""
    store, folder = Store(place.store), RunFolder.open(place.run)
    rows = {name: sorted(map(str, store.read(name).to_pylist())) for name in ("videos", "groups", "segments", "clips")}
    history = folder.read_json("history.json")
    assert [record["epoch"] for record in history] == list(range(1, EPOCHS + 1)), history
    found = folder.evaluation().metrics
    names = sorted(name for name, value in found.items() if isinstance(value, float) and name != "seconds")
    values = [record[name] for record in history for name in ("train_loss", "val_loss", "val_accuracy")] + [
        found[name] for name in names
    ]
    return Result(rows, np.array(values))


def difference(one: Result, other: Result) -> float:
    """The largest relative difference of any two metrics."""
    return float(np.max(np.abs(one.metrics - other.metrics) / np.maximum(np.abs(other.metrics), 1e-3)))


def checkpoints_of(site: Site, place: Place) -> set[str]:
    """The checkpoints of a run that can be seen now, or were ever sent to the bucket: epoch-0001-1a2b3c4d ..."""
    if is_remote(place.root):
        sent = re.compile(rf"PUT /{place.run.removeprefix('s3://')}/checkpoints/(epoch-[^/]+)/state.json")
        return {found[1] for line in site.gate.requests() if (found := sent.match(line))}
    folder = Path(place.run, "checkpoints")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
