"""How much hardware footage needs, from measured figures: `python -m posture.bench.sizing ingest.json feed.json`, which `posture bench ingest --json` and
`posture bench feed --json` wrote. Everything is taken to grow in proportion: twice the CPUs decode twice as fast. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from posture.bench.ingest import RECIPE
from posture.console import duration, size
from posture.errors import InputError

FOOTAGE = {"UCF101": 13_320, "Kinetics-400": 306_245, "10 M clips": 10_000_000}
"""Clips, one for each labelled segment."""
DEMANDS = (100.0, 1_000.0, 10_000.0)
"""Clips/s that all GPUs take together, where it is not known what one takes."""


@dataclass(frozen=True)
class Figures:
    """What was measured."""

    decoded: float
    """Clips/s that one CPU takes in from files: probed, decoded, compressed, committed."""
    read: float
    """Clips/s that one reading CPU gives to training from a store that is streamed."""
    stored: float
    """Bytes of a clip in the store."""

    @property
    def raw(self) -> int:
        """Bytes of a clip in memory and between nodes: uint8 frames of RGB."""
        return RECIPE.frames * RECIPE.height * RECIPE.width * 3


def read_figures(paths: list[Path]) -> Figures:
    """Figures from files that `posture bench --json` wrote. Raises InputError: not such a file, or one of the two is missing."""
    found: dict[str, float] = {}
    for path in paths:
        try:
            figures = json.loads(path.read_text())
            measured = {label: float(np.median(values)) for label, values in figures["measured"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}: no figures of posture bench --json ({error})") from None
        if "posture ingest, clips/s" in measured and "clip_bytes" in figures:
            found |= {"decoded": measured["posture ingest, clips/s"] / figures["cpus"], "stored": figures["clip_bytes"]}
        if "posture, streamed" in measured:
            found["read"] = measured["posture, streamed"]
    for name, bench in (("decoded", "ingest"), ("read", "feed")):
        if name not in found:
            raise InputError(f"the figures of posture bench {bench} are missing; write them with: posture bench {bench} --json {bench}.json")
    return Figures(**found)


def footage_table(figures: Figures, *, cpus_per_node: int) -> str:
    """What each set of footage needs once: place, and time to take it in."""
    lines = [f"| footage | clips | in the store | in memory | CPU hours to take in | hours on 10 nodes of {cpus_per_node} CPUs |",
             "|---|---:|---:|---:|---:|---:|"]
    for name, clips in FOOTAGE.items():
        hours = clips / figures.decoded / 3600
        row = [name, f"{clips:,}", size(clips * figures.stored), size(clips * figures.raw), f"{hours:,.1f}", f"{hours / 10 / cpus_per_node:,.2f}"]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def training_table(figures: Figures, demands: dict[str, float], *, cpus_per_node: int) -> str:
    """What training needs that takes so many clips/s in all (`demands`: {label: clips/s}): nodes that read the store beside it, or decode without one."""
    columns = ["training takes", *(f"an epoch of {name}" for name in FOOTAGE), f"nodes of {cpus_per_node} CPUs that read a store",
               "nodes that decode without one", "from storage", "to the GPU nodes"]
    lines = [f"| {' | '.join(columns)} |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for label, rate in demands.items():
        epochs = [duration(clips / rate) for clips in FOOTAGE.values()]
        nodes = [f"{math.ceil(rate / speed / cpus_per_node):,}" for speed in (figures.read, figures.decoded)]
        network = [f"{8 * rate * count / 1e9:,.2f} Gbit/s" for count in (figures.stored, figures.raw)]
        lines.append(f"| {' | '.join([label, *epochs, *nodes, *network])} |")
    return "\n".join(lines)


def tables(figures: Figures, *, train_clips_per_second: float | None, gpus: list[int], cpus_per_node: int) -> str:
    """Both tables. Without the speed of one GPU, rows are rates of training instead of numbers of GPUs."""
    if train_clips_per_second is None:
        demands = {f"{rate:,.0f} clips/s": rate for rate in DEMANDS}
    else:
        demands = {f"{rate:,.0f} clips/s on {count} GPU{'s' * (count > 1)}": rate for count in gpus for rate in [count * train_clips_per_second]}
    return f"{footage_table(figures, cpus_per_node=cpus_per_node)}\n\n{training_table(figures, demands, cpus_per_node=cpus_per_node)}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m posture.bench.sizing", description=__doc__.split("\n")[0])
    parser.add_argument("figures", type=Path, nargs="+", help="what posture bench ingest --json and posture bench feed --json wrote")
    parser.add_argument("--train-clips-per-second", type=float, help="what one of your GPUs trains: clips_per_second in a run's history.json")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64], help="how many of them")
    parser.add_argument("--cpus-per-node", type=int, default=16, help="CPUs of a decode node")
    given = parser.parse_args(arguments)
    if min(given.gpus) < 1 or given.cpus_per_node < 1 or (given.train_clips_per_second or 1.0) <= 0:
        parser.error("--train-clips-per-second, --gpus and --cpus-per-node must be positive")
    try:
        figures = read_figures(given.figures)
    except InputError as error:
        parser.error(str(error))
    print(tables(figures, train_clips_per_second=given.train_clips_per_second, gpus=given.gpus, cpus_per_node=given.cpus_per_node))


if __name__ == "__main__":
    main()
