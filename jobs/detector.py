"""Detectors of athletes and sports targets: YOLOv5s, the paper's improved YOLOv5s (sections 2.1 and 3.2), and
baselines.
"""

from __future__ import annotations

from posture.config import DetectionRun, Optim, Study, override
from posture.models.detector_configs import IMPROVED_YOLOV5, SSD300, FasterRCNN, YOLOv5, YOLOv7
from posture.runs.recipes import points

OTHER_LOSSES = ("iou", "giou", "diou", "ciou", "siou")
OTHER_TRAINING = {
    "copy_paste": {"data.copy_paste": 0.5},
    "half_mosaic": {"data.mosaic": 0.5},
    "short_mosaic": {"data.mosaic_until": 0.5},
    "smoothed_labels": {"loss.label_smoothing": 0.1},
    "scaled_loss": {"loss.scaled": True},
    "short_average": {"optim.ema_horizon": 0.05},
    "fast_attention": {"optim.attention_lr": 3.0},
    "fast_head": {"optim.head_lr": 3.0},
}
"""Changes to the training of `improved`, for little footage; what they did is in jobs/README.md."""


def yolov5s() -> DetectionRun:
    """YOLOv5s with the paper's training values (Table 2): Adam at 0.001, weight decay 0.0005, beta1 0.937, anchor ratio
    4, box weight 0.05.
    """
    return DetectionRun(name="yolov5s", model=YOLOv5())


def improved() -> DetectionRun:
    """The paper's improved YOLOv5s: Focus stem, Swin-v2 in the backbone's last stage, CBAM at the neck's tail, equation
    (8) for boxes.

    Optimiser, rate, weight decay, beta1 and box weight are the paper's (Table 2). It departs from the paper, or adds
    what the paper does not say, in these points:

    * Training: a warm-up of 3 epochs, half a cosine down to zero, gradients clipped at a norm of 10, and a moving
      average of the weights (0.999).
    * Augmentation: mosaics until the last tenth of the epochs, beside the paper's crops, flips and colours.
    * Weights 0.5 of the class loss and 1 of objectness, which are YOLOv5's; the paper gives only the box loss's, 0.05.
    * Swin: two blocks, plain and shifted, with windows of 8 cells, instead of the stage's one bottleneck.
    * Overlaps are suppressed by DIoU; the paper calls its measure "an improved CIoU".
    """
    return override(
        yolov5s(), {"name": "improved", **{f"model.{field}": value for field, value in IMPROVED_YOLOV5.items()}}
    )


def yolov7() -> DetectionRun:
    """YOLOv7 with YOLOv5's matching of boxes to anchors, trained as `yolov5s` is."""
    return DetectionRun(name="yolov7", model=YOLOv7())


def ssd300() -> DetectionRun:
    """torchvision's SSD300 with VGG-16 and its own loss; SGD as in torchvision's script, scaled to 16 images."""
    return DetectionRun(
        name="ssd300",
        model=SSD300(),
        optim=Optim(name="sgd", lr=0.001, weight_decay=0.0005, warmup_epochs=3.0, clip_norm=10.0, ema=0.999),
    )


def faster_rcnn() -> DetectionRun:
    """torchvision's Faster R-CNN with ResNet-50-FPN and its own losses; SGD at 0.02 for 16 images as in torchvision's
    training script.
    """
    optim = Optim(name="sgd", lr=0.02, weight_decay=0.0001, warmup_epochs=3.0, clip_norm=10.0, ema=0.999)
    return DetectionRun(name="faster_rcnn", model=FasterRCNN(), optim=optim)


def ablations() -> list[DetectionRun]:
    """`improved` without one of its parts, with another box loss than equation (8), or trained differently."""
    parts = {
        "conv_stem": {"model.stem": "conv"},
        "no_swin": {"model.swin": False},
        "no_cbam": {"model.attention": "none"},
    }
    losses = {f"{kind}_loss": {"loss.box_loss": kind} for kind in OTHER_LOSSES}
    changed = parts | losses | OTHER_TRAINING
    return [override(improved(), {"name": name, **changes}) for name, changes in changed.items()]


def study() -> Study:
    """Models of the paper's Figures 7-9, all at 640 pixels except SSD300: `posture compare jobs/detector.py:study
    --store STORE`.
    """
    return Study(
        name="detector",
        subject=improved(),
        baselines=(yolov5s(), yolov7(), ssd300(), faster_rcnn()),
        ablations=tuple(ablations()),
        departures=points(improved),
        epochs=100,
        replacements=("conv_stem", *(f"{kind}_loss" for kind in OTHER_LOSSES), *OTHER_TRAINING),
        titles={
            "improved": "Improved YOLOv5s",
            "yolov5s": "YOLOv5s",
            "yolov7": "YOLOv7",
            "ssd300": "SSD300",
            "faster_rcnn": "Faster R-CNN",
            "conv_stem": "6x6 stem",
            "no_swin": "without Swin",
            "no_cbam": "without CBAM",
            "iou_loss": "IoU loss",
            "giou_loss": "GIoU loss",
            "diou_loss": "DIoU loss",
            "ciou_loss": "CIoU loss",
            "siou_loss": "SIoU loss",
            "copy_paste": "pasted boxes",
            "half_mosaic": "half as many mosaics",
            "short_mosaic": "mosaics in the first half",
            "smoothed_labels": "label smoothing",
            "scaled_loss": "scaled loss weights",
            "short_average": "average over 5 % of the steps",
            "fast_attention": "3x rate of attention",
            "fast_head": "3x rate of the head",
        },
    )


def small_study() -> Study:
    """`study` for a CPU: narrower networks, images of 256 pixels, batches of 8, fewer epochs, and a momentum of the
    norms that suits few steps.
    """
    whole = study()
    small = {"model.size": 256, "model.width": 0.25, "scale.global_batch": 8}
    runs = {
        run.name: override(run, small | ({"model.norm_momentum": 0.1} if run.model.kind.startswith("yolo") else {}))
        for run in whole.runs
    }
    return whole.model_copy(
        update={
            "name": "small-detector",
            "epochs": 30,
            "subject": runs[whole.subject.name],
            "baselines": tuple(runs[run.name] for run in whole.baselines),
            "ablations": tuple(runs[run.name] for run in whole.ablations),
        }
    )
