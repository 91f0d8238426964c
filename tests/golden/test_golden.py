"""Losses of ten training steps and metrics after them are those in numbers.json.

Rewrite that file with `python -m tests.golden` when they are meant to move.
"""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.golden.small_runs import NUMBERS, RUNS, train_and_judge

pytestmark = pytest.mark.long


@pytest.mark.parametrize("name", RUNS)
def test_losses_and_metrics_stay(name):
    expected, found = json.loads(NUMBERS.read_text())[name], train_and_judge(name)
    assert len(expected["losses"]) == 10
    assert _moved(expected, found) == {}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("improved_c3d", {"loss": {"label_smoothing": 0.1001}}),
        ("improved_yolov5", {"loss": {"l1": 0.5001}}),
        ("improved_yolov5", {"loss": {"l2": 1.0001}}),
        ("improved_yolov5", {"loss": {"l3": 0.0501}}),
    ],
)
def test_a_weight_that_is_off_by_a_ten_thousandth_moves_them(name, changes):
    expected, loss = json.loads(NUMBERS.read_text())[name], "/losses/0/train_loss"
    plain, found = (train_and_judge(name, changed, steps=1) for changed in (None, changes))
    assert loss not in _moved(expected, plain) and loss in _moved(expected, found)


def _moved(expected: Any, found: Any) -> dict[str, tuple[Any, Any]]:
    """Return the values (expected, found) that differ by more than a millionth, by their path."""
    expected, found = _flat(expected), _flat(found)
    return {
        path: (expected.get(path), found.get(path))
        for path in expected.keys() | found.keys()
        if not _same(expected.get(path), found.get(path))
    }


def _same(expected: Any, found: Any) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(expected, found, rel_tol=1e-6, abs_tol=1e-9)
    return expected == found


def _flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Return the leaves of lists and dictionaries by their path, such as `/losses/3/train_loss`."""
    if not isinstance(tree, dict | list):
        return {path: tree}
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {place: leaf for key, value in items for place, leaf in _flat(value, f"{path}/{key}").items()}
