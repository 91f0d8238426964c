"""`max_error`: confidence is calibrated, and what is less sure than the threshold is unsure."""

from __future__ import annotations

import numpy as np
import pytest

import posture
from posture.errors import InputError
from posture.predict.answers import UNSURE
from posture.runs.calibration import keep
from posture.runs.confidence import Calibration
from tests.support.explained import make_run
from tests.support.footage import make_video


def kept(place, *, border: float, groups: int = 100):
    """Return a run whose val answers are right from the confidence `border` on, and wrong below."""
    folder = make_run(place)
    confidence = np.linspace(0.34, 1.0, 2000)
    right = confidence >= border
    group = np.arange(2000) % groups
    keep(folder, "best", Calibration(0.8, 0.2, 0.01, 0.0, confidence, right, group))
    return folder


def test_answers_below_the_threshold_are_unsure_and_confidence_is_calibrated(tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=200)
    (tmp_path / "run").mkdir()
    folder = kept(tmp_path / "run", border=0.5)
    plain = posture.load(folder.uri).predict(video)
    judged = posture.load(folder.uri, max_error=0.1).predict(video)
    assert plain.threshold == 0 and not any(part.label == UNSURE for part in plain.segments)
    assert 0.4 < judged.threshold < 0.5  # a few wrong answers below 0.5 are within the promise
    for part in judged.segments:
        assert (part.label == UNSURE) == (part.confidence < judged.threshold) and part.guess in judged.classes
    (before,), (after,) = plain.lanes, judged.lanes
    powers = before.probabilities.astype(np.float64) ** (1 / 0.8)
    np.testing.assert_allclose(after.probabilities, powers / powers.sum(axis=1, keepdims=True), atol=1e-5)
    np.testing.assert_allclose(after.probabilities.sum(axis=1), 1, atol=1e-5)
    assert "--max-error 0.1" in str(judged.model["confidence"]) and "100 groups" in str(judged.model["confidence"])


def test_all_is_unsure_where_only_certainty_would_do(tmp_path):
    video = make_video(tmp_path / "one.mp4", frames=100)
    (tmp_path / "run").mkdir()
    judged = posture.load(kept(tmp_path / "run", border=0.97).uri, max_error=0.2).predict(video)
    assert judged.threshold > 0.9 and {part.label for part in judged.segments} == {UNSURE}


def test_a_promise_that_cannot_be_kept_is_refused_when_the_model_is_loaded(tmp_path):
    with pytest.raises(InputError, match="val has 3 groups"):
        posture.load(kept(tmp_path, border=0.5, groups=3).uri, max_error=0.1)
