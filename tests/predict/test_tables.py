"""The files of an answer: what people and programs read in them, and that they give the answer back."""

import csv
import dataclasses
import json

import numpy as np
import pytest

from posture.errors import InputError
from posture.predict.answers import Prediction
from posture.predict.tables import read_prediction, write_tables
from tests.support.answers import make_prediction
from tests.support.processes import s3_server


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def assert_same(found: Prediction, written: Prediction) -> None:
    for name in ("video", "classes", "width", "height", "fps", "seconds", "threshold", "model", "notes", "failure"):
        assert getattr(found, name) == getattr(written, name), name
    for own, other in zip(found.segments, written.segments, strict=True):
        assert (own.track, own.label, own.guess) == (other.track, other.label, other.guess)
        assert (own.start, own.end, own.confidence) == pytest.approx(
            (other.start, other.end, other.confidence), abs=1e-6
        )
    for records, others in ((found.lanes, written.lanes), (found.tracks, written.tracks)):
        for own, other in zip(records, others, strict=True):
            for field in dataclasses.fields(own):
                mine, theirs = np.asarray(getattr(own, field.name)), np.asarray(getattr(other, field.name))
                assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
                assert np.abs(mine - theirs).max(initial=0) <= (0.0051 if field.name == "boxes" else 1e-6), field.name


@pytest.mark.parametrize("athletes", [0, 1, 3])
def test_an_answer_is_read_as_it_was_written(tmp_path, athletes):
    written = make_prediction(athletes=athletes, fps=29.97, failure="the file ends at 11.3 s" if athletes else "")
    write_tables(written, str(tmp_path))
    assert_same(read_prediction(str(tmp_path)), written)
    again = tmp_path / "again"
    write_tables(read_prediction(str(tmp_path)), str(again))
    for name in ("timeline.csv", "timeline.json", "tracks.csv"):
        assert (again / name).read_bytes() == (tmp_path / name).read_bytes()


def test_an_answer_without_windows_is_read_too(tmp_path):
    written = dataclasses.replace(make_prediction(athletes=0), lanes=(), segments=())
    write_tables(written, str(tmp_path))
    assert_same(read_prediction(str(tmp_path)), written)


def test_the_tables_hold_what_their_headers_say(tmp_path):
    written = make_prediction()
    write_tables(written, str(tmp_path))
    timeline, tracks = rows(tmp_path / "timeline.csv"), rows(tmp_path / "tracks.csv")
    assert list(timeline[0]) == ["video", "track", "start", "end", "label", "confidence"]
    assert list(tracks[0]) == ["video", "track", "frame", "time", "x1", "y1", "x2", "y2", "score"]
    assert len(timeline) == len(written.segments) and len(tracks) == 600
    first, segment = timeline[0], written.segments[0]
    assert first["start"] == f"{segment.start:.3f}" and first["end"] == f"{segment.end:.3f}"
    assert (first["video"], first["track"], first["label"]) == (written.video, "1", segment.label)
    assert {row["label"] for row in timeline} > {"unsure"}
    box = written.tracks[1].boxes[7]
    (row,) = [row for row in tracks if row["track"] == "2" and row["frame"] == "7"]
    assert [float(row[name]) for name in ("x1", "y1", "x2", "y2")] == pytest.approx(box.tolist(), abs=0.0051)
    assert float(row["time"]) == 0.28
    assert json.loads((tmp_path / "timeline.json").read_text())["format"] == 1


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)", "'=1", '=1,"a"\nb', "\t=1"])
def test_no_spreadsheet_runs_a_name(tmp_path, name):
    write_tables(make_prediction(name, classes=(name, "jump", "throw")), str(tmp_path))
    timeline, tracks = rows(tmp_path / "timeline.csv"), rows(tmp_path / "tracks.csv")
    assert {row["video"] for row in timeline + tracks} == {"'" + name}
    assert "'" + name in {row["label"] for row in timeline}
    found = read_prediction(str(tmp_path))
    assert found.video == name and found.classes[0] == name, "the name itself is not changed"


def test_a_name_that_is_not_unicode_becomes_question_marks(tmp_path):
    write_tables(make_prediction("clip\udcff.mp4"), str(tmp_path))
    assert read_prediction(str(tmp_path)).video == "clip?.mp4"
    assert rows(tmp_path / "tracks.csv")[0]["video"] == rows(tmp_path / "timeline.csv")[0]["video"] == "clip?.mp4"


def damage(folder, change):
    path = folder / "timeline.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value.pop("format"), "'format' is missing"),
        (lambda value: value.update(format=2), "reads format 1"),
        (lambda value: value.pop("segments"), "segments"),
        (lambda value: value.update(classes="run"), "classes"),
        (lambda value: value["lanes"][0]["probabilities"].pop(), "lane 1 needs"),
        (lambda value: value["lanes"][0]["probabilities"][3].pop(), "lane 1 needs"),
        (lambda value: value["tracks"].pop(), "tracks.csv: its tracks are not those"),
    ],
)
def test_a_damaged_timeline_is_refused(tmp_path, change, said):
    write_tables(make_prediction(), str(tmp_path))
    damage(tmp_path, change)
    with pytest.raises(InputError, match=said) as refused:
        read_prediction(str(tmp_path))
    assert str(refused.value).startswith(str(tmp_path)) and "\n" not in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"video,track\na,1\n", b"\xff\xfe\x00", b"{", None])
def test_a_damaged_table_of_boxes_is_refused(tmp_path, content):
    write_tables(make_prediction(), str(tmp_path))
    path = tmp_path / "tracks.csv"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=r"tracks\.csv") as refused:
        read_prediction(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_a_folder_without_an_answer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"timeline\.json: no such file"):
        read_prediction(str(tmp_path))


def test_an_answer_in_a_bucket(monkeypatch):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        written = make_prediction()
        write_tables(written, "s3://lab/answers/final")
        assert_same(read_prediction("s3://lab/answers/final"), written)
