import itertools
import math

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from posture.config import override
from posture.display.charts import LETTER
from posture.runs.recipes import load_recipe
from posture.search.page import AxisScale, coordinates, importances, scales_of, staggered, write_search_page
from posture.search.spaces import load_space
from posture.search.study import Search, Terms, leading
from posture.search.trial import TrialResult, parse_objectives
from tests.support.html_pages import assert_self_contained

HOSTILE = "<script>alert('x')</script> & \"y\""


@pytest.fixture
def searched():
    """`searched(trials, objectives)`: a search of the action space whose results follow a known law: the learning rate
    alone decides.
    """

    def make(trials, objectives="accuracy"):
        base = override(load_recipe("jobs/action.py:improved"), {"epochs": 3})
        search = Search(
            "hostile " + HOSTILE,
            optuna.storages.InMemoryStorage(),
            Terms(
                load_space("tune_spaces/action.py"),
                base,
                parse_objectives(objectives, base),
                "store",
                {"clips": 3},
                sampler="random",
            ),
        )
        for number in range(trials):
            point = search.ask()
            value = 1 - abs(math.log10(point.changes["optim.lr"] / 0.002)) / 2
            if number % 7 == 3:
                search.tell(point.number, TrialResult("failed", reason=HOSTILE))
            elif number % 7 == 5 and objectives == "accuracy":
                search.tell(point.number, TrialResult("stopped", by_epoch=[value / 2]))
            else:
                search.tell(
                    point.number,
                    TrialResult(
                        "complete",
                        [value, 1 + point.changes["model.dropout"]][: len(search.terms.objectives)],
                        [value] * 3,
                    ),
                )
        return search.study

    return make


def page_of(study, folder):
    write_search_page(folder / "report.html", study)
    return assert_self_contained((folder / "report.html").read_text())


def test_a_page_holds_every_trial_and_names_the_winner(searched, tmp_path):
    study = searched(24)
    page = page_of(study, tmp_path)
    best = study.best_trial
    assert "24 trials" in page.text and f"Trial {best.number} reached accuracy {best.value:.4f} on val" in page.text
    for title in (
        "History",
        "Importance of parameters",
        "Parallel coordinates",
        "Slices",
        "Learning curves",
        "All trials",
    ):
        assert title in page.text
    assert "Pareto" not in page.text and page.text.count(HOSTILE) >= 4
    assert sum(state in ("stopped", "failed", "complete") for state in page.values("td", "class")) == 24


def test_the_parameter_that_decides_is_found_to_matter_most(searched):
    study = searched(40)
    (table,) = importances(study, parse_objectives("accuracy", load_recipe("jobs/action.py:improved")))
    assert table["rows"][0][0] == "optim.lr" and table["rows"][0][1] > 0.5
    assert sum(share for _, share, _ in table["rows"]) == pytest.approx(1.0)
    assert importances(searched(4), parse_objectives("accuracy", load_recipe("jobs/action.py:improved"))) == []


def test_two_objectives_have_a_front(searched, tmp_path):
    page = page_of(searched(14, "accuracy,gmacs"), tmp_path)
    assert (
        "Pareto front" in page.text
        and "on the Pareto front of accuracy and gmacs" in page.text
        and "Best gmacs" in page.text
    )


@pytest.mark.parametrize("trials", [0, 1])
def test_a_search_that_has_hardly_begun_has_a_page(searched, tmp_path, trials):
    assert ("No trial is complete yet" in page_of(searched(trials), tmp_path).text) == (trials == 0)


def test_scales_and_coordinates(searched):
    study = searched(10)
    trials = study.get_trials()
    scales = scales_of(trials)
    rate = scales["optim.lr"]
    assert rate.position(0.002) == pytest.approx(0.5) and [place for place, _ in rate.marks] == [0.0, 1.0]
    assert scales["model.attention"].position("cbam") == 0.5
    assert AxisScale("optim.lr", FloatDistribution(0.01, 0.01, log=True)).position(0.01) == 0.0
    (objective,) = parse_objectives("accuracy", load_recipe("jobs/action.py:improved"))
    drawn = coordinates(trials, scales, objective, leading(study))
    assert len(drawn["axes"]) == len(scales) + 1 and [line["best"] for line in drawn["lines"]].count(True) == 1
    assert drawn["lines"][-1]["best"] and drawn["lines"][-1]["text"].startswith("trial 0:")
    worst = min((trial for trial in trials if trial.values), key=lambda trial: trial.value)
    assert coordinates(trials, scales, objective, [worst])["lines"][-1]["text"].startswith(f"trial {worst.number}:")


def test_long_names_and_values_of_parameters_have_room(searched):
    """No label beside an axis reaches the next one, and of those below an axis none lies on another."""
    study = searched(6)
    values = ("separable_bottleneck_with_attention", "separable_bottleneck", "plain", "another_long_value")
    name = "model.a_rather_long_parameter_name"
    scales = scales_of(study.get_trials()) | {name: AxisScale(name, CategoricalDistribution(values))}
    (objective,) = parse_objectives("accuracy", load_recipe("jobs/action.py:improved"))
    drawn = coordinates(study.get_trials(), scales, objective, leading(study))
    texts = [text for axis in drawn["axes"] for text in (axis["name"], *(text for _, text in axis["marks"]))]
    assert set(values) <= set(texts) and "a_rather_long_parameter_name" in texts
    places = [axis["x"] for axis in drawn["axes"]]
    assert (
        min(after - before for before, after in itertools.pairwise(places)) > LETTER * max(map(len, texts))
        and drawn["width"] > places[-1]
    )
    placed = staggered([(50 + 100 * place, value) for place, value in enumerate(values)], 360)
    spans = [(row, left, left + LETTER * len(text)) for left, row, text in placed]
    assert all(left >= 0 and right <= 360 for _, left, right in spans) and {row for row, _, _ in spans} == {0, 1}
    assert all(
        one[0] != other[0] or one[2] <= other[1] or other[2] <= one[1]
        for one, other in itertools.combinations(spans, 2)
    )
    assert {row for _, row, _ in staggered([(50, "none"), (150, "cbam"), (250, "stcbam")], 360)} == {0}
