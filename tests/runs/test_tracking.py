import io
import socket
import time

import pytest
from PIL import Image

from posture.bench.tracking import failing_server, silent_server
from posture.data.store.files import list_files, read_bytes
from posture.errors import InputError
from posture.runs import tracking
from posture.runs.tracking import Tracker, log_images, log_version, tracking_mode
from tests.support.processes import s3_server
from tests.support.wandb_files import read_run

pytestmark = pytest.mark.long

TRACKING = {"tracking": {"project": "posture", "group": None, "mode": "auto"}, "optim": {"lr": 0.1}}
VERSION = {
    "version": "v0001",
    "parent": None,
    "pass": "0001",
    "classes": ["dive"],
    "decision": {},
    "run": {"name": "one", "model": {"kind": "c3d"}, **TRACKING},
}


@pytest.fixture(autouse=True)
def nobody(monkeypatch, tmp_path):
    """No key, no preference."""
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_API_KEY", "WANDB_BASE_URL", "NETRC"):
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


@pytest.mark.parametrize(
    ("variable", "mode"),
    [
        ("dryrun", "offline"),
        ("Offline", "offline"),
        ("OFFLINE ", "offline"),
        ("run", "online"),
        ("Online", "online"),
        ("shared", "online"),
        ("Disabled", "off"),
        ("", "offline"),
    ],
)
def test_every_mode_of_wandbs_is_obeyed_in_any_case(variable, mode, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", variable)
    assert tracking_mode("auto")[0] == mode and (not variable or tracking_mode("online")[0] == mode)


def test_wandb_itself_knows_no_other_modes():
    import typing

    import wandb

    assert set(tracking.MODES) == set(typing.get_args(wandb.Settings.model_fields["mode"].annotation))


def test_a_mode_that_is_none_is_refused(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(
        InputError, match="WANDB_MODE is 'ofline'; it must be one of online, run, shared, offline, dryrun, disabled"
    ):
        tracking_mode("auto")


@pytest.mark.parametrize("value", ["true", "True", "1", "yes", "ON"])
def test_wandb_disabled_turns_it_off(value, monkeypatch):
    monkeypatch.setenv("WANDB_DISABLED", value)
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert tracking_mode("online") == ("off", "WANDB_DISABLED is set")
    for other in ("false", "0", ""):
        monkeypatch.setenv("WANDB_DISABLED", other)
        assert tracking_mode("online")[0] == "online"


@pytest.mark.parametrize("variable", ["dryrun", "Offline"])
def test_a_run_is_kept_offline_by_any_of_its_names(variable, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", variable)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tracker = Tracker("one", folder=str(tmp_path), config=TRACKING)
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert not tracker.note and list(tmp_path.glob("wandb/offline-run-*/run-one.wandb"))


def test_an_offline_run_lies_in_its_folder(tmp_path):
    tracker = Tracker("one", folder=str(tmp_path), config=TRACKING)
    tracker.log({"loss": 1.0, "words": "no number"}, 1)
    tracker.summarize({"accuracy": 0.5})
    tracker.close()
    assert list(tmp_path.glob("wandb/offline-run-*/run-one.wandb"))


def test_offline_a_resumed_run_takes_the_place_of_what_it_began(tmp_path):
    for attempt in range(2):
        tracker = Tracker("one", folder=str(tmp_path), config=TRACKING, past=[(1, {"loss": 2.0})] * attempt)
        tracker.log({"loss": 1.0}, 1 + attempt)
        tracker.close()
        assert not tracker.note
    (written,) = tmp_path.glob("wandb/offline-run-*/run-one.wandb")
    assert [row["loss"] for row in read_run(written).history] == [2.0, 1.0]


def test_a_call_that_fails_loses_nothing_of_what_came_before(tmp_path):
    tracker = Tracker("one", folder=str(tmp_path), config=TRACKING)
    tracker.log({"loss": 1.0}, 1)
    tracker.show({"broken": b"no image"})
    tracker.log({"loss": 2.0}, 2)
    tracker.close(failed=True)
    assert tracker.note.startswith(
        "Weights & Biases stopped accepting data (cannot identify image"
    ) and tracker.note.endswith("for: wandb sync")
    (written,) = tmp_path.glob("wandb/offline-run-*/run-one.wandb")
    assert [row["loss"] for row in read_run(written).history] == [1.0] and read_run(written).exit_code == 1


def test_no_tracking_leaves_no_trace(tmp_path):
    tracker = Tracker(
        "one", folder=str(tmp_path), config={**TRACKING, "tracking": {**TRACKING["tracking"], "mode": "off"}}
    )
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    assert not list(tmp_path.iterdir())


def test_images_are_a_run_of_their_own(monkeypatch, tmp_path):
    content = io.BytesIO()
    Image.new("RGB", (8, 6), "orange").save(content, "PNG")
    config = {"name": "one", **TRACKING}
    log_images({"grad_cam": content.getvalue()}, title="one: a video", folder=str(tmp_path), config=config)
    assert len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 1 and not list(
        tmp_path.glob("wandb/*/run-one.wandb")
    )
    assert list(tmp_path.glob("wandb/offline-run-*/files/media/images/grad_cam*.png"))
    monkeypatch.setenv("WANDB_MODE", "disabled")
    log_images({"grad_cam": content.getvalue()}, title="one: a video", folder=str(tmp_path / "none"), config=config)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, 0), pytest.param(500, 0, marks=pytest.mark.slow), pytest.param(None, 1, marks=pytest.mark.slow)],
)
def test_without_an_answer_from_its_server_the_run_is_kept_and_nobody_waits(monkeypatch, tmp_path, status, code):
    monkeypatch.setattr(tracking, "INIT_SECONDS", 15)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    with silent_server() if status is None else failing_server(status) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        began = time.monotonic()
        tracker = Tracker("one", folder=str(tmp_path), config=TRACKING, past=[(1, {"loss": 3.0})])
        for step in range(2, 200):
            tracker.log({"loss": 1.0}, step)
        tracker.summarize({"accuracy": 0.5})
        assert time.monotonic() - began < tracking.INIT_SECONDS, "training waited for W&B"
        tracker.close(failed=bool(code))
    assert tracker.note.startswith("Weights & Biases cannot be reached") and tracker.note.endswith("for: wandb sync")
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-one.wandb")
    written = read_run(kept)
    assert (
        len(written.history) == 199
        and written.history[0]["loss"] == 3.0
        and written.summary["accuracy"] == 0.5
        and written.exit_code == code
    )


def test_a_host_that_is_not_there_stops_nobody_either(monkeypatch, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
    monkeypatch.setattr(tracking, "INIT_SECONDS", 4)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    note = log_images({}, title="one", folder=str(tmp_path), config={"name": "one", **TRACKING})
    assert (
        note.startswith("Weights & Biases cannot be reached")
        and len(list(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))) == 1
    )


def test_of_a_version_no_command_line_is_sent_and_its_weights_have_time(monkeypatch, tmp_path):
    import wandb

    asked = []
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    # nothing to send to: what follows is the sentence
    monkeypatch.setattr(wandb, "init", lambda **options: asked.append(options["settings"]))
    said = log_version("/lab/registry", tmp_path / "model.safetensors", VERSION, alias="champion")
    assert said.startswith("Weights & Biases did not get v0001: ")
    (settings,) = asked
    assert (
        settings.x_disable_meta
        and settings.disable_git
        and settings.finish_timeout == tracking.UPLOAD_SECONDS > tracking.FINISH_SECONDS
    )


def test_a_version_that_cannot_be_sent_is_a_sentence_in_bounded_time(monkeypatch, tmp_path):
    """Nobody listens there; a registry goes on without W&B."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"weights")
    # offline: artifacts live on the server
    assert log_version("/lab/registry", weights, VERSION, alias="champion") == ""
    monkeypatch.setattr(tracking, "INIT_SECONDS", 2.0)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert log_version("/lab/registry", weights, VERSION, alias="champion").startswith(
        "Weights & Biases did not get v0001: "
    )


@pytest.mark.slow
def test_of_a_run_in_a_bucket_what_is_offline_lies_there_too(monkeypatch, tmp_path):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        tracker = Tracker("one", folder="s3://lab/runs/one", config=TRACKING)
        tracker.log({"loss": 1.0}, 1)
        tracker.close()
        (kept,) = list_files("s3://lab/runs/one/wandb", suffixes=frozenset({".wandb"}))
        assert log_images({}, title="explained", folder="s3://lab/runs/one", config={"name": "one", **TRACKING}) == ""
        assert len(list_files("s3://lab/runs/one/wandb", suffixes=frozenset({".wandb"}))) == 2
        (tmp_path / "run-one.wandb").write_bytes(read_bytes(kept.uri))
        broken = Tracker("two", folder="s3://lab/runs/two", config=TRACKING)
        broken.show({"broken": b"no image"})
        broken.close()
        assert broken.note.endswith("for: wandb sync") and list_files(
            "s3://lab/runs/two/wandb", suffixes=frozenset({".wandb"})
        )
    assert not tracker.note and kept.relative.startswith("offline-run-")
    assert [row["loss"] for row in read_run(tmp_path / "run-one.wandb").history] == [1.0]
