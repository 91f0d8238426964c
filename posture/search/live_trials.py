"""Trials of a running search as a live table, and as lines of text."""

from __future__ import annotations

import time
from typing import Any

from optuna.trial import FrozenTrial
from rich.live import Live
from rich.table import Table

from posture.display import console
from posture.display.text import counted, duration
from posture.runs.figures import Objective
from posture.search.study import Search, leading, state_of
from posture.search.trial import Plan

SHOWN_TRIALS = 20
LINE_EVERY_SECONDS = 20.0


class LiveTrials:
    """A live table on a terminal; in a log, a line for each trial that ends, and one every 20 seconds."""

    def __init__(self, search: Search, plan: Plan, trials: int) -> None:
        self._search, self._plan, self._trials = search, plan, trials
        self._began, self._finished_before, self._updates = time.monotonic(), len(search.finished), {}
        self._live = Live(console=console.out, transient=True, auto_refresh=False) if console.out.is_terminal else None
        self._lined = self._began

    def __enter__(self) -> LiveTrials:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, updates: dict[str, dict[str, Any]]) -> None:
        self._updates = updates
        if self._live:
            self._live.update(self._table(), refresh=True)
        elif time.monotonic() - self._lined >= LINE_EVERY_SECONDS:
            self._lined = time.monotonic()
            running = [
                f"trial {trial.number} {self._doing(trial)}"
                for trial in self._search.trials
                if state_of(trial) == "running"
            ]
            console.out.print(f"{', '.join(running) or 'starting'}; {self._summary()}")

    def ended(self, number: int) -> None:
        trial = self._search.trials[number]
        console.out.print(f"trial {number}: {result_text(trial, self._plan.objectives)}  {parameters_text(trial)}")

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", title=self._summary(), title_justify="left")
        for name in ("trial", "now", *(objective.name for objective in self._plan.objectives), "parameters"):
            table.add_column(name, overflow="fold")
        best = {trial.number for trial in leading(self._search.study)}
        shown = [trial for trial in self._search.trials if state_of(trial) not in ("interrupted", "waiting")][
            -SHOWN_TRIALS:
        ]
        for trial in shown:
            values = (
                [f"{value:.4g}" for value in trial.values]
                if state_of(trial) == "complete"
                else [f"{list(trial.intermediate_values.values())[-1]:.4g}" if trial.intermediate_values else ""]
                + [""] * (len(self._plan.objectives) - 1)
            )
            table.add_row(
                str(trial.number),
                self._doing(trial),
                *values,
                parameters_text(trial),
                style="bold" if trial.number in best else "",
            )
        return table

    def _doing(self, trial: FrozenTrial) -> str:
        if state_of(trial) != "running":
            return state_of(trial)
        update = self._updates.get(trial.user_attrs.get("run", ""), {})
        return f"epoch {update['epoch']} of {update['epochs']}" if "epoch" in update else "starting"

    def _summary(self) -> str:
        finished = self._search.finished
        spent = sum(trial.user_attrs.get("epochs", 0) for trial in finished)
        saved = sum(
            self._plan.base.run.chosen_epochs - trial.user_attrs.get("epochs", 0)
            for trial in finished
            if state_of(trial) == "stopped"
        )
        done, now = len(finished) - self._finished_before, time.monotonic()
        # a trial takes minutes: the last one says nothing yet
        left = (now - self._began) / done * (self._trials - len(finished)) if done else None
        return ", ".join([
            f"{len(finished)} of {self._trials} trials",
            best_text(self._search, self._plan.objectives),
            f"{counted(spent, 'epoch')} trained, {saved:,} saved",
            f"{duration(now - self._began)} elapsed",
            *([f"about {duration(left)} left"] if left is not None else []),
        ])


def parameters_text(trial: FrozenTrial) -> str:
    """`lr 0.00213, groups 8`: parameters by the last part of their paths."""
    changes = trial.user_attrs.get("changes", trial.params)
    return ", ".join(
        f"{path.rpartition('.')[2]} {value:.3g}" if isinstance(value, float) else f"{path.rpartition('.')[2]} {value}"
        for path, value in changes.items()
    )


def result_text(trial: FrozenTrial, objectives: tuple[Objective, ...]) -> str:
    """Return the result of a trial as text."""
    count = trial.user_attrs.get("epochs", 0)
    epochs = f"after {counted(count, 'epoch')}"
    if state_of(trial) == "failed":
        return f"failed {epochs}: {trial.user_attrs['reason']}"
    if state_of(trial) == "stopped":
        reached = f"{list(trial.intermediate_values.values())[-1]:.4f}" if trial.intermediate_values else "nothing"
        return f"stopped {epochs} at {objectives[0].name} {reached}"
    return (
        ", ".join(f"{objective.name} {value:.4f}" for objective, value in zip(objectives, trial.values, strict=True))
        + f" {epochs}"
    )


def best_text(search: Search, objectives: tuple[Objective, ...]) -> str:
    found = leading(search.study)
    if not found:
        return "none complete yet"
    if len(found) > 1:
        return f"{len(found)} on the front"
    values = zip(objectives, found[0].values, strict=True)
    return f"best {', '.join(f'{objective.name} {value:.4f}' for objective, value in values)} (trial {found[0].number})"
