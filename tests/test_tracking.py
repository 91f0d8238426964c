import io

import pytest
from PIL import Image

from posture import tracking
from posture.tracking import Tracker, log_pictures, log_version, tracking_mode

TRACKING = {"tracking": {"project": "posture", "group": None, "mode": "auto"}, "optim": {"lr": 0.1}}


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No key, no preference."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


def test_offline_without_a_key_and_it_says_so(monkeypatch, tmp_path):
    assert tracking_mode("auto") == ("offline", "no API key was found (wandb login, or WANDB_API_KEY)")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert tracking_mode("auto") == ("online", "an API key was found")
    monkeypatch.delenv("WANDB_API_KEY")
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert tracking_mode("auto")[0] == "online"


def test_what_was_asked_for_wins_and_the_variable_over_it(monkeypatch):
    assert tracking_mode("off")[0] == "off" and tracking_mode("offline")[0] == "offline"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert tracking_mode("online")[0] == "offline"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking_mode("online")[0] == "off"


def test_an_offline_run_lies_in_its_folder(tmp_path):
    tracker = Tracker("one", folder=str(tmp_path), config=TRACKING)
    tracker.log({"loss": 1.0, "words": "no number"}, 1)
    tracker.summarize({"accuracy": 0.5})
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*/run-one.wandb"))


def test_offline_a_resumed_run_takes_the_place_of_what_it_began(tmp_path):
    for attempt in range(2):
        tracker = Tracker("one", folder=str(tmp_path), config=TRACKING)
        assert tracker.begins_anew == (attempt == 1)
        tracker.log({"loss": 1.0}, 1)
        tracker.close()
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-one.wandb"))) == 1


def test_no_tracking_leaves_no_trace(tmp_path):
    tracker = Tracker("one", folder=str(tmp_path), config={**TRACKING, "tracking": {**TRACKING["tracking"], "mode": "off"}})
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_pictures_are_a_run_of_their_own(monkeypatch, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (8, 6), "orange").save(content, "PNG")
    config = {"name": "one", **TRACKING}
    log_pictures({"grad_cam": content.getvalue()}, title="one: a video", folder=str(tmp_path), config=config)
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 1 and not list(tmp_path.glob("wandb/*/run-one.wandb"))
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/grad_cam*.png"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_pictures({"grad_cam": content.getvalue()}, title="one: a video", folder=str(tmp_path / "none"), config=config)
    assert not (tmp_path / "none").exists()


def test_a_version_that_cannot_be_sent_is_a_sentence_in_bounded_time(monkeypatch, tmp_path):
    """Nobody listens there; a registry goes on without W&B."""
    version = {"version": "v0001", "parent": None, "pass": "0001", "classes": ["dive"], "decision": {},
               "run": {"name": "one", "model": {"kind": "c3d"}, **TRACKING}}
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    assert log_version(weights, version, alias="champion") == ""  # offline: artifacts live on the server
    monkeypatch.setattr(tracking, "INIT_SECONDS", 2.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert log_version(weights, version, alias="champion").startswith("Weights & Biases did not get v0001: ")
