import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter

import optuna
import pytest

from posture.search.study import leading, open_storage, state_of
from tests.support.processes import descendants, posture, posture_here
from tests.support.small_run import SMALL_ACTION, sets
from tests.support.wandb_files import read_run

TINY = sets(SMALL_ACTION | {"model.stem_motion": 0.0})
SPACE = """
def space(trial):
    return {"optim.lr": trial.suggest_float("optim.lr", 1e-4, 1e-1, log=True),
            "model.dropout": trial.suggest_float("model.dropout", 0.0, 0.9)}
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "mine.py").write_text(SPACE)
    return tmp_path


def tune(store, place, *more):
    return [
        "tune",
        f"{place / 'mine.py'}",
        "--base",
        "jobs/action.py:improved",
        "--store",
        store,
        "--folder",
        str(place / "search"),
        *TINY,
        *more,
    ]


def study(place):
    return optuna.load_study(study_name="mine-improved", storage=open_storage(f"sqlite:///{place}/search/study.db"))


def states(place):
    return Counter(state_of(trial) for trial in study(place).get_trials())


def histories(place):
    return {
        path.parent.name: [row["epoch"] for row in json.loads(path.read_text())]
        for path in place.glob("search/runs/*/history.json")
    }


def begin(store, place, *more):
    return subprocess.Popen(
        [sys.executable, "-m", "posture", *tune(store, place, *more)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "offline"},
        start_new_session=True,
    )


def wait_for(condition, process, seconds=200):
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.1)


def test_bad_requests_are_one_sentence_each(small_store, place):
    (place / "other.py").write_text(
        "def space(trial):\n    return {'model.groups': trial.suggest_int('model.groups', 3, 3)}\n"
    )
    (place / "fails.py").write_text("def space(trial):\n    return {'optim.lr': 1 / 0}\n")
    (place / "recipes.py").write_text("from posture.config import Run\n\ndef mine():\n    return Run(name='x y')\n")
    fails = [
        "tune",
        str(place / "fails.py"),
        "--base",
        "jobs/action.py:improved",
        "--store",
        small_store,
        "--folder",
        str(place / "search"),
        *TINY,
    ]
    other = [
        "tune",
        str(place / "other.py"),
        "--base",
        "jobs/action.py:improved",
        "--store",
        small_store,
        "--folder",
        str(place / "search"),
        *TINY,
    ]
    for arguments, complaint in (
        (tune(str(place / "none"), place), "there is no store here"),
        (tune(small_store, place, "--trials", "0"), 'Invalid value "0" for --trials. Must be at least 1.'),
        (
            tune(small_store, place, "--objective", "speed"),
            "--objective speed: a search of action runs can go by accuracy, map",
        ),
        (tune(small_store, place, "--set", "model.widht=1"), "model.widht: there is no field 'widht' here"),
        (other, "the base recipe's model.groups is 4, outside"),
        (fails, "fails.py:space: ZeroDivisionError in line 2: division by zero"),
        (
            [*fails[:3], f"{place / 'recipes.py'}:mine", *fails[4:]],
            "recipes.py:mine: ValidationError in line 4: name: string should",
        ),
        (tune(small_store, place, "--name", "a/b"), "--name 'a/b': use letters"),
        (tune(small_store, place, "--out", str(place)), "this is a folder; name a file"),
        (tune(small_store, place, "--storage", str(place / "none" / "my.journal")), "my.journal: cannot be opened"),
        (
            ["tune", "nothing.py", "--base", "jobs/action.py:improved", "--store", small_store],
            "nothing.py: no such file here",
        ),
        ([*other[:6], "--folder", "s3://lab/search", *TINY], "a bucket holds no database; name one with --storage"),
        (
            ["train", "jobs/action.py:improved", "--store", small_store, "--set-file", str(place / "none.json")],
            "--set-file",
        ),
    ):
        done = posture_here(*arguments)
        assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not (place / "search").exists()


@pytest.mark.slow
def test_killed_a_search_goes_on_without_loss_or_repetition(small_store, place):
    """kill -9 of the driver twice, then Ctrl-C, at any moment: in the end so many finished trials, each point once, no
    epoch twice; and for each trial one W&B run, whole.
    """
    options = ("--trials", "5", "--set", "epochs=4", "--no-halving")
    for number, end in enumerate((signal.SIGKILL, signal.SIGKILL, signal.SIGINT)):
        process = begin(small_store, place, *options)
        before = sum(map(len, histories(place).values()))
        wait_for(lambda before=before: sum(map(len, histories(place).values())) >= before + 3, process)
        if number == 0:
            second = posture(*tune(small_store, place, *options))
            assert second.returncode == 2 and "another search is writing to this folder" in second.stderr, second.stderr
        process.send_signal(end)
        out, err = process.communicate(timeout=120)
        assert process.returncode == (130 if end == signal.SIGINT else -end), (number, out, err)
    assert "Traceback" not in err and "the same command continues the search" in out, (out, err)
    assert states(place)["running"] == 0
    done = posture(*tune(small_store, place, *options), environment={"WANDB_MODE": "offline"}, timeout=600)
    assert done.returncode == 0, done.stderr
    found = [trial for trial in study(place).get_trials() if state_of(trial) != "interrupted"]
    assert Counter(map(state_of, found)) == {"complete": 5}
    assert len({str(trial.params) for trial in found}) == len({trial.user_attrs["run"] for trial in found}) == 5
    assert sorted(histories(place).values()) == [[1, 2, 3, 4]] * 5
    tracked = [read_run(path) for path in place.glob("search/runs/*/wandb/offline-run-*/run-*.wandb")]
    assert [[row["epoch"] for row in run.history if "epoch" in row] for run in tracked] == [[1, 2, 3, 4]] * 5
    assert {run.group for run in tracked} == {"mine-improved"} and {run.exit_code for run in tracked} == {0}
    assert sorted(run.summary["best_val_accuracy"] for run in tracked) == sorted(trial.value for trial in found)
    assert {run.config["optim"]["lr"] for run in tracked} == {trial.params["optim.lr"] for trial in found}
    best = json.loads((place / "search" / "best.json").read_text())
    assert best["accuracy"] == leading(study(place))[0].value and best["changes"]["model.width"] == 0.125


@pytest.mark.slow
def test_a_node_lost_in_the_midst_costs_its_running_trials_alone(small_store, place):
    """Trials spread over two nodes; one is killed; its trials go on from their checkpoints on the other, and every
    trial is finished.
    """
    environment = os.environ | {"WANDB_MODE": "disabled", "RAY_AUTH_MODE": "disabled"}
    nodes = subprocess.Popen(
        [sys.executable, "-m", "tests.support.ray_nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        address = nodes.stdout.readline().strip()
        options = ("--trials", "4", "--max-concurrent", "2", "--set", "epochs=8", "--no-halving")
        process = subprocess.Popen(
            [sys.executable, "-m", "posture", *tune(small_store, place, *options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {"RAY_ADDRESS": address},
        )
        # of 0.7 CPUs each, so that they are on different nodes
        wait_for(lambda: len(histories(place)) == 2, process, seconds=400)
        nodes.stdin.write("kill\n")
        nodes.stdin.flush()
        assert nodes.stdout.readline().strip() == "killed"
        out, err = process.communicate(timeout=600)
        assert process.returncode == 0, out + err
        assert states(place) == Counter(complete=4)
        assert sorted(histories(place).values()) == [list(range(1, 9))] * 4
    finally:
        nodes.stdin.close()
        nodes.wait(timeout=60)


@pytest.mark.slow
def test_a_trial_on_two_workers_whose_driver_is_killed_gives_back_what_it_held(small_store, place):
    """On two CPUs, which it held all but some: it goes on from its checkpoint, and the next trial has room."""
    process = begin(
        small_store, place, "--trials", "2", "--workers-per-trial", "2", "--set", "epochs=4", "--no-halving"
    )
    wait_for(lambda: histories(place), process, seconds=400)
    drivers = [
        number for number, command in descendants(process.pid).items() if command.startswith("ray::ImplicitFunc")
    ]
    assert len(drivers) == 1
    os.kill(drivers[0], signal.SIGKILL)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0 and states(place) == Counter(complete=2), out + err
    assert sorted(histories(place).values()) == [[1, 2, 3, 4]] * 2
