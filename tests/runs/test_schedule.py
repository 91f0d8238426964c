"""`epochs: auto`: enough optimiser steps, however few clips there are."""

from __future__ import annotations

import pytest

from posture.config import ActionRun, Scale, override
from posture.errors import InputError
from posture.models.configs import C3D, Linear
from posture.runs.recipes import load_recipe
from posture.runs.schedule import LEAST_EPOCHS, schedule

AUTO = ActionRun(name="auto", model=C3D(), epochs="auto", least_steps=2000)


@pytest.mark.parametrize(
    ("clips", "batch", "epochs"),
    [
        (9, 9, 2000),  # one step in an epoch
        (60, 8, 286),  # 7 steps
        (150, 16, 223),  # 9 steps
        (300, 32, 223),
        (4_000, 32, LEAST_EPOCHS),  # 125 steps in an epoch are more than enough
        (1_000_000, 32, LEAST_EPOCHS),
    ],
)
def test_few_clips_get_smaller_batches_and_more_epochs(clips, batch, epochs):
    changes, sentence = schedule(AUTO, clips)
    assert (changes["scale.global_batch"], changes["epochs"]) == (batch, epochs)
    run = override(AUTO, changes)
    assert run.chosen_epochs * (clips // batch) >= 2000
    assert f"epochs auto: {epochs:,} epochs of" in sentence and f"in batches of {batch}" in sentence
    assert ("instead of 32" in sentence) == (batch != 32)


def test_warm_up_and_early_stop_follow_the_epochs_unless_the_run_has_its_own():
    changes, sentence = schedule(AUTO, 60)
    assert changes["optim.warmup_epochs"] == 14.3 and changes["patience"] == 172
    assert "the first 14.3 epochs warm up" in sentence and "after 172 epochs without a better accuracy" in sentence
    own, _ = schedule(override(AUTO, {"patience": 7, "optim.warmup_epochs": 20.0}), 60)
    assert (own["patience"], own["optim.warmup_epochs"]) == (7, 20.0)
    few, _ = schedule(override(AUTO, {"steps_per_epoch": 4}), 60)
    assert few["epochs"] == 500


def test_the_default_network_gets_small_batches_of_few_clips_and_no_fewer_epochs_than_others():
    improved, other = load_recipe("jobs/action.py:improved"), load_recipe("jobs/action.py:c3d")
    for clips, batch, epochs in ((20, 10, 75), (40, 8, 50), (234, 16, 50), (100_000, 32, 50)):
        changes, _ = schedule(improved, clips)
        assert (changes["scale.global_batch"], changes["epochs"]) == (batch, epochs)
        assert epochs >= other.chosen_epochs and epochs * (clips // batch) >= improved.least_steps


def test_detectors_have_it_too():
    run = override(load_recipe("jobs/detector.py:yolov5s"), {"epochs": "auto", "least_steps": 1000})
    changes, sentence = schedule(run, 40)
    assert (changes["scale.global_batch"], changes["epochs"]) == (8, 200) and "map50_95 on val" in sentence


def test_batches_stay_divisible_by_the_workers():
    run = override(AUTO, {"scale.workers": [1, 3], "scale.global_batch": 48})
    assert schedule(run, 100)[0]["scale.global_batch"] == 12
    assert override(run, schedule(run, 100)[0]).scale.global_batch == 12


def test_a_number_of_epochs_stays_as_it_is():
    assert schedule(override(AUTO, {"epochs": 5}), 9) == ({}, "")


def test_a_network_that_is_fitted_at_once_takes_any_number_of_clips():
    linear = ActionRun(name="linear", model=Linear(), epochs=1, scale=Scale(workers=2, global_batch=32))
    assert [schedule(linear, clips)[0] for clips in (1, 7, 90)] == [
        {},
        {"scale.global_batch": 6},
        {"scale.global_batch": 32},
    ]


def test_what_needs_a_number_says_so():
    with pytest.raises(InputError, match="epochs: auto is chosen when a run begins"):
        _ = AUTO.chosen_epochs
    for wrong in ("car", 0, 2.5, True, None):
        with pytest.raises(InputError, match="epochs: must be a number of epochs from 1 to 1,000,000, or auto, not"):
            override(AUTO, {"epochs": wrong})
