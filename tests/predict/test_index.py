"""The page over many predicted videos."""

import dataclasses
from pathlib import Path

from posture.display.colours import class_colours
from posture.predict.answers import UNSURE, ActionSegment
from posture.predict.index import STRIP_COLUMNS, PredictedVideo, predicted_video, write_index
from tests.support.answers import CLASSES, make_prediction
from tests.support.html_pages import HOSTILE, Page


def written(tmp_path, *rows):
    text = Path(write_index(rows, str(tmp_path))).read_text(encoding="utf-8")
    page = Page(text)
    assert not page.crossed and not page.open and "script" not in page.tags
    assert "url(" not in text and "http:" not in text and "https:" not in text
    return page


def rects(page):
    names = ("x", "y", "width", "fill")
    return list(zip(*(page.values("rect", name) for name in names), strict=True))


def test_a_row_has_its_timeline_totals_and_link(tmp_path):
    answer = dataclasses.replace(
        make_prediction("/footage/my final #1.mp4", seconds=20.0),
        segments=(
            ActionSegment(1, 0.0, 10.0, "run", 0.9, "run"),
            ActionSegment(1, 10.0, 20.0, UNSURE, 0.3, "run"),
            ActionSegment(2, 5.0, 10.0, "throw", 0.9, "throw"),
        ),
    )
    page = written(tmp_path, predicted_video(answer, "my final #1/timeline.html"))
    colours = class_colours(CLASSES)
    half = str(STRIP_COLUMNS // 2)
    assert rects(page) == [
        ("0", "0", half, colours[0]),
        (half, "0", half, "#8d939b"),
        (str(STRIP_COLUMNS // 4), "12", str(STRIP_COLUMNS // 4), colours[2]),
    ]
    assert page.values("a", "href") == ["./my%20final%20%231/timeline.html"]
    assert "2 athletes: run 10.0 s and throw 5.0 s; unsure for 10.0 s." in page.text


def test_bad_files_have_their_verdict(tmp_path):
    page = written(
        tmp_path,
        predicted_video(make_prediction(failure="the file ends at 0:09.1"), "a/timeline.html"),
        PredictedVideo("/footage/b.mp4", verdict="not_video", reason="it holds text"),
    )
    assert "truncated : the file ends at 0:09.1" in page.text and "not_video : it holds text" in page.text
    assert "1 video of 12.0 s; 1 video read in part; 1 file without an answer." in page.text
    assert len(page.values("a", "href")) == 1


def test_names_cannot_break_out(tmp_path):
    answer = make_prediction(f"/footage/{HOSTILE}.mp4", classes=(HOSTILE, "jump", "throw"))
    page = written(
        tmp_path,
        predicted_video(answer, f"{HOSTILE}/timeline.html"),
        PredictedVideo(HOSTILE, verdict="failed", reason=HOSTILE),
    )
    assert HOSTILE in page.text


def test_a_crowd_is_cut_and_said(tmp_path):
    page = written(tmp_path, predicted_video(make_prediction(athletes=9), "a/timeline.html"))
    assert "3 more athletes are on its page" in page.text and page.tags["rect"]


def test_a_segment_shorter_than_a_column_is_not_lost_in_a_gap(tmp_path):
    answer = dataclasses.replace(
        make_prediction(seconds=7200.0, fps=1.0, athletes=1, stride=60.0),
        segments=(ActionSegment(1, 3600.0, 3601.0, "run", 0.9, "run"),),
    )
    page = written(tmp_path, predicted_video(answer, "a/timeline.html"))
    assert len(rects(page)) == 1
