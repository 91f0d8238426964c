"""Confidence that means something: a temperature, and the least confidence at which a classifier answers.

Both come from the run's own val split. Legend: N segments, K classes, G groups. Scores are probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.display.text import THIN_SPACE, counted, percent
from posture.errors import InputError
from posture.runs.classification_metrics import reliability
from posture.runs.statistics import LEAST_GROUPS, LEVEL

LEAST_PROBABILITY = 1e-12
"""Smaller probabilities are raised to it: a float32 softmax may give 0."""
TEMPERATURES = (0.05, 20.0)
"""Range of the temperature."""
FOLDS = 10
"""Maximum number of parts of the groups, each of which is judged with the temperature of the others."""
STEPS = 20
"""Number of thresholds that are tried."""
PROMISES = (*(share / 100 for share in range(1, 21)), 0.25, 0.3, 0.4, 0.5)
"""Errors of which the least that val can promise is named in a refusal."""


@dataclass(frozen=True)
class Threshold:
    """The least confidence at which a classifier answers."""

    value: float
    """Answers with a confidence of at least this count, others are "unsure"."""
    answered: float
    """Share of the val segments that are answered."""
    error: float
    """Share of wrong answers among them."""
    low: float
    high: float
    """95 % interval of the error on segments of new groups."""
    sentence: str
    """How it was chosen, for people."""


@dataclass(frozen=True)
class Calibration:
    """A temperature, and the val segments by which it and thresholds are chosen."""

    temperature: float
    """Above 1, the network is too sure of itself."""
    ece_before: float | None
    """Expected calibration error on val without the temperature; None without segments."""
    ece_after: float | None
    """The same with a temperature that was fitted on other groups; None for fewer than two groups."""
    correlation: float
    """Intraclass correlation of the segments of a group, 0..1."""
    confidence: np.ndarray
    """(N,) float64 calibrated probabilities of the most probable class."""
    right: np.ndarray
    """(N,) bool, whether that is the true one."""
    group: np.ndarray
    """(N,) int64, from 0."""

    def apply(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities of windows or segments, (n, K) to (n, K) float32. The order of a row's
        classes stays, so that the answer does.

        They are p ** (1 / T) over its sum: a softmax with temperature T (Guo et al. 2017, section 4.2) whose logits are
        the logarithms of probabilities. So means over views, which have no logits, are calibrated too.
        """
        return tempered(probabilities, self.temperature).astype(np.float32)

    @property
    def sentence(self) -> str:
        """How the temperature was measured, for people."""
        if not len(self.right):
            return "confidence is not calibrated: the val split has no segments"
        fitted = (
            f"confidence is calibrated with temperature {self.temperature:.2f}, fitted on "
            f"{counted(len(self.right), 'val segment')} of {counted(self.groups, 'group')}"
        )
        if self.ece_after is None:
            return f"{fitted}; one group cannot say how well it fits others"
        return f"{fitted}; ECE {self.ece_before:.3f} before, {self.ece_after:.3f} after on groups that were left out"

    @property
    def groups(self) -> int:
        return len(np.unique(self.group))

    def threshold(self, max_error: float) -> Threshold:
        """Return the lowest threshold with which the 95 % interval of the error of what is answered ends at
        `max_error`, or below.

        Fixed sequence testing (Angelopoulos et al. 2021, "Learn then test", section 2.3): answers are added from the
        most confident down, in steps that do not depend on whether they are right, until a step cannot keep the
        promise. The first step is the smallest one that can bear one error. Each is judged by `error_interval`. A
        promise holds for labelled segments of new groups of the same kind of footage; stretches of none of the classes
        are not among them.

        Raises InputError if `max_error` is not in 0..1, or if val cannot promise it; the sentence names what it can.
        """
        if not 0 < max_error < 1:
            raise InputError(f"--max-error {max_error:g}: give a share above 0 and below 1, such as 0.05")
        if self.groups < LEAST_GROUPS:
            raise InputError(
                f"--max-error {max_error:g} cannot be promised: val has {counted(self.groups, 'group')}, and a promise "
                f"about new ones needs at least {LEAST_GROUPS}; label more athletes or videos, or leave --max-error out"
            )
        found = self._lowest(max_error)
        if found is None:
            least = next((share for share in PROMISES if share > max_error and self._lowest(share)), None)
            raise InputError(
                f"--max-error {max_error:g} cannot be promised: no confidence on "
                f"{counted(len(self.right), 'val segment')} of {counted(self.groups, 'group')} shows it; "
                + (f"the least that they can promise is {least:g}" if least else "they cannot promise any useful one")
            )
        return found

    def _lowest(self, max_error: float) -> Threshold | None:
        """Return the lowest threshold that keeps the promise, None if none does."""
        order = np.argsort(-self.confidence, kind="stable")
        found = None
        for count in self._steps(order, max_error):
            value = self.confidence[order[count - 1]]
            answered = self.confidence >= value  # equal confidences come together
            total, wrong = int(answered.sum()), int((~self.right[answered]).sum())
            low, high = error_interval(wrong, self.group[answered], correlation=self.correlation)
            if high > max_error:
                break
            found = Threshold(
                float(value),
                total / len(order),
                wrong / total,
                low,
                high,
                self._told(max_error, total, wrong, low, high),
            )
        return found

    def _told(self, max_error: float, total: int, wrong: int, low: float, high: float) -> str:
        return (
            f"--max-error {max_error:g}: {percent(total / len(self.right))} of "
            f"{counted(len(self.right), 'val segment')} are as sure as an answer must be, and {wrong:,} of these "
            f"{total:,} are wrong ({percent(wrong / total)}; 95{THIN_SPACE}% interval for new groups "
            f"{percent(low)} to {percent(high)}, over {counted(self.groups, 'group')})"
        )

    def _steps(self, order: np.ndarray, max_error: float) -> list[int]:
        """Return the numbers of answers that are tried, ascending: the first one can bear a wrong answer."""
        for count in np.unique(np.linspace(1, len(order), 5 * STEPS).round().astype(int)).tolist():
            if error_interval(1, self.group[order[:count]], correlation=self.correlation)[1] <= max_error:
                return np.unique(np.linspace(count, len(order), STEPS).round().astype(int)).tolist()
        return [len(order)]


def fit(scores: np.ndarray, labels: np.ndarray, groups: Sequence[str]) -> Calibration:
    """Return the calibration by val segments: scores (N, K), class indices (N,), and the group of each.

    The temperature for use is fitted on all of them. `ece_after` is measured with one that was fitted on other groups.
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    _, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if not len(labels):
        return Calibration(1.0, None, None, 0.0, np.zeros(0), np.zeros(0, bool), np.zeros(0, np.int64))
    right = scores.argmax(axis=1) == labels
    temperature = fit_temperature(scores, labels)
    calibrated = tempered(scores, temperature)
    after = None
    if folds := min(FOLDS, int(group.max()) + 1) - 1:
        left_out = np.zeros_like(scores)
        for fold in range(folds + 1):
            part = group % (folds + 1) == fold
            left_out[part] = tempered(scores[part], fit_temperature(scores[~part], labels[~part]))
        after = reliability(left_out.max(axis=1), right)[1]
    doubt = 1 - calibrated[np.arange(len(labels)), labels]
    return Calibration(
        temperature,
        reliability(scores.max(axis=1), right)[1],
        after,
        intraclass_correlation(doubt, group),
        calibrated.max(axis=1),
        right,
        group,
    )


def fit_temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature with the least negative log-likelihood of the labels, within `TEMPERATURES`.

    A normal prior on its logarithm (mean 0, deviation 1) weighs less than one segment. Without it, a split without
    errors would make every answer certain.
    """
    from scipy.optimize import minimize_scalar

    logs, rows = _logs(scores), np.arange(len(labels))

    def loss(logarithm: float) -> float:
        scaled = logs / np.exp(logarithm)
        highest = scaled.max(axis=1)
        normaliser = highest + np.log(np.exp(scaled - highest[:, None]).sum(axis=1))
        return float((normaliser - scaled[rows, labels]).sum() + logarithm**2 / 2)

    found: Any = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return p ** (1 / temperature) over its sum, (n, K) to (n, K) float64."""
    powers = np.exp(_logs(probabilities) / temperature - (_logs(probabilities) / temperature).max(axis=1)[:, None])
    return powers / powers.sum(axis=1)[:, None]


def _logs(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), LEAST_PROBABILITY))


def error_interval(wrong: int, groups: np.ndarray, *, correlation: float) -> tuple[float, float]:
    """Return the 95 % interval of the share of wrong answers, from the group of each answer.

    It is the interval of Clopper and Pearson (1934) for an effective number of answers (Korn and Graubard 1998). That
    number is the real one over the design effect 1 + (m - 1) `correlation`, m being the mean size of an answer's group
    (Kish 1965), and less for few groups. One group gives 0 to 1.
    """
    from scipy.stats import beta, norm, t

    sizes = np.unique(groups, return_counts=True)[1].astype(np.float64)
    total = float(sizes.sum())
    if len(sizes) < 2:
        return 0.0, 1.0
    tail = (1 - LEVEL) / 2
    effect = 1 + ((sizes**2).sum() / total - 1) * correlation
    effective = total / effect * (norm.ppf(tail) / t.ppf(tail, len(sizes) - 1)) ** 2
    hits = effective * wrong / total
    low = beta.ppf(tail, hits, effective - hits + 1) if wrong else 0.0
    high = beta.ppf(1 - tail, hits + 1, effective - hits) if wrong < total else 1.0
    return float(low), float(high)


def intraclass_correlation(values: np.ndarray, group: np.ndarray) -> float:
    """Return how alike the values (N,) of a group are, 0..1, by the analysis of variance (Donner 1986, section 2).

    1 if it cannot be measured: without two groups and one group of several values, or if all values are equal.
    """
    sizes = np.bincount(group).astype(np.float64)
    total, count = sizes.sum(), len(sizes)
    if count < 2 or total == count:
        return 1.0
    means = np.bincount(group, values) / sizes
    between = (sizes * (means - values.mean()) ** 2).sum() / (count - 1)
    within = ((values - means[group]) ** 2).sum() / (total - count)
    typical = (total - (sizes**2).sum() / total) / (count - 1)
    spread = between + (typical - 1) * within
    return float(np.clip((between - within) / spread, 0.0, 1.0)) if spread > 0 else 1.0
