"""Object detection: equation (3) for YOLO networks, decoding of raw outputs, and totals for metrics.

Tensor legend: N images, A anchors of each level, H x W cells of a level, K classes, B true boxes, M matches, D
detections of an image. A YOLO network's outputs are a list of raw tensors (N, A, H, W, 5 + K), the finest level first:
x, y, width, height, objectness and classes, all logits. torchvision's detectors compute their losses themselves, and
return `Detections`. A place is an anchor in a cell.
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
"""Maximum number of boxes of an image that suppression compares: those with the highest scores."""

SCALED_CLASSES, SCALED_SIZE = 80, 640
"""Classes and image side in pixels that YOLOv5's weights of the loss were chosen for, see `loss.scaled`."""

OWN_TERMS = {
    "ssd300": ("bbox_regression", "classification"),
    "fasterrcnn": ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg"),
}
"""Losses that torchvision's networks compute themselves, by kind of model."""

FIGURES = ("map50_95", "map50", "precision", "recall", "f1")
"""Figures of `detection_metrics` that validation reports."""


@dataclass(frozen=True)
class Totals:
    """Detections and true boxes of some images."""

    images: list[ScoredImage]
    loss: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Sum and count of each term; empty for networks that give no losses in evaluation."""


class DetectionTask:
    """Loss, detections and metrics; `run` is a `posture.config.DetectionRun`, or has its `model`, `loss` and `detect`.

    The class and the box loss of equation (3) are means over the matches of all levels, times the number of levels. So
    a match counts the same on every level, and l1 and l3 mean what they do in YOLOv5, which adds its levels' means.

    Ignore regions do not contribute to the loss. In a YOLO network's objectness loss, a place is left out if it matches
    no true box and at least half of its predicted box lies in an ignore region. torchvision's networks leave out such
    default boxes and proposals. In the metrics, detections there are neither true nor false positives, see
    `detection_metrics`.
    """

    def __init__(self, run: Any, classes: tuple[str, ...]) -> None:
        self.classes = classes
        self.in_network = run.model.takes_targets
        """True if the network itself computes the loss and takes the targets."""
        self.terms: tuple[str, ...] = OWN_TERMS[run.model.kind] if self.in_network else ("class", "objectness", "box")
        self.anchors = () if self.in_network else run.model.anchors
        self.loss_section, self.detect_section = run.loss, run.detect
        self.size = run.model.size

    def counts(self, targets: Targets, *, size: int | tuple[int, int]) -> dict[str, float]:
        """Return the divisor of each loss term, known before the forward pass: matches or images.

        Matches are for "class" and "box", images for the others.
        `size` is the images' side, or (height, width), in pixels.
        """
        counts = dict.fromkeys(self.terms, float(targets.count))
        if not self.in_network:
            counts["class"] = counts["box"] = _count(
                match(targets, self.anchors, size=size, ratio=self.loss_section.anchor_ratio)
            )
        return counts

    def loss(self, outputs: Any, targets: Targets) -> dict[str, tuple[Tensor, float]]:
        """Return each term of equation (3) as (sum in float32, count): "class", "objectness" and "box", the sums with
        l1, l2 and l3.

        `outputs` are raw tensors of a YOLO network, or the mean losses of a network that computes them itself, which
        are taken as means over images. Raises InputError if the network has another number of classes.
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
        count, (l1, l2, l3) = _count(matches), self.weights()
        return {
            "class": (l1 * len(levels) * classes, count),
            "objectness": (l2 * objectness, float(targets.count)),
            "box": (l3 * len(levels) * boxes, count),
        }

    def weights(self) -> tuple[float, float, float]:
        """Return l1, l2 and l3 of equation (3), the first two scaled by classes and size if the run says so."""
        loss = self.loss_section
        if not loss.scaled:
            return loss.l1, loss.l2, loss.l3
        return loss.l1 * len(self.classes) / SCALED_CLASSES, loss.l2 * (self.size / SCALED_SIZE) ** 2, loss.l3

    @torch.no_grad()
    def detect(self, outputs: Any) -> list[Detections]:
        """Return each image's detections after the thresholds of `run.detect`, best first, in pixels of the network's
        image.

        The score of a YOLO network is objectness times class probability. Every class above the threshold is a
        candidate, and boxes are clipped to the image. torchvision's networks have suppressed overlaps themselves.
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
        """Return what `metrics` needs of a batch, in host memory, with the loss if evaluation outputs determine it."""
        in_each = torch.bincount(targets.images, minlength=targets.count).tolist()
        truth = [*zip(targets.boxes.split(in_each), targets.labels.split(in_each), strict=True)]
        if targets.ignored is not None:
            in_each = torch.bincount(targets.ignored.images, minlength=targets.count).tolist()
            regions = zip(targets.ignored.boxes.split(in_each), targets.ignored.labels.split(in_each), strict=True)
            truth = [(*true, *ignored) for true, ignored in zip(truth, regions, strict=True)]
        images = [
            ScoredImage(*(part.cpu().numpy() for part in (*found, *true)))
            for found, true in zip(self.detect(outputs), truth, strict=True)
        ]
        loss = (
            {}
            if self.in_network
            else {term: (float(total), count) for term, (total, count) in self.loss(outputs, targets).items()}
        )
        return Totals(images, loss)

    def added(self, totals: Totals, more: Totals) -> Totals:
        """Return the totals of two batches as those of one."""
        loss = dict(totals.loss)
        for term, (total, count) in more.loss.items():
            before = loss.get(term, (0.0, 0.0))
            loss[term] = before[0] + total, before[1] + count
        return Totals(totals.images + more.images, loss)

    def metrics(self, parts: Sequence[Totals | None]) -> dict[str, float]:
        """Return map50_95, map50, precision, recall, f1, count (images), and loss if there is one, from all totals.

        There is one of each worker, None of a worker without images.

        See `detection_metrics`; undefined figures are 0.
        """
        totals = Totals([])
        for part in parts:
            totals = totals if part is None else self.added(totals, part)
        found = detection_metrics(totals.images, self.classes, most=self.detect_section.most)
        metrics = {name: found[name] or 0.0 for name in FIGURES} | {"count": found["count"]}
        if totals.loss:
            metrics["loss"] = sum(total / max(count, 1.0) for total, count in totals.loss.values())
        return metrics

    def _level_loss(self, level: int, raw: Tensor, found: Matches, targets: Targets) -> tuple[Tensor, Tensor, Tensor]:
        """Return the class loss summed over matches, the balanced objectness loss summed over images, and the box loss
        summed over matches, without l1, l2 and l3.
        """
        smoothing, (_, anchors, rows, columns, _) = self.loss_section.label_smoothing, raw.shape
        predicted = raw[found.places].float()  # (M, 5 + K)
        places = self._places(level, raw)[found.anchors, found.rows, found.columns]
        boxes, true_boxes = decoded(predicted[:, :4].sigmoid(), places), targets.boxes[found.boxes].float()
        answers = functional.one_hot(targets.labels[found.boxes], len(self.classes)) * (1 - smoothing) + smoothing / 2
        class_loss = functional.binary_cross_entropy_with_logits(predicted[:, 5:], answers, reduction="sum") / len(
            self.classes
        )

        # The objectness target of a place is the IoU of its box; of several matched boxes, the highest one.
        good = iou(boxes.detach(), true_boxes).clamp(0, 1)
        objectness = raw[..., 4].float()  # (N, A, H, W)
        wanted = torch.zeros(objectness.shape, device=raw.device)
        place = ((found.images * anchors + found.anchors) * rows + found.rows) * columns + found.columns
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
        """Return the weight of each place as background, (N, A, H, W) float32: 0 if its box lies in an ignore region,
        else 1.
        """
        weight, places = torch.ones(raw.shape[:4], device=raw.device), self._places(level, raw)
        for image in regions.images.unique().tolist():
            # (A * H * W, 4)
            boxes = decoded(raw[image, ..., :4].float().sigmoid().flatten(0, 2), places.flatten(0, 2))
            inside = share_inside(boxes, regions.boxes[regions.images == image].float()).amax(dim=1) >= ENOUGH_INSIDE
            weight[image].view(-1)[inside] = 0.0
        return weight

    def _places(self, level: int, raw: Tensor) -> Tensor:
        """Return the argument `places` of `decoded` for each anchor and cell of a level: (A, H, W, 6)."""
        rows, columns = raw.shape[2:4]
        return _level_places(tuple(map(tuple, self.anchors[level])), STRIDES[level], rows, columns, raw.device)

    def _candidates(self, outputs: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return image, box, score and label of all above the confidence threshold; a box comes once per class."""
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
    """Return boxes (M, 4) xyxy in pixels, as in YOLOv5 6.x, from sigmoids of x, y, width and height (M, 4).

    A centre lies up to half a cell outside its cell, and a side is up to four times the anchor's. Each of `places` (M,
    6) has the origin of its centres (x, y), their range (x, y), and four times its anchor's sides.
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
        reach = torch.full((*shape, 2), 2.0 * stride, dtype=torch.float32)
        return torch.cat([torch.stack([x.expand(shape), y[:, None].expand(shape)], dim=-1), reach, sides], dim=-1).to(
            device
        )


def _size(outputs: list[Tensor]) -> tuple[int, int]:
    """Return height and width, in pixels, of a YOLO network's images; they may differ from batch to batch."""
    _, _, rows, columns, _ = outputs[0].shape
    return rows * STRIDES[0], columns * STRIDES[0]


def _count(matches: list[Matches]) -> float:
    return float(sum(len(level.boxes) for level in matches))
