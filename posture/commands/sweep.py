"""`posture sweep`: writes a search space as files that W&B's sweeps understand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from posture.config import override
from posture.data.store.files import absolute
from posture.display.console import out as console
from posture.errors import InputError
from posture.runs.recipes import load_recipe
from posture.search.trial import parse_objectives
from posture.search.wandb_sweep import sweep_files


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
        "  wandb sweep sweep.yaml; wandb sweep-scheduler ENTITY/PROJECT/SWEEP; wandb agent ENTITY/PROJECT/SWEEP on each machine"
    )
    notes = [line.removeprefix("# ") for line in files["sweep_plain.yaml"].splitlines() if line.startswith("#")][1:]
    console.print(f"{out / 'sweep_plain.yaml'}: W&B's own search. {' '.join(note.strip() for note in notes)}")
