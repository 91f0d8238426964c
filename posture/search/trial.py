"""A trial of a search: a run on the base recipe's footage, with its result in outcome.json in the run's folder.

A trial's folder is a run like any other: it can be evaluated, and an interrupted trial resumes from its last
checkpoint.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from posture.config import AnyRun, override
from posture.data.store.checked import checked_value
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.runs.figures import Objective
from posture.runs.folder import RunFolder
from posture.runs.kinds import KINDS
from posture.runs.prepare import Fitted, Session, begin

OUTCOME = "outcome.json"


COSTS = (Objective("gmacs", "", maximize=False), Objective("parameters", "", maximize=False))


def parse_objectives(text: str | None, base: AnyRun) -> tuple[Objective, ...]:
    """Return the objectives that `text` names, such as `accuracy,gmacs`, for runs like `base`; None names the task's
    first. Raises InputError naming the objectives that exist.
    """
    measured = KINDS[base.task].objectives
    known = {objective.name: objective for objective in (*measured, *COSTS)}
    names = [name.strip() for name in (measured[0].name if text is None else text).split(",")]
    for name in names:
        if name not in known:
            raise InputError(
                f"--objective {text}: a search of {base.task} runs can go by {', '.join(known)}, or "
                "several of them joined by commas"
            )
    if len(set(names)) != len(names) or not known[names[0]].key:
        raise InputError(
            f"--objective {','.join(names)}: name each objective once, and first one that training changes: "
            f"{', '.join(objective.name for objective in measured)}"
        )
    return tuple(known[name] for name in names)


@dataclass(frozen=True)
class Plan:
    """Settings that all trials of a search share. It is sent to workers."""

    name: str
    base: Fitted
    recipe: str
    """FILE.py:function of the base recipe."""
    store: str
    versions: dict[str, int]
    runs: str
    """Folder or s3:// prefix of the trials' runs."""
    objectives: tuple[Objective, ...]


@dataclass(frozen=True)
class Point:
    """The changes that a trial tries."""

    number: int
    run: str
    """Name of the run; a trial that resumes an interrupted one has the name of its run."""
    changes: dict[str, Any]
    refused: str = ""
    """Reason why the search space gave no point; "" if it gave one."""


@dataclass(frozen=True)
class TrialResult:
    """Result of a trial."""

    state: Literal["complete", "stopped", "failed"]
    values: list[float] = field(default_factory=list)
    """Value of each objective in the best epoch; [] unless complete."""
    by_epoch: list[float] = field(default_factory=list)
    """Best value of the first objective up to each epoch."""
    reason: str = ""
    """Sentence on why the trial failed."""


def start(plan: Plan, point: Point) -> Session:
    """Begin or resume the trial's run. Raises InputError if the point gives no valid run, or reads other footage than
    the base recipe.
    """
    if point.refused:
        raise InputError(point.refused)
    base, folder = plan.base.run, RunFolder(plan.runs, point.run)
    run = override(base, point.changes | {"name": point.run, "tracking.group": base.tracking.group or plan.name})
    ours, theirs = ({"the task": one.task} | KINDS[one.task].footage_fields(one) for one in (run, base))
    _ = run.chosen_epochs  # a trial has the base's, or a number of its own
    for field_name, value in ours.items():
        if field_name in theirs and value != theirs[field_name]:
            raise InputError(
                f"{field_name} is {value}, but {theirs[field_name]} in the base recipe; trials share the footage that "
                "is read for the base recipe"
            )
    fitted = Fitted(run, plan.base.train, plan.base.val, plan.base.anchors)
    if not folder.exists():
        return begin(fitted, folder, recipe=plan.recipe, store=Store(plan.store), versions=plan.versions)
    return Session(**vars(fitted), folder=folder, resumed=bool(folder.checkpoints()))


def by_epoch(folder: RunFolder, objective: Objective) -> list[float]:
    """Return the best value of the objective up to each finished epoch; NaN until there is a number."""
    best: list[float] = []
    for record in folder.history():
        value = record.get(objective.key)
        value = math.nan if value is None else float(value)
        before = best[-1] if best else math.nan
        known = [one for one in (before, value) if math.isfinite(one)]
        best.append(objective.best(known) if known else math.nan)
    return best


def conclude(plan: Plan, session: Session, *, stopped: bool) -> TrialResult:
    """Write and return the result of a trial whose training ended, or was `stopped` by the scheduler.

    A trial with a value that is not finite has failed.
    """
    values = by_epoch(session.folder, plan.objectives[0])
    if stopped:
        return write(session.folder, TrialResult("stopped", by_epoch=values))
    found = [_value(objective, session) for objective in plan.objectives]
    if not all(math.isfinite(value) for value in found):
        what = next(
            objective.name for objective, value in zip(plan.objectives, found, strict=True) if not math.isfinite(value)
        )
        return write(
            session.folder, TrialResult("failed", by_epoch=values, reason=f"{what} on val is not a finite number")
        )
    return write(session.folder, TrialResult("complete", found, values))


def failure(plan: Plan, point: Point, error: BaseException) -> TrialResult:
    """Write and return the result of a trial that failed with `error`."""
    folder = RunFolder(plan.runs, point.run)
    reason = (
        str(error)
        if isinstance(error, InputError)
        else f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    )
    return write(folder, TrialResult("failed", by_epoch=by_epoch(folder, plan.objectives[0]), reason=reason[:1000]))


def write(folder: RunFolder, outcome: TrialResult) -> TrialResult:
    folder.write_json(OUTCOME, asdict(outcome))
    return outcome


def read(folder: RunFolder) -> TrialResult | None:
    """Return the result of a trial, or None if it has not ended."""
    found = folder.read_json(OUTCOME)
    return None if found is None else checked_value(found, folder.path(OUTCOME), TrialResult)


def _value(objective: Objective, session: Session) -> float:
    if objective.key:
        values = by_epoch(session.folder, objective)
        return values[-1] if values else math.nan
    return cost(session.run)[objective.name]


def cost(run: AnyRun) -> dict[str, float]:
    """Return the GMACs of one clip or image and the number of parameters."""
    from posture.models import build
    from posture.models.summary import parameters

    model = build(run.model).eval()
    return {"gmacs": KINDS[run.task].compute(run, model), "parameters": float(parameters(model))}
