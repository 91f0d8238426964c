"""Champion or challenger, on answers whose truth is known."""

import itertools
import json
import math

import numpy as np
import pytest

from posture.decision import Answers, Limits, compare, detectable, judge
from posture.stats import Difference

CLASSES = ("dive", "jump", "kick", "vault")
KNOWN = frozenset(CLASSES[:3])


def answers(groups=60, *, each=4, frozen=0.75, champion=0.8, challenger=0.8, classes=CLASSES[:3], known=KNOWN, wrong=None, seed=0, first=False):
    """`groups` groups of `each` segments, of the classes in turn; both models are right on shares of them, the same ones as far as they go.

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
    return Answers([f"s{n:04d}" for n in range(len(labels))], [f"g{n // each}" for n in range(len(labels))], labels, in_frozen, CLASSES,
                   said(challenger, missing=wrong or ()), frozenset(known), before, frozenset() if first else KNOWN)


def decide(found, **limits):
    return judge(found, Limits(**limits), resamples=500)


def failed(decision):
    return [check["name"] for check in decision["checks"] if not check["passed"]]


def test_a_large_hold_out_asks_for_a_margin_beyond_chance():
    better = decide(answers(groups=240, champion=0.7, challenger=0.9), margin=0.05)
    assert (better["rule"], better["outcome"]) == ("superiority", "promoted")
    equal = decide(answers(groups=240, champion=0.8, challenger=0.8), margin=0.05)
    assert (equal["rule"], equal["outcome"], failed(equal)) == ("superiority", "refused", ["better"])
    slight = decide(answers(groups=240, champion=0.8, challenger=0.83), margin=0.05)
    assert slight["rule"] == "superiority" and failed(slight) == ["better"] and slight["sets"]["both"]["difference"]["accuracy"]["low"] > 0


def test_a_small_one_says_what_it_could_have_seen_and_asks_not_to_be_worse():
    equal = decide(answers(groups=30))
    assert (equal["rule"], equal["outcome"]) == ("non-inferiority", "promoted")
    assert equal["sets"]["both"]["detectable"] > Limits().margin
    assert equal["rule_sentence"].startswith("The smallest difference in accuracy that this hold-out could have shown is ")
    behind = decide(answers(groups=30, champion=0.85, challenger=0.78), tolerance=0.5, max_class_drop=1.0)
    assert behind["sets"]["both"]["difference"]["accuracy"]["difference"] < 0 and failed(behind) == ["better"]
    worse = decide(answers(groups=30, champion=0.9, challenger=0.6))
    assert "frozen" in failed(worse) and worse["verdict"].startswith("Refused: ") and "is not ruled out" in worse["verdict"]


def test_a_new_class_is_the_gain_if_it_is_recognised_and_nothing_is_lost():
    grown = {"classes": CLASSES, "known": CLASSES}
    decision = decide(answers(**grown))
    assert decision["outcome"] == "promoted" and decision["classes"] == {"shared": list(CLASSES[:3]), "new": ["vault"], "gone": []}
    assert "new: vault, recall" in decision["verdict"] and decision["rule"] == "non-inferiority"
    assert decision["sets"]["both"]["segments"] == 180  # of the shared classes alone
    vault = next(row for row in decision["per_class"] if row["class"] == "vault")
    assert vault["status"] == "new" and vault["new"]["champion"] is None and vault["new"]["challenger"] > 0.5
    assert failed(decide(answers(**grown, wrong=["vault"]))) == ["new_classes"]
    assert failed(decide(answers(**grown, frozen=1.0))) == ["new_classes"]  # none of it is new: its recall is not known
    assert decide(answers(**grown, wrong=["vault"]), recall_floor=0.0)["outcome"] == "promoted"


def test_one_class_that_falls_is_enough():
    decision = decide(answers(wrong=["kick"], challenger=1.0), tolerance=1.0)
    assert {"class_drop"} <= set(failed(decision)) and "recall falls by more than 10.0 points, beyond chance: kick by" in decision["verdict"]
    assert "class_drop" not in failed(decide(answers(wrong=["kick"], challenger=1.0), max_class_drop=1.0))


@pytest.mark.parametrize(("segments", "lost", "outcome"), [(3, 1, "promoted"), (5, 5, "promoted"), (6, 6, "refused"), (40, 8, "refused"), (40, 4, "promoted")])
def test_a_class_falls_by_more_than_chance_or_it_is_only_told(segments, lost, outcome):
    """`lost` of the held-out segments of one class, each in a group of its own, are recognised no longer; nothing else changes."""
    labels = np.r_[np.zeros(segments, np.int64), np.ones(200, np.int64)]
    champion = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    challenger = champion.copy()
    challenger[:lost] = np.roll(champion[:lost], 1, axis=1)
    ids = [f"s{number}" for number in range(len(labels))]
    decision = decide(Answers(ids, ids, labels, np.ones(len(labels), bool), CLASSES[:3], challenger, KNOWN, champion, KNOWN), tolerance=0.5)
    check = next(check for check in decision["checks"] if check["name"] == "class_drop")
    row = next(row for row in decision["per_class"] if row["class"] == "dive")["frozen"]
    assert check["passed"] == (outcome == "promoted") and (row["lost"], row["won"], row["segments"]) == (lost, 0, segments)
    assert (f"dive by {100 * lost / segments:.1f} points ({lost} of its {segments} segments lost, 0 won)" in check["sentence"]) == (lost / segments > 0.1)


def test_wrong_labels_in_what_is_new_do_not_carry_the_day():
    """The new hold-out agrees with the challenger, the frozen one does not."""
    found = answers(champion=0.9, challenger=0.9)
    new, guess = ~found.frozen, (found.labels + 1) % 3
    mislearned = np.full_like(found.challenger, 0.1)
    mislearned[np.arange(len(guess)), guess] = 0.7
    labels = np.where(new, guess, found.labels)
    wrong = Answers(found.segments, found.groups, labels, found.frozen, CLASSES, mislearned, KNOWN, found.champion, KNOWN)
    decision = decide(wrong)
    assert decision["outcome"] == "refused" and {"frozen", "class_drop"} <= set(failed(decision))


def test_it_must_not_be_worse_on_what_is_new_either():
    found = answers(champion=0.8, challenger=0.8)
    worse = found.challenger.copy()
    worse[~found.frozen] = np.roll(worse[~found.frozen], 1, axis=1)
    decision = decide(Answers(found.segments, found.groups, found.labels, found.frozen, CLASSES, worse, KNOWN, found.champion, KNOWN), tolerance=1.0)
    assert "new" in failed(decision)


def test_the_first_must_beat_the_most_frequent_class():
    assert decide(answers(first=True))["outcome"] == "promoted"
    hopeless = decide(answers(first=True, challenger=0.2))
    assert (hopeless["rule"], hopeless["outcome"], failed(hopeless)) == ("first", "refused", ["majority"])
    nothing = Answers([], [], np.zeros(0, np.int64), np.zeros(0, bool), CLASSES, np.zeros((0, 4)), KNOWN)
    assert decide(nothing)["verdict"] == "Refused: nothing is held out to judge it on."


def test_one_group_or_none_tells_nothing():
    assert "frozen" in failed(decide(answers(groups=1, frozen=1.0)))
    assert "frozen" in failed(decide(answers(frozen=0.0)))


def test_changed_answers_are_listed_with_both():
    found = answers(groups=30, champion=0.7, challenger=0.9)
    changed = decide(found)["changed"]
    differ = found.champion.argmax(axis=1) != found.challenger.argmax(axis=1)
    assert {item["segment"] for item in changed} == {found.segments[row] for row in np.flatnonzero(differ)} != set()
    item = changed[0]
    assert item["champion"] != item["challenger"] and item["challenger_confidence"] == pytest.approx(0.7) and item["set"] in ("frozen", "new")


def test_what_could_be_seen_shrinks_with_more_groups_and_is_never_nothing():
    """Where the models agree throughout, as many segments as must win, each in a group of its own, to be taken for more than chance."""
    seen = [detectable(Difference(0.0, 0.0, 0.0, 1.0), 4 * groups, groups) for groups in (5, 20, 100, 1000)]
    assert all(first > second > 0 for first, second in itertools.pairwise(seen))
    groups = 20
    winning = round(seen[1] * 4 * groups)
    for count, beyond in ((winning, True), (winning - 1, False)):
        right = np.ones(4 * groups, dtype=bool)
        right[[4 * number for number in range(count)]] = False
        scores = [np.where(np.array([right, np.ones_like(right)][one])[:, None], [0.9, 0.1], [0.1, 0.9]) for one in (0, 1)]
        same = Answers([str(n) for n in range(4 * groups)], [str(n // 4) for n in range(4 * groups)], np.zeros(4 * groups, np.int64),
                       np.ones(4 * groups, bool), ("a", "b"), scores[1], frozenset("ab"), scores[0], frozenset("ab"))
        found = compare(same, np.ones(4 * groups, dtype=bool), resamples=20_000, seed=1)
        assert (found["difference"]["accuracy"]["low"] > 0) == beyond
    assert detectable(Difference(0.1, None, None, None), 4, 1) is None


def test_every_figure_can_be_written_as_json():
    for found in (answers(groups=1, frozen=1.0), answers(first=True), answers(classes=CLASSES[:1])):
        json.dumps(decide(found), allow_nan=False)
    assert math.isfinite(decide(answers())["sets"]["both"]["challenger"]["accuracy"]["low"])
