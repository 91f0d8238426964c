"""Footage, a network and a run small enough to train in seconds, and a run folder on disk."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, distributed, nn

from posture.config import ActionRun, override
from posture.models.configs import C3D
from posture.train.context import LocalContext
from posture.train.workers import spread

CLASSES: tuple[str, ...] = ("still", "left", "right")
SMALL_ACTION = {"model.width": 0.125, "model.size": 32, "scale.global_batch": 4}
"""Changes that make a recipe of jobs/action.py small enough to train in seconds."""
SMALL_DETECTION = SMALL_ACTION | {"model.size": 64}
"""The same for jobs/detector.py."""
CALM = {"model.dropout": 0.0, "scale.amp": "off", "model.stem_motion": 0.0, "model.branch_gain": 0.0, "optim.lr": 0.001}
"""Changes for a start that does not magnify rounding errors."""


class SmallFootage:
    """Noise under a bright bar that stands still or walks left or right, 8 to 12 frames of 20 x 24 pixels; two clips to
    a segment.
    """

    def __init__(self, clips: int, *, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.classes = CLASSES
        self.keys = [f"{number:08x}" for number in range(clips)]
        self.labels = np.arange(clips, dtype=np.int64) // 2 % 3
        self.segments = np.arange(clips, dtype=np.int64) // 2
        self.frames = [_bar(int(label), 8 + number % 5, generator) for number, label in enumerate(self.labels)]

    def __len__(self) -> int:
        return len(self.frames)

    def clip(self, index: int) -> np.ndarray:
        return self.frames[index]


class StreamedFootage:
    """The same clips dealt out in blocks, as a stream deals them: unequal shares, an order of its own."""

    def __init__(self, footage: SmallFootage, *, shares: list[list[int]]) -> None:
        self.classes, self.keys, self.labels, self.segments = (
            footage.classes,
            footage.keys,
            footage.labels,
            footage.segments,
        )
        self.frames, self.shares = footage.frames, shares

    def __len__(self) -> int:
        return len(self.frames)

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
        assert world_size == len(self.shares)
        for index in self.shares[rank]:
            yield index, self.frames[index]

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        return max(len(share) for share in self.shares)


class SmallNetwork(nn.Module):
    """(n, 3, T, S, S) -> (n, 3)."""

    def __init__(self, *, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.convolution = nn.Conv3d(3, 6, (3, 3, 3), stride=(1, 2, 2), padding=1)
        self.norm = nn.GroupNorm(2, 6)
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(6 * 8, 3)

    def forward(self, clips: Tensor) -> Tensor:
        features = torch.relu(self.norm(self.convolution(clips)))
        return self.classify(self.dropout(nn.functional.adaptive_avg_pool3d(features, 2).flatten(1)))


class DiskFolder:
    """The part of a run folder that training writes to."""

    def __init__(self, path: Path) -> None:
        self.path, self.uri = path, str(path)
        self.tags: dict[str, str] = {}

    def publish_checkpoint(self, tag: str, directory: Path, *, best: bool) -> None:
        shutil.copytree(directory, self.path / tag, dirs_exist_ok=True)
        self.tags |= {"last": tag} | ({"best": tag} if best else {})

    def write_json(self, name: str, value: Any) -> None:
        (self.path / name).write_text(json.dumps(value))

    @property
    def last(self) -> Path:
        return self.path / self.tags["last"]


def sets(changes: dict[str, Any]) -> list[str]:
    """Return changes as options of a command."""
    return [f"--set={name}={value}" for name, value in changes.items()]


def small_run(**changes: Any) -> ActionRun:
    """12 clips to a batch, 4 epochs; `changes` are dotted, with __ for the dot: `optim__lr=0.1`."""
    run = ActionRun(name="small", epochs=4, model=C3D(classes=3, frames=8, size=16, head="gap", width=0.125))
    defaults = {"scale.global_batch": 12, "scale.amp": "off", "optim.lr": 0.05, "optim.warmup_epochs": 0.5}
    return override(run, defaults | {name.replace("__", "."): value for name, value in changes.items()})


def _bar(label: int, frames: int, generator: np.random.Generator) -> np.ndarray:
    clip = generator.integers(0, 80, (frames, 20, 24, 3), dtype=np.uint8)
    start = int(generator.integers(4, 16))
    for frame in range(frames):
        left = (start + (0, -2, 2)[label] * frame) % 22
        clip[frame, :, left : left + 3] = 230
    return clip


class FlowFootage(SmallFootage):
    """Footage whose flow encodes the field and the clip: 128 + 8 for `right`, 128 - 8 for `left`."""

    def __init__(self, clips: int, *, seed: int = 0) -> None:
        super().__init__(clips, seed=seed)
        self.fields = [np.full((len(frames) - 1, 20, 24, 2), 128, np.uint8) for frames in self.frames]
        for number, field in enumerate(self.fields):
            field[:, 5:15, 5:15, 0] += np.uint8((0, 248, 8)[self.labels[number]])
            field[:, 0, 0, 1] = np.arange(len(field)) + 10 * number

    def flow(self, index: int) -> np.ndarray:
        return self.fields[index]


class ProcessContext(LocalContext):
    """The context of one of several processes joined by gloo."""

    def __init__(self, rank: int, world_size: int, folder: DiskFolder) -> None:
        super().__init__(
            folder if rank == 0 else None, device="cpu", on_progress=self.stop_rank_1 if rank == 1 else None
        )
        self.rank, self.world_size = rank, world_size
        self.stop_after: tuple[int, int] | None = None

    def stop_rank_1(self, update: dict[str, Any]) -> None:
        if (update["epoch"], update["step"]) == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)

    def wrap(self, model: nn.Module) -> nn.Module:
        return spread(model, self.device)

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.world_size
        distributed.all_gather_object(values, value)
        return values

    def sum(self, totals: ArrayLike) -> np.ndarray:
        summed = torch.tensor(np.asarray(totals, dtype=np.float64))
        distributed.all_reduce(summed)
        return summed.numpy()

    def broadcast(self, value: Any) -> Any:
        holder = [value]
        distributed.broadcast_object_list(holder)
        return holder[0]
