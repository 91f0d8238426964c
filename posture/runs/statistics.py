"""Confidence in figures and in differences between models: paired cluster bootstrap, McNemar's test, Holm's adjustment,
spread over seeds.

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
"""With fewer groups there are too few different resamples for an interval of a single figure."""
LEVEL = 0.95
"""Confidence level of every interval here."""

COLUMNS = 512
"""Segments per matrix product; bounds the memory of a bootstrap to B x COLUMNS numbers."""


@dataclass(frozen=True)
class Difference:
    """`ours - theirs` of one metric; `low`, `high`: 95 % confidence interval; `p`: two-sided. None if there are too few
    groups.
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
    """Return the mean over seeds and its spread, with Student's t on n - 1 degrees of freedom. Raises ValueError
    without values.
    """
    from scipy.stats import t

    if not len(values):
        raise ValueError("a mean needs at least one value")
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return Spread(mean, None, None, None, tuple(values))
    deviation = float(np.std(values, ddof=1))
    reach = float(t.ppf(0.5 + LEVEL / 2, count - 1)) * deviation / math.sqrt(count)
    return Spread(mean, deviation, mean - reach, mean + reach, tuple(values))


def mcnemar(ours_right: np.ndarray, theirs_right: np.ndarray) -> tuple[int, int, float]:
    """Return (segments only we get right, segments only they get right, exact two-sided p) from two bool (s,).

    Under the null hypothesis each segment on which the two disagree falls to either side with probability 1/2 (McNemar
    1947, exact binomial form). It assumes independent segments, so it describes; the cluster bootstrap is the test.
    """
    from scipy.stats import binomtest

    ours, theirs = int((ours_right & ~theirs_right).sum()), int((theirs_right & ~ours_right).sum())
    return ours, theirs, float(binomtest(ours, ours + theirs).pvalue) if ours + theirs else 1.0


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return the p-values adjusted for their number, which keeps the chance of any false positive at the level (Holm
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
    """Return the differences in `accuracy`, `map` and `auc` of two models, scores (s, K), on the same segments."""
    counts = resampled_groups(groups, resamples=resamples, seed=seed)
    first, second = (resampled_metrics(scores, labels, groups, counts) for scores in (ours, theirs))
    return {metric: difference(first[metric], second[metric], groups=counts.shape[1]) for metric in first}


def resampled_groups(groups: Sequence[Hashable], *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return how often each group is drawn in each resample, (1 + B, G): G draws with replacement. Row 0 is the footage
    itself, each group once.

    The same groups and seed give the same draws, so that models compared on them are paired. Groups are ordered by
    their first appearance.
    """
    total = len(set(groups))
    if not total:
        raise ValueError("a bootstrap needs at least one group")
    drawn = np.random.default_rng(seed).multinomial(total, np.full(total, 1 / total), size=resamples)
    return np.concatenate([np.ones((1, total), dtype=drawn.dtype), drawn]).astype(np.float32)


def resampled_metrics(
    scores: np.ndarray, labels: np.ndarray, groups: Sequence[Hashable], counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Return {`accuracy`, `map`, `auc`: float64 (1 + B,)} on each row of `counts` (of `resampled_groups`), defined as
    in `posture.runs.classification_metrics`.

    Means over classes include the classes present in the resample. AUC is NaN if no class has both segments and others.
    Average precision and AUC are sums over the segments of a class of weighted counts of segments that score higher or
    lower. Those counts are linear in the groups' weights, so one matrix product gives them for all resamples.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if scores.ndim != 2 or not len(scores) == len(labels) == len(groups):
        raise ValueError(
            f"scores of shape {scores.shape} need a label and a group for each segment, not {len(labels)} and "
            f"{len(groups)}"
        )
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
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
            # (G, columns): members of each group that score at least as high as the column's segment; float32 is
            # exact for counts
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
    """Return the mean over classes of sums / weights, both (1 + B, classes), as (1 + B,). Classes of weight 0 are left
    out; NaN if there are no others.
    """
    defined = weights > 0
    ratios = np.where(defined, sums / np.where(defined, weights, 1), 0)
    classes = defined.sum(axis=1)
    return np.where(classes > 0, ratios.sum(axis=1) / np.maximum(classes, 1), np.nan)


def resampled_accuracy(right: np.ndarray, groups: Sequence[Hashable], counts: np.ndarray) -> np.ndarray:
    """Return the accuracy on each row of `counts` (of `resampled_groups`), float64 (1 + B,); `right`: bool (s,)."""
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([number[group] for group in groups])
    hits, all_of = (
        np.bincount(group_of, weights=weights, minlength=len(number)) for weights in (right, np.ones(len(right)))
    )
    weights = counts.astype(np.float64)
    return (weights @ hits) / (weights @ all_of)


def resampled_map(
    predictions: Sequence[ScoredImage], groups: Sequence[Hashable], counts: np.ndarray, *, classes: int
) -> dict[str, np.ndarray]:
    """Return {`map50_95`, `map50`: float64 (1 + B,)} of a detector on each row of `counts` (of `resampled_groups`);
    `groups` of the P images.

    An image counts as often as its group, so matches are stored by group instead of by image.
    """
    matched = match_detections(predictions, classes)
    number = {group: index for index, group in enumerate(dict.fromkeys(groups))}
    group_of = np.array([number[group] for group in groups])
    truths = np.zeros((classes, len(number)), dtype=np.int64)
    np.add.at(truths.T, group_of, matched.truths.T)
    return weighted_ap(replace(matched, images=[group_of[images] for images in matched.images], truths=truths), counts)


def interval(values: np.ndarray, *, groups: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure from its values on resamples of its groups, (1 + B,); row 0 is the footage
    itself.

    Expanded percentile interval (Hesterberg 2015): a plain one is too narrow for few groups, so its levels are moved
    outward by as much as a t interval on G - 1 degrees of freedom is wider than a normal one. None for a single group,
    or if no resample has a value.
    """
    from scipy.stats import norm, t

    drawn = values[1:][np.isfinite(values[1:])]
    if groups < 2 or not len(drawn):
        return None
    outside = norm.cdf(math.sqrt(groups / (groups - 1)) * t.ppf((1 - LEVEL) / 2, groups - 1))
    low, high = np.quantile(drawn, [outside, 1 - outside])
    return float(low), float(high)


def told_interval(values: np.ndarray, *, of: str, groups: int) -> dict[str, Any]:
    """Return the interval of the figure `of` for metrics.json: {of, low, high, groups, resamples}.

    `low` and `high` are None if there are fewer than LEAST_GROUPS groups, or if all groups have the same value.
    """
    found = interval(values, groups=groups) if groups >= LEAST_GROUPS else None
    low, high = found if found and found[1] > found[0] else (None, None)
    return {"of": of, "low": low, "high": high, "groups": groups, "resamples": len(values) - 1}


def difference(ours: np.ndarray, theirs: np.ndarray, *, groups: int) -> Difference:
    """Return the difference of two models' values on the same resamples, (1 + B,) each; row 0 is the footage itself.

    `p` inverts the interval: it is below 0.05 if the interval does not contain 0. A resample without a difference
    counts for both sides.
    """
    differences = np.round(ours - theirs, 12)  # shares that are equal may differ in their last bits
    observed, found = float(differences[0]), interval(differences, groups=groups)
    if found is None:
        return Difference(observed, None, None, None)
    drawn = differences[1:][np.isfinite(differences[1:])]
    return Difference(
        observed, *found, _two_sided(int(min((drawn <= 0).sum(), (drawn >= 0).sum())), len(drawn), groups=groups)
    )


def least_p(groups: int, *, resamples: int = RESAMPLES, comparisons: int = 1) -> float | None:
    """Return the smallest p that `difference` can give with `groups` groups, after Holm's adjustment over
    `comparisons`; None for one group.

    It is the p of a difference on the same side in every resample, for example if one model leads in each group. With
    few groups there are few different resamples, and the t distribution on G - 1 degrees of freedom gives such
    agreement little weight.
    """
    return None if groups < 2 else min(1.0, comparisons * _two_sided(0, resamples, groups=groups))


def _two_sided(against: int, resamples: int, *, groups: int) -> float:
    """Return p if `against` of the resamples lie on the other side of 0 than the rest."""
    from scipy.stats import norm, t

    tail = (1 + against) / (1 + resamples)  # never 0: resamples are finite
    deviations = norm.ppf(min(tail, 0.5)) / math.sqrt(groups / (groups - 1))
    return float(min(1.0, 2 * t.cdf(deviations, groups - 1)))


def finite(value: float | None) -> float | None:
    """Return the value; None if it is not finite, which JSON cannot hold."""
    return None if value is None or not math.isfinite(value) else float(value)
