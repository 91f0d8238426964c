"""The loss and the decoding against formulas written out in float64 for one cell at a time; the rest by what it must
add up to.
"""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from posture.config import DetectionRun, override
from posture.errors import InputError
from posture.models.boxes import Detections, Targets
from posture.models.detector_configs import SSD300, STRIDES, FasterRCNN, YOLOv5
from posture.tasks.anchors import match
from posture.tasks.detection import DetectionTask
from posture.tasks.detection_metrics import detection_metrics

ANCHORS = (((10.0, 14.0), (24.0, 20.0)), ((30.0, 60.0), (50.0, 40.0)), ((70.0, 60.0), (90.0, 120.0)))
SIZE = 96


def run_with(**changes: object) -> DetectionRun:
    """`changes` are dotted, with __ for the dot."""
    run = DetectionRun(name="r", model=YOLOv5(anchors=ANCHORS, size=SIZE))
    return override(run, {name.replace("__", "."): value for name, value in changes.items()})


def task_with(classes: int = 3, **changes: object) -> DetectionTask:
    return DetectionTask(run_with(**changes), tuple(f"class {index}" for index in range(classes)))


def raw_outputs(
    images: int, classes: int, *, seed: int = 0, size: int | tuple[int, int] = SIZE, scale: float = 1.0
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    height, width = (size, size) if isinstance(size, int) else size
    return [
        scale * torch.randn(images, 2, height // stride, width // stride, 5 + classes, generator=generator)
        for stride in STRIDES
    ]


def targets_of(rows: list[tuple[float, ...]], images: int) -> Targets:
    """Rows of x1, y1, x2, y2, label, image."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Targets(table[:, :4].clone(), table[:, 4].long(), table[:, 5].long(), images)


# Two boxes of one image share cells and anchors; one image has none.
ROWS = [
    (10, 12, 30, 30, 0, 0),
    (11, 12, 29, 34, 2, 0),
    (40, 20, 90, 90, 1, 0),
    (0, 0, 8, 12, 2, 2),
    (30, 30, 96, 96, 0, 2),
    (5, 60, 11, 94, 1, 2),
]


def cut(values: list[Tensor], targets: Targets, part: slice) -> tuple[list[Tensor], Targets]:
    """Some of the images."""
    start, stop, _ = part.indices(targets.count)
    mine = (targets.images >= start) & (targets.images < stop)
    regions = None if targets.ignored is None else cut([], targets.ignored, part)[1]
    return [level[part] for level in values], Targets(
        targets.boxes[mine], targets.labels[mine], targets.images[mine] - start, stop - start, regions
    )


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def cross_entropy(logit: float, target: float) -> float:
    p = sigmoid(logit)
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def box_at(raw: np.ndarray, level: int, anchor: int, row: int, column: int) -> np.ndarray:
    x, y, w, h = sigmoid(raw[:4])
    cx, cy = (2 * x - 0.5 + column) * STRIDES[level], (2 * y - 0.5 + row) * STRIDES[level]
    width, height = (2 * w) ** 2 * ANCHORS[level][anchor][0], (2 * h) ** 2 * ANCHORS[level][anchor][1]
    return np.array([cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2])


def iou_of(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inside = float(sides.clip(min=0).prod())
    return inside / (float((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod()) - inside)


def eiou_of(a: np.ndarray, b: np.ndarray) -> float:
    around = np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])
    apart = (a[:2] + a[2:] - b[:2] - b[2:]) / 2
    return (
        1
        - iou_of(a, b)
        + (apart**2).sum() / (around**2).sum()
        + float((((a[2:] - a[:2]) - (b[2:] - b[:2])) ** 2 / around**2).sum())
    )


def loss_of(
    outputs: list[Tensor],
    targets: Targets,
    *,
    classes: int,
    l1: float,
    l2: float,
    l3: float,
    smoothing: float,
    balance: tuple[float, ...],
) -> dict[str, tuple[float, int]]:
    """Equation (3), one match and one cell at a time; which cells answer is taken from `match`, whose own test has a
    loop.
    """
    sums, count = {"class": 0.0, "objectness": 0.0, "box": 0.0}, 0
    height, width = outputs[0].shape[2] * 8, outputs[0].shape[3] * 8
    for level, found in enumerate(match(targets, ANCHORS, size=(height, width), ratio=4.0)):
        raw = outputs[level].detach().double().numpy()
        wanted = np.zeros(raw.shape[:4])
        for *place, box in zip(*(part.tolist() for part in found), strict=True):
            logits = raw[tuple(place)]
            predicted, true = box_at(logits, level, *place[1:]), targets.boxes[box].double().numpy()
            wanted[tuple(place)] = max(wanted[tuple(place)], iou_of(predicted, true))
            for index in range(classes):
                right = 1 - smoothing / 2 if index == targets.labels[box] else smoothing / 2
                sums["class"] += l1 * 3 * cross_entropy(logits[5 + index], right) / classes
            sums["box"] += l3 * 3 * eiou_of(predicted, true)
            count += 1
        cells, answers = wanted[0].size, set(zip(*(part.tolist() for part in found.places), strict=True))
        for place in np.ndindex(*wanted.shape):
            if place in answers or not in_a_region(box_at(raw[place], level, *place[1:]), place[0], targets.ignored):
                sums["objectness"] += l2 * balance[level] * cross_entropy(raw[place][4], wanted[place]) / cells
    return {
        "class": (sums["class"], count),
        "objectness": (sums["objectness"], targets.count),
        "box": (sums["box"], count),
    }


def in_a_region(box: np.ndarray, image: int, regions: Targets | None) -> bool:
    """Whether half of it or more lies in an ignore region of its image."""
    for region in [] if regions is None else regions.boxes[regions.images == image].double().numpy():
        inside = (np.minimum(box[2:], region[2:]) - np.maximum(box[:2], region[:2])).clip(min=0).prod()
        if inside / (box[2:] - box[:2]).prod() >= 0.5:
            return True
    return False


REGIONS = [(30, 30, 90, 80, 0, 0), (0, 0, 30, 30, 2, 0), (10, 5, 96, 60, 1, 1)]
"""The first two overlap true boxes; the third is in the image without any."""


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("size", [96, (64, 128)])
def test_the_loss_is_equation_3(smoothing: float, size: int | tuple[int, int], regions: bool) -> None:
    outputs, targets = (
        raw_outputs(3, 3, size=size),
        targets_of(ROWS, 3)._replace(ignored=targets_of(REGIONS, 3) if regions else None),
    )
    settings = {"l1": 0.7, "l2": 1.3, "l3": 0.2}
    task = task_with(
        loss__label_smoothing=smoothing,
        loss__balance=(3.0, 1.5, 0.5),
        **{f"loss__{name}": value for name, value in settings.items()},
    )
    found, expected = (
        task.loss(outputs, targets),
        loss_of(outputs, targets, classes=3, smoothing=smoothing, balance=(3.0, 1.5, 0.5), **settings),
    )
    assert expected["box"][1] > 20 and list(found) == ["class", "objectness", "box"]
    for term, (total, count) in found.items():
        assert total.dtype == torch.float32 and total.ndim == 0
        assert (float(total.detach()), count) == (pytest.approx(expected[term][0], rel=1e-5), expected[term][1]), term
    assert task.counts(targets, size=size) == {term: count for term, (_, count) in expected.items()}


def test_a_cell_that_answers_for_two_boxes_is_as_sure_as_for_the_better_one() -> None:
    outputs, both = raw_outputs(1, 3, seed=1), targets_of(ROWS[:2], 1)
    fine = [match(targets_of([row], 1), ANCHORS, size=SIZE, ratio=4.0)[0] for row in ROWS[:2]]
    places = [set(zip(*(part.tolist() for part in found.places), strict=True)) for found in fine]
    assert places[0] & places[1]
    task = task_with()
    turned = Targets(both.boxes.flip(0), both.labels.flip(0), both.images, 1)
    assert float(task.loss(outputs, both)["objectness"][0]) == float(task.loss(outputs, turned)["objectness"][0])
    alone = [float(task.loss(outputs, targets_of(ROWS[at : at + 1], 1))["objectness"][0]) for at in (0, 1)]
    assert float(task.loss(outputs, both)["objectness"][0]) not in alone


def test_nothing_is_learned_in_an_ignore_region_but_its_true_boxes() -> None:
    task, nothing = task_with(), targets_of([], 1)
    everywhere = nothing._replace(ignored=targets_of([(-500, -500, 600, 600, 0, 0)], 1))
    outputs = [level.requires_grad_() for level in raw_outputs(1, 3)]
    total = task.loss(outputs, everywhere)["objectness"][0]
    total.backward()
    assert (
        float(total.detach()) == 0.0
        and all(not level.grad.any() for level in outputs)
        and float(task.loss(outputs, nothing)["objectness"][0].detach()) > 0
    )
    found = targets_of(ROWS[:1], 1)._replace(ignored=everywhere.ignored)
    assert float(task.loss(outputs, found)["objectness"][0].detach()) > 0


def test_totals_keep_ignore_regions_with_their_image() -> None:
    task, targets = task_with(detect__confidence=0.05), targets_of(ROWS, 3)._replace(ignored=targets_of(REGIONS, 3))
    images = task.totals(raw_outputs(3, 3, scale=2.0), targets).images
    assert [one[5].tolist() for one in images] == [
        [list(map(float, row[:4])) for row in REGIONS if row[5] == number] for number in range(3)
    ]
    assert [one[6].tolist() for one in images] == [[0, 2], [1], []] and [len(one[3]) for one in images] == [3, 0, 3]


@pytest.mark.parametrize(
    "cuts", [[slice(0, 1), slice(1, 3)], [slice(0, 2), slice(2, 3)], [slice(0, 1), slice(1, 2), slice(2, 3)]]
)
def test_parts_add_up_to_the_whole(cuts: list[slice]) -> None:
    outputs, targets, task = (
        raw_outputs(3, 3),
        targets_of(ROWS, 3)._replace(ignored=targets_of(REGIONS, 3)),
        task_with(),
    )
    whole, counts = task.loss(outputs, targets), task.counts(targets, size=SIZE)
    parts = [task.loss(*cut(outputs, targets, part)) for part in cuts]
    for term, (total, count) in whole.items():
        assert sum(float(part[term][0]) for part in parts) == pytest.approx(float(total), rel=1e-5)
        assert sum(part[term][1] for part in parts) == count
        assert (
            sum(task.counts(cut(outputs, targets, part)[1], size=SIZE)[term] for part in cuts) == count == counts[term]
        )


def test_two_workers_compute_the_gradient_of_one() -> None:
    targets, task = targets_of(ROWS, 3), task_with()
    counts = task.counts(targets, size=SIZE)

    def gradient(parts: list[slice]) -> list[Tensor]:
        outputs = [level.requires_grad_() for level in raw_outputs(3, 3)]
        for part in parts:
            terms = task.loss(*cut(outputs, targets, part))
            torch.stack([total / counts[term] for term, (total, _) in terms.items()]).sum().backward()
        return [level.grad for level in outputs]

    for one, two in zip(gradient([slice(0, 3)]), gradient([slice(0, 1), slice(1, 3)]), strict=True):
        torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-8)
        assert one.abs().sum() > 0


def test_each_weight_moves_its_own_term() -> None:
    outputs, targets = raw_outputs(3, 3), targets_of(ROWS, 3)
    plain = {term: float(total) for term, (total, _) in task_with().loss(outputs, targets).items()}
    for name, term in (("l1", "class"), ("l2", "objectness"), ("l3", "box")):
        changed = task_with(**{f"loss__{name}": 0.25}).loss(outputs, targets)
        before = {"l1": 0.5, "l2": 1.0, "l3": 0.05}[name]
        for other, (total, _) in changed.items():
            assert float(total) == pytest.approx(plain[other] * (0.25 / before if other == term else 1))
    assert all(value > 0 for value in plain.values())


def test_each_term_teaches_its_own_outputs() -> None:
    targets, task = targets_of(ROWS, 3), task_with()
    for term, own in (("class", slice(5, 8)), ("objectness", slice(4, 5)), ("box", slice(0, 4))):
        outputs = [level.requires_grad_() for level in raw_outputs(3, 3)]
        task.loss(outputs, targets)[term][0].backward()
        for level in outputs:
            taught = level.grad.abs().sum(dim=(0, 1, 2, 3)) > 0
            # how good a box is, is told to objectness, not learnt from it
            assert taught.nonzero().flatten().tolist() == list(range(8))[own]


def test_the_kind_of_box_loss_is_the_runs() -> None:
    outputs, targets = raw_outputs(3, 3), targets_of(ROWS, 3)
    values = {
        kind: float(task_with(loss__box_loss=kind).loss(outputs, targets)["box"][0])
        for kind in ("iou", "giou", "diou", "ciou", "eiou", "siou")
    }
    assert (
        len(set(values.values())) == 6
        and values["iou"] < values["diou"] < values["ciou"]
        and values["diou"] < values["eiou"]
    )


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("images", [1, 3])
def test_images_without_boxes_only_lower_objectness(classes: int, images: int) -> None:
    outputs, targets, task = (
        [level.requires_grad_() for level in raw_outputs(images, classes)],
        targets_of([], images),
        task_with(classes),
    )
    terms = task.loss(outputs, targets)
    assert (
        {term: count for term, (_, count) in terms.items()}
        == task.counts(targets, size=SIZE)
        == {"class": 0, "objectness": images, "box": 0}
    )
    assert terms["class"][0].item() == terms["box"][0].item() == 0.0
    torch.stack([total / max(count, 1.0) for total, count in terms.values()]).sum().backward()
    for level in outputs:
        assert (
            level.grad[..., 4].min() > 0
            and level.grad[..., :4].abs().max() == 0
            and level.grad[..., 5:].abs().max() == 0
        )


def test_scaled_weights_are_yolov5s_for_its_own_classes_and_size() -> None:
    """2 of 80 classes, 96 of 640 pixels; the box loss stays."""
    outputs, targets = raw_outputs(3, 3), targets_of(ROWS, 3)
    plain, scaled = (task_with(loss__scaled=scaled).loss(outputs, targets) for scaled in (False, True))
    factors = {"class": 3 / 80, "objectness": (SIZE / 640) ** 2, "box": 1.0}
    for term, factor in factors.items():
        assert float(scaled[term][0]) == pytest.approx(factor * float(plain[term][0]), rel=1e-5), term
        assert scaled[term][1] == plain[term][1]


@pytest.mark.parametrize("classes", [1, 80])
def test_one_and_eighty_classes(classes: int) -> None:
    outputs, task = [level.requires_grad_() for level in raw_outputs(3, classes)], task_with(classes)
    targets = targets_of([(*row[:4], (7 * row[4]) % classes, row[5]) for row in ROWS], 3)
    terms = task.loss(outputs, targets)
    expected = loss_of(
        outputs, targets, classes=classes, l1=0.5, l2=1.0, l3=0.05, smoothing=0.0, balance=(4.0, 1.0, 0.4)
    )
    assert {term: (float(total.detach()), count) for term, (total, count) in terms.items()} == {
        term: (pytest.approx(total, rel=1e-5), count) for term, (total, count) in expected.items()
    }
    torch.stack([total for total, _ in terms.values()]).sum().backward()
    assert all(level.grad.isfinite().all() for level in outputs)
    metrics = task.metrics([task.totals(outputs, targets)])
    assert all(math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("scale", [30.0, 300.0])
def test_outputs_far_off_stay_finite(scale: float) -> None:
    for kind in ("ciou", "eiou", "siou"):
        outputs = [level.requires_grad_() for level in raw_outputs(3, 3, seed=2, scale=scale)]
        terms = task_with(loss__box_loss=kind).loss(
            outputs, targets_of([*ROWS[:3], (20, 20, 20, 20, 0, 1), (0, 0, 96, 96, 1, 2)], 3)
        )
        torch.stack([total for total, _ in terms.values()]).sum().backward()
        assert all(total.isfinite() for total, _ in terms.values()) and all(
            level.grad.isfinite().all() for level in outputs
        )


def test_half_precision_outputs_are_judged_in_full() -> None:
    outputs, targets, task = [level.bfloat16() for level in raw_outputs(3, 3)], targets_of(ROWS, 3), task_with()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms, found = task.loss(outputs, targets), task.detect(outputs)
    exact, alike = (
        task.loss([level.float() for level in outputs], targets),
        task.detect([level.float() for level in outputs]),
    )
    for term, (total, _) in terms.items():
        assert total.dtype == torch.float32 and float(total) == pytest.approx(float(exact[term][0]), rel=1e-6)
    for one, other in zip(found, alike, strict=True):
        assert one.boxes.dtype == one.scores.dtype == torch.float32 and len(one.scores) > 20
        torch.testing.assert_close(one.scores, other.scores, rtol=1e-6, atol=0)


def plain_detect(
    outputs: list[Tensor], number: int, *, classes: int, confidence: float, overlap: float, most: int
) -> list[tuple[float, int, list[float]]]:
    """(score, label, box), best first, by a loop over every cell; suppression by IoU."""
    candidates = []
    for level, raw in enumerate(outputs):
        values = raw[number].double().numpy()
        for place in np.ndindex(*values.shape[:3]):
            box, score = box_at(values[place], level, *place), sigmoid(values[place][4]) * sigmoid(values[place][5:])
            candidates += [(float(score[label]), label, box) for label in range(classes) if score[label] >= confidence]
    kept: list[tuple[float, int, np.ndarray]] = []
    for score, label, box in sorted(candidates, key=lambda one: -one[0]):
        if len(kept) < most and all(label != other or iou_of(box, better) <= overlap for _, other, better in kept):
            kept.append((score, label, box))
    width, height = outputs[0].shape[3] * 8, outputs[0].shape[2] * 8
    return [(score, label, np.clip(box, 0, [width, height, width, height]).tolist()) for score, label, box in kept]


@pytest.mark.parametrize(
    ("classes", "confidence", "most"), [(1, 0.3, 300), (3, 0.5, 300), (3, 0.2, 7), (3, 0.999, 300)]
)
@pytest.mark.parametrize("size", [64, (64, 96)])
def test_boxes_are_those_of_a_loop_over_all_cells(
    classes: int, confidence: float, most: int, size: int | tuple[int, int]
) -> None:
    outputs = raw_outputs(2, classes, seed=3, size=size)
    task = task_with(
        classes, detect__confidence=confidence, detect__overlap=0.3, detect__nms_overlap="iou", detect__most=most
    )
    for number, found in enumerate(task.detect(outputs)):
        expected = plain_detect(outputs, number, classes=classes, confidence=confidence, overlap=0.3, most=most)
        assert found.labels.tolist() == [label for _, label, _ in expected] and found.labels.dtype == torch.int64
        np.testing.assert_allclose(found.scores.numpy(), [score for score, _, _ in expected], rtol=1e-5)
        np.testing.assert_allclose(
            found.boxes.numpy(), np.array([box for _, _, box in expected]).reshape(-1, 4), atol=1e-3
        )
        assert len(expected) <= most and (confidence > 0.9) == (not expected)


def test_only_the_most_certain_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posture.tasks.detection.CANDIDATES", 20)
    outputs = raw_outputs(1, 3, seed=4)
    everything = task_with(detect__confidence=0.0, detect__overlap=1.0).detect(outputs)[0]
    assert len(everything.scores) == 20
    scores = torch.cat([(level[..., 4:5].sigmoid() * level[..., 5:].sigmoid()).flatten() for level in outputs])
    torch.testing.assert_close(everything.scores, scores.sort(descending=True).values[:20])


def test_nms_is_the_runs() -> None:
    outputs = raw_outputs(1, 1, seed=5, scale=0.3)
    found = {
        kind: len(
            task_with(1, detect__nms_overlap=kind, detect__overlap=0.3, detect__confidence=0.25)
            .detect(outputs)[0]
            .scores
        )
        for kind in ("iou", "diou", "eiou")
    }
    assert found["iou"] < found["diou"] < found["eiou"]


def test_what_is_learnt_is_what_is_detected() -> None:
    """Raw outputs that follow the loss's gradient come to say where the boxes are: the decoding that is trained is that
    which is read.
    """
    outputs = [(0.1 * level).requires_grad_() for level in raw_outputs(3, 3, seed=6)]
    targets, task = targets_of([*ROWS[:1], *ROWS[2:]], 3), task_with(detect__confidence=0.1)
    counts, optimizer = task.counts(targets, size=SIZE), torch.optim.Adam(outputs, lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        torch.stack([total / counts[term] for term, (total, _) in task.loss(outputs, targets).items()]).sum().backward()
        optimizer.step()
    with torch.inference_mode():
        metrics = task.metrics([task.totals(outputs, targets)])
    assert metrics["map50"] > 0.99 and metrics["map50_95"] > 0.9 and metrics["f1"] > 0.99


def test_a_network_learns_and_detects_at_any_size() -> None:
    from posture.models import build

    run = run_with(model__classes=2, model__width=0.125)
    torch.manual_seed(0)
    network, task, targets = (
        build(run.model),
        DetectionTask(run, ("a", "b")),
        targets_of([(*row[:4], row[4] % 2, row[5]) for row in ROWS[:4]], 3),
    )
    for size in (96, 128):
        terms = task.loss(network(torch.rand(3, 3, size, size)), targets)
        assert {term: count for term, (_, count) in terms.items()} == task.counts(targets, size=size)
        torch.stack([total for total, _ in terms.values()]).sum().backward()
    assert all(parameter.grad.isfinite().all() and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    with torch.inference_mode():
        totals = task.totals(network.eval()(torch.rand(3, 3, 96, 96)), targets)
    assert task.metrics([totals])["count"] == 3 and all(
        (boxes >= 0).all() and (boxes <= 96).all() for boxes, *_ in totals.images
    )


def test_totals_of_parts_are_those_of_the_whole() -> None:
    outputs, targets, task = raw_outputs(3, 3, scale=2.0), targets_of(ROWS, 3), task_with(detect__confidence=0.05)
    whole = task.totals(outputs, targets)
    first, last = (task.totals(*cut(outputs, targets, part)) for part in (slice(0, 2), slice(2, 3)))
    workers = [pickle.loads(pickle.dumps(part)) for part in (first, last)]  # as they come from other processes
    for parts in ([whole], [task.added(first, last)], [*workers, None], [None, *workers]):
        metrics = task.metrics(parts)
        assert metrics == pytest.approx(task.metrics([whole]), rel=1e-5) and metrics["count"] == 3
    assert len(first.images) == 2 and len(whole.images) == 3
    boxes, scores, labels, true_boxes, true_labels, *_ = whole.images[2]
    assert all(type(part) is np.ndarray for part in whole.images[2])
    assert (
        boxes.shape == (len(scores), 4)
        and boxes.dtype == scores.dtype == true_boxes.dtype == np.float32
        and len(labels) == len(scores)
    )
    assert true_boxes.tolist() == [list(map(float, row[:4])) for row in ROWS[3:]] and true_labels.tolist() == [
        row[4] for row in ROWS[3:]
    ]
    assert len(whole.images[1][3]) == 0


def test_metrics_are_those_of_the_images_and_the_mean_loss() -> None:
    outputs, targets, task = raw_outputs(3, 3, scale=2.0), targets_of(ROWS, 3), task_with()
    totals = task.totals(outputs, targets)
    metrics, expected = task.metrics([totals]), detection_metrics(totals.images, task.classes)
    assert set(metrics) == {"map50", "map50_95", "precision", "recall", "f1", "count", "loss"}
    assert all(metrics[name] == expected[name] for name in ("map50", "map50_95", "precision", "recall", "f1", "count"))
    terms = task.loss(outputs, targets)
    assert metrics["loss"] == pytest.approx(sum(float(total) / count for total, count in terms.values()))
    nothing = task.metrics([task.totals(outputs, targets_of([], 3))])
    assert nothing["map50"] == nothing["f1"] == 0.0 and nothing["count"] == 3 and nothing["loss"] > 0


def test_a_network_for_other_classes_is_refused() -> None:
    outputs, targets = raw_outputs(1, 5), targets_of([], 1)
    for method in (lambda: task_with(3).loss(outputs, targets), lambda: task_with(3).detect(outputs)):
        with pytest.raises(InputError, match=r"model.classes is 5, but the images have 3 classes"):
            method()


TORCHVISION = {
    "ssd300": (SSD300(), ("bbox_regression", "classification")),
    "fasterrcnn": (FasterRCNN(), ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg")),
}


@pytest.mark.parametrize("kind", TORCHVISION)
def test_networks_with_losses_of_their_own(kind: str) -> None:
    model, terms = TORCHVISION[kind]
    task = DetectionTask(DetectionRun(name="r", model=model), ("a", "b"))
    targets = targets_of(ROWS, 3)
    means = {
        term: torch.tensor(0.5 + place, dtype=torch.bfloat16, requires_grad=True) for place, term in enumerate(terms)
    }
    found = task.loss(means, targets)
    assert task.in_network and {term: count for term, (_, count) in found.items()} == task.counts(
        targets, size=300
    ) == dict.fromkeys(terms, 3.0)
    assert [float(total.detach()) for total, _ in found.values()] == [3 * (0.5 + place) for place in range(len(terms))]
    assert all(total.dtype == torch.float32 and total.requires_grad for total, _ in found.values())


def test_detections_of_networks_that_suppress_themselves_are_only_cut() -> None:
    task = DetectionTask(
        override(DetectionRun(name="r", model=SSD300()), {"detect.confidence": 0.3, "detect.most": 2}), ("a", "b")
    )
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(4, 1)
    outputs = [
        Detections(boxes, torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([0, 0, 1, 1])),
        Detections(boxes[:1], torch.tensor([0.3]), torch.tensor([1])),
        Detections(boxes[:0], torch.zeros(0), torch.zeros(0, dtype=torch.int64)),
    ]
    assert [found.scores.tolist() for found in task.detect(outputs)] == [
        pytest.approx([0.9, 0.8]),
        pytest.approx([0.3]),
        [],
    ]
    metrics = task.metrics([task.totals(outputs, targets_of([(0, 0, 10, 10, 0, 0), (0, 0, 10, 9, 1, 1)], 3))])
    assert "loss" not in metrics and metrics["map50"] == 1.0 and metrics["count"] == 3
