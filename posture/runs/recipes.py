"""Recipes and studies by name: `jobs/action.py:improved` is the function `improved` in a Python file; it returns a run.

`jobs/action.py:ablations.A1`, or `jobs/action.py:ablations[A1]`, is the run A1 of a list of runs or of a study. A name
without a file, such as `c3d`, is looked up in the files of `jobs/`.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import os
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from posture.config import AnyRun, BaseRun, Study, sentences
from posture.errors import InputError

PACKAGE = Path(__file__).parents[1]
ROOTS = (PACKAGE, PACKAGE.parent)
"""Folders with recipes besides the working directory: the installed package, or the checkout around it."""
RECIPE = re.compile(r"(?P<function>[A-Za-z_]\w*)(\[(?P<bracket>[\w.-]+)\]|\.(?P<dot>[\w.-]+))?")
"""The part after FILE.py: a function, and optionally the name of one of the runs that it returns."""


def load_recipe(path: str) -> AnyRun:
    """Return the run that `FILE.py:function` returns, or the one that `FILE.py:function.NAME` names among several.

    The file is looked up in the working directory first. Raises InputError naming the file or function that is missing,
    and those that exist.
    """
    run = _call(full_path(path))
    if isinstance(run, AnyRun):
        return run
    if (runs := _members(run)) is None:
        raise InputError(f"{path} returns {type(run).__name__}, but a recipe returns a Run")
    others = f", or another of {', '.join(runs[1:])}" if runs[1:] else ""
    if isinstance(run, Study):
        raise InputError(
            f"{path} is a study of several runs; compare them with posture compare {path}, or name one of them: "
            f"{path}.{runs[0]}{others}"
        )
    raise InputError(
        f"{path} is a list of runs; write {path}.{runs[0]}{others}" if runs else f"{path} is a list without a run"
    )


def load_study(path: str) -> Study:
    """Return the study that `FILE.py:function` returns. Raises InputError as `load_recipe` does, and if it returns
    something else.
    """
    study = _call(full_path(path, example="jobs/action.py:study", what="study"))
    if not isinstance(study, Study):
        raise InputError(
            f"{path} returns {type(study).__name__}, but compare takes a Study, such as jobs/action.py:study"
        )
    return study


def is_bare(path: str) -> bool:
    """Return True if `path` names a recipe without its file: `improved`, `ablations.A1`."""
    return RECIPE.fullmatch(path) is not None and not path.endswith(".py")


def full_path(
    path: str, *, task: str | None = None, example: str = "jobs/action.py:improved", what: str = "recipe"
) -> str:
    """Return `jobs/action.py:c3d` for `c3d`; a path that names its file stays as it is.

    If several files have such a function, take the one whose runs are of `task`. Raises InputError if no file has one,
    or several still do.
    """
    if not is_bare(path):
        return path
    files: dict[str, Path] = {}
    for root in (Path(os.getcwd()), *ROOTS):
        for file in sorted((root / "jobs").glob("*.py")):
            files.setdefault(f"jobs/{file.name}", file)
    known = {f"{name}:{function}" for name, file in files.items() for function in _function_names(file)}
    found = sorted(f"{name}:{path}" for name in files if f"{name}:{RECIPE.fullmatch(path)['function']}" in known)
    if len(found) > 1:
        found = [one for one in found if _fits(one, task)] or found
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{path!r} names {len(found)} recipes; write one of {', '.join(found)}")
    near = difflib.get_close_matches(path, {one.partition(":")[2] for one in known}, n=1)
    close = sorted(one for one in known if one.partition(":")[2] in near)
    raise InputError(f"{path!r} names no {what}; write FILE.py:function, for example {' or '.join(close) or example}")


def _call(path: str) -> Any:
    """Return what the function at `path`, FILE.py:function, returns, or the one of its runs that `path` names.

    Raises InputError.
    """
    name, _, wanted = path.partition(":")
    parts = RECIPE.fullmatch(wanted)
    if not name.endswith(".py") or parts is None:
        raise InputError(f"{path!r} names no recipe; write FILE.py:function, for example jobs/action.py:improved")
    recipes, function, member = functions(load_module(name)), parts["function"], parts["bracket"] or parts["dot"]
    if function not in recipes:
        raise InputError(f"{name} has no recipe {function!r}; it has {', '.join(sorted(recipes))}")
    try:
        made = recipes[function]()
    except InputError:
        raise
    except Exception as error:  # whatever a user's file does
        raise mistake(path, error) from None
    if member is None:
        return made
    names = _members(made)
    if names is None:
        raise InputError(f"{path}: {name}:{function} is a single recipe; leave out {wanted.removeprefix(function)}")
    if member not in names:
        raise InputError(f"{name}:{function} has no run {member!r}; it has {', '.join(names)}")
    return (made.runs if isinstance(made, Study) else made)[names.index(member)]


def _members(made: Any) -> list[str] | None:
    """Return the names of the runs in a list or study; None if `made` is neither."""
    if isinstance(made, list) and not all(isinstance(run, BaseRun) for run in made):
        return None
    return (
        [run.name for run in (made.runs if isinstance(made, Study) else made)]
        if isinstance(made, Study | list)
        else None
    )


def _fits(path: str, task: str | None) -> bool:
    """Return True if `path` can be loaded, and has a run of the `task` if one is given."""
    try:
        made = _call(path)
    except InputError:
        return False
    runs = made.runs if isinstance(made, Study) else made if isinstance(made, list) else [made]
    return task is None or any(isinstance(run, AnyRun) and run.task == task for run in runs)


def _function_names(file: Path) -> list[str]:
    """Return the public functions without arguments in a Python file, without running it; [] if it is not Python."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError):
        return []
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and not ast.unparse(node.args)
    ]


def load_module(name: str, *, folder: str = "jobs") -> Any:
    """Load the Python file `name` as a module, from the working directory or the `folder` that comes with Posture.

    Raises InputError if it is missing, naming the files of that folder, or if it is not Python.
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
    """Return an InputError with the message and line of an `error` that the user's own file at `path` (FILE.py or
    FILE.py:function) raised.
    """
    file = Path(path.partition(":")[0]).name
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == file]
    where = f" in line {lines[-1]}" if lines else ""
    said = sentences(error) if isinstance(error, ValidationError) else " ".join(str(error).split())[:300]
    return InputError(f"{path}: {type(error).__name__}{where}: {said}")


def points(recipe: Callable[[], Any]) -> tuple[str, ...]:
    """Return the bullet points of a recipe's docstring: lines that begin with an asterisk, up to the next one or an
    empty line.
    """
    found: list[list[str]] = []
    inside = False
    for line in (inspect.getdoc(recipe) or "").splitlines():
        if line.startswith("* "):
            found.append([])
            inside = True
        inside = inside and bool(line.strip())
        if inside:
            found[-1].append(line.removeprefix("* ").strip())
    return tuple(" ".join(lines) for lines in found)


def functions(module: Any) -> dict[str, Any]:
    """Return the recipes of a module: its own public functions that need no argument."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
        and not inspect.signature(value).parameters
    }
