"""Champion and challenger side by side on the hold-out: accuracy, recall of each class, changed predictions.

Legend: s segments, K classes that either model knows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from posture.runs import statistics

POWER = 0.8
"""Power for the smallest effect that a hold-out can show."""
FIGURES = ("accuracy", "map", "auc")


@dataclass(frozen=True)
class Answers:
    """Predictions of both models for the hold-out's segments."""

    segments: list[str]
    groups: list[str]
    labels: np.ndarray  # (s,) int64, places in `classes`
    frozen: np.ndarray  # (s,) bool; the others are new
    classes: tuple[str, ...]
    """All classes that either model knows or a segment shows."""
    challenger: np.ndarray  # (s, K) probabilities; 0 for classes that it does not know
    known: frozenset[str]
    """Classes that the challenger knows."""
    champion: np.ndarray | None = None  # (s, K)
    known_before: frozenset[str] = frozenset()
    """Classes that the champion knows."""
    floor: np.ndarray | None = None
    """(s, K) probabilities of a linear classifier fitted on the challenger's footage, beside a first challenger."""

    def of(self, names: Iterable[str]) -> np.ndarray:
        """Return (s,) bool: the segments of these classes."""
        return np.isin(self.labels, [self.classes.index(name) for name in names])


def compare(answers: Answers, chosen: np.ndarray, *, resamples: int, seed: int) -> dict[str, Any] | None:
    """Return both models' figures on the segments `chosen`, (s,) bool, with 95 % intervals; None if there are none."""
    if not chosen.any():
        return None
    groups = [group for group, taken in zip(answers.groups, chosen, strict=True) if taken]
    counts = statistics.resampled_groups(groups, resamples=resamples, seed=seed)
    ours = statistics.resampled_metrics(answers.challenger[chosen], answers.labels[chosen], groups, counts)
    made = {
        "segments": int(chosen.sum()),
        "groups": counts.shape[1],
        "challenger": _figures(ours, counts.shape[1]),
        "champion": None,
        "difference": None,
        "detectable": None,
    }
    if answers.champion is None:
        return made
    theirs = statistics.resampled_metrics(answers.champion[chosen], answers.labels[chosen], groups, counts)
    found = {figure: statistics.difference(ours[figure], theirs[figure], groups=counts.shape[1]) for figure in FIGURES}
    return made | {
        "champion": _figures(theirs, counts.shape[1]),
        "detectable": detectable(found["accuracy"], made["segments"], made["groups"]),
        "difference": {
            figure: {name: statistics.finite(number) for name, number in asdict(value).items()}
            for figure, value in found.items()
        },
    }


def detectable(difference: statistics.Difference, segments: int, groups: int) -> float | None:
    """Return the smallest difference in accuracy that this hold-out shows beyond chance with a power of 0.8; None for
    one group.

    It follows from the spread of the difference found. It is at least the number of segments, each in another group,
    that a bootstrap calls beyond chance if one model wins them all and the models agree on all others.
    """
    from scipy.stats import norm, t

    if difference.low is None or difference.high is None:
        return None
    ends = t.ppf(0.5 + statistics.LEVEL / 2, groups - 1)
    spread = (difference.high - difference.low) / 2 * float((ends + t.ppf(POWER, groups - 1)) / ends)
    outside = float(norm.cdf(-math.sqrt(groups / (groups - 1)) * ends))
    # (1 - winning / groups)^groups: resamples in which none of them is
    winning = math.ceil(groups * (1 - outside ** (1 / groups)))
    return min(1.0, max(spread, winning / segments))


def _figures(drawn: dict[str, np.ndarray], groups: int) -> dict[str, dict[str, float | None]]:
    """Return {figure: {value, low, high}}."""
    found = {
        figure: statistics.difference(values, np.zeros_like(values), groups=groups) for figure, values in drawn.items()
    }
    finite = statistics.finite
    return {
        figure: {"value": finite(one.difference), "low": finite(one.low), "high": finite(one.high)}
        for figure, one in found.items()
    }


def recalls(answers: Answers, name: str, status: str) -> dict[str, Any]:
    """Return the recall of both models for one class on each part of the hold-out and on both.

    `lost` and `won` count segments that only one of the models recognises; `p` is McNemar's.
    """
    row: dict[str, Any] = {"class": name, "status": status}
    for part, chosen in (("frozen", answers.frozen), ("new", ~answers.frozen), ("both", np.ones_like(answers.frozen))):
        chosen = chosen & answers.of([name])
        labels = answers.labels[chosen]
        if not len(labels):
            row[part] = None
            continue
        ours = answers.challenger[chosen].argmax(axis=1) == labels
        theirs = (
            None if answers.champion is None or status == "new" else answers.champion[chosen].argmax(axis=1) == labels
        )
        row[part] = {
            "segments": len(labels),
            "champion": None if theirs is None else float(theirs.mean()),
            "challenger": float(ours.mean()),
            "change": None,
            "lost": None,
            "won": None,
            "p": None,
        }
        if theirs is not None:
            won, lost, p = statistics.mcnemar(ours, theirs)
            row[part] |= {"change": (won - lost) / len(labels), "lost": lost, "won": won, "p": p}
    return row


def changed(answers: Answers) -> list[dict[str, Any]]:
    """Return the segments for which the models predict different classes, the most confident first."""
    if answers.champion is None:
        return []
    guesses = {"champion": answers.champion.argmax(axis=1), "challenger": answers.challenger.argmax(axis=1)}
    sure = {"champion": answers.champion.max(axis=1), "challenger": answers.challenger.max(axis=1)}
    rows = np.flatnonzero(guesses["champion"] != guesses["challenger"])
    return [
        {
            "segment": answers.segments[row],
            "set": "frozen" if answers.frozen[row] else "new",
            "truth": answers.classes[answers.labels[row]],
            **{model: answers.classes[guesses[model][row]] for model in guesses},
            **{f"{model}_confidence": float(sure[model][row]) for model in guesses},
        }
        for row in sorted(rows.tolist(), key=lambda row: -sure["challenger"][row])
    ]


def beyond_chance(row: dict[str, Any]) -> bool:
    """Return True if the models' recall on one part of a class (a row of `per_class`) differs beyond chance."""
    return row["p"] is not None and row["p"] < 1 - statistics.LEVEL
