"""Compared detectors: mAP on resampled groups, what is averaged over seeds, what is said, and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posture.compare.analysis import write_json
from posture.compare.detection import analyse, rows_for_console, write_page
from posture.compare.results import Comparison, Entry
from posture.errors import InputError
from posture.runs import statistics
from posture.tasks.detection_metrics import ScoredImage, detection_metrics
from tests.support.figures.detector_comparison import CLASSES, GROUPS, IMAGES, entry, judged, result
from tests.support.figures.detector_report import scored_image
from tests.support.html_pages import HOSTILE, Page, assert_self_contained

FIGURES = ("map50_95", "map50")


def comparison(*entries: Entry, subject: str = "improved", **given: Any) -> Comparison:
    values: dict[str, Any] = {"groups": GROUPS, "classes": CLASSES} | given
    return Comparison("study", list(entries), subject, **values)


def analysed(*entries: Entry, resamples: int = 500, **given: Any) -> dict[str, Any]:
    return analyse(comparison(*entries, **given), resamples=resamples)


def named(analysis: dict[str, Any], name: str) -> dict[str, Any]:
    return next(row for row in analysis["entries"] if row["name"] == name)


IMPROVED = entry("improved", "ours", judged(22), judged(23), judged(24))
YOLOV7 = entry("yolov7", "baseline", judged(12, vain=4), judged(13, vain=4), judged(14, vain=4))
EQUAL = entry("yolov5s", "baseline", judged(22), judged(23), judged(24))
ABSENT = entry("faster_rcnn", "baseline", not_measured="no GPU was at hand.", clips_per_second=None, lr_search=[])


@st.composite
def predictions(draw: st.DrawFn) -> list[ScoredImage]:
    side = st.integers(0, 8)

    def box() -> list[float]:
        x, y = draw(side), draw(side)
        return [x, y, x + 2 + draw(side), y + 2 + draw(side)]

    counts = [draw(st.integers(0, 4)) for _ in range(5)]
    # no two are equal: of equal ones the order of images decides
    scores = iter(draw(st.permutations(range(1, sum(counts) + 1))))
    return [
        scored_image(
            [(box(), next(scores) / 32, draw(st.integers(0, 1))) for _ in range(count)],
            [(box(), draw(st.integers(0, 1))) for _ in range(draw(st.integers(0, 2)))],
        )
        for count in counts
    ]


@settings(max_examples=40, deadline=None)
@given(predictions(), st.lists(st.sampled_from("abc"), min_size=5, max_size=5), st.integers(0, 99))
def test_a_resample_is_the_footage_with_its_groups_as_often_as_they_were_drawn(
    ones: list[ScoredImage], groups: list[str], seed: int
) -> None:
    counts = statistics.resampled_groups(groups, resamples=4, seed=seed)
    found = statistics.resampled_map(ones, groups, counts, classes=2)
    number = {group: place for place, group in enumerate(dict.fromkeys(groups))}
    for row, weights in enumerate(counts.astype(int)):
        drawn = [one for one, group in zip(ones, groups, strict=True) for _ in range(weights[number[group]])]
        expected = detection_metrics(drawn, CLASSES)
        wanted = [math.nan if expected[figure] is None else expected[figure] for figure in FIGURES]
        assert [found[figure][row] for figure in FIGURES] == pytest.approx(wanted, nan_ok=True)


def test_mean_and_spread_are_over_seeds_and_differences_those_of_the_means() -> None:
    analysis = analysed(IMPROVED, YOLOV7)
    for one in (IMPROVED, YOLOV7):
        row = named(analysis, one.name)
        for figure in ("precision", "recall", "mean_iou", *FIGURES):
            values = [result.metrics[figure] for result in one.results]
            assert row["metrics"][figure]["values"] == pytest.approx(values) and row["metrics"][figure][
                "mean"
            ] == pytest.approx(np.mean(values))
        assert row["metrics"]["fps.whole"]["mean"] == pytest.approx(np.mean([40, 1000 / 26, 1000 / 27]))
        assert row["metrics"]["speed.whole.p90"]["mean"] == pytest.approx(1.4 * 26)
        assert [row["compared"][figure] for figure in FIGURES] == pytest.approx([
            row["metrics"][figure]["mean"] for figure in FIGURES
        ])
    for figure in FIGURES:
        means = [named(analysis, name)["metrics"][figure]["mean"] for name in ("improved", "yolov7")]
        assert named(analysis, "yolov7")["against"][figure]["difference"] == pytest.approx(means[0] - means[1])
    assert analysis["pictures"] == 24 and analysis["groups"] == 12 and "segments" not in analysis


def test_the_test_is_the_bootstrap_over_groups_of_the_mean_over_seeds() -> None:
    against = named(analysed(IMPROVED, YOLOV7), "yolov7")["against"]
    groups = [GROUPS[image] for image in IMAGES]
    counts = statistics.resampled_groups(groups, resamples=500)
    ours, theirs = (
        [statistics.resampled_map(result.predictions, groups, counts, classes=2) for result in one.results]
        for one in (IMPROVED, YOLOV7)
    )
    for figure in FIGURES:
        expected = statistics.difference(
            *(sum(one[figure] for one in seeds) / 3 for seeds in (ours, theirs)), groups=12
        )
        assert [against[figure][key] for key in ("difference", "low", "high", "p")] == pytest.approx([
            expected.difference,
            expected.low,
            expected.high,
            expected.p,
        ])
        assert against[figure]["p_holm"] == against[figure]["p"]  # one baseline


def test_the_order_of_images_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(24)
    ones = judged(13, vain=5)
    shuffled = result([ones[place] for place in order], images=[IMAGES[place] for place in order])
    rows = [
        named(analysed(IMPROVED, entry("yolov7", "baseline", results=[one]), resamples=200), "yolov7")
        for one in (result(ones), shuffled)
    ]
    assert rows[0]["against"] == rows[1]["against"]


@pytest.mark.parametrize("change", ["fewer", "moved", "relabelled"])
def test_runs_judged_on_other_images_or_boxes_are_refused(change: str) -> None:
    one = result(judged(5), 7)
    boxes, scores, labels, true_boxes, true_labels = one.predictions[3]
    if change == "fewer":
        one.images, one.predictions = one.images[1:], one.predictions[1:]
    elif change == "moved":
        one.predictions[3] = (boxes, scores, labels, true_boxes + 1, true_labels)
    else:
        one.predictions[3] = (boxes, scores, labels, true_boxes, 1 - true_labels)
    with pytest.raises(InputError, match=r"^runs/7: scored on other test images"):
        analysed(IMPROVED, entry("yolov7", "baseline", results=[one]))


def test_an_image_without_a_group_is_refused() -> None:
    with pytest.raises(InputError, match="no group is known for 1 of 24 test images, such as image23"):
        analysed(IMPROVED, groups={image: group for image, group in GROUPS.items() if image != "image23"})


def test_the_verdict_goes_by_both_map_figures() -> None:
    # Boxes shifted by 3 of 20 pixels are found at an overlap of 0.5, and fit worse: one figure tells them apart, the
    # other does not.
    loose = entry("ssd300", "baseline", *[judged(found, shift=3.0) for found in (22, 23, 24)])
    sentences = [
        sentence.replace("\u202f", " ")
        for sentence in analysed(IMPROVED, YOLOV7, loose, ABSENT, resamples=2000)["verdict"]
    ]
    means = {
        figure: np.mean([one.metrics[figure] for one in IMPROVED.results])
        for figure in (*FIGURES, "recall", "precision")
    }
    assert sentences[0] == (
        f"IMPROVED reaches an mAP@0.5:0.95 of {means['map50_95']:.3f} and an mAP@0.5 of {means['map50']:.3f} "
        "on 24 test images "
        f"(mean of 3 seeds). At the confidence with the best F1, recall is {100 * means['recall']:.1f} % and precision "
        f"{100 * means['precision']:.1f} %; an image takes 26.0 ms end to end."
    )
    assert (
        sentences[1].startswith("It has a higher mAP@0.5:0.95 than YOLOV7 (+0.") and "and SSD300 (+0." in sentences[1]
    )
    assert sentences[2].startswith("It has a higher mAP@0.5 than YOLOV7 (+0.") and "SSD300" not in sentences[2]
    assert sentences[3].startswith("It does not differ significantly in mAP@0.5 from SSD300 (0.000, 95 % CI")
    assert sentences[4:] == ["Not measured: FASTER_RCNN."]


def test_where_groups_are_too_few_for_any_p_the_verdict_says_so() -> None:
    few = {image: f"group{number % 4}" for number, image in enumerate(IMAGES)}
    ours, worse = (
        entry("improved", "ours", judged(24)),
        [entry(name, "baseline", judged(0)) for name in ("yolov7", "ssd300")],
    )
    analysis = analysed(ours, *worse, resamples=10_000, groups=few)
    assert (
        named(analysis, "yolov7")["against"]["map50"]["p_holm"] == pytest.approx(analysis["least_p"]["baseline"])
        and analysis["least_p"]["baseline"] > 0.05
    )
    assert any(
        "With 4 groups of test images" in sentence and "0.10 for the 2 baselines" in sentence
        for sentence in analysis["verdict"]
    )


def test_ablations_say_what_was_taken_away_and_what_was_put_in_its_place() -> None:
    def ablated(name: str, found: int, **given: Any) -> Entry:
        return entry(name, "ablation", *[judged(found)] * 3, **given)

    said = analysed(
        IMPROVED,
        ablated("no_swin", 6),
        ablated("no_cbam", 24),
        ablated("ciou", 6, replaced=True),
        ablated("siou", 24, replaced=True),
        entry("missing", "ablation", not_measured="diverged"),
        resamples=2000,
    )["ablations"]
    assert set(said) == {"no_swin", "no_cbam", "ciou", "siou"}
    full, less = (
        float(np.mean([one.metrics["map50_95"] for one in results]))
        for results in (IMPROVED.results, ablated("x", 6).results)
    )
    assert said["no_swin"].startswith(
        f"NO_SWIN: mAP@0.5:0.95 {less:.3f} without it, {full:.3f} with it; the part helps on this footage (+"
    )
    assert f"{1:.3f} without it, {full:.3f} with it; the part does not help on this footage (−" in said["no_cbam"]
    assert said["ciou"].startswith(
        f"CIOU: mAP@0.5:0.95 {less:.3f} with it, {full:.3f} with IMPROVED's own; "
        "the original is better on this footage (+"
    )
    assert "the original is no better on this footage (−" in said["siou"]


def test_where_the_subject_is_not_measured_nothing_is_claimed(tmp_path: Path) -> None:
    analysis = analysed(entry("improved", "ours", not_measured="it diverged"), YOLOV7)
    assert analysis["verdict"] == ["IMPROVED was not measured: it diverged. There is nothing to compare."]
    assert named(analysis, "yolov7")["against"] is None and named(analysis, "yolov7")["metrics"]["map50"]["mean"] > 0


def test_the_analysis_is_plain_json(tmp_path: Path) -> None:
    write_json(tmp_path / "comparison.json", analysed(IMPROVED, YOLOV7, ABSENT))
    read = json.loads((tmp_path / "comparison.json").read_text())
    assert read["entries"][1]["lr_search"][2] == {"lr": 0.01, "val_loss": None, "val_map50_95": None}
    assert list(read["entries"][1]["against"]) == list(FIGURES)


def test_console_rows() -> None:
    columns, rows = rows_for_console(analysed(IMPROVED, YOLOV7, ABSENT))
    assert all(len(row) == len(columns) for row in rows)
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    spread = named(analysed(IMPROVED, YOLOV7), "yolov7")["metrics"]["map50_95"]
    assert by_name["YOLOV7"]["mAP@0.5:0.95"] == f"{spread['mean']:.3f} ± {spread['deviation']:.3f}" and by_name[
        "YOLOV7"
    ]["difference"].startswith("+0.")
    assert (
        by_name["IMPROVED"]["difference"] == ""
        and by_name["IMPROVED"]["GFLOPs"] == "16.50"
        and by_name["IMPROVED"]["ms"] == "26.0 ± 1.0"
    )
    assert by_name["FASTER_RCNN"]["mAP@0.5:0.95"] == "not measured" and by_name["FASTER_RCNN"]["FPS"] == "-"


def page_of(tmp_path: Path, *entries: Entry, **given: Any) -> Page:
    compared = comparison(*entries, **given)
    write_page(tmp_path / "new" / "comparison.html", compared, analyse(compared, resamples=100))
    return assert_self_contained((tmp_path / "new" / "comparison.html").read_text(encoding="utf-8"))


def test_a_full_page_holds_everything_given(tmp_path: Path) -> None:
    parts = [
        entry("no_swin", "ablation", *[judged(20)] * 3, title="without Swin"),
        entry("ciou", "ablation", *[judged(20)] * 3, title="CIoU loss", replaced=True),
    ]
    page = page_of(
        tmp_path,
        IMPROVED,
        YOLOV7,
        EQUAL,
        ABSENT,
        *parts,
        facts={
            "when": "2026-05-03T14:05:00+00:00",
            "budget": "3 epochs of 90 images",
            "hardware": "two cores",
            "weather": "sunny",
            "footage": {"test": {"pictures": 24}},
        },
    )
    for words in (
        "5 of 6 models measured",
        "3 seeds each",
        "24 test images in 12 groups",
        "3 May 2026, 14:05 UTC",
        "3 epochs of 90 images",
        "two cores",
        "Weather sunny",
        "images of one video or athlete are not independent",
        "averaged over seeds, on the images and on every resample",
    ):
        assert words in page.text, words
    told = {
        figure: (float(np.mean(values)), float(np.std(values, ddof=1)))
        for figure in (*FIGURES, "precision", "recall", "mean_iou")
        for values in [[one.metrics[figure] for one in YOLOV7.results]]
    }
    assert (
        "YOLOV7 "
        + " ".join(
            f"{told[figure][0]:.3f} ± {told[figure][1]:.3f}" for figure in (*FIGURES, "precision", "recall", "mean_iou")
        )
        in page.text
    )
    fps = np.mean([1000 / (25 + seed) for seed in range(3)])
    # FPS, whole, percentiles, network, GFLOPs, parameters, training
    assert f"YOLOV7 {fps:.1f} 26.0 23.4 to 36.4 20.8 16.50 7.24 12.2" in page.text
    assert "FASTER_RCNN not measured : no GPU was at hand" in page.text
    assert "0.001: 0.041, 0.472" in page.text and "0.003: 0.311" in page.text and "0.01: diverged" in page.text
    assert (
        "Parts removed: mean, lowest and highest seed" in page.text
        and "Other box losses: mean, lowest and highest seed" in page.text
    )
    area = np.mean([one.metrics["map50"] for one in YOLOV7.results])
    assert f"YOLOV7 {area:.3f}" in page.text and "Validation mAP@0.5:0.95" in page.text
    bars = page.values("rect", "class")
    # models, parts, losses; two of speed
    assert bars.count("column3") == 3 + 2 + 2 and bars.count("column1") == bars.count("column3") + 2 * 3
    assert "ball" in page.text and "Average precision of each class" in page.text
    assert sum(
        value == "line first seed" for value in page.values("path", "class")
    ) == 3 * 5 and "line second seed" in page.values("path", "class")


def test_the_papers_figures_stand_in_columns_of_their_own(tmp_path: Path) -> None:
    page = page_of(tmp_path, IMPROVED, YOLOV7, EQUAL, ABSENT)
    assert (
        "Printed in the paper" in page.text and "0.988 0.942 0.872 28.5" in page.text and "0.976 0.878 – –" in page.text
    )
    assert "FASTER_RCNN not measured : no GPU was at hand 0.959 0.845 – –" in page.text
    assert page.values("td", "class").count("number paper") == 12  # not for yolov5s, of which the paper prints nothing
    page = page_of(tmp_path, entry("mine", "ours", judged(20)), subject="mine")
    assert "Printed in the paper" not in page.text and "0.988" not in page.text


def test_one_class_needs_no_table_of_classes(tmp_path: Path) -> None:
    single = [
        (
            boxes[labels == 0],
            scores[labels == 0],
            labels[labels == 0],
            true_boxes[true_labels == 0],
            true_labels[true_labels == 0],
        )
        for boxes, scores, labels, true_boxes, true_labels in judged(20)
    ]
    one = entry("improved", "ours", results=[result(single, classes=("athlete",))])
    assert (
        "Class by class" not in page_of(tmp_path, one, classes=("athlete",)).text
        and "Class by class" in page_of(tmp_path, IMPROVED).text
    )


def test_names_are_escaped(tmp_path: Path) -> None:
    names = (HOSTILE, "ball")
    entries = [
        entry(name, kind, title=HOSTILE + name, results=[result(judged(found), classes=names)])
        for name, kind, found in (("improved", "ours", 20), ("yolov7", "baseline", 9), ("a1", "ablation", 8))
    ]
    page = page_of(
        tmp_path,
        *entries,
        entry("b", "reference", title=HOSTILE, not_measured=HOSTILE),
        classes=names,
        facts={HOSTILE: HOSTILE},
    )
    assert (
        "<script" not in (tmp_path / "new" / "comparison.html").read_text()
        and page.text.count("<script>alert('x')</script> & \"y\"") > 10
    )


def test_nothing_measured_and_nothing_found(tmp_path: Path) -> None:
    page = page_of(tmp_path, entry("improved", "ours", lr_search=[]))
    assert (
        "IMPROVED was not measured: no run of it finished" in page.text
        and "Curves" not in page.text
        and "FPS (more" not in page.text
    )
    page = page_of(tmp_path, entry("improved", "ours", judged(0)), YOLOV7)
    assert "an mAP@0.5 of 0.000" in page.text
    empty = [scored_image([], [])] * 24
    page = page_of(tmp_path, entry("improved", "ours", empty), entry("yolov7", "baseline", empty))
    assert "IMPROVED reaches an mAP@0.5:0.95 of – and an mAP@0.5 of –" in page.text and "nan" not in page.text
    page_of(tmp_path, entry("improved", "ours", empty), entry("a1", "ablation", empty))
