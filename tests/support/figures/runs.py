"""A run's folder for the table of runs."""

from __future__ import annotations

import socket

from posture.config import override
from posture.runs.folder import RunFolder
from posture.runs.recipes import load_recipe

CLIPS = {"train": {"segments": 1, "clips": 1}}


def make(
    place,
    name,
    *,
    epochs,
    created,
    recipe="jobs/action.py:improved",
    values=(),
    test=None,
    patience=0,
    holder=None,
    checkpoints=True,
):
    """Write a run's folder as training and evaluation leave it, without weights."""
    run = override(load_recipe(recipe), {"name": name, "epochs": epochs, "patience": patience})
    folder = RunFolder(str(place), name)
    footage = CLIPS if run.task == "action" else {"train": {"pictures": 40, "boxes": 50}}
    folder.write_json(
        "run.json",
        {
            "run": run.model_dump(mode="json"),
            "recipe": recipe,
            "store": "/footage/pool",
            "versions": {},
            "classes": ["jump", "run"],
            "footage": footage,
            "created": created,
        },
    )
    if values:
        folder.write_json(
            "history.json",
            [{"epoch": epoch, f"val_{run.metric}": value} for epoch, value in enumerate(values, start=1)],
        )
        if checkpoints:
            folder.write_json("checkpoints.json", {"best": "epoch-0002-aa", "last": "epoch-0002-aa"})
    if test is not None:
        folder.write_json(
            "evaluation/test/metrics.json",
            {"name": "test", "split": "test", "protocol": "x", "checkpoint": "best"} | test,
        )
    if holder is not None:
        folder.write_json("holder.json", {"mark": "m", "host": socket.gethostname(), "process": holder, "since": 1.0})
    return folder
