"""A small checkpoint and a look at the last one that is stored."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from posture.runs.folder import RunFolder


def saver(epoch: int, *, size: int = 1000) -> Callable[[Path], None]:
    """Return a function that writes a checkpoint whose files tell their epoch."""

    def save(directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(bytes([epoch]) * size)
        (directory / "state.json").write_text(
            json.dumps({"history": [{"epoch": number + 1} for number in range(epoch)]})
        )

    return save


def stored(folder: RunFolder) -> tuple[int, int]:
    """Return the epochs of the last checkpoint and of the history."""
    with folder.checkpoint("last") as place:
        return (place / "model.safetensors").read_bytes()[0], len(folder.read_json("history.json"))
