"""Champion or challenger: the choice between two classifiers by their predictions on footage that neither was trained
on.

The hold-out has two parts: `frozen`, on which the champion was judged when it became champion, and `new`, groups that
have arrived since. Both models are compared on segments of the classes that both know (the shared classes). A
challenger is promoted if all checks pass:

1. frozen: not worse by more than `tolerance`. The 95 % interval of the difference in accuracy is above -tolerance.
2. new: not worse beyond chance. The interval on the new hold-out is not below 0.
3. better, on both parts together. Superiority: better by at least `margin`, and beyond chance (the interval is above
   0). If the hold-out is too small to show a difference of `margin`, superiority would be a lottery; then
   non-inferiority decides (check 1), and the challenger must only not be behind. If there are new classes, knowing
   them is the gain, and non-inferiority decides as well.
4. class_drop: no shared class loses more than `max_class_drop` of its recall beyond chance, on the frozen part, on the
   new part, or on both together (McNemar's exact test on its segments). One clip of three is a third of a class's
   recall and shows nothing; six lost and none won is the least evidence that can refuse. Segments count one by one,
   though those of a group are alike, and each class is tested without a correction for their number: both err towards
   refusal. A fall that may be chance is reported.
5. new_classes: the recall of each class that the champion does not know is at least `recall_floor` on the new hold-out.

The first challenger, without a champion, must be more accurate than always predicting the most frequent class. If it is
not above a linear classifier on mean frame and motion, the decision says so, but promotes it.
Intervals come from a paired bootstrap over groups (`posture.runs.statistics`). Legend: s segments, K classes that
either model knows.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np

from posture.display.ranges import between
from posture.display.text import counted, listed, percent, signed
from posture.retrain.comparison import Answers, beyond_chance, changed, compare, recalls
from posture.runs import statistics
from posture.runs.floor import NAME

Rule = Literal["first", "superiority", "non-inferiority"]
SHARE = between(0, 1)


@dataclass(frozen=True)
class DecisionLimits:
    """Limits for a challenger, as shares of 1."""

    margin: Annotated[float, SHARE] = 0.01
    """Minimum gain in accuracy on the classes that the champion knows."""
    tolerance: Annotated[float, SHARE] = 0.05
    """Maximum loss in accuracy on the frozen hold-out that cannot be ruled out."""
    recall_floor: Annotated[float, SHARE] = 0.5
    """Minimum recall of each new class."""
    max_class_drop: Annotated[float, SHARE] = 0.1
    """Maximum loss in recall of any class, beyond chance."""


@dataclass(frozen=True)
class Check:
    """One condition and its result."""

    name: str
    passed: bool
    sentence: str


WHERE = {"frozen": "the frozen hold-out", "new": "the new hold-out", "both": "both hold-outs together"}
"""Parts of the hold-out for which recall is compared."""


def judge(
    answers: Answers, limits: DecisionLimits, *, resamples: int = statistics.RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Return the decision as plain values, as in the registry's decision.json.

    They are `outcome` (promoted, refused), `verdict`, `reasons`, `checks`, `rule`, `rule_sentence`, `limits`,
    `classes`, `sets`, `per_class` and `changed`.
    """
    first = answers.champion is None
    shared = sorted(answers.known if first else answers.known & answers.known_before)
    new = [] if first else sorted(answers.known - answers.known_before)
    parts = {"frozen": answers.frozen, "new": ~answers.frozen, "both": np.ones(len(answers.segments), dtype=bool)}
    some = {name: bool((part & ~answers.of(shared)).any()) for name, part in parts.items()}
    sets = {
        name: compare(answers, part & answers.of(shared), resamples=resamples, seed=seed)
        for name, part in parts.items()
    }
    per_class = [
        recalls(answers, name, status) for status, names in (("shared", shared), ("new", new)) for name in names
    ]
    if first:
        rule, checks = "first", [_beats_majority(answers, resamples=resamples, seed=seed)]
        if answers.floor is not None and answers.segments:
            checks.append(_beside_linear(answers, answers.floor, resamples=resamples, seed=seed))
    else:
        rule = _rule(sets["both"], limits, new)
        checks = [
            _frozen(sets["frozen"], limits, some=some["frozen"]),
            _new(sets["new"], some=some["new"]),
            _better(sets["both"], limits, rule, new, some=some["both"]),
            _class_drop(per_class, limits),
            *([_new_classes(per_class, limits)] if new else []),
        ]
    promoted = all(check.passed for check in checks)
    reasons = [check.sentence for check in checks if promoted or not check.passed]
    return {
        "outcome": "promoted" if promoted else "refused",
        "verdict": ("Promoted: " if promoted else "Refused: ") + "; ".join(reasons) + ".",
        "reasons": reasons,
        "checks": [asdict(check) for check in checks],
        "rule": rule,
        "rule_sentence": _rule_sentence(rule, sets["both"], limits, new),
        "limits": asdict(limits),
        "level": statistics.LEVEL,
        "classes": {"shared": shared, "new": new, "gone": sorted(answers.known_before - answers.known)},
        "sets": sets,
        "per_class": per_class,
        "changed": changed(answers),
    }


def _rule(both: dict[str, Any] | None, limits: DecisionLimits, new: list[str]) -> Rule:
    small = both is None or both["detectable"] is None or both["detectable"] > limits.margin
    return "non-inferiority" if small or new else "superiority"


def _rule_sentence(rule: Rule, both: dict[str, Any] | None, limits: DecisionLimits, new: list[str]) -> str:
    if rule == "first":
        return (
            "There is no champion yet: the challenger must be more accurate than always predicting the most "
            "frequent class."
        )
    seen = (
        "This hold-out can show no difference"
        if both is None or both["detectable"] is None
        else (
            f"The smallest difference in accuracy that this hold-out can show is {_points(both['detectable'])} points "
            f"({counted(both['segments'], 'segment')} in {counted(both['groups'], 'group')})"
        )
    )
    if rule == "superiority":
        return f"{seen}: the challenger must be better by {_points(limits.margin)} points, and beyond chance."
    asked = f"must not be worse by more than {_points(limits.tolerance)} points"
    if new:
        return f"{seen}. The challenger also knows {listed(new)}, so it {asked}."
    return (
        f"{seen}. That is too little to ask for a gain of {_points(limits.margin)} points: the challenger {asked}, "
        "and not be behind."
    )


def _frozen(part: dict[str, Any] | None, limits: DecisionLimits, *, some: bool) -> Check:
    if part is None:
        return Check("frozen", False, "the frozen hold-out has no segment left of a class that both know")
    low = part["difference"]["accuracy"]["low"]
    if low is None:
        return Check("frozen", False, "the frozen hold-out has only one group, which shows nothing beyond chance")
    sentence = _comparison(part, "frozen", some=some)
    if low >= -limits.tolerance:
        return Check("frozen", True, sentence)
    return Check(
        "frozen", False, f"{sentence}, and a loss of more than {_points(limits.tolerance)} points is not ruled out"
    )


def _new(part: dict[str, Any] | None, *, some: bool) -> Check:
    if part is None:
        return Check("new", True, "no new group of the shared classes is held out")
    high = part["difference"]["accuracy"]["high"]
    worse = high is not None and high < 0
    return Check("new", not worse, _comparison(part, "new", some=some) + (", worse beyond chance" if worse else ""))


def _better(both: dict[str, Any] | None, limits: DecisionLimits, rule: Rule, new: list[str], *, some: bool) -> Check:
    if both is None:
        return Check("better", False, "no held-out segment is of a class that both know")
    found = both["difference"]["accuracy"]
    gain = f"{signed(100 * found['difference'])} points on both hold-outs together{_known(some)}"
    if rule == "superiority":
        enough = found["difference"] >= limits.margin and found["low"] > 0
        return Check(
            "better",
            enough,
            gain + ("" if enough else f", and {_points(limits.margin)} points beyond chance are needed"),
        )
    if new:
        return Check("better", True, f"{gain}, and it also knows {listed(new)}")
    ahead = found["difference"] >= 0
    return Check("better", ahead, gain + ("" if ahead else ", so it is behind"))


def _class_drop(per_class: list[dict[str, Any]], limits: DecisionLimits) -> Check:
    shared = [row for row in per_class if row["status"] == "shared"]
    compared = [(row["class"], part, row[part]) for row in shared for part in WHERE if row[part]]
    compared.sort(key=lambda item: item[2]["change"])
    limit = f"more than {_points(limits.max_class_drop)} points"
    deep = [item for item in compared if item[2]["change"] < -limits.max_class_drop - 1e-9]
    if fallen := [item for item in deep if beyond_chance(item[2])]:
        return Check("class_drop", False, f"recall falls by {limit}, beyond chance: {_falls(fallen)}")
    if deep:
        return Check("class_drop", True, f"no class loses {limit} of recall beyond chance, but watch {_falls(deep)}")
    if not compared:
        return Check("class_drop", True, "no class that both know is held out")
    worst, part, row = compared[0]
    if row["change"] < 0:
        return Check(
            "class_drop",
            True,
            f"no class loses more recall than {worst}, {_points(-row['change'])} points on {WHERE[part]}",
        )
    parts = [part for part in ("frozen", "new") if any(row[part] for row in shared)]
    return Check(
        "class_drop", True, f"no class loses recall on {'either hold-out' if len(parts) == 2 else WHERE[parts[0]]}"
    )


def _falls(fallen: list[tuple[str, str, dict[str, Any]]]) -> str:
    """List each class once, with its deepest fall: `kick by 25.0 points on the new hold-out (3 of its 8 segments
    lost, 1 won)`.
    """
    deepest: dict[str, str] = {}
    for name, part, row in fallen:
        deepest.setdefault(
            name,
            f"{name} by {_points(-row['change'])} points on {WHERE[part]} ({row['lost']:,} of its "
            f"{_segments(row['segments'])} lost, "
            f"{row['won']:,} won)",
        )
    return listed(list(deepest.values()))


def _segments(count: int, kind: str = "") -> str:
    """`1 frozen segment`, `8 segments`."""
    return counted(count, f"{kind} segment".strip())


def _new_classes(per_class: list[dict[str, Any]], limits: DecisionLimits) -> Check:
    rows = {row["class"]: row["new"] for row in per_class if row["status"] == "new"}
    recalls = {
        name: "not held out"
        if row is None
        else f"recall {percent(row['challenger'])} of {_segments(row['segments'], 'new')}"
        for name, row in rows.items()
    }
    below = [
        f"{name} ({recalls[name]})"
        for name, row in rows.items()
        if row is None or row["challenger"] < limits.recall_floor
    ]
    if below:
        return Check(
            "new_classes", False, f"recall of new classes is below {percent(limits.recall_floor, 0)}: {listed(below)}"
        )
    return Check("new_classes", True, f"new: {listed([f'{name}, {recall}' for name, recall in recalls.items()])}")


def _beats_majority(answers: Answers, *, resamples: int, seed: int) -> Check:
    if not answers.segments:
        return Check("majority", False, "no segment is held out to judge it on")
    most = np.bincount(answers.labels).argmax()
    constant = np.zeros_like(answers.challenger)
    constant[:, most] = 1
    accuracy, majority, found = _beside(answers, constant, resamples=resamples, seed=seed)
    return Check(
        "majority",
        found.difference > 0,
        f"it recognises {percent(accuracy)} of {_segments(len(answers.segments), 'held-out')}, and always predicting "
        f"{answers.classes[most]} scores {percent(majority)}{_interval(asdict(found))}",
    )


def _beside_linear(answers: Answers, floor: np.ndarray, *, resamples: int, seed: int) -> Check:
    """Tell a first challenger how it stands beside a linear classifier. It never refuses: without a champion there
    would be no predictions at all.
    """
    _, linear, found = _beside(answers, floor, resamples=resamples, seed=seed)
    text = f"{percent(linear)}{_interval(asdict(found))}"
    if found.difference > 0:
        return Check("linear", True, f"{NAME} scores {text}")
    return Check("linear", True, f"it is not above {NAME}, which scores {text}")


def _beside(
    answers: Answers, other: np.ndarray, *, resamples: int, seed: int
) -> tuple[float, float, statistics.Difference]:
    """Return the accuracies of the challenger and of the probabilities `other`, (s, K), and their difference."""
    found = statistics.cluster_bootstrap(
        answers.challenger, other, answers.labels, answers.groups, resamples=resamples, seed=seed
    )["accuracy"]
    ours, theirs = (float((scores.argmax(axis=1) == answers.labels).mean()) for scores in (answers.challenger, other))
    return ours, theirs, found


def _comparison(part: dict[str, Any], name: str, *, some: bool) -> str:
    """Return `it recognises 82.1 % of 120 frozen segments, the champion 80.0 % (+2.1 points, 95 % CI -1.0 .. +5.2)`.

    `some`: there are segments of other classes too.
    """
    ours, theirs, found = (
        part["challenger"]["accuracy"]["value"],
        part["champion"]["accuracy"]["value"],
        part["difference"]["accuracy"],
    )
    return (
        f"it recognises {percent(ours)} of {_segments(part['segments'], name)}{_known(some)}, the champion "
        f"{percent(theirs)}{_interval(found)}"
    )


def _known(some: bool) -> str:
    return " in the classes that both know" if some else ""


def _interval(found: dict[str, Any]) -> str:
    difference = f"{signed(100 * found['difference'])} points"
    return (
        f" ({difference})"
        if found["low"] is None
        else f" ({difference}, 95 % CI {signed(100 * found['low'])} .. {signed(100 * found['high'])})"
    )


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
