"""The report of a detector: its figures are those of the metrics, its drawings those of the boxes, and it asks for no
more images than it shows.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from posture.commands.evaluate import print_detections
from posture.data.feed.images import ImageIndex
from posture.display.boxed_images import COLOURS, WIDE
from posture.display.sheets import CHART_INCHES, DOTS_PER_INCH, LINES, SHEET_INCHES
from posture.runs.detection import FoundBoxes
from posture.runs.folder import RunFolder
from posture.runs.reports.detection import (
    FEW_SHOTS,
    SHOTS,
    detections_sheet,
    precision_recall_sheet,
    verdict,
    write_detector_report,
)
from posture.runs.reports.detection_errors import MAX_BOXES, judge
from posture.tasks.detection_metrics import ScoredImage, detection_metrics
from tests.support.figures.detector_report import HISTORY, SPEED, AskedImages, scored_image
from tests.support.html_pages import HOSTILE, Page, assert_self_contained

CLASSES = ("athlete", "ball")


HIT = scored_image([([10, 20, 50, 100], 0.9, 0)], [([10, 20, 50, 100], 0)])
MISS = scored_image([], [([60, 30, 90, 80], 0)])
VAIN = scored_image([([100, 20, 140, 60], 0.8, 1)], [])
BALL = scored_image([([80, 40, 100, 60], 0.7, 1)], [([80, 40, 100, 60], 1)])
BOTH = scored_image([([100, 20, 140, 60], 0.6, 0)], [([10, 20, 50, 100], 0), ([80, 40, 100, 60], 1)])


def written(
    path: Path, ones: list[ScoredImage], *, classes: tuple[str, ...] = CLASSES, images: Any = None, **given: Any
) -> str:
    keys = [f"image{place:03d}" for place in range(len(ones))]
    index = ImageIndex(
        "store",
        "test",
        classes,
        keys,
        [one[3] for one in ones],
        [one[4] for one in ones],
        keys,
        np.full((len(ones), 2), 120),
        np.ones(len(ones), dtype=np.int64),
        [],
        *([[one[at] for one in ones] for at in (5, 6)] if len(ones[0]) > 5 else []),
    )
    values: dict[str, Any] = {
        "run": {"name": "demo", "model": {"kind": "yolov5"}},
        "metrics": detection_metrics(ones, classes) | SPEED,
        "history": [],
        "index": index,
        "found": [FoundBoxes(*one[:3]) for one in ones],
        "images": images or AskedImages(),
        "facts": {},
    } | given
    write_detector_report(path / "report.html", **values)
    return (path / "report.html").read_text(encoding="utf-8")


def test_a_full_report_holds_everything_given(tmp_path: Path) -> None:
    ones = [HIT, HIT, MISS, VAIN, BALL, BOTH]
    metrics = detection_metrics(ones, CLASSES)
    page = assert_self_contained(
        written(
            tmp_path,
            ones,
            history=HISTORY,
            run={"name": "first-run", "model": {"kind": "yolov5", "size": 640}},
            facts={
                "evaluated": "2026-05-03T14:05:00+00:00",
                "protocol": "each image once",
                "store": "s3://bucket/store",
                "tables": {"images": 3},
                "anchors": "anchors kept",
                "void": "",
                "parameters": 7_235_389,
                "gflops": 16.54,
                "pictures_per_second": 61.25,
                "footage": {"test": {"pictures": 6}},
            },
        )
    )
    for words in (
        "first-run",
        "7.24 M parameters",
        "16.54 GFLOPs per image",
        "Protocol: each image once.",
        "3 May 2026, 14:05 UTC",
        "s3://bucket/store",
        "images 3",
        "Anchors anchors kept",
        "61.2 images/s",
        "7,235,389",
        "640",
    ):
        assert words in page.text, words
    assert "Void" not in page.text
    for figure, name in (
        ("map50_95", "mAP@0.5:0.95"),
        ("map50", "mAP@0.5"),
        ("precision", "Precision"),
        ("recall", "Recall"),
        ("f1", "F1"),
        ("mean_iou", "Mean IoU"),
    ):
        assert f"{name} {metrics[figure]:.3f}" in page.text, figure
    assert (
        "Time per image 25.0 ms end to end (23.6 to 31.2)" in page.text
        and "FPS 40.0 network only: 50.0 (20.0 ms)" in page.text
    )
    assert "Network only 20.0 19.1 to 22.4 50.0" in page.text and "25.0 23.6 to 31.2 40.0" in page.text
    for row in metrics["per_class"]:
        figures = " ".join(f"{row[key]:.3f}" for key in ("ap50", "ap", "precision", "recall", "f1"))
        assert f"{row['class']} {row['pictures']} {row['boxes']} {figures}" in page.text
    assert f"{metrics['f1']:.2f} at {metrics['confidence']:.2f}" in page.text and "0.620 at epoch 2" in page.text
    assert "box" in page.text and "objectness" in page.text and "loss objectness" not in page.text
    assert f"mean of 2 classes {metrics['map50']:.3f}" in page.text


def test_the_verdict_counts_boxes_and_says_how_many_were_found_and_right() -> None:
    ones = [HIT, HIT, MISS, VAIN]
    metrics = detection_metrics(ones, CLASSES) | {"confidence": 0.5, "mean_iou": 0.987}
    said = verdict(metrics, [judge(one, CLASSES, confidence=0.5) for one in ones]).replace("\u202f", " ")
    assert said == (
        "Of 3 labelled boxes in 4 test images, 2 (66.7 %) were found at confidence 0.50. "
        "Of 3 reported boxes, 66.7 % were correct, with a mean IoU of 0.99."
    )
    one = detection_metrics([HIT], CLASSES[:1]) | {"split": "val"}
    assert verdict(one, [judge(HIT, CLASSES, confidence=0.5)]).startswith(
        "Of 1 box labelled athlete in 1 val image, 1 (100.0"
    )
    nothing = detection_metrics([MISS], CLASSES)
    assert verdict(nothing, [judge(MISS, CLASSES, confidence=0.0)]).endswith(
        "were found at confidence 0.00. No box was reported."
    )
    empty = detection_metrics([VAIN], CLASSES)
    assert "hold no true box, so precision and recall are not defined; 1 false positive reported." in verdict(
        empty, [judge(VAIN, CLASSES, confidence=0.5)]
    )


def rectangles(text: str, kind: str) -> list[tuple[float, ...]]:
    found = re.findall(
        rf'<rect class="edge {kind}" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"/></g>', text
    )
    return [tuple(map(float, values)) for values in found]


def test_boxes_are_drawn_where_they_are(tmp_path: Path) -> None:
    metrics = detection_metrics([HIT], CLASSES) | SPEED | {"confidence": 0.5}
    text = written(tmp_path, [HIT], metrics=metrics)
    scale = WIDE / 160
    x, y, width, height = (round(scale * side, 1) for side in (10, 20, 40, 80))
    assert rectangles(text, "right") == rectangles(text, "found") == [(x, y, width, height)]
    assert not rectangles(text, "false") and not rectangles(text, "missed")
    page = assert_self_contained(text)
    assert (
        "1 of 1 found" in page.text
        and "athlete 0.90" in page.text
        and "athlete, confidence 0.90: true positive" in page.text
    )
    source = page.values("image", "href")[0].removeprefix("data:image/jpeg;base64,")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source))))
    assert pixels.shape == (120, 160, 3) and pixels.mean(axis=(0, 1)) == pytest.approx([200, 0, 0], abs=4)


def test_a_tall_image_keeps_its_shape_within_the_frame(tmp_path: Path) -> None:
    text = written(
        tmp_path, [HIT], metrics=detection_metrics([HIT], CLASSES) | SPEED, images=AskedImages(height=320, width=160)
    )
    ((left, top, width, height),) = re.findall(
        r'<image href="[^"]+" x="([\d.]+)" y="([\d.]+)" width="([\d.]+)" height="([\d.]+)"', text
    )[:1]
    assert (float(left), float(top), float(width), float(height)) == (WIDE / 4, 0, WIDE / 2, WIDE)
    scale = WIDE / 320
    assert rectangles(text, "right") == [
        (round(WIDE / 4 + scale * 10, 1), round(scale * 20, 1), round(scale * 40, 1), round(scale * 80, 1))
    ]


def test_the_worst_images_come_first_each_with_its_reasons(tmp_path: Path) -> None:
    worse = scored_image([], [([60, 30, 90, 80], 0)] * 4)
    slight = scored_image([([10, 20, 50, 100], 0.9, 0), ([100, 20, 140, 60], 0.55, 0)], [([10, 20, 50, 100], 0)])
    ones = [HIT, slight, BOTH, HIT, worse, VAIN, MISS]
    page = Page(written(tmp_path, ones, metrics=detection_metrics(ones, CLASSES) | SPEED | {"confidence": 0.5}))
    mistakes = page.text[page.text.index("Images with the most errors") :]
    assert re.findall(r"image(\d+)", mistakes) == ["004", "002", "006", "005", "001"]  # 4; 2 + 0.6; 1; 0.8; 0.55
    assert "0 of 4 found" + 3 * " athlete missed: no box was reported for it" + " and 1 more" in mistakes
    assert (
        "0 of 2 found, 1 of 1 reported are false positives" in mistakes
        and "athlete 0.60: no object is labelled there" in mistakes
    )
    assert "no true box, 1 of 1 reported are false positives ball 0.80: no object is labelled there" in mistakes
    assert (
        "Missed 7 of 10 true boxes No box was reported for it 7" in page.text
        and "False positives 3 of 6 reported boxes No object is labelled there 3" in page.text
    )


def test_shown_images_are_spread_over_all_and_no_others_are_read(tmp_path: Path) -> None:
    images = AskedImages()
    ones = [HIT] * 99 + [MISS]
    text = written(
        tmp_path, ones, metrics=detection_metrics(ones, CLASSES) | SPEED | {"confidence": 0.5}, images=images
    )
    assert images.asked[:SHOTS] == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99] and images.asked[SHOTS:] == [99]
    assert f"{SHOTS} of 100 test images, evenly spaced" in Page(text).text


def test_a_detector_without_a_mistake(tmp_path: Path) -> None:
    page = assert_self_contained(written(tmp_path, [HIT, BALL]))
    assert (
        "there are no missed boxes and no false positives" in page.text
        and "Images with the most errors" not in page.text
    )


@pytest.mark.parametrize("ones", [[scored_image([], [])], [MISS], [VAIN], [scored_image([], []), MISS, VAIN]])
def test_nothing_to_find_and_nothing_found(tmp_path: Path, ones: list[ScoredImage]) -> None:
    page = assert_self_contained(written(tmp_path, ones))
    assert not any(
        re.search(r"\bnan\b", value)
        for _, name, value in page.attributes
        if name in {"d", "x", "y", "cx", "cy", "width", "height"}
    )
    assert ("so there are no curves" in page.text) == (not any(len(one[3]) for one in ones))


def test_ignore_regions_are_drawn_and_explained_and_counted_nowhere(tmp_path: Path) -> None:
    crowd = (
        *scored_image([([10, 20, 50, 100], 0.9, 0), ([100, 20, 140, 60], 0.8, 1)], [([10, 20, 50, 100], 0)]),
        np.float32([[95, 10, 150, 70]]),
        np.array([1]),
    )
    metrics = detection_metrics([crowd], CLASSES) | SPEED | {"confidence": 0.5}
    text = written(tmp_path, [crowd], metrics=metrics)
    assert (
        "is not counted, and neither is the region" in text
        and "ignore region, or reported inside one: not counted" in text
    )
    assert text.count('class="edge ignored"') == 3, "in the key, the region, and what was reported inside it"
    assert "Of 1 reported" in text and "in an ignore region, so not counted" in text
    plain = written(
        tmp_path, [crowd[:5]], metrics=detection_metrics([crowd[:5]], CLASSES) | SPEED | {"confidence": 0.5}
    )
    assert "ignore region" not in plain and "Of 2 reported" in plain


def test_a_class_without_true_boxes_claims_nothing(tmp_path: Path) -> None:
    page = assert_self_contained(written(tmp_path, [HIT, MISS]))
    assert "1 of 2 classes have no true box" in page.text and "ball 0 0 – – – – –" in page.text
    assert "athlete 0.5" in page.text and "weakest classes" not in page.text  # the one curve there is needs no mean


def test_many_classes_stay_readable(tmp_path: Path) -> None:
    names = tuple(f"sport number {number}" for number in range(80))
    ones = [
        scored_image([([10, 10, 60, 60], 0.5 + number / 200, number)], [([10, 10, 60, 60 + number / 2], number)])
        for number in range(80)
    ]
    page = assert_self_contained(written(tmp_path, ones, classes=names))
    assert (
        "mean of 80 classes" in page.text
        and sum(value == "line faint" for value in page.values("path", "class")) == 2 * 77
    )  # broad and narrow
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"epoch": 1}],
        [{"epoch": 1, "train_loss": 2.0, "val_map50_95": None}],
        [{"epoch": 1, "train_loss": float("nan")}] * 2,
    ],
)
def test_histories_with_gaps(tmp_path: Path, history: list[dict[str, Any]]) -> None:
    page = assert_self_contained(written(tmp_path, [HIT], history=history))
    assert ("No training history" in page.text) == (
        not any(np.isfinite(row.get("train_loss", np.nan)) for row in history)
    )


def test_without_speed_none_is_claimed(tmp_path: Path) -> None:
    page = assert_self_contained(written(tmp_path, [HIT], metrics=detection_metrics([HIT], CLASSES)))
    assert "Milliseconds" not in page.text and "Time per image" not in page.text


def test_names_are_escaped(tmp_path: Path) -> None:
    page = assert_self_contained(
        written(
            tmp_path,
            [HIT, MISS, VAIN, BALL],
            classes=(HOSTILE, "b"),
            history=HISTORY,
            run={"name": HOSTILE, "model": {"kind": HOSTILE}},
            facts={"store": HOSTILE, "protocol": HOSTILE, HOSTILE: HOSTILE},
        )
    )
    assert (
        "<script" not in (tmp_path / "report.html").read_text()
        and page.text.count("<script>alert('x')</script> & \"y\"") > 6
    )


def test_a_detector_that_has_learned_nothing_says_so_and_draws_little(tmp_path: Path) -> None:
    noise = scored_image(
        [([place % 100, place % 50, place % 100 + 20, place % 50 + 30], 0.2 + place / 1000, 0) for place in range(67)],
        [([150, 100, 158, 118], 0)],
    )
    ones = [noise] * 20
    metrics = detection_metrics(ones, CLASSES)
    assert metrics["map50"] < 0.05
    images = AskedImages()
    text = written(tmp_path, ones, metrics=metrics | SPEED | {"confidence": 0.2}, images=images)
    page = assert_self_contained(text)
    assert (
        "This detector has learned almost nothing: its mAP@0.5 is 0.000" in page.text
        and "Images with the most errors" not in page.text
    )
    assert len(images.asked) == FEW_SHOTS and page.text.count("68 boxes not drawn") == FEW_SHOTS
    assert (
        len(rectangles(text, "false")) == FEW_SHOTS * (MAX_BOXES - 1) and len(rectangles(text, "missed")) == FEW_SHOTS
    )
    assert "learned almost nothing" not in Page(written(tmp_path, [HIT] * 20)).text


def test_images_name_their_files_and_frames_their_moment(tmp_path: Path) -> None:
    page = assert_self_contained(
        written(tmp_path, [HIT, MISS], uris={"image000": "/films/a.mp4#t=3.48", "image001": "/pictures/b.jpg"})
    )
    assert set(page.values("a", "href")) == {"file:///films/a.mp4#t=3.48", "file:///pictures/b.jpg"}
    assert "a.mp4 at 3.5 s" in page.text and "b.jpg" in page.text


def test_the_map_stands_beside_its_interval(tmp_path: Path) -> None:
    metrics = detection_metrics([HIT, MISS], CLASSES) | SPEED
    sure = {"of": "map50_95", "low": 0.21, "high": 0.84, "groups": 7, "resamples": 100}
    assert (
        "95 % interval 0.210 to 0.840, over 7 groups"
        in Page(written(tmp_path, [HIT, MISS], metrics=metrics | {"interval": sure})).text
    )


def test_the_terminal_says_the_interval_and_what_was_not_learned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    about = {"split": "test", "protocol": "each image once", "device": "cpu", "name": "test"} | SPEED
    sure = {"of": "map50_95", "low": 0.21, "high": 0.84, "groups": 7, "resamples": 100}
    for ones, learned in (([HIT] * 7, True), ([MISS, VAIN] * 7, False)):
        print_detections(detection_metrics(ones, CLASSES) | about | {"interval": sure}, RunFolder(str(tmp_path), "run"))
        said = capsys.readouterr().out.replace("\u202f", " ")
        assert (
            "mAP@0.5:0.95, 95 % interval 0.2100 to 0.8400, over 7 groups" in said
            and ("learned almost nothing" in said) != learned
        )


BOX, AWAY = [0, 0, 10, 10], [50, 50, 60, 60]


def rgb(code: str) -> tuple[int, ...]:
    return tuple(int(code[place : place + 2], 16) for place in (1, 3, 5))


def pixels(png: bytes) -> np.ndarray:
    assert png.startswith(b"\x89PNG")
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_sheet_draws_reported_boxes_solid_and_true_ones_dashed_in_their_colours() -> None:
    grey = np.full((320, 320, 3), 128, dtype=np.uint8)
    one = scored_image(
        [([40, 60, 140, 160], 0.9, 0), ([200, 60, 300, 160], 0.8, 0)],
        [([40, 60, 140, 170], 0), ([200, 220, 300, 300], 0)],
    )
    sheet = pixels(detections_sheet("run", [grey], [one], CLASSES, confidence=0.5))
    rows, columns = np.nonzero((sheet == 128).all(axis=-1))
    top, left, scale = rows.min(), columns.min(), (columns.max() - columns.min() + 1) / 320

    def near(row: int, columns: range, colour: str) -> list[bool]:
        """Whether the pixels of a row, or those beside it, have the colour."""
        at = top + round(scale * row)
        strip = sheet[at - 3 : at + 4, left + round(scale * columns.start) : left + round(scale * columns.stop)]
        return (np.abs(strip - rgb(colour)).sum(axis=-1) < 60).any(axis=0).tolist()

    assert all(near(60, range(50, 130), COLOURS["right"])) and all(near(60, range(210, 290), COLOURS["false"]))
    for row, columns, kind in ((170, range(50, 130), "found"), (220, range(210, 290), "missed")):
        dashes = near(row, columns, COLOURS[kind])
        assert 0.35 < np.mean(dashes) < 0.85, kind
    assert not any(near(60, range(150, 190), COLOURS["false"]))


def test_a_sheet_shows_ignore_regions() -> None:
    one = (*scored_image([(AWAY, 0.8, 0)], []), np.float32([[40, 40, 80, 80]]), np.array([0]))
    sheets = [
        detections_sheet("run", [np.zeros((100, 100, 3), np.uint8)], [shown], CLASSES, confidence=0.5)
        for shown in (one, one[:5])
    ]
    assert sheets[0] != sheets[1]


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_sheet_has_four_images_in_a_row(count: int) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (240, 320, 3), dtype=np.uint8) for _ in range(count)]
    one = scored_image([(BOX, 0.9, 0), (AWAY, 0.8, 1)], [(BOX, 0)])
    sheet = pixels(detections_sheet("<run> $x$", images, [one] * count, CLASSES, confidence=0.5))
    rows, columns = -(-count // 4), 2 if count < 2 else 4
    tall = (SHEET_INCHES - 0.6) / columns * 240 / 320
    assert sheet.shape[1] == SHEET_INCHES * DOTS_PER_INCH
    assert sheet.shape[0] == pytest.approx((1.2 + rows * tall) * DOTS_PER_INCH, abs=2)


@pytest.mark.parametrize("ones", [[], [scored_image([], [])], [scored_image([(BOX, 0.5, 0)], [])]])
def test_a_curve_of_precision_without_true_boxes_is_an_empty_chart(ones: list[ScoredImage]) -> None:
    assert pixels(precision_recall_sheet("run", detection_metrics(ones, CLASSES))).std() > 0


def test_the_curve_of_precision_goes_through_its_points() -> None:
    # precision 1 up to recall 0.5, then nothing
    ones = [scored_image([(BOX, 0.9, 0)], [(BOX, 0)]), scored_image([(AWAY, 0.8, 0)], [(BOX, 0)])]
    drawn = pixels(precision_recall_sheet("run", detection_metrics(ones, CLASSES[:1])))
    blue = np.abs(drawn - rgb(LINES[0])).sum(axis=-1) < 40
    left, width = 0.9 * DOTS_PER_INCH, 1.2 * CHART_INCHES * DOTS_PER_INCH

    def first(share: float) -> int:
        columns = slice(int(left + share * width), int(left + (share + 0.2) * width))
        return int(np.flatnonzero(blue[:, columns].any(axis=1))[0])

    assert first(0.7) - first(0.1) == pytest.approx(CHART_INCHES * DOTS_PER_INCH, abs=6)
