import os
import signal
import threading

import numpy as np
import pytest

from posture.distributed.train import train
from posture.errors import InputError
from posture.runs.backend import Local
from posture.runs.prepare import prepare
from tests.support.small_run import CALM, SMALL_ACTION

NARROW = SMALL_ACTION | CALM | {"epochs": 2}


def start(store, runs, name, **changes):
    return prepare("jobs/action.py:improved_paper", store, runs=str(runs), name=name, changes=NARROW | changes)


def ignore(*_):
    pass


def on_ray(session, *, on_record=ignore, asked_to_stop=lambda: False, on_progress=ignore):
    return train(session, on_progress=on_progress, on_record=on_record, on_device=ignore, asked_to_stop=asked_to_stop)


def history(session):
    return session.folder.read_json("history.json")


def losses(session):
    return [(row["train_loss"], row["val_loss"], row["val_accuracy"]) for row in history(session)]


@pytest.fixture(scope="module")
def alone(small_store, tmp_path_factory):
    """The run in this process, which any number of workers must equal."""
    session = start(small_store, tmp_path_factory.mktemp("runs"), "alone")
    outcome = Local().train(session, on_progress=ignore, on_record=ignore, on_device=ignore)
    assert (outcome["epoch"], outcome["stopped"]) == (2, "")
    return session


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_any_number_of_workers_has_the_loss_of_one_process(alone, small_store, tmp_path, workers):
    session = start(small_store, tmp_path, "ray", **{"scale.workers": workers})
    updates = []
    outcome = on_ray(session, on_progress=updates.append)
    assert (outcome["epoch"], outcome["stopped"]) == (2, "")
    np.testing.assert_allclose(losses(session), losses(alone), rtol=1e-4)
    assert updates and updates[-1]["epochs"] == 2
    assert set(session.folder.checkpoints()) == {"best", "last"}


def test_streamed_footage_trains_with_equal_steps(small_store, tmp_path):
    session = start(small_store, tmp_path, "streamed", **{"scale.workers": 2, "data.feed": "stream", "epochs": 1})
    assert on_ray(session)["epoch"] == 1
    assert np.isfinite(losses(session)).all()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_of_an_epoch_is_replaced(small_store, tmp_path):
    """Ends where an undisturbed run ends: at most the epoch in progress is repeated."""
    longer = {"scale.workers": 2, "epochs": 4, "scale.global_batch": 2}
    calm = start(small_store, tmp_path, "calm", **longer)
    on_ray(calm)
    hit = start(small_store, tmp_path, "hit", **longer)
    killed = threading.Event()

    def kill(update):
        if update["epoch"] == 3 and update["step"] >= 2 and not killed.is_set():
            os.kill(update["process"], signal.SIGKILL)
            killed.set()

    outcome = on_ray(hit, on_progress=kill)
    assert killed.is_set() and outcome["epoch"] == 4
    np.testing.assert_allclose(losses(hit), losses(calm), rtol=1e-4)


@pytest.mark.slow
def test_asked_to_stop_it_saves_and_goes_on_later(alone, small_store, tmp_path):
    session = start(small_store, tmp_path, "stopped")
    began = []
    outcome = on_ray(session, on_progress=began.append, asked_to_stop=lambda: bool(began))
    if outcome["stopped"] == "asked":
        resumed = prepare("jobs/action.py:improved_paper", small_store, runs=str(tmp_path), name="stopped", resume=True)
        assert resumed.resumed
        outcome = Local().train(resumed, on_progress=ignore, on_record=ignore, on_device=ignore)
    assert outcome["epoch"] == 2
    np.testing.assert_allclose(losses(session), losses(alone), rtol=1e-4)


def test_what_goes_wrong_on_a_worker_is_said_once_and_clearly(small_store, tmp_path):
    session = start(
        small_store,
        tmp_path,
        "diverging",
        **{"optim.lr": 1e30, "optim.name": "sgd", "optim.clip_norm": 0.0, "optim.warmup_epochs": 0},
    )
    with pytest.raises(InputError, match=r"the loss became .* lower optim\.lr"):
        on_ray(session)


@pytest.mark.slow
def test_a_checkpoint_that_rank_0_cannot_write_ends_all_workers_with_one_sentence(small_store, tmp_path):
    """Otherwise the others would wait for it until the collective times out."""
    session = start(small_store, tmp_path, "full", **{"scale.workers": 2, "epochs": 40})
    checkpoints = tmp_path / "full" / "checkpoints"

    def obstruct(record):
        if record["epoch"] == 1:
            checkpoints.rename(tmp_path / "full" / "good")
            checkpoints.touch()

    with pytest.raises(
        InputError, match=r"full: the checkpoint epoch-\d+ cannot be written .*the one before it is kept"
    ):
        on_ray(session, on_record=obstruct)
