"""Inputs of real situations that lie beside the checkout."""

from __future__ import annotations

from pathlib import Path

import pytest

CASES = Path(__file__).parents[3] / "shared" / "cases"


def case(name: str) -> str:
    """The folder of that situation; the test is skipped if it is not there."""
    folder = CASES / name
    if not folder.is_dir():
        pytest.skip(f"no cases at {CASES}")
    return str(folder)
