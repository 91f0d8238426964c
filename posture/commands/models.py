"""`posture models`: the networks with their parameters and operations."""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Annotated, Any

from cyclopts import App

from posture.config import BaseRun
from posture.display import console
from posture.display.ranges import between
from posture.runs.recipes import functions, load_module

command = App(name="models", help_epilogue="Example: posture models --classes 10")


@command.default
def models(*, classes: Annotated[int, between(1)] = 101) -> None:
    """List every classifier and detector with its parameters and operations.

    Parameters
    ----------
    classes
        Number of classes of the last layer.
    """
    gc.disable()  # hardly any garbage is made, and looking for it would take a sixth of the time
    try:
        with console.waiting("building every model"):
            print_models(classes)
    finally:
        gc.enable()
    console.suggest("posture train RECIPE --store STORE")


def print_models(classes: int) -> None:
    """Print the recipes of jobs/action.py, then those of jobs/detector.py, each with `classes` classes."""
    from posture.models.meta import build_on_meta
    from posture.models.summary import image_gflops, parameters
    from posture.models.summary import table as summaries

    classifiers = _runs("jobs/action.py")
    names: dict[Any, str] = {}
    for run in classifiers:  # a network that has two recipes appears once
        if run.name not in names.values():
            names.setdefault(_layers(run.model, classes), run.name)
    named = {name: model for model, name in names.items()}
    rows = summaries(named)
    console.table(
        "classifier",
        "parameters",
        "GMAC 16x112x112",
        "GMAC 16x56x56",
        rows=[tuple(_figure(value) for value in row.values()) for row in rows],
    )
    if fixed := [f"{row['name']} ({named[row['name']].size} pixels)" for row in rows if row["gmacs_112"] is None]:
        console.out.print(f"-: takes frames of one size only: {', '.join(fixed)}")
    flow = ", ".join(run.name for run in classifiers if "flow" in run.model.inputs)
    console.out.print(f"without computing the optical flow that {flow} read\n")
    detectors: dict[Any, str] = {}
    for run in _runs("jobs/detector.py"):
        detectors.setdefault(run.model, run.name)  # recipes that differ in their loss only appear once
    rows = []
    for model, name in detectors.items():
        network, size = build_on_meta(replace(model, classes=classes)), model.size
        rows.append((name, f"{parameters(network):,}", f"{size} x {size}", f"{image_gflops(network, size):,.2f}"))
    console.table("detector", "parameters", "image", "GFLOPs (2 x GMAC)", rows=rows)


def _runs(module: str) -> list[Any]:
    made = [recipe() for recipe in functions(load_module(module)).values()]
    return [run for item in made for run in (item if isinstance(item, list) else [item]) if isinstance(run, BaseRun)]


def _layers(model: Any, classes: int) -> Any:
    """Return the configuration with `classes` classes, and without what changes neither parameters nor operations."""
    without = {field: 0.0 for field in ("dropout", "stochastic_depth") if hasattr(model, field)}
    return replace(model, classes=classes, **without)


def _figure(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
