"""`posture runs`: the runs of a folder with their state and results, as a table and as a page."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cyclopts import App

from posture.data.store.files import absolute
from posture.display import console, html
from posture.display.text import counted, stamp
from posture.errors import InputError
from posture.runs.evaluate import unfinished
from posture.runs.folder import RunFolder, run_names
from posture.runs.kinds import KINDS
from posture.runs.trained import aim

Order = Literal["newest", "name", "state", "recipe", "val", "test"]

command = App(name="runs", help_epilogue="Example: posture runs runs --sort test --page runs.html")


@command.default
def runs(folder: str = "runs", /, *, sort: Order = "newest", page: Path | None = None) -> None:
    """List runs: state, recipe, footage, the best result on val, and the test result with its interval.

    Parameters
    ----------
    folder
        Folder or s3:// prefix of runs.
    sort
        Newest first, highest on val or test first, or in the order of name, state or recipe.
    page
        Also write a sortable HTML page to this file.
    """
    list_runs(folder, order=sort, page=page)
    console.suggest(
        "posture evaluate RUN, or posture train RECIPE --store STORE --name RUN --resume for one that is not finished"
    )


HEADLINE = {"action": "accuracy", "detection": "map50_95"}
"""The figure of a test result that comes first, by task."""
WORDS = {"accuracy": "accuracy", "map50_95": "mAP@0.5:0.95", "map50": "mAP@0.5"}


@dataclass(frozen=True)
class RunRow:
    """One run; what is not known is None, or empty."""

    name: str
    state: str
    created: float = 0.0
    recipe: str = ""
    footage: str = ""
    val: float | None = None
    val_text: str = ""
    test: float | None = None
    test_text: str = ""


def list_runs(runs: str, *, order: Order, page: Path | None) -> list[RunRow]:
    """Print the runs of a folder or s3:// prefix, sorted; with `page` also write them there as HTML. Raises InputError
    if there is no run.
    """
    names = run_names(runs)
    if not names:
        raise InputError(f"{absolute(runs)}: no runs here; posture train RECIPE --store STORE --runs {runs} makes one")
    rows = ordered([read_row(RunFolder(runs, name)) for name in names], order)
    console.table(
        "run",
        "state",
        "recipe",
        "footage",
        "best on val",
        "test",
        "made",
        rows=[
            (row.name, row.state, row.recipe, row.footage, row.val_text, row.test_text, stamp(row.created))
            for row in rows
        ],
    )
    if page is not None:
        html.write(
            page,
            html.render(
                "runs.html",
                runs=absolute(runs),
                rows=rows,
                count=counted(len(rows), "run"),
                moment_of=stamp,
                orders={
                    choice: {row.name: place for place, row in enumerate(ordered(rows, choice))} for choice in SORTS
                },
            ),
        )
        console.out.print(str(page.resolve()))
    return rows


def read_row(folder: RunFolder) -> RunRow:
    """Return the row of a run. The row of a run that cannot be read says why."""
    try:
        record, history = folder.record(), folder.history()
        run = record.run
        values = [row[f"val_{run.metric}"] for row in history if f"val_{run.metric}" in row]
        best = max(values, default=None)
        trained_on = record.footage.get("train", {})
        footage = (
            f"{record.store.rstrip('/').rpartition('/')[2]}: "
            f"{counted(next(iter(trained_on.values()), 0), KINDS[run.task].unit[:-1])}, " + aim(run, record.classes)
        )
        result, text = _test(folder, run.task)
        return RunRow(
            folder.name,
            _state(folder, run, history),
            record.created,
            record.recipe,
            footage,
            best,
            "" if best is None else f"{WORDS.get(run.metric, run.metric)} {best:.3f}, epoch {values.index(best) + 1}",
            result,
            text,
        )
    except InputError as error:
        return RunRow(folder.name, f"cannot be read: {error}")


def ordered(rows: list[RunRow], order: Order) -> list[RunRow]:
    """The runs sorted; what is best or newest comes first, what is not known last."""
    return sorted(sorted(rows, key=lambda row: -row.created), key=SORTS[order])


SORTS: dict[Order, Any] = {
    "newest": lambda row: -row.created,
    "name": lambda row: row.name,
    "state": lambda row: row.state,
    "recipe": lambda row: (not row.recipe, row.recipe),
    "val": lambda row: (row.val is None, -(row.val or 0.0)),
    "test": lambda row: (row.test is None, -(row.test or 0.0)),
}


def _state(folder: RunFolder, run: Any, history: list[Any]) -> str:
    done = f"{len(history)} of {counted(run.chosen_epochs, 'epoch')}"
    if not unfinished(run, folder):
        return f"finished, {done}" if len(history) >= run.chosen_epochs else f"stopped early, {done}"
    if _lives(folder.read_json("holder.json")):
        return f"training, {done}"
    return f"interrupted, {done}" if folder.checkpoints() else "not begun"


def _lives(holder: dict[str, Any] | None) -> bool:
    """Return True if the process that last wrote to the run is alive, on this machine."""
    return bool(holder) and holder["host"] == socket.gethostname() and os.path.isdir(f"/proc/{holder['process']}")


def _test(folder: RunFolder, task: str) -> tuple[float | None, str]:
    """The first figure of the test result, and that with its interval in words; a result of an earlier checkpoint says
    so.
    """
    scored = folder.evaluation("test")
    if scored is None or not isinstance(value := scored.metrics.get(HEADLINE[task]), int | float):
        return None, ""
    interval = scored.metrics.get("interval") or {}
    sure = f" ({interval['low']:.3f} to {interval['high']:.3f})" if interval.get("low") is not None else ""
    stale = scored.metrics.get("tag") not in (None, folder.checkpoints().get("best"))
    return float(value), f"{WORDS[HEADLINE[task]]} {value:.3f}{sure}{', of an earlier checkpoint' if stale else ''}"
