"""Every page in a real browser, as wide as a desk's screen and as narrow as a telephone's: nothing is cut off, nothing
is too small to read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.support.explained import make_run, run_command
from tests.support.page_gallery import write_gallery
from tests.support.review_pages import find_asked, open_browser, open_review, served

pytestmark = pytest.mark.long

CHECKS = (Path(__file__).parents[1] / "support" / "page_checks.js").read_text()
WIDTHS = (400, 1300)
PAPER = 690  # A4 within its margins, in the pixels of CSS
BROKEN = """<!doctype html><style>main {{ overflow: visible; }}</style><main><div style="width: 900px">{text}</div>
<div class="cut" style="width: 40px; overflow: hidden; white-space: nowrap">a name that is cut</div>
<div style="overflow-x: auto; width: 100px"><div style="width: 300px">{text}</div></div>
<table style="table-layout: fixed; width: 80px"><tr><td>unbreakable_and_long_name</td><td>1</td></tr></table>
<figure class="chart"><svg viewBox="0 0 1000 200" style="width: 300px; height: 60px">
<text x="10" y="50" font-size="12">too small</text>
<text x="100" y="150" font-size="60">one</text><text x="120" y="150" font-size="60">other</text>
<text x="1800" y="90" font-size="60">far out</text>
<text x="300" y="50" font-size="40">cut…</text></svg></figure></main>"""


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    return write_gallery(tmp_path_factory.mktemp("pages"))


def problems(browser, address: str, *, ready: str = "main") -> list[str]:
    """What is wrong with a page in a window of each width, and on paper."""
    page = browser.new_page()
    page.goto(address)
    page.locator(ready).first.wait_for(state="attached", timeout=60_000)
    page.evaluate("() => document.querySelectorAll('details').forEach((node) => { node.open = true; })")
    found = []
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        found += [f"{width}: {problem}" for problem in page.evaluate(CHECKS)]
    page.set_viewport_size({"width": PAPER, "height": 1000})
    page.emulate_media(media="print")
    if (width := page.evaluate("document.documentElement.scrollWidth")) > PAPER:
        found.append(f"on paper: {width} pixels wide")
    page.close()
    return found


def test_the_checks_find_what_is_wrong(browser, tmp_path):
    (tmp_path / "broken.html").write_text(BROKEN.format(text="some words"))
    found = " ".join(problems(browser, (tmp_path / "broken.html").as_uri()))
    for said in (
        "pixels wide in a window of 400",
        'cut off: "a name that is cut"',
        "scrolls without a cue",
        'runs over its cell: "unbreakable',
        "pixels small",
        'on top of each other: "one" and "other"',
        'reaches out of its drawing: "far out"',
        'cut: "cut…"',
    ):
        assert said in found, (said, found)


def test_pages_fit_windows_and_paper_and_no_label_is_cut(browser, gallery):
    found = {file.stem: problems(browser, file.as_uri()) for file in gallery}
    assert len(found) == 15 and not any(found.values()), found


def test_an_explanation_fits_its_window(browser, video, tmp_path):
    run_command(
        make_run(tmp_path).uri, str(video("2025-11-07_indoor_meeting_athlete_017.mp4")), "--out", str(tmp_path / "out")
    )
    assert problems(browser, (tmp_path / "out" / "explain.html").as_uri()) == []


def test_the_page_of_a_review_fits_its_window(browser, tmp_path_factory):
    asked, footage = find_asked(tmp_path_factory)
    with contextlib.closing(open_review(asked, footage)) as review, served(review) as server:
        assert problems(browser, server.url, ready="#note:empty") == []
