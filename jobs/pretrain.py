"""Pretraining without labels: a network learns from a store's clips as they are, and then classes from few labels."""

from __future__ import annotations

from posture.config import AnyRun, override
from posture.runs.recipes import load_recipe

NETWORKS = ("improved", "improved_112", "improved_paper", "c3d", "r3d_18", "mc3_18", "r2plus1d_18")


def pretrain() -> list[AnyRun]:
    """The networks of `action.py` that see a clip's frames alone, to learn without labels: `posture train
    pretrain.improved --store STORE --name first`, then `posture train improved --store STORE --weights runs/first`.

    The task is contrast; `--set pretext=transformations` chooses the other one. Crops are smaller than a classifier's,
    since two views must differ. Batches of 8 clips have 32 views. `jobs/README.md` has the figures behind it.
    """
    changes = {"pretext": "contrast", "data.crop_scale": (0.3, 1.0), "epochs": 50, "scale.global_batch": 8}
    return [override(load_recipe(f"jobs/action.py:{name}"), changes) for name in NETWORKS]
