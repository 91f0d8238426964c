"""Import of ultralytics (AGPL-3.0) on demand: convolutional blocks of the YOLO family, and trackers.

Importing ultralytics changes the process. It looks up hosts in the DNS, writes a settings file and reports that on
standard output. It sets OMP_NUM_THREADS=1 in the environment, which later processes inherit. It wraps `torch.save` and
PIL's `Image.open`, which then installs a package by pip if an image is unreadable. It changes how torch and numpy print
and OpenCV's number of threads. Here it is imported offline and silently, may install nothing, and all changes except
the settings file are undone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch

from posture.errors import InputError

OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
"""ultralytics' own variables: no look-up of hosts, no installing of packages, no standard output."""


def ultralytics_blocks() -> ModuleType:
    """Return `ultralytics.nn.modules`, with Conv, C3, SPPF and Focus. Raises InputError if it cannot be imported."""
    return import_ultralytics("ultralytics.nn.modules", need="this network is made of ultralytics' blocks")


def import_ultralytics(name: str, *, need: str) -> ModuleType:
    """Return the module `name` of ultralytics.

    Raises InputError, which opens with `need`, if it cannot be imported.
    """
    if sys.modules.get(name) is not None:
        return sys.modules[name]
    with _unchanged_process():
        try:
            with torch.device("cpu"):  # tensors of its classes, if a network is built on the meta device
                return import_module(name)
        except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
            raise InputError(f"{need}, but ultralytics cannot be imported: {error}") from None


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """Set ultralytics' variables within it; afterwards, undo the changes of its import (torch prints by default)."""
    environment, save, printed, threads = dict(os.environ), torch.save, np.get_printoptions(), _opencv_threads()
    opened = _pillow_open()
    os.environ.update({name: value for name, value in OFFLINE.items() if name not in environment})
    try:
        yield
    finally:
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update({name: value for name, value in environment.items() if os.environ.get(name) != value})
        torch.save = save
        torch.set_printoptions(profile="default")
        np.set_printoptions(**printed)
        _opencv_threads(threads)
        _pillow_open(opened)


def _opencv_threads(threads: int | None = None) -> int | None:
    """Set OpenCV's number of threads unless `threads` is None, and return it; None without OpenCV."""
    try:
        import cv2
    except ImportError:
        return None
    if threads is not None:
        cv2.setNumThreads(threads)
    return cv2.getNumThreads()


def _pillow_open(opened: Callable[..., Any] | None = None) -> Callable[..., Any] | None:
    """Set PIL's `Image.open` unless `opened` is None, and return it; None without PIL."""
    try:
        from PIL import Image
    except ImportError:
        return None
    if opened is not None:
        Image.open = opened
    return Image.open
