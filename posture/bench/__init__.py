"""Benchmarks of Posture beside other tools, measured in turn in one run: ratios with their spread.

`models` and `detectors` need torch and numpy alone, and run as scripts too: `python -m posture.bench.models`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posture.errors import InputError


def chosen(configs: dict[str, Any], only: Sequence[str] | None) -> dict[str, Any]:
    """Return the networks that were named, or all of them. Raises InputError if a name is unknown."""
    if unknown := set(only or ()) - configs.keys():
        raise InputError(f"--networks {' '.join(sorted(unknown))}: choose from {', '.join(configs)}")
    return {name: config for name, config in configs.items() if name in (only or configs)}


def publish(result: dict[str, Any], lines: Iterable[str], path: Path | None) -> None:
    """Print the lines, and write the figures as JSON to `path` if one is given."""
    print("\n".join(lines))
    if path:
        path.write_text(json.dumps(result, indent=1))


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


def train_local(
    store: str, folder: str, name: str, changes: Mapping[str, Any], variables: Mapping[str, str] | None = None
) -> None:
    """Run `posture train --local` on the store in a process of its own, with `variables` in its environment."""
    import subprocess
    import sys

    sets = [item for path, value in changes.items() for item in ("--set", f"{path}={value}")]
    command = [sys.executable, "-m", "posture", "train", "jobs/action.py:improved", "--store", store, "--local"]
    where = ["--runs", f"{folder}/runs", "--name", name]
    subprocess.run([*command, *where, *sets], check=True, capture_output=True, env=os.environ | dict(variables or {}))


def facts(**named: Any) -> str:
    """`key value, key value` for the line that says what was measured."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in named.items())
