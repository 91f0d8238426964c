"""`posture bench`: measures Posture beside other tools, and prints ratios with their spread."""

from __future__ import annotations

import importlib
import os
import statistics
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App

from posture.bench import publish
from posture.display import console
from posture.display.ranges import between
from posture.errors import InputError

command = App(name="bench", help_epilogue="Example: posture bench feed --rounds 5 --json feed.json")


@command.default
def bench(
    name: Literal["ingest", "feed", "train", "tracking", "models", "detectors", "predict"],
    /,
    *,
    json: Path | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    compile: bool = False,
    rounds: Annotated[int, between(1)] = 3,
    footage: str | None = None,
) -> None:
    """Measure Posture beside other tools, in turn in one run, and print ratios with their spread.

    Parameters
    ----------
    name
        ingest, feed, train (Ray Train and --local), tracking (W&B out of reach and off), models (classifiers),
        detectors, or predict (from a video to an answer).
    json
        Also write the figures to this file.
    device
        Device of models and detectors.
    compile
        Also measure compiled models (models).
    rounds
        Number of measurements of each.
    footage
        Footage to measure on; by default generated footage.
    """
    if compile and name != "models":
        raise InputError(f"--compile: posture bench {name} has nothing to compile; it is for posture bench models")
    if device != "cpu" and name not in ("models", "detectors"):
        raise InputError(
            f"--device {device}: posture bench {name} measures where it runs; "
            "it is for posture bench models and detectors"
        )
    if footage is not None and name in ("models", "detectors"):
        raise InputError(
            f"--footage: posture bench {name} makes its own inputs; "
            "it is for posture bench ingest, feed, train, tracking and predict"
        )
    if name == "models":
        from posture.bench import models  # loads torch

        models.run(device=device, rounds=rounds, compile=compile, json=json)
    elif name == "detectors":
        from posture.bench import detectors

        detectors.run(device=device, rounds=rounds, json=json)
    else:
        result = importlib.import_module(f"posture.bench.{name}").measure(rounds=rounds, footage=footage)
        publish(result | {"cpus": os.cpu_count()}, [result["what"]], json)
        print_ratios(result, rounds)


def print_ratios(result: dict[str, Any], rounds: int) -> None:
    """Print the measurements of every round, and their ratios."""
    console.table(
        "measured",
        *(f"round {number + 1}" for number in range(rounds)),
        "median",
        rows=[
            (label, *(f"{value:,.1f}" for value in values), f"{statistics.median(values):,.1f}")
            for label, values in result["measured"].items()
        ],
    )
    console.out.print()
    console.table(
        "ratio",
        "median",
        "least",
        "most",
        rows=[
            (label, *(f"{values[figure]:.2f}" for figure in ("median", "least", "most")))
            for label, values in result["ratios"].items()
        ],
    )
    for note in result["notes"]:
        console.out.print(note)
