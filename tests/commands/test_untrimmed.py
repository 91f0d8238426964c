"""`posture evaluate --untrimmed`: long videos with labels in, figures, what was compared, and a page out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import posture as python
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.videos import read_footage
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.predict.timeline_metrics import JudgedTimeline, segment_metrics
from posture.predict.untrimmed import read_labels
from tests.support.explained import CLASSES, make_run
from tests.support.footage import make_video
from tests.support.processes import posture_here

ROWS = ("one.mp4,0.4,2.0,left,test", "one.mp4,2.0,3.6,right,test", "two.mp4,0,,up,test", "three.mp4,0,1,up,train")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A classifier of whole frames with random weights."""
    return make_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    place = tmp_path / "games"
    place.mkdir()
    for number, name in enumerate(("one", "two", "three")):
        make_video(place / f"{name}.mp4", frames=100 - 10 * number)
    (place / "labels.csv").write_text("video,start,end,label,split\n" + "\n".join(ROWS))
    return place


def test_a_run_is_judged_on_long_videos(run, labelled):
    said = posture_here("evaluate", run.uri, "--untrimmed", str(labelled))
    assert said.returncode == 0, said.stderr
    place = Path(said.stdout.rstrip().rpartition("\n")[2]).parent
    assert place.parent == Path(run.path("evaluation")) and place.name.startswith("test-untrimmed-games-")
    metrics, compared = (json.loads((place / f"{name}.json").read_text()) for name in ("metrics", "timelines"))
    assert metrics["count"] == 2 and metrics["segments"]["count"] == 3 and metrics["tracks"] is None
    assert "1 video left out" in said.stdout and "2 videos" in said.stdout and "no interval" in said.stdout

    # the same answers as `posture predict` gives, judged by the same figures
    model = python.load(run.uri)
    timelines = []
    for row in compared:
        found = model.predict(row["video"])
        assert [(part["start"], part["label"]) for part in row["answers"]] == [
            (part.start, part.label) for part in found.segments
        ]
        truths = [replace(found.segments[0], **{**part, "track": 0}) for part in row["labels"]]
        timelines.append(JudgedTimeline(row["video"], truths, found.segments, found.fps))
    assert [part["end"] for part in compared[1]["labels"]] == [pytest.approx(90 / 25)]  # to the end of the video
    assert segment_metrics(timelines, CLASSES)["f1"] == metrics["segments"]["f1"]
    assert "it is not known if the run was trained on these videos" in said.stdout  # a run without a store
    page = (place / "report.html").read_text()
    assert "two.mp4" in page and "F1 at tIoU 0.5" in page
    assert run.evaluation() is None  # the result on test clips is another one

    again = python.evaluate(run.uri, untrimmed=str(labelled))
    assert again["name"] == place.name and again["segments"] == metrics["segments"]
    with pytest.raises(InputError, match="leave out --crops"):
        python.evaluate(run.uri, untrimmed=str(labelled), spans=2)
    with pytest.raises(InputError, match="give their labels with --untrimmed"):
        python.evaluate(run.uri, detector=run.uri)


def test_videos_of_the_training_set_are_named(run, labelled, tmp_path):
    rows = [row.replace(",test", ",train" if row.startswith("one") else ",test") for row in ROWS]
    (labelled / "labels.csv").write_text("video,start,end,label,split\n" + "\n".join(rows))
    store = Store(str(tmp_path / "store"), create=True)
    ingest_clips(read_footage(str(labelled)), store, IngestOptions())
    copy = make_run(tmp_path)
    copy.write_record(replace(copy.record(), store=store.uri))
    (labelled / "labels.csv").write_text("video,start,end,label,split\n" + "\n".join(ROWS))
    said = posture_here("evaluate", copy.uri, "--untrimmed", str(labelled))
    assert said.returncode == 0, said.stderr
    assert "the run was trained on videos that are judged here: one.mp4" in said.stdout


def test_what_does_not_fit_is_refused_in_a_sentence(run, labelled):
    for arguments, why in (
        (("--untrimmed", str(labelled), "--crops", "3"), "leave out --crops"),
        (("--detector", run.uri), "give their labels with --untrimmed"),
        (("--untrimmed", str(labelled), "--detector", run.uri), "finding athletes takes a detector"),
        (("--untrimmed", str(labelled), "--split", "val"), "no label names the split val"),
        (("--untrimmed", str(labelled / "none")), "none"),
    ):
        said = posture_here("evaluate", run.uri, *arguments)
        assert said.returncode == 2 and why in said.stderr + said.stdout, (arguments, said.stderr)


def test_boxes_beside_the_videos_are_read_if_there_are_some(labelled):
    assert all(video.tubes is None for video in read_labels(str(labelled)).videos)
    (labelled / "boxes.csv").write_text("video,frame,athlete,x1,y1,x2,y2\none.mp4,0,Ada,1,1,9,9\n")
    (one,) = [video for video in read_labels(str(labelled)).videos if video.tubes]
    assert one.file.relative == "one.mp4" and one.tubes and one.tubes[0].name == "Ada"
    (labelled / "boxes.csv").write_text("video,frame,athlete,x1,y1,x2,y2\none.mp4,0,Ada,9,1,1,9\n")
    with pytest.raises(InputError, match="contain no pixel"):  # not taken for footage without boxes
        read_labels(str(labelled))
