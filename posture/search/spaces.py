"""Search spaces: `tune_spaces/action.py:space` is a function of an Optuna trial that returns changes to a run.

A space asks the trial for parameters by the paths that `--set` takes (`model.groups`), one after the other, so that a
parameter can depend on an earlier one. A function with a second argument gets the base recipe. A parameter that is not
a field of a run must be a choice, and its first value stands for the base recipe.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from posture.config import AnyRun, override
from posture.errors import InputError
from posture.runs.recipes import load_module, mistake

DEFAULT = "space"
EXAMPLE = "tune_spaces/action.py"


@dataclass(frozen=True)
class Space:
    """The function at `path`, FILE.py:function."""

    path: str
    function: Callable[..., dict[str, Any]]
    identity: str
    """Hash of the code of its file without comments, docstrings and layout."""

    def changes(self, trial: Any, base: AnyRun) -> dict[str, Any]:
        """Return the changes to `base`, by dotted path, for an Optuna `trial`.

        Raises InputError if the function fails, or returns anything else.
        """
        takes_base = len(inspect.signature(self.function).parameters) > 1
        try:
            changes = self.function(trial, base) if takes_base else self.function(trial)
        except InputError:
            raise
        except Exception as error:  # whatever a user's file does
            raise mistake(self.path, error) from None
        if not isinstance(changes, dict) or not all(isinstance(path, str) for path in changes):
            raise InputError(
                f"{self.path} returned {type(changes).__name__}; a space returns a dict of changes by path, "
                "such as {'optim.lr': 0.001}"
            )
        return changes


def load_space(path: str) -> Space:
    """Return the space at FILE.py:function; the function is `space` by default.

    Raises InputError that names the file or function if it is missing.
    """
    name, _, function = path.partition(":")
    function = function or DEFAULT
    if not name.endswith(".py"):
        raise InputError(f"{path!r} names no search space; write FILE.py or FILE.py:function, for example {EXAMPLE}")
    module = load_module(name, folder="tune_spaces")
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not key.startswith("_")
    }
    if function not in found:
        raise InputError(f"{name} has no search space {function!r}; it has {', '.join(sorted(found)) or 'no function'}")
    return Space(f"{name}:{function}", found[function], _identity(inspect.getsource(module), function))


class BaseAnswers:
    """Trial that answers with the values of the base recipe; `params` and `distributions` record the questions.

    Raises InputError if a value of the recipe is outside the space.
    """

    def __init__(self, base: AnyRun, *, space: str) -> None:
        self._fields, self._space = base.model_dump(mode="json"), space
        self.params: dict[str, Any] = {}
        self.distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return self._answer(name, FloatDistribution(low, high, log=log, step=step))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return self._answer(name, IntDistribution(low, high, log=log, step=step))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._answer(name, CategoricalDistribution(choices))

    def _answer(self, name: str, distribution: BaseDistribution) -> Any:
        value: Any = self._fields
        for part in name.split("."):
            if not isinstance(value, dict) or part not in value:
                if not isinstance(distribution, CategoricalDistribution):
                    raise InputError(
                        f"{self._space}: {name} is not a field of the run, so it must be a choice, with the base "
                        "recipe's value first"
                    )
                value = distribution.choices[0]
                break
            value = value[part]
        if not _contains(distribution, value):
            raise InputError(
                f"{self._space}: the base recipe's {name} is {value!r}, outside {distribution}; widen the space, or "
                "--set it"
            )
        self.params[name], self.distributions[name] = value, distribution
        return value


def base_point(space: Space, base: AnyRun) -> dict[str, Any]:
    """Return the parameters with which `space` returns `base` itself. Raises InputError if there are none."""
    answers = BaseAnswers(base, space=space.path)
    changes = space.changes(answers, base)
    if override(base, changes) != base:
        changed = ", ".join(path for path, value in changes.items() if override(base, {path: value}) != base)
        raise InputError(
            f"{space.path}: with the base recipe's own values it still changes {changed}; a search begins with the "
            "unchanged recipe"
        )
    return answers.params


def sample(
    space: Space, base: AnyRun, count: int, *, seed: int = 0
) -> Iterator[tuple[dict[str, BaseDistribution], dict[str, Any]]]:
    """Yield the distributions and changes of `count` random points. Raises InputError if a point is not a valid run."""
    study = _silent_study(seed)
    for _ in range(count):
        trial = study.ask()
        changes = space.changes(trial, base)
        try:
            override(base, changes)
        except InputError as error:
            raise InputError(f"{space.path} gives an invalid run: {error} (from {trial.params})") from None
        yield trial.distributions, changes
        study.tell(trial, state=optuna.trial.TrialState.FAIL)


def unconditional(space: Space, base: AnyRun, *, samples: int = 200) -> tuple[dict[str, BaseDistribution], list[str]]:
    """Return the parameters that all of `samples` random points have in common, and the names of the others."""
    asked = [distributions for distributions, _ in sample(space, base, samples)]
    names = list(dict.fromkeys(name for distributions in asked for name in distributions))
    always = {
        name: asked[0][name]
        for name in names
        if all(distributions.get(name) == asked[0].get(name) for distributions in asked)
    }
    return always, [name for name in names if name not in always]


def _silent_study(seed: int) -> optuna.Study:
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    finally:
        optuna.logging.set_verbosity(before)


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return isinstance(value, int | float) and distribution._contains(distribution.to_internal_repr(value))


def _identity(source: str, function: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            del body[0]
    return hashlib.blake2b(f"{function} {ast.dump(tree)}".encode(), digest_size=8).hexdigest()
