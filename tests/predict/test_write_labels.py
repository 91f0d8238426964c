"""Labels that people correct: written, and read again with the same athletes, actions and frames."""

import dataclasses
import json
import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.predict.answers import UNSURE, ActionSegment, Track
from posture.predict.keyframes import keyframes, visits
from posture.predict.write_labels import write_labels
from tests.support.answers import make_prediction, make_track
from tests.support.crops import across, make_film, seen, waiting

HOSTILE = "<b>\"jump\" & 'run'</b>"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "final.mp4").touch()
    return tmp_path


def frames_of(answer, segment):
    """First frame of a segment, and one past its last, by the times of its frames."""
    times = answer.tracks[segment.track - 1].times if segment.track else np.arange(300) / answer.fps
    inside = np.flatnonzero((times >= segment.start - 1e-6) & (times < segment.end - 1e-6))
    return int(inside[0]), int(inside[-1]) + 1


def expected(answer):
    return sorted(
        (str(segment.track or ""), segment.label, frames_of(answer, segment))
        for segment in answer.segments
        if segment.label != UNSURE
    )


def found(footage, fps):
    """What the labels say, with the athletes' numbers."""
    return sorted(
        (
            label.athlete.rpartition("/")[2],
            label.label,
            label.frames or (round(label.start * fps + 0.49), round(label.end * fps + 0.49)),
        )
        for video in footage.videos
        for label in video.labels
    )


def assert_boxes(footage, answer, tolerance=1.0):
    tubes = {tube.name.rpartition("/")[2]: tube for tube in footage.videos[0].tubes}
    assert sorted(tubes) == [str(track.id) for track in answer.tracks]
    for track in answer.tracks:
        boxes = tubes[str(track.id)].boxes
        assert sorted(boxes) == track.frames.tolist()
        assert np.abs(np.array([boxes[frame] for frame in sorted(boxes)]) - track.boxes).max() <= tolerance


@pytest.mark.parametrize("kind", ["segments", "cvat", "label-studio"])
@pytest.mark.parametrize("fps", [25.0, 29.97, 60.0])
def test_athletes_actions_and_frames_come_back(folder, kind, fps):
    answer = make_prediction(athletes=3, fps=fps)
    assert Path(write_labels(answer, str(folder), kind)).parent == folder
    footage = read_tracked_footage(str(folder))
    assert footage.layout == kind and not footage.missing and not footage.refused
    assert found(footage, fps) == expected(answer) and len(expected(answer)) > 3
    assert_boxes(footage, answer)


@pytest.mark.parametrize("kind", ["cvat", "label-studio"])
def test_a_track_has_at_most_a_tenth_of_its_frames_as_keyframes(folder, kind):
    answer = make_prediction(athletes=2, seconds=12.0)
    path = Path(write_labels(answer, str(folder), kind))
    if kind == "cvat":
        counts = [len(track.findall("box")) for track in ElementTree.parse(path).getroot().findall("track")]
    else:
        results = json.loads(path.read_text())[0]["predictions"][0]["result"]
        counts = [len(one["value"]["sequence"]) for one in results if one["type"] == "videorectangle"]
    assert len(counts) == 2 and max(counts) <= 30, counts
    assert_boxes(read_tracked_footage(str(folder)), answer)


@pytest.mark.parametrize("kind", ["segments", "cvat", "label-studio"])
def test_actions_of_the_whole_frame_come_back(folder, kind):
    answer = make_prediction(athletes=0)
    write_labels(answer, str(folder), kind)
    footage = read_tracked_footage(str(folder)) if kind == "cvat" else read_footage(str(folder))
    whole = [("0" if kind == "cvat" else "", label, frames) for _, label, frames in expected(answer)]
    assert found(footage, 25.0) == whole


@pytest.mark.parametrize("kind", ["cvat", "label-studio"])
def test_an_athlete_who_leaves_and_returns_has_no_box_meanwhile(folder, kind):
    whole = make_prediction(athletes=1)
    there = np.r_[0:100, 160:300]
    track = whole.tracks[0]
    kept = {name: getattr(track, name)[there] for name in ("frames", "times", "boxes", "scores")}
    answer = dataclasses.replace(whole, tracks=(dataclasses.replace(track, **kept),))
    write_labels(answer, str(folder), kind)
    assert_boxes(read_tracked_footage(str(folder)), answer)


def test_looks_at_every_third_frame_are_interpolated(folder):
    whole = make_prediction(athletes=1)
    track = whole.tracks[0]
    kept = {name: getattr(track, name)[::3] for name in ("frames", "times", "boxes", "scores")}
    write_labels(dataclasses.replace(whole, tracks=(dataclasses.replace(track, **kept),)), str(folder), "cvat")
    (tube,) = read_tracked_footage(str(folder)).videos[0].tubes
    assert sorted(tube.boxes) == list(range(298))
    assert np.abs(np.array([tube.boxes[frame] for frame in range(298)]) - track.boxes[:298]).max() <= 1.5


@pytest.mark.parametrize("kind", ["segments", "cvat", "label-studio"])
def test_unsure_stretches_are_left_out_and_said(folder, kind):
    answer = make_prediction(athletes=3)
    unsure = sum(segment.label == UNSURE for segment in answer.segments)
    write_labels(answer, str(folder), kind)
    footage = read_tracked_footage(str(folder))
    assert unsure and UNSURE not in {label.label for video in footage.videos for label in video.labels}
    if kind != "cvat":
        assert any(note.endswith(f"not read: {unsure}") for note in footage.notes), footage.notes


@pytest.mark.parametrize(("kind", "file"), [("cvat", "cvat.xml"), ("label-studio", "label-studio.xml")])
def test_background_is_no_action_to_choose(folder, kind, file):
    write_labels(make_prediction(classes=("run", "jump", "background")), str(folder), kind)
    offered = (folder / file).read_text().partition("</meta>")[0]
    assert "jump" in offered and "background\n" not in offered and '"background"' not in offered


@pytest.mark.parametrize("kind", ["segments", "cvat", "label-studio"])
@pytest.mark.parametrize("name", [HOSTILE, "=1+1", "l’été, à 5 h"])
def test_names_come_back_whatever_they_are(folder, kind, name):
    video = f"{name.replace('/', '')}.mp4"
    (folder / "final.mp4").rename(folder / video)
    write_labels(make_prediction(f"/elsewhere/{video}", classes=(name, "jump", "throw")), str(folder), kind)
    footage = read_tracked_footage(str(folder))
    assert [one.file.name for one in footage.videos] == [video]
    assert name in {label.label for label in footage.videos[0].labels}


def watched(place, number):
    frames = np.arange(60)
    boxes = np.array([place(int(frame)) for frame in frames], np.float32)
    return Track(number, frames, frames / 25, boxes, np.ones(60, np.float32))


@pytest.mark.parametrize("kind", ["segments", "cvat", "label-studio"])
def test_clips_of_what_was_written_show_the_athlete_of_their_action(tmp_path, kind):
    make_film(tmp_path / "final.mp4", {"red": across, "green": waiting})
    answer = dataclasses.replace(
        make_prediction(athletes=0, seconds=2.4),
        width=160,
        height=96,
        tracks=(watched(across, 1), watched(waiting, 2)),
        lanes=(),
        segments=(
            ActionSegment(1, 0.0, 1.2, "run", 0.9, "run"),
            ActionSegment(1, 1.2, 2.4, "jump", 0.9, "jump"),
            ActionSegment(2, 0.0, 2.4, "throw", 0.9, "throw"),
        ),
    )
    write_labels(answer, str(tmp_path), kind)
    store = Store(str(tmp_path / "store"), create=True)
    recipe = DecodeRecipe(48, 48, 12, 2, 1, crop=crop_name(0.2))
    options = IngestOptions(cut=Cut(recipe, min_frames=4), max_refused_share=1.0)
    ingest_clips(read_tracked_footage(str(tmp_path)), store, options)
    clips = {row["segment"]: row for row in store.read("clips").to_pylist()}
    rows = store.read("segments").to_pylist()
    assert sorted((row["label"], round(row["start"], 3), round(row["end"], 3)) for row in rows) == [
        ("jump", 1.2, 2.4),
        ("run", 0.0, 1.2),
        ("throw", 0.0, 2.4),
    ]
    for row in rows:
        clip = clips[row["segment"]]
        frames = decode_frames(clip["pixels"], clip["offsets"], (clip["frames"], clip["height"], clip["width"]))
        own, other = ("green", "red") if row["label"] == "throw" else ("red", "green")
        assert not np.isnan(seen(frames, own)).any(), row["label"]
        assert row["label"] == "jump" or np.isnan(seen(frames, other)).any(), row["label"]


def test_an_unknown_kind_is_refused(folder):
    with pytest.raises(InputError, match="--write coco: the kinds are segments, cvat, label-studio"):
        write_labels(make_prediction(), str(folder), "coco")


def test_cvat_may_number_tracks_anew_and_split_them(folder):
    answer = make_prediction(athletes=2)
    path = Path(write_labels(answer, str(folder), "cvat"))
    root = ElementTree.parse(path).getroot()
    for number, track in enumerate(root.findall("track")):
        track.set("id", str(number + 40))
    path.write_bytes(ElementTree.tostring(root))
    assert found(read_tracked_footage(str(folder)), 25.0) == expected(answer)
    twin = ElementTree.fromstring(ElementTree.tostring(root.findall("track")[0]))
    twin.set("id", "77")
    root.append(twin)
    path.write_bytes(ElementTree.tostring(root))
    assert {athlete for athlete, _, _ in found(read_tracked_footage(str(folder)), 25.0)} == {"1", "2", "1.77"}


def test_keyframes_of_a_straight_walk_are_its_ends():
    track = make_track(1, 50)
    straight = dataclasses.replace(track, boxes=np.linspace([0, 0, 9, 9], [490, 0, 499, 9], 50).astype(np.float32))
    (visit,) = visits(straight)
    assert keyframes(straight, visit) == ([0, 49], 0.9) and keyframes(straight, visit, [20])[0] == [0, 20, 49]
    jump = straight.boxes.copy()
    jump[30] += 5
    assert keyframes(dataclasses.replace(straight, boxes=jump), visit)[0] == [0, 29, 30, 31, 49]


@pytest.mark.parametrize("kind", ["cvat", "label-studio"])
def test_boxes_that_tremble_get_few_keyframes_and_the_file_says_how_far_they_are_off(folder, kind):
    answer = make_prediction(athletes=1)
    noise = np.random.default_rng(0).normal(0, 1.0, (300, 4)).astype(np.float32)
    answer = dataclasses.replace(
        answer, tracks=(dataclasses.replace(answer.tracks[0], boxes=answer.tracks[0].boxes + noise),)
    )
    text = Path(write_labels(answer, str(folder), kind)).read_text()
    keys = text.count("<box") if kind == "cvat" else text.count('"enabled"')
    (said,) = re.findall(r"up to ([\d.]+) pixels|within ([\d.]+) pixels", text)
    off = float(said[0] or said[1])
    assert keys <= 40 and 1 < off < 8, (keys, off)
    assert_boxes(read_tracked_footage(str(folder)), answer, tolerance=off + 0.1)
