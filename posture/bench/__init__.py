"""`posture bench`: ours beside its peers, measured in turn in one run; ratios with their spread, never a single timing."""

from __future__ import annotations

import json as json_format
import os
from pathlib import Path
from typing import Any

import numpy as np


def run_bench(name: str, *, json: Path | None, device: str, compile: bool, rounds: int, footage: str | None) -> None:
    """Run one benchmark, print its table, write its figures to `json`."""
    if name == "models":
        from posture.bench import models

        return models.main([
            "--device",
            device,
            "--rounds",
            str(rounds),
            *(["--compile"] if compile else []),
            *(["--json", str(json)] if json else []),
        ])
    if name == "detectors":
        from posture.bench import detectors

        return detectors.main(["--device", device, "--rounds", str(rounds), *(["--json", str(json)] if json else [])])
    from posture.bench import feed, ingest, tracking, train
    from posture.display import console

    result = {"ingest": ingest, "feed": feed, "train": train, "tracking": tracking}[name].measure(
        rounds=rounds, footage=footage
    )
    result["cpus"] = os.cpu_count()
    console.out.print(result["what"])
    console.table(
        "measured",
        *(f"round {number + 1}" for number in range(rounds)),
        "median",
        rows=[
            (label, *(f"{value:,.1f}" for value in values), f"{np.median(values):,.1f}")
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
            (label, *(f"{figure:.2f}" for figure in (values["median"], values["least"], values["most"])))
            for label, values in result["ratios"].items()
        ],
    )
    for note in result["notes"]:
        console.out.print(note)
    if json:
        json.write_text(json_format.dumps(result, indent=1))


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Ours over theirs, round by round."""
    values = np.array(ours) / np.array(theirs)
    return {"median": float(np.median(values)), "least": float(values.min()), "most": float(values.max())}


def generated(videos: int = 100, size: tuple[int, int] = (240, 320)) -> str:
    """Footage to measure on where none is given: made once, kept in the user's cache."""
    from posture.data.synthetic.footage import VERSION, generate

    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "posture"
    return str(
        generate(cache / f"bench-v{VERSION}-{videos}-{size[0]}x{size[1]}", videos=videos, size=size, athletes=20)
    )


def facts(**named: Any) -> str:
    """`key value, key value` for the line that says what was measured."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items())
