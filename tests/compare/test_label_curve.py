"""Accuracy against the number of labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from posture.compare.label_curve import (
    curve_study,
    parse_sizes,
    rows_for_console,
    run_label_curve,
    sentences,
    write_curve_page,
)
from posture.config import ActionRun, Optim, Scale, Study
from posture.errors import InputError
from posture.models.configs import C3D, Linear
from posture.runs.recipes import load_study
from tests.support.html_pages import assert_self_contained
from tests.support.processes import posture_here

TINY = Study(
    name="tiny",
    subject=ActionRun(
        name="plain",
        model=C3D(width=0.125, size=32, hidden=64),
        optim=Optim(name="adamw", lr=0.001),
        scale=Scale(global_batch=4),
    ),
    references=(ActionRun(name="linear", model=Linear(size=32, grid=4)),),
    learning_rates=(1.0,),
    titles={"plain": "The plain one"},
)


def point(labels: int | str, accuracy: float, *, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    segments = 4 * labels if isinstance(labels, int) else 100
    return {
        "labels": labels, "segments": segments, "accuracy": accuracy, "low": low, "high": high, "values": [accuracy]
    }  # fmt: skip


def curve(**given: Any) -> dict[str, Any]:
    points = [point(5, 0.4, low=0.3, high=0.5), point(10, 0.5, low=0.4, high=0.6), point("all", 0.7)]
    models = [
        {"name": "plain", "title": "The plain one", "points": points},
        {"name": "linear", "title": "Linear", "points": points[:2]},
    ]
    gain = {"from": 10, "to": "all", "difference": 0.2, "low": 0.05, "high": 0.35, "p": 0.01, "against": 3}
    values = {"name": "tiny", "subject": "plain", "models": models, "gains": [gain], "classes": {"a": 8, "b": 40}}
    made = values | {"groups": 12, "facts": {"seeds": [0, 1]}} | given
    return made | {"sentences": sentences(made)}


@pytest.mark.parametrize(
    ("text", "sizes"), [("5,10,20,all", (5, 10, 20, None)), (" all, 20,5,5", (5, 20, None)), ("2,9", (2, 9))]
)
def test_sizes_are_put_in_order(text: str, sizes: tuple[int | None, ...]) -> None:
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("text", ["", "5", "0,all", "5;10", "-5,all", "5,10.5", "all,all"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--label-curve .*for example 5,10,20,all"):
        parse_sizes(text)


def test_the_subject_and_the_linear_classifier_are_left_of_a_study() -> None:
    found = curve_study(load_study("jobs/action.py:study"))
    assert [run.name for run in found.runs] == ["improved", "linear"] and found.epochs == "auto"
    alone = curve_study(TINY.model_copy(update={"references": ()}))
    assert [run.name for run in alone.runs] == ["plain", "linear"]
    with pytest.raises(InputError, match="is of detectors; it takes action classifiers"):
        curve_study(load_study("jobs/detector.py:study"))


def test_sentences_say_whether_more_labels_still_help() -> None:
    first, gain, short = curve()["sentences"]
    assert first.replace("\u202f", " ").startswith("The plain one recognises 40.0 % with 5 a class and 70.0 % with all")
    assert "From 10 to all: +20.0 points, 95 % CI +5.0 to +35.0" in gain.replace("\u202f", " ")
    assert (
        gain.endswith("Labelling more would probably help.")
        and short == "Classes with fewer segments than asked: a (8)."
    )
    for low in (-0.1, None):
        doubted = curve(gains=[{"from": 10, "to": "all", "difference": 0.2, "low": low, "high": 0.4}])
        assert "does not show that more labels would help" in doubted["sentences"][1]


def test_the_page_has_the_curve_its_intervals_and_the_table(tmp_path: Path) -> None:
    columns, rows = rows_for_console(curve())
    assert columns == ("model", "5 a class", "10 a class", "all labels") and rows[1][-1] == "not measured"
    write_curve_page(tmp_path / "curve.html", curve())
    page = (tmp_path / "curve.html").read_text()
    assert_self_contained(page)
    assert "The plain one" in page and page.count("95 % intervals of") == 2 and "not measured" in page


@pytest.mark.long
def test_every_size_is_trained_and_scored_on_the_same_test_split(small_store: str, tmp_path: Path) -> None:
    said: list[str] = []
    found = run_label_curve(
        TINY,
        small_store,
        (1, 2, 500, None),
        runs=str(tmp_path),
        seeds=2,
        changes={"epochs": 1},
        execute=lambda what, jobs: {job.run.name: job.work(what) for job in jobs},
        tell=said.append,
    )
    assert [len(model["points"]) for model in found["models"]] == [3, 3]
    subject, floor = found["models"]
    assert (subject["name"], floor["name"]) == ("plain", "linear")
    for one, two, whole in (subject["points"], floor["points"]):
        assert (one["labels"], two["labels"], whole["labels"]) == (1, 2, "all")
        assert (one["segments"], two["segments"]) == (2, 4) and whole["segments"] == sum(found["classes"].values()) > 4
        assert all(len(at["values"]) == 2 and 0 <= at["accuracy"] <= 1 for at in (one, two, whole))
    assert [(gain["from"], gain["to"]) for gain in found["gains"]] == [(1, 2), (2, "all")]
    assert any(sentence.startswith("500 labels a class: no class has more than") for sentence in said)
    runs = [json.loads((path / "run.json").read_text()) for path in tmp_path.iterdir()]
    assert {run["run"]["data"]["labels_per_class"] for run in runs} == {1, 2, None} and len(runs) == 12
    assert {run["footage"]["train"]["segments"] for run in runs if run["run"]["data"]["labels_per_class"] == 1} == {2}


@pytest.mark.long
def test_the_command_writes_the_page_and_the_figures(small_store: str, tmp_path: Path) -> None:
    (tmp_path / "recipes.py").write_text(
        "from posture.config import ActionRun, Study\nfrom posture.models.configs import Linear\n\n\n"
        "def tiny():\n    return Study(name='tiny', subject=ActionRun(name='linear', model=Linear(size=32, grid=4)))\n"
    )
    out = tmp_path / "out"
    done = posture_here("compare", f"{tmp_path / 'recipes.py'}:tiny", "--store", small_store, "--out", str(out),
                        "--seeds", "1", "--local", "--label-curve", "1,all")  # fmt: skip
    assert done.returncode == 0 and "all labels" in done.stdout, done.stderr
    assert (out / "label_curve.html").exists() and len(json.loads((out / "label_curve.json").read_text())["gains"]) == 1
    wrong = posture_here("compare", f"{tmp_path / 'recipes.py'}:tiny", "--store", small_store, "--label-curve", "5")
    assert wrong.returncode == 2 and "a curve needs at least two numbers" in wrong.stderr


def test_equal_time_is_refused_beside_a_label_curve(tmp_path):
    done = posture_here("compare", "x", "--store", str(tmp_path), "--label-curve", "5,all", "--equal", "time")
    assert done.returncode == 2 and "--equal time: a label curve trains all for equal epochs" in done.stderr
