"""torchvision's SSD300 (Liu 2015, arXiv 1512.02325) and Faster R-CNN (Ren 2015, arXiv 1506.01497, with the pyramid of
Lin 2017).

At width 1 these are torchvision's networks under torchvision's names, so that published weights fit: SSD300 with
VGG-16, 35,641,826 parameters for 90 classes, and Faster R-CNN with ResNet-50, 41,808,406, or 41,755,286 without its
norms. Their losses and thresholds are torchvision's too. Here they take batches of letterboxed images without
resizing, and hide torchvision's background class (number 0).

Norms: Faster R-CNN's batch normalisation is trained, as in torchvision for a network from scratch; published weights
were made with it fixed. Published SSD has none, and was trained from an ImageNet VGG-16 (Liu 2015, section 3). Narrow
SSD has batch normalisation up to fc7, so that it learns from scratch: call it SSD with batch normalisation.

Ignore regions: default boxes, anchors and proposals with at least half of their area in one, and without a matching
true box, are not used as background.

Tensor legend: N images of S x S pixels, C channels, H x W cells, K classes, B boxes. Coordinates and losses are float32
in mixed precision too, because half precision is not enough for positions in an image.
"""

# torch types every submodule as Tensor | Module
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from __future__ import annotations

import functools
import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posture.errors import InputError
from posture.models import detector_configs as configs
from posture.models.boxes import ENOUGH_INSIDE, Detections, Targets, pairwise_iou, share_inside
from posture.models.keyed import Keyed, random_bits

RGB = 3
DETECT = SimpleNamespace(confidence=0.001, overlap=0.6, most=300)
"""Default thresholds, as in `posture.config.Detect`."""

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SSD_PIXELS = 300
"""Side of the images that the published SSD is laid out for."""
SSD_RATIOS = ([2], [2, 3], [2, 3], [2, 3], [2], [2])
"""Ratios of the default boxes' sides for each of the six maps; each map also has two squares, and each ratio rotated by
90 degrees.
"""
SSD_SCALES = [0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
"""Sides of the default boxes as shares of the image's."""
SSD_STEPS = [8, 16, 32, 64, 100, 300]
"""Pixels between the default boxes of each map in images of 300."""
SSD_UNPADDED = 268
"""Minimum side of an image for which all six maps have cells if the last two layers have no padding."""
CAFFE_MEAN, CAFFE_STD = [0.48235, 0.45882, 0.40784], [1 / 255, 1 / 255, 1 / 255]
"""Mean and standard deviation that normalise the published SSD's input."""

RESNET50 = ((64, 3), (128, 4), (256, 6), (512, 3))
"""Channels and number of the bottlenecks of each stage."""
ANCHOR_SIDES = (32, 64, 128, 256, 512)
ROI_SIDE = 224
"""Size in pixels of the objects that the pyramid's third level detects (Lin 2017, equation 1)."""
ROI_CELLS = 7
PROPOSALS, NARROW_PROPOSALS = 512, 128
"""Proposals per image that the loss uses. A narrow network has as many as Fast R-CNN per step (Girshick 2015): pooling
them takes most of a step on a CPU.
"""
NARROW_PIXELS = 640
"""Side of the images for which a narrow Faster R-CNN has the published anchors; they scale with the image."""

CERTAIN = 30.0
"""Logit at which a probability is 1 in float32."""

NORM_EPS = 1e-5
"""Constant inside the square root of Faster R-CNN's batch normalisation: torch's default."""

OLD_LAYERS = {
    r"(rpn\.head\.conv)\.(weight|bias)": r"\1.0.0.\2",
    r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d)\.(weight|bias)": r"\1.0.\2",
}
"""Names of Faster R-CNN's layers in files from before torchvision 0.13, and today's names."""


def ssd300(config: configs.SSD300, detect: Any = None) -> nn.Module:
    """Return SSD with random weights: `forward(images (N, 3, S, S), float in 0..1)` -> N `Detections`, best first.

    In training `forward(images, targets)` returns the mean losses "bbox_regression" and "classification". `detect` has
    `confidence`, `overlap` and `most` (see `posture.config.Detect`). Images of 300 pixels have the published 8,732
    default boxes. For other sizes they are spread evenly over each map, and below 268 pixels the last two maps are
    padded. Raises InputError if torchvision cannot be imported.
    """
    parts, detect = _torchvision(config), detect or DETECT
    layers = _published_vgg(parts) if config.width == 1 else NarrowVGG(config.width)
    if config.size < SSD_UNPADDED:
        for layer in layers.extra[-2:]:
            layer[-2].stride, layer[-2].padding = (2, 2), (1, 1)
    default_boxes = parts.DefaultBoxGenerator(
        list(SSD_RATIOS), scales=SSD_SCALES, steps=SSD_STEPS if config.size == SSD_PIXELS else None
    )
    return parts.SSD(
        layers,
        default_boxes,
        (config.size, config.size),
        config.classes + 1,
        image_mean=CAFFE_MEAN,
        image_std=CAFFE_STD,
        score_thresh=detect.confidence,
        nms_thresh=detect.overlap,
        detections_per_img=detect.most,
    )


def faster_rcnn(config: configs.FasterRCNN, detect: Any = None) -> nn.Module:
    """Return Faster R-CNN with random weights; its inputs and outputs are those of `ssd300`.

    Its losses are "loss_objectness" and "loss_rpn_box_reg" of its proposals, "loss_classifier" and "loss_box_reg" of
    its detections. A narrow one has anchors that scale with `config.size`, the published ones at 640 pixels. Raises
    InputError if torchvision cannot be imported.
    """
    parts, detect = _torchvision(config), detect or DETECT
    channels, features = scaled(256, config.width), scaled(1024, config.width)
    scale = 1.0 if config.width == 1 else config.size / NARROW_PIXELS
    anchors = parts.AnchorGenerator(
        tuple((side * scale,) for side in ANCHOR_SIDES), ((0.5, 1.0, 2.0),) * len(ANCHOR_SIDES)
    )
    pool = parts.MultiScaleRoIAlign(
        ["0", "1", "2", "3"], output_size=ROI_CELLS, sampling_ratio=2, canonical_scale=max(1, round(ROI_SIDE * scale))
    )
    network = parts.FasterRCNN(
        _resnet_pyramid(parts, config.width, channels),
        min_size=config.size,
        max_size=config.size,
        rpn_anchor_generator=anchors,
        rpn_head=parts.ProposalHead(channels, anchors.num_anchors_per_location()[0]),
        box_roi_pool=pool,
        box_head=parts.TwoMLPHead(channels * ROI_CELLS**2, features),
        box_predictor=parts.Predictor(features, config.classes + 1),
        box_batch_size_per_image=PROPOSALS if config.width == 1 else NARROW_PROPOSALS,
        box_score_thresh=detect.confidence,
        box_nms_thresh=detect.overlap,
        box_detections_per_img=detect.most,
    )
    for part in (network.rpn, network.roi_heads):
        part.fg_bg_sampler = parts.Sampler(part.fg_bg_sampler)
    return network


def scaled(channels: int, width: float) -> int:
    """Return channels * width as a multiple of 8, at least 8; the published number at width 1."""
    return channels if width == 1 else max(8, round(channels * width / 8) * 8)


def from_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a published state dict under today's layer names, and with a counter for each norm, which fixed norms
    lack.
    """
    found = {}
    for name, tensor in tensors.items():
        for old, new in OLD_LAYERS.items():
            name = re.sub(f"^{old}$", new, name)
        found[name] = tensor
    counters = (re.sub("running_var$", "num_batches_tracked", name) for name in found if name.endswith("running_var"))
    return {name: torch.tensor(0) for name in counters} | found


def with_usual_eps(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of fixed norms with an eps of 0, changed so that norms with torch's eps of 1e-5 give the same
    outputs.

    torchvision sets the eps of its fixed norms to 0 when it loads its COCO weights of Faster R-CNN. Here norms are
    trained, for which an eps of 0 is not safe, so each norm's gain is multiplied by sqrt((variance + eps) / variance).
    A norm whose variance is 0 is not changed.
    """
    found = dict(tensors)
    for name in tensors:
        if name.endswith("running_var") and (gain := name.replace("running_var", "weight")) in tensors:
            variance = tensors[name].double()
            grown = tensors[gain] * ((variance + NORM_EPS) / variance).sqrt()
            found[gain] = torch.where(variance > 0, grown, tensors[gain]).to(tensors[gain].dtype)
    return found


class NarrowVGG(nn.Module):
    """VGG-16 and SSD's extra layers with `width` times the channels and batch normalisation up to fc7; images -> six
    maps.
    """

    def __init__(self, width: float) -> None:
        super().__init__()
        stages = [[scaled(channels, width) for channels in stage] for stage in VGG16]
        c4, c5, c7 = stages[3][-1], stages[4][-1], scaled(1024, width)
        layers: list[nn.Module] = []
        inputs = RGB
        for number, stage in enumerate(stages[:4]):
            layers += [nn.MaxPool2d(2, ceil_mode=number == 3)] if number else []  # 75 cells become 38
            for channels in stage:
                layers.append(_layer(inputs, channels))
                inputs = channels
        self.features = nn.Sequential(*layers)  # to conv4_3
        # each cell is as long as it is in the published network
        self.scale_weight = nn.Parameter(torch.full((c4,), 20 * math.sqrt(c4 / 512)))
        deep = [_layer(before, after) for before, after in zip((c4, *stages[4]), stages[4], strict=False)]
        fc6, fc7 = _layer(c5, c7, padding=6, dilation=6), _layer(c7, c7, kernel=1, padding=0)
        m8, m9, m10, m11 = (scaled(channels, width) for channels in (256, 128, 128, 128))
        c8, c9, c10, c11 = (scaled(channels, width) for channels in (512, 256, 256, 256))
        self.extra = nn.ModuleList([
            nn.Sequential(nn.MaxPool2d(2), *deep, nn.MaxPool2d(3, stride=1, padding=1), fc6, fc7),
            _extra(c7, m8, c8, stride=2, padding=1),
            _extra(c8, m9, c9, stride=2, padding=1),
            _extra(c9, m10, c10),
            _extra(c10, m11, c11),
        ])
        self.out_channels = [c4, c7, c8, c9, c10, c11]

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.features(x)  # (N, C, 38, 38) of 300 x 300
        maps = [self.scale_weight[:, None, None] * functional.normalize(x)]
        for layers in self.extra:  # 19, 10, 5, 3, 1 cells
            x = layers(x)
            maps.append(x)
        return OrderedDict((str(number), level) for number, level in enumerate(maps))


def _torchvision(config: configs.SSD300 | configs.FasterRCNN) -> SimpleNamespace:
    """Return the parts of the networks. Raises InputError if torchvision cannot be imported."""
    try:
        return _parts()
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise InputError(f"model.kind {config.kind!r} is torchvision's, which cannot be imported: {error}") from None


@functools.cache
def _parts() -> SimpleNamespace:
    """Return torchvision's classes, with our changes to its two networks and to parts of them.

    They are made on demand, because they derive from torchvision's.
    """
    from torchvision.models import resnet, vgg
    from torchvision.models.detection import faster_rcnn, ssd
    from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN, resnet_fpn_backbone
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.roi_heads import RoIHeads
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    class SSD(ssd.SSD):
        def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor] | list[Detections]:
            _refuse_other_use(self, targets)
            listed = _listed(ImageList, images)
            # the first, scaled, is float32: so are default boxes
            maps = list(self.backbone(_normalised(self.transform, images)).values())
            outputs = {name: values.float() for name, values in self.head(maps).items()}
            boxes = self.anchor_generator(listed, maps)
            if targets is None:
                return _detections(self.postprocess_detections(outputs, boxes, listed.image_sizes))
            truth = _by_image(targets)
            matches = [self._matches(true["boxes"], default) for true, default in zip(truth, boxes, strict=True)]
            # boxes that are certainly background have no loss and no gradient, and rank last in hard negative mining
            if targets.ignored is not None:
                ignored = torch.stack([
                    (found < 0) & _inside(default, true)
                    for true, default, found in zip(truth, boxes, matches, strict=True)
                ])
                certain = torch.full_like(outputs["cls_logits"][0, 0], -CERTAIN)
                certain[0] = CERTAIN
                outputs["cls_logits"] = torch.where(ignored[..., None], certain, outputs["cls_logits"])
            return self.compute_loss(truth, outputs, boxes, matches)

        def _matches(self, true: Tensor, default: Tensor) -> Tensor:
            """Return the index of each default box's true box, or -1."""
            return (
                self.proposal_matcher(pairwise_iou(true, default))
                if len(true)
                else default.new_full((len(default),), -1, dtype=torch.int64)
            )

    class ProposalNetwork(RegionProposalNetwork):
        def assign_targets_to_anchors(
            self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
        ) -> tuple[list[Tensor], list[Tensor]]:
            """Assign -1, which is not sampled, to background in ignore regions."""
            labels, boxes = super().assign_targets_to_anchors(anchors, targets)
            for mine, anchor, true in zip(labels, anchors, targets, strict=True):
                mine[(mine == 0) & _inside(anchor, true)] = -1
            return labels, boxes

    class Heads(RoIHeads):
        nothing = False
        """True if the loss uses no proposal: then its means are undefined."""

        def select_training_samples(
            self, proposals: list[Tensor], targets: list[dict[str, Tensor]]
        ) -> tuple[list[Tensor], ...]:
            """Select without proposals in ignore regions that match no true box."""
            left = []
            for found, true in zip(proposals, targets, strict=True):
                like = (pairwise_iou(found, true["boxes"]) >= self.proposal_matcher.high_threshold).any(1)
                left.append(found[like | ~_inside(found, true)])
            chosen = super().select_training_samples(left, targets)
            self.nothing = not any(map(len, chosen[0]))
            return chosen

    class FasterRCNN(faster_rcnn.FasterRCNN):
        def __init__(self, *parts: Any, **settings: Any) -> None:
            super().__init__(*parts, **settings)
            # torchvision makes the two; these know ignore regions
            self.rpn.__class__, self.roi_heads.__class__ = ProposalNetwork, Heads

        def forward(self, images: Tensor, targets: Targets | None = None) -> dict[str, Tensor] | list[Detections]:
            _refuse_other_use(self, targets)
            listed, truth = _listed(ImageList, images), None if targets is None else _by_image(targets)
            levels = self.backbone(_normalised(self.transform, images))
            levels = OrderedDict((name, level.float()) for name, level in levels.items())
            proposals, proposal_losses = self.rpn(listed, levels, truth)
            found, losses = self.roi_heads(levels, proposals, listed.image_sizes, truth)
            if self.roi_heads.nothing:
                losses = {name: loss.nan_to_num(0.0) for name, loss in losses.items()}
            return _detections(found) if truth is None else proposal_losses | losses

    class Sampler(Keyed, nn.Module):
        """Sampler of the anchors or proposals that the loss uses: as many positive ones as allowed, the rest negative.

        Like torchvision's, but an image's sample depends on its key, not on the images before it. Takes the match of
        each (-1: neither), and returns masks of the sampled positive and negative ones, as lists over images.
        """

        def __init__(self, plain: Any) -> None:
            super().__init__()
            self.plain = plain

        def forward(self, matches: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            if self.keys is None:
                return self.plain(matches)
            chosen = [
                self._choose(match, random_bits(key[None], len(match))[0])
                for match, key in zip(matches, self.keys, strict=True)
            ]
            positive, negative = zip(*chosen, strict=True)
            return list(positive), list(negative)

        def _choose(self, match: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
            positive, negative = (where.nonzero().flatten() for where in (match >= 1, match == 0))
            positive = positive[
                draws[positive].argsort(stable=True)[
                    : int(self.plain.batch_size_per_image * self.plain.positive_fraction)
                ]
            ]
            negative = negative[draws[negative].argsort(stable=True)[: self.plain.batch_size_per_image - len(positive)]]
            mask = torch.zeros_like(match, dtype=torch.uint8)
            return mask.index_fill(0, positive, 1), mask.index_fill(0, negative, 1)

    class ProposalHead(RPNHead):
        def forward(self, levels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
            objectness, boxes = super().forward(levels)
            return [level.float() for level in objectness], [level.float() for level in boxes]

    class Predictor(faster_rcnn.FastRCNNPredictor):
        def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
            classes, boxes = super().forward(features)
            return classes.float(), boxes.float()

    return SimpleNamespace(
        SSD=SSD,
        FasterRCNN=FasterRCNN,
        Sampler=Sampler,
        ProposalHead=ProposalHead,
        Predictor=Predictor,
        TwoMLPHead=faster_rcnn.TwoMLPHead,
        Bottleneck=resnet.Bottleneck,
        BackboneWithFPN=BackboneWithFPN,
        resnet_fpn_backbone=resnet_fpn_backbone,
        make_layers=vgg.make_layers,
        SSDFeatureExtractorVGG=ssd.SSDFeatureExtractorVGG,
        AnchorGenerator=AnchorGenerator,
        DefaultBoxGenerator=DefaultBoxGenerator,
        MultiScaleRoIAlign=MultiScaleRoIAlign,
    )


def _refuse_other_use(network: nn.Module, targets: Targets | None) -> None:
    if network.training != (targets is not None):
        raise ValueError(
            "this detector takes targets in training, for its losses, and none in evaluation, for its detections"
        )


def _listed(image_list: type, images: Tensor) -> Any:
    """Return the batch as torchvision's `ImageList` without padding."""
    return image_list(images, [tuple(images.shape[-2:])] * len(images))


def _normalised(transform: Any, images: Tensor) -> Tensor:
    mean, deviation = (
        images.new_tensor(values)[:, None, None] for values in (transform.image_mean, transform.image_std)
    )
    return (images - mean) / deviation


def _by_image(targets: Targets) -> list[dict[str, Tensor]]:
    """Return the true boxes of each image, with labels from 1 (0 is torchvision's background), and its ignore regions.

    Boxes without area, which have no logarithm, are left out.
    """
    area = (targets.boxes[:, 2:] > targets.boxes[:, :2]).all(1)
    boxes, labels, images = targets.boxes[area].float(), targets.labels[area] + 1, targets.images[area]
    in_each = torch.bincount(images, minlength=targets.count).tolist()
    found = [
        {"boxes": mine, "labels": named}
        for mine, named in zip(boxes.split(in_each), labels.split(in_each), strict=True)
    ]
    if targets.ignored is not None:
        regions = targets.ignored.boxes.float().split(
            torch.bincount(targets.ignored.images, minlength=targets.count).tolist()
        )
        found = [true | {"ignored": ignored} for true, ignored in zip(found, regions, strict=True)]
    return found


def _inside(boxes: Tensor, true: dict[str, Tensor]) -> Tensor:
    """Return whether each of (B, 4) lies in one of its image's ignore regions: (B,) bool."""
    regions = true.get("ignored")
    if regions is None or not len(regions):
        return torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    return share_inside(boxes, regions).amax(dim=1) >= ENOUGH_INSIDE


def _detections(found: Iterable[dict[str, Tensor]]) -> list[Detections]:
    return [Detections(one["boxes"], one["scores"], one["labels"] - 1) for one in found]


def _published_vgg(parts: SimpleNamespace) -> nn.Module:
    """Return the VGG-16 of SSD's six maps, initialised as in torchvision, without the large layers that are cut off."""
    layers = parts.make_layers([channels for stage in VGG16 for channels in (*stage, "M")])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            _start(layer)
    maps = parts.SSDFeatureExtractorVGG(layers, highres=False)
    maps.out_channels = [512, 1024, 512, 256, 256, 256]
    return maps


def _resnet_pyramid(parts: SimpleNamespace, width: float, channels: int) -> nn.Module:
    """Return ResNet-50 and a pyramid of `channels` on its four stages: five levels, the last one pooled."""
    if width == 1:
        return parts.resnet_fpn_backbone(
            backbone_name="resnet50", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
        )
    inputs = scaled(64, width)
    stem = nn.Conv2d(RGB, inputs, 7, stride=2, padding=3, bias=False)
    layers: dict[str, nn.Module] = {
        "conv1": stem,
        "bn1": nn.BatchNorm2d(inputs),
        "relu": nn.ReLU(inplace=True),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    outputs = []
    for number, (published, depth) in enumerate(RESNET50, start=1):
        middle = scaled(published, width)
        outputs.append(parts.Bottleneck.expansion * middle)
        first = nn.Sequential(
            nn.Conv2d(inputs, outputs[-1], 1, stride=1 if number == 1 else 2, bias=False), nn.BatchNorm2d(outputs[-1])
        )
        blocks = [
            parts.Bottleneck(inputs, middle, first[0].stride[0], first),
            *(parts.Bottleneck(outputs[-1], middle) for _ in range(depth - 1)),
        ]
        layers[f"layer{number}"], inputs = nn.Sequential(*blocks), outputs[-1]
    for layer in nn.ModuleDict(layers).modules():
        if isinstance(layer, nn.Conv2d):
            _start(layer)
    names = {f"layer{number}": str(number - 1) for number in range(1, 5)}
    return parts.BackboneWithFPN(nn.Sequential(OrderedDict(layers)), names, outputs, channels)


def _layer(inputs: int, outputs: int, *, kernel: int = 3, padding: int = 1, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding, dilation=dilation, bias=False)
    _start(convolution)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _extra(inputs: int, middle: int, outputs: int, *, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Return an extra layer of SSD, without norms: a map of one cell has one value for each image."""
    layers = nn.Sequential(
        nn.Conv2d(inputs, middle, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(middle, outputs, 3, stride, padding),
        nn.ReLU(inplace=True),
    )
    for layer in (layers[0], layers[2]):
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layers


def _start(layer: nn.Conv2d) -> None:
    """Initialise a layer as in torchvision's VGG and ResNet (He 2015)."""
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
