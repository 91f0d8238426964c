"""Calibrated confidence and the threshold that keeps a promised error, on probabilities with known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from posture.errors import InputError
from posture.runs.confidence import Calibration, error_interval, fit, fit_temperature, intraclass_correlation, tempered

SEEDS = range(20)


def drawn(
    seed: int, groups: int, *, each: int = 10, classes: int = 5, spread: float = 1.0, sharpness: float = 2.0
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return probabilities, labels and groups of segments. The classes of some groups are harder to see than those of
    others by `spread`, and the network is surer than it should be by `sharpness`.
    """
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), generator.integers(each // 2, each * 3 // 2 + 1, groups))
    labels = generator.integers(0, classes, len(group))
    logits = generator.normal(size=(len(group), classes))
    logits[np.arange(len(group)), labels] += 3.0 + spread * generator.normal(size=groups)[group]
    powers = np.exp(sharpness * logits)
    return powers / powers.sum(axis=1)[:, None], labels, [f"athlete {number}" for number in group]


def test_the_error_of_what_is_answered_lies_inside_its_interval_on_new_groups() -> None:
    """In at least 18 of 20 seeds, and so does the promise; what is answered is a good part of the footage."""
    inside, kept, answered = 0, 0, []
    for seed in SEEDS:
        chosen = (fitted := fit(*drawn(seed, 80))).threshold(0.1)
        assert chosen.low <= chosen.error <= chosen.high <= 0.1
        scores, labels, _ = drawn(1000 + seed, 600)
        calibrated = fitted.apply(scores)
        sure = calibrated.max(axis=1) >= chosen.value
        error = (calibrated.argmax(axis=1) != labels)[sure].mean()
        inside += chosen.low <= error <= chosen.high
        kept += error <= 0.1
        answered.append(sure.mean())
    assert inside >= 18 and kept >= 18
    assert min(answered) > 0.4


def test_the_interval_of_independent_answers_would_break_its_word_on_groups() -> None:
    """The test above can fail: without the correlation within groups, the same intervals miss far too often."""
    inside = 0
    for seed in SEEDS:
        scores, labels, groups = drawn(seed, 20, each=40, spread=2.0)
        wrong = scores.argmax(axis=1) != labels
        low, high = error_interval(int(wrong.sum()), np.array(groups), correlation=0.0)
        new_scores, new_labels, _ = drawn(1000 + seed, 600, spread=2.0)
        inside += low <= (new_scores.argmax(axis=1) != new_labels).mean() <= high
    assert inside < 18


def test_the_temperature_of_a_network_that_is_too_sure_is_found() -> None:
    generator = np.random.default_rng(0)
    honest = generator.dirichlet(np.full(4, 0.5), 4000)
    labels = np.array([generator.choice(4, p=row) for row in honest])
    assert fit_temperature(honest, labels) == pytest.approx(1.0, abs=0.05)
    assert fit_temperature(tempered(honest, 1 / 2.5), labels) == pytest.approx(2.5, abs=0.12)
    fitted = fit(tempered(honest, 1 / 2.5), labels, [str(number // 10) for number in range(4000)])
    assert fitted.ece_before is not None and fitted.ece_after is not None
    assert fitted.ece_before > 0.1 and fitted.ece_after < 0.03


def test_probabilities_become_those_of_a_softmax_with_temperature() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 6)) * 4
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1)[:, None]
    expected = np.exp(logits / 3) / np.exp(logits / 3).sum(axis=1)[:, None]
    np.testing.assert_allclose(tempered(softmax, 3.0), expected, rtol=1e-9)
    certain = tempered(np.array([[1.0, 0.0, 0.0]], np.float32), 2.0)
    assert np.isfinite(certain).all() and certain.sum() == pytest.approx(1) and certain.argmax() == 0


def test_the_answers_stay() -> None:
    scores, labels, groups = drawn(0, 30)
    calibrated = fit(scores, labels, groups).apply(scores.astype(np.float32))
    assert calibrated.dtype == np.float32 and (calibrated.argmax(axis=1) == scores.argmax(axis=1)).all()
    np.testing.assert_allclose(calibrated.sum(axis=1), 1, rtol=1e-6)


def test_a_split_without_errors_makes_no_answer_certain() -> None:
    scores = np.full((20, 3), 0.05)
    scores[:, 0] = 0.9
    fitted = fit(scores, np.zeros(20, np.int64), [str(number // 2) for number in range(20)])
    assert 0.2 < fitted.temperature < 1 and fitted.apply(scores).max() < 0.9999


def test_intervals_of_independent_answers_are_those_of_clopper_and_pearson() -> None:
    for wrong, total in ((0, 4000), (3, 4000), (200, 4000), (4000, 4000)):
        exact = binomtest(wrong, total).proportion_ci(0.95)
        found = error_interval(wrong, np.arange(total), correlation=0.0)
        assert found == pytest.approx((exact.low, exact.high), rel=2e-3, abs=1e-6)


def test_alike_answers_of_a_group_count_less_and_one_group_says_nothing() -> None:
    groups = np.repeat(np.arange(50), 20)
    independent, alike = (error_interval(10, groups, correlation=value) for value in (0.0, 1.0))
    assert alike[0] < independent[0] < independent[1] < alike[1]
    whole = error_interval(1, np.arange(50), correlation=0.0)  # groups of one piece: as many answers as groups
    assert error_interval(20, groups, correlation=1.0) == pytest.approx(whole, rel=1e-9)
    assert error_interval(0, np.zeros(500), correlation=0.0) == (0.0, 1.0)


def test_the_correlation_within_groups_is_measured() -> None:
    generator = np.random.default_rng(0)
    group = np.repeat(np.arange(2000), 5)
    own = generator.normal(size=2000)[group]
    for share in (0.0, 0.3, 1.0):
        values = np.sqrt(share) * own + np.sqrt(1 - share) * generator.normal(size=len(group))
        assert intraclass_correlation(values, group) == pytest.approx(share, abs=0.03)
    assert intraclass_correlation(np.ones(6), np.array([0, 0, 1, 1, 2, 2])) == 1.0
    assert intraclass_correlation(generator.normal(size=5), np.arange(5)) == 1.0


def test_a_lower_promise_answers_more_rarely() -> None:
    fitted = fit(*drawn(0, 200))
    strict, loose = fitted.threshold(0.05), fitted.threshold(0.15)
    assert strict.value > loose.value and strict.answered < loose.answered
    assert "% of" in strict.sentence and "--max-error 0.05" in strict.sentence and "200 groups" in strict.sentence
    assert strict.answered == pytest.approx((fitted.confidence >= strict.value).mean())


def test_a_promise_that_val_cannot_show_is_refused_with_the_one_it_can() -> None:
    fitted = fit(*drawn(0, 40))
    with pytest.raises(InputError, match=r"--max-error 0.001 cannot be promised: .*the least .* promise is 0\.\d+"):
        fitted.threshold(0.001)
    guessing = np.random.default_rng(0).dirichlet(np.ones(5), 400)
    lost = fit(guessing, np.arange(400) % 5, [str(number // 10) for number in range(400)])
    with pytest.raises(InputError, match="cannot promise any useful one"):
        lost.threshold(0.05)
    with pytest.raises(InputError, match="val has 4 groups, and a promise about new ones needs at least 5"):
        fit(*drawn(0, 4)).threshold(0.2)
    for share in (0.0, 1.0, -0.1, 5, float("nan")):
        with pytest.raises(InputError, match="above 0 and below 1"):
            fitted.threshold(share)


def test_a_split_without_segments_or_with_one_group_is_said() -> None:
    nothing = fit(np.zeros((0, 3)), np.zeros(0, np.int64), [])
    assert nothing.temperature == 1.0 and "no segments" in nothing.sentence
    scores, labels, _ = drawn(0, 10)
    alone = fit(scores, labels, ["one"] * len(labels))
    assert isinstance(alone, Calibration) and alone.ece_after is None and "one group cannot say" in alone.sentence
    assert "0 groups" in refused(nothing) and "1 group," in refused(alone)


def refused(fitted: Calibration) -> str:
    with pytest.raises(InputError) as told:
        fitted.threshold(0.1)
    return str(told.value)
