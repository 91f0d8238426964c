"""The page of an answer in a real browser: video, lanes and table keep the same time."""

import base64
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from posture.display.colours import class_colours
from posture.predict.answers import UNSURE, ActionSegment, Lane
from posture.predict.page import curves, summary, write_page
from tests.support.answers import CLASSES, make_lane, make_prediction
from tests.support.footage import make_video
from tests.support.html_pages import HOSTILE, Page
from tests.support.review_pages import open_browser

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


def by_steps(lane, first, last, columns, steps=200):
    """The mean over many points of each column of the mean over the windows there."""
    found = np.full((columns, lane.probabilities.shape[1]), np.nan)
    for column in range(columns):
        times = first + (last - first) * (column + (np.arange(steps) + 0.5) / steps) / columns
        held = (lane.starts <= times[:, None]) & (times[:, None] < lane.ends)
        means = [lane.probabilities[row].mean(axis=0) for row in held if row.any()]
        if means:
            found[column] = np.mean(means, axis=0)
    return found


@pytest.mark.parametrize("stride", [0.3, 0.64, 1.28, 4.0])
def test_curves_average_the_windows_that_overlap(stride):
    lane = make_lane(1, 20.0, stride=stride)
    found, expected = curves(lane, 0.0, 22.0, 37), by_steps(lane, 0.0, 22.0, 37)
    assert np.array_equal(np.isnan(found), np.isnan(expected)) and np.isnan(found[-1]).all()
    assert np.nanmax(np.abs(found - expected)) < 0.01


def test_a_lane_without_windows_has_no_curve():
    empty = Lane(1, np.zeros(0), np.zeros(0), np.zeros((0, 3), np.float32))
    assert np.isnan(curves(empty, 0.0, 5.0, 10)).all()


def test_the_summary_says_who_did_what():
    def of(*labels):
        return [ActionSegment(1 + at % 2, at, at + 1.5, label, 0.9) for at, label in enumerate(labels)]

    assert summary([]) == "No action was found."
    assert summary(of("run", UNSURE, "jump", "run")).replace("\u202f", " ") == (
        "2 athletes: run 3.0 s and jump 1.5 s; unsure for 1.5 s."
    )
    assert "no sure answer; unsure" in summary(of(UNSURE))
    assert summary(of(*"abcdef")).endswith("and 2 other actions.")
    assert summary([ActionSegment(0, 0, 2, "run", 1)]).startswith("The whole frame: run")


def written(tmp_path, answer, video=None):
    return Path(write_page(answer, str(tmp_path), video=video)).read_text(encoding="utf-8")


def answer_of(text):
    return json.loads(re.search(r'id="answer">(.*?)</script>', text, re.DOTALL)[1])


def test_names_cannot_break_out_of_the_page(tmp_path):
    answer = dataclasses.replace(
        make_prediction(f"/footage/{HOSTILE}.mp4", athletes=1, classes=(HOSTILE, "jump", "throw"), failure=HOSTILE),
        notes=(HOSTILE,),
        model={HOSTILE: HOSTILE, "options": {"stride": 2, "names": [HOSTILE]}, "map": 0.5, "weights": None},
    )
    text = written(tmp_path, answer, f"{HOSTILE}.mp4")
    page = Page(text)
    assert page.tags["script"] == 2 and text.count("<script") == 2 and text.count("</script") == 2
    assert HOSTILE in page.text and answer_of(text)["classes"][0]["name"] == HOSTILE
    assert page.values("video", "src") == ["./%3Cscript%3Ealert%28%27x%27%29%3C/script%3E%20%26%20%22y%22.mp4"]
    assert "http:" not in text and "https:" not in text and "url(" not in text, "nothing is fetched from elsewhere"
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]


def test_the_page_says_what_the_answer_is_worth(tmp_path):
    answer = make_prediction(failure="the file ends at 11.3 s")
    page = Page(written(tmp_path, answer))
    assert "Only a part was read: the file ends at 11.3 s" in page.text and answer.notes[0] in page.text
    for fact in ("runs/improved", "best, epoch 12", "runs/athletes", "bytetrack", "below it the label is unsure"):
        assert fact in page.text
    assert "No annotated video was written" in page.text and "file:///footage/final.mp4" in page.values("a", "href")


def test_background_has_no_curve(tmp_path):
    whole = make_prediction(athletes=1)
    page = answer_of(written(tmp_path, dataclasses.replace(whole, classes=("run", "background", "throw"), segments=())))
    (lane,) = page["lanes"]
    ranks = np.frombuffer(base64.b64decode(lane["likeliest"]), "<u2")
    heights = np.frombuffer(base64.b64decode(lane["heights"]), np.uint8)
    assert not heights[ranks == 1].any() and heights[ranks == 0].any() and heights[ranks == 2].any()


def test_classes_have_the_colours_of_the_annotated_video(tmp_path):
    text = written(tmp_path, make_prediction())
    colours = [one["colour"] for one in answer_of(text)["classes"]]
    assert colours[:3] == class_colours(CLASSES) and len(colours) == 4


def test_an_answer_without_athletes_has_a_page(tmp_path, browser):
    answer = dataclasses.replace(make_prediction(athletes=0), lanes=(), segments=())
    page, problems = opened(browser, write_page(answer, str(tmp_path), video=None))
    assert "no athlete was found" in page.inner_text("main") and not problems


def test_athletes_without_an_action_have_lanes_too(tmp_path, browser):
    answer = dataclasses.replace(make_prediction(athletes=2), lanes=(), segments=(), classes=())
    page, problems = opened(browser, write_page(answer, str(tmp_path), video=None))
    assert page.locator(".lane b").all_inner_texts() == ["Athlete 1", "Athlete 2"] and not problems
    assert page.locator(".lane.idle").count() == 2
    assert "2 athletes in sight; no action was named." in page.inner_text("main")


def until(page, condition):
    """Wait until a condition holds. The page's policy forbids the evaluation that playwright's own waiting needs."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(f"not within a minute: {condition}")


def opened(browser, path, width=1300):
    page = browser.new_page(viewport={"width": width, "height": 900})
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"file://{path}")
    until(page, "!document.querySelector('.track') || document.querySelector('.track canvas').width > 10")
    return page, problems


@pytest.fixture
def watched(browser, tmp_path):
    """A page with its video, 12 s long, that is ready to play."""
    make_video(tmp_path / "final #1 100%.mp4", frames=300)
    page, problems = opened(browser, write_page(make_prediction(), str(tmp_path), video="final #1 100%.mp4"))
    until(page, "document.querySelector('video').readyState >= 2")
    yield page
    assert not problems
    page.close()


def time_of(page):
    until(page, "!document.querySelector('video').seeking")
    return page.evaluate("document.querySelector('video').currentTime")


def head_of(page):
    return 12 * float(page.evaluate("document.querySelector('#lanes').style.getPropertyValue('--head')"))


def test_a_click_on_a_lane_seeks_and_the_playhead_follows(watched):
    box = watched.locator(".track").nth(1).bounding_box()
    watched.mouse.click(box["x"] + box["width"] * 0.75, box["y"] + 10)
    assert time_of(watched) == pytest.approx(9.0, abs=0.05) and head_of(watched) == pytest.approx(9.0, abs=0.05)
    assert watched.locator("#bar output").inner_text() == "0:09.0"
    assert watched.locator(".lane.chosen b").inner_text() == "Athlete 2"
    watched.evaluate("document.querySelector('video').currentTime = 4")
    until(watched, "document.querySelector('#bar output').textContent === '0:04.0'")
    assert head_of(watched) == pytest.approx(4.0, abs=0.05)


def test_the_playhead_follows_while_it_plays(watched):
    watched.evaluate("document.querySelector('video').muted = true")
    watched.keyboard.press("Space")
    until(watched, "document.querySelector('video').currentTime > 0.4")
    watched.keyboard.press("Space")
    until(watched, "document.querySelector('video').paused")
    until(
        watched,
        "Math.abs(12 * document.querySelector('#lanes').style.getPropertyValue('--head')"
        " - document.querySelector('video').currentTime) < 0.01",
    )
    assert head_of(watched) > 0.4


def test_keys_go_through_time_and_actions(watched):
    segments = [segment for segment in make_prediction().segments if segment.track == 1]
    watched.keyboard.press("ArrowRight")
    watched.keyboard.press("ArrowRight")
    assert time_of(watched) == pytest.approx(2.0, abs=0.01)
    watched.keyboard.press("Shift+ArrowLeft")
    assert time_of(watched) == pytest.approx(1.96, abs=0.01)
    lane = watched.locator(".lane").first
    lane.focus()
    watched.keyboard.press("Home")
    for segment in segments[1:3]:
        watched.keyboard.press("ArrowDown")
        assert time_of(watched) == pytest.approx(segment.start, abs=0.01)
        assert lane.get_attribute("aria-valuetext").startswith(segment.label)
    watched.keyboard.press("ArrowUp")
    assert time_of(watched) == pytest.approx(segments[1].start, abs=0.01)
    watched.keyboard.press("Enter")
    until(watched, "!document.querySelector('video').paused")
    until(watched, "document.querySelector('video').paused")
    assert time_of(watched) >= segments[1].end, "this action is played, to its end"
    watched.keyboard.press("End")
    assert time_of(watched) == pytest.approx(12.0, abs=0.05)


def test_a_row_seeks_and_is_marked(watched):
    row = watched.locator("#segments tbody tr").nth(3)
    start = row.locator("button").inner_text()
    row.locator("button").focus()
    watched.keyboard.press("Enter")
    assert watched.locator("#bar output").inner_text() == start
    until(watched, "document.querySelectorAll('#segments tbody tr')[3].classList.contains('now')")
    assert watched.locator("#segments tr.now").count() == 2, "one for each athlete"


def test_hovering_says_class_confidence_and_time(watched):
    segment = next(one for one in make_prediction().segments if one.track == 1)
    box = watched.locator(".track").first.bounding_box()
    watched.mouse.move(box["x"] + box["width"] * (segment.start + 0.2) / 12, box["y"] + 20)
    told = watched.locator("#tip").inner_text()
    assert f"{segment.label} {segment.confidence:.2f}" in told and "0:00.0 to" in told and "At 0:00.2:" in told
    watched.mouse.move(5, 5)
    assert watched.locator("#tip").is_hidden()


def test_one_action_alone_and_zoom(watched):
    watched.locator("#legend button", has_text="run").click()
    labels = watched.locator("#segments tbody tr:visible .label").all_inner_texts()
    assert labels and set(labels) == {"run"}
    watched.locator("#legend button", has_text="run").click()
    assert watched.locator("#segments tbody tr:visible").count() == len(make_prediction().segments)
    watched.locator("#in").click()
    watched.locator("#in").click()
    box = watched.locator(".track").first.bounding_box()
    watched.mouse.click(box["x"] + box["width"] - 1, box["y"] + 10)
    assert time_of(watched) == pytest.approx(3.0, abs=0.05), "a quarter of 12 s is shown"
    watched.locator("#all").click()
    watched.mouse.click(box["x"] + box["width"] / 2, box["y"] + 10)
    assert time_of(watched) == pytest.approx(6.0, abs=0.05)


def colours_of(page, lane=0):
    """The colours in the blocks of a lane, at every tenth of its width."""
    return page.evaluate(
        """lane => { const canvas = document.querySelectorAll('.track canvas')[lane], pen = canvas.getContext('2d');
        return [...Array(200).keys()].map(at => [...pen.getImageData(Math.floor((at + .5) / 200 * canvas.width),
        canvas.height - 2, 1, 1).data].slice(0, 3).map(part => part.toString(16).padStart(2, '0')).join('')) }""",
        lane,
    )


def test_blocks_have_the_colours_of_their_classes(browser, tmp_path):
    answer = make_prediction()
    page, _ = opened(browser, write_page(answer, str(tmp_path), video=None))
    drawn = colours_of(page)
    looks = dict(zip(CLASSES, class_colours(CLASSES), strict=True))
    checked = 0
    for at, colour in enumerate(drawn):
        time = (at + 0.5) * 12 / 200
        segment = next((one for one in answer.of(1) if one.start + 0.2 < time < one.end - 0.2), None)
        if segment and segment.label != UNSURE:
            assert f"#{colour}" == looks[segment.label], (time, segment)
            checked += 1
    assert checked > 100


def test_a_part_of_a_video_has_the_times_of_the_whole(browser, tmp_path):
    make_video(tmp_path / "part.mp4", frames=300)
    answer = make_prediction()
    shifted = dataclasses.replace(
        answer,
        seconds=500.0,
        lanes=tuple(dataclasses.replace(lane, starts=lane.starts + 60, ends=lane.ends + 60) for lane in answer.lanes),
        segments=tuple(dataclasses.replace(one, start=one.start + 60, end=one.end + 60) for one in answer.segments),
    )
    page, problems = opened(browser, write_page(shifted, str(tmp_path), video="part.mp4", span=(60.0, 72.0)))
    until(page, "document.querySelector('video').readyState >= 2")
    assert page.locator("#bar output").inner_text() == "1:00.0"
    page.keyboard.press("ArrowRight")
    assert time_of(page) == pytest.approx(1.0, abs=0.01) and page.locator("#bar output").inner_text() == "1:01.0"
    assert not problems


def test_a_video_that_is_gone_is_said(browser, tmp_path):
    page, _ = opened(browser, write_page(make_prediction(), str(tmp_path), video="gone.mp4"))
    page.locator("#broken").wait_for(state="visible")
    assert "gone.mp4 is not beside this page" in page.locator("#broken").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#bar output").inner_text() == "0:01.0", "the timeline still works"


@pytest.mark.slow
def test_two_hours_with_thirty_athletes_open(browser, tmp_path):
    answer = make_prediction(
        athletes=30, seconds=7200.0, fps=1.0, stride=2.0, classes=[f"action {number}" for number in range(24)]
    )
    assert len(answer.segments) > 5000
    path = write_page(answer, str(tmp_path), video=None)
    page, problems = opened(browser, path)
    assert page.locator(".lane").count() == 30 and page.locator("#segments tbody tr").count() == len(answer.segments)
    track = page.locator(".track").nth(7)
    track.click(position={"x": track.evaluate("node => node.clientWidth") / 2, "y": 10})
    assert page.locator("#bar output").inner_text()[:4] in ("59:5", "1:00"), "a pixel is 11 s"
    assert not problems and (tmp_path / "timeline.html").stat().st_size < 10e6
