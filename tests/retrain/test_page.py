"""The page of a decision, from decisions as `posture.retrain.decision.judge` makes them."""

import numpy as np
import pytest

from posture.retrain.decision import Answers, DecisionLimits, beyond_chance, judge
from posture.retrain.drift import measure
from posture.retrain.page import drift_sentence, render, title_of
from tests.retrain.test_drift import footage

CLASSES = ("jump", "run <b>fast</b>", "throw")


def answers(*, first=False, seed=0, groups=20, better=0.3):
    """Segments of three classes, of which the champion knows two; the challenger is right more often the larger
    `better` is.
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(groups * 4) % 3
    challenger, champion = (
        generator.dirichlet(np.ones(3), len(labels))
        + (share + generator.random(len(labels)))[:, None] * np.eye(3)[labels]
        for share in (max(better, 0.0), max(-better, 0.0))
    )
    champion[:, 2] = 0
    challenger, champion = (scores / scores.sum(axis=1, keepdims=True) for scores in (challenger, champion))
    groups = [f"group {number // 4}" for number in range(len(labels))]
    frozen = np.array([int(group.split()[1]) % 2 == 0 for group in groups]) & (labels < 2)
    return Answers(
        [f"segment-{number:04d}" for number in range(len(labels))],
        groups,
        labels,
        frozen,
        CLASSES,
        challenger,
        frozenset(CLASSES),
        None if first else champion,
        frozenset() if first else frozenset(CLASSES[:2]),
    )


def decision(given, **changes):
    """What a pass would write."""
    first = given.champion is None
    judged = judge(given, DecisionLimits(tolerance=1.0, max_class_drop=1.0), resamples=300)
    judged["changed"] = [
        item | {"video": "v", "uri": "/in/a.mp4", "start": 0.0, "end": 3.0} for item in judged["changed"]
    ]
    counts = {name: {"train": 9, "val": 2, "test": 3} for name in CLASSES}
    return {
        "pass": "0002-20261125-184234",
        "started": 1_795_000_000.0,
        "ended": 1_795_000_700.0,
        "registry": "/registry",
        "store": "/store",
        "footage": "/in",
        "recipe": "jobs/action.py:improved",
        "run_folder": "/registry/runs/improved-1",
        "versions": {"clips": 3, "segments": 4},
        "champion": None if first else "v0001",
        "challenger": "v0002",
        "start": "champion",
        "start_sentence": "",
        "baseline": None,
        "came_in": {
            "segments": 40,
            "clips": 80,
            "classes": counts,
            "new_classes": [CLASSES[2]],
            "relabelled": 2,
            "removed": 0,
            "groups": {"train": 7, "val": 2, "test": 3},
        },
        "refused_files": [{"uri": "/in/cut.mp4", "verdict": "truncated", "reason": "decoding stops before frame 7"}],
        "unsettled": ["/in/b.mp4"],
        "unlabelled": ["/in/c.mp4", "/in/d.mp4"],
        "left_out": {"spin": 3},
        "balance": {"before": {CLASSES[0]: counts[CLASSES[0]]}, "after": counts},
        "holdout": {},
        "training": {
            "epochs": 12,
            "best_epoch": 9,
            "metric": "val_accuracy",
            "best": 0.8,
            "train": 60,
            "val": 12,
            "seconds": 81.0,
        },
        **judged,
        **changes,
    }


def one_file(page):
    assert (
        page.rstrip().endswith("</html>") and "<script" not in page and "http://" not in page and "https://" not in page
    )
    page = page.replace("<wbr>", "")
    assert "run &lt;b&gt;fast&lt;/b&gt;" in page and "<b>fast</b>" not in page, "names are text"
    return page


def test_the_page_of_a_challenger_that_was_promoted():
    made = decision(answers())
    assert made["outcome"] == "promoted" and title_of(made) == "v0002 replaces v0001"
    frames = {
        item["segment"]: [np.full((24, 32, 3), 40 * number, np.uint8) for number in range(5)]
        for item in made["changed"]
    }
    drift = measure(footage(0), footage(1, shift=1.5))
    page = one_file(render(made, drift=drift, frames=frames))
    for part in (
        made["verdict"].partition(" (")[0],
        "Correct before, wrong now",
        "Wrong before, correct now",
        "New class: throw",
        "truncated: 1",
        "Classes not trained yet, with too few clips or none in the hold-out: spin (3 training clips)",
        "Without a label: 2 files; posture review",
        "they were still changing: 1 file.",
        "Frozen hold-out",
        "The new footage differs from the old",
    ):
        assert part in page, part
    assert page.count("data:image/jpeg") == 5 * min(len(made["changed"]), page.count('<div class="frames"')) > 0
    rows = {row["class"]: row for row in made["per_class"]}
    assert rows["throw"]["status"] == "new" and 'throw<span class="new-class">new</span>' in page


def test_the_first_and_the_refused_and_the_failed_have_pages_too():
    first = decision(answers(first=True))
    assert title_of(first) == "v0002 is the first champion" and "Frozen hold-out" not in one_file(render(first))
    refused = decision(answers(better=-1.0, groups=60))
    assert (
        refused["outcome"] == "refused"
        and title_of(refused) == "v0001 stays"
        and '<span class="mark wrong">✗</span>' in one_file(render(refused))
    )
    surely = sum(
        bool(row[part]) and beyond_chance(row[part]) for row in refused["per_class"] for part in ("frozen", "new")
    )
    assert render(refused).count('<td class="number fallen">') == surely > 0
    failed = first | {
        "outcome": "failed",
        "verdict": "Failed: the challenger could not be trained: it ran out of memory.",
        "checks": [],
        "rule": None,
        "rule_sentence": "",
        "limits": {},
        "classes": {"shared": [], "new": [], "gone": []},
        "sets": {},
        "per_class": [],
        "changed": [],
        "challenger": None,
        "training": None,
    }
    page = one_file(render(failed))
    assert (
        title_of(failed) == "No champion yet"
        and "it ran out of memory" in page
        and "New footage</h2>" in page
        and "Class by class" not in page
    )


def test_clips_that_got_worse_are_never_crowded_out():
    made = decision(answers(groups=200))
    page = render(made)
    lost = sum(item["champion"] == item["truth"] for item in made["changed"])
    gained = sum(item["challenger"] == item["truth"] for item in made["changed"])
    assert lost > 12 < gained and f"{lost:,} from correct to wrong, {gained:,} from wrong to correct" in page
    assert page.count('<div class="frames"') <= 36 and page.index("Correct before, wrong now") < page.index(
        "Wrong before, correct now"
    )


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ({}, {"shift": 1.5}, "The new footage differs from the old (AUC"),
        ({}, {}, "does not differ from the old beyond chance (AUC"),
        ({}, {"groups": 2}, "Drift of the features cannot be measured"),
        (
            {},
            {"classes": ("throw",)},
            "All new footage is of classes that the frozen hold-out does not have: the champion's confidence is ",
        ),
        ({}, {"sure": 0.5}, "The champion's confidence falls by"),
        ({"sure": 0.5}, {}, "The champion's confidence rises by"),
    ],
)
def test_what_is_said_of_drift_follows_from_its_figures(ours, theirs, said):
    assert said in drift_sentence(measure(footage(0, **ours), footage(1, **theirs)))
