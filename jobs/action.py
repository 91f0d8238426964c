"""Action classifiers: the published C3D and the paper's improved C3D (sections 2.2 and 3.2)."""

from __future__ import annotations

from posture.config import Optim, Run, override
from posture.models.configs import C3D, IMPROVED


def c3d() -> Run:
    """C3D as published (Tran 2015) with the paper's training values: lr 0.025, weight decay 0.0003.

    The paper names no optimiser; that learning rate is one for SGD with momentum. It trains on 56 x 56: `--set model.size=56`.
    """
    return Run(name="c3d", model=C3D(), optim=Optim(name="sgd", lr=0.025, weight_decay=0.0003, momentum=0.9))


def improved() -> Run:
    """The paper's improved C3D on 16 frames of 56 x 56."""
    return override(c3d(), {"name": "improved", **{f"model.{field}": value for field, value in IMPROVED.items()}})
