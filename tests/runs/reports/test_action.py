"""The evaluation report: complete, self-contained, safe with any name, and readable from one class to a hundred."""

from __future__ import annotations

import base64
import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from posture.display.charts import Chart, ChartLine, Dot, matrix, ticks
from posture.display.html import breaks, duration, size
from posture.display.text import moment, percent, whole
from posture.runs.classification_metrics import classification_metrics
from posture.runs.reports.action import verdict, write_report
from tests.support.figures.action_report import filmed, scored
from tests.support.html_pages import HOSTILE, Page, assert_self_contained


def written(path: Path, **given: Any) -> str:
    values: dict[str, Any] = {
        "run": {"name": "demo", "model": {"kind": "c3d"}},
        "metrics": scored(["run", "jump"], 20),
        "history": [],
        "examples": [],
        "facts": {},
    } | given
    write_report(path / "report.html", **values)
    return (path / "report.html").read_text(encoding="utf-8")


HISTORY = [
    {"epoch": epoch, "train_loss": 2.0 / epoch, "val_loss": 2.2 / epoch, "val_accuracy": accuracy, "lr": 0.01 / epoch}
    for epoch, accuracy in ((1, 0.2), (2, 0.6), (3, 0.5))
]


def test_a_full_report_holds_everything_given(tmp_path: Path) -> None:
    names = ["run", "jump", "throw", "swim", "row", "shoot", "dive"]
    metrics = scored(names, 60)
    text = written(
        tmp_path,
        metrics=metrics,
        history=HISTORY,
        run={
            "name": "first-run",
            "epochs": 3,
            "model": {"kind": "c3d", "groups": 8, "stem": {"kernel": 7}},
            "optim": {"lr": 0.025},
        },
        examples=[filmed("run", "run", 0.912), filmed("jump", "throw", 0.834)],
        facts={
            "evaluated": datetime(2025, 5, 3, 14, 5, tzinfo=UTC),
            "protocol": "three crops",
            "views": [3, 9],
            "store": "s3://bucket/store",
            "tables": {"clips": 12},
            "hardware": "four cores",
            "software": {"torch": "2.14"},
            "seed": 7,
            "epochs": 3,
            "parameters": 78409573,
            "gmacs": 38.55,
            "clips_per_second": 61.25,
            "wall_seconds": 4980,
            "weather": "sunny",
            "footage": {"train": {"segments": 812, "seconds": 3660}, "test": {"segments": 60}},
        },
    )
    page = assert_self_contained(text)
    assert "first-run" in page.text and "c3d" in page.text and "3 May 2025, 14:05 UTC" in page.text
    for key, form in (
        ("accuracy", percent),
        ("top5", percent),
        ("macro_precision", "{:.3f}".format),
        ("macro_recall", "{:.3f}".format),
        ("macro_f1", "{:.3f}".format),
        ("map", "{:.3f}".format),
        ("auc", "{:.3f}".format),
        ("ece", "{:.3f}".format),
    ):
        assert " ".join(form(metrics[key]).split()) in page.text, key
    assert "Top-5" in page.text
    assert "3 to 9 views per segment" in page.text and "Protocol: three crops." in page.text
    for fact in (
        "s3://bucket/store",
        "clips 12",
        "four cores",
        "torch 2.14",
        "78,409,573",
        "38.550 GMAC",
        "61.2 clips/s",
        "1 h 23 min",
        "812",
        "1 h 1 min",
        "Weather",
        "sunny",
    ):
        assert fact in page.text, fact
    for setting in ("groups", "model.stem", "kernel", "0.025"):
        assert setting in page.text, setting
    assert "0.600 at epoch 2" in page.text
    assert "throw , true class jump" in page.text and "91.2 %" in page.text and "83.4 %" in page.text
    assert page.tags["img"] == 10
    for row in metrics["per_class"]:
        figures = " ".join(f"{row[key]:.3f}" for key in ("precision", "recall", "f1", "ap", "auc"))
        assert f"{row['class']} {row['count']} {figures}" in page.text


def test_the_accuracy_stands_beside_its_interval(tmp_path: Path) -> None:
    metrics = scored(["run", "jump"], 20)
    sure = {"of": "accuracy", "low": 0.401, "high": 0.75, "groups": 8, "resamples": 100}
    text = Page(written(tmp_path, metrics=metrics | {"interval": sure})).text
    assert text.count("95 % interval 40.1 % to 75.0 %, over 8 groups") == 2  # the sentence and the tile
    alone = Page(
        written(tmp_path, metrics=metrics | {"interval": sure | {"low": None, "high": None, "groups": 1}})
    ).text
    assert "no interval: 1 group is too few" in alone
    alike = Page(written(tmp_path, metrics=metrics | {"interval": sure | {"low": None, "high": None}})).text
    assert (
        "no interval: all 8 groups have the same result" in alike
        and "interval" not in Page(written(tmp_path, metrics=metrics)).text
    )


def test_a_warning_stands_before_the_result(tmp_path: Path) -> None:
    text = Page(written(tmp_path, metrics=scored(["run", "jump"], 20) | {"notice": "unfinished: 2 of 9 epochs"})).text
    assert text.index("unfinished: 2 of 9 epochs") < text.index("test segments were recognised")


def test_examples_name_their_files_and_link_to_the_moment(tmp_path: Path) -> None:
    here = filmed("run", "run", 0.9) | {"uri": "/films/a b/#1 café.mp4", "start": 12.5}
    there = filmed("run", "jump", 0.8) | {"uri": "s3://bucket/raw/b.mp4", "start": 3.0}
    page = assert_self_contained(
        written(
            tmp_path,
            examples=[here, there, filmed("run", "run", 0.7) | {"uri": "https://elsewhere/c.mp4", "start": 0.0}],
        )
    )
    assert page.values("a", "href") == ["file:///films/a%20b/%231%20caf%C3%A9.mp4#t=12.5"], (
        "no address but a local file's is linked to"
    )
    assert "#1 café.mp4 at 12.5 s" in page.text and "s3://bucket/raw/b.mp4 at 3.0 s" in page.text


def test_names_break_at_separators_and_nowhere_in_numbers() -> None:
    broken = {
        "s3://a/b_c-d": "s3://|a/|b_|c-|d",
        "data.recipe=0.5": "data.|recipe=|0.5",
        "1,234.5": "1,234.5",
        "<a>": "&lt;a&gt;",
        "": "",
        "a--b.": "a--|b.",
    }
    assert {name: str(breaks(name)).replace("<wbr>", "|") for name in broken} == broken


def test_after_one_epoch_each_curve_is_a_dot_of_its_own_colour(tmp_path: Path) -> None:
    text = written(tmp_path, history=HISTORY[:1])
    loss = text[text.index('aria-label="Loss"') :].partition("</svg>")[0]
    assert re.findall(r'<circle class="dot (\w+)"', loss) == ["first", "second"]


def test_training_and_validation_loss_are_drawn_so_that_they_measure_the_same(tmp_path: Path) -> None:
    two = {"name": "two", "model": {"kind": "two_stream", "streams": "both"}, "loss": {"label_smoothing": 0.1}}
    text = Page(written(tmp_path, run=two, history=HISTORY, facts={"gmacs": 1.0})).text
    assert (
        "training, mean of 2 streams, with label smoothing 0.1" in text
        and "1.00 GMAC per clip without optical flow" in text
    )
    halved = written(tmp_path, run=two, history=[row | {"train_loss": 2 * row["train_loss"]} for row in HISTORY])
    alone = written(tmp_path, run=two | {"model": {"kind": "two_stream", "streams": "spatial"}}, history=HISTORY)
    curves = [re.findall(r'<path class="line first" d="([^"]+)"', page)[0] for page in (halved, alone)]
    assert curves[0] == curves[1] and "streams" not in Page(alone).text.partition("How it was measured")[0]


def test_every_field_of_the_confusion_matrix_is_drawn(tmp_path: Path) -> None:
    metrics = scored(["run", "jump", "throw"], 50)
    page = Page(written(tmp_path, metrics=metrics))
    for truth, row in zip(("run", "jump", "throw"), metrics["confusion"], strict=True):
        for guess, count in zip(("run", "jump", "throw"), row, strict=True):
            assert (f"{truth} predicted as {guess}: {count} of {sum(row)} " in page.text) == (count > 0)


def test_the_most_confident_examples_are_chosen_right_and_wrong(tmp_path: Path) -> None:
    examples = [
        filmed("run", "run" if index % 2 else "jump", 0.3 + index / 100, segment=f"number{index:02d}", frames=1)
        for index in range(40)
    ]
    text = written(tmp_path, examples=examples)
    assert re.findall(r"number(\d\d)", text) == [f"{index}" for index in (*range(39, 24, -2), *range(38, 23, -2))]


def test_names_are_escaped(tmp_path: Path) -> None:
    text = written(
        tmp_path,
        run={"name": HOSTILE, "model": {"kind": HOSTILE}, HOSTILE: {HOSTILE: HOSTILE}},
        history=HISTORY,
        metrics=scored([HOSTILE, "jump"], 20),
        examples=[filmed(HOSTILE, "jump", 0.9, segment="<b>"), filmed(HOSTILE, HOSTILE, 0.9)],
        facts={
            "store": HOSTILE,
            "protocol": HOSTILE,
            "software": {HOSTILE: HOSTILE},
            HOSTILE: HOSTILE,
            "footage": {HOSTILE: {HOSTILE: 3}},
        },
    )
    page = assert_self_contained(text)
    assert "<script" not in text
    assert page.text.count("<script>alert('x')</script> & \"y\"") > 8


def test_images_are_small_jpegs_of_the_frames(tmp_path: Path) -> None:
    frame = np.zeros((240, 320, 3), dtype=np.uint8)
    frame[..., 0] = 200
    example = filmed("run", "run", 0.9) | {"frames": [frame] * 16}
    sources = Page(written(tmp_path, examples=[example])).values("img", "src")
    assert len(sources) == 6
    image = Image.open(io.BytesIO(base64.b64decode(sources[0].removeprefix("data:image/jpeg;base64,"))))
    assert image.format == "JPEG" and image.size == (160, 120)
    red, green, blue = np.asarray(image).mean(axis=(0, 1))
    assert red == pytest.approx(200, abs=3) and max(green, blue) < 4


def test_a_report_of_ten_classes_stays_under_two_megabytes(tmp_path: Path) -> None:
    names = [f"class {index}" for index in range(10)]
    # noise: the worst case
    examples = [filmed("class 1", f"class {index % 2}", index / 100, frames=6, pixels=171) for index in range(100)]
    written(tmp_path, metrics=scored(names, 100), history=HISTORY, examples=examples)
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_a_hundred_and_one_classes(tmp_path: Path) -> None:
    names = [f"discipline number {index}" for index in range(101)]
    metrics = scored(names, 900, absent=50)
    page = assert_self_contained(written(tmp_path, metrics=metrics))
    assert "1 of 101 classes have no test segment" in page.text
    assert "discipline number 50 0 – – – – –" in page.text
    assert page.text.count("mean of 100 classes") == 2  # its key and its hover text: no key for each of the hundred
    assert len(page.values("path", "class")) < 1000


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1}],
        [{"epoch": 1, "train_loss": 2.0, "val_loss": None, "val_accuracy": 0.0, "lr": 0.0}],
        [{"epoch": 1, "train_loss": float("nan")}, {"epoch": 2, "train_loss": 1.0}],
        [{"train_loss": 1.0}] * 2,
    ],
)
def test_histories_with_gaps(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    page = assert_self_contained(written(tmp_path, history=history))
    assert not any(
        re.search(r"\bnan\b", value) for _, name, value in page.attributes if name in {"d", "x", "y", "cx", "cy"}
    )
    assert ("No training history" in page.text) == (not any("train_loss" in row for row in history))


def test_one_class_and_nothing_else(tmp_path: Path) -> None:
    metrics = classification_metrics(np.ones((3, 1)), np.zeros(3, dtype=int), ["only"])
    page = assert_self_contained(written(tmp_path, run={}, metrics=metrics))
    assert "holds only one class" in page.text and "A ROC curve needs segments of at least two classes" in page.text


def test_examples_without_frames(tmp_path: Path) -> None:
    page = assert_self_contained(written(tmp_path, examples=[filmed("run", "run", 1.0, frames=0)]))
    assert "no images" in page.text and page.tags["img"] == 0


def test_file_names_that_are_no_text_do_not_stop_the_page(tmp_path: Path) -> None:
    assert "/films/caf?" in Page(written(tmp_path / "new" / "folder", facts={"store": "/films/caf\udce9"})).text


@pytest.mark.parametrize(
    ("accuracy", "majority", "words"),
    [
        (0.75, 0.5, "15 of 20 test segments were recognised, an accuracy of 75.0 %: 25.0 points above the 50.0 %"),
        (0.5, 0.5, "no better than the 50.0 %"),
        (0.25, 0.5, "25.0 points below the 50.0 %"),
    ],
)
def test_the_verdict_compares_with_the_most_frequent_class(accuracy: float, majority: float, words: str) -> None:
    metrics = {
        "count": 20,
        "accuracy": accuracy,
        "majority_accuracy": majority,
        "per_class": [{"count": 10}, {"count": 10}, {"count": 0}],
    }
    sentence = " ".join(verdict(metrics).split())
    assert words in sentence and "most frequent of 2 classes" in sentence
    assert "val segments" in verdict(metrics | {"split": "val"})


def test_clips_counted_one_by_one_stand_beside_the_segments(tmp_path: Path) -> None:
    metrics = scored(["run", "jump"], 20)
    several = metrics | {"clips": 2 * metrics["count"], "clip_accuracy": 0.613}
    assert f"clip by clip: {percent(0.613)} of {2 * metrics['count']} clips" in written(tmp_path, metrics=several)
    for alike in (metrics, metrics | {"clips": metrics["count"], "clip_accuracy": metrics["accuracy"]}):
        assert "clip by clip" not in written(tmp_path, metrics=alike)


@pytest.mark.parametrize(
    ("linear", "words"),
    [
        (0.6, "the 25.0 % of always predicting the most frequent of 2 classes, and 15.0 points above the 60.0 % of a"),
        (0.75, "and no better than the 75.0 % of a linear classifier on mean frame and motion."),
        (0.9, "and 15.0 points below the 90.0 % of a linear classifier on mean frame and motion."),
    ],
)
def test_and_with_the_linear_classifier(linear: float, words: str, tmp_path: Path) -> None:
    metrics = {"count": 20, "accuracy": 0.75, "majority_accuracy": 0.25, "per_class": [{"count": 10}, {"count": 10}]}
    beside = {"linear": {"accuracy": linear, "sentence": "a linear classifier: so much"}}
    assert words in " ".join(verdict(metrics | beside).split())
    assert "a linear classifier: so much" in written(tmp_path, metrics=scored(["run", "jump"], 20) | beside)


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0.31, 2.47), (0, 1e-5), (-3, 4), (0, 49), (5, 5), (0, 0), (1e6, 1.1e6)]
)
def test_ticks_are_round_and_cover_the_values(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high and found[-1] > found[0]
    assert 2 <= len(found) <= 8
    assert np.diff(found) == pytest.approx(np.diff(found)[0])


def test_whole_ticks_are_whole() -> None:
    assert ticks(0, 3, whole=True) == [0, 1, 2, 3] and ticks(0, 1, whole=True) == [0, 1]
    assert all(tick == int(tick) for tick in ticks(0, 137, whole=True))


def test_a_curve_breaks_where_a_value_is_missing() -> None:
    chart = Chart("", "", "", [0.0, 4.0], [0.0, 1.0], width=164, height=154)  # 100 by 100 inside
    path = chart.path(ChartLine("", [(0, 0), (1, 1), (2, float("nan")), (3, 0.5), (4, 0)]))
    assert path == "M50 112L75 12M125 62L150 112"


def test_curves_that_hide_each_other_are_told_in_the_legend() -> None:
    def chart(*lines: ChartLine) -> Chart:
        return Chart("", "", "", ticks(0, 2), ticks(0, 1), list(lines))

    points = [(0, 0.2), (1, 0.5), (2, 0.9)]
    apart, near = [(0, 0.2), (1, 0.9), (2, 0.9)], [(0, 0.2), (1, 0.501), (2, 0.9)]
    assert [name for _, name in chart(ChartLine("a", points), ChartLine("b", apart), ChartLine("c", near)).legend] == [
        "b",
        "c, and the same: a",
    ]
    assert [line.name for line, _ in chart(ChartLine("a", points), ChartLine("b", apart)).legend] == ["a", "b"]
    seeds = [ChartLine(f"seed {number}", one, listed=False) for number, one in enumerate((points, apart, near))]
    assert chart(*seeds).coinciding == "The same curve: seed 0 = seed 2." and chart(*seeds[:2]).coinciding == ""
    assert chart(*[ChartLine(name, points, "faint", listed=False) for name in "ab"]).coinciding == "", (
        "faint curves are not told apart anyway"
    )
    gap = [(0, 0.2), (1, float("nan")), (2, 0.9)]
    assert len(chart(ChartLine("a", points), ChartLine("b", gap)).legend) == 2


def test_labels_of_dots_stand_beside_them_and_never_on_each_other() -> None:
    dots = [Dot(0.5 + place / 1000, 0.5, label=f"trial {place}") for place in range(20)] + [
        Dot(1, 1, label="right"),
        Dot(0, 0, label="left"),
    ]
    chart = Chart("", "", "", ticks(0, 1), ticks(0, 1), dots=dots)
    labels = {label: (x, y, anchor) for x, y, anchor, label in chart.notes}
    assert labels["right"][2] == "end" and labels["left"][2] == "start" and 3 <= len(labels) < 22
    assert len({(x, y) for x, y, _ in labels.values()}) == len(labels)


def test_wide_charts_have_a_narrow_twin_with_fewer_ticks() -> None:
    chart = Chart(
        "", "", "", ticks(0, 24, 20, whole=True), ticks(0, 1), [ChartLine("a", [(0, 0), (24, 1)])], width=1040
    )
    assert (
        chart.narrow.width == 380 and len(chart.narrow.x_ticks) < 9 < len(chart.x_ticks) and chart.narrow.narrow is None
    )
    assert (chart.narrow.x_ticks[0], chart.narrow.x_ticks[-1]) == (chart.x_ticks[0], chart.x_ticks[-1]), (
        "both show the same stretch"
    )


def test_a_matrix_keeps_its_width_whatever_the_classes() -> None:
    for count in (1, 5, 24, 25, 101):
        layout = matrix(np.eye(count, dtype=int).tolist(), ["a rather long class name"] * count)
        assert layout.width <= 1040.1
        assert all(layout.left <= cell.x and cell.x + layout.side <= layout.width + 0.1 for cell in layout.cells)
        assert all(layout.top <= cell.y and cell.y + layout.side <= layout.height + 0.1 for cell in layout.cells)
        assert layout.label_size >= 5.5


def test_numbers_are_written_for_people() -> None:
    def plain(text: str) -> str:
        return text.replace("\u202f", " ")

    assert (
        plain(percent(0.5734)) == "57.3 %"
        and percent(None) == whole(None) == duration(None) == size(None) == moment(None) == "–"
    )
    spans = {0.25: "0.2 s", 59: "59.0 s", 60: "1 min", 4980: "1 h 23 min", 86400: "1 d", 90061: "1 d 1 h"}
    assert {seconds: plain(duration(seconds)) for seconds in spans} == spans
    assert [plain(size(count)) for count in (0, 999, 1000, 1_200_000_000, 5e16)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "1.2 GB",
        "50000.0 TB",
    ]
    assert moment("2025-05-03T16:05:00+02:00") == "3 May 2025, 14:05 UTC" and moment("yesterday") == "yesterday"
