"""Against cases worked by hand, against definitions, and against what resampling groups must mean."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from posture.runs import statistics
from posture.runs.classification_metrics import classification_metrics

# Two classes; columns are the scores of class 0 and 1. Class 1 ranks +-+-: AP (1 + 2/3) / 2, AUC 3/4. Class 0, read
# backwards, the same.
SCORES = np.array([[0.1, 0.9], [0.2, 0.8], [0.3, 0.7], [0.9, 0.1]])
LABELS = np.array([1, 0, 1, 0])


def test_mean_and_spread_by_hand() -> None:
    spread = statistics.mean_and_spread([0.8, 0.9, 1.0])
    reach = 4.302653 * 0.1 / math.sqrt(3)  # t(0.975) on two degrees of freedom, from a table
    assert (spread.mean, spread.deviation, spread.low, spread.high) == pytest.approx((
        0.9,
        0.1,
        0.9 - reach,
        0.9 + reach,
    ))
    assert spread.values == (0.8, 0.9, 1.0)


def test_one_seed_has_no_spread() -> None:
    assert statistics.mean_and_spread([0.7]) == statistics.Spread(0.7, None, None, None, (0.7,))
    with pytest.raises(ValueError, match="at least one"):
        statistics.mean_and_spread([])


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [(8, 2, 2 * (1 + 10 + 45) / 1024), (2, 8, 112 / 1024), (5, 0, 2 / 32), (3, 3, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_by_hand(ours: int, theirs: int, p: float) -> None:
    agreeing = [(True, True)] * 4 + [(False, False)] * 3
    pairs = np.array(agreeing + [(True, False)] * ours + [(False, True)] * theirs)
    assert statistics.mcnemar(pairs[:, 0], pairs[:, 1]) == (ours, theirs, pytest.approx(p))


def test_holm_by_hand() -> None:
    adjusted = statistics.holm({
        "a": 0.01,
        "b": 0.04,
        "c": 0.03,
        "d": 0.005,
    })  # 3 * 0.01, at least c's, 2 * 0.03, 4 * 0.005
    assert adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}) and list(adjusted) == [
        "a",
        "b",
        "c",
        "d",
    ]
    assert (
        statistics.holm({"a": 0.7, "b": 0.6}) == {"a": 1.0, "b": 1.0}
        and statistics.holm({"a": 0.2}) == {"a": 0.2}
        and statistics.holm({}) == {}
    )


def test_metrics_of_resamples_by_hand() -> None:
    counts = np.array([[1, 1], [2, 0], [0, 2]], dtype=np.float32)
    found = statistics.resampled_metrics(SCORES, LABELS, ["a", "a", "b", "b"], counts)
    assert found["accuracy"] == pytest.approx([3 / 4, 1 / 2, 1])  # the second segment is the wrong one
    # within a group all is in order
    assert found["map"] == pytest.approx([5 / 6, 1, 1]) and found["auc"] == pytest.approx([3 / 4, 1, 1])


def test_metrics_of_unequal_weights_by_hand() -> None:
    counts = np.array([[3, 1, 1, 0]], dtype=np.float32)
    found = statistics.resampled_metrics(SCORES, LABELS, ["a", "b", "c", "d"], counts)
    # class 1: three times +, then -, then +: precision 1 three times, 4/5 once. class 0: behind one of four others.
    assert found["map"] == pytest.approx([((3 + 4 / 5) / 4 + 1 / 2) / 2]) and found["auc"] == pytest.approx([
        (3 / 4 + 3 / 4) / 2
    ])


def test_weights_mean_segments_that_stand_there_more_than_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "COLUMNS", 7)  # several blocks within a class
    random = np.random.default_rng(0)
    labels = random.choice([0, 1, 2, 4], size=60)  # class 3 has no segments, others are missing from some resamples
    scores = random.dirichlet(np.ones(5), size=60).round(1)  # many equal scores
    scores = (scores + 1e-9) / (scores + 1e-9).sum(axis=1, keepdims=True)
    groups = [f"{label}-{number % 3}" for number, label in enumerate(labels)]
    counts = statistics.resampled_groups(groups, resamples=40, seed=1)
    found = statistics.resampled_metrics(scores, labels, groups, counts)
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    for row, weights in enumerate(counts.astype(int)):
        chosen = np.repeat(np.arange(60), [weights[number[group]] for group in groups])
        expected = classification_metrics(scores[chosen], labels[chosen], list("abcde"))
        assert [found[key][row] for key in ("accuracy", "map", "auc")] == pytest.approx([
            expected[key] for key in ("accuracy", "map", "auc")
        ])


def test_resamples_draw_whole_groups() -> None:
    counts = statistics.resampled_groups(["x", "x", "y"], resamples=20_000, seed=3)
    assert counts[0].tolist() == [1, 1] and (counts.sum(axis=1) == 2).all()
    shares = {first: float((counts[1:, 0] == first).mean()) for first in (0, 1, 2)}
    assert shares == pytest.approx({0: 0.25, 1: 0.5, 2: 0.25}, abs=0.015)
    assert (counts == statistics.resampled_groups(["x", "y"], resamples=20_000, seed=3)).all()
    assert (counts != statistics.resampled_groups(["x", "y"], resamples=20_000, seed=4)).any()


def drawn(values: Any, observed: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    ours = np.concatenate([[observed], values])
    return ours, np.zeros_like(ours)


def test_interval_and_p_of_many_groups_are_the_plain_percentile_ones() -> None:
    values = np.arange(1, 1000) / 1000 - 0.1  # -0.099 .. 0.899, one hundred of them at or below 0
    found = statistics.difference(*drawn(values), groups=10**9)
    assert found.difference == 0.5
    assert (found.low, found.high) == pytest.approx((-0.099 + 0.025 * 0.998, 0.899 - 0.025 * 0.998))
    assert found.p == pytest.approx(2 * 101 / 1000)
    flipped = statistics.difference(*reversed(drawn(values)), groups=10**9)
    assert (flipped.difference, flipped.low, flipped.high, flipped.p) == pytest.approx((
        -0.5,
        -found.high,
        -found.low,
        found.p,
    ))


def test_two_groups_widen_to_a_t_on_one_degree_of_freedom() -> None:
    values = np.arange(1, 1000) / 1000 - 0.1
    found = statistics.difference(*drawn(values), groups=2)
    # a t interval on one degree spans 18 deviations
    assert (found.low, found.high) == pytest.approx((values[0], values[-1]))
    deviations = NormalDist().inv_cdf(101 / 1000) / math.sqrt(2)
    assert found.p == pytest.approx(1 + 2 * math.atan(deviations) / math.pi)  # Cauchy


def test_p_agrees_with_the_interval_and_is_never_0() -> None:
    for below in (0, 5, 15, 25, 35, 120):
        found = statistics.difference(*drawn(np.linspace(-below, 1999 - below, 1999) + 0.5), groups=12)
        assert found.low is not None and found.p is not None and (found.p < 0.05) == (found.low > 0) and found.p > 0


def test_the_least_p_is_that_of_a_lead_on_every_resample() -> None:
    for groups in (2, 3, 4, 12, 60):
        found = statistics.difference(*drawn(np.linspace(0.1, 0.9, 500)), groups=groups)
        assert statistics.least_p(groups, resamples=500) == found.p
    deviations = NormalDist().inv_cdf(1 / 10_001)
    assert statistics.least_p(2) == pytest.approx(1 + 2 * math.atan(deviations / math.sqrt(2)) / math.pi)  # Cauchy
    by = deviations / math.sqrt(4 / 3) / math.sqrt(3)  # t on three degrees of freedom, its distribution in closed form
    assert (
        statistics.least_p(4)
        == pytest.approx(1 + 2 * (by / (1 + by * by) + math.atan(by)) / math.pi)
        == pytest.approx(0.0486, abs=1e-4)
    )


def test_the_least_p_grows_with_what_is_compared_and_falls_with_groups() -> None:
    one = statistics.least_p(4)
    assert one is not None
    assert (
        statistics.least_p(4, comparisons=3)
        == pytest.approx(3 * one)
        == statistics.holm({"a": one, "b": one, "c": one})["a"]
    )
    assert statistics.least_p(2, comparisons=9) == 1.0 and statistics.least_p(1) is None
    leasts = [statistics.least_p(groups) or 1.0 for groups in range(2, 30)]
    assert leasts == sorted(leasts, reverse=True) and leasts[-1] > 1 / 10_001


def test_the_interval_is_that_of_independent_groups_not_of_segments() -> None:
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 6)
    ours = np.repeat(random.random(40) < 0.7, 6)  # a group is right or wrong as one
    theirs = np.repeat(random.random(40) < 0.5, 6)
    labels = np.zeros(240, dtype=int)
    scores = [np.stack([right, ~right], axis=1).astype(float) for right in (ours, theirs)]
    found = statistics.cluster_bootstrap(*scores, labels, groups.tolist(), resamples=4000)["accuracy"]
    per_group = (ours.astype(float) - theirs)[::6]
    reach = 2.022691 * per_group.std(ddof=1) / math.sqrt(40)  # t(0.975) on 39 degrees of freedom
    assert found.difference == pytest.approx(per_group.mean())
    assert (found.low, found.high) == pytest.approx(
        (per_group.mean() - reach, per_group.mean() + reach), abs=0.1 * reach
    )
    alone = statistics.cluster_bootstrap(*scores, labels, range(240), resamples=4000)["accuracy"]
    assert (found.high - found.low) / (alone.high - alone.low) == pytest.approx(math.sqrt(6), rel=0.1)  # type: ignore[operator]


def test_equal_models_do_not_differ() -> None:
    found = statistics.cluster_bootstrap(SCORES, SCORES, LABELS, ["a", "b", "c", "c"], resamples=200)
    assert set(found) == {"accuracy", "map", "auc"}
    assert all((one.difference, one.low, one.high, one.p) == (0, 0, 0, 1) for one in found.values())


def test_the_same_seed_gives_the_same_result() -> None:
    first, again, other = (
        statistics.cluster_bootstrap(SCORES, SCORES[::-1], LABELS, list("abcd"), resamples=300, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first == again and first != other


def test_one_group_and_one_class_tell_nothing() -> None:
    assert statistics.cluster_bootstrap(SCORES, SCORES[::-1], LABELS, ["a"] * 4, resamples=50)[
        "accuracy"
    ] == statistics.Difference(0.5, None, None, None)
    found = statistics.cluster_bootstrap(SCORES, SCORES[::-1], np.zeros(4, dtype=int), list("abcd"), resamples=50)
    assert math.isnan(found["auc"].difference) and found["auc"].p is None and found["accuracy"].p is not None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="a label and a group for each segment"):
        statistics.cluster_bootstrap(SCORES, SCORES, LABELS, ["a"] * 3)
    with pytest.raises(ValueError, match="at least one group"):
        statistics.resampled_groups([])


def test_accuracy_on_resamples_is_that_of_all_figures() -> None:
    random = np.random.default_rng(0)
    scores, labels, groups = (
        random.dirichlet(np.ones(3), 40),
        random.integers(0, 3, 40),
        random.integers(0, 7, 40).tolist(),
    )
    counts = statistics.resampled_groups(groups, resamples=50)
    accuracy = statistics.resampled_accuracy(scores.argmax(axis=1) == labels, groups, counts)
    assert accuracy == pytest.approx(statistics.resampled_metrics(scores, labels, groups, counts)["accuracy"])


def test_an_interval_of_many_groups_is_the_binomials() -> None:
    # each a group of its own: 0.75 +- 1.966 standard errors of 0.02165, t(0.975) on 399 degrees of freedom
    right = np.arange(400) < 300
    counts = statistics.resampled_groups(range(400), resamples=20_000)
    low, high = statistics.interval(statistics.resampled_accuracy(right, range(400), counts), groups=400)
    assert (low, high) == pytest.approx((0.75 - 1.966 * 0.02165, 0.75 + 1.966 * 0.02165), abs=0.004)


def test_groups_that_tell_nothing_give_no_interval() -> None:
    for right, groups in (
        (np.array([True, False]), "aa"),
        (np.array([True] * 7), "abcdefg"),
        (np.array([True, False, True, False]), "abcd"),
    ):
        counts = statistics.resampled_groups(groups, resamples=100)
        told = statistics.told_interval(
            statistics.resampled_accuracy(right, groups, counts), of="accuracy", groups=len(set(groups))
        )
        assert told == {"of": "accuracy", "low": None, "high": None, "groups": len(set(groups)), "resamples": 100}
