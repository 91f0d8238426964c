"""Recipe of `posture demo`: the improved C3D, narrow enough to learn in minutes on two CPU cores."""

from __future__ import annotations

from posture.config import ActionRun, override
from posture.runs.recipes import load_recipe


def demo() -> ActionRun:
    """`improved` with a quarter of its widths, small batches, and weaker crops and colours than real footage needs, so
    that it learns in fewer steps.
    """
    return override(
        load_recipe("jobs/action.py:improved"),
        {
            "name": "demo",
            "epochs": 24,
            "model.width": 0.25,
            "scale.global_batch": 8,
            "data.crop_scale": (0.8, 1.0),
            "data.brightness": 0.1,
            "data.contrast": 0.1,
            "data.saturation": 0.1,
        },
    )
