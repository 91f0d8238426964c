"""A folder of runs as a table and a page: what state each is in, and how it did."""

import os
import re

import pytest

from posture.__main__ import main
from posture.commands.runs import SORTS, list_runs
from posture.errors import InputError
from posture.runs.folder import RunFolder
from tests.support.figures.runs import make


@pytest.fixture
def place(tmp_path):
    interval = {"of": "accuracy", "low": 0.61, "high": 0.87, "groups": 12, "resamples": 1000}
    make(
        tmp_path,
        "whole",
        epochs=3,
        created=1.7e9,
        values=[0.5, 0.8, 0.7],
        test={"accuracy": 0.75, "interval": interval, "tag": "epoch-0002-aa"},
    )
    make(
        tmp_path,
        "early",
        epochs=50,
        created=1.7e9 + 100,
        values=[0.9, 0.4, 0.4],
        patience=2,
        test={"accuracy": 0.6, "tag": "epoch-0001-zz"},
    )
    make(tmp_path, "busy", epochs=5, created=1.7e9 + 200, values=[0.3], holder=os.getpid())
    # beyond what Linux numbers processes with
    make(tmp_path, "broken", epochs=5, created=1.7e9 + 300, values=[0.2], holder=2**22 + 7)
    make(tmp_path, "bare", epochs=1, created=1.7e9 + 400)
    make(
        tmp_path,
        "athletes",
        epochs=1,
        created=1.7e9 + 500,
        recipe="jobs/detector.py:yolov5s",
        values=[0.45],
        test={"map50_95": 0.4, "map50": 0.7},
    )
    RunFolder(str(tmp_path), "odd").write_json("run.json", {"run": "nonsense", "classes": []})
    (tmp_path / "no_run").mkdir()
    return tmp_path


def test_every_state_is_told_with_the_results(place):
    rows = {row.name: row for row in list_runs(str(place), order="name", page=None)}
    assert list(rows) == ["athletes", "bare", "broken", "busy", "early", "odd", "whole"]
    assert {name: row.state for name, row in rows.items() if name != "odd"} == {
        "whole": "finished, 3 of 3 epochs",
        "early": "stopped early, 3 of 50 epochs",
        "busy": "training, 1 of 5 epochs",
        "broken": "interrupted, 1 of 5 epochs",
        "bare": "not begun",
        "athletes": "finished, 1 of 1 epoch",
    }
    assert rows["odd"].state.startswith("cannot be read: ") and rows["odd"].test is None
    assert (
        rows["whole"].test_text == "accuracy 0.750 (0.610 to 0.870)"
        and rows["whole"].val_text == "accuracy 0.800, epoch 2"
    )
    assert (
        rows["early"].test_text == "accuracy 0.600, of an earlier checkpoint"
        and rows["athletes"].test_text == "mAP@0.5:0.95 0.400"
    )
    assert (
        rows["whole"].footage == "pool: 1 clip, 2 classes" and rows["athletes"].footage == "pool: 40 images, 2 classes"
    )
    assert (
        rows["bare"].recipe == "jobs/action.py:improved" and rows["bare"].val is None and rows["bare"].test_text == ""
    )


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("newest", ["athletes", "bare", "broken", "busy", "early", "whole", "odd"]),
        ("val", ["early", "whole", "athletes", "busy", "broken"]),
        ("test", ["whole", "early", "athletes"]),
    ],
)
def test_they_are_sorted_with_what_is_not_known_last(place, order, first):
    assert [row.name for row in list_runs(str(place), order=order, page=None)][: len(first)] == first


def test_the_page_can_be_sorted_by_everything_without_a_script(place, tmp_path, capsys):
    main_runs(str(place), "--sort", "test", "--page", str(tmp_path / "runs.html"))
    said = capsys.readouterr().out
    lines = [line.split()[0] for line in said.splitlines()]
    assert lines.index("whole") < lines.index("early") < lines.index("athletes") and said.splitlines()[-1].startswith(
        "next: "
    )
    page = (tmp_path / "runs.html").read_text()
    assert "<script" not in page and page.count('type="radio"') == len(SORTS)
    for order in SORTS:
        expected = [row.name for row in list_runs(str(place), order=order, page=None)]
        places = dict(re.findall(rf'--{order}: (\d+);.*?<b role="cell">(\w+)', re.sub(r"<wbr>", "", page), re.DOTALL))
        assert [places[str(number)] for number in range(len(expected))] == expected
        assert f"main:has(#by-{order}:checked)" in page


def test_a_folder_without_runs_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no runs here; posture train RECIPE --store STORE"):
        list_runs(str(tmp_path / "none"), order="newest", page=None)


def main_runs(*arguments):
    try:
        main(["runs", *arguments])
    except SystemExit as end:
        assert not end.code
