"""`posture sweep`: writes a search space as files for W&B sweeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App

from posture.commands.options import Sets, read_sets
from posture.config import override
from posture.data.store.files import absolute
from posture.display.console import out as console
from posture.display.console import suggest
from posture.display.ranges import between
from posture.errors import InputError
from posture.runs.recipes import full_path, load_recipe
from posture.search.trial import parse_objectives
from posture.search.wandb_sweep import sweep_files

command = App(
    name="sweep",
    help_epilogue="Example: posture sweep tune_spaces/action.py --base jobs/action.py:improved --store STORE",
)


@command.default
def sweep(
    space: str,
    /,
    *,
    base: str,
    store: str,
    objective: str | None = None,
    trials: Annotated[int, between(1)] = 40,
    seed: int = 0,
    submit: bool = False,
    sets: Sets = (),
    out: Path = Path("sweeps"),
) -> None:
    """Write a search space as files for W&B sweeps: one for W&B's Optuna engine, and one for W&B's own search.

    Parameters
    ----------
    space
        FILE.py:function of an Optuna trial (`space` if no function is named).
    base
        FILE.py:function of the recipe to change.
    store
        Folder or s3:// prefix of the store, as the agents see it.
    objective
        Metric on val to optimise: accuracy, map, map50_95 ...
    trials
        Number of runs of the sweep.
    seed
        Seed of the sampler.
    submit
        Agents submit each run to the Ray cluster of RAY_ADDRESS (ray job submit) instead of training themselves.
    sets
        Change a field of the base recipe: --set epochs=20 (repeatable).
    out
        Folder for the files.
    """
    write_sweep(
        space,
        full_path(base),
        store,
        objective=objective,
        trials=trials,
        seed=seed,
        submit=submit,
        changes=read_sets(sets),
        out=out,
    )
    suggest(f"wandb sweep {out / 'sweep.yaml'}")


def write_sweep(
    space: str,
    base: str,
    store: str,
    *,
    objective: str | None,
    trials: int,
    seed: int,
    submit: bool,
    changes: dict[str, Any],
    out: Path,
) -> None:
    """Write sweep.yaml, sweep_space.py and sweep_plain.yaml below `out`. Raises InputError."""
    goal = parse_objectives(objective, override(load_recipe(base), changes))[0]
    files = sweep_files(
        space, base, absolute(store), changes=changes, objective=goal, trials=trials, seed=seed, submit=submit
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_text(content)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror}") from None
    console.print(
        f"{out / 'sweep.yaml'}: W&B's Optuna engine with {space} as its search space (sweep_space.py); in {out}:"
    )
    console.print(
        "  wandb sweep sweep.yaml; wandb sweep-scheduler ENTITY/PROJECT/SWEEP; "
        "wandb agent ENTITY/PROJECT/SWEEP on each machine"
    )
    notes = [line.removeprefix("# ") for line in files["sweep_plain.yaml"].splitlines() if line.startswith("#")][1:]
    console.print(f"{out / 'sweep_plain.yaml'}: W&B's own search. {' '.join(note.strip() for note in notes)}")
