"""The door to `ultralytics.nn.modules`: convolutional blocks of the YOLO family (AGPL-3.0), imported when a network is
built of them.

Importing ultralytics also changes the process that does so: it looks up hosts in the DNS, writes a settings file and
says so on standard output, puts OMP_NUM_THREADS=1 into the environment (which every process started later inherits),
wraps `torch.save`, PIL's `Image.open` (which from then on installs a package by pip where an image is unreadable), and
sets how torch and numpy print and how many threads OpenCV has. Here it is imported offline and in silence, it may
install nothing, and all of that is put back but the settings file.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import torch

from posture.errors import InputError

OFFLINE = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
"""ultralytics' own variables: no look-up of hosts, no installing of packages, no word on standard output."""


def ultralytics_blocks() -> ModuleType:
    """`ultralytics.nn.modules`, with Conv, C3, SPPF and Focus. Raises InputError where ultralytics does not import."""
    if "ultralytics.nn.modules" in sys.modules:
        return _import()
    with _unchanged_process():
        return _import()


def _import() -> ModuleType:
    try:
        from ultralytics.nn import modules
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise InputError(
            f"this network is made of ultralytics' blocks, and ultralytics does not import here: {error}"
        ) from None
    return modules


@contextmanager
def _unchanged_process() -> Iterator[None]:
    """ultralytics' variables are set inside; afterwards, what its import changed is as it was (torch prints as by
    default).
    """
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
    """OpenCV's number of threads, once it is set to `threads` unless that is None; None where there is no OpenCV."""
    try:
        import cv2
    except ImportError:
        return None
    if threads is not None:
        cv2.setNumThreads(threads)
    return cv2.getNumThreads()


def _pillow_open(opened: Callable[..., Any] | None = None) -> Callable[..., Any] | None:
    """PIL's `Image.open`, once it is set to `opened` unless that is None; None where there is no PIL."""
    try:
        from PIL import Image
    except ImportError:
        return None
    if opened is not None:
        Image.open = opened
    return Image.open
