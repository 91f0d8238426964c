"""Boxes against formulas written out for one pair at a time in float64, differences of those for gradients, and a plain
loop for suppression.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from posture.models import boxes as module
from posture.models.boxes import (
    BOX_LOSSES,
    OVERLAPS,
    box_loss,
    cxcywh_from_xyxy,
    iou,
    overlap,
    pairwise_iou,
    xyxy_from_cxcywh,
)

torch.set_num_threads(1)

Box = tuple[float, float, float, float]


def parts(a: Box, b: Box) -> dict[str, float]:
    """What the losses are made of."""
    (ax, ay, ar, ab), (bx, by, br, bb) = a, b
    inside = max(0.0, min(ar, br) - max(ax, bx)) * max(0.0, min(ab, bb) - max(ay, by))
    union = (ar - ax) * (ab - ay) + (br - bx) * (bb - by) - inside
    width, height = max(ar, br) - min(ax, bx), max(ab, bb) - min(ay, by)
    return {
        "iou": inside / union,
        "union": union,
        "C_w": width,
        "C_h": height,
        "w": ar - ax,
        "h": ab - ay,
        "w_gt": br - bx,
        "h_gt": bb - by,
        "x": (bx + br) / 2 - (ax + ar) / 2,
        "y": (by + bb) / 2 - (ay + ab) / 2,
    }


def aspect(p: dict[str, float]) -> float:
    return 4 / math.pi**2 * (math.atan(p["w_gt"] / p["h_gt"]) - math.atan(p["w"] / p["h"])) ** 2


def alpha_of(a: Box, b: Box) -> float:
    p = parts(a, b)
    return aspect(p) / ((1 - p["iou"]) + aspect(p)) if aspect(p) else 0.0


def siou_of(p: dict[str, float]) -> float:
    """Gevorgyan's equations as they are printed, with the sine of the angle and its arcsine."""
    rho = math.hypot(p["x"], p["y"])
    angle = 1 - 2 * math.sin(math.asin(min(1.0, abs(p["y"]) / rho)) - math.pi / 4) ** 2 if rho else 0.0
    gamma = 2 - angle
    distance = sum(1 - math.exp(-gamma * (p[axis] / p[side]) ** 2) for axis, side in (("x", "C_w"), ("y", "C_h")))
    shape = sum(
        (1 - math.exp(-abs(p[side] - p[f"{side}_gt"]) / max(p[side], p[f"{side}_gt"]))) ** 4 for side in ("w", "h")
    )
    return 1 - p["iou"] + (distance + shape) / 2


def loss_of(a: Box, b: Box, kind: str, *, alpha: float | None = None) -> float:
    """`alpha`: CIoU's weight, where it is held fast."""
    p = parts(a, b)
    distance = (p["x"] ** 2 + p["y"] ** 2) / (p["C_w"] ** 2 + p["C_h"] ** 2)
    return {
        "iou": lambda: 1 - p["iou"],
        "giou": lambda: 1 - (p["iou"] - (p["C_w"] * p["C_h"] - p["union"]) / (p["C_w"] * p["C_h"])),
        "diou": lambda: 1 - p["iou"] + distance,
        "ciou": lambda: 1 - p["iou"] + distance + (alpha_of(a, b) if alpha is None else alpha) * aspect(p),
        "eiou": lambda: (
            1
            - p["iou"]
            + distance
            + (p["w"] - p["w_gt"]) ** 2 / p["C_w"] ** 2
            + (p["h"] - p["h_gt"]) ** 2 / p["C_h"] ** 2
        ),
        "siou": lambda: siou_of(p),
    }[kind]()


def random_pairs(count: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Boxes of very different sizes that mostly overlap, float64: two in three; the others anywhere."""
    random = np.random.default_rng(seed)
    sides = np.exp(random.uniform(math.log(3), math.log(300), (2, count, 2)))
    centres = random.uniform(0, 640, (2, count, 2))
    near = np.arange(count) % 3 > 0
    centres[1, near] = centres[0, near] + random.uniform(-0.6, 0.6, (near.sum(), 2)) * sides[0, near]
    first, second = (
        torch.from_numpy(np.concatenate([c - s / 2, c + s / 2], axis=1)) for c, s in zip(centres, sides, strict=True)
    )
    return first, second


def test_a_pair_worked_out_by_hand() -> None:
    a, b = torch.tensor([[0.0, 0.0, 4.0, 2.0]]), torch.tensor([[2.0, 0.0, 4.0, 4.0]])
    # inside 2x2 = 4, union 8 + 8 - 4 = 12, around both 4x4; centres (2, 1) and (3, 2)
    shared = 4 / 12
    assert iou(a, b).item() == pytest.approx(shared)
    assert box_loss(a, b, "giou").item() == pytest.approx(1 - shared + 4 / 16)
    assert box_loss(a, b, "diou").item() == pytest.approx(1 - shared + 2 / 32)
    assert box_loss(a, b, "eiou").item() == pytest.approx(1 - shared + 2 / 32 + 2**2 / 4**2 + 2**2 / 4**2)
    v = 4 / math.pi**2 * (math.atan(0.5) - math.atan(2)) ** 2
    assert box_loss(a, b, "ciou").item() == pytest.approx(1 - shared + 2 / 32 + v / (1 - shared + v) * v)
    # at 45 degrees the angle cost is 1, so gamma is 1; sides differ by half
    assert box_loss(a, b, "siou").item() == pytest.approx(
        1 - shared + (2 * (1 - math.exp(-1 / 16)) + 2 * (1 - math.exp(-0.5)) ** 4) / 2
    )


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_losses_agree_with_their_formulas(kind: str) -> None:
    predicted, target = random_pairs(300)
    expected = [loss_of(a, b, kind) for a, b in zip(predicted.tolist(), target.tolist(), strict=True)]
    torch.testing.assert_close(
        box_loss(predicted, target, kind), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
    )
    single = box_loss(predicted.float(), target.float(), kind)
    assert single.shape == (300,) and single.dtype == torch.float32
    np.testing.assert_allclose(single.numpy(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_gradients_agree_with_differences(kind: str) -> None:
    predicted, target = random_pairs(60, seed=1)
    predicted.requires_grad_()
    box_loss(predicted, target, kind).sum().backward()
    step, found = 1e-4, predicted.grad.numpy()
    for row, (a, b) in enumerate(zip(predicted.tolist(), target.tolist(), strict=True)):
        alpha = alpha_of(a, b)  # held fast: no gradient goes through it
        for place in range(4):
            low, high = (tuple(value + sign * step * (place == at) for at, value in enumerate(a)) for sign in (-1, 1))
            slope = (loss_of(high, b, kind, alpha=alpha) - loss_of(low, b, kind, alpha=alpha)) / (2 * step)
            assert found[row, place] == pytest.approx(slope, rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("kind", [kind for kind in BOX_LOSSES if kind != "ciou"])
def test_gradients_pass_torchs_check(kind: str) -> None:
    predicted, target = (boxes[:12] for boxes in random_pairs(12, seed=2))
    assert torch.autograd.gradcheck(
        lambda a, b: box_loss(a, b, kind), (predicted.requires_grad_(), target.requires_grad_())
    )


def test_the_weight_of_the_aspect_ratio_has_no_gradient() -> None:
    predicted, target = random_pairs(40, seed=3)
    predicted.requires_grad_()
    ciou, diou = (
        torch.autograd.grad(box_loss(predicted, target, kind).sum(), predicted)[0] for kind in ("ciou", "diou")
    )
    moving = [
        (loss_of((*a[:3], a[3] + 1e-4), b, "ciou") - loss_of((*a[:3], a[3] - 1e-4), b, "ciou")) / 2e-4
        for a, b in zip(predicted.tolist(), target.tolist(), strict=True)
    ]
    assert (ciou - diou).abs().max() > 1e-3
    assert np.abs(ciou[:, 3].numpy() - moving).max() > 1e-4  # what it would be if alpha moved too


DEGENERATE: list[Box] = [
    (0, 0, 0, 0),
    (50, 50, 50, 50),
    (50, 20, 50, 80),
    (20, 50, 80, 50),
    (50, 50, 50 + 1e-6, 50 + 1e-6),
    (0, 0, 640, 1e-7),
    (10, 10, 60, 90),
    (10, 10, 60, 90),
    (60, 90, 100, 100),
    (1e6, 1e6, 1e6 + 40, 1e6 + 30),
    (-1e9, -1e9, 1e9, 1e9),
    (0, 0, 1e-20, 1e-20),
    (639.5, 639.5, 640, 640),
]


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_degenerate_boxes_give_finite_values_and_gradients(kind: str) -> None:
    every = torch.tensor(DEGENERATE)
    first, second = torch.meshgrid(torch.arange(len(every)), torch.arange(len(every)), indexing="ij")
    predicted, target = every[first.flatten()].requires_grad_(), every[second.flatten()].requires_grad_()
    values = box_loss(predicted, target, kind)
    values.sum().backward()
    assert values.isfinite().all() and predicted.grad.isfinite().all() and target.grad.isfinite().all()
    assert values.min() >= -1e-5 and values.max() <= 5
    assert max(predicted.grad.abs().max(), target.grad.abs().max()) <= 20


thin = st.one_of(st.just(0.0), st.floats(-6, 3).map(lambda power: 10**power))
places = st.floats(0, 640)


@settings(max_examples=300, deadline=None)
@given(
    places,
    places,
    thin,
    thin,
    thin,
    thin,
    st.sampled_from([0.0, 1e-6, 1e-3, 0.5, 1.0, 30.0]),
    st.sampled_from(BOX_LOSSES),
)
def test_no_box_however_thin_has_a_large_gradient(
    x: float, y: float, w: float, h: float, w_gt: float, h_gt: float, apart: float, kind: str
) -> None:
    """Zero areas, hulls without area, sides of a millionth of a pixel beside hundreds: in float32, as in training."""
    predicted = torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]], requires_grad=True)
    target = torch.tensor([[x - w_gt / 2 + apart, y - h_gt / 2, x + w_gt / 2 + apart, y + h_gt / 2]])
    value = box_loss(predicted, target, kind)
    value.sum().backward()
    assert -1e-5 <= value.item() <= 5 and predicted.grad.isfinite().all() and predicted.grad.abs().max() <= 20


@pytest.mark.parametrize("kind", BOX_LOSSES)
@pytest.mark.parametrize("predicted", [(50, 50, 50, 50), (50, 20, 50, 80), (20, 50, 80, 50), (300, 300, 300, 300)])
def test_a_predicted_box_without_area_learns_gently(kind: str, predicted: Box) -> None:
    """CIoU's aspect ratio had a gradient of more than 100 here, where those of ordinary boxes are below 1."""
    box = torch.tensor([predicted], dtype=torch.float32, requires_grad=True)
    box_loss(box, torch.tensor([[30.0, 40.0, 70.0, 60.0]]), kind).sum().backward()
    assert box.grad.abs().max() <= 4


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_equal_boxes_cost_nothing_and_rest(kind: str) -> None:
    predicted = torch.tensor([[10.0, 20.0, 60.0, 90.0], [0.0, 0.0, 640.0, 3.0]], requires_grad=True)
    values = box_loss(predicted, predicted.detach().clone(), kind)
    assert values.abs().max() < 1e-6
    if kind not in ("iou", "giou"):
        (distance,) = torch.autograd.grad(
            (values - box_loss(predicted, predicted.detach().clone(), "iou")).sum(), predicted
        )
        assert distance.abs().max() < 1e-6  # the distance terms have their minimum there


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_boxes_apart_are_drawn_together_by_all_but_iou(kind: str) -> None:
    predicted, target = (
        torch.tensor([[100.0, 100.0, 140.0, 120.0]], requires_grad=True),
        torch.tensor([[300.0, 180.0, 340.0, 200.0]]),
    )
    (gradient,) = torch.autograd.grad(box_loss(predicted, target, kind).sum(), predicted)
    right, down = -gradient[0, [0, 2]].sum(), -gradient[0, [1, 3]].sum()
    if kind == "iou":
        assert gradient.abs().max() == 0
    elif kind == "giou":  # grows first
        assert gradient[0, 2] < 0 and gradient[0, 3] < 0
    else:
        assert 200 * right + 80 * down > 0.01


coordinates = st.floats(-500, 500, width=32)
some_boxes = st.builds(
    lambda x, y, w, h: (x, y, x + w, y + h),
    coordinates,
    coordinates,
    st.floats(1, 300, width=32),
    st.floats(1, 300, width=32),
)


@settings(max_examples=60, deadline=None)
@given(some_boxes, some_boxes, st.sampled_from(BOX_LOSSES), st.floats(0.2, 5), coordinates)
def test_losses_know_neither_place_nor_scale_nor_side(a: Box, b: Box, kind: str, scale: float, shift: float) -> None:
    first, second = torch.tensor([a, b], dtype=torch.float64)[:, None]
    value = box_loss(first, second, kind)
    assert box_loss(first * scale + shift, second * scale + shift, kind).item() == pytest.approx(
        value.item(), rel=1e-6, abs=1e-6
    )
    assert box_loss(second, first, kind).item() == pytest.approx(value.item(), rel=1e-6, abs=1e-6)
    assert -1e-9 <= value.item() <= {"iou": 1, "giou": 2, "diou": 2, "ciou": 3, "eiou": 4, "siou": 3}[kind]


def test_formats_go_there_and_back() -> None:
    boxes = torch.tensor([[[10.0, 20.0, 40.0, 30.0], [0.0, 0.0, 0.0, 5.0]]])
    centred = cxcywh_from_xyxy(boxes)
    assert centred.tolist() == [[[25.0, 25.0, 30.0, 10.0], [0.0, 2.5, 0.0, 5.0]]]
    assert torch.equal(xyxy_from_cxcywh(centred), boxes)


def test_pairwise_overlap_is_that_of_each_pair() -> None:
    a, b = random_pairs(9, seed=4)
    b = b[:7]
    assert pairwise_iou(a, b).shape == (9, 7) and pairwise_iou(a[:0], b).shape == (0, 7)
    for kind in OVERLAPS:
        expected = [[1 - loss_of(first, second, kind) for second in b.tolist()] for first in a.tolist()]
        torch.testing.assert_close(
            overlap(a, b, kind), torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9
        )


def test_unknown_kinds_are_refused() -> None:
    a, b = random_pairs(2)
    with pytest.raises(ValueError, match="box_loss must be one of iou, giou, diou, ciou, eiou, siou, not 'l1'"):
        box_loss(a, b, "l1")
    with pytest.raises(ValueError, match="overlap must be one of iou, diou, eiou, not 'giou'"):
        overlap(a, b, "giou")


def nms(boxes: Tensor, scores: Tensor, labels: Tensor, **how: Any) -> Tensor:
    """Of one image."""
    return module.nms(boxes, scores, labels, torch.zeros_like(labels), count=1, **how)[0]


def plain_nms(
    boxes: list[Box], scores: list[float], labels: list[int], *, threshold: float, kind: str, most: int
) -> list[int]:
    kept: list[int] = []
    for index in sorted(range(len(boxes)), key=lambda index: (-scores[index], index)):
        if len(kept) < most and all(
            labels[index] != labels[other] or 1 - loss_of(boxes[other], boxes[index], kind) <= threshold
            for other in kept
        ):
            kept.append(index)
    return kept


@st.composite
def candidates(draw: st.DrawFn) -> tuple[list[Box], list[float], list[int]]:
    count = draw(st.integers(0, 40))
    corners, sides = st.integers(0, 24), st.integers(1, 16)
    boxes = [
        (x, y, x + w, y + h)
        for x, y, w, h in draw(st.lists(st.tuples(corners, corners, sides, sides), min_size=count, max_size=count))
    ]
    # many are equal
    scores = draw(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.75, 0.9]), min_size=count, max_size=count))
    return boxes, scores, draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))


@settings(max_examples=100, deadline=None)
@given(
    candidates(),
    st.sampled_from(OVERLAPS),
    st.sampled_from([0.0, 0.2317, 0.6173, 1.0]),
    st.sampled_from([1, 5, 300]),
    st.sampled_from([1, 4, 256]),
)
def test_suppression_is_what_a_plain_loop_does(
    drawn: tuple[list[Box], list[float], list[int]], kind: str, threshold: float, most: int, block: int
) -> None:
    boxes, scores, labels = drawn
    expected = plain_nms(boxes, scores, labels, threshold=threshold, kind=kind, most=most)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = nms(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(scores),
            torch.tensor(labels, dtype=torch.int64),
            threshold=threshold,
            overlap=kind,
            most=most,
        )
    assert found.tolist() == expected and found.dtype == torch.int64


@settings(max_examples=100, deadline=None)
@given(
    st.lists(candidates(), min_size=1, max_size=4),
    st.sampled_from(OVERLAPS),
    st.sampled_from([2, 5, 300]),
    st.sampled_from([None, 3, 20]),
    st.sampled_from([4, 256]),
    st.sampled_from([1, 3, 4]),
    st.randoms(use_true_random=False),
)
def test_images_are_settled_all_at_once_as_one_by_one(
    drawn: list, kind: str, most: int, best: int | None, block: int, together: int, shuffled
) -> None:
    mixed = [(image, *candidate) for image, found in enumerate(drawn) for candidate in zip(*found, strict=True)]
    shuffled.shuffle(mixed)
    expected = []
    for image in range(len(drawn)):
        mine = [index for index, candidate in enumerate(mixed) if candidate[0] == image]
        mine = sorted(sorted(mine, key=lambda index: -mixed[index][2])[:best])
        boxes, scores, labels = ([mixed[index][part] for index in mine] for part in (1, 2, 3))
        expected.append([
            mine[index] for index in plain_nms(boxes, scores, labels, threshold=0.2317, kind=kind, most=most)
        ])
    images, boxes, scores, labels = ([candidate[part] for candidate in mixed] for part in range(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        patch.setattr(module, "TOGETHER", together)
        indices = (torch.tensor(values, dtype=torch.int64) for values in (labels, images))
        found, numbers = module.nms(
            torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            torch.tensor(scores),
            *indices,
            count=len(drawn),
            threshold=0.2317,
            overlap=kind,
            most=most,
            candidates=best,
        )
    assert [part.tolist() for part in found.split(numbers)] == expected


@pytest.mark.parametrize("classes", [1, 80])
def test_many_candidates_agree_with_torchvision(classes: int) -> None:
    from torchvision.ops import batched_nms

    generator = torch.Generator().manual_seed(classes)
    centres, sides = torch.rand(2500, 2, generator=generator) * 320, torch.rand(2500, 2, generator=generator) * 80 + 4
    boxes, scores = xyxy_from_cxcywh(torch.cat([centres, sides], dim=1)), torch.rand(2500, generator=generator)
    labels = torch.randint(classes, (2500,), generator=generator)
    expected = batched_nms(boxes, scores, labels, 0.45)
    for most in (300, 2500):
        assert nms(boxes, scores, labels, threshold=0.45, most=most).tolist() == expected[:most].tolist()


def test_centres_apart_spare_a_box() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [3.0, 0.0, 13.0, 10.0], [1.0, 1.0, 9.0, 9.0]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    # IoU 70 / 130 = 0.54 and 0.64; the first of them has its centre 3 of a diagonal of sqrt(13^2 + 10^2) away, the
    # second none, but other sides
    assert nms(boxes, scores, labels, threshold=0.52, overlap="iou").tolist() == [0]
    assert nms(boxes, scores, labels, threshold=0.52, overlap="diou").tolist() == [0, 1]
    assert nms(boxes, scores, labels, threshold=0.58, overlap="eiou").tolist() == [0, 1, 2]
    assert nms(boxes, scores, torch.tensor([0, 1, 0]), threshold=0.52, overlap="iou").tolist() == [0, 1]


def test_boxes_without_area_are_left_alone() -> None:
    boxes = torch.zeros(3, 4)
    assert nms(
        boxes, torch.tensor([0.5, 0.9, 0.7]), torch.zeros(3, dtype=torch.int64), threshold=0.5, overlap="eiou"
    ).tolist() == [1, 2, 0]
    assert nms(boxes[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64), threshold=0.5).tolist() == []
