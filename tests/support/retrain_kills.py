"""Kill passes of retraining at seeded points and print a table.

Usage: `python -m tests.support.retrain_kills --rounds 10 --seed 0`. Every round starts from the same registry with a
champion and the same new footage. It kills a pass (SIGKILL, with its children), lets the next pass go on, and compares
the end with that of a pass that was not killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from posture.data.store.tables import Store
from posture.retrain.registry import Registry
from tests.support.footage import make_class_folders, make_video
from tests.support.ingested import contents
from tests.support.small_run import SMALL_ACTION, sets

EPOCHS = 3
SETS = SMALL_ACTION | {"data.recipe": "32x40-stretch-f20-s2-w1-raw", "model.dropout": 0.0, "epochs": EPOCHS}
OPTIONS = (
    "--local",
    "--settle",
    "0",
    "--min-clips",
    "2",
    "--min-per-class",
    "2",
    "--tolerance",
    "1",
    "--recall-floor",
    "0",
    "--max-class-drop",
    "1",
    *sets(SETS),
)
POINTS = [
    "line:looking for",
    "line:took in",
    "line:new: ",
    "file:current.json",
    "file:runs/*/start.safetensors",
    "line:training challenger",
    "line:epoch   1",
    "line:epoch   2",
    f"line:epoch   {EPOCHS}",
    "file:versions/v0002/model.safetensors",
    "file:versions/v0002/version.json",
    "file:passes/0002-*/predictions.parquet",
    "file:passes/0002-*/decision.json",
    "change:champion.json",
    "file:passes/0002-*/decision.html",
    "change:last.json",
]
"""What a pass is killed after: a line it prints, a file it writes anew, one that it changes."""
DELAYS = {"line": 1.0, "file": 0.02, "change": 0.02}
"""And at most so many seconds later."""


class Rounds:
    """A folder in which every round begins alike."""

    def __init__(self, folder: Path) -> None:
        self.place, self.template = folder / "work", folder / "template"
        make_class_folders(self.place / "in", per_class=6, frames=40)
        self.calmly()
        if self.registry.champion() is None:  # it learned too little in three epochs
            self.registry.promote("v0001", why="to begin with one")
        for number in range(5):
            make_video(self.place / "in" / "tall" / f"tall{number}.mp4", frames=40, seed=400 + number, size=(96, 64))
            make_video(self.place / "in" / "left" / f"more{number}.mp4", frames=40, seed=500 + number, direction=-1)
        self.place.rename(self.template)
        self.restore()
        self.calmly()
        self.expected = self.state()

    def restore(self) -> None:
        """As it was before the pass: the same files, at the same places and times."""
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.template, self.place)

    @property
    def registry(self) -> Registry:
        return Registry(str(self.place / "registry"))

    def start(self, *, log: Path) -> subprocess.Popen[bytes]:
        """A pass in a process group of its own, which writes what it prints into `log`."""
        command = [
            sys.executable,
            "-u",
            "-m",
            "posture",
            "retrain",
            "--footage",
            str(self.place / "in"),
            "--store",
            str(self.place / "store"),
            "--registry",
            str(self.place / "registry"),
            *OPTIONS,
        ]
        with log.open("wb") as file:
            return subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"},
            )

    def calmly(self) -> str:
        """A pass that nobody kills: what it printed. Raises AssertionError unless it ends well."""
        log = self.place.parent / "calm.log"
        code = self.start(log=log).wait(timeout=600)
        assert code == 0, log.read_text()
        return log.read_text()

    def state(self) -> dict[str, Any]:
        """What there is in the end, whatever way it came about."""
        registry, store = self.registry, Store(str(self.place / "store"))
        clips = store.read("clips", columns=["clip"])["clip"].to_pylist()
        assert len(clips) == len(set(clips)), "a clip stands twice"
        runs = {
            path.name: [
                (row["epoch"], round(row["train_loss"], 4)) for row in json.loads((path / "history.json").read_text())
            ]
            for path in sorted((self.place / "registry" / "runs").iterdir())
        }
        decisions = [registry.decision(name) for name in registry.passes()]
        return {
            "store": contents(self.place / "store"),
            "runs": runs,
            "champion": registry.champion(),
            "current": registry.current(),
            "versions": [
                (version["version"], version["parent"], version["classes"]) for version in registry.versions()
            ],
            "history": [(entry["version"], entry["action"]) for entry in registry.history()],
            "decisions": [
                (decision["outcome"], decision["challenger"], decision["came_in"]["classes"]) for decision in decisions
            ],
        }

    def round(self, point: str, delay: float) -> dict[str, Any]:
        """Kill a pass after `point`, and `delay` seconds; let the next one go on. Returns the row of the table; raises
        AssertionError.
        """
        self.restore()
        log = self.place.parent / "killed.log"
        process = self.start(log=log)
        reached = _wait_for(point, self.place / "registry", log, process)
        time.sleep(delay)
        ended = process.poll() is not None
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        champion = self.registry.champion()
        assert champion in [version["version"] for version in self.registry.versions()], "the champion is no version"
        before, began = log.read_text(), time.monotonic()
        after = self.calmly()
        took = time.monotonic() - began
        assert self.state() == self.expected, f"killed after {point}: what there is differs"
        epochs = [[line for line in said.splitlines() if line.startswith("epoch ")] for said in (before, after)]
        twice = len({line[:9] for line in epochs[0]} & {line[:9] for line in epochs[1]})
        assert not twice, f"killed after {point}: {twice} epochs were trained twice"
        idle = self.calmly()
        assert "nothing new" in idle, idle
        return {
            "killed after": point.replace(":", " ", 1) + ("" if reached else " (ended first)"),
            "s later": f"{delay:.3f}",
            "was over": ended,
            "champion then": champion,
            "epochs before": len(epochs[0]),
            "after": len(epochs[1]),
            "next pass s": f"{took:.1f}",
            "champion": self.registry.champion(),
        }

    def rounds(self, count: int, *, seed: int) -> list[dict[str, Any]]:
        """`count` rounds at points that the seed chooses, none twice before all were."""
        generator, points, rows = random.Random(seed), [], []
        for _ in range(count):
            points = points or generator.sample(POINTS, len(POINTS))
            point = points.pop()
            rows.append(self.round(point, generator.uniform(0, DELAYS[point.partition(":")[0]])))
            print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
        return rows


def _wait_for(point: str, registry: Path, log: Path, process: subprocess.Popen[bytes]) -> bool:
    """Until the point is reached, or the pass has ended: whether it was."""
    kind, _, what = point.partition(":")
    before = (registry / what).stat().st_mtime_ns if kind == "change" else 0

    def reached() -> bool:
        if kind == "line":
            return any(line.startswith(what) for line in log.read_text().splitlines())
        if kind == "file":
            return any(registry.glob(what))
        return (registry / what).stat().st_mtime_ns != before

    while process.poll() is None:
        if reached():
            return True
        time.sleep(0.002)
    return reached()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="posture-kills-") as folder:
        rows = Rounds(Path(folder)).rounds(asked.rounds, seed=asked.seed)
    from posture.display import console

    console.table(*rows[0], rows=[tuple(row.values()) for row in rows])
    console.out.print(f"{len(rows)} of {asked.rounds} rounds ended as if nobody had killed them")


if __name__ == "__main__":
    main()
