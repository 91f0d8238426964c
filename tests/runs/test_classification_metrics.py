"""Classification figures against cases worked out by hand, torchmetrics and independent formulas."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from posture.runs.classification_metrics import CALIBRATION_BINS, ROC_POINTS, classification_metrics


def random_case(segments: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Probabilities that are right more often than chance, every class present."""
    random = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), random.integers(0, classes, segments - classes)])
    logits = random.normal(size=(segments, classes)) * 1.5
    logits[np.arange(segments), labels] += 1.5
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores, labels, [f"class {index}" for index in range(classes)]


def test_a_case_worked_out_by_hand() -> None:
    scores = np.array([
        [0.7, 0.2, 0.1],  # run, right
        [0.4, 0.5, 0.1],  # run, guessed jump
        [0.1, 0.8, 0.1],  # jump, right
        [0.6, 0.3, 0.1],
    ])  # throw, guessed run
    found = classification_metrics(scores, np.array([0, 0, 1, 2]), ["run", "jump", "throw"])
    assert found["accuracy"] == 0.5 and found["majority_accuracy"] == 0.5 and found["count"] == 4
    assert found["top5"] == 1.0  # top-3 of three classes
    assert found["confusion"] == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    run, jump, throw = found["per_class"]
    assert run == {
        "class": "run",
        "count": 2,
        "precision": 0.5,
        "recall": 0.5,
        "f1": 0.5,
        "ap": pytest.approx(0.5 * 1 + 0.5 * 2 / 3),
        "auc": 0.75,
    }
    assert jump == {
        "class": "jump",
        "count": 1,
        "precision": 0.5,
        "recall": 1.0,
        "f1": pytest.approx(2 / 3),
        "ap": 1.0,
        "auc": 1.0,
    }
    # Never guessed: precision 0. All four scores are equal: one threshold, AP = share of positives, AUC one half.
    assert throw == {"class": "throw", "count": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0, "ap": 0.25, "auc": 0.5}
    assert found["macro_precision"] == pytest.approx(1 / 3)
    assert found["macro_recall"] == pytest.approx(0.5)
    assert found["auc"] == pytest.approx(0.75)
    assert found["roc"]["run"] == {"fpr": [0.0, 0.0, 0.5, 0.5, 1.0], "tpr": [0.0, 0.5, 0.5, 1.0, 1.0]}
    assert found["roc"]["throw"] == {"fpr": [0.0, 1.0], "tpr": [0.0, 1.0]}
    # |0.7 - 1|, |0.5 - 0|, |0.8 - 1|, |0.6 - 0|, each alone in its bin
    assert found["ece"] == pytest.approx((0.3 + 0.5 + 0.2 + 0.6) / 4)
    assert sum(found["calibration"]["count"]) == 4


@pytest.mark.parametrize(("segments", "classes", "seed"), [(40, 2, 0), (150, 7, 1), (400, 30, 2)])
def test_agrees_with_torchmetrics(segments: int, classes: int, seed: int) -> None:
    import torchmetrics.functional.classification as reference  # here, since every worker of pytest loads this file

    scores, labels, names = random_case(segments, classes, seed)
    found = classification_metrics(scores, labels, names)
    given = (torch.from_numpy(scores), torch.from_numpy(labels), classes)
    expected = {
        "accuracy": reference.multiclass_accuracy(*given, average="micro"),
        "top5": reference.multiclass_accuracy(*given, average="micro", top_k=min(5, classes)),
        "macro_precision": reference.multiclass_precision(*given),
        "macro_recall": reference.multiclass_recall(*given),
        "macro_f1": reference.multiclass_f1_score(*given),
        "map": reference.multiclass_average_precision(*given),
        "auc": reference.multiclass_auroc(*given),
        "ece": reference.multiclass_calibration_error(*given, n_bins=CALIBRATION_BINS),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value.item(), abs=2e-6), name
    assert found["confusion"] == reference.multiclass_confusion_matrix(*given).tolist()
    for name, values in (
        ("ap", reference.multiclass_average_precision(*given, average=None)),
        ("auc", reference.multiclass_auroc(*given, average=None)),
    ):
        assert [row[name] for row in found["per_class"]] == pytest.approx(values.tolist(), abs=2e-6)


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    scores, labels, names = random_case(120, 4, 3)
    scores = scores.round(1)  # many equal scores
    found = classification_metrics(scores, labels, names)
    for index, row in enumerate(found["per_class"]):
        inside, outside = scores[labels == index, index], scores[labels != index, index]
        pairs = (inside[:, None] > outside).mean() + 0.5 * (inside[:, None] == outside).mean()
        assert row["auc"] == pytest.approx(pairs)


def test_average_precision_is_the_mean_precision_at_each_true_segment() -> None:
    scores, labels, names = random_case(90, 3, 4)
    found = classification_metrics(scores, labels, names)
    for index, row in enumerate(found["per_class"]):
        hits = (labels == index)[np.argsort(-scores[:, index])]
        precisions = [hits[: rank + 1].mean() for rank in np.flatnonzero(hits)]
        assert row["ap"] == pytest.approx(np.mean(precisions))


def test_a_class_absent_from_the_test_split_counts_in_no_mean() -> None:
    scores = np.array([[0.8, 0.1, 0.1], [0.3, 0.1, 0.6], [0.2, 0.7, 0.1]])
    found = classification_metrics(scores, np.array([0, 0, 1]), ["run", "jump", "absent"])
    absent = found["per_class"][2]
    assert absent == {
        "class": "absent",
        "count": 0,
        "precision": None,
        "recall": None,
        "f1": None,
        "ap": None,
        "auc": None,
    }
    assert "absent" not in found["roc"]
    assert found["macro_precision"] == 1.0  # run 1/1, jump 1/1
    assert found["macro_recall"] == 0.75  # run 1/2 (one was called absent), jump 1/1
    assert found["accuracy"] == pytest.approx(2 / 3)


def test_a_single_class_has_no_auc() -> None:
    found = classification_metrics(np.ones((3, 1), dtype=np.float32), np.zeros(3, dtype=np.int64), ["only"])
    assert found["accuracy"] == found["top5"] == found["map"] == found["majority_accuracy"] == 1.0
    assert found["auc"] is None and found["roc"] == {} and found["per_class"][0]["auc"] is None
    assert found["ece"] == 0.0


def test_top_five_counts_the_fifth_and_not_the_sixth() -> None:
    scores = np.tile(np.array([0.3, 0.25, 0.2, 0.1, 0.09, 0.06]), (2, 1))
    assert classification_metrics(scores, np.array([4, 5]), list("abcdef"))["top5"] == 0.5
    # With all scores equal the classes rank by index: exactly one of the six falls out.
    equal = np.full((6, 6), 1 / 6)
    found = classification_metrics(equal, np.arange(6), list("abcdef"))
    assert found["top5"] == pytest.approx(5 / 6) and found["accuracy"] == pytest.approx(1 / 6)


def test_curves_are_thinned_without_losing_their_area() -> None:
    random = np.random.default_rng(5)
    labels = random.integers(0, 2, 4000)
    first = (random.normal(size=4000) - labels).clip(-4, 4) / 10 + 0.5
    found = classification_metrics(np.stack([first, 1 - first], axis=1), labels, ["a", "b"])
    for name, row in zip(["a", "b"], found["per_class"], strict=True):
        fpr, tpr = found["roc"][name]["fpr"], found["roc"][name]["tpr"]
        assert 50 < len(fpr) == len(tpr) <= ROC_POINTS
        assert (fpr[0], tpr[0], fpr[-1], tpr[-1]) == (0, 0, 1, 1)
        assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(tpr) >= 0)
        assert np.trapezoid(tpr, fpr) == pytest.approx(row["auc"], abs=0.005)


def test_calibration_bins_are_closed_above() -> None:
    # 0.6 = 9/15 belongs to the ninth bin; a top probability of 1 (or a rounding above it) to the last.
    found = classification_metrics(np.array([[0.6, 0.4], [1.0, 0.0], [1.00001, 0.0]]), np.array([0, 0, 0]), ["a", "b"])
    counts = found["calibration"]["count"]
    assert counts[8] == 1 and counts[14] == 2 and sum(counts) == 3
    assert found["calibration"]["confidence"][8] == pytest.approx(0.6)
    assert found["calibration"]["accuracy"][0] is None and found["calibration"]["confidence"][0] is None


def test_everything_is_plain_json() -> None:
    found = classification_metrics(*random_case(50, 6, 6))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


@pytest.mark.parametrize(
    ("scores", "labels", "classes", "message"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), ["a", "b"], "at least one"),
        (np.ones((2, 2)) / 2, np.array([0]), ["a", "b"], "2 integers"),
        (np.ones((1, 2)) / 2, np.array([0.0]), ["a", "b"], "1 integers"),
        (np.ones((1, 2)) / 2, np.array([2]), ["a", "b"], "0..1"),
        (np.ones((1, 2)) / 2, np.array([0]), ["a", "a"], "different names"),
        (np.array([[3.0, -2.0]]), np.array([0]), ["a", "b"], "probabilities"),
        (np.array([[np.nan, 0.5]]), np.array([0]), ["a", "b"], "probabilities"),
    ],
)
def test_wrong_input_is_refused(scores: np.ndarray, labels: np.ndarray, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classification_metrics(scores, labels, classes)


def test_importing_is_fast() -> None:
    heavy = "{'torch', 'torchmetrics', 'pydantic', 'ray', 'scipy', 'sklearn'}"
    program = f"import sys, posture.runs.classification_metrics; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
