"""Importing ultralytics leaves a process as it was."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from posture.errors import InputError
from posture.models import build
from posture.models.detector_configs import YOLOv5, YOLOv7

CODE = """
import os, socket, sys
import cv2, numpy as np, torch
from PIL import Image

socket.getaddrinfo = lambda *arguments: sys.exit("looked up a host")
cv2.setNumThreads(2)
before = dict(os.environ), torch.save, Image.open, np.get_printoptions(), repr(torch.rand(3, 40) > 2)
before += (cv2.getNumThreads(),)

assert "ultralytics" not in sys.modules
USE
assert "ultralytics" in sys.modules
after = dict(os.environ), torch.save, Image.open, np.get_printoptions(), repr(torch.rand(3, 40) > 2)
after += (cv2.getNumThreads(),)
for one, other in zip(before, after):
    assert one == other, (one, other)
from ultralytics.nn.modules.head import Detect
assert not Detect.anchors.is_meta, "whoever uses ultralytics beside us moves it to a device"
"""


BLOCKS = """
from posture.models import build
from posture.models.detector_configs import YOLOv5

build(YOLOv5(width=0.05))
"""
TRACKERS = """
from posture.predict.tracker import TRACKERS, AthleteTracker

for name in TRACKERS:
    tracker = AthleteTracker(name, fps=25)
    tracker.update(0, 0.0, np.float32([[1, 2, 30, 40]]), np.float32([0.9]), np.zeros((64, 64, 3), np.uint8))
"""


@pytest.mark.parametrize("use", [BLOCKS, TRACKERS], ids=["blocks", "trackers"])
def test_a_process_is_as_it_was(use: str, tmp_path: Path):
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("USE", use)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("config", [YOLOv5(width=0.05), YOLOv7(width=0.05)])
def test_a_machine_without_ultralytics_is_told(config: YOLOv5 | YOLOv7, monkeypatch: pytest.MonkeyPatch):
    for name in ("ultralytics.nn", "ultralytics.nn.modules"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="ultralytics cannot be imported"):
        build(config)


def test_a_machine_without_lap_is_told(tmp_path: Path):
    """ultralytics would install it by pip."""
    code = """
import sys

sys.modules["lap"] = None
started = []
starts = ("subprocess.Popen", "os.system")
sys.addaudithook(lambda event, values: started.append(str(values)) if event in starts else None)

from posture.errors import InputError
from posture.predict.tracker import AthleteTracker

try:
    AthleteTracker("bytetrack", fps=25)
except InputError as error:
    assert "lap" in str(error), error
else:
    sys.exit("no error")
assert not any("install" in values for values in started), started
"""
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
