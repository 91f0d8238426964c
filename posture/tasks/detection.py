"""Finding objects in images: equation (3) for YOLO networks, what raw outputs mean, and what is kept to judge them.

Tensor legend: N images, A anchors of each level, H x W cells of a level, K classes, B true boxes, M matches, D
detections of an image. A YOLO network's outputs are a list of raw tensors (N, A, H, W, 5 + K), the finest level first:
x, y, width, height, objectness and classes, all logits. torchvision's detectors compute their losses themselves, and
answer with `Detections`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from posture.errors import InputError
from posture.models.boxes import ENOUGH_INSIDE, Detections, Targets, box_loss, iou, nms, share_inside, xyxy_from_cxcywh
from posture.models.detector_configs import STRIDES
from posture.tasks.anchors import Matches, match
from posture.tasks.detection_metrics import ScoredImage, detection_metrics

CANDIDATES = 3000
"""Boxes of an image that are compared with each other, at most: the most certain ones."""

OWN_TERMS = {
    "ssd300": ("bbox_regression", "classification"),
    "fasterrcnn": ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"),
}
"""The losses that torchvision's networks compute themselves, by kind of model."""

FIGURES = ("map50_95", "map50", "precision", "recall", "f1")
"""What validation tells of `detection_metrics`."""


@dataclass(frozen=True)
class Totals:
    """What was found in some images."""

    pictures: list[ScoredImage]
    loss: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Sum and count of each term; empty for networks that give no losses in evaluation."""


class DetectionTask:
    """Loss, boxes and what is counted to judge them; `run` is a `posture.config.DetectorRun`, or has its `model`,
    `loss` and `detect`.

    The class and the box loss of equation (3) are means over the matches of all levels, times the number of levels: a
    match counts the same on whatever level it is, and l1 and l3 mean what they do in YOLOv5, which adds its levels'
    means.

    Ignore regions teach nothing. In a YOLO network's objectness loss, a place counts for nothing if the box it predicts
    lies in an ignore region by half or more and it answers for no true box; torchvision's networks leave out the
    default boxes and proposals that do so. In the figures, detections there are neither hits nor misses, see
    `detection_metrics`.
    """

    def __init__(self, run: Any, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.in_network = run.model.takes_targets
        """Whether the network itself computes the loss, and takes the targets for it."""
        self.terms = OWN_TERMS[run.model.kind] if self.in_network else ("class", "objectness", "box")
        self.anchors = () if self.in_network else run.model.anchors
        self.loss_section, self.detect_section = run.loss, run.detect

    def counts(self, targets: Targets, *, size: int | tuple[int, int]) -> dict[str, float]:
        """What each term of the loss will be divided by, known before the forward pass: matches for "class" and "box",
        images for the others.

        `size`: the images' side, or (height, width), in pixels.
        """
        counts = dict.fromkeys(self.terms, float(targets.count))
        if not self.in_network:
            counts["class"] = counts["box"] = _count(
                match(targets, self.anchors, size=size, ratio=self.loss_section.anchor_ratio)
            )
        return counts

    def loss(self, outputs: Any, targets: Targets) -> dict[str, tuple[Tensor, float]]:
        """Each term of equation (3) as (sum in float32, count); "class", "objectness" and "box" with l1, l2 and l3 in
        the sums.

        `outputs`: raw tensors of a YOLO network, or mean losses of one that computes them itself, which are taken for
        means over images.
        Raises InputError where the network has another number of classes.
        """
        if self.in_network:
            return {term: (outputs[term].float() * targets.count, float(targets.count)) for term in self.terms}
        self._refuse_other_classes(outputs)
        matches = match(targets, self.anchors, size=_size(outputs), ratio=self.loss_section.anchor_ratio)
        levels = [
            self._level_loss(level, raw, found, targets)
            for level, (raw, found) in enumerate(zip(outputs, matches, strict=True))
        ]
        classes, objectness, boxes = (torch.stack(terms).sum() for terms in zip(*levels, strict=True))
        section, count = self.loss_section, _count(matches)
        return {
            "class": (section.l1 * len(levels) * classes, count),
            "objectness": (section.l2 * objectness, float(targets.count)),
            "box": (section.l3 * len(levels) * boxes, count),
        }

    @torch.no_grad()
    def detect(self, outputs: Any) -> list[Detections]:
        """What `run.detect` lets through of the outputs in evaluation, image by image, best first, in pixels of the
        network's image.

        Of a YOLO network the score is objectness times class probability, every class of a place that is certain enough
        is a candidate, and boxes are clipped to the image. torchvision's networks have suppressed overlaps
        themselves.
        """
        if self.in_network:
            return [self._certain(detections) for detections in outputs]
        self._refuse_other_classes(outputs)
        images, boxes, scores, labels = self._candidates(outputs)
        section, (height, width) = self.detect_section, _size(outputs)
        kept, numbers = nms(
            boxes,
            scores,
            labels,
            images,
            count=len(outputs[0]),
            threshold=section.overlap,
            overlap=section.nms_overlap,
            most=section.most,
            candidates=CANDIDATES,
        )
        boxes = boxes[kept].clamp(min=0).minimum(boxes.new_tensor((width, height, width, height)))
        return [
            Detections(*parts)
            for parts in zip(
                boxes.split(numbers), scores[kept].split(numbers), labels[kept].split(numbers), strict=True
            )
        ]

    @torch.no_grad()
    def totals(self, outputs: Any, targets: Targets) -> Totals:
        """What `metrics` needs of a batch, in the CPU's memory; the loss too, where outputs in evaluation tell it."""
        in_each = torch.bincount(targets.images, minlength=targets.count).tolist()
        truth = [*zip(targets.boxes.split(in_each), targets.labels.split(in_each), strict=True)]
        if targets.ignored is not None:
            in_each = torch.bincount(targets.ignored.images, minlength=targets.count).tolist()
            regions = zip(targets.ignored.boxes.split(in_each), targets.ignored.labels.split(in_each), strict=True)
            truth = [(*true, *ignored) for true, ignored in zip(truth, regions, strict=True)]
        images = [
            tuple(part.cpu().numpy() for part in (*found, *true))
            for found, true in zip(self.detect(outputs), truth, strict=True)
        ]
        loss = (
            {}
            if self.in_network
            else {term: (float(total), count) for term, (total, count) in self.loss(outputs, targets).items()}
        )
        return Totals(images, loss)

    def added(self, totals: Totals, more: Totals) -> Totals:
        """The totals of two batches as those of one."""
        terms = totals.loss | more.loss
        loss = {
            term: tuple(map(sum, zip(totals.loss.get(term, (0.0, 0.0)), more.loss.get(term, (0.0, 0.0)), strict=True)))
            for term in terms
        }
        return Totals(totals.pictures + more.pictures, loss)

    def metrics(self, parts: Sequence[Totals | None]) -> dict[str, float]:
        """Totals of all workers (None of one without images) -> map50_95, map50, precision, recall, f1, count
        (images), and loss if there is one.

        As in `detection_metrics`; 0 where there is nothing to find.
        """
        totals = Totals([])
        for part in parts:
            totals = totals if part is None else self.added(totals, part)
        found = detection_metrics(totals.pictures, self.classes, most=self.detect_section.most)
        metrics = {name: found[name] or 0.0 for name in FIGURES} | {"count": found["count"]}
        if totals.loss:
            metrics["loss"] = sum(total / max(count, 1.0) for total, count in totals.loss.values())
        return metrics

    def _level_loss(self, level: int, raw: Tensor, found: Matches, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """Without l1, l2, l3: the class loss summed over matches, the balanced objectness loss over images, the box
        loss over matches.
        """
        smoothing, (_, anchors, rows, columns, _) = self.loss_section.label_smoothing, raw.shape
        predicted = raw[found.places].float()  # (M, 5 + K)
        places = self._places(level, raw)[found.anchors, found.rows, found.columns]
        boxes, true_boxes = decoded(predicted[:, :4].sigmoid(), places), targets.boxes[found.boxes].float()
        answers = functional.one_hot(targets.labels[found.boxes], len(self.classes)) * (1 - smoothing) + smoothing / 2
        class_loss = functional.binary_cross_entropy_with_logits(predicted[:, 5:], answers, reduction="sum") / len(
            self.classes
        )

        # A place should be as sure of itself as its box is good; where it answers for several boxes, as for the one it
        # fits best.
        good = iou(boxes.detach(), true_boxes).clamp(0, 1)
        objectness = raw[..., 4].float()  # (N, A, H, W)
        wanted = torch.zeros(objectness.shape, device=raw.device)
        place = ((found.pictures * anchors + found.anchors) * rows + found.rows) * columns + found.columns
        wanted.view(-1).scatter_reduce_(0, place, good, "amax")
        weight = None
        if targets.ignored is not None:
            weight = self._weight(level, raw, targets.ignored)
            weight.view(-1)[place] = 1.0
        per_image = functional.binary_cross_entropy_with_logits(objectness, wanted, weight, reduction="sum") / (
            anchors * rows * columns
        )  # (4)
        return (
            class_loss,
            self.loss_section.balance[level] * per_image,
            box_loss(boxes, true_boxes, self.loss_section.box_loss).sum(),
        )

    @torch.no_grad()
    def _weight(self, level: int, raw: Tensor, regions: Targets) -> Tensor:
        """What each place counts as background, (N, A, H, W) float32: 0 if the box it predicts lies in an ignore
        region, else 1.
        """
        weight, places = torch.ones(raw.shape[:4], device=raw.device), self._places(level, raw)
        for image in regions.images.unique().tolist():
            # (A * H * W, 4)
            boxes = decoded(raw[image, ..., :4].float().sigmoid().flatten(0, 2), places.flatten(0, 2))
            inside = share_inside(boxes, regions.boxes[regions.images == image].float()).amax(dim=1) >= ENOUGH_INSIDE
            weight[image].view(-1)[inside] = 0.0
        return weight

    def _places(self, level: int, raw: Tensor) -> Tensor:
        """What `decoded` takes, of each anchor and cell of a level: (A, H, W, 6)."""
        rows, columns = raw.shape[2:4]
        return _level_places(tuple(map(tuple, self.anchors[level])), STRIDES[level], rows, columns, raw.device)

    def _candidates(self, outputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All that is certain enough: the image it is in, box, score and label; a box comes once for each such class."""
        confidence, levels = self.detect_section.confidence, []
        for level, raw in enumerate(outputs):
            # no score is higher than its objectness
            places = (raw[..., 4].float().sigmoid() >= confidence).nonzero(as_tuple=True)
            levels.append((places[0], raw[places], self._places(level, raw)[places[1:]]))
        images, raw, places = (torch.cat(parts) for parts in zip(*levels, strict=True))
        predicted = raw.float().sigmoid()  # (M, 5 + K)
        scores = predicted[:, 4:5] * predicted[:, 5:]
        which, labels = (scores >= confidence).nonzero(as_tuple=True)
        return images[which], decoded(predicted[:, :4], places)[which], scores[which, labels], labels

    def _certain(self, detections: Detections) -> Detections:
        kept = (detections.scores >= self.detect_section.confidence).nonzero().flatten()[: self.detect_section.most]
        return Detections(detections.boxes[kept].float(), detections.scores[kept].float(), detections.labels[kept])

    def _refuse_other_classes(self, outputs: list[Tensor]) -> None:
        if outputs[0].shape[-1] != 5 + len(self.classes):
            raise InputError(
                f"model.classes is {outputs[0].shape[-1] - 5}, but the images have {len(self.classes)} classes"
            )


def decoded(reach: Tensor, places: Tensor) -> Tensor:
    """Sigmoids of x, y, width and height (M, 4) at `places` (M, 6) -> boxes (M, 4) xyxy in pixels, as YOLOv5 6.x reads
    them.

    A centre lies up to half a cell outside its cell, and a side is up to four times the anchor's. A place: where its
    centres begin (x, y), how far they reach (x, y), and four times its anchor's sides.
    """
    return xyxy_from_cxcywh(
        torch.cat([places[:, :2] + reach[:, :2] * places[:, 2:4], reach[:, 2:] ** 2 * places[:, 4:]], dim=1)
    )


@functools.lru_cache(maxsize=64)
def _level_places(
    anchors: tuple[tuple[float, float], ...], stride: int, rows: int, columns: int, device: torch.device
) -> Tensor:
    with torch.inference_mode(False):  # what is kept serves training too
        shape = (len(anchors), rows, columns)
        x, y = ((torch.arange(cells, dtype=torch.float32) - 0.5) * stride for cells in (columns, rows))
        sides = 4 * torch.tensor(anchors, dtype=torch.float32)[:, None, None].expand(*shape, 2)
        reach = torch.full((*shape, 2), 2.0 * stride)
        return torch.cat([torch.stack([x.expand(shape), y[:, None].expand(shape)], dim=-1), reach, sides], dim=-1).to(
            device
        )


def _size(outputs: list[Tensor]) -> tuple[int, int]:
    """Height and width in pixels of the images that a YOLO network looked at: they may differ from batch to batch."""
    _, _, rows, columns, _ = outputs[0].shape
    return rows * STRIDES[0], columns * STRIDES[0]


def _count(matches: list[Matches]) -> float:
    return float(sum(len(level.boxes) for level in matches))
