import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.support.processes import posture, posture_here

RECIPES = """
from posture.config import Study, override
from posture.runs.recipes import load_recipe

SMALL = {"model.size": 32, "model.width": 0.125, "scale.global_batch": 4}


def tiny():
    better = override(load_recipe("jobs/action.py:improved"), SMALL)
    plain = override(load_recipe("jobs/action.py:c3d"), SMALL | {"model.hidden": 64})
    ablation = override(better, {"name": "A3", "model.attention": "none"})
    return Study(name="tiny", subject=better, baselines=(plain,), ablations=(ablation,), learning_rates=(1.0,),
                 epochs=2, titles={"A3": "A3 no attention"})
"""


def compare(store, place, *more):
    return [
        "compare",
        f"{place / 'recipes.py'}:tiny",
        "--store",
        store,
        "--seeds",
        "1",
        "--out",
        str(place / "studies" / "tiny"),
        *more,
    ]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "recipes.py").write_text(RECIPES)
    return tmp_path


def written(place):
    return {path: path.stat().st_mtime_ns for path in place.glob("studies/tiny/runs/*/checkpoints.json")}


def test_a_study_is_trained_scored_and_shown_and_the_second_time_nothing_is_trained(small_store, place):
    done = posture_here(*compare(small_store, place, "--local"))
    assert done.returncode == 0, done.stderr
    assert (
        "tiny: 3 models, 1 seed, 2 epochs each" in done.stdout
        and "A3 no attention" in done.stdout
        and "improved" in done.stdout
    )
    page, first = (place / "studies" / "tiny" / "comparison.html").read_text(), written(place)
    assert page.rstrip().endswith("</html>") and "A3 no attention" in page and len(first) == 3
    analysis = json.loads((place / "studies" / "tiny" / "comparison.json").read_text())
    assert [row["name"] for row in analysis["entries"]] == ["improved", "c3d", "A3"] and all(
        row["metrics"] for row in analysis["entries"]
    )
    again = posture_here(*compare(small_store, place, "--local"))
    assert again.returncode == 0 and "epochs in" not in again.stdout and written(place) == first, again.stderr


def test_bad_requests_are_one_sentence_each(small_store, place):
    for arguments, complaint in (
        (compare(str(place / "none"), place), "there is no store here"),
        (
            ["compare", "jobs/action.py:study", "--store", small_store, "--seeds", "0"],
            'Invalid value "0" for --seeds. Must be at least 1.',
        ),
        (compare(small_store, place, "--set", "model.widht=1"), "model.widht: there is no field 'widht' here"),
        (compare(small_store, place, "--epochs", "-1"), 'Invalid value "-1" for --epochs. Must be at least 1.'),
        (["compare", "jobs/action.py:study", "--store", small_store], "posture ingest --store"),
        (
            ["compare", "jobs/action.py:improved", "--store", small_store],
            "returns ActionRun, but compare takes a Study",
        ),
        (["train", "jobs/action.py:study", "--store", small_store], "is a study of several runs"),
    ):
        done = posture_here(*arguments)
        assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert not (place / "studies").exists()


@pytest.mark.slow
def test_a_study_that_was_interrupted_goes_on_where_it_stopped(small_store, place):
    process = subprocess.Popen(
        [sys.executable, "-m", "posture", *compare(small_store, place, "--epochs", "4")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not written(place) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)  # as a cluster or a service manager ends it; Ctrl-C is the same to it
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "the same command continues the study" in out and "Traceback" not in err, (
        out + err
    )
    assert not (place / "studies" / "tiny" / "comparison.html").exists() and written(place)
    done = posture(*compare(small_store, place, "--epochs", "4"))
    assert done.returncode == 0 and "comparison.html" in done.stdout, done.stderr
    histories = [json.loads(path.read_text()) for path in place.glob("studies/tiny/runs/*/history.json")]
    assert len(histories) == 3 and all([row["epoch"] for row in history] == [1, 2, 3, 4] for history in histories)
