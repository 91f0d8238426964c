"""Champion or challenger, on answers whose truth is known."""

import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest

from posture.display.text import percent
from posture.retrain.comparison import Answers, compare, detectable
from posture.retrain.decision import DecisionLimits, judge
from posture.runs.statistics import Difference

CLASSES = ("dive", "jump", "kick", "vault")
KNOWN = frozenset(CLASSES[:3])


def answers(
    groups=60,
    *,
    each=4,
    frozen=0.75,
    champion=0.8,
    challenger=0.8,
    classes=CLASSES[:3],
    known=KNOWN,
    wrong=None,
    seed=0,
    first=False,
):
    """`groups` groups of `each` segments, of the classes in turn; both models are right on shares of them, the same
    ones as far as they go.

    `wrong`: classes that the challenger never recognises.
    """
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(groups) % len(classes), each)
    luck = generator.random(len(labels))

    def said(share, *, missing=()):
        right = (luck < share) & ~np.isin(labels, [CLASSES.index(name) for name in missing])
        guess = np.where(right, labels, (labels + 1) % 3)
        scores = np.full((len(labels), len(CLASSES)), 0.1)
        scores[np.arange(len(labels)), guess] = 0.7
        return scores

    in_frozen = np.repeat(np.arange(groups) < frozen * groups, each)
    before = None if first else np.where(labels[:, None] == 3, said(0.0), said(champion))
    return Answers(
        [f"s{n:04d}" for n in range(len(labels))],
        [f"g{n // each}" for n in range(len(labels))],
        labels,
        in_frozen,
        CLASSES,
        said(challenger, missing=wrong or ()),
        frozenset(known),
        before,
        frozenset() if first else KNOWN,
    )


def decide(found, **limits):
    return judge(found, DecisionLimits(**limits), resamples=500)


def failed(decision):
    return [check["name"] for check in decision["checks"] if not check["passed"]]


def test_a_large_hold_out_asks_for_a_margin_beyond_chance():
    better = decide(answers(groups=240, champion=0.7, challenger=0.9), margin=0.05)
    assert (better["rule"], better["outcome"]) == ("superiority", "promoted")
    equal = decide(answers(groups=240, champion=0.8, challenger=0.8), margin=0.05)
    assert (equal["rule"], equal["outcome"], failed(equal)) == ("superiority", "refused", ["better"])
    slight = decide(answers(groups=240, champion=0.8, challenger=0.83), margin=0.05)
    assert (
        slight["rule"] == "superiority"
        and failed(slight) == ["better"]
        and slight["sets"]["both"]["difference"]["accuracy"]["low"] > 0
    )


def test_a_small_one_says_what_it_could_have_seen_and_asks_not_to_be_worse():
    equal = decide(answers(groups=30))
    assert (equal["rule"], equal["outcome"]) == ("non-inferiority", "promoted")
    assert equal["sets"]["both"]["detectable"] > DecisionLimits().margin
    assert equal["rule_sentence"].startswith("The smallest difference in accuracy that this hold-out can show is ")
    behind = decide(answers(groups=30, champion=0.85, challenger=0.78), tolerance=0.5, max_class_drop=1.0)
    assert behind["sets"]["both"]["difference"]["accuracy"]["difference"] < 0 and failed(behind) == ["better"]
    worse = decide(answers(groups=30, champion=0.9, challenger=0.6))
    assert (
        "frozen" in failed(worse)
        and worse["verdict"].startswith("Refused: ")
        and "is not ruled out" in worse["verdict"]
    )


def test_a_new_class_is_the_gain_if_it_is_recognised_and_nothing_is_lost():
    grown = {"classes": CLASSES, "known": CLASSES}
    decision = decide(answers(**grown))
    assert decision["outcome"] == "promoted" and decision["classes"] == {
        "shared": list(CLASSES[:3]),
        "new": ["vault"],
        "gone": [],
    }
    assert "new: vault, recall" in decision["verdict"] and decision["rule"] == "non-inferiority"
    assert decision["sets"]["both"]["segments"] == 180  # of the shared classes alone
    vault = next(row for row in decision["per_class"] if row["class"] == "vault")
    assert vault["status"] == "new" and vault["new"]["champion"] is None and vault["new"]["challenger"] > 0.5
    assert failed(decide(answers(**grown, wrong=["vault"]))) == ["new_classes"]
    assert failed(decide(answers(**grown, frozen=1.0))) == ["new_classes"]  # none of it is new: its recall is not known
    assert decide(answers(**grown, wrong=["vault"]), recall_floor=0.0)["outcome"] == "promoted"


def test_one_class_that_falls_is_enough():
    decision = decide(answers(wrong=["kick"], challenger=1.0), tolerance=1.0)
    assert {"class_drop"} <= set(
        failed(decision)
    ) and "recall falls by more than 10.0 points, beyond chance: kick by" in decision["verdict"]
    assert "class_drop" not in failed(decide(answers(wrong=["kick"], challenger=1.0), max_class_drop=1.0))


@pytest.mark.parametrize(
    ("segments", "lost", "outcome"),
    [(3, 1, "promoted"), (5, 5, "promoted"), (6, 6, "refused"), (40, 8, "refused"), (40, 4, "promoted")],
)
def test_a_class_falls_by_more_than_chance_or_it_is_only_told(segments, lost, outcome):
    """`lost` of the held-out segments of one class, each in a group of its own, are recognised no longer; nothing else
    changes.
    """
    labels = np.r_[np.zeros(segments, np.int64), np.ones(200, np.int64)]
    champion = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    challenger = champion.copy()
    challenger[:lost] = np.roll(champion[:lost], 1, axis=1)
    ids = [f"s{number}" for number in range(len(labels))]
    decision = decide(
        Answers(ids, ids, labels, np.ones(len(labels), bool), CLASSES[:3], challenger, KNOWN, champion, KNOWN),
        tolerance=0.5,
    )
    check = next(check for check in decision["checks"] if check["name"] == "class_drop")
    row = next(row for row in decision["per_class"] if row["class"] == "dive")["frozen"]
    assert check["passed"] == (outcome == "promoted") and (row["lost"], row["won"], row["segments"]) == (
        lost,
        0,
        segments,
    )
    told = (
        f"dive by {100 * lost / segments:.1f} points on the frozen hold-out ({lost} of its {segments} segments "
        "lost, 0 won)"
    )
    assert (told in check["sentence"]) == (lost / segments > 0.1)


def test_a_class_that_falls_on_what_is_new_alone_is_told_or_refuses():
    """As it happened: recall of one class went from 100 to 75 % on the new hold-out, and the verdict said that none
    loses any.
    """
    labels = np.r_[np.repeat(np.arange(3), 20), np.repeat(np.arange(3), 4)]
    frozen = np.arange(len(labels)) < 60
    champion = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    ids = [f"s{number}" for number in range(len(labels))]

    def verdict(lost, new_segments=4):
        challenger = champion.copy()
        worse = np.flatnonzero(~frozen & (labels == 2))[:lost]
        challenger[worse] = np.roll(champion[worse], 1, axis=1)
        gained = np.flatnonzero(frozen & (labels == 0))[:5]
        before = champion.copy()
        before[gained] = np.roll(champion[gained], 1, axis=1)
        return decide(Answers(ids, ids, labels, frozen, CLASSES[:3], challenger, KNOWN, before, KNOWN), tolerance=0.5)

    assert "watch kick by 25.0 points on the new hold-out (1 of its 4 segments lost, 0 won)" in verdict(1)["verdict"]
    assert "no class loses recall on either hold-out" in verdict(0)["verdict"]
    labels = np.r_[np.repeat(np.arange(3), 20), np.repeat(np.arange(3), 8)]
    frozen = np.arange(len(labels)) < 60
    champion = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    ids = [f"s{number}" for number in range(len(labels))]
    fallen = verdict(6)
    assert failed(fallen)[-1] == "class_drop"
    assert (
        "beyond chance: kick by 75.0 points on the new hold-out (6 of its 8 segments lost, 0 won)" in fallen["verdict"]
    )


P, SIGNED = r"([\d.]+)\u202f%", r"([+\u2212]?[\d.]+)"
PARTS = {"the frozen hold-out": "frozen", "the new hold-out": "new", "both hold-outs together": "both"}


class Claims:
    """Every sentence of a verdict, read back and worked out anew from the answers themselves; a sentence that is not
    known here is a failure.
    """

    def __init__(self, found, decision, limits):
        self.found, self.decision, self.limits = found, decision, limits
        self.shared, self.gained = sorted(found.known & found.known_before), sorted(found.known - found.known_before)
        self.right = {
            "challenger": found.challenger.argmax(axis=1) == found.labels,
            "champion": found.champion.argmax(axis=1) == found.labels,
        }
        self.parts = {"frozen": found.frozen, "new": ~found.frozen, "both": np.ones_like(found.frozen)}

    def hold(self, sentence):
        matched = [
            (check, match) for pattern, check in self.patterns().items() if (match := re.fullmatch(pattern, sentence))
        ]
        assert len(matched) == 1, f"not a sentence of which it is known when it is true: {sentence!r}"
        check, match = matched[0]
        check(*match.groups())

    def patterns(self):
        points = rf"\({SIGNED} points(?:, 95 % CI {SIGNED} \.\. {SIGNED})?\)"
        known = "( in the classes that both know)?"
        return {
            rf"it recognises {P} of ([\d,]+) (frozen|new) segments?{known}, the champion {P} {points}"
            r"(, and a loss of more than ([\d.]+) points is not ruled out|, worse beyond chance)?": self.accuracy,
            (
                rf"{SIGNED} points on both hold-outs together{known}(, and .+ points beyond chance are needed|, and it "
                r"also knows (.+)|, so it is behind)?"
            ): self.together,
            r"no class loses recall on (either hold-out|the frozen hold-out|the new hold-out)": self.none_falls,
            r"no class that both know is held out": lambda: self.equal(self.changes(), {}),
            rf"no class loses more recall than (\w+), ([\d.]+) points on ({'|'.join(PARTS)})": self.worst,
            r"no class loses more than ([\d.]+) points of recall beyond chance, but watch (.+)": lambda limit, rest: (
                self.falls(limit, rest, beyond=False)
            ),
            r"recall falls by more than ([\d.]+) points, beyond chance: (.+)": lambda limit, rest: self.falls(
                limit, rest, beyond=True
            ),
            r"new: (.+)": self.recalls,
            rf"recall of new classes is below {P}: (.+)": lambda floor, rest: self.below(floor, rest),
            r"the frozen hold-out has no segment left of a class that both know": lambda: self.equal(
                self.of("frozen").any(), np.False_
            ),
            r"no new group of the shared classes is held out": lambda: self.equal(self.of("new").any(), np.False_),
            r"the frozen hold-out has only one group, which shows nothing beyond chance": lambda: self.equal(
                len(self.groups("frozen")), 1
            ),
            r"no held-out segment is of a class that both know": lambda: self.equal(self.of("both").any(), np.False_),
        }

    def equal(self, found, expected):
        assert found == expected

    def of(self, part, names=None):
        return self.parts[part] & self.found.of(self.shared if names is None else names)

    def groups(self, part):
        return {group for group, taken in zip(self.found.groups, self.of(part), strict=True) if taken}

    def share(self, model, chosen):
        return self.right[model][chosen].mean()

    def change(self, chosen):
        return self.share("challenger", chosen) - self.share("champion", chosen)

    def changes(self):
        """{(class, part): change of recall} of all shared classes, on every part that has any."""
        chosen = {(name, part): self.of(part, [name]) for name in self.shared for part in self.parts}
        return {key: self.change(rows) for key, rows in chosen.items() if rows.any()}

    def lost_and_won(self, name, part):
        rows = self.of(part, [name])
        ours, theirs = self.right["challenger"][rows], self.right["champion"][rows]
        return int((theirs & ~ours).sum()), int((ours & ~theirs).sum()), len(ours)

    def is_beyond_chance(self, name, part):
        lost, won, _ = self.lost_and_won(name, part)
        return bool(lost + won) and binomtest(lost, lost + won).pvalue < 0.05

    def number(self, text):
        return float(text.replace("\u2212", "-").replace(",", ""))

    def near(self, text, value):
        assert abs(self.number(text) - 100 * value) < 0.0501, f"{text} is said, {100 * value:.2f} is true"

    def accuracy(self, ours, count, part, known, theirs, difference, low, high, then, limit):
        rows = self.of(part)
        assert self.number(count) == rows.sum() and bool(known) == bool((self.parts[part] & ~rows).any())
        self.near(ours, self.share("challenger", rows))
        self.near(theirs, self.share("champion", rows))
        self.near(difference, self.change(rows))
        interval = self.decision["sets"][part]["difference"]["accuracy"]
        assert (low is None) == (interval["low"] is None)
        if low is not None:
            self.near(low, interval["low"])
            self.near(high, interval["high"])
        not_ruled_out = part == "frozen" and interval["low"] < -self.limits.tolerance
        worse = part == "new" and interval["high"] is not None and interval["high"] < 0
        assert bool(then) == (not_ruled_out or worse)

    def together(self, difference, known, then, besides):
        rows = self.of("both")
        self.near(difference, self.change(rows))
        assert bool(known) == bool((~rows).any())
        assert ("so it is behind" in (then or "")) == (
            self.decision["rule"] == "non-inferiority" and not self.gained and self.change(rows) < 0
        )
        if besides:
            assert set(re.findall(r"\w+", besides)) - {"and"} == set(self.gained)

    def none_falls(self, where):
        parts = {part for _, part in self.changes()} - {"both"}
        assert parts == ({"frozen", "new"} if where == "either hold-out" else {PARTS[where]})
        assert all(change >= 0 for change in self.changes().values())

    def worst(self, name, points, where):
        self.near(points, -self.changes()[name, PARTS[where]])
        assert self.changes()[name, PARTS[where]] == min(self.changes().values()) < 0
        assert all(change >= -self.limits.max_class_drop - 1e-9 for change in self.changes().values())

    def falls(self, limit, rest, *, beyond):
        self.near(limit, self.limits.max_class_drop)
        told = re.findall(
            rf"(\w+) by ([\d.]+) points on ({'|'.join(PARTS)}) \((\d+) of its (\d+) segments? lost, (\d+) won\)", rest
        )
        deep = {key for key, change in self.changes().items() if change < -self.limits.max_class_drop - 1e-9}
        sure = {key for key in deep if self.is_beyond_chance(*key)}
        assert bool(sure) == beyond and deep
        assert sorted(name for name, *_ in told) == sorted({name for name, _ in (sure if beyond else deep)})
        for name, points, where, lost, segments, won in told:
            self.near(points, -self.changes()[name, PARTS[where]])
            assert (int(lost), int(won), int(segments)) == self.lost_and_won(name, PARTS[where])
            assert all(
                self.changes()[key] >= self.changes()[name, PARTS[where]] - 1e-9
                for key in (sure if beyond else deep)
                if key[0] == name
            )

    def recalls(self, rest):
        told = re.findall(rf"(\w+), (?:recall {P} of (\d+) new segments?|not held out)", rest)
        assert sorted(name for name, *_ in told) == self.gained
        self.each(told)

    def below(self, floor, rest):
        self.near(floor, self.limits.recall_floor)
        told = re.findall(rf"(\w+) \((?:recall {P} of (\d+) new segments?|not held out)\)", rest)
        low = [
            name
            for name in self.gained
            if not (rows := self.of("new", [name])).any() or self.share("challenger", rows) < self.limits.recall_floor
        ]
        assert sorted(name for name, *_ in told) == low
        self.each(told)

    def each(self, told):
        for name, recall, segments in told:
            rows = self.of("new", [name])
            assert bool(recall) == rows.any()
            if recall:
                self.near(recall, self.share("challenger", rows))
                assert int(segments) == rows.sum()


@pytest.mark.parametrize("seed", range(40))
def test_every_sentence_of_a_verdict_is_true_on_both_hold_outs(seed):
    """Of models whose recall differs at random by class and by hold-out, on hold-outs of any size, with new classes or
    without.
    """
    generator = np.random.default_rng(seed)
    groups, each = int(generator.integers(1, 40)), int(generator.integers(1, 6))
    grown = generator.random() < 0.4
    labels = np.repeat(generator.integers(0, 4 if grown else 3, groups), each)
    frozen = np.repeat(
        generator.random(groups) < generator.choice([0.0, 0.5, 0.8, 1.0], p=[0.05, 0.4, 0.5, 0.05]), each
    )
    steady = generator.random() < 0.3  # half of the time nothing falls

    def said(recall):
        right = generator.random(len(labels)) < recall[labels, frozen.astype(int)]
        scores = np.full((len(labels), 4), 0.1)
        scores[np.arange(len(labels)), np.where(right, labels, (labels + 1) % 3)] = 0.7
        return scores

    champion = said(generator.uniform(0.2, 1.0, (4, 2)))
    champion[:, 3] = 0.0
    challenger = (
        said(generator.uniform(0.2, 1.0, (4, 2)))
        if not steady
        else np.where((champion.argmax(axis=1) == labels)[:, None], champion, said(np.full((4, 2), 0.5)))
    )
    found = Answers(
        [f"s{n:04d}" for n in range(len(labels))],
        [f"g{n // each}" for n in range(len(labels))],
        labels,
        frozen,
        CLASSES,
        challenger,
        frozenset(CLASSES) if grown else KNOWN,
        champion,
        KNOWN,
    )
    limits = DecisionLimits(
        tolerance=float(generator.choice([0.05, 1.0])), max_class_drop=float(generator.choice([0.0, 0.1, 0.5, 1.0]))
    )
    decision = judge(found, limits, resamples=200)
    claims = Claims(found, decision, limits)
    for check in decision["checks"]:
        claims.hold(check["sentence"])
    passed = [check["passed"] for check in decision["checks"]]
    assert decision["reasons"] == [
        check["sentence"] for check in decision["checks"] if all(passed) or not check["passed"]
    ]
    assert decision["verdict"] == ("Promoted: " if all(passed) else "Refused: ") + "; ".join(decision["reasons"]) + "."


def test_wrong_labels_in_what_is_new_do_not_carry_the_day():
    """The new hold-out agrees with the challenger, the frozen one does not."""
    found = answers(champion=0.9, challenger=0.9)
    new, guess = ~found.frozen, (found.labels + 1) % 3
    mislearned = np.full_like(found.challenger, 0.1)
    mislearned[np.arange(len(guess)), guess] = 0.7
    labels = np.where(new, guess, found.labels)
    wrong = Answers(
        found.segments, found.groups, labels, found.frozen, CLASSES, mislearned, KNOWN, found.champion, KNOWN
    )
    decision = decide(wrong)
    assert decision["outcome"] == "refused" and {"frozen", "class_drop"} <= set(failed(decision))


def test_it_must_not_be_worse_on_what_is_new_either():
    found = answers(champion=0.8, challenger=0.8)
    worse = found.challenger.copy()
    worse[~found.frozen] = np.roll(worse[~found.frozen], 1, axis=1)
    decision = decide(
        Answers(found.segments, found.groups, found.labels, found.frozen, CLASSES, worse, KNOWN, found.champion, KNOWN),
        tolerance=1.0,
    )
    assert "new" in failed(decision)


def test_the_first_must_beat_the_most_frequent_class():
    assert decide(answers(first=True))["outcome"] == "promoted"
    hopeless = decide(answers(first=True, challenger=0.2))
    assert (hopeless["rule"], hopeless["outcome"], failed(hopeless)) == ("first", "refused", ["majority"])
    nothing = Answers([], [], np.zeros(0, np.int64), np.zeros(0, bool), CLASSES, np.zeros((0, 4)), KNOWN)
    assert decide(nothing)["verdict"] == "Refused: no segment is held out to judge it on."


def test_the_first_is_told_if_a_linear_classifier_is_as_good_but_is_promoted():
    found = answers(first=True, challenger=0.6)
    linear = answers(first=True, challenger=0.9).challenger
    for floor, told in (
        (linear, "it is not above a linear classifier on mean frame and motion, which scores"),
        (found.challenger, "it is not above a linear classifier"),
        (np.roll(found.challenger, 1, axis=1), "a linear classifier on mean frame and motion scores"),
    ):
        decision = decide(replace(found, floor=floor))
        assert decision["outcome"] == "promoted" and told in decision["verdict"]
        right = (floor.argmax(axis=1) == found.labels).mean()
        assert f"scores {percent(right)}" in decision["verdict"] and decision["checks"][1]["name"] == "linear"
    hopeless = replace(answers(first=True, challenger=0.2), floor=linear)
    assert failed(decide(hopeless)) == ["majority"]


def test_one_group_or_none_tells_nothing():
    assert "frozen" in failed(decide(answers(groups=1, frozen=1.0)))
    assert "frozen" in failed(decide(answers(frozen=0.0)))


def test_changed_answers_are_listed_with_both():
    found = answers(groups=30, champion=0.7, challenger=0.9)
    changed = decide(found)["changed"]
    differ = found.champion.argmax(axis=1) != found.challenger.argmax(axis=1)
    assert {item["segment"] for item in changed} == {found.segments[row] for row in np.flatnonzero(differ)} != set()
    item = changed[0]
    assert (
        item["champion"] != item["challenger"]
        and item["challenger_confidence"] == pytest.approx(0.7)
        and item["set"] in ("frozen", "new")
    )


def test_what_could_be_seen_shrinks_with_more_groups_and_is_never_nothing():
    """Where the models agree throughout, as many segments as must win, each in a group of its own, to be taken for more
    than chance.
    """
    seen = [detectable(Difference(0.0, 0.0, 0.0, 1.0), 4 * groups, groups) for groups in (5, 20, 100, 1000)]
    assert all(first > second > 0 for first, second in itertools.pairwise(seen))
    groups = 20
    winning = round(seen[1] * 4 * groups)
    for count, beyond in ((winning, True), (winning - 1, False)):
        right = np.ones(4 * groups, dtype=bool)
        right[[4 * number for number in range(count)]] = False
        scores = [
            np.where(np.array([right, np.ones_like(right)][one])[:, None], [0.9, 0.1], [0.1, 0.9]) for one in (0, 1)
        ]
        same = Answers(
            [str(n) for n in range(4 * groups)],
            [str(n // 4) for n in range(4 * groups)],
            np.zeros(4 * groups, np.int64),
            np.ones(4 * groups, bool),
            ("a", "b"),
            scores[1],
            frozenset("ab"),
            scores[0],
            frozenset("ab"),
        )
        found = compare(same, np.ones(4 * groups, dtype=bool), resamples=20_000, seed=1)
        assert (found["difference"]["accuracy"]["low"] > 0) == beyond
    assert detectable(Difference(0.1, None, None, None), 4, 1) is None


def test_every_figure_can_be_written_as_json():
    for found in (answers(groups=1, frozen=1.0), answers(first=True), answers(classes=CLASSES[:1])):
        json.dumps(decide(found), allow_nan=False)
    assert math.isfinite(decide(answers())["sets"]["both"]["challenger"]["accuracy"]["low"])
