"""Posture: distributed training and search for sports footage, on Ray.

In Python: `load` a trained model and let it `predict`; `ingest`, `train` and `evaluate` do what the commands do, and
print what they print. Nothing else is imported until one of them is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from posture.data.ingest.clip_ledger import ClipReport
    from posture.data.ingest.image_ledger import ImageReport
    from posture.predict.model import VideoModel
    from posture.runs.folder import RunFolder

__all__ = ["evaluate", "ingest", "load", "train"]
__version__ = "0.1.0"


def load(
    model: str | None = None,
    *,
    detector: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    max_error: float | None = None,
) -> VideoModel:
    """Load a trained model that answers about videos: `posture.load("runs/NAME").predict("clip.mp4")`.

    It starts no Ray, and may be used by several threads.

    Parameters
    ----------
    model
        Folder of a run, or a registry, whose champion is loaded. A detector's run is taken as `detector`.
    detector
        Folder of a detector's run. It finds the athletes, who are tracked; a run that was trained on clips cut around
        athletes needs one.
    checkpoint
        The run's checkpoint that is best on val, or the last one.
    max_error
        Answer "unsure" unless confidence on the run's val split promises that at most this share of answers is wrong.

    Raises
    ------
    InputError
        If there is no such run, registry or checkpoint, or val cannot promise `max_error`.
    """
    from posture.retrain.open_model import open_model

    return open_model(model, detector=detector, which=checkpoint, max_error=max_error)


def ingest(
    footage: str,
    *,
    store: str,
    layout: str | None = None,
    clips: Mapping[str, Any] | None = None,
    images: Mapping[str, Any] | None = None,
    splits: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
) -> ClipReport | ImageReport:
    """Decode footage, or images with boxes, into a store, as `posture ingest` does. Return the report.

    Parameters
    ----------
    footage
        Folder or s3:// prefix of the footage, or its file of labels.
    store
        Folder or s3:// prefix of the store.
    layout
        How labels are given; recognised if None.
    clips, images, splits, limits
        Options of the command by their names with `_` for `-`, such as `clips={"size": "128x171", "frames": 32}`.

    Raises
    ------
    InputError
        If the footage or an option cannot be used, or too many files were refused.
    """
    from posture.commands.ingest import ingest_footage

    return ingest_footage(footage, store, layout, clips=clips, images=images, splits=splits, limits=limits)


def train(
    recipe: str,
    *,
    store: str,
    runs: str = "runs",
    name: str | None = None,
    changes: Mapping[str, Any] | None = None,
    local: bool = False,
    resume: bool = False,
) -> RunFolder:
    """Train a recipe on a store, as `posture train` does. Return the run's folder.

    Parameters
    ----------
    recipe
        FILE.py:function, or the name of one of Posture's recipes, such as `improved`.
    store
        Folder or s3:// prefix of the store.
    runs
        Folder or s3:// prefix for runs.
    name
        Name of the run; unique if None.
    changes
        Values of the recipe's fields, such as `{"epochs": 40, "optim.lr": 0.01}`.
    local
        Train in this process, without Ray.
    resume
        Resume the run `name` from its last checkpoint.

    Raises
    ------
    InputError
        If the recipe, a change or the store cannot be used, or the name is taken.
    """
    from posture.commands.train import train_run

    return train_run(recipe, store, runs=runs, name=name, changes=dict(changes or {}), local=local, resume=resume)


def evaluate(
    run: str,
    *,
    split: Literal["test", "val", "train"] = "test",
    checkpoint: Literal["best", "last"] = "best",
    crops: Literal[1, 3] = 1,
    spans: int = 1,
    source: int = 0,
    workers: int = 0,
    batch: int = 16,
    store: str | None = None,
    untrimmed: str | None = None,
    detector: str | None = None,
) -> dict[str, Any]:
    """Score a run on footage that it was not trained on, as `posture evaluate` does. Return metrics.json.

    With `untrimmed`, judge the timelines that the run finds in long videos: `segments` has F1 and mAP at overlaps in
    time, `events` those of point events, and `tracks` IDF1 and HOTA if tracks are labelled.

    Parameters
    ----------
    run
        Folder of the run.
    split
        `test` gives the result; the others are for exploration.
    checkpoint
        The checkpoint that is best on val, or the last one.
    crops, spans, source
        Views of a classifier: squares of each frame, spans of each clip, windows to decode from the original videos.
    workers
        Number of Ray tasks; 0 scores in this process.
    batch
        Views per forward pass.
    store
        Another store than the run's own.
    untrimmed
        Labelled long videos, in any layout of `posture ingest`. If labels name splits, those of `split` are judged.
        `crops`, `spans`, `source`, `workers` and `store` do not go with it.
    detector
        With `untrimmed`, the run of the detector that finds the athletes.

    Raises
    ------
    InputError
        If there is no such run or checkpoint, the split is empty, or options do not go together.
    """
    from posture.commands.evaluate import evaluate_run
    from posture.runs.figures import Views

    views = Views(crops, spans, source)
    how: dict[str, Any] = {"split": split, "which": checkpoint, "workers": workers, "batch": batch, "store": store}
    return evaluate_run(run, views=views, untrimmed=untrimmed, detector=detector, **how)


_train = train


def __getattr__(name: str) -> object:
    """Return the module that the spaces of sweeps written by earlier versions import as `posture.sweep`."""
    if name != "sweep":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from posture.search import wandb_sweep

    return wandb_sweep
