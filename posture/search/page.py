"""The page of a search: history, importances, slices, parallel coordinates, learning curves and all trials.

Importances are those of fANOVA (Hutter 2014): shares of the variance of a random forest fitted to the complete trials.
"""

# what may be None here depends on other values
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial

from posture.display import html, text
from posture.display.charts import LETTER, LONGEST, Chart, ChartLine, Dot, ticks
from posture.display.text import counted, decimal, listed, short
from posture.runs.figures import Objective
from posture.runs.kinds import KINDS
from posture.search.study import leading, state_of
from posture.search.trial import COSTS

LEAST_FOR_IMPORTANCE = 5
"""Minimum number of complete trials to compute importances."""
MAX_CURVES = 60


def write_search_page(path: Path, study: optuna.Study) -> None:
    """Write the page of a study made by `posture.search.study.Search`."""
    objectives = _objectives(study)
    trials = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if state_of(trial) in ("complete", "stopped", "failed", "running")
    ]
    best = leading(study)
    epochs = study.user_attrs["terms"]["base"]["epochs"]
    scales = scales_of(trials)
    page = html.render(
        "search.html",
        name=study.study_name,
        terms=study.user_attrs["terms"],
        subtitle=_subtitle(trials),
        verdict=_verdict(trials, best, objectives),
        tiles=_tiles(trials, best, objectives, epochs),
        history=_history(trials, objectives[0]),
        front=_front(trials, best, objectives),
        importances=importances(study, objectives),
        slices=_slices(trials, scales, objectives[0]),
        coordinates=coordinates(trials, scales, objectives[0], best),
        curves=_curves(trials, best, objectives[0], epochs),
        columns=list(scales),
        objectives=objectives,
        reasons=any("reason" in trial.user_attrs for trial in trials),
        rows=[_row(trial, scales, objectives, trial in best) for trial in _ranked(trials, objectives[0])],
    )
    html.write(path, page)


@dataclass(frozen=True)
class AxisScale:
    """The axis of a parameter: `position` maps its values to 0..1; `marks` are the labelled positions."""

    name: str
    distribution: BaseDistribution

    def position(self, value: Any) -> float:
        distribution = self.distribution
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices.index(value) / max(1, len(distribution.choices) - 1)
        low, high = float(distribution.low), float(distribution.high)
        if high <= low:
            return 0.0
        return math.log(value / low) / math.log(high / low) if distribution.log else (value - low) / (high - low)

    @property
    def marks(self) -> list[tuple[float, str]]:
        if isinstance(self.distribution, CategoricalDistribution):
            return [(self.position(choice), short(str(choice), LONGEST)) for choice in self.distribution.choices]
        return [(self.position(value), f"{value:.3g}") for value in (self.distribution.low, self.distribution.high)]


def scales_of(trials: Sequence[FrozenTrial]) -> dict[str, AxisScale]:
    """Return an axis for every parameter of any trial, in the order in which they were first used."""
    found: dict[str, BaseDistribution] = {}
    for trial in trials:
        for name, distribution in trial.distributions.items():
            found.setdefault(name, distribution)
    return {name: AxisScale(name, distribution) for name, distribution in found.items()}


def importances(study: optuna.Study, objectives: Sequence[Objective]) -> list[dict[str, Any]]:
    """Return for each objective that varies {"title", "rows": [(parameter, share, share of the largest)]}.

    Only parameters of all complete trials have a share. Empty with fewer than 5 complete trials.
    """
    complete = [trial for trial in study.get_trials(deepcopy=False) if state_of(trial) == "complete"]
    tables = []
    for index, objective in enumerate(objectives):
        values = [trial.values[index] for trial in complete]
        if len(complete) < LEAST_FOR_IMPORTANCE or max(values) - min(values) <= 0:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            shares = optuna.importance.get_param_importances(
                study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                target=lambda trial, index=index: trial.values[index],
            )
        largest = max(shares.values(), default=0.0) or 1.0
        tables.append({
            "title": objective.name,
            "rows": [(name, share, share / largest) for name, share in shares.items()],
        })
    return tables


def coordinates(
    trials: Sequence[FrozenTrial], scales: Mapping[str, AxisScale], objective: Objective, best: Sequence[FrozenTrial]
) -> dict[str, Any] | None:
    """Return parallel coordinates of the trials with a value: axes with marks, and a path for each trial.

    Better trials have stronger lines, and the `best` is on top. A trial without a parameter passes below its axis. None
    if no trial has a value.
    """
    valued = [(trial, value) for trial in trials if (value := reached(trial)) is not None]
    if not valued or not scales:
        return None
    height, top, bottom, missing = 380, 34, 52, 24
    values = [value for _, value in valued]
    low, high = min(values), max(values)
    axes = [*scales, objective.name]
    marks = [scale.marks for scale in scales.values()] + [[(0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]]
    names = [short(name.rpartition(".")[2], LONGEST) for name in axes]
    longest = max(len(text) for text in [*names, *(text for own in marks for _, text in own)])
    step = max(890 / max(1, len(axes) - 1), LETTER * longest + 12)  # no label reaches the next axis
    width = round(150 + step * (len(axes) - 1))
    xs = [round(55 + step * position, 1) for position in range(len(axes))]

    def y(position: float | None) -> float:
        return (
            round(height - bottom - position * (height - top - bottom), 1)
            if position is not None
            else height - bottom + missing
        )

    drawn = []
    ranked = sorted(valued, key=lambda pair: (pair[0] in best[:1], pair[1] if objective.maximize else -pair[1]))
    for rank, (trial, value) in enumerate(ranked):
        own = [scale.position(trial.params[name]) if name in trial.params else None for name, scale in scales.items()]
        ends = [*own, (value - low) / (high - low) if high > low else 0.5]
        path = "M" + "L".join(f"{x:g} {y(position):g}" for x, position in zip(xs, ends, strict=True))
        drawn.append({
            "path": path,
            "share": round((rank + 1) / len(ranked), 3),
            "best": trial in best[:1],
            "text": f"trial {trial.number}: {value:.4f}",
        })
    return {
        "width": width,
        "height": height,
        "top": top,
        "lines": drawn,
        "missing": y(None),
        "bottom": height - bottom,
        "axes": [
            {"x": x, "name": name, "full": full, "marks": [(y(position), text) for position, text in own]}
            for x, name, full, own in zip(xs, names, axes, marks, strict=True)
        ],
    }


def reached(trial: FrozenTrial) -> float | None:
    """Return the first objective of a complete trial, or the best value of one that was stopped or failed."""
    if state_of(trial) == "complete":
        return trial.values[0]
    return list(trial.intermediate_values.values())[-1] if trial.intermediate_values else None


def _objectives(study: optuna.Study) -> tuple[Objective, ...]:
    known = {objective.name: objective for kind in KINDS.values() for objective in (*kind.objectives, *COSTS)}
    return tuple(known[name] for name in study.user_attrs["terms"]["objectives"])


def _ranked(trials: Sequence[FrozenTrial], objective: Objective) -> list[FrozenTrial]:
    """Return trials in order, the best first; complete before stopped before failed."""
    order = {"complete": 0, "running": 1, "stopped": 2, "failed": 3}
    sign = -1 if objective.maximize else 1
    return sorted(
        trials,
        key=lambda trial: (order[state_of(trial)], math.inf if reached(trial) is None else sign * reached(trial)),
    )


def _subtitle(trials: Sequence[FrozenTrial]) -> list[str]:
    counts = {
        state: sum(state_of(trial) == state for trial in trials)
        for state in ("complete", "stopped", "failed", "running")
    }
    began = [trial.datetime_start for trial in trials if trial.datetime_start]
    return [
        counted(sum(counts.values()), "trial"),
        *(f"{count} {state}" for state, count in counts.items() if count),
        *([text.moment(min(began))] if began else []),
    ]


def _verdict(trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> str:
    if not best:
        return "No trial is complete yet."
    objective, first = objectives[0], next((trial for trial in trials if trial.number == 0), None)
    sentence = f"Trial {best[0].number} reached {objective.name} {best[0].values[0]:.4f} on val"
    if first is not None and state_of(first) == "complete" and first.number != best[0].number:
        sentence += f", the base recipe {first.values[0]:.4f}"
    elif best[0].number == 0:
        sentence += ": this is the base recipe itself"
    if len(objectives) > 1:
        front = listed([objective.name for objective in objectives])
        return f"{sentence}; {counted(len(best), 'trial is', 'trials are')} on the Pareto front of {front}."
    return (
        f"{sentence}. It was selected from {counted(len(trials), 'trial')} on the same val split, so its value is too "
        "optimistic; use posture compare for a result on test."
    )


def _tiles(
    trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], objectives: Sequence[Objective], epochs: int
) -> list[tuple[str, str, str]]:
    spent = sum(trial.user_attrs.get("epochs", 0) for trial in trials)
    finished = [trial for trial in trials if state_of(trial) in ("complete", "stopped")]
    whole = epochs * len(finished)
    seconds = sum(
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        for trial in trials
        if trial.datetime_complete and trial.datetime_start
    )
    first = best[0].values if best else [None] * len(objectives)
    return [
        (f"Best {objective.name}", decimal(value), f"trial {best[0].number}" if best else "")
        for objective, value in zip(objectives, first, strict=True)
    ] + [
        ("Epochs trained", text.whole(spent), f"{max(0, whole - spent):,} of {whole:,} saved by early stopping"),
        ("Time in trials", html.duration(seconds), f"{html.duration(seconds / len(trials))} each" if trials else ""),
    ]


def _history(trials: Sequence[FrozenTrial], objective: Objective) -> Chart | None:
    """Draw the result of every trial by number, and the best complete one so far."""
    valued = [(trial, value) for trial in trials if (value := reached(trial)) is not None]
    if not valued:
        return None
    dots = [
        Dot(
            trial.number,
            value,
            4.0 if state_of(trial) == "complete" else 2.0,
            f"trial {trial.number}, {state_of(trial)}: {value:.4f}",
        )
        for trial, value in valued
    ]
    best: list[tuple[float, float]] = []
    for trial, value in valued:
        if state_of(trial) == "complete":
            best.append((float(trial.number), objective.best([value, *([best[-1][1]] if best else [])])))
    values = [value for _, value in valued]
    return Chart(
        objective.name,
        "trial",
        "",
        ticks(0, max(trial.number for trial, _ in valued) or 1, 8, whole=True),
        ticks(min(values), max(values)),
        [ChartLine("best so far", best)],
        dots,
        width=1040,
        height=320,
    )


def _front(trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], objectives: Sequence[Objective]) -> Chart | None:
    complete = [trial for trial in trials if state_of(trial) == "complete"]
    if len(objectives) < 2 or not complete:
        return None
    across = [trial.values[1] for trial in complete]
    up = [trial.values[0] for trial in complete]
    edge = sorted((trial.values[1], trial.values[0]) for trial in best)
    dots = [
        Dot(
            trial.values[1],
            trial.values[0],
            4.5 if trial in best else 2.5,
            f"trial {trial.number}: {trial.values[0]:.4f}, {trial.values[1]:.4g}",
            str(trial.number) if trial in best else "",
        )
        for trial in complete
    ]
    return Chart(
        "Pareto front",
        objectives[1].name,
        objectives[0].name,
        ticks(min(across), max(across)),
        ticks(min(up), max(up)),
        [ChartLine("front", edge)],
        dots,
        width=700,
        height=380,
    )


def _slices(
    trials: Sequence[FrozenTrial], scales: Mapping[str, AxisScale], objective: Objective
) -> list[dict[str, Any]]:
    """Return for each parameter a chart of the results over its axis, and the marks of the axis."""
    slices = []
    values = [value for trial in trials if (value := reached(trial)) is not None]
    for name, scale in scales.items():
        own = [(trial, value) for trial in trials if name in trial.params and (value := reached(trial)) is not None]
        if not own:
            continue
        dots = [
            Dot(
                scale.position(trial.params[name]),
                value,
                3.5 if state_of(trial) == "complete" else 2.0,
                f"trial {trial.number}, {_text(trial.params[name])}: {value:.4f}",
            )
            for trial, value in own
        ]
        chart = Chart(
            name, "", objective.name, [0.0, 1.0], ticks(min(values), max(values)), [], dots, width=360, height=230
        )
        slices.append({
            "chart": chart,
            "marks": staggered([(chart.x(position), text) for position, text in scale.marks], chart.width),
        })
    return slices


def staggered(marks: Sequence[tuple[float, str]], width: float) -> list[tuple[float, int, str]]:
    """Return labels below an axis, (left edge, row, label), in as many rows as it takes to avoid overlap."""
    rows: list[float] = []  # how far each row is filled
    placed = []
    for x, label in marks:
        length = LETTER * len(label)
        left = min(max(x - length / 2, 0.0), width - length)
        row = next((number for number, end in enumerate(rows) if left > end + 4), len(rows))
        rows[row : row + 1] = [left + length]
        placed.append((round(left, 1), row, label))
    return placed


def _curves(
    trials: Sequence[FrozenTrial], best: Sequence[FrozenTrial], objective: Objective, epochs: int
) -> Chart | None:
    """Draw the best value up to each epoch, a curve for each trial; a study of several objectives has none."""
    drawn = sorted((trial for trial in trials if trial.intermediate_values), key=lambda trial: trial in best)[
        -MAX_CURVES:
    ]
    if not drawn:
        return None
    lines = [
        ChartLine(
            f"trial {trial.number}",
            sorted(trial.intermediate_values.items()),
            "first" if trial in best else "faint",
            listed=trial in best,
        )
        for trial in drawn
    ]
    values = [value for trial in drawn for value in trial.intermediate_values.values()]
    ends = [
        Dot(float(epoch), value, 2.0, f"trial {trial.number}, {state_of(trial)}")
        for trial in drawn
        for epoch, value in [max(trial.intermediate_values.items())]
    ]
    return Chart(
        f"Best {objective.name} up to each epoch",
        "epoch",
        "",
        ticks(1, max(epochs, 2), 8, whole=True),
        ticks(min(values), max(values)),
        lines,
        ends,
        width=1040,
        height=330,
    )


def _row(
    trial: FrozenTrial, scales: Mapping[str, AxisScale], objectives: Sequence[Objective], best: bool
) -> dict[str, Any]:
    values = list(trial.values) if state_of(trial) == "complete" else [reached(trial)] + [None] * (len(objectives) - 1)
    seconds = (
        (trial.datetime_complete - trial.datetime_start).total_seconds()
        if trial.datetime_complete and trial.datetime_start
        else None
    )
    return {
        "number": trial.number,
        "state": state_of(trial),
        "values": values,
        "best": best,
        "epochs": trial.user_attrs.get("epochs"),
        "seconds": seconds,
        "reason": trial.user_attrs.get("reason", ""),
        "run": trial.user_attrs.get("run", ""),
        "params": [_text(trial.params[name]) if name in trial.params else "" for name in scales],
    }


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
