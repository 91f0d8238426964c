"""Write what the tests here keep: `python -m tests.written_before FOLDER`, in a checkout of the version to keep.

It takes a few minutes. Copy FOLDER to `kept`, and put its absolute path into test_written_before.py as WRITTEN_AT.
Footage, pages, weights to start from, the challengers' runs and the optimiser's state of trials are left out, to keep
little: nothing reads them, or a command writes them again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.footage import make_class_folders
from tests.support.image_folders import write_yolo

CLIPS = "--size 20x24 --frames 9 --stride 2 --jpeg 50 --min-frames 8 --yes"
LENIENT = "--min-clips 1 --min-per-class 1 --tolerance 1 --max-class-drop 1 --recall-floor 0"
STEADY = "--set optim.name=sgd --set optim.momentum=0.0 --set optim.ema=0.0 --set optim.lr=0.001"
RETRAIN = (
    f"retrain --footage footage --store clips --registry registry --recipe mine.py:action --local --settle 0 {LENIENT}"
)
COMMANDS = (
    f"ingest footage --store clips {CLIPS} --flow dis",
    "ingest images --store stills --yes",
    "train mine.py:action --store clips --name action --local",
    "evaluate runs/action",
    "train mine.py:detector --store stills --name start --local",
    f"train mine.py:detector --store stills --name detector --local --weights runs/start --epochs 2 {STEADY}",
    "evaluate runs/detector",
    "tune mine.py --base mine.py:action --store clips --folder search --trials 2 --max-concurrent 1",
    "compare mine.py:study --store clips --seeds 1 --out study --local",
    RETRAIN,
    "registry promote registry v0001 --why first",
    f"{RETRAIN} --set seed=1 --force",
)


def write(folder: Path) -> None:
    """Run the commands in `folder`."""
    folder.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("mine.py"), folder)
    make_class_folders(folder / "footage", per_class=8, frames=20)
    write_yolo(folder / "images", {"train": 12, "val": 4, "test": 4}, names=("athlete", "ball"), suffix=".jpg")
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    for command in COMMANDS:
        print(command, flush=True)
        subprocess.run([sys.executable, "-m", "posture", *command.split()], cwd=folder, env=environment, check=True)
    for path in [folder / name for name in ("footage", "images", "runs/start", "registry/runs")]:
        shutil.rmtree(path)
    for path in [*folder.rglob("*.html"), *folder.glob("search/runs/*/checkpoints/*/train.safetensors")]:
        path.unlink()
    (folder / "runs" / "detector" / "start.safetensors").unlink()
    (folder / "mine.py").unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]).absolute())
