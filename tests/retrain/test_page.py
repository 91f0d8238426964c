"""The page of a decision, from decisions as `posture.retrain.decision.judge` makes them."""

import numpy as np
import pytest

from posture.retrain.comparison import beyond_chance
from posture.retrain.drift import measure
from posture.retrain.page import render, title_of
from posture.retrain.page_drift import drift_sentence
from tests.support.figures.decision import answers, decision, footage


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
