import numpy as np
import pytest

from posture.retrain.drift import Features, class_shift, measure, two_sample_auc
from tests.support.figures.decision import footage


def test_footage_of_one_kind_cannot_be_told_apart():
    covered = [
        (found := two_sample_auc(footage(2 * seed), footage(2 * seed + 1), seed=seed))["low"] <= 0.5
        for seed in range(5)
    ]
    assert sum(covered) >= 4 and 0.2 < found["value"] < 0.8, "groups that differ are no drift"


def test_another_camera_can_be_told_apart():
    found = two_sample_auc(footage(0), footage(1, shift=1.5))
    assert found["low"] > 0.8 and found["low"] <= found["value"] <= found["high"] <= 1


def test_another_mix_of_classes_is_no_drift():
    new = footage(1)
    mostly = new.of((new.labels == "run") | (np.arange(len(new.labels)) % 6 == 0))
    assert 0.2 < two_sample_auc(footage(0), mostly)["value"] < 0.8


def test_the_class_that_shifted_is_named():
    old, new = footage(0), footage(1)
    moved = Features(
        np.where((new.labels == "run")[:, None], new.features + 2.0, new.features),
        new.confidence,
        new.labels,
        new.groups,
    )
    rows = {row["class"]: row for row in measure(old, moved)["classes"]}
    assert rows["run"]["shifted"] and not rows["jump"]["shifted"] and rows["run"]["distance"] > rows["jump"]["distance"]
    assert rows["run"]["old"] == 36 and class_shift(footage(0, groups=1), new, "run")["chance"] is None


def test_confidence_that_falls_is_seen_and_that_of_unknown_classes_stands_apart():
    new = footage(1, sure=0.6, classes=("jump", "run", "throw"))
    found = measure(footage(0), new)
    assert found["shared"] == ["jump", "run"] and found["segments"] == {"old": 72, "new": 48}
    confidence = found["confidence"]
    assert confidence["difference"]["high"] < -0.1 and confidence["mean"]["new"] == pytest.approx(0.6, abs=0.05)
    assert all(sum(confidence["histogram"][side]) == pytest.approx(1) for side in ("old", "new", "unknown"))


def test_too_few_groups_claim_nothing():
    found = measure(footage(0), footage(1, groups=2))
    assert (
        found["auc"] is None
        and not found["classes"]
        and "the new footage" in found["too_few"]
        and "2 groups" in found["too_few"]
    )
    assert measure(footage(0), footage(1, classes=("throw",)))["too_few"]
