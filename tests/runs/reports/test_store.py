"""The page of a store: what was given is there, nothing is fetched, any name is safe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from posture.data.store.schema import SEGMENTS
from posture.data.store.tables import Store
from posture.runs.reports.store import REFUSED, write_show_page
from posture.runs.reports.store_contents import summarize
from tests.support.figures.store import SUMMARY, clip
from tests.support.html_pages import HOSTILE, Page
from tests.support.image_store import make_images, write_image_store

EMPTY: dict[str, Any] = {
    "uri": "/data/store",
    "tables": [],
    "classes": [],
    "splits": [],
    "refused": [],
    "recipes": [],
    "history": [],
}


def shown(path: Path, summary: dict[str, Any], sheet: list[dict[str, Any]]) -> Page:
    write_show_page(path / "show.html", summary=summary, sheet=sheet)
    text = (path / "show.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "url(" not in text and "@import" not in text
    assert all(
        value.startswith("file:///" if tag == "a" else "data:image/jpeg;base64,")
        for tag, name, value in page.attributes
        if name in {"src", "href"}
    )
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    return page


def test_a_store_is_shown_with_all_its_figures(tmp_path: Path) -> None:
    page = shown(
        tmp_path, SUMMARY, [clip("run", "test", "anna"), clip("run", "train", "ben"), clip("jump", "val", "carl")]
    )
    for words in (
        "s3://bucket/store",
        "Segments 90",
        "1 h 23 min of footage",
        "Clips 180",
        "from 14 groups",
        "Classes 2",
        "30 to 60 segments each",
        "Size 6.2 GB",
        "train 60 120 9 1 h",
        "test 20 40 3 13 min",
        "clips 12 10,822 6.1 GB 3 May 2025, 14:05 UTC",
        "videos 3 612 100.0 MB 3 May 2025, 14:06 UTC",
        "s3://raw/broken.mp4 truncated no index",
        "16 frames, 128x171 10,822",
        "12 3 May 2025, 14:05 UTC WRITE 777",
        "jump 40 train, 10 val, 10 test",
        "run 20 train, 10 test",
    ):
        assert words in page.text, words
    assert page.tags["img"] == 3 * 4
    places = [page.text.index(words) for words in ("jump 40 train", "carl", "run 20 train", "ben", "anna")]
    assert places == sorted(places)


def test_athletes_and_videos_on_two_sides_are_counted(tmp_path: Path) -> None:
    rows = [{"athletes": 1, "videos": 1200, "segments": 3600}, {"athletes": 2, "videos": 7, "segments": 42}]
    page = shown(tmp_path, SUMMARY | {"athletes": rows, "on_two_sides": 3}, [])
    for words in (
        "Athletes in a video Videos Segments 1 1,200 3,600 2 7 42",
        "3 videos with segments in several splits, which show the same frames.",
    ):
        assert words in page.text, words
    assert "Athletes in a video" not in shown(tmp_path, SUMMARY, []).text


def test_the_bars_of_the_class_balance_have_their_lengths(tmp_path: Path) -> None:
    page = shown(tmp_path, SUMMARY, [])
    classes = [value for tag, name, value in page.attributes if tag == "i" and name == "class"]
    widths = [
        float(re.fullmatch(r"width:([\d.]+)%", value)[1])
        for tag, name, value in page.attributes
        if tag == "i" and name == "style"
    ]
    assert classes == ["train", "val", "test", "train", "test"]  # equal counts keep their own split
    assert widths == pytest.approx([100 * count / 60 for count in (40, 10, 10, 20, 10)], abs=0.01)


def test_names_are_escaped(tmp_path: Path) -> None:
    summary = {
        name: [{key: HOSTILE if isinstance(value, str) else value for key, value in row.items()} for row in rows]
        for name, rows in SUMMARY.items()
        if name != "uri"
    } | {"uri": HOSTILE}
    page = shown(tmp_path, summary, [clip(HOSTILE, HOSTILE, HOSTILE)])
    assert page.text.count(HOSTILE) > 10


def test_an_empty_store(tmp_path: Path) -> None:
    page = shown(tmp_path, EMPTY, [])
    for words in ("Segments 0", "No labelled segments yet.", "No clips yet.", "None: every file could be read."):
        assert words in page.text, words


def test_missing_figures_are_dashes(tmp_path: Path) -> None:
    page = shown(
        tmp_path,
        EMPTY | {"tables": [{"name": "clips", "version": 0, "rows": None, "bytes": None, "modified": None}]},
        [],
    )
    assert "clips 0 – – –" in page.text


def test_many_refused_files_are_counted(tmp_path: Path) -> None:
    refused = [{"uri": f"file-{index}.mp4", "verdict": "corrupt", "reason": ""} for index in range(REFUSED + 37)]
    page = shown(tmp_path, EMPTY | {"refused": refused}, [])
    assert page.text.count("corrupt") == REFUSED and "37 more are not listed." in page.text


@pytest.mark.parametrize(
    "sheet", [[], [clip("run", "train", "anna", frames=0)], [clip("run", "", "", frames=1, shape=(240, 20))]]
)
def test_odd_sheets_make_a_page(tmp_path: Path, sheet: list[dict[str, Any]]) -> None:
    shown(tmp_path, EMPTY, sheet)


def test_images_with_boxes_are_drawn_and_clips_are_not_missed(tmp_path: Path) -> None:
    """A store of images alone says nothing of clips; its boxes lie where they are in the image."""
    images = {
        "splits": [{"split": "train", "pictures": 3, "empty": 1, "boxes": 4, "groups": 2}],
        "classes": [
            {"class": "athlete", "train": 3, "val": 0, "test": 0},
            {"class": HOSTILE, "train": 1, "val": 0, "test": 0},
        ],
        "sheet": [
            {
                "image": "0123456789abcdef",
                "pixels": np.zeros((100, 170, 3), np.uint8),
                "boxes": np.array([[17, 10, 51, 60]], np.float32),
                "labels": ["athlete"],
            }
        ],
    }
    write_show_page(tmp_path / "show.html", summary=EMPTY, sheet=[], images=images)
    text = (tmp_path / "show.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "script" not in page.tags
    assert "Images with boxes" in page.text and "1 box" in page.text and "0123456789ab" in page.text
    assert "No clips yet" not in page.text and "Segments" not in page.text
    # the last rectangle drawn: 340 units are 170 pixels
    edge = {name: value for tag, name, value in page.attributes if tag == "rect"}
    assert [float(edge[name]) for name in ("x", "y", "width", "height")] == [34, 20, 68, 100]


def test_a_store_of_images_is_shown(tmp_path: Path) -> None:
    from posture.commands.show import show_store

    store = write_image_store(tmp_path / "store", make_images(12))
    show_store(store.uri, out=tmp_path / "show.html", recipe=None, items=5, seed=0)
    page = Page((tmp_path / "show.html").read_text(encoding="utf-8"))
    assert page.tags["image"] == 5 and "athlete" in page.text and "ball" in page.text


def test_athletes_of_a_store_are_counted_by_video(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store"), create=True)
    store.create_tables()
    said = [
        ("v1", "ann", "train"), ("v1", "bob", "train"), ("v1", "bob", "train"), ("v1", None, "train"),
        ("v2", "ann", "train"), ("v2", "ann", "test"), ("v3", "", "val"), ("v3", "", ""),
    ]  # fmt: skip
    rows = [
        {
            "segment": f"s{number}",
            "video": video,
            "start": 0.0,
            "end": 1.0,
            "label": "run",
            "group": "g",
            "split": split,
        }
        | {"athlete": athlete}
        for number, (video, athlete, split) in enumerate(said)
    ]
    store.append("segments", pa.Table.from_pylist(rows, schema=SEGMENTS))
    summary = summarize(store)
    assert summary["athletes"] == [
        {"athletes": 1, "videos": 1, "segments": 2},
        {"athletes": 2, "videos": 1, "segments": 3},
    ]
    assert summary["on_two_sides"] == 1
