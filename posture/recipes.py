"""Named runs and studies: `jobs/action.py:improved` is the function `improved` in a Python file, which returns a Run."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import traceback
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posture.config import AnyRun, BaseRun, Study, override, sentences
from posture.errors import InputError

PACKAGE = Path(__file__).parent
ROOTS = (PACKAGE, PACKAGE.parent)
"""Where recipes lie besides the working directory: in the installed package, or beside it in a checkout."""


def load_recipe(path: str) -> AnyRun:
    """The run that `FILE.py:function` returns; the file is looked up in the working directory first.

    Raises InputError naming the file or function that is missing, and what there is.
    """
    run = _call(path, "jobs/action.py:improved")
    if isinstance(run, BaseRun):
        return run
    if isinstance(run, Study):
        raise InputError(f"{path} is a study of several runs; train and compare them with: posture compare {path}")
    raise InputError(f"{path} is a list of runs; choose one of {', '.join(item.name for item in run)}" if isinstance(run, list)
                     else f"{path} returns {type(run).__name__}, but a recipe returns a Run")


def load_study(path: str) -> Study:
    """The study that `FILE.py:function` returns. Raises InputError as `load_recipe` does, and where it is something else."""
    study = _call(path, "jobs/action.py:study")
    if not isinstance(study, Study):
        raise InputError(f"{path} returns a {type(study).__name__}, but compare takes a Study, such as jobs/action.py:study")
    return study


def winner_study(file: str) -> Study:
    """The winner of a search (the JSON that `posture tune` writes) beside the recipe that it began with, both as they stand, on the same budget.

    Raises InputError where the file is none.
    """
    try:
        best = json.loads(Path(file).read_text())
        base, before, changes = load_recipe(best["base"]), best["base_changes"], best["changes"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: not what posture tune writes ({type(error).__name__}: {error}); it writes best.json into the search's folder") from None
    subject, default = override(base, changes | {"name": "winner"}), override(base, before | {"name": "default"})
    return Study(name=f"{best['search'][:42]}-winner", subject=subject, baselines=(default,), learning_rates=(1.0,), epochs=subject.epochs,
                 titles={"winner": f"{base.name}, trial {best['trial']}", "default": f"{base.name} as it stands"})


def _call(path: str, example: str) -> Any:
    name, colon, function = path.partition(":")
    if not colon or not name.endswith(".py") or not function:
        raise InputError(f"{path!r} names no recipe; write FILE.py:function, for example {example}")
    recipes = functions(load_module(name))
    if function not in recipes:
        raise InputError(f"{name} has no recipe {function!r}; it has {', '.join(sorted(recipes))}")
    try:
        return recipes[function]()
    except InputError:
        raise
    except Exception as error:  # whatever a user's file does
        raise mistake(path, error) from None


def load_module(name: str, *, folder: str = "jobs") -> Any:
    """The Python file `name` as a module, from the working directory or among those that come with Posture, in `folder`.

    Raises InputError where it is missing, naming those of that folder, or is no Python.
    """
    places = [Path(os.getcwd()), *ROOTS]
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        known = sorted({f"{folder}/{file.name}" for root in ROOTS for file in (root / folder).glob("*.py")})
        what = {"jobs": "recipes", "tune_spaces": "search spaces"}[folder]
        raise InputError(f"{name}: no such file here; {what} that come with Posture: {', '.join(known)}")
    spec = importlib.util.spec_from_file_location(found.stem, found)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise InputError(f"{name}: {error.msg} in line {error.lineno}") from None
    except Exception as error:  # whatever a user's file does
        raise mistake(name, error) from None
    return module


def mistake(path: str, error: Exception) -> InputError:
    """What `error`, raised by the user's own Python file at `path` (FILE.py or FILE.py:function), says and in which of its lines."""
    file = Path(path.partition(":")[0]).name
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == file]
    where = f" in line {lines[-1]}" if lines else ""
    said = sentences(error) if isinstance(error, ValidationError) else ' '.join(str(error).split())[:300]
    return InputError(f"{path}: {type(error).__name__}{where}: {said}")


def functions(module: Any) -> dict[str, Any]:
    """The recipes of a module: its own public functions that need no argument."""
    return {name: value for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
            and not inspect.signature(value).parameters}
