"""torchvision's detectors as ours: the same numbers and names, batches as they are, and images with anything in them
or nothing.
"""

from __future__ import annotations

import copy
import functools
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from posture.errors import InputError
from posture.models import build, torchvision_detectors
from posture.models.boxes import Detections, Targets, pairwise_iou
from posture.models.detector_configs import SSD300, FasterRCNN
from posture.models.torchvision_detectors import faster_rcnn, from_published, ssd300, with_usual_eps

pytestmark = pytest.mark.long

NARROW = (SSD300(classes=3, size=160, width=0.125), FasterRCNN(classes=3, size=64, width=0.125))
LOSSES = {
    "ssd300": {"bbox_regression", "classification"},
    "fasterrcnn": {"loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"},
}
narrow = pytest.mark.parametrize("config", NARROW, ids=lambda config: config.kind)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@functools.cache
def published(kind: str, *, classes: int = 91) -> nn.Module:
    """torchvision's own network, its shapes alone; `classes` with the background."""
    from torchvision.models import detection

    make = {"ssd300": detection.ssd300_vgg16, "fasterrcnn": detection.fasterrcnn_resnet50_fpn}[kind]
    with torch.device("meta"):
        return make(weights=None, weights_backbone=None, num_classes=classes)


def with_weights(network: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    """`network`, a published one, on the CPU; boxes that it was made with are made again."""
    network = copy.deepcopy(network).to_empty(device="cpu")
    if hasattr(network, "rpn"):
        made = network.rpn.anchor_generator
        network.rpn.anchor_generator = type(made)(made.sizes, made.aspect_ratios)
    else:
        made = network.anchor_generator
        network.anchor_generator = type(made)(made.aspect_ratios, scales=made.scales, steps=made.steps)
    network.load_state_dict(tensors)
    return network


def some_targets(size: int, *, images: int = 2) -> Targets:
    """Three boxes in each image: small, middling and nearly all of it."""
    boxes = (
        torch.tensor([[0.1, 0.2, 0.3, 0.35], [0.4, 0.3, 0.9, 0.8], [0.05, 0.02, 0.95, 0.97]]).repeat(images, 1) * size
    )
    return Targets(boxes, torch.arange(3 * images) % 3, torch.arange(images).repeat_interleave(3), images)


def as_torchvision(targets: Targets) -> list[dict[str, Tensor]]:
    return [
        {"boxes": targets.boxes[targets.images == number], "labels": targets.labels[targets.images == number] + 1}
        for number in range(targets.count)
    ]


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    "config",
    [SSD300(classes=90), FasterRCNN(classes=90), SSD300(classes=1, size=160), FasterRCNN(classes=1, size=320)],
    ids=["ssd300", "fasterrcnn", "small ssd300", "small fasterrcnn"],
)
def test_published_weights_fit(config: SSD300 | FasterRCNN):
    with torch.device("meta"):
        network = build(config)
    assert shapes(network) == shapes(published(config.kind, classes=config.classes + 1))
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_published_sizes():
    """As torchvision states them with its weights. There Faster R-CNN's norms are fixed: a gain and a bias for each
    channel less.
    """
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights, SSD300_VGG16_Weights

    with torch.device("meta"):
        ssd, rcnn = (
            sum(parameter.numel() for parameter in build(config).parameters())
            for config in (SSD300(classes=90), FasterRCNN(classes=90))
        )
    assert ssd == SSD300_VGG16_Weights.COCO_V1.meta["num_params"] == 35_641_826
    norms = 64 + sum(blocks * 6 * width + 4 * width for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)))
    assert rcnn - 2 * norms == FasterRCNN_ResNet50_FPN_Weights.COCO_V1.meta["num_params"] == 41_755_286
    assert rcnn == 41_808_406


@pytest.mark.parametrize(
    ("config", "size"), [(SSD300(classes=3), 300), (FasterRCNN(classes=3, size=64), 64)], ids=["ssd300", "fasterrcnn"]
)
def test_at_width_1_it_finds_what_torchvisions_network_finds(config: SSD300 | FasterRCNN, size: int):
    """With its weights, and what it keeps by default; of Faster R-CNN, which resizes, in images that are as large as
    asked for.
    """
    keep = {"confidence": 0.05, "overlap": 0.45 if config.kind == "ssd300" else 0.5, "most": 20}
    network = {"ssd300": ssd300, "fasterrcnn": faster_rcnn}[config.kind](config, SimpleNamespace(**keep)).eval()
    theirs = with_weights(published(config.kind, classes=4), network.state_dict()).eval()
    last = theirs.roi_heads if config.kind == "fasterrcnn" else theirs
    last.score_thresh, last.nms_thresh, last.detections_per_img = keep["confidence"], keep["overlap"], keep["most"]
    if config.kind == "fasterrcnn":
        theirs.transform.min_size, theirs.transform.max_size = (size,), size
    image = torch.rand(1, 3, size, size)
    with torch.no_grad():
        (found,), (expected,) = network(image), theirs(list(image))
    assert len(found.boxes) == 20 and expected["labels"].min() >= 1
    torch.testing.assert_close(
        found, Detections(expected["boxes"], expected["scores"], expected["labels"] - 1), rtol=1e-4, atol=1e-3
    )


@narrow
def test_batches_and_targets_mean_what_torchvisions_lists_do(config: SSD300 | FasterRCNN):
    """The same network through torchvision's own `forward`: lists of images, of targets, its resizing to the same
    size.
    """
    network, theirs = build(config), torchvision_detectors._parts()
    their_forward = getattr(theirs, {"ssd300": "SSD", "fasterrcnn": "FasterRCNN"}[config.kind]).__bases__[0].forward
    images, targets = torch.rand(2, 3, config.size, config.size), some_targets(config.size)
    network.train()
    torch.manual_seed(5)
    torch.rand(len(images) if config.kind == "fasterrcnn" else 0)  # torchvision draws a size for each image, of one
    losses = network(images, targets)  # and both draw the proposals that are learned from
    torch.manual_seed(5)
    expected = their_forward(network, list(images), as_torchvision(targets))
    assert losses.keys() == expected.keys() == LOSSES[config.kind]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    network.eval()
    with torch.no_grad():
        found, expected = network(images), their_forward(network, list(images))
    assert len(found) == 2 and all(len(one.boxes) > 10 for one in found)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one, Detections(other["boxes"], other["scores"], other["labels"] - 1), rtol=1e-4, atol=1e-3
        )


@pytest.mark.parametrize(
    "config",
    [
        SSD300(classes=1, size=300, width=0.125),
        SSD300(classes=80, size=320, width=0.125),
        FasterRCNN(classes=1, size=160, width=0.125),
        FasterRCNN(classes=80, size=320, width=0.125),
        FasterRCNN(classes=2, size=96, width=0.2),
    ],
    ids=lambda config: f"{config.kind} {config.size}",
)
def test_narrow_networks_take_any_size_and_number_of_classes(config: SSD300 | FasterRCNN):
    network, targets = build(config), some_targets(config.size, images=1)
    image = torch.rand(1, 3, config.size, config.size)
    losses = network.train()(image, targets._replace(labels=targets.labels % config.classes))
    assert losses.keys() == LOSSES[config.kind] and all(loss.ndim == 0 and loss.isfinite() for loss in losses.values())
    with torch.no_grad():
        network.eval()(image)
    assert sum(parameter.numel() for parameter in network.parameters()) < 2.5e6


def layout(network: nn.Module) -> list[tuple]:
    """Convolutions and poolings in their order, with their channels."""
    return [
        (*layer.kernel_size, *layer.stride, *layer.padding, *layer.dilation, layer.in_channels, layer.out_channels)
        if isinstance(layer, nn.Conv2d)
        else (layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d)
    ]


def test_images_are_not_resized():
    """Those of a multi-scale run are larger or smaller than `config.size`; boxes are in their own pixels."""
    network, images, targets = build(NARROW[1]), torch.rand(1, 3, 128, 128), some_targets(128, images=1)
    assert all(loss.isfinite() for loss in network.train()(images, targets).values())
    with torch.no_grad():
        (found,) = network.eval()(images)
    assert 64 < found.boxes.max() <= 128


@pytest.mark.parametrize("make", [SSD300, FasterRCNN])
def test_narrow_backbones_have_the_published_layout(make: Callable[..., Any]):
    with torch.device("meta"):
        halved = layout(build(make(width=0.5)).backbone)
    assert halved == [
        (*layer[:-2], layer[-2] // 2 if layer[-2] != 3 else 3, layer[-1] // 2) if len(layer) > 4 else layer
        for layer in layout(published(make().kind).backbone)
    ]


def test_a_narrow_faster_rcnn_has_torchvisions_names_and_levels():
    with torch.device("meta"):
        network = build(FasterRCNN(width=0.125, classes=90))
        levels, expected = (one.backbone(torch.empty(1, 3, 320, 320)) for one in (network, published("fasterrcnn")))
    assert shapes(network).keys() == shapes(published("fasterrcnn")).keys()
    assert [(name, level.shape[-1]) for name, level in levels.items()] == [
        (name, level.shape[-1]) for name, level in expected.items()
    ]


@pytest.mark.parametrize("width", [1.0, 0.125])
@pytest.mark.parametrize(
    ("size", "cells"),
    [
        (160, (20, 10, 5, 3, 2, 1)),
        (256, (32, 16, 8, 4, 2, 1)),
        (267, (33, 16, 8, 4, 2, 1)),
        (268, (34, 17, 9, 5, 3, 1)),
        (300, (38, 19, 10, 5, 3, 1)),
        (320, (40, 20, 10, 5, 3, 1)),
        (512, (64, 32, 16, 8, 6, 4)),
    ],
)
def test_ssd_has_six_maps_at_any_size(width: float, size: int, cells: tuple[int, ...]):
    with torch.device("meta"):
        network = build(SSD300(classes=1, size=size, width=width))
        maps = list(network.backbone(torch.empty(1, 3, size, size)).values())
    assert tuple(level.shape[-1] for level in maps) == cells
    assert [level.shape[1] for level in maps] == network.backbone.out_channels


def test_default_boxes_of_ssd():
    """8,732 of them, those of torchvision's network; at other sizes they cover the image evenly."""
    network, image = build(SSD300(classes=1, width=0.125)), torch.empty(1, 3, 300, 300)
    maps = list(network.backbone(torch.rand(2, 3, 300, 300)).values())
    from torchvision.models.detection.image_list import ImageList

    listed = ImageList(image, [(300, 300)])
    theirs = published("ssd300").anchor_generator
    theirs = type(theirs)(theirs.aspect_ratios, scales=theirs.scales, steps=theirs.steps)
    (boxes,), (expected,) = network.anchor_generator(listed, maps), theirs(listed, maps)
    assert len(boxes) == 8732 and torch.equal(boxes, expected)
    small = build(SSD300(classes=1, size=160, width=0.125))
    maps = [torch.empty(1, 1, cells, cells) for cells in (20, 10, 5, 3, 2, 1)]
    (boxes,) = small.anchor_generator(ImageList(torch.empty(1, 3, 160, 160), [(160, 160)]), maps)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(centres[:4], torch.full((4, 2), 4.0))  # of the first of 20 cells of 8 pixels
    torch.testing.assert_close(centres.mean(0), torch.full((2,), 80.0))


def test_anchors_of_a_narrow_faster_rcnn_grow_with_the_image():
    def sides(config: FasterRCNN) -> list[float]:
        return [size for level in build(config).rpn.anchor_generator.sizes for size in level]

    with torch.device("meta"):
        assert sides(FasterRCNN(size=320)) == sides(FasterRCNN(width=0.25)) == [32, 64, 128, 256, 512]
        assert sides(FasterRCNN(size=320, width=0.25)) == [16, 32, 64, 128, 256]


def default_boxes(network: nn.Module, size: int) -> Tensor:
    """Of SSD: the first of each map."""
    from torchvision.models.detection.image_list import ImageList

    image = torch.rand(1, 3, size, size)
    with torch.no_grad():
        maps = list(network.eval().backbone(image).values())
    (boxes,) = network.anchor_generator(ImageList(image, [(size, size)]), maps)
    numbers = [
        level.shape[-1] ** 2 * count
        for level, count in zip(maps, network.anchor_generator.num_anchors_per_location(), strict=True)
    ]
    return boxes[torch.tensor([0, *numbers[:-1]]).cumsum(0)]


@narrow
def test_gradients_reach_every_parameter(config: SSD300 | FasterRCNN):
    network, targets = build(config), some_targets(config.size)
    if config.kind == "ssd300":  # a map learns where to find boxes that are like its default boxes
        boxes = default_boxes(network, config.size)
        targets = Targets(boxes, torch.arange(6) % 3, torch.tensor([0, 0, 0, 1, 1, 1]), 2)
    sum(network.train()(torch.rand(2, 3, config.size, config.size), targets).values()).backward()
    missing = [
        name for name, parameter in network.named_parameters() if parameter.grad is None or not parameter.grad.any()
    ]
    assert missing == []


EMPTY = {
    "one image without boxes": lambda targets: Targets(targets.boxes[3:], targets.labels[3:], targets.images[3:], 2),
    "no boxes at all": lambda targets: Targets(targets.boxes[:0], targets.labels[:0], targets.images[:0], 2),
    "boxes without area alone": lambda targets: targets._replace(boxes=targets.boxes[:, [0, 1, 0, 3]]),
}


@narrow
@pytest.mark.parametrize("change", EMPTY.values(), ids=EMPTY.keys())
def test_images_without_boxes_train(config: SSD300 | FasterRCNN, change: Callable[[Targets], Targets]):
    """Every parameter has a gradient, be it 0: workers wait for each other's."""
    network, targets = build(config).train(), change(some_targets(config.size))
    losses = network(torch.rand(2, 3, config.size, config.size), targets)
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_boxes_without_area_change_nothing():
    config = NARROW[0]
    network, images, targets = (
        build(config).train(),
        torch.rand(2, 3, config.size, config.size),
        some_targets(config.size),
    )
    flat = torch.tensor([[10.0, 10.0, 10.0, 50.0], [20.0, 9.0, 60.0, 8.0]])
    more = Targets(
        torch.cat([flat[:1], targets.boxes, flat[1:]]),
        torch.cat([torch.tensor([2]), targets.labels, torch.tensor([0])]),
        torch.cat([torch.tensor([0]), targets.images, torch.tensor([1])]),
        2,
    )
    torch.testing.assert_close(network(images, more), network(images, targets))


def regions_of(corners: tuple[float, ...], images: int) -> Targets:
    """The same ignore region in every image."""
    return Targets(
        torch.tensor([corners]).repeat(images, 1), torch.zeros(images, dtype=torch.int64), torch.arange(images), images
    )


@narrow
def test_an_ignore_region_away_from_everything_changes_nothing(config: SSD300 | FasterRCNN):
    network, images, targets = (
        build(config).train(),
        torch.rand(2, 3, config.size, config.size),
        some_targets(config.size),
    )
    away = targets._replace(ignored=regions_of((-900.0, -900.0, -800.0, -800.0), 2))
    losses = []
    for one in (targets, away):
        torch.manual_seed(3)  # proposals are sampled
        losses.append(network(images, one))
    torch.testing.assert_close(*losses, rtol=0, atol=0)


def test_ssd_learns_no_background_in_an_ignore_region():
    config = NARROW[0]
    network, images, targets = (
        build(config).train(),
        torch.rand(2, 3, config.size, config.size),
        some_targets(config.size),
    )
    everywhere = targets._replace(ignored=regions_of((-900.0, -900.0, 900.0, 900.0), 2))
    network.neg_to_pos_ratio = 0  # without any background
    alone = network(images, targets)
    network.neg_to_pos_ratio = 3
    found, plain = network(images, everywhere), network(images, targets)
    torch.testing.assert_close(found, alone)
    assert plain["classification"] > 1.1 * alone["classification"]


def test_faster_rcnn_learns_no_background_in_an_ignore_region():
    config = NARROW[1]
    network, images = build(config).train(), torch.rand(2, 3, config.size, config.size)
    truth = torchvision_detectors._by_image(
        some_targets(config.size)._replace(ignored=regions_of((0.0, 0.0, float(config.size), config.size), 2))
    )
    anchors = [
        torch.tensor([[0.0, 0.0, 8.0, 8.0], [-8.0, -8.0, 8.0, 8.0], [-4.0, 0.0, 4.0, 8.0], *truth[0]["boxes"].tolist()])
    ] * 2
    labels, _ = network.rpn.assign_targets_to_anchors(anchors, truth)
    assert labels[0].tolist() == [-1, 0, -1, 1, 1, 1], "inside; a quarter inside; half inside; true boxes"
    proposals, _, classes, _ = network.roi_heads.select_training_samples(
        [anchor.clamp(min=0) for anchor in anchors], truth
    )
    assert (torch.cat(classes) > 0).all() and all(len(found) >= 3 for found in proposals)
    none = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64), 2)
    losses = network(images, none._replace(ignored=regions_of((0.0, 0.0, float(config.size), config.size), 2)))
    assert losses["loss_classifier"] == losses["loss_box_reg"] == 0 and all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=3), min_size=1, max_size=5))
def test_each_image_has_its_own_boxes(labels_of_images: list[list[int]]):
    labels = [label for labels in labels_of_images for label in labels]
    images = [number for number, labels in enumerate(labels_of_images) for _ in labels]
    boxes = torch.tensor([[float(place), 0.0, place + 1.0, 1.0] for place in range(len(labels))]).reshape(-1, 4)
    found = torchvision_detectors._by_image(
        Targets(
            boxes,
            torch.tensor(labels, dtype=torch.int64),
            torch.tensor(images, dtype=torch.int64),
            len(labels_of_images),
        )
    )
    assert [one["labels"].tolist() for one in found] == [[label + 1 for label in labels] for labels in labels_of_images]
    assert torch.cat([one["boxes"] for one in found])[:, 0].tolist() == list(range(len(labels)))


@narrow
def test_what_is_found_is_valid_and_the_best_comes_first(config: SSD300 | FasterRCNN):
    keep = SimpleNamespace(confidence=0.3, overlap=0.4, most=40)
    network = {"ssd300": ssd300, "fasterrcnn": faster_rcnn}[config.kind](config, keep).eval()
    with torch.no_grad():
        found = network(torch.rand(3, 3, config.size, config.size))
    assert len(found) == 3
    for boxes, scores, labels in found:
        assert 0 < len(boxes) == len(scores) == len(labels) <= 40
        assert boxes.dtype == scores.dtype == torch.float32 and labels.dtype == torch.int64
        assert (boxes >= 0).all() and (boxes <= config.size).all() and (boxes[:, 2:] >= boxes[:, :2]).all()
        assert (scores.diff() <= 0).all() and scores.min() > 0.3 and scores.max() <= 1
        assert set(labels.tolist()) <= {0, 1, 2}
        overlap = pairwise_iou(boxes, boxes) * (labels[:, None] == labels) * (1 - torch.eye(len(boxes)))
        assert overlap.max() < 0.4 + 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@narrow
def test_half_precision_leaves_boxes_and_losses_whole(config: SSD300 | FasterRCNN, dtype: torch.dtype):
    """A box of a large image is out by pixels in half precision, and its area more than float16 can say."""
    network, images, targets = build(config), torch.rand(2, 3, config.size, config.size), some_targets(config.size)
    coders = [network.box_coder] if config.kind == "ssd300" else [network.rpn.box_coder, network.roi_heads.box_coder]
    seen: list[tuple[Tensor, ...]] = []
    for coder in coders:
        coder.encode_single, coder.decode_single = _noted(coder.encode_single, seen), _noted(coder.decode_single, seen)
    with torch.autocast("cpu", dtype=dtype):
        losses = network.train()(images, targets)
        with torch.no_grad():
            found = network.eval()(images)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert {part.dtype for one in found for part in (one.boxes, one.scores)} == {torch.float32}
    assert len(seen) >= 2 * len(coders) and {tensor.dtype for tensors in seen for tensor in tensors} == {torch.float32}
    default = seen[-2][1]  # SSD's of the first image, or Faster R-CNN's anchors, ahead of its proposals
    seen.clear()
    with torch.no_grad():
        network(images)
    assert torch.equal(default, seen[0][1])  # boxes that nothing depends on are the same to the last digit


def _noted(function: Callable[..., Tensor], seen: list[tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    def noting(*tensors: Tensor) -> Tensor:
        seen.append(tensors)
        return function(*tensors)

    return noting


@narrow
def test_it_is_told_apart_whether_it_trains(config: SSD300 | FasterRCNN):
    network, images = build(config), torch.rand(1, 3, config.size, config.size)
    message = "takes targets in training, for its losses, and none in evaluation"
    with pytest.raises(ValueError, match=message):
        network.train()(images)
    with pytest.raises(ValueError, match=message):
        network.eval()(images, some_targets(config.size, images=1))


@pytest.mark.parametrize(
    ("config", "steps", "rate", "least"),
    [(NARROW[0], 30, 3e-3, 20), (NARROW[1], 30, 1e-3, 4)],
    ids=["ssd300", "fasterrcnn"],
)
def test_two_images_are_learned_by_heart(config: SSD300 | FasterRCNN, steps: int, rate: float, least: float):
    """The loss falls to less than a `least`-th, the mean of the last five steps; each class has a colour."""
    images = torch.rand(2, 3, config.size, config.size) * 0.2
    boxes = (torch.tensor([[0.1, 0.2, 0.5, 0.7], [0.6, 0.5, 0.9, 0.95], [0.3, 0.1, 0.8, 0.6]]) * config.size).round()
    targets = Targets(boxes, torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2)
    for (left, top, right, bottom), label, image in zip(
        boxes.int().tolist(), targets.labels, targets.images, strict=True
    ):
        images[image, label, top:bottom, left:right] += 0.7
    network = build(config).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        loss = sum(network(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-5:]) / 5 < losses[0] / least


def test_older_names_and_missing_counters_of_published_weights():
    """torchvision's own loading is the measure: it knows the names of its older files."""
    network = build(FasterRCNN(classes=1, width=0.125))
    current = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    old = {
        name.replace("rpn.head.conv.0.0", "rpn.head.conv"): torch.full_like(tensor, float(place % 7))
        for place, (name, tensor) in enumerate(current.items())
        if not name.endswith("num_batches_tracked")
    }
    old = {
        name.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if ".fpn." in name else name: tensor
        for name, tensor in old.items()
    }
    assert (
        "rpn.head.conv.weight" in old
        and "backbone.fpn.inner_blocks.3.bias" in old
        and "backbone.body.layer1.0.conv1.weight" in old
    )
    found = from_published(old)
    network.load_state_dict(dict(old))
    assert found.keys() == current.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in network.state_dict().items())
    assert from_published(current).keys() == current.keys() and all(
        from_published(current)[name] is tensor for name, tensor in current.items()
    )


@pytest.mark.parametrize("training", [False, True])
def test_weights_of_fixed_norms_compute_what_torchvision_makes_of_its_own_file(training: bool):
    """torchvision reads its COCO weights with an eps of 0. Some variances are as small as our eps, or smaller."""
    from torchvision.models.detection._utils import overwrite_eps
    from torchvision.ops import FrozenBatchNorm2d

    published_norm, ours = FrozenBatchNorm2d(64).double(), nn.BatchNorm2d(64).double()
    published_norm.weight.copy_(torch.rand(64) + 0.5)
    published_norm.running_mean.copy_(torch.randn(64))
    published_norm.running_var.copy_(torch.logspace(-7, 1, 64))
    overwrite_eps(published_norm, 0.0)
    state = dict(published_norm.state_dict())
    ours.load_state_dict(with_usual_eps(state), strict=False)
    x = (
        published_norm.running_mean[:, None, None]
        + torch.randn(4, 64, 8, 8).double() * published_norm.running_var.sqrt()[:, None, None]
    )
    if training:  # the same, if statistics are the batch's
        variance, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        ours.load_state_dict(with_usual_eps(state | {"running_var": variance}), strict=False)
        published_norm.running_mean.copy_(mean)
        published_norm.running_var.copy_(variance)
    torch.testing.assert_close(ours.train(training)(x), published_norm(x), rtol=1e-9, atol=1e-9)


def test_a_norm_without_variance_keeps_its_gain():
    state = {
        "bn.running_var": torch.tensor([0.0, 1e-5]),
        "bn.weight": torch.tensor([2.0, 2.0]),
        "bn.running_mean": torch.zeros(2),
    }
    torch.testing.assert_close(with_usual_eps(state)["bn.weight"], torch.tensor([2.0, 2.0 * 2**0.5]))


@narrow
def test_a_machine_without_torchvision_is_told(config: Any, monkeypatch: pytest.MonkeyPatch):
    torchvision_detectors._parts.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(
        InputError, match=rf"model.kind '{config.kind}' is torchvision's, which cannot be imported: .*torchvision"
    ):
        build(config)
