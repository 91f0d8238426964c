"""`posture demo`: ingest, train and evaluate, on generated footage or on the user's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cyclopts import App

from posture.commands.evaluate import evaluate_run
from posture.commands.ingest import ask_and_ingest
from posture.commands.train import train_run
from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.store.schema import DecodeRecipe
from posture.display import console
from posture.display.text import duration
from posture.errors import InputError
from posture.runs.figures import Views

command = App(name="demo", help_epilogue="Example: posture demo posture-demo --local")


@command.default
def demo(folder: Path = Path("posture-demo"), /, *, footage: str | None = None, local: bool = False) -> None:
    """Go from footage to a report in a few minutes: ingest, train and evaluate, on generated footage or on yours.

    Parameters
    ----------
    folder
        Folder for everything.
    footage
        Your footage; by default footage is generated.
    local
        Train in this process, without Ray.
    """
    run_demo(folder, footage=footage, local=local)


RECIPE = "jobs/demo.py:demo"
STORED = DecodeRecipe(height=64, width=86, frames=24, stride=2)
"""Small frames, since the demo trains on 56 x 56 pixels."""


def run_demo(folder: Path, *, footage: str | None, local: bool) -> dict[str, Any]:
    """Ingest `footage`, or generated footage, train and evaluate, all below `folder`. Return the metrics.

    A second run reuses the footage and the store, and trains again. Raises InputError.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: the demo needs a folder, and this is a file")
    began = time.time()
    if footage is None:
        from posture.data.synthetic.footage import generate

        _title("1/4 generating footage of moving athletes")
        with console.progress("generating videos") as advance:
            footage = str(generate(folder / "footage", progress=advance))
    else:
        _title(f"1/4 taking the footage in {footage}")
    store, runs = str(folder / "store"), str(folder / "runs")
    _title("2/4 decoding it into a store")
    ask_and_ingest(footage, store, IngestOptions(cut=Cut(STORED)), layout=None, split_number=1, yes=False)
    _title("3/4 training an action classifier")
    run = train_run(RECIPE, store, runs=runs, name=None, changes={}, local=local, resume=False)
    _title("4/4 scoring it on athletes that it was not trained on")
    metrics = evaluate_run(run.uri, views=Views())
    console.out.print(
        f"\nthe demo took {duration(time.time() - began)}; "
        f"open {run.path('evaluation', metrics['name'], 'report.html')}"
    )
    console.suggest("the same on your footage: posture ingest FOOTAGE --store STORE")
    return metrics


def _title(text: str) -> None:
    console.out.print(f"\n{text}", style="bold")
