"""The classifiers' speed, beside torchvision's video networks: `python -m posture.bench.models`.

Every network is timed in turn, several rounds over, so that a slow moment of the machine falls on all of them; the table gives the
median and, in brackets, the slowest and fastest round. Inputs are random clips already on the device: no decoding, no augmentation.
Needs torch and numpy; the torchvision rows appear where torchvision imports.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from posture.models import build
from posture.models.configs import C3D, IMPROVED
from posture.models.summary import gmacs, parameters

CLASSES, FRAMES = 101, 16
PEERS = ("r3d_18", "mc3_18", "r2plus1d_18")


@dataclass(frozen=True)
class Settings:
    """What is held equal between the networks."""

    device: torch.device
    batch: int
    size: int
    rounds: int
    steps: int
    """Timed repetitions in one round."""
    warm_ups: int
    compiled: bool


class Entry:
    """One network in one precision, on the device, with its optimiser."""

    def __init__(self, name: str, network: nn.Module, precision: str, settings: Settings) -> None:
        self.name, self.precision, self.settings = name, precision, settings
        self.parameters, self.gmacs = parameters(network), gmacs(network, FRAMES, settings.size)
        self.network = network.to(settings.device)
        self.forward = torch.compile(self.network) if settings.compiled else self.network
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=1e-4, momentum=0.9)
        self.clips = torch.randn(settings.batch, 3, FRAMES, settings.size, settings.size, device=settings.device)
        self.labels = torch.randint(CLASSES, (settings.batch,), device=settings.device)
        self.rounds: dict[str, list[float]] = {"latency": [], "forward": [], "train": []}
        self.peak_mib: float | None = None

    def run(self, clips: Tensor) -> Tensor:
        with torch.autocast(self.settings.device.type, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return self.forward(clips)

    def infer(self, clips: Tensor) -> None:
        self.network.eval()
        with torch.no_grad():
            self.run(clips)

    def train(self) -> None:
        self.network.train()
        functional.cross_entropy(self.run(self.clips).float(), self.labels).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()

    def work(self) -> dict[str, Callable[[], None]]:
        """What is timed: a forward pass of one clip, of a batch, and a training step on a batch.

        No bf16 training on the CPU: torch 2.15 leaves uninitialised numbers in the weight gradient of a Conv3d that reaches over
        3 frames where there are 2, as in stage 5, so what would be timed does not train.
        """
        work: dict[str, Callable[[], None]] = {"latency": lambda: self.infer(self.clips[:1]), "forward": lambda: self.infer(self.clips)}
        trains = self.precision == "fp32" or self.settings.device.type == "cuda"
        return {**work, "train": self.train} if trains else work

    def warm_up(self, allocated_before: int) -> None:
        """Runs everything untimed, and notes the memory a training step takes beyond `allocated_before` bytes."""
        for step in self.work().values():
            for _ in range(self.settings.warm_ups):
                step()
        if self.settings.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.train()
            self.peak_mib = (torch.cuda.max_memory_allocated() - allocated_before) / 2**20

    def time_round(self) -> None:
        for kind, step in self.work().items():
            _synchronise(self.settings.device)
            start = time.perf_counter()
            for _ in range(self.settings.steps):
                step()
            _synchronise(self.settings.device)
            self.rounds[kind].append((time.perf_counter() - start) / self.settings.steps)

    def row(self) -> dict[str, Any]:
        """Results as plain values: seconds of one clip, clips per second of a batch; each as median, least and most over the rounds."""
        seconds = {kind: np.array(values) for kind, values in self.rounds.items()}
        return {
            "name": self.name,
            "precision": self.precision,
            "parameters": self.parameters,
            "gmacs": self.gmacs,
            "latency_ms": _spread(1e3 * seconds["latency"]),
            "forward_clips_per_second": _spread(self.settings.batch / seconds["forward"]),
            "train_clips_per_second": _spread(self.settings.batch / seconds["train"]) if seconds["train"].size else None,
            "peak_mib": self.peak_mib,
        }


def measure(settings: Settings) -> dict[str, Any]:
    """`{"settings": ..., "rows": [...], "left_out": reason or None}`, see `Entry.row`. Networks take turns in every round."""
    peers, left_out = _peers()
    entries = []
    for name, make in {**_ours(settings.size), **peers}.items():
        for precision in ("fp32", "bf16"):
            allocated = torch.cuda.memory_allocated() if settings.device.type == "cuda" else 0
            torch.manual_seed(0)
            entry = Entry(name, make(), precision, settings)
            entry.warm_up(allocated)
            entries.append(entry)
    for _ in range(settings.rounds):
        for entry in entries:
            entry.time_round()
    return {"settings": _described(settings), "rows": [entry.row() for entry in entries], "left_out": left_out}


def lines(result: dict[str, Any]) -> Iterator[str]:
    """The measurements as a table of text."""
    settings = result["settings"]
    mode = "compiled" if settings["compiled"] else "eager"
    yield f"{settings['device']}, torch {settings['torch']}, {settings['threads']} CPU threads, {mode}"
    yield (f"batch {settings['batch']} of {FRAMES} x {settings['size']} x {settings['size']}; "
           f"median (slowest-fastest) of {settings['rounds']} rounds")
    if settings["tf32"]:
        yield "fp32 convolutions run as TF32, torch's default on this device"
    yield (f"{'network':<14}{'type':<6}{'M param':>8}{'GMAC':>8}{'ms, 1 clip':>24}{'forward clips/s':>24}"
           f"{'train clips/s':>24}{'peak MiB':>10}")
    for row in result["rows"]:
        peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        latency = row["latency_ms"]
        yield (f"{row['name']:<14}{row['precision']:<6}{row['parameters'] / 1e6:>8.2f}{row['gmacs']:>8.2f}"
               f"{_shown({**latency, 'least': latency['most'], 'most': latency['least']}):>24}"
               f"{_shown(row['forward_clips_per_second']):>24}{_shown(row['train_clips_per_second']):>24}{peak:>10}")
    if result["left_out"]:
        yield f"{', '.join(PEERS)} left out: {result['left_out']}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m posture.bench.models", description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="clips in a batch (32 on a GPU, 4 on the CPU)")
    parser.add_argument("--size", type=int, help="height and width in pixels (112 on a GPU, 56 on the CPU)")
    parser.add_argument("--json", type=Path, help="also write every number here")
    parser.add_argument("--compile", action="store_true", help="time torch.compile'd networks")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: an impression, not a measurement")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU here; use --device cpu")
    if min(given.batch or 1, given.size or 16) < 1:
        parser.error("--batch and --size must be greater than 0")
    gpu = given.device == "cuda"
    settings = Settings(
        device=torch.device(given.device),
        batch=given.batch or (32 if gpu else 4),
        size=given.size or (112 if gpu else 56),
        rounds=2 if given.quick else 7,
        steps=10 if gpu else 1,
        warm_ups=1 if given.quick else 3,
        compiled=given.compile,
    )
    torch.backends.cudnn.benchmark = True  # shapes are fixed: let cuDNN pick its fastest convolutions, for every network alike
    result = measure(settings)
    print("\n".join(lines(result)))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


def _ours(size: int) -> dict[str, Callable[[], nn.Module]]:
    published = C3D(classes=CLASSES, frames=FRAMES, size=size)
    improved = C3D(**{**IMPROVED, "classes": CLASSES, "frames": FRAMES, "size": size})
    return {
        "c3d": lambda: build(published),
        "improved c3d": lambda: build(improved),
    }


def _peers() -> tuple[dict[str, Callable[[], nn.Module]], str | None]:
    """torchvision's networks by name, and the reason why there are none."""
    try:
        from torchvision.models import video
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        return {}, f"torchvision does not import ({error})"
    return {name: lambda name=name: getattr(video, name)(weights=None, num_classes=CLASSES) for name in PEERS}, None


def _described(settings: Settings) -> dict[str, Any]:
    gpu = settings.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name() if gpu else "CPU",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "tf32": gpu and torch.backends.cudnn.allow_tf32,
        "batch": settings.batch,
        "size": settings.size,
        "frames": FRAMES,
        "rounds": settings.rounds,
        "steps": settings.steps,
        "compiled": settings.compiled,
    }


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _spread(values: np.ndarray) -> dict[str, float]:
    return {"median": float(np.median(values)), "least": float(values.min()), "most": float(values.max())}


def _shown(spread: dict[str, float] | None) -> str:
    return "-" if spread is None else f"{spread['median']:.1f} ({spread['least']:.1f}-{spread['most']:.1f})"


if __name__ == "__main__":
    main()
