"""How sure a difference between two classifiers is: paired cluster bootstrap, McNemar's test, Holm's adjustment, spread
over seeds.

Segments cut from one source video are not independent, so the bootstrap draws whole groups (Field and Welsh 2007; the
paper names no test). Legend: s segments, P images, K classes, G groups, B resamples. Labels are class indices, scores
are probabilities, higher is more likely.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posture.tasks.detection_metrics import ScoredImage, match_detections, weighted_ap

RESAMPLES = 10_000
LEAST_GROUPS = 5
"""Of fewer groups a resample has so few outcomes that an interval of a single figure would promise too much."""
LEVEL = 0.95
"""Of every interval here."""

COLUMNS = 512
"""Segments handled at once: bounds the memory of a bootstrap to B x COLUMNS numbers."""


@dataclass(frozen=True)
class Difference:
    """`ours - theirs` of one metric; `low`, `high`: 95 % confidence interval; `p`: two-sided. None where groups are too
    few to tell.
    """

    difference: float
    low: float | None
    high: float | None
    p: float | None


@dataclass(frozen=True)
class Spread:
    """Mean of a figure over seeds; `deviation`: sample standard deviation; `low`, `high`: 95 % t interval. None for
    fewer than two seeds.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    values: tuple[float, ...]


def mean_and_spread(values: Sequence[float]) -> Spread:
    """Over seeds, with Student's t on n - 1 degrees of freedom. Raises ValueError without values."""
    from scipy.stats import t

    if not len(values):
        raise ValueError("a mean takes at least one value")
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Spread(mean, None, None, None, tuple(values))
    deviation = float(np.std(values, ddof=1))
    reach = float(t.ppf(0.5 + LEVEL / 2, count - 1)) * deviation / math.sqrt(count)
    return Spread(mean, deviation, mean - reach, mean + reach, tuple(values))


def mcnemar(ours_right: np.ndarray, theirs_right: np.ndarray) -> tuple[int, int, float]:
    """(segments only we get right, segments only they get right, exact two-sided p), both bool (s,).

    Under the null hypothesis each segment on which the two disagree falls to either side with probability 1/2 (McNemar
    1947, exact binomial form). It takes segments for independent: a description here, the cluster bootstrap is the
    test.
    """
    from scipy.stats import binomtest

    ours, theirs = int((ours_right & ~theirs_right).sum()), int((theirs_right & ~ours_right).sum())
    return ours, theirs, float(binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Each p-value adjusted for the number of them, so that the chance of any false finding stays at the level (Holm
    1979).
    """
    adjusted: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def cluster_bootstrap(
    ours: np.ndarray,
    theirs: np.ndarray,
    labels: np.ndarray,
    groups: Sequence[Hashable],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Differences in `accuracy`, `map` and `auc` of two models, scores (s, K), on the same segments."""
    counts = resampled_groups(groups, resamples=resamples, seed=seed)
    first, second = (resampled_metrics(scores, labels, groups, counts) for scores in (ours, theirs))
    return {metric: difference(first[metric], second[metric], groups=counts.shape[1]) for metric in first}


def resampled_groups(groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(1 + B, G) how often each group stands in each resample: G draws with replacement. Row 0 is the footage itself,
    each group once.

    The same groups and seed give the same draws: models compared on them are paired. Groups count in order of first
    appearance.
    """
    total = len(set(groups))
    if not total:
        raise ValueError("a bootstrap takes at least one group")
    drawn = np.random.default_rng(seed).multinomial(total, np.full(total, 1 / total), size=resamples)
    return np.concatenate([np.ones((1, total), dtype=drawn.dtype), drawn]).astype(np.float32)


def resampled_metrics(
    scores: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """{`accuracy`, `map`, `auc`: float64 (1 + B,)} on each row of `counts` (of `resampled_groups`), defined as in
    `posture.tasks.metrics`.

    Means over classes take those present in the resample; NaN where no class has both segments and others (AUC).
    Average precision and AUC are sums over the segments of a class of weighted counts of segments that score higher or
    lower; those counts are linear in the groups' weights, so that a matrix product gives them for all resamples at
    once.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or not len(scores) == len(labels) == len(groups):
        raise ValueError(
            f"scores of shape {scores.shape} need a label and a group for each segment, not {len(labels)} and {len(groups)}"
        )
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    order = np.argsort(labels, kind="stable")  # each class in one piece
    scores, labels, group_of = scores[order], labels[order], np.array([number[group] for group in groups])[order]
    starts = np.flatnonzero(np.diff(labels, prepend=-1))
    member = np.zeros((counts.shape[1], len(labels)), dtype=np.float32)  # (G, s)
    member[group_of, np.arange(len(labels))] = 1

    # (1 + B, classes), weighted sums
    precisions, wins = np.zeros((len(counts), len(starts))), np.zeros((len(counts), len(starts)))
    for place, start in enumerate(starts):
        end = starts[place + 1] if place + 1 < len(starts) else len(labels)
        of_class = scores[:, labels[start]]
        for first in range(start, end, COLUMNS):
            columns = slice(first, min(first + COLUMNS, end))
            own, weights = of_class[columns], counts[:, group_of[columns]].astype(np.float64)
            # (G, columns): of each group, members whose score is at least / exactly that of the column's segment.
            # float32 is exact for counts.
            reached = member @ (of_class[:, None] >= own).astype(np.float32)
            reached_right = member[:, start:end] @ (of_class[start:end, None] >= own).astype(np.float32)
            others = np.r_[:start, end : len(labels)]
            beaten = member[:, others] @ (
                (of_class[others, None] < own) + 0.5 * (of_class[others, None] == own)
            ).astype(np.float32)
            above = (counts @ reached).astype(np.float64)
            precisions[:, place] += (weights * (counts @ reached_right) / np.where(above > 0, above, 1)).sum(axis=1)
            wins[:, place] += (weights * (counts @ beaten)).sum(axis=1)

    per_segment = counts.astype(np.float64)[:, group_of]  # (1 + B, s)
    positives = np.add.reduceat(per_segment, starts, axis=1)
    total = positives.sum(axis=1)
    right = scores.argmax(axis=1) == labels
    return {
        "accuracy": per_segment[:, right].sum(axis=1) / total,
        "map": _mean_where(precisions, positives),
        "auc": _mean_where(wins, positives * (total[:, None] - positives)),
    }


def _mean_where(sums: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """(1 + B,) mean over classes of sums / weights, both (1 + B, classes), where the weight is not 0; NaN where it is 0
    for all.
    """
    defined = weights > 0
    ratios = np.where(defined, sums / np.where(defined, weights, 1), 0)
    classes = defined.sum(axis=1)
    return np.where(classes > 0, ratios.sum(axis=1) / np.maximum(classes, 1), np.nan)


def resampled_accuracy(right: np.ndarray, groups: Sequence[Hashable], counts: np.ndarray) -> np.ndarray:
    """Accuracy on each row of `counts` (of `resampled_groups`), float64 (1 + B,); `right`: bool (s,)."""
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([number[group] for group in groups])
    hits, all_of = (
        np.bincount(group_of, weights=weights, minlength=len(number)) for weights in (right, np.ones(len(right)))
    )
    weights = counts.astype(np.float64)
    return (weights @ hits) / (weights @ all_of)


def resampled_map(
    predictions: Sequence[ScoredImage], groups: Sequence[Hashable], counts: np.ndarray, *, classes: int
) -> dict[str, np.ndarray]:
    """{`map50_95`, `map50`: float64 (1 + B,)} of a detector on each row of `counts` (of `resampled_groups`); `groups`
    of the P images.

    An image counts as often as its group does: so groups can stand for their images, which are many more.
    """
    matched = match_detections(predictions, classes)
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([number[group] for group in groups])
    truths = np.zeros((classes, len(number)), dtype=np.int64)
    np.add.at(truths.T, group_of, matched.truths.T)
    return weighted_ap(
        replace(matched, pictures=[group_of[images] for images in matched.pictures], truths=truths), counts
    )


def interval(values: np.ndarray, *, groups: int) -> tuple[float, float] | None:
    """95 % interval of a figure from its values on resamples of its groups, (1 + B,), row 0 being the footage itself.

    Expanded percentile interval (Hesterberg 2015): a plain one is too narrow for few groups, so its levels are moved
    outward as a t interval on G - 1 degrees of freedom is wider than a normal one. None for a single group, or if no
    resample has a value.
    """
    from scipy.stats import norm, t

    drawn = values[1:][np.isfinite(values[1:])]
    if groups < 2 or not len(drawn):
        return None
    outside = norm.cdf(math.sqrt(groups / (groups - 1)) * t.ppf((1 - LEVEL) / 2, groups - 1))
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return float(low), float(high)


def told_interval(values: np.ndarray, *, of: str, groups: int) -> dict[str, Any]:
    """The interval of the figure `of` as metrics.json keeps it: {of, low, high, groups, resamples}.

    `low` and `high` are None if there are fewer than LEAST_GROUPS, or if every group has the same value, so that
    resampling them tells nothing.
    """
    found = interval(values, groups=groups) if groups >= LEAST_GROUPS else None
    low, high = found if found and found[1] > found[0] else (None, None)
    return {"of": of, "low": low, "high": high, "groups": groups, "resamples": len(values) - 1}


def difference(ours: np.ndarray, theirs: np.ndarray, *, groups: int) -> Difference:
    """The difference of two models' values on the same resamples, (1 + B,) each, row 0 being the footage itself.

    Its interval is that of `interval`. `p` inverts it: it is below 0.05 where the interval leaves out 0. A resample
    without a difference counts for both sides.
    """
    differences = np.round(ours - theirs, 12)  # equal shares, computed along two ways, are equal
    observed, found = float(differences[0]), interval(differences, groups=groups)
    if found is None:
        return Difference(observed, None, None, None)
    drawn = differences[1:][np.isfinite(differences[1:])]
    return Difference(
        observed, *found, _two_sided(int(min((drawn <= 0).sum(), (drawn >= 0).sum())), len(drawn), groups=groups)
    )


def least_p(groups: int, *, resamples: int = RESAMPLES, comparisons: int = 1) -> float | None:
    """The smallest p that `difference` could give with so many groups, and Holm's adjustment over so many comparisons
    leave; None for one group.

    It is that of a difference on the same side in every single resample, as where one model leads in each group. Of few
    groups resampling knows only few outcomes, and the t distribution on G - 1 degrees of freedom counts such agreement
    for little.
    """
    return None if groups < 2 else min(1.0, comparisons * _two_sided(0, resamples, groups=groups))


def _two_sided(against: int, resamples: int, *, groups: int) -> float:
    """p where so many of the resamples lie on the other side of 0 than the rest."""
    from scipy.stats import norm, t

    tail = (1 + against) / (1 + resamples)  # never 0: resamples are finite
    deviations = norm.ppf(min(tail, 0.5)) / math.sqrt(groups / (groups - 1))
    return float(min(1.0, 2 * t.cdf(deviations, groups - 1)))


def finite(value: float | None) -> float | None:
    """Return the value; None if it is not finite, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)
