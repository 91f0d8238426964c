"""Detection figures against COCO's own code, cases worked out by hand, and images that really stand there as often as
they are drawn.
"""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from posture.tasks import detection_metrics as module
from posture.tasks.detection_metrics import (
    ScoredImage,
    average_precisions,
    detection_metrics,
    match_detections,
    weighted_ap,
)


def names(count: int) -> list[str]:
    return [f"class {index}" for index in range(count)]


def scored_image(found: list[tuple[float, ...]] = (), truth: list[tuple[float, ...]] = ()) -> ScoredImage:
    """Found as (x1, y1, x2, y2, score, label), truth as (x1, y1, x2, y2, label)."""
    found_rows, true_rows = (
        np.array(found, dtype=np.float64).reshape(-1, 6),
        np.array(truth, dtype=np.float64).reshape(-1, 5),
    )
    return (
        found_rows[:, :4].astype(np.float32),
        found_rows[:, 4].astype(np.float32),
        found_rows[:, 5].astype(np.int64),
        true_rows[:, :4].astype(np.float32),
        true_rows[:, 4].astype(np.int64),
    )


def random_images(
    count: int, classes: int, *, seed: int, most: int = 12, whole: bool = False, side: float = 60.0
) -> list[ScoredImage]:
    """Some empty, most crowded: boxes on a small area, detections near them or anywhere, scores often equal. `whole`:
    at whole pixels, so that overlaps are often equal, or exactly on a threshold.
    """
    random = np.random.default_rng(seed)

    def boxes_around(centres: np.ndarray) -> np.ndarray:
        sides = random.uniform(4, 30, centres.shape)
        boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1)
        return np.concatenate([boxes[:, :2].round(), boxes[:, 2:].round() + 1], axis=1) if whole else boxes

    images = []
    for _ in range(count):
        truths, found = random.integers(0, most), random.integers(0, 2 * most)
        if random.random() < 0.15:
            truths = 0
        if random.random() < 0.15:
            found = 0
        true_boxes, true_labels = (
            boxes_around(random.uniform(0, side, (truths, 2))),
            random.integers(0, classes, truths),
        )
        boxes, labels = boxes_around(random.uniform(0, side, (found, 2))), random.integers(0, classes, found)
        if truths:
            near = random.random(found) < 0.7
            which = random.integers(0, truths, found)
            moved = true_boxes[which] + (
                random.integers(-2, 3, (found, 4)) if whole else random.normal(0, 1.5, (found, 4))
            )
            moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
            boxes[near], labels[near] = (
                moved[near],
                np.where(random.random(found) < 0.8, true_labels[which], labels)[near],
            )
        scores = np.where(random.random(found) < 0.5, random.random(found).round(1), random.random(found))
        images.append((
            boxes.astype(np.float32),
            scores.astype(np.float32),
            labels,
            true_boxes.astype(np.float32),
            true_labels,
        ))
    return images


def coco_figures(images: list[ScoredImage], classes: int, most: int) -> tuple[float, float, float, np.ndarray]:
    """mAP over all thresholds, at 0.5 and at 0.75 (-1 where undefined), and precision (T, 101, K). Ignore regions are
    crowds.
    """

    def corner_and_sides(box: np.ndarray) -> list[float]:
        x1, y1, x2, y2 = box.astype(np.float64).tolist()
        return [x1, y1, x2 - x1, y2 - y1]

    truth = [
        (number, label, corner_and_sides(box), int(at > 3))
        for number, one in enumerate(images)
        for at in range(3, len(one), 2)
        for box, label in zip(one[at], one[at + 1].tolist(), strict=True)
    ]
    found = [
        (number, label, corner_and_sides(box), score)
        for number, one in enumerate(images)
        for box, score, label in zip(one[0], one[1].astype(np.float64).tolist(), one[2].tolist(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(images))],
            "categories": [{"id": index + 1} for index in range(classes)],
            "annotations": [
                {
                    "id": row + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": crowd,
                }
                for row, (number, label, box, crowd) in enumerate(truth)
            ],
        }
        coco.createIndex()
        results = coco.loadRes([
            {"image_id": number + 1, "category_id": label + 1, "bbox": box, "score": score}
            for number, label, box, score in found
        ])
        judge = COCOeval(coco, results, "bbox")
        judge.params.areaRng, judge.params.areaRngLbl, judge.params.maxDets = [[0, 1e10]], ["all"], [most]
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][:, :, :, 0, 0]
    defined = [part[part > -1] for part in (precision, precision[0], precision[5])]
    return *(float(part.mean()) if part.size else -1.0 for part in defined), precision


@pytest.mark.parametrize(
    ("seed", "count", "classes", "most", "whole", "tenths"),
    [
        (0, 30, 1, 100, False, False),
        (1, 30, 3, 100, True, False),
        (2, 20, 12, 100, False, False),
        (14, 60, 1, 100, True, True),
        (4, 20, 2, 3, True, False),
        (5, 2, 80, 100, False, False),
        (6, 25, 1, 1, False, False),
    ],
)
def test_average_precision_is_cocos(seed: int, count: int, classes: int, most: int, whole: bool, tenths: bool) -> None:
    images = random_images(count, classes, seed=seed, whole=whole)
    if tenths:  # in float64: sides are rounded, and overlaps with them
        images = [
            (boxes.astype(np.float64) / 10, scores, labels, true_boxes.astype(np.float64) / 10, true_labels)
            for boxes, scores, labels, true_boxes, true_labels in images
        ]
    found = detection_metrics(images, names(classes), most=most)
    all_thresholds, at_50, at_75, precision = coco_figures(images, classes, most)
    assert (found["map50_95"], found["map50"], found["map75"]) == pytest.approx(
        (all_thresholds, at_50, at_75), abs=1e-9
    )
    assert 0.05 < found["map50"] < 0.95 and found["map50_95"] < found["map50"]
    for index, row in enumerate(found["per_class"]):
        if row["boxes"]:
            assert (row["ap"], row["ap50"]) == pytest.approx(
                (precision[:, :, index].mean(), precision[0, :, index].mean()), abs=1e-9
            )
            assert found["curves"]["classes"][row["class"]]["precision_at_recall"] == pytest.approx(
                precision[0, :, index].tolist(), abs=1e-6
            )
        else:
            assert row["ap"] is None and (precision[:, :, index] == -1).all()


def with_regions(images: list[ScoredImage], classes: int, *, seed: int) -> list[ScoredImage]:
    """The same with some true boxes turned into ignore regions, some of these larger, and now and then one over nearly
    everything.
    """
    random, found = np.random.default_rng(seed), []
    for boxes, scores, labels, true_boxes, true_labels in images:
        ignored = random.random(len(true_labels)) < 0.3
        regions = true_boxes[ignored] + random.choice([0, 0, 6], (ignored.sum(), 1)) * np.array(
            [-1, -1, 1, 1], np.float32
        )
        wide = np.float32([[5, 5, 50, 55]])[: int(random.random() < 0.3)]
        found.append((
            boxes,
            scores,
            labels,
            true_boxes[~ignored],
            true_labels[~ignored],
            np.concatenate([regions, wide]).astype(np.float32),
            np.concatenate([true_labels[ignored], random.integers(0, classes, len(wide))]),
        ))
    return found


@pytest.mark.parametrize(
    ("seed", "count", "classes", "most", "whole"),
    [
        (0, 30, 1, 100, False),
        (1, 30, 3, 100, True),
        (2, 20, 12, 100, False),
        (3, 60, 1, 100, True),
        (4, 25, 2, 3, True),
        (5, 25, 1, 1, False),
    ],
)
def test_ignore_regions_are_cocos_crowds(seed: int, count: int, classes: int, most: int, whole: bool) -> None:
    images = with_regions(random_images(count, classes, seed=seed, whole=whole), classes, seed=seed)
    found = detection_metrics(images, names(classes), most=most)
    all_thresholds, at_50, at_75, precision = coco_figures(images, classes, most)
    assert (found["map50_95"], found["map50"], found["map75"]) == pytest.approx(
        (all_thresholds, at_50, at_75), abs=1e-9
    )
    plain = detection_metrics([one[:5] for one in images], names(classes), most=most)
    assert found["map50"] > plain["map50"] and [row["boxes"] for row in found["per_class"]] == [
        row["boxes"] for row in plain["per_class"]
    ]
    for index, row in enumerate(found["per_class"]):
        if row["boxes"]:
            assert found["curves"]["classes"][row["class"]]["precision_at_recall"] == pytest.approx(
                precision[0, :, index].tolist(), abs=1e-6
            )
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), 3)
    drawn = weighted_ap(match_detections(images, classes, most=most), np.concatenate([np.ones((1, count)), weights]))
    assert drawn["map50_95"][0] == pytest.approx(found["map50_95"], abs=1e-12)


def test_an_ignore_region_worked_out_by_hand() -> None:
    region = (np.float32([[20, 20, 40, 40]]), np.array([0]))
    found = [
        (*TRUTH, 0.9, 0),  # a hit
        # inside altogether; by half, which is enough at 0.5 alone
        (21, 21, 25, 25, 0.8, 0),
        (30, 20, 50, 40, 0.7, 0),
        (22, 22, 26, 26, 0.6, 1),  # of another class, in vain
        (38, 38, 58, 58, 0.5, 0),
    ]  # inside by a hundredth, in vain
    images = [(*scored_image(found, [(*TRUTH, 0), (60, 60, 70, 70, 1)]), *region)]
    matched = match_detections(images, 2)
    assert matched.ignored[0].sum(axis=1).tolist() == [2] + [1] * 9 and not matched.ignored[1].any()
    first = detection_metrics(images, names(2))["curves"]["classes"]["class 0"]
    at = {confidence: first["precision"][round(100 * confidence)] for confidence in (0.85, 0.65, 0.45)}
    assert at == {0.85: 1.0, 0.65: 1.0, 0.45: 0.5}
    alone = detection_metrics([(*scored_image([(21, 21, 25, 25, 0.8, 0)]), *region)], names(1))
    assert alone["map50"] is None and alone["per_class"][0]["boxes"] == 0, "an ignore region is nothing to find"


def test_a_large_crowd_is_judged_as_coco_does() -> None:
    images = random_images(4, 1, seed=7, most=120, whole=True, side=90.0)
    found = detection_metrics(images, names(1), most=100)
    assert (found["map50_95"], found["map50"], found["map75"]) == pytest.approx(
        coco_figures(images, 1, 100)[:3], abs=1e-9
    )
    assert max(len(one[0]) for one in images) > 120


def test_pairs_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(20, 2, seed=8)
    whole = detection_metrics(images, names(2))
    for pairs in (1, 7, 100):
        monkeypatch.setattr(module, "PAIRS", pairs)
        assert detection_metrics(images, names(2)) == whole


TRUTH = (0, 0, 10, 10)


def test_a_case_worked_out_by_hand() -> None:
    images = [
        scored_image([(0, 0, 10, 10, 0.9, 0), (0, 0, 10, 8, 0.6, 0)], [(*TRUTH, 0)]),  # found; then again, in vain
        scored_image([(0, 0, 10, 6, 0.8, 0)], [(*TRUTH, 0), (50, 50, 60, 60, 0)]),  # found with IoU 0.6; one missed
        scored_image([(0, 0, 10, 10, 0.7, 1)], [(*TRUTH, 2)]),  # taken for another class
        scored_image(),
    ]
    found = detection_metrics(images, ["run", "jump", "throw", "rest"])
    # run, IoU 0.5: 1/1 at recall 1/3, 2/2 at 2/3, then wrong: 67 of 101 recall points (0 .. 0.66) have precision 1.
    # Above 0.6: 34 points.
    run, jump, throw, rest = found["per_class"]
    assert (run["class"], run["pictures"], run["boxes"], run["ap50"]) == ("run", 2, 3, pytest.approx(67 / 101))
    assert run["ap"] == pytest.approx((3 * 67 + 7 * 34) / 10 / 101)  # IoU 0.6 still counts at the threshold 0.6
    assert (run["precision"], run["recall"], run["f1"]) == pytest.approx((1.0, 2 / 3, 0.8))
    undefined = dict.fromkeys(("ap50", "ap", "precision", "recall", "f1"))
    assert jump == {"class": "jump", "pictures": 0, "boxes": 0, **undefined} and rest == {
        "class": "rest",
        "pictures": 0,
        "boxes": 0,
        **undefined,
    }
    assert throw == {
        "class": "throw",
        "pictures": 1,
        "boxes": 1,
        "ap50": 0,
        "ap": 0,
        "precision": 0,
        "recall": 0,
        "f1": 0,
    }
    assert (
        found["map50"] == pytest.approx(67 / 101 / 2)
        and found["map75"] == pytest.approx(34 / 101 / 2)
        and found["count"] == 4
    )
    assert (found["confidence"], found["f1"]) == (pytest.approx(0.8), pytest.approx(0.4))
    assert (found["precision"], found["recall"], found["mean_iou"]) == pytest.approx((0.5, 1 / 3, 0.8))
    curves = found["curves"]
    assert (
        set(curves["classes"]) == {"run", "throw"} and curves["recall"][66] == 0.66 and curves["confidence"][85] == 0.85
    )
    curve = curves["classes"]["run"]
    assert curve["precision_at_recall"] == [1.0] * 67 + [0.0] * 34
    at = {
        round(0.01 * place, 2): (curve["precision"][place], curve["recall"][place], curve["f1"][place])
        for place in range(101)
    }
    assert at[0.95] == (None, 0.0, 0.0) and at[0.85] == pytest.approx((1.0, 1 / 3, 0.5), abs=1e-6)
    assert at[0.7] == pytest.approx((1.0, 2 / 3, 0.8), abs=1e-6) and at[0.0] == pytest.approx(
        (2 / 3, 2 / 3, 2 / 3), abs=1e-6
    )


def test_each_takes_the_box_it_overlaps_most_of_those_left() -> None:
    images = [
        scored_image(
            [(0, 0, 10, 10, 0.9, 0), (0, 0, 10, 10, 0.8, 0), (0, 0, 10, 10, 0.7, 0)],
            [(0, 0, 10, 7, 0), (0, 0, 10, 9, 0)],
        )
    ]
    found = match_detections(images, 1)
    assert found.overlaps[0] == pytest.approx([0.9, 0.7, 0])
    # 0.7 counts at 0.7, by COCO's rounding; 0.9 at 0.9
    assert found.hits[0].sum(axis=1).tolist() == [2] * 5 + [1] * 4 + [0]


def test_of_equal_overlaps_the_later_box_is_taken() -> None:
    # The first detection covers 0.8 of either box; the second, only the first box enough. COCO gives the first the
    # later box.
    images = [scored_image([(0, 0, 10, 10, 0.9, 0), (0, 0, 10, 5, 0.8, 0)], [(0, 0, 10, 8, 0), (0, 2, 10, 10, 0)])]
    assert match_detections(images, 1).overlaps[0] == pytest.approx([0.8, 0.625])
    assert (
        detection_metrics(images, names(1))["map50"]
        == pytest.approx(coco_figures(images, 1, 100)[1])
        == pytest.approx(1.0)
    )


def test_equal_scores_are_on_the_same_side_of_the_confidence() -> None:
    wrong = [(100, 100, 110, 110, 0.9, 0)] * 3
    found = detection_metrics(
        [scored_image([(*TRUTH, 0.9, 0), *wrong, (50, 50, 60, 60, 0.5, 0)], [(*TRUTH, 0), (50, 50, 60, 60, 0)])],
        names(1),
    )
    # 0.9: one right of four, F1 2 / 6; 0.5: two right of five, F1 4 / 7
    assert (found["confidence"], found["precision"], found["recall"], found["f1"]) == pytest.approx((
        0.5,
        2 / 5,
        1.0,
        4 / 7,
    ))


def test_perfect_detections_score_one() -> None:
    truth = [one[3:] for one in random_images(20, 5, seed=9)]
    found = detection_metrics(
        [(boxes, np.ones(len(boxes)), labels, boxes, labels) for boxes, labels in truth], names(5)
    )
    assert all(
        found[name] == pytest.approx(1.0)
        for name in ("map50_95", "map50", "map75", "precision", "recall", "f1", "mean_iou", "confidence")
    )


def test_the_confidence_is_that_of_the_best_mean_f1() -> None:
    images, classes = random_images(25, 4, seed=10), 4
    found, matched = detection_metrics(images, names(classes)), match_detections(images, classes)
    best, at_best = -1.0, 0.0
    for confidence in sorted({score for scores in matched.scores for score in scores.tolist()}, reverse=True):
        kept = [tuple(part[one[1] >= confidence] for part in one[:3]) + one[3:] for one in images]
        rows = detection_metrics(kept, names(classes))["per_class"]
        f1 = []
        for row, hits in zip(rows, match_detections(kept, classes).hits, strict=True):
            f1.append(2 * hits[0].sum() / (hits.shape[1] + row["boxes"]))
        if np.mean(f1) > best + 1e-9:
            best, at_best = float(np.mean(f1)), confidence
    assert (found["confidence"], found["f1"]) == (at_best, pytest.approx(best))
    assert found["f1"] == pytest.approx(np.mean([row["f1"] for row in found["per_class"]]))
    kept = [tuple(part[one[1] >= found["confidence"]] for part in one[:3]) + one[3:] for one in images]
    again = match_detections(kept, classes)
    for row, hits, truths in zip(found["per_class"], again.hits, again.truths.sum(axis=1), strict=True):
        assert (row["precision"], row["recall"]) == pytest.approx((hits[0].mean(), hits[0].sum() / truths))
    assert found["mean_iou"] == pytest.approx(
        np.concatenate([o[h[0]] for o, h in zip(again.overlaps, again.hits, strict=True)]).mean()
    )


@pytest.mark.parametrize("images", [[], [scored_image()], [scored_image(), scored_image([(*TRUTH, 0.5, 1)])]])
def test_nothing_to_find_is_no_error(images: list[ScoredImage]) -> None:
    found = detection_metrics(images, names(2))
    assert all(found[name] is None for name in ("map50_95", "map50", "map75", "precision", "recall", "f1", "mean_iou"))
    assert found["confidence"] == 0.0 and found["count"] == len(images) and found["curves"]["classes"] == {}


def test_nothing_found_scores_zero() -> None:
    found = detection_metrics([scored_image(truth=[(*TRUTH, 0)]), scored_image()], names(1))
    assert (found["map50_95"], found["map50"], found["precision"], found["recall"], found["f1"]) == (0, 0, 0, 0, 0)
    assert found["mean_iou"] is None and found["confidence"] == 0.0


def copies(images: list[ScoredImage], times: np.ndarray) -> list[ScoredImage]:
    return [one for one, count in zip(images, times.tolist(), strict=True) for _ in range(int(count))]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 8))
def test_an_image_drawn_twice_counts_as_two(seed: int, classes: int, count: int) -> None:
    images = random_images(count, classes, seed=seed)
    random = np.random.default_rng(seed)
    # Copies of one image come together only where no other image has the same scores.
    images = [
        (boxes, (scores + random.random(len(scores)) * 1e-3).astype(np.float32), *rest)
        for boxes, scores, *rest in images
    ]
    weights = np.concatenate([np.ones((1, count)), random.multinomial(count, np.full(count, 1 / count), 5)]).astype(
        np.float32
    )
    found = weighted_ap(match_detections(images, classes), weights)
    for row, times in enumerate(weights):
        expected = detection_metrics(copies(images, times), names(classes))
        for name in ("map50", "map50_95"):
            assert found[name].shape == (6,)
            assert found[name][row] == pytest.approx(
                np.nan if expected[name] is None else expected[name], abs=1e-12, nan_ok=True
            )


def test_many_resamples_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    images = random_images(15, 3, seed=11)
    matched = match_detections(images, 3)
    weights = np.random.default_rng(0).multinomial(15, np.full(15, 1 / 15), 40)
    whole = average_precisions(matched, weights)
    assert whole.shape == (40, 3, 10) and len(np.unique(whole[:, 0, 0])) > 20
    monkeypatch.setattr(module, "CELLS", 50)
    np.testing.assert_allclose(average_precisions(matched, weights), whole, rtol=1e-12)
    plain = detection_metrics(images, names(3))
    assert weighted_ap(matched, np.ones((1, 15)))["map50_95"].tolist() == [pytest.approx(plain["map50_95"], abs=1e-12)]


def test_a_resample_without_boxes_has_no_figure() -> None:
    matched = match_detections(
        [
            scored_image([(*TRUTH, 0.9, 0)], [(*TRUTH, 0)]),
            scored_image([(*TRUTH, 0.9, 0)]),
            scored_image(truth=[(*TRUTH, 1)]),
        ],
        2,
    )
    found = weighted_ap(matched, np.array([[1, 1, 1], [0, 3, 0], [2, 0, 0], [0, 0, 1]]))
    assert found["map50"] == pytest.approx([0.5, np.nan, 1.0, 0.0], nan_ok=True)


def test_everything_is_plain_json() -> None:
    found = detection_metrics(random_images(10, 3, seed=12), names(3))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


GOOD = scored_image([(*TRUTH, 0.5, 0)], [(*TRUTH, 0)])


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (1, np.ones(2), "image 1 has 1 boxes, 2 scores and 1 labels"),
        (4, np.zeros(3, dtype=int), "image 1 has 1 boxes, 3 scores and 3 labels"),
        (2, np.array([2]), r"labels must lie in 0\.\.1, not 0\.\.2"),
        (4, np.array([-1]), r"labels must lie in 0\.\.1, not -1\.\.0"),
        (1, np.array([np.nan]), "finite"),
        (0, np.array([[0, 0, np.inf, 1]]), "finite"),
    ],
)
def test_wrong_input_is_refused(place: int, value: np.ndarray, message: str) -> None:
    wrong = tuple(value if at == place else part for at, part in enumerate(GOOD))
    with pytest.raises(ValueError, match=message):
        detection_metrics([GOOD, wrong], names(2))


def test_importing_needs_numpy_alone() -> None:
    heavy = "{'torch', 'pycocotools', 'pydantic', 'ray', 'scipy'}"
    program = f"import sys, posture.tasks.detection_metrics; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
        == "[]"
    )
