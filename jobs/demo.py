"""The demo's run: the improved C3D, narrow enough to learn in minutes on two CPU cores."""

from __future__ import annotations

from posture.config import Run, override
from posture.recipes import load_recipe


def demo() -> Run:
    """A quarter of the paper's widths; the rest is `improved`."""
    return override(load_recipe("jobs/action.py:improved"), {"name": "demo", "model.width": 0.25, "epochs": 20, "scale.global_batch": 16})
