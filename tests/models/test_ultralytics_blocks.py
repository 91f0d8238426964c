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

from posture.models import build
from posture.models.detector_configs import YOLOv5

assert "ultralytics" not in sys.modules
build(YOLOv5(width=0.05))
assert "ultralytics" in sys.modules
after = dict(os.environ), torch.save, Image.open, np.get_printoptions(), repr(torch.rand(3, 40) > 2)
after += (cv2.getNumThreads(),)
for one, other in zip(before, after):
    assert one == other, (one, other)
"""


def test_a_process_is_as_it_was(tmp_path: Path):
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize("config", [YOLOv5(width=0.05), YOLOv7(width=0.05)])
def test_a_machine_without_ultralytics_is_told(config: YOLOv5 | YOLOv7, monkeypatch: pytest.MonkeyPatch):
    for name in ("ultralytics.nn", "ultralytics.nn.modules"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="ultralytics cannot be imported"):
        build(config)
