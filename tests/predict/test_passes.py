"""Passes over videos with known athletes: they are found by their colour, in place of a trained detector."""

import numpy as np
import pytest

from posture.data.decode.video import write_video
from posture.data.labels.records import Tube
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.errors import InputError
from posture.predict.model import VideoModel
from posture.runs.trained import open_trained
from tests.support.colour_finder import ColourFinder
from tests.support.explained import make_run

RED, BLUE = (220, 40, 40), (40, 60, 230)
SIZE = (96, 160)


def scene(frames, **paths):
    """Frames of squares of 24 pixels on grey; a path is a function from the frame number to left and top."""
    generator = np.random.default_rng(0)
    backdrop = generator.integers(90, 130, (*SIZE, 3), dtype=np.uint8)
    for number in range(frames):
        frame = backdrop.copy()
        for colour, path in paths.items():
            left, top = path(number)
            frame[top : top + 24, left : left + 24] = {"red": RED, "blue": BLUE}[colour]
        yield frame


RECIPE = DecodeRecipe(32, 32, 16, 2, 1, crop=crop_name(0.2))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that was trained on clips cut around athletes."""
    folder = make_run(tmp_path_factory.mktemp("run"), recipe=str(RECIPE))
    return VideoModel(open_trained(folder.uri, task="action"), detector=ColourFinder())


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Red walks to the right through all of it; blue comes after 60 frames and walks up; 25 frames a second."""
    path = tmp_path_factory.mktemp("video") / "two.mp4"
    paths = {"red": lambda n: (2 + n // 2, 8), "blue": lambda n: (130, 70 - (n - 60) // 3) if n >= 60 else (130, 200)}
    write_video(path, scene(180, **paths), fps=25)
    return path


def test_each_athlete_has_a_track_and_a_lane_of_its_own(model, video):
    found = model.predict(video)
    red, blue = found.tracks
    assert [lane.track for lane in found.lanes] == [red.id, blue.id] == [1, 2]
    assert red.frames[0] == 0 and red.frames[-1] == blue.frames[-1] == 179 and abs(blue.frames[0] - 60) <= 1
    np.testing.assert_allclose(red.times, red.frames / 25, atol=1e-6)
    expected = np.array([(2 + n // 2, 8, 26 + n // 2, 32) for n in red.frames])
    assert np.abs(red.boxes - expected).max() <= 3
    assert found.overall is None
    for track in found.tracks:
        parts = list(found.of(track.id))
        assert parts[0].start == pytest.approx(track.times[0]) and parts[-1].end == pytest.approx(180 / 25, abs=0.01)


def test_windows_are_cut_along_the_track_as_ingest_cuts_along_a_tube(model, video):
    found = model.predict(video)
    hop, span = model.sampling.hop(0.5), model.sampling.span
    for track in found.tracks:
        tube = Tube("", "", {int(n): tuple(map(float, box)) for n, box in zip(track.frames, track.boxes, strict=True)})
        lane = found.lane(track.id)
        for index in (1, len(lane.starts) // 2, len(lane.starts) - 1):
            start = round(lane.starts[index] * 25)
            assert start % hop == 0
            alone = model.classify(video, start=start / 25, end=(start + span) / 25, tube=tube)
            np.testing.assert_allclose(lane.probabilities[index], alone, atol=1e-5)


def test_looking_at_every_third_frame_interpolates_the_others(model, video):
    every, third = model.predict(video), model.predict(video, fps_cap=9)
    assert third.model["every"] == 3 and (np.diff(third.tracks[0].frames) == 3).all()
    assert len(third.lanes) == len(every.lanes)
    common = min(len(third.lanes[0].starts), len(every.lanes[0].starts))
    np.testing.assert_allclose(third.lanes[0].probabilities[:common], every.lanes[0].probabilities[:common], atol=0.1)


def test_tracks_alone_without_a_classifier(video):
    found = VideoModel(detector=ColourFinder()).predict(video, fps_cap=13)
    assert len(found.tracks) == 2 and not found.lanes and not found.segments and found.model["every"] == 2


def test_no_athlete_is_said(model, tmp_path):
    write_video(tmp_path / "none.mp4", scene(50), fps=25)
    found = model.predict(tmp_path / "none.mp4")
    assert not found.tracks and not found.segments and "no athlete was found" in found.notes


def test_without_a_detector_crops_are_refused(model):
    with pytest.raises(InputError, match="--detector"):
        VideoModel(model.classifier)


def test_a_frame_that_is_whole_is_classified_though_athletes_are_tracked(tmp_path, video):
    folder = make_run(tmp_path)
    found = VideoModel(open_trained(folder.uri, task="action"), detector=ColourFinder()).predict(video)
    assert {part.track for part in found.segments} == {0} and len(found.tracks) == 2
    assert any("whole frame" in note for note in found.notes)


def test_stopped_it_answers_about_what_it_saw(model, video):
    asked = iter(range(100))
    found = model.predict(video, should_stop=lambda: next(asked) > 12)
    assert found.failure.startswith("stopped after") and found.tracks and found.lanes
