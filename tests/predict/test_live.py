"""Predict streams while they run."""

import csv
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from posture.data.decode.cut import Clip
from posture.data.decode.live_source import LiveSource
from posture.data.decode.video import open_video
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.display.live_page import LivePage
from posture.errors import InputError
from posture.predict import live_pass
from posture.predict.live import live_place, predict_live
from posture.predict.live_pass import LivePass
from posture.predict.model import VideoModel
from posture.predict.tables import read_prediction
from posture.runs.trained import open_trained
from tests.support.colour_finder import ColourFinder
from tests.support.explained import make_run
from tests.support.live_server import live_server, transport_stream
from tests.support.processes import posture_here

RED = (220, 40, 40)


def parsed(address):
    source = LiveSource.parse(address)
    assert source is not None
    return source


def walk(frames, size=(96, 160)):
    """Frames of a red square that walks from right to left and back on grey."""
    backdrop = np.random.default_rng(0).integers(90, 130, (*size, 3), dtype=np.uint8)
    for number in range(frames):
        frame = backdrop.copy()
        left = 2 + abs(number % 240 - 120)
        frame[8:32, left : left + 24] = RED
        yield frame


@pytest.fixture(scope="module")
def stream():
    return transport_stream(walk(75))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    recipe = DecodeRecipe(32, 32, 16, 1, 1, crop=crop_name(0.2))
    folder = make_run(tmp_path_factory.mktemp("run"), recipe=str(recipe))
    return VideoModel(open_trained(folder.uri, task="action"), detector=ColourFinder())


def frame_times(path):
    with open_video(str(path)) as reader:
        return reader.times()


def test_a_stream_gives_the_answer_of_a_file_with_its_frames(model, stream, tmp_path):
    (tmp_path / "same.ts").write_bytes(stream)
    place = str(tmp_path / "live")
    with live_server(stream) as address:
        found = predict_live(model, parsed(address), place, seconds=2.4)
    of_file = model.predict(tmp_path / "same.ts", end=2.4)
    assert not found.failure and found.video == address and found.seconds == pytest.approx(2.4, abs=0.01)
    assert [track.id for track in found.tracks] == [1]
    np.testing.assert_allclose(found.tracks[0].boxes, of_file.tracks[0].boxes, atol=1e-3)
    np.testing.assert_allclose(found.tracks[0].times, of_file.tracks[0].times, atol=2e-3)
    np.testing.assert_allclose(found.lane(1).starts, of_file.lane(1).starts, atol=2e-3)
    np.testing.assert_allclose(found.lane(1).probabilities, of_file.lane(1).probabilities, atol=1e-5)
    stored = read_prediction(place)
    assert [part.label for part in stored.segments] == [part.label for part in of_file.segments]
    times = frame_times(Path(place, "annotated.mp4"))
    np.testing.assert_allclose(times, np.arange(60) / 25, atol=2e-3)
    assert Path(place, "timeline.html").exists()


def test_tables_are_valid_while_the_stream_runs_and_a_gap_has_no_segment(model, stream, tmp_path, monkeypatch):
    monkeypatch.setattr(live_pass, "WRITE_SECONDS", 0.0)
    place, seen, lines = str(tmp_path / "live"), [], []

    def look():
        if Path(place, "timeline.json").exists():
            seen.append(len(read_prediction(place).lanes))
        return False

    with live_server(stream, stream) as address:
        where = parsed(address)
        found = predict_live(model, where, place, seconds=6.0, reconnects=1, should_stop=look, on_status=lines.append)
    assert len(seen) > 3 and max(seen) >= 1 and lines
    assert "to reconnect failed" in found.failure or found.seconds > 5.5
    assert any("gap" in note for note in found.notes)
    for part in found.segments:
        assert part.end <= 3.01 or part.start >= 2.99, "no segment reaches over the gap"
    assert any("lost, and made again" in note for note in found.notes)


def clips(numbers, dropped=0):
    """Messages of a live source: frames of 25 a second with these numbers, in two roles."""
    frames = dict(enumerate(walk(max(numbers) + 1)))
    yield {
        "kind": "stream", "first": 0, "stop": 2**53, "every": 1,
        "height": 96, "width": 160, "fps": 25.0, "seconds": 0.0,
    }  # fmt: skip
    for number in numbers:
        for role in ("whole", "search"):
            row = {"role": role, "numbers": [number], "times": [number / 25], "ends": [(number + 1) / 25]}
            size = {"height": 96, "width": 160, "dropped": dropped}
            yield Clip(row | size, frames[number].tobytes())


def passed(model, messages):
    options = {"overlap": 0.5, "shortest": None, "tracker": "bytetrack", "batch": 4, "progress": None}
    silent = dict.fromkeys(("on_answer", "on_frame", "on_status"), lambda *_: None)
    one = LivePass(model, "camera:0", should_stop=lambda: False, **options, **silent)
    return one, one.run(iter(messages))


def test_windows_with_a_dropped_frame_are_left_out(model):
    _, whole = passed(model, clips(range(100)))
    _, found = passed(model, clips([*range(40), *range(60, 100)], dropped=20))
    starts = np.round(whole.lane(1).starts * 25).astype(int)
    left = [start for start in starts if start + 16 <= 40 or start >= 60]
    assert np.round(found.lane(1).starts * 25).astype(int).tolist() == left
    kept = np.isin(starts, left)
    assert 0 < kept.sum() < len(starts)
    np.testing.assert_allclose(found.lane(1).probabilities[:2], whole.lane(1).probabilities[kept][:2], atol=1e-5)
    assert all(part.end <= 40 / 25 + 1e-6 or part.start >= 60 / 25 - 1e-6 for part in found.segments)
    assert any("20 of the camera's frames were dropped" in note for note in found.notes)


def test_what_is_kept_of_frames_does_not_grow(model):
    one, found = passed(model, clips(range(600)))
    assert len(found.lane(1).starts) > 60
    assert len(one._buffer._frames) <= 2 * model.sampling.span and sum(map(len, one._recent.values())) < 60
    assert len(one._boxes) < 20


def test_an_athlete_after_a_long_gap_is_another_one(model):
    _, found = passed(model, clips([*range(40), *range(240, 280)]))
    assert [track.id for track in found.tracks] == [1, 2]


def test_the_page_shows_each_image_below_a_secret_path():
    with LivePage() as page:
        for path in ("", "live", "../", "x/live"):
            with pytest.raises(urllib.error.HTTPError):
                urllib.request.urlopen(page.url.rsplit("/", 2)[0] + "/" + path, timeout=10)
        with urllib.request.urlopen(page.url, timeout=10) as answer:
            assert b'src="live"' in answer.read()
        with urllib.request.urlopen(page.url + "live", timeout=10) as images:
            found = b""
            while found.count(b"\xff\xd8\xff") < 2:
                page.show(np.zeros((48, 64, 3), np.uint8))
                found += images.read1(1000)
    assert b"Content-Type: image/jpeg" in found


def test_places_are_named_by_source_and_time(tmp_path):
    where = parsed("rtsp://user:secret@cam.local:8554/a b/c?token=secret")
    place = live_place(where, str(tmp_path))
    assert Path(place).name.startswith("cam.local-8554-a-b-c-20") and "secret" not in place


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.mark.long
def test_a_refused_address_is_one_sentence_without_its_credentials(run, tmp_path):
    done = posture_here(
        "predict", "http://coach:hunter2@127.0.0.1:9/a?t=hunter3", "--run", run.uri, "--out", str(tmp_path)
    )
    assert done.returncode == 2 and "http://127.0.0.1:9/a: the video cannot be read: Connection refused" in done.stderr
    assert done.stderr.count("\n") == 1 and "hunter" not in done.stderr + done.stdout and not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["camera:97"], "camera:97: there is no camera"),
        (["http://127.0.0.1:9/a", "one.mp4"], "a command of its own"),
        (["http://127.0.0.1:9/a", "--end", "3"], "--end is for files"),
        (["one.mp4", "--seconds", "3"], "--seconds is for cameras and streams"),
    ],
)
def test_bad_requests_are_one_sentence_each(run, tmp_path, options, said):
    found = posture_here("predict", *options, "--run", run.uri, "--out", str(tmp_path / "out"))
    assert found.returncode == 2 and said in found.stderr and found.stderr.count("\n") == 1, found.stderr


@pytest.mark.long
def test_a_lost_stream_is_answered_as_far_as_it_came_with_exit_code_1(run, stream, tmp_path):
    with live_server(stream) as address:
        secret = address.replace("//", "//coach:hunter2@") + "?token=hunter3"
        done = posture_here("predict", secret, "--run", run.uri, "--out", str(tmp_path / "out"), "--reconnects", "1")
    assert done.returncode == 1 and "lost after 3.00 s" in done.stdout, done.stderr
    (place,) = (tmp_path / "out").iterdir()
    assert json.loads((place / "timeline.json").read_text())["failure"].startswith("the connection was lost")
    assert len(frame_times(place / "annotated.mp4")) == 75
    for file in place.iterdir():
        assert b"hunter" not in file.read_bytes() and "hunter" not in file.name
    assert "hunter" not in done.stdout + done.stderr


@pytest.mark.long
def test_ctrl_c_leaves_files_that_open(run, stream, tmp_path):
    with live_server(stream, stream, stream) as address:
        command = [
            sys.executable,
            "-m",
            "posture",
            "predict",
            address,
            "--run",
            run.uri,
            "--out",
            str(tmp_path / "out"),
        ]
        process = subprocess.Popen([*command, "--window"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = next(line for line in process.stdout if line.startswith("look at http://127.0.0.1:"))
        with urllib.request.urlopen(said.split()[-1] + "live", timeout=60) as images:
            assert images.read(200)  # the first frame was drawn
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    (place,) = (tmp_path / "out").iterdir()
    assert read_prediction(str(place)).failure.startswith("stopped after")
    assert len(frame_times(place / "annotated.mp4")) >= 1
    with open(place / "timeline.csv") as file:
        assert next(csv.reader(file))[0] == "video"


def test_a_source_that_shows_nothing_is_an_input_error(model, tmp_path):
    with live_server() as address, pytest.raises(InputError, match="5XX"):
        predict_live(model, parsed(address), str(tmp_path / "out"), seconds=1.0)
    assert not (tmp_path / "out").exists()
