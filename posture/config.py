"""A training run as a typed value: made by a Python function, changed by dotted overrides, saved beside its weights.

This module imports no torch, so that a mistake in a configuration is found in a fraction of a second.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false, reportOperatorIssue=false

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from posture.display.text import listed
from posture.errors import InputError
from posture.models.configs import BEFORE, C3D, Linear, TorchvisionVideo, TwoStream
from posture.models.detector_configs import SSD300, FasterRCNN, YOLOv5, YOLOv7

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Positive = Annotated[float, Field(gt=0.0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Text = Annotated[str, Field(max_length=4096)]
MAX_WORKERS = 1024
MAX_EPOCHS = 1_000_000
MAX_SHOWN = 200
"""Maximum number of characters of a wrong value in a message."""
MAX_MESSAGE = 800
"""Maximum number of characters of a message about one field."""


def _epochs(value: Any) -> Any:
    if value != "auto" and not (type(value) is int and 1 <= value <= MAX_EPOCHS):
        raise ValueError(f"must be a number of epochs from 1 to {MAX_EPOCHS:,}, or auto, not {_shortened(value)}")
    return value


Epochs = Annotated[int | Literal["auto"], BeforeValidator(_epochs)]


class Section(BaseModel):
    """Part of a run. Unknown fields are refused and values cannot be changed in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClipData(Section):
    """Sampling, augmentation and feeding of stored clips."""

    recipe: Text | None = None
    """Decode recipe to train on; required if the store has several."""
    step: Count = 1
    """Distance between frames of a clip, in stored frames; a clip spans `model.frames * step` of them."""
    steps: Annotated[tuple[Count, ...], Field(max_length=16)] = ()
    """Steps of which each training clip has one at random, so that clips span several lengths of time; empty: `step`.
    Evaluation always uses `step`.
    """
    flow: Literal["dis", "farneback"] | None = None
    """Method of the optical flow to read; required if the model reads flow and the store has both."""
    temporal_jitter: bool = True
    """Start training clips at a random stored frame; false: always use the middle."""
    crop_scale: tuple[Fraction, Fraction] = (0.5, 1.0)
    """Range of the random crop's area, as a share of the stored frame's."""
    crop_aspect: tuple[Positive, Positive] = (0.75, 1.3333)
    """Range of the random crop's aspect ratio (width / height) before it is resized."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    brightness: Fraction = 0.3
    """Maximum change of brightness, as a share: factors from 1 - b to 1 + b. Likewise `contrast` and `saturation`."""
    contrast: Fraction = 0.3
    saturation: Fraction = 0.3
    rand_augment: Annotated[int, Field(ge=0, le=16)] = 0
    """Random operations, such as rotation, shear or posterisation, of each clip, the same for all its frames."""
    magnitude: Fraction = 0.3
    """Strength of those operations."""
    drift: Fraction = 0.0
    """Share of that strength by which it changes along a clip, from (1 - drift) to (1 + drift) times, or back; 0: the
    same for all frames.
    """
    erasing: Fraction = 0.0
    """Probability that a rectangle, the same in all frames, is replaced by the mean colour."""
    mixup: Weight = 0.0
    """Mix each clip and its label with another one of the micro batch, by a share from Beta(mixup, mixup); 0: never."""
    cutmix: Weight = 0.0
    """Paste a rectangle of another clip into each clip, of a share from Beta(cutmix, cutmix); 0: never. With `mixup`
    too, a clip has either.
    """
    mean: tuple[Fraction, Fraction, Fraction] = (0.43216, 0.394666, 0.37645)
    """Mean of each RGB channel, in 0..1 (Kinetics), subtracted from the input."""
    std: tuple[Positive, Positive, Positive] = (0.22803, 0.22145, 0.216989)
    """Standard deviation of each RGB channel, in 0..1 (Kinetics), by which the input is divided."""
    balanced: bool = False
    """Draw every class equally often, regardless of its number of clips."""
    labels_per_class: Count | None = None
    """Maximum number of labelled segments of each class to train on, drawn group by group with the run's seed: smaller
    numbers are parts of larger ones. None: all.
    """
    feed: Literal["auto", "materialize", "stream"] = "auto"
    """`materialize`: hold the clips in memory, in a reproducible order. `stream`: read them from the store in a
    shuffled order, each once an epoch. `auto`: stream only if they do not fit in memory.
    """

    @model_validator(mode="after")
    def _ranges(self) -> ClipData:
        for name in ("crop_scale", "crop_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"data.{name} must be a range low..high with 0 < low <= high, not {low}..{high}")
        return self


class ImageData(Section):
    """Sampling, augmentation and feeding of stored images with boxes."""

    anchors: Literal["auto", "kmeans", "keep"] = "auto"
    """Anchors of a YOLO network. `kmeans`: made from the training boxes; `keep`: the model's own; `auto`: the model's
    own if they match nearly every box, else k-means.
    """
    mosaic: Fraction = 1.0
    """Probability that four images are joined into one (Bochkovskiy 2020, arXiv 2004.10934, section 3.4)."""
    mosaic_until: Fraction = 0.9
    """Share of the epochs with mosaics and pasted boxes; afterwards images come one by one, as in evaluation."""
    mosaic_buffer: Count = 256
    """Number of decoded images that each worker keeps for mosaics and pasted boxes."""
    copy_paste: Fraction = 0.0
    """Probability that an image, alone or in a mosaic, gets the boxes of another training image pasted into it; boxes
    of which they cover more than half are dropped. See `posture/data/feed/copy_paste.py`.
    """
    resize: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Maximum change of an image's size, as a share; enlarged images are cropped."""
    shift: Fraction = 0.1
    """Maximum shift, as a share of the image's side."""
    rotate: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Maximum rotation in degrees; boxes become the boxes around the rotated ones."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    hue: Fraction = 0.015
    """Maximum change of the hue (HSV), as a share: factors from 1 - h to 1 + h. Likewise `saturation` and `value`."""
    saturation: Fraction = 0.7
    value: Fraction = 0.4
    least_visible: Fraction = 0.1
    """Minimum share of a box's area that must remain in the image; other boxes are dropped."""
    multi_scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Maximum change of the network's image side from step to step, as a share, in steps of 32 pixels."""
    feed: Literal["auto", "materialize", "stream"] = "auto"
    """`materialize`: hold the encoded images in memory, in a reproducible order. `stream`: read them from the store in
    a shuffled order, each once an epoch. `auto`: stream only if they do not fit in memory.
    """


class ActionLoss(Section):
    """Cross-entropy over the classes."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability mass spread equally over all classes."""
    teacher_share: Fraction = 0.5
    """Share of the answers to learn that the run's `teachers` give; the rest is of the labels."""


class DetectionLoss(Section):
    """Equation (3): l1 * class + l2 * objectness + l3 * box. torchvision's detectors use their own losses instead."""

    l1: Weight = 0.5
    """Weight of the class loss."""
    l2: Weight = 1.0
    """Weight of the objectness loss."""
    l3: Weight = 0.05
    """Weight of the box loss."""
    box_loss: Literal["iou", "giou", "diou", "ciou", "eiou", "siou"] = "eiou"
    """`eiou` is equation (8), the paper's improved CIoU; `ciou` equations (5)-(7); `siou` its smoothed IoU (Figure 3).
    """
    anchor_ratio: Annotated[float, Field(gt=1.0, le=1000.0)] = 4.0
    """Maximum ratio between the sides of a box and of an anchor that is matched with it (Table 2)."""
    balance: tuple[Positive, Positive, Positive] = (4.0, 1.0, 0.4)
    """Weights of the levels' objectness, the finest first (YOLOv5's)."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Probability mass spread equally over both answers for each class."""
    scaled: bool = False
    """Scale l1 by classes / 80 and l2 by (model.size / 640) ** 2, as YOLOv5's training script does: its weights were
    chosen for 80 classes in images of 640 pixels. On smaller images the box loss then weighs more.
    """


class Detect(Section):
    """From a detector's raw outputs to boxes. torchvision's networks suppress overlaps themselves, always by IoU."""

    confidence: Fraction = 0.001
    """Confidence threshold. Keep it low to compute mAP, which ranks detections; raise it for display."""
    overlap: Fraction = 0.6
    """Overlap threshold of non-maximum suppression between boxes of the same class."""
    nms_overlap: Literal["iou", "diou", "eiou"] = "diou"
    """Measure of that overlap; `diou` and `eiou` keep more boxes whose centres are apart."""
    most: Count = 300
    """Maximum number of detections in an image."""


class Optim(Section):
    """The optimiser and its schedule."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0.0, le=1e30)] = 0.025
    """Peak learning rate at `scale.global_batch`. If it is too high, training stops and reports divergence."""
    weight_decay: Weight = 0.0003
    """Weight decay of filters and matrices; norms and biases have none."""
    momentum: Fraction = 0.9
    """SGD's momentum, or Adam's beta1."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate after the warm-up: half a cosine down to 0, or constant."""
    warmup_epochs: Weight = 1.0
    """Epochs of linear warm-up, at most half of the run."""
    clip_norm: Weight = 0.0
    """Maximum norm of the gradient; 0 does not clip."""
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the exponential moving average of the weights; 0 keeps none."""
    ema_horizon: Fraction = 0.0
    """Number of steps that the moving average looks back, as a share of the run's steps: its decay is at most
    1 - 1 / (ema_horizon * steps). 0 sets no such limit.
    """
    head_lr: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Learning rate of the last layer, whose size depends on the number of classes, as a share of `lr`."""
    attention_lr: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Factor on the learning rate of CBAM, STCBAM and Swin blocks. No effect on networks without them."""
    backbone_lr: Annotated[float, Field(ge=0.0, le=1000.0)] = 1.0
    """Learning rate of all layers but the last (whose size depends on the number of classes), as a share of `lr`. 0
    freezes them: their norms keep the statistics that they start with. For networks that start from `weights`.
    """
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Factor on the learning rate from each block of those layers to the block before it; 1 treats all alike."""


def _workers(value: Any) -> Any:
    low, high = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(type(count) is int and 1 <= count <= MAX_WORKERS for count in (low, high)) or low > high:
        raise ValueError(
            "must be a number of workers from 1, or a range of them [least, most] with least <= most, "
            f"at most {MAX_WORKERS}, not {_shortened(value)}"
        )
    return low if low == high else (low, high)


class Scale(Section):
    """Hardware of a run, and the division of a batch over it."""

    workers: Annotated[int | tuple[int, int], BeforeValidator(_workers)] = 1
    """Number of workers, or a range [least, most]: as many as the cluster has room for during the run. Every size in
    the range must divide `global_batch`.
    """
    gpus_per_worker: Annotated[float, Field(ge=0.0, le=64.0)] | Literal["auto"] = "auto"
    """GPUs of each worker. `auto`: 1 if the cluster has a GPU for every worker, else 0."""
    cpus_per_worker: Annotated[float, Field(gt=0.0, le=4096.0)] | Literal["auto"] = "auto"
    """CPUs of each worker. `auto`: an equal share that leaves room for Ray Data."""
    global_batch: Count = 32
    """Clips, or images, per optimiser step, over all workers."""
    micro_batch: Count | None = None
    """Clips, or images, per forward pass on one worker; gradients are accumulated. None: the worker's whole share."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. `auto`: bf16 on a GPU (fp16 on old ones), off on the CPU."""
    compile: bool = False
    """Compile the network with `torch.compile`."""

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step on one worker, with the maximum number of workers."""
        workers = self.sizes[-1]
        return self.global_batch // (workers * (self.micro_batch or self.global_batch // workers))

    @property
    def sizes(self) -> range:
        """All numbers of workers that the run may have."""
        low, high = (self.workers, self.workers) if isinstance(self.workers, int) else self.workers
        return range(low, high + 1)

    @property
    def multiple(self) -> int:
        """Number that `global_batch` must be a multiple of."""
        return math.lcm(*self.sizes) * (self.micro_batch or 1)

    @model_validator(mode="after")
    def _divisible(self) -> Scale:
        uneven = [size for size in self.sizes if self.global_batch % (size * (self.micro_batch or 1))]
        if uneven:
            each = f" of micro_batch {self.micro_batch}" if self.micro_batch else ""
            within = f", which scale.workers {list(self.workers)} allows" if len(self.sizes) > 1 else ""
            raise ValueError(
                f"scale.global_batch {self.global_batch} cannot be cut evenly over {listed(uneven, 'or')} workers"
                f"{each}{within}; global_batch must be a multiple of {self.multiple}"
            )
        return self


class Tracking(Section):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)] = "posture"
    mode: Literal["auto", "online", "offline", "off"] = "auto"
    """`auto`: online if an API key is found, else offline."""
    group: Annotated[str, Field(max_length=128)] | None = None
    """Group of runs that Weights & Biases shows together."""


class BaseRun(Section):
    """Fields of training runs of both tasks."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] = 0
    """Seed of all random numbers: initial weights, order, augmentation, dropout."""
    epochs: Epochs = 50
    """Passes over the training data. `auto`: enough for `least_steps`, chosen when the run begins and kept in run.json;
    see `posture/runs/schedule.py`.
    """
    least_steps: Count = 1000
    """Minimum number of optimiser steps with `epochs` auto; early stopping may end the run before."""
    steps_per_epoch: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """Maximum number of optimiser steps before the run validates and saves; None: a whole pass over the data."""
    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Number of epochs without a better `metric` after which the run stops; 0 never stops early."""
    weights: Text = ""
    """Initial weights: a run, a checkpoint's folder, a .safetensors file, or a state dict (.pt, .pth). Empty: random
    weights.
    """
    optim: Optim = Optim()
    scale: Scale = Scale()
    tracking: Tracking = Tracking()

    @property
    def chosen_epochs(self) -> int:
        """Number of epochs of a run that was begun. Raises InputError if it is still `auto`."""
        if self.epochs == "auto":
            raise InputError("epochs: auto is chosen when a run begins, from its footage; write a number here")
        return self.epochs

    @property
    def views(self) -> int:
        """Number of views of each clip in a batch."""
        return 1

    @property
    def solved(self) -> bool:
        """True if the run is fitted at once (`posture/train/solve.py`), not trained in steps."""
        return False


class ActionRun(BaseRun):
    """Everything one training run of an action classifier depends on."""

    task: ClassVar[str] = "action"

    metric: Literal["accuracy", "mean_class_accuracy", "map"] = "accuracy"
    """Metric on the split `val` that selects the best checkpoint; higher is better."""
    model: Annotated[C3D | TwoStream | TorchvisionVideo | Linear, Field(discriminator="kind")]
    data: ClipData = ClipData()
    loss: ActionLoss = ActionLoss()
    probe: bool = False
    """Fit the last layer at once to what the network of `weights` computes before it, and leave that as it is."""
    teachers: Annotated[tuple[Text, ...], Field(max_length=16)] = ()
    """Trained runs whose mean probabilities the network learns beside the labels (distillation)."""
    pretext: Literal["", "transformations", "contrast"] = ""
    """Task without labels, to pretrain with. `transformations`: name how a clip is played and turned. `contrast`: find
    the other view of the same clip, played in the same way. Empty: learn the classes.
    """

    @property
    def views(self) -> int:
        return {"": 1, "transformations": 2, "contrast": 4}[self.pretext]

    @property
    def solved(self) -> bool:
        return self.model.solved or self.probe

    @model_validator(mode="before")
    @classmethod
    def _at_once(cls, tree: Any) -> Any:
        model = tree.get("model") if isinstance(tree, dict) else None
        kind = model.get("kind") if isinstance(model, dict) else getattr(model, "kind", None)
        return {"epochs": 1} | tree if kind == "linear" else tree

    @model_validator(mode="after")
    def _solved(self) -> ActionRun:
        if self.model.solved and self.epochs != 1:
            raise ValueError(f"epochs must be 1 for {self.model.kind}, which is fitted at once, not {self.epochs}")
        if self.probe and self.epochs != 1:
            raise ValueError(f"epochs must be 1 with probe, which fits the last layer at once, not {self.epochs}")
        if self.teachers and self.solved:
            raise ValueError("teachers must be empty for what is fitted at once: it learns from labels alone")
        if self.probe and (self.model.solved or not self.weights):
            raise ValueError(
                f"probe needs a trained network: name its weights, and another model than {self.model.kind}"
                if self.model.solved
                else "probe needs the weights of a trained network: name them with --weights"
            )
        if self.model.solved and self.weights:
            raise ValueError(f"weights must be empty for {self.model.kind}, which is fitted from nothing")
        return self

    @model_validator(mode="after")
    def _without_labels(self) -> ActionRun:
        if not self.pretext:
            return self
        if self.model.kind in ("two_stream", "linear"):
            raise ValueError(
                f"pretext needs a network that sees frames alone and is trained in steps, not {self.model.kind}"
            )
        for_labels = {
            "metric": self.metric != "accuracy",
            "teachers": self.teachers,
            "probe": self.probe,
            **{f"data.{field}": getattr(self.data, field) for field in ("balanced", "labels_per_class", "steps")},
            **{f"data.{field}": getattr(self.data, field) for field in ("mixup", "cutmix")},
        }
        if given := [field for field, value in for_labels.items() if value]:
            raise ValueError(
                f"{listed(given, 'and')} must stay at the default with pretext, which learns without labels"
            )
        return self

    @model_validator(mode="after")
    def _neighbouring_frames(self) -> ActionRun:
        for name, steps in (("step", (self.data.step,)), ("steps", self.data.steps)):
            if "flow" in self.model.inputs and not set(steps) <= {1}:
                raise ValueError(
                    f"data.{name} must be 1 for a model that reads optical flow, not {listed(steps, 'or')}: "
                    "flow is between neighbouring stored frames"
                )
        if "flow" in self.model.inputs and self.data.rand_augment:
            raise ValueError(
                f"data.rand_augment must be 0 for a model that reads optical flow, not {self.data.rand_augment}: "
                "its rotations and shifts would move frames without their flow"
            )
        return self


class DetectionRun(BaseRun):
    """Everything one training run of a detector depends on. Defaults are the paper's (Table 2) if it has them."""

    task: ClassVar[str] = "detection"
    pretext: ClassVar[Literal[""]] = ""
    """A detector learns from boxes alone."""

    epochs: Epochs = 100
    metric: Literal["map50_95", "map50"] = "map50_95"
    """Metric on the split `val` that selects the best checkpoint; higher is better."""
    model: Annotated[YOLOv5 | YOLOv7 | SSD300 | FasterRCNN, Field(discriminator="kind")]
    data: ImageData = ImageData()
    loss: DetectionLoss = DetectionLoss()
    detect: Detect = Detect()
    optim: Optim = Optim(
        name="adam", lr=0.001, weight_decay=0.0005, momentum=0.937, warmup_epochs=3.0, ema=0.999, clip_norm=10.0
    )
    scale: Scale = Scale(global_batch=16)

    @model_validator(mode="after")
    def _scaled_size(self) -> DetectionRun:
        if self.data.multi_scale and self.model.kind == "ssd300":
            raise ValueError(
                f"data.multi_scale must be 0 for ssd300, not {self.data.multi_scale:g}: "
                "its boxes are laid out for one size"
            )
        return self


# Names in recipes written before December 2026.
Run, DetectorRun, Data, Loss = ActionRun, DetectionRun, ClipData, ActionLoss

AnyRun = ActionRun | DetectionRun
KINDS: dict[str, type[AnyRun]] = {
    kind: run
    for run, models in (
        (ActionRun, (C3D, TwoStream, TorchvisionVideo, Linear)),
        (DetectionRun, (YOLOv5, YOLOv7, SSD300, FasterRCNN)),
    )
    for model in models
    for kind in get_args(get_type_hints(model)["kind"])
}
"""Class of run for each kind of model."""


class Study(Section):
    """Runs that `posture compare` trains on one budget, from several seeds, and compares on the same test segments."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")]
    subject: AnyRun
    """Run that the others are compared with."""
    baselines: tuple[AnyRun, ...] = ()
    """Other published networks."""
    ablations: tuple[AnyRun, ...] = ()
    """The subject with parts taken away."""
    references: tuple[AnyRun, ...] = ()
    """Common alternatives. Those that cannot be narrowed while the subject is train for as long as it does."""
    replacements: tuple[str, ...] = ()
    """Names of the ablations that replace a part by another one."""
    departures: tuple[Text, ...] = ()
    """Departures of the subject from the paper, a sentence or two each; see `posture.runs.recipes.points`."""
    titles: dict[str, str] = {}
    """Display names, by run name."""
    epochs: Epochs = 30
    """Budget of every run, in passes over the training clips. `auto` is chosen for the subject, and the same for all.
    """
    learning_rates: tuple[Positive, ...] = (1 / 3, 1.0, 3.0)
    """Factors on each run's own learning rate; the one with the lowest validation loss is used."""
    search_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1 / 3
    """Share of the epochs for which each learning rate is tried."""

    @property
    def runs(self) -> tuple[AnyRun, ...]:
        """All runs, the subject first."""
        return (self.subject, *self.baselines, *self.ablations, *self.references)

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        names = [run.name for run in self.runs]
        if unfit := next((run for run in self.runs if run.pretext), None):
            raise ValueError(
                f"study {self.name!r} compares classifiers, but {unfit.name!r} has pretext={unfit.pretext} and names "
                "no class"
            )
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"study {self.name!r} has two runs named {twice!r}; every run needs a name of its own")
        if other := next((run for run in self.runs if run.task != self.subject.task), None):
            raise ValueError(
                f"study {self.name!r} must compare runs of one task, but {self.subject.name!r} is of "
                f"{self.subject.task} and {other.name!r} of {other.task}"
            )
        return self


LATER = {
    "probe": False,
    "teachers": [],
    "pretext": "",
    "loss.teacher_share": 0.5,
    "least_steps": 1000,
    "optim.backbone_lr": 1.0,
    "optim.layer_decay": 1.0,
    "model.input": "rgb",
    "model.stochastic_depth": 0.0,
    "data.labels_per_class": None,
    "data.rand_augment": 0,
    "data.magnitude": 0.3,
    "data.drift": 0.0,
    "data.steps": [],
    "data.erasing": 0.0,
    "data.mixup": 0.0,
    "data.cutmix": 0.0,
    "data.copy_paste": 0.0,
    "loss.scaled": False,
    "optim.ema_horizon": 0.0,
    "optim.head_lr": 1.0,
    "optim.attention_lr": 1.0,
}
"""Fields that runs have since they were first written, with the values of runs before. With these values, or None, they
stay out of a run's `identity`. A new field of a run belongs here too.
"""


def identity(run: AnyRun, *, without: set[str]) -> dict[str, Any]:
    """Return the plain values of a run that decide its result, without the top fields `without`, as older versions did.

    So finished runs of a comparison, searches and killed passes of older versions are found.
    """
    content = run.model_dump(mode="json", exclude=without)
    if content.get("epochs") != "auto":
        content.pop("least_steps", None)  # has no effect
    for path, before in LATER.items():
        section, _, field = path.rpartition(".")
        tree = content[section] if section else content
        if field in tree and tree[field] in (before, None):
            del tree[field]
    return content


def has_field(run: AnyRun, path: str) -> bool:
    """Return True if the run has a field at the dotted `path`, such as `model.groups`."""
    node: Any = run.model_dump()
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True


def override(run: AnyRun, changes: dict[str, Any]) -> AnyRun:
    """Return a new, validated run with dotted `changes` (`{"model.groups": 4}`) applied.

    Raises InputError with the field, the value and what is allowed.
    """
    tree = run.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node = tree
        for parent in parents:
            if not isinstance(node.get(parent), dict):
                raise InputError(_unknown_field(path, parent, node))
            node = node[parent]
        if leaf not in node and not (leaf == "kind"):
            raise InputError(_unknown_field(path, leaf, node))
        node[leaf] = value
    return validate(tree)


def validate(tree: dict[str, Any]) -> AnyRun:
    """Return a run from plain values (a saved `run.json`), including those of older versions.

    Raises InputError with the field, the value and what is allowed.
    """
    model = tree.get("model") if isinstance(tree, dict) else None
    if not isinstance(model, dict):
        given = _shortened(model if isinstance(tree, dict) else tree)
        raise InputError(f"model: must be an object with the model's fields (given {given})")
    kind = model.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"model.kind: must be one of {', '.join(KINDS)} (given {_shortened(kind)})")
    tree = tree | {"model": BEFORE.get(kind, {}) | model}
    try:
        return KINDS[kind].model_validate(tree)
    except ValidationError as error:
        raise InputError(sentences(error)) from None


def sentences(error: ValidationError) -> str:
    """Return the problems of a run as one text, field by field."""
    return "; ".join(_sentence(problem) for problem in error.errors())


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return `["optim.lr=0.01", "model.norm=group"]` as dotted changes; values are JSON if they parse, else text."""
    changes: dict[str, Any] = {}
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign or not path.strip():
            raise InputError(f"--set takes field=value, for example --set optim.lr=0.01, not {assignment!r}")
        try:
            changes[path.strip()] = json.loads(text)
        except (ValueError, RecursionError):  # no JSON, or none that can be read: thousands of digits or brackets
            changes[path.strip()] = {"True": True, "False": False, "None": None}.get(text, text)
    return changes


def read_changes(file: str) -> dict[str, Any]:
    """Return the dotted changes in a JSON file, or in `file` itself if that is JSON.

    The JSON is `{"optim.lr": 0.01}`, or a search's result with such `changes`. Raises InputError with the file's name.
    """
    try:
        found = json.loads(file if file.lstrip().startswith("{") else Path(file).read_text())
    except OSError as error:
        raise InputError(f"--set-file {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'--set-file {file}: not JSON ({error}); write fields and values, such as {{"optim.lr": 0.01}}'
        ) from None
    changes = found.get("changes", found) if isinstance(found, dict) else None
    if not isinstance(changes, dict) or any(isinstance(value, dict) for value in changes.values()):
        raise InputError(
            f'--set-file {file}: must hold fields and values, such as {{"optim.lr": 0.01}}, or the output of '
            "posture tune --out"
        )
    return changes


def _unknown_field(path: str, name: str, node: Any) -> str:
    allowed = ", ".join(sorted(node)) if isinstance(node, dict) else "nothing below it"
    return f"{path}: there is no field {name!r} here; the fields are {allowed}"


def _sentence(problem: Any) -> str:
    """Return one validation problem as `field: what is wrong (given value)`."""
    parts = [str(part) for part in problem["loc"]]
    if parts[0:1] == ["model"]:
        del parts[1:2]  # the model's kind, which pydantic puts between model and field
    path = ".".join(parts) or "run"
    message = _cut(problem["msg"].removeprefix("Value error, "), MAX_MESSAGE)
    given = problem.get("input")
    shown = "" if isinstance(given, dict) or problem["type"] == "value_error" else f" (given {_shortened(given)})"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def _shortened(value: Any) -> str:
    """Return a value as written in Python, shortened."""
    try:
        return _cut(repr(value), MAX_SHOWN)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return f"a {type(value).__name__} too long to show"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]} ..."
