"""Speed of the classifiers beside torchvision's video networks: `posture bench models`, or `python -m
posture.bench.models`.

All networks are timed in turn, in several rounds, so that a slow moment of the machine affects all of them. The table
has the median and, in brackets, the slowest and fastest round; ratios are taken round by round. Inputs are random clips
already on the device, without decoding or augmentation. Rows of torchvision's networks need torchvision.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from posture.bench import chosen, publish, ratio
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, IMPROVED, LITTLE_FOOTAGE, TorchvisionVideo, TwoStream
from posture.models.summary import gmacs, parameters, random_inputs

CLASSES, FRAMES = 101, 16
PEERS = ("r3d_18", "mc3_18", "r2plus1d_18")
COMPARED = {"improved": ("c3d", "r3d_18")}
"""Networks whose speed is printed as a ratio, and the networks it is divided by."""


@dataclass(frozen=True)
class ModelSettings:
    """Settings that are equal for all networks."""

    device: str
    batch: int
    """Clips of a batch."""
    rounds: int
    steps: int = 1
    """Timed repetitions in one round."""
    warm_ups: int = 3
    modes: tuple[str, ...] = ("eager",)
    """"eager", "compiled" or both."""
    threads: int = 1
    """CPU threads."""


class Network:
    """A network on the device with its optimiser and a batch; `ModelBench` times it."""

    def __init__(self, name: str, config: Any, settings: ModelSettings) -> None:
        self.name, self.settings = name, settings
        self.clip = f"{config.frames} x {config.size} x {config.size}"
        torch.manual_seed(0)
        self.held = torch.cuda.memory_allocated() if settings.device == "cuda" else 0
        self.model = build(config).to(settings.device)
        self.parameters, self.gmacs = (
            parameters(self.model),
            gmacs(self.model, config.frames, config.size, inputs=config.inputs),
        )
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=1e-4, momentum=0.9)
        self.batch = random_inputs(config, clips=settings.batch, device=settings.device)
        self.labels = torch.randint(config.classes, (settings.batch,), device=settings.device)

    def train(self, forward: Callable[..., Tensor]) -> None:
        """Do one optimiser step; `forward` computes the logits, (N, K) or (N, M, K) of M streams."""
        self.model.train()
        logits = forward(*self.batch).float()
        streams = logits.shape[1] if logits.ndim == 3 else 1
        functional.cross_entropy(logits.flatten(0, -2), self.labels.repeat_interleave(streams)).backward()
        self.optimiser.step()
        self.optimiser.zero_grad()


class ModelBench:
    """A network in one mode and one precision: a row of the table."""

    def __init__(self, network: Network, mode: str, precision: str) -> None:
        self.network, self.mode, self.precision, self.settings = network, mode, precision, network.settings
        # Whole graphs of fixed shapes only: otherwise a network that torch cannot compile would be timed uncompiled.
        self.callable = (
            torch.compile(network.model, fullgraph=True, dynamic=False) if mode == "compiled" else network.model
        )
        self.rounds: dict[str, list[float]] = {"latency": [], "forward": [], "train": []}
        self.peak_mib: float | None = None

    def forward(self, *inputs: Tensor) -> Tensor:
        with torch.autocast(self.settings.device, dtype=torch.bfloat16, enabled=self.precision == "bf16"):
            return self.callable(*inputs)

    @torch.no_grad()
    def infer(self, clips: int) -> None:
        self.network.model.eval()
        self.forward(*(values[:clips] for values in self.network.batch))

    def work(self) -> dict[str, Callable[[], None]]:
        """Return what is timed: a forward pass of one clip, of a batch, and a training step on a batch.

        There is no bf16 training on the CPU: torch 2.15 leaves uninitialised values in the weight gradient of a Conv3d
        whose kernel is longer than the input, as in stage 5.
        """
        work: dict[str, Callable[[], None]] = {
            "latency": lambda: self.infer(1),
            "forward": lambda: self.infer(self.settings.batch),
        }
        trains = self.precision == "fp32" or self.settings.device == "cuda"
        return {**work, "train": lambda: self.network.train(self.forward)} if trains else work

    def warm_up(self) -> None:
        """Runs everything untimed; notes the memory that a training step takes on a GPU, beyond what was held before
        the network came.
        """
        for step in self.work().values():
            for _ in range(self.settings.warm_ups):
                step()
        if self.settings.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.network.train(self.forward)
            self.peak_mib = (torch.cuda.max_memory_allocated() - self.network.held) / 2**20

    def time_round(self) -> None:
        for kind, step in self.work().items():
            _synchronise(self.settings.device)
            start = time.perf_counter()
            for _ in range(self.settings.steps):
                step()
            _synchronise(self.settings.device)
            self.rounds[kind].append((time.perf_counter() - start) / self.settings.steps)

    def row(self) -> dict[str, Any]:
        """Return milliseconds of one clip and clips per second of a batch, each with a value per round."""
        speeds = {
            f"{kind}_clips_per_second": [self.settings.batch / seconds for seconds in self.rounds[kind]]
            for kind in ("forward", "train")
        }
        latency = [1e3 * seconds for seconds in self.rounds["latency"]]
        return {
            "name": self.network.name,
            "mode": self.mode,
            "precision": self.precision,
            "clip": self.network.clip,
            "parameters": self.network.parameters,
            "gmacs": self.network.gmacs,
            "latency_ms": latency,
            **speeds,
            "peak_mib": self.peak_mib,
        }


def measure(settings: ModelSettings, configs: dict[str, Any]) -> dict[str, Any]:
    """Return `{"settings", "rows", "ratios", "left_out"}`, see `ModelBench.row` and `ratios`."""
    entries, left_out = [], []
    torch.set_num_threads(settings.threads)
    # Each network is compiled for three kinds of work in two precisions, and those of one class share torch's limit of
    # compilations.
    from torch._dynamo.exc import TorchDynamoException

    with torch._dynamo.config.patch(recompile_limit=100):
        for name, config in configs.items():
            network = Network(name, config, settings)
            for mode in settings.modes:
                found = [ModelBench(network, mode, precision) for precision in ("fp32", "bf16")]
                try:
                    for entry in found:
                        entry.warm_up()
                except TorchDynamoException as error:
                    left_out.append(
                        f"{name} {mode}: torch cannot compile it here ({str(error).strip().splitlines()[0]})"
                    )
                    continue
                entries += found
                if settings.device == "cpu" and mode == "eager":
                    found[0].peak_mib = peak_on_cpu(name, config, settings)
        for _ in range(settings.rounds):
            for entry in entries:
                entry.time_round()
    rows = [entry.row() for entry in entries]
    return {"settings": _described(settings), "rows": rows, "ratios": ratios(rows), "left_out": left_out}


def peak_on_cpu(name: str, config: Any, settings: ModelSettings) -> float | None:
    """Return the maximum growth, in MiB, of a process that builds the network and trains it for two steps, in fp32.

    The process is new, because one that has computed before reuses memory. None on systems without /proc.
    """
    with ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn")) as process:
        return process.submit(_grown, name, config, settings).result()


def _grown(name: str, config: Any, settings: ModelSettings) -> float | None:
    torch.set_num_threads(settings.threads)
    small = Network("small", C3D(classes=2, frames=16, size=16, width=0.125), settings)
    small.train(small.model)  # torch's own code comes into memory with its first use
    before = _memory_mib("VmRSS")
    network = Network(name, config, settings)
    for _ in range(2):  # momentum comes with the first
        network.train(network.model)
    peak = _memory_mib("VmHWM")
    return None if before is None or peak is None else peak - before


def _memory_mib(field: str) -> float | None:
    """Return this process's resident memory now ("VmRSS") or its maximum so far ("VmHWM"), from Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), None)


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ratios of speeds by round: `{"of", "over", "mode", "precision", "work", "median", "least", "most"}`."""
    by_key = {(row["name"], row["mode"], row["precision"]): row for row in rows}
    return [
        {
            "of": ours,
            "over": theirs,
            "mode": mode,
            "precision": precision,
            "work": work,
            **ratio(row[kind], other[kind]),
        }
        for (ours, mode, precision), row in by_key.items()
        for theirs in COMPARED.get(ours, ())
        if (other := by_key.get((theirs, mode, precision)))
        for work, kind in (("forward", "forward_clips_per_second"), ("train", "train_clips_per_second"))
        if row[kind]
    ]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the measurements as a table of text."""
    settings = result["settings"]
    yield f"{settings['hardware']}, torch {settings['torch']}, {settings['threads']} CPU threads"
    clips = " or ".join(sorted({row["clip"] for row in result["rows"]}))
    yield (
        f"batches of {settings['batch']} clips of {clips}; median (slowest-fastest) of {settings['rounds']} "
        f"round{'s' * (settings['rounds'] > 1)}"
    )
    if settings["tf32"]:
        yield "fp32 convolutions run as TF32, torch's default on this device"
    yield (
        f"{'network':<14}{'mode':<10}{'type':<6}{'M param':>8}{'GMAC':>8}{'ms, 1 clip':>24}{'forward clips/s':>24}"
        f"{'train clips/s':>24}{'peak MiB':>10}"
    )
    for row in result["rows"]:
        peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        size = f"{row['parameters'] / 1e6:>8.2f}{row['gmacs']:>8.2f}"
        yield (
            f"{row['name']:<14}{row['mode']:<10}{row['precision']:<6}{size}"
            f"{_shown(row['latency_ms'], slowest=max):>24}{_shown(row['forward_clips_per_second']):>24}"
            f"{_shown(row['train_clips_per_second']):>24}{peak:>10}"
        )
    for found in result["ratios"]:
        yield (
            f"{found['of']} / {found['over']}, {found['work']}, {found['mode']} {found['precision']}: "
            f"{found['median']:.2f} ({found['least']:.2f}-{found['most']:.2f})"
        )
    for reason in result["left_out"]:
        yield f"left out: {reason}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m posture.bench.models", description=str(__doc__).split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, help="clips in a batch (32 on a GPU, 4 on the CPU)")
    parser.add_argument("--size", type=int, help="height and width in pixels (112 on a GPU, 56 on the CPU)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each network is timed")
    parser.add_argument("--compile", action="store_true", help="also time compiled networks")
    parser.add_argument("--networks", nargs="+", metavar="NAME", dest="only", help="only these")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    try:
        run(**vars(parser.parse_args(arguments)))
    except InputError as error:
        parser.error(str(error))


def run(
    *,
    device: str,
    rounds: int,
    batch: int | None = None,
    size: int | None = None,
    compile: bool = False,
    only: Sequence[str] | None = None,
    json: Path | None = None,
) -> None:
    """Measure, print the table, and write the figures to `json`. Raises InputError."""
    gpu = device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu")
    batch, size = (32 if gpu else 4) if batch is None else batch, (112 if gpu else 56) if size is None else size
    if batch < 1 or size < 16 or rounds < 1:
        raise InputError("--batch and --rounds must be at least 1, --size at least 16")
    configs, left_out = networks(size)
    settings = ModelSettings(
        device=device,
        batch=batch,
        rounds=rounds,
        steps=10 if gpu else 1,
        warm_ups=3 if gpu else 1,
        modes=("eager", "compiled") if compile else ("eager",),
        threads=torch.get_num_threads(),
    )
    # shapes are fixed: let cuDNN pick its fastest convolutions, for every network alike
    torch.backends.cudnn.benchmark = True
    result = measure(settings, chosen(configs, only))
    result["left_out"] += left_out
    publish(result, lines(result), json)


def networks(size: int) -> tuple[dict[str, Any], list[str]]:
    """Return every action network by name, for frames of `size` x `size`, and what is left out, with the reason."""
    same: dict[str, Any] = {"classes": CLASSES, "frames": FRAMES, "size": size}
    improved = C3D(**(IMPROVED | LITTLE_FOOTAGE | same))  # as the recipe jobs/action.py:improved
    ours = {"c3d": C3D(**same), "improved": improved, "two_stream": TwoStream(**same)}
    try:
        importlib.import_module("torchvision.models.video")
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision built for another torch
        return ours, [f"{', '.join(PEERS)}: torchvision does not import ({error})"]
    return ours | {kind: TorchvisionVideo(kind=kind, **same) for kind in PEERS}, []


def _described(settings: ModelSettings) -> dict[str, Any]:
    gpu = settings.device == "cuda"
    return asdict(settings) | {
        "hardware": torch.cuda.get_device_name() if gpu else "CPU",
        "torch": torch.__version__,
        "tf32": gpu and torch.backends.cudnn.allow_tf32,
    }


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _shown(values: list[float], *, slowest: Callable[..., float] = min) -> str:
    if not values:
        return "-"
    fastest = max if slowest is min else min
    return f"{np.median(values):.1f} ({slowest(values):.1f}-{fastest(values):.1f})"


if __name__ == "__main__":
    main()
