"""Matching against a loop over every cell and anchor; anchors by their worth."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from posture.models.boxes import Targets
from posture.models.detector_configs import STRIDES, YOLOV5_ANCHORS, YOLOv5
from posture.tasks.anchors import Matches, best_possible_recall, kmeans_anchors, match


def targets_of(*boxes: tuple[float, float, float, float], images: list[int] | None = None) -> Targets:
    images = images or [0] * len(boxes)
    return Targets(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.zeros(len(boxes), dtype=torch.int64),
        torch.tensor(images, dtype=torch.int64),
        max(images, default=0) + 1,
    )


def found_by(matches: list[Matches]) -> list[set[tuple[int, ...]]]:
    """Of each level, (image, anchor, row, column, box)."""
    found = [list(zip(*(part.tolist() for part in level), strict=True)) for level in matches]
    assert all(len(set(level)) == len(level) for level in found)
    return [set(level) for level in found]


def plain_match(targets: Targets, anchors: tuple, height: int, width: int, ratio: float) -> list[set[tuple[int, ...]]]:
    """Every cell asks every box: are you like my anchor, and is your centre in me, or in the half next to me of a cell
    beside me?
    """
    found = []
    for level, stride in zip(anchors, STRIDES, strict=True):
        answers = set()
        for number, (box, image) in enumerate(zip(targets.boxes.tolist(), targets.images.tolist(), strict=True)):
            sides, centre = (
                (box[2] - box[0], box[3] - box[1]),
                tuple(Fraction(low + high) / 2 / stride for low, high in zip(box[:2], box[2:], strict=True)),
            )
            for row in range(height // stride):
                for column in range(width // stride):
                    x, y = centre[0] - column, centre[1] - row  # 0..1 in the cell itself
                    inside, beside = (
                        0 <= x < 1 and 0 <= y < 1,
                        (
                            0 <= y < 1 and (Fraction(-1, 2) < x < 0 or 1 <= x < Fraction(3, 2)),
                            0 <= x < 1 and (Fraction(-1, 2) < y < 0 or 1 <= y < Fraction(3, 2)),
                        ),
                    )
                    if not (inside or any(beside)):
                        continue
                    for anchor, shape in enumerate(level):
                        if all(
                            side > 0 and max(side / length, length / side) < ratio
                            for side, length in zip(sides, shape, strict=True)
                        ):
                            answers.add((image, anchor, row, column, number))
        found.append(answers)
    return found


# Quarters of pixels, so that every sum is exact, and centres on borders and in middles of cells are common.
places, lengths = (
    st.integers(-40, 480).map(lambda n: n / 4),
    st.one_of(st.integers(0, 600).map(lambda n: n / 4), st.sampled_from([2.5, 40.0, 64.0, 120.0])),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(places, places, lengths, lengths, st.integers(0, 2)), max_size=6),
    st.sampled_from([(96, 96), (64, 128)]),
    st.sampled_from([1.5, 4.0, 10.0]),
)
def test_matches_are_those_of_a_loop_over_all_cells(
    drawn: list[tuple[float, ...]], size: tuple[int, int], ratio: float
) -> None:
    drawn = sorted(drawn, key=lambda one: one[4])
    targets = targets_of(*((x, y, x + w, y + h) for x, y, w, h, _ in drawn), images=[int(one[4]) for one in drawn])
    assert found_by(match(targets, YOLOV5_ANCHORS, size=size, ratio=ratio)) == plain_match(
        targets, YOLOV5_ANCHORS, *size, ratio
    )


def test_a_case_worked_out_by_hand() -> None:
    # 13 x 13 around (21, 29), in cells of 8 pixels: (2.625, 3.625), leaning right and down
    targets = targets_of((14.5, 22.5, 27.5, 35.5), images=[1])
    fine, middle, coarse = found_by(match(targets, YOLOV5_ANCHORS, size=64, ratio=4.0))
    cells = {(3, 2), (3, 3), (4, 2)}
    assert fine == {(1, anchor, *cell, 0) for anchor in (0, 1, 2) for cell in cells}  # 33 / 13 and 30 / 13 are below 4
    # (1.3125, 1.8125) leans left and down; 30 x 61 is too long, 62 x 45 and 59 x 119 too wide
    assert middle == set() and coarse == set()
    assert found_by(match(targets, YOLOV5_ANCHORS, size=64, ratio=5.0))[1] == {
        (1, anchor, *cell, 0) for anchor in (0, 1) for cell in ((1, 1), (1, 0), (2, 1))
    }


def test_cells_outside_the_grid_do_not_answer() -> None:
    targets = targets_of((0.0, 0.0, 6.0, 6.0), (58.0, 58.0, 64.0, 64.0))
    fine = found_by(match(targets, (((6.0, 6.0),),) * 3, size=64, ratio=1.5))[0]
    assert fine == {(0, 0, 0, 0, 0), (0, 0, 7, 7, 1)}
    assert all(row < 8 and column < 8 for _, _, row, column, _ in fine)


def test_a_ratio_is_a_bound_that_is_not_reached() -> None:
    anchors = (((10.0, 10.0),),) * 3
    assert [
        len(found_by(match(targets_of((20.0, 20.0, 20.0 + side, 30.0)), anchors, size=64, ratio=4.0))[0]) > 0
        for side in (2.5, 2.75, 39.75, 40.0)
    ] == [False, True, True, False]


def test_nothing_to_match() -> None:
    for level in match(targets_of(), YOLOV5_ANCHORS, size=320, ratio=4.0):
        assert all(len(part) == 0 and part.dtype == torch.int64 for part in level)


def random_sides(count: int, *, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.exp(random.normal(3.2, 0.9, (count, 1)) + random.normal(0, 0.4, (count, 2))).clip(3, 600)


def test_best_possible_recall_by_hand() -> None:
    anchors = (((10.0, 10.0),), ((40.0, 20.0),), ((100.0, 100.0),))
    sides = np.array([[10, 39.9], [10, 40], [2.4, 10], [60, 10], [399, 399], [400, 400], [0, 10], [160.5, 25]])
    # yes; no; no; 40/20 with 1.5 and 2; yes; no; no; 100/100 with 1.6 and exactly 4: no, 40/20: 4.01: no
    assert best_possible_recall(sides, anchors, ratio=4.0) == pytest.approx(3 / 8)
    assert best_possible_recall(sides, anchors, ratio=1e9) == pytest.approx(7 / 8)


@pytest.mark.parametrize("seed", [0, 1])
def test_anchors_fit_their_boxes_better_than_others(seed: int) -> None:
    sides = random_sides(1500, seed=seed)
    anchors = kmeans_anchors(sides, seed=seed)
    assert best_possible_recall(sides, anchors) > max(best_possible_recall(sides, YOLOV5_ANCHORS), 0.97)

    def worth(shapes: tuple) -> float:
        flat = np.array(shapes).reshape(-1, 2)
        ratios = sides[:, None] / flat
        return float(np.minimum(ratios, 1 / ratios).min(axis=2).max(axis=1).mean())

    assert worth(anchors) > worth(YOLOV5_ANCHORS) + 0.02


def test_refining_raises_the_fit_and_starting_over_keeps_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(starts: int, refinements: int, seed: int) -> float:
        monkeypatch.setattr("posture.tasks.anchors.STARTS", starts)
        monkeypatch.setattr("posture.tasks.anchors.REFINEMENTS", refinements)
        ratios = sides[:, None] / np.array(kmeans_anchors(sides, seed=seed)).reshape(-1, 2)
        return float(np.minimum(ratios, 1 / ratios).min(axis=2).max(axis=1).mean())

    sides = random_sides(400)
    once, often, refined = (np.mean([fit(*effort, seed) for seed in range(6)]) for effort in ((1, 0), (5, 0), (5, 500)))
    assert once < often < refined - 0.003


def test_clear_clusters_are_found() -> None:
    shapes = np.array(
        [[10, 12], [30, 14], [16, 40], [60, 50], [50, 120], [110, 60], [150, 180], [320, 150], [300, 320]], dtype=float
    )
    sides = np.repeat(shapes, 40, axis=0) * np.exp(np.random.default_rng(0).normal(0, 0.02, (360, 2)))
    anchors = np.array(kmeans_anchors(sides)).reshape(-1, 2)
    assert all(np.abs(np.log(anchors / shape)).max(axis=1).min() < 0.05 for shape in shapes)


@pytest.mark.parametrize(("levels", "per_level"), [(3, 3), (3, 1), (2, 4)])
def test_anchors_ascend_and_are_plain_numbers(levels: int, per_level: int) -> None:
    anchors = kmeans_anchors(random_sides(200), levels=levels, per_level=per_level)
    assert len(anchors) == levels and all(len(level) == per_level for level in anchors)
    flat = [pair for level in anchors for pair in level]
    assert all(type(side) is float and round(side, 1) == side for pair in flat for side in pair)
    areas = [width * height for width, height in flat]
    assert areas == sorted(areas)
    if levels == 3:
        YOLOv5(anchors=anchors)


def test_the_same_seed_gives_the_same_anchors() -> None:
    sides = random_sides(300)
    assert kmeans_anchors(sides, seed=3) == kmeans_anchors(sides.copy(), seed=3) != kmeans_anchors(sides, seed=4)


@pytest.mark.parametrize(
    "sides",
    [
        [[40, 60]],
        [[40, 60]] * 30,
        [[10, 20], [300, 40], [10, 20]],
        [[640, 640], [1, 1]],
        [[0, 5]],
        [[2, 2]],
        [[float(n), 50.0] for n in range(20, 28)],
    ],
)
def test_few_different_boxes_still_give_nine_anchors(sides: list[list[float]]) -> None:
    anchors = kmeans_anchors(np.array(sides))
    assert YOLOv5(anchors=anchors).anchors == anchors and all(
        math.isfinite(side) for level in anchors for pair in level for side in pair
    )
    assert sum(len(level) for level in anchors) == 9
    assert best_possible_recall(np.array(sides).clip(min=2), anchors) == 1.0


def test_very_many_boxes_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posture.tasks.anchors.SAMPLE", 300)
    sides = random_sides(3000)
    assert best_possible_recall(sides, kmeans_anchors(sides)) > 0.95


@pytest.mark.parametrize("sides", [np.zeros((0, 2)), np.ones((3, 4)), np.array([[1.0, np.nan]]), np.ones(2)])
def test_what_are_no_sides_is_refused(sides: np.ndarray) -> None:
    for function in (kmeans_anchors, lambda sides: best_possible_recall(sides, YOLOV5_ANCHORS)):
        with pytest.raises(ValueError, match=r"at least one finite \(width, height\)"):
            function(sides)
