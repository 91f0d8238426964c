"""Compute the hardware that footage needs from measured figures, and print it as Markdown.

`python -m cluster.sizing ingest.json`, with a file that `posture bench ingest --json` wrote. The result assumes that
everything grows in proportion: twice the CPUs decode twice as fast.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from posture.bench.ingest import RECIPE
from posture.display.text import duration, size
from posture.errors import InputError

FOOTAGE = {"UCF101": 13_320, "Kinetics-400": 306_245, "10 M clips": 10_000_000}
"""Number of clips: one for each labelled segment."""
DEMANDS = (100.0, 1_000.0, 10_000.0)
"""Clips/s that all GPUs train on together, if the speed of one GPU is not given."""


@dataclass(frozen=True)
class Figures:
    """Measured speeds and sizes."""

    taken_in: float
    """Clips/s that one CPU ingests: probes, decodes, compresses and writes."""
    read: float
    """Clips/s that one CPU reads from the store."""
    stored: float
    """Bytes of a clip in the store."""

    @property
    def raw(self) -> int:
        """Return the bytes of a clip in memory and between nodes: uint8 frames of RGB."""
        return RECIPE.frames * RECIPE.height * RECIPE.width * 3

    @classmethod
    def of(cls, path: Path, *, busy: float = 1.0) -> Figures:
        """Read a file that `posture bench ingest --json` wrote; `busy` is the share of its time that a CPU works.

        Raises InputError if it is no such file.
        """
        try:
            cost = json.loads(path.read_text())["cost"]
            rates = cost["per_cpu_second"]
            return cls(taken_in=busy * rates["taken_in"], read=busy * rates["read"], stored=cost["clip_bytes"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: no figures; write them with: posture bench ingest --json {path.name} ({error})"
            ) from None


def footage_table(figures: Figures, *, cpus_per_node: int) -> str:
    """Return what each set of footage needs once: space, and time to ingest it."""
    lines = [
        f"| footage | clips | in the store | in memory | CPU hours to take in | on 10 nodes of {cpus_per_node} CPUs |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, clips in FOOTAGE.items():
        hours = clips / figures.taken_in / 3600
        row = [
            name,
            f"{clips:,}",
            size(clips * figures.stored),
            size(clips * figures.raw),
            f"{hours:,.1f}",
            duration(hours * 360 / cpus_per_node),
        ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def training_table(figures: Figures, demands: dict[str, float], *, cpus_per_node: int) -> str:
    """Return the nodes and network that training at a total speed needs (`demands`: {label: clips/s}), if nodes read
    a store and if they decode without one.
    """
    columns = [
        "training takes",
        *(f"an epoch of {name}" for name in FOOTAGE),
        f"nodes of {cpus_per_node} CPUs that read a store",
        "nodes that decode without one",
        "from storage",
        "to the GPU nodes",
    ]
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for label, rate in demands.items():
        epochs = [duration(clips / rate) for clips in FOOTAGE.values()]
        nodes = [f"{math.ceil(rate / speed / cpus_per_node):,}" for speed in (figures.read, figures.taken_in)]
        network = [f"{8 * rate * count / 1e9:,.2f} Gbit/s" for count in (figures.stored, figures.raw)]
        lines.append(f"| {' | '.join([label, *epochs, *nodes, *network])} |")
    return "\n".join(lines)


def tables(figures: Figures, *, train_clips_per_second: float | None, gpus: list[int], cpus_per_node: int) -> str:
    """Return both tables. Without the speed of one GPU, rows are training speeds instead of numbers of GPUs."""
    if train_clips_per_second is None:
        demands = {f"{rate:,.0f} clips/s": rate for rate in DEMANDS}
    else:
        demands = {
            f"{rate:,.0f} clips/s on {count} GPU{'s' * (count > 1)}": rate
            for count in gpus
            for rate in [count * train_clips_per_second]
        }
    footage = footage_table(figures, cpus_per_node=cpus_per_node)
    return f"{footage}\n\n{training_table(figures, demands, cpus_per_node=cpus_per_node)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m cluster.sizing", description=__doc__.split("\n")[0])
    parser.add_argument(
        "figures", type=Path, help="a file that posture bench ingest --json wrote, best on footage like yours"
    )
    parser.add_argument(
        "--train-clips-per-second",
        type=float,
        help="speed of one of your GPUs: clips_per_second in a run's history.json",
    )
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64], help="numbers of GPUs")
    parser.add_argument("--cpus-per-node", type=int, default=16, help="CPUs of a decode node")
    parser.add_argument(
        "--busy",
        type=float,
        default=0.7,
        help="share of its time that a CPU works; Ray and waiting for storage take the rest",
    )
    given = parser.parse_args(arguments)
    if (
        min(given.gpus) < 1
        or given.cpus_per_node < 1
        or (given.train_clips_per_second or 1.0) <= 0
        or not 0 < given.busy <= 1
    ):
        parser.error(
            "--train-clips-per-second, --gpus and --cpus-per-node must be positive, --busy above 0 and at most 1"
        )
    try:
        figures = Figures.of(given.figures, busy=given.busy)
    except InputError as error:
        parser.error(str(error))
    print(
        tables(
            figures,
            train_clips_per_second=given.train_clips_per_second,
            gpus=given.gpus,
            cpus_per_node=given.cpus_per_node,
        )
    )


if __name__ == "__main__":
    main()
