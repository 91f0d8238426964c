"""Accuracy against the number of labelled segments of each class: what labelling more would bring.

The study's subject, and a linear classifier, are trained on nested subsets of the training split
(`data.labels_per_class`), each subset like a study of its own. Each seed draws its own subsets. `val` and `test` stay
whole.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from posture.compare.action import SeedResult
from posture.compare.page import KNOWN
from posture.compare.results import Comparison
from posture.compare.study import Execute, StudyRunner
from posture.config import ActionRun, Study
from posture.data.feed.few_labels import segments_of_classes
from posture.display import html
from posture.display.charts import LOOKS, Chart, ChartLine, Dot, ticks
from posture.display.text import counted, listed, percent, signed
from posture.errors import InputError
from posture.models.configs import Linear
from posture.runs import statistics
from posture.runs.reports.common import footage_table, list_facts

ALL = "all"
FLOOR = "linear"


def parse_sizes(text: str) -> tuple[int | None, ...]:
    """Return `5,10,20,all` as numbers in their order, None for all. Raises InputError."""
    sizes: set[int | None] = set()
    for part in (part.strip() for part in text.split(",")):
        if part != ALL and not (part.isdecimal() and 0 < int(part) <= 1_000_000):
            raise InputError(
                f"--label-curve {text}: write numbers of labelled segments of each class, and all, for example "
                "5,10,20,all"
            )
        sizes.add(None if part == ALL else int(part))
    if len(sizes) < 2:
        raise InputError(f"--label-curve {text}: a curve needs at least two numbers, for example 5,10,20,all")
    return tuple(sorted(sizes, key=lambda size: (size is None, size)))


def curve_study(study: Study) -> Study:
    """Return the study's subject and a linear classifier, with epochs that fit each subset. Raises InputError for
    detectors.
    """
    if not isinstance(study.subject, ActionRun):
        raise InputError(f"--label-curve: study {study.name!r} is of detectors; it takes action classifiers")
    found = [run for run in study.runs if run.model.solved and run is not study.subject]
    floor = found or ([] if study.subject.model.solved else [ActionRun(name=FLOOR, model=Linear())])
    titles = {FLOOR: "Linear, mean frame and motion"} | study.titles
    parts = {"baselines": (), "ablations": (), "references": tuple(floor[:1]), "titles": titles, "epochs": "auto"}
    return study.model_copy(update=parts)


def run_label_curve(
    study: Study,
    store: str,
    sizes: Sequence[int | None],
    *,
    runs: str,
    seeds: int,
    changes: dict[str, Any],
    execute: Execute,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    """Train and score `curve_study(study)` on each of `sizes`, from `parse_sizes`; return the curve as plain values.

    They are `name`, `subject`, `models` ({name, title, points}), `gains` (differences of the subject between one size
    and the next), `sentences`, `classes` ({class: segments}) and `facts`. A point has `labels`, `segments` (mean over
    seeds), `accuracy` (mean over seeds), its 95 % `low` and `high` over test groups, and the seeds' `values`. Sizes
    that no class has are left out, and `tell` gets a sentence on each. Raises InputError.
    """
    study, options = curve_study(study), {"runs": runs, "seeds": seeds, "execute": execute}
    whole = StudyRunner(study, store, changes=changes, **options)
    counts = segments_of_classes(whole._index(whole.subject.run, "train"))
    kept = [size for size in sizes if size is None or size < max(counts.values())]
    for size in sizes:
        if size not in kept:
            tell(f"{size} labels a class: no class has more than {max(counts.values())} segments, so it is left out")
    if len(kept) < len(sizes) and None not in kept:
        kept.append(None)
        tell("all labels are added instead")
    found: list[tuple[int | None, StudyRunner, Comparison]] = []
    for size in kept:
        runner = StudyRunner(study, store, changes=changes | {"data.labels_per_class": size}, **options)
        tell(f"{_labels(size)}: {runner.schedule or counted(runner.subject.run.chosen_epochs, 'epoch')}")
        found.append((size, runner, runner.run()))
    return _curve(study, found, counts)


def _curve(
    study: Study, found: list[tuple[int | None, StudyRunner, Comparison]], counts: dict[str, int]
) -> dict[str, Any]:
    last = found[-1][2]
    drawn = {size: {entry.name: _resampled(entry.results, comparison) for entry in comparison.entries if entry.results}
             for size, _, comparison in found}  # fmt: skip
    groups = len(set(last.groups[segment] for segment in last.entries[0].results[0].segments))
    models = []
    for place, entry in enumerate(last.entries):
        points = []
        for size, runner, comparison in found:
            if (values := drawn[size].get(entry.name)) is None:
                continue
            results: list[SeedResult] = comparison.entries[place].results
            low, high = statistics.interval(values, groups=groups) or (None, None)
            segments = [int(runner.segments_for(result.seed)) for result in results]
            points.append({
                "labels": size or ALL,
                "segments": float(np.mean(segments)),
                "accuracy": float(values[0]),
                "low": low,
                "high": high,
                "values": [result.metrics["accuracy"] for result in results],
            })
        models.append({"name": entry.name, "title": entry.title, "points": points})
    gains = []
    for (before, *_), (after, *_) in itertools.pairwise(found):
        if last.subject in drawn[before] and last.subject in drawn[after]:
            gain = statistics.difference(drawn[after][last.subject], drawn[before][last.subject], groups=groups)
            gains.append({"from": before or ALL, "to": after or ALL} | vars(gain))
    curve = {"name": study.name, "subject": last.subject, "models": models, "gains": gains, "classes": counts}
    return curve | {"groups": groups, "sentences": sentences(curve), "facts": last.facts}


def _resampled(results: Sequence[SeedResult], comparison: Comparison) -> np.ndarray:
    """Return the mean accuracy over seeds on the footage and on resamples of its groups, (1 + B,)."""
    values = []
    for result in results:
        order = np.argsort(result.segments)
        segments = [result.segments[at] for at in order]
        right = (result.scores.argmax(axis=1) == result.labels)[order]
        groups = [comparison.groups[segment] for segment in segments]
        values.append(statistics.resampled_accuracy(right, groups, statistics.resampled_groups(groups)))
    return np.mean(values, axis=0)


def sentences(curve: Mapping[str, Any]) -> list[str]:
    """Return what the curve says: accuracy at its ends, the last gain, and classes with fewer labels than asked."""
    subject = next(model for model in curve["models"] if model["name"] == curve["subject"])
    points, said = subject["points"], []
    if points:
        first, last = points[0], points[-1]
        said.append(
            f"{subject['title']} recognises {percent(first['accuracy'])} with {_labels(first['labels'])} and "
            f"{percent(last['accuracy'])} with {_labels(last['labels'])}."
        )
    if curve["gains"]:
        gain = curve["gains"][-1]
        span = "" if gain["low"] is None else f", 95 % CI {signed(100 * gain['low'])} to {signed(100 * gain['high'])}"
        still = gain["low"] is not None and gain["low"] > 0
        hint = (
            "Labelling more would probably help."
            if still
            else "This footage does not show that more labels would help."
        )
        said.append(f"From {gain['from']} to {gain['to']}: {signed(100 * gain['difference'])} points{span}. {hint}")
    asked = [point["labels"] for point in points if point["labels"] != ALL]
    short = {name: count for name, count in curve["classes"].items() if asked and count < max(asked)}
    if short:
        said.append(
            f"Classes with fewer segments than asked: {listed([f'{name} ({n})' for name, n in short.items()])}."
        )
    return said


def rows_for_console(curve: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return column names and a row for each model, for a table on the terminal."""
    sizes = [point["labels"] for point in max((model["points"] for model in curve["models"]), key=len)]
    rows = []
    for model in curve["models"]:
        by_size = {point["labels"]: _text(point) for point in model["points"]}
        rows.append((model["title"], *(by_size.get(size, "not measured") for size in sizes)))
    return ("model", *(_labels(size) for size in sizes)), rows


def write_curve_page(path: Path, curve: Mapping[str, Any]) -> None:
    """Write the curve with its table as one self-contained page."""
    columns, rows = rows_for_console(curve)
    hidden = ("when", "departures", "footage", "majority_accuracy", "budget")
    page = html.render(
        "label_curve.html",
        curve=curve,
        chart=_chart(curve["models"]),
        columns=columns,
        rows=rows,
        facts=list_facts(curve["facts"], KNOWN, hidden),
        footage=footage_table(curve["facts"].get("footage")),
    )
    html.write(path, page)


def _chart(models: Sequence[Mapping[str, Any]]) -> Chart:
    lines, dots = [], []
    most = max([1.0, *(point["segments"] for model in models for point in model["points"])])
    for place, (look, model) in enumerate(zip(LOOKS, models, strict=False)):
        beside = 0.008 * most * place  # so that intervals at one number do not hide each other
        points = [(point["segments"] + beside, point) for point in model["points"]]
        lines.append(ChartLine(model["title"], [(x, point["accuracy"]) for x, point in points], look))
        # one line with gaps, from the lower to the upper end of each interval
        ends = [
            end
            for x, point in points
            if point["low"] is not None
            for end in ((x, point["low"]), (x, point["high"]), (math.nan, math.nan))
        ]
        lines.append(ChartLine(f"95 % intervals of {model['title']}", ends, look, listed=False))
        dots += [
            Dot(x, point["accuracy"], text=f"{_labels(point['labels'])}: {_text(point)}", look=look)
            for x, point in points
        ]
    title, across = "Accuracy on test, with 95 % intervals", "labelled training segments"
    return Chart(title, across, "accuracy", ticks(0, 1.02 * most), ticks(0, 1), lines, dots, height=380)


def _labels(size: int | str | None) -> str:
    return "all labels" if size in (None, ALL) else f"{size} a class"


def _text(point: Mapping[str, Any]) -> str:
    if point["low"] is None:
        return percent(point["accuracy"])
    return f"{percent(point['accuracy'])} ({percent(point['low'])} to {percent(point['high'])})"
