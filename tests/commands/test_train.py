import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.processes import posture, posture_here
from tests.support.small_run import SMALL_ACTION, sets

SMALL = sets(SMALL_ACTION | {"model.dropout": 0.0})


def train(store, runs, *more):
    return ["train", "jobs/action.py:improved", "--store", store, "--runs", str(runs), *SMALL, *more]


def history(runs, name):
    return json.loads((runs / name / "history.json").read_text())


def test_bad_requests_are_one_sentence_each(small_store, tmp_path):
    for arguments, complaint in (
        (train(str(tmp_path / "none"), tmp_path), "there is no store here"),
        (train(small_store, tmp_path, "--set", "optim.lr=-1"), "optim.lr: input should be greater than 0 (given -1)"),
        (train(small_store, tmp_path, "--name", "../x"), "run name '../x'"),
        (train(small_store, tmp_path, "--workers", "3"), "cannot be cut evenly over 3 workers"),
        (train(small_store, tmp_path, "--weights", "none.pt"), "there is nothing to start from at"),
        (["train", "nothing", "--store", small_store], "names no recipe"),
        (
            train(small_store, tmp_path, "--epochs", "3", "--set", "epochs=5"),
            "--epochs and --set epochs=... name the same field",
        ),
        (
            train(small_store, tmp_path, "--epochs", "0"),
            "epochs: must be a number of epochs from 1 to 1,000,000, or auto, not 0",
        ),
        (["evaluate", str(tmp_path / "none")], "there is no run here"),
        (["show", str(tmp_path / "none")], "there is no store here"),
        (["bench", "feed", "--compile"], "it is for posture bench models"),
        (["bench", "models", "--footage", "x"], "makes its own inputs"),
        (["fly"], "fly"),
    ):
        done = posture_here(*arguments)
        assert done.returncode == 2 and complaint in done.stderr and "Traceback" not in done.stderr, done.stderr
        assert not list(tmp_path.iterdir())


def test_epochs_that_fit_the_footage_are_said_with_the_time_that_they_take(small_store, tmp_path):
    changes = sets({"patience": 1, "least_steps": 100, "optim.lr": 1e-12})
    done = posture_here(*train(small_store, tmp_path, "--local", "--name", "a", "--epochs", "auto", *changes))
    assert done.returncode == 0, done.stderr
    epochs = json.loads((tmp_path / "a" / "run.json").read_text())["run"]["epochs"]
    assert f"epochs auto: {epochs} epochs of" in done.stdout and "steps in all" in done.stdout
    assert "steps that are left, without validation; it may stop early" in done.stdout
    assert len(history(tmp_path, "a")) < epochs and "stopped early, 1 epoch without a better one" in done.stdout


def test_locally_from_training_to_report_with_offline_tracking(small_store, tmp_path):
    done = posture(
        "train",
        "improved",
        *train(small_store, tmp_path / "runs", "--local", "--name", "one", "--epochs", "1")[2:],
        environment={"WANDB_MODE": None, "WANDB_API_KEY": None, "HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    assert (
        "Weights & Biases: offline, no API key was found" in done.stdout
        and "running on" in done.stdout
        and "posture evaluate" in done.stdout
    )
    assert " clips: too few to choose epochs and settings by" in done.stdout
    assert list((tmp_path / "runs" / "one" / "wandb").glob("offline-run-*"))
    record = json.loads((tmp_path / "runs" / "one" / "run.json").read_text())
    assert record["recipe"] == "jobs/action.py:improved" and record["run"]["epochs"] == 1
    scored = posture_here("evaluate", str(tmp_path / "runs" / "one"))
    assert (
        scored.returncode == 0
        and "each scored once" in scored.stdout
        and "accuracy, no interval: 4 groups are too few" in scored.stdout
    ), scored.stderr
    assert (tmp_path / "runs" / "one" / "evaluation" / "test" / "report.html").stat().st_size > 10_000
    again = posture_here(*train(small_store, tmp_path / "runs", "--local", "--name", "one"))
    assert again.returncode == 2 and "a run of this name exists" in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("where", [("--local",), ("--workers", "2")])
def test_ctrl_c_leaves_a_run_that_resumes_to_the_same_end(small_store, tmp_path, where):
    arguments = train(small_store, tmp_path, "--set", "epochs=6", *where)
    calm = posture(*arguments, "--name", "calm")
    assert calm.returncode == 0, calm.stderr
    process = subprocess.Popen(
        [sys.executable, "-m", "posture", *arguments, "--name", "hit"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "hit" / "history.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "continue with: posture train" in out and "Traceback" not in err, out + err
    assert len(history(tmp_path, "hit")) < 6
    resumed = posture(*arguments, "--name", "hit", "--resume")
    assert resumed.returncode == 0 and "resuming hit" in resumed.stdout, resumed.stderr
    assert [row["epoch"] for row in history(tmp_path, "hit")] == [1, 2, 3, 4, 5, 6]
    for column in ("train_loss", "val_loss"):
        np.testing.assert_allclose(
            [row[column] for row in history(tmp_path, "hit")],
            [row[column] for row in history(tmp_path, "calm")],
            rtol=1e-4,
        )


@pytest.mark.slow
def test_a_process_that_was_thought_lost_stops_once_another_went_on(small_store, tmp_path):
    """It sleeps while the same command finishes the run, and wakes up in the midst of its second epoch."""
    arguments = train(small_store, tmp_path, "--set", "epochs=6", "--name", "one", "--local")
    lost = subprocess.Popen(
        [sys.executable, "-m", "posture", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
    )
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "one" / "history.json").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        lost.send_signal(signal.SIGSTOP)
        assert len(history(tmp_path, "one")) < 6
        resumed = posture(*arguments, "--resume")
        assert resumed.returncode == 0, resumed.stderr
        checkpoints, records = (tmp_path / "one" / "checkpoints.json").read_text(), history(tmp_path, "one")
    finally:
        lost.send_signal(signal.SIGCONT)
    _, complaint = lost.communicate(timeout=120)
    assert lost.returncode == 2 and "Traceback" not in complaint, complaint
    assert (
        "has continued this run since" in complaint and "this process stops, and what it saved is kept" in complaint
    ), complaint
    assert (
        (tmp_path / "one" / "checkpoints.json").read_text() == checkpoints
        and history(tmp_path, "one") == records
        and len(records) == 6
    )


def test_models_are_listed_with_their_costs():
    done = posture_here("models")
    assert done.returncode == 0 and "78,409,573" in done.stdout and "38.55" in done.stdout and "improved" in done.stdout


def test_a_store_is_shown(small_store, tmp_path):
    done = posture_here("show", small_store, "--out", str(tmp_path / "page.html"))
    assert done.returncode == 0 and "right" in done.stdout, done.stderr
    page = (tmp_path / "page.html").read_text().replace("<wbr>", "")
    assert "data:image/jpeg" in page and "32x40-stretch-f20-s2-w2-raw" in page


@pytest.mark.slow
def test_ctrl_c_twice_stops_a_run_on_ray_at_once_and_leaves_no_ray(small_store, tmp_path):
    arguments = train(small_store, tmp_path, "--name", "hit", "--epochs", "500")
    process = subprocess.Popen(
        [sys.executable, "-m", "posture", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"WANDB_MODE": "disabled"},
        start_new_session=True,
    )
    said = []
    while not (tmp_path / "hit" / "history.json").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    for line in process.stdout:
        said.append(line)
        if "once more to stop at once" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130 and "with: posture train" in out and "--resume" in out, (said, out, err)
    assert "Traceback" not in err and "Fatal" not in err, err
    deadline = time.monotonic() + 60
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _alive(process.pid)


def _alive(session):
    """Processes of that session that still run."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "-s", str(session)], capture_output=True, text=True
    ).stdout.splitlines()
    return [line for line in listed if line.split()[1][0] != "Z"]
