"""The page on timelines: every figure and note, what was compared, and any name."""

from __future__ import annotations

from pathlib import Path

from posture.predict.answers import UNSURE, ActionSegment
from posture.predict.untrimmed_page import STRIPS, verdict, write_untrimmed_page
from tests.support.figures.timelines import judged, timeline
from tests.support.html_pages import HOSTILE, assert_self_contained


def test_the_page_has_figures_intervals_notes_and_what_was_compared(tmp_path: Path) -> None:
    metrics, timelines = judged([timeline(f"/films/{number}.mp4", seed=number) for number in range(6)], tracks=True)
    metrics["notes"] = ["1 video left out, which no label puts into the split test"]
    metrics["videos"][0]["failure"] = "the file ends early"
    write_untrimmed_page(
        tmp_path / "page.html", name="improved", metrics=metrics, timelines=timelines, facts={"labels": "/films"}
    )
    page = assert_self_contained((tmp_path / "page.html").read_text())
    found = metrics["segments"]
    for value in (
        found["f1"][2],
        found["map"][2],
        found["mean_map"],
        metrics["tracks"]["idf1"],
        metrics["tracks"]["hota"],
    ):
        assert f"{value:.3f}" in page.text
    assert "over 6 videos" in page.text and "group" not in page.text
    told = found["intervals"]["f1"][2]
    assert f"{told['low']:.3f} to {told['high']:.3f}" in page.text
    for said in (metrics["notes"][0], "the file ends early", "5.mp4", "F1 0.3", "AP 0.7", "unsure", "/films", "Labels"):
        assert said in page.text, said
    for row in found["per_class"]:
        assert f"{row['class']} {row['count']} {row['f1'][0]:.3f}" in page.text
    assert page.tags["rect"] >= sum(len(line.truths) + len(line.found) for line in timelines)


def test_the_worst_videos_come_first_and_the_rest_is_said(tmp_path: Path) -> None:
    lines = [timeline(f"/films/{number}.mp4", seed=number) for number in range(STRIPS + 3)]
    metrics, timelines = judged(lines)
    write_untrimmed_page(tmp_path / "page.html", name="run", metrics=metrics, timelines=timelines, facts={})
    text = assert_self_contained((tmp_path / "page.html").read_text()).text
    worst = min(metrics["segments"]["by_video"], key=lambda row: row["f1"][2])["video"]
    assert f"{STRIPS} timelines with the lowest F1 are shown, of {STRIPS + 3}" in text
    strips = text[text.index("Video by video") :]
    first = min(strips.index(f"{number}.mp4") for number in range(STRIPS + 3) if f" {number}.mp4" in strips)
    assert strips[first:].startswith(Path(worst).name)


def test_point_events_alone_have_a_page_too(tmp_path: Path) -> None:
    contacts = [ActionSegment(0, at, at + 0.04, "contact", 1.0) for at in (1.0, 3.0, 5.0)]
    metrics, timelines = judged([timeline("/films/a.mp4", truths=contacts, found=contacts[:2])])
    write_untrimmed_page(tmp_path / "page.html", name="run", metrics=metrics, timelines=timelines, facts={})
    text = assert_self_contained((tmp_path / "page.html").read_text()).text
    assert "mAP within 2 frames" in text and "Point events" in text and verdict(metrics) == "3 point events in 1 video."
    assert "1 video is too few" in text


def test_any_name_is_safe(tmp_path: Path) -> None:
    truths = [ActionSegment(0, 0.0, 2.0, HOSTILE, 1.0)]
    found = [ActionSegment(0, 0.0, 2.0, HOSTILE, 0.9), ActionSegment(-3, 3.0, 4.0, UNSURE, 0.3)]
    metrics, timelines = judged([timeline(f"/films/{HOSTILE}.mp4", truths=truths, found=found)])
    metrics["notes"] = [HOSTILE]
    write_untrimmed_page(tmp_path / "page.html", name=HOSTILE, metrics=metrics, timelines=timelines, facts={})
    assert_self_contained((tmp_path / "page.html").read_text())
