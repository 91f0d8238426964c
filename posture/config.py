"""A training run as a typed value: made by a Python function, changed by dotted overrides, saved beside its weights.

This module imports no torch: a mistake in a configuration is found in a fraction of a second.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from posture.display.text import listed
from posture.errors import InputError
from posture.models.configs import BEFORE, C3D, TwoStream, VideoResNet
from posture.models.detector_configs import SSD300, FasterRCNN, YOLOv5, YOLOv7

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Weight = Annotated[float, Field(ge=0.0, le=1e6)]
Positive = Annotated[float, Field(gt=0.0, le=1e6)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Text = Annotated[str, Field(max_length=4096)]
MOST_WORKERS = 1024
MOST_SHOWN = 200
"""Characters of a wrong value that are shown."""
MOST_SAID = 800
"""Characters of what is wrong with a field."""


class Section(BaseModel):
    """A part of a run: unknown names are refused, values never change in place."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ClipData(Section):
    """How stored clips become training batches."""

    recipe: Text | None = None
    """Decode recipe to train on, where a store has several."""
    step: Count = 1
    """Every `step`-th stored frame is used; a clip spans `model.frames * step` stored frames."""
    flow: Literal["dis", "farneback"] | None = None
    """Optical flow that a model with flow reads, where a store has both."""
    temporal_jitter: bool = True
    """Training starts a clip at a random stored frame; otherwise in the middle."""
    crop_scale: tuple[Fraction, Fraction] = (0.5, 1.0)
    """Area of the random crop, as a share of the stored frame."""
    crop_aspect: tuple[Positive, Positive] = (0.75, 1.3333)
    """Aspect ratio (width / height) of the random crop before it is resized."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    brightness: Fraction = 0.3
    contrast: Fraction = 0.3
    saturation: Fraction = 0.3
    mean: tuple[Fraction, Fraction, Fraction] = (0.43216, 0.394666, 0.37645)
    """Per-channel mean of RGB in 0..1 (Kinetics)."""
    std: tuple[Positive, Positive, Positive] = (0.22803, 0.22145, 0.216989)
    balanced: bool = False
    """Draw classes equally often, whatever their number of clips."""
    feed: Literal["auto", "materialize", "stream"] = "auto"
    """Hold the footage in memory (our order, exact), or stream it (coverage and equal step counts only)."""

    @model_validator(mode="after")
    def _ranges(self) -> ClipData:
        for name in ("crop_scale", "crop_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"data.{name} must be a range low..high with 0 < low <= high, not {low}..{high}")
        return self


class ImageData(Section):
    """How stored images with boxes become training batches."""

    anchors: Literal["auto", "kmeans", "keep"] = "auto"
    """k-means anchors from the training boxes, the model's own kept, or, `auto`, kept where they reach nearly every box
    already.
    """
    mosaic: Fraction = 1.0
    """Probability that four images become one (Bochkovskiy 2020, arXiv 2004.10934, section 3.4)."""
    mosaic_until: Fraction = 0.9
    """Share of the epochs after which images come one by one, as they will be judged."""
    mosaic_buffer: Count = 256
    """Decoded images that a worker keeps to make mosaics of."""
    resize: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    """Images grow and shrink by up to this share; grown, they are cropped."""
    shift: Fraction = 0.1
    """Moves by up to this share of the side."""
    rotate: Annotated[float, Field(ge=0.0, le=180.0)] = 0.0
    """Turns by up to so many degrees; boxes become those around the turned boxes."""
    flip: Fraction = 0.5
    """Probability of a left-right flip."""
    hue: Fraction = 0.015
    saturation: Fraction = 0.7
    value: Fraction = 0.4
    """Colours in HSV change by factors up to 1 -+ these."""
    least_visible: Fraction = 0.1
    """A box of which less than this share of its area remains in the image is dropped."""
    multi_scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Each step's images are up to this share smaller or larger, in steps of 32 pixels."""
    feed: Literal["auto", "materialize", "stream"] = "auto"
    """Hold the encoded images in memory (our order, exact), or stream them (coverage and equal step counts only)."""


class ActionLoss(Section):
    """Cross-entropy over the classes."""

    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class DetectionLoss(Section):
    """Equation (3): l1 * class + l2 * objectness + l3 * box. torchvision's detectors have losses of their own and do
    not read it.
    """

    l1: Weight = 0.5
    l2: Weight = 1.0
    l3: Weight = 0.05
    box_loss: Literal["iou", "giou", "diou", "ciou", "eiou", "siou"] = "eiou"
    """`eiou` is equation (8), the paper's improved CIoU; `ciou` equations (5)-(7); `siou` its smoothed IoU (Figure 3).
    """
    anchor_ratio: Annotated[float, Field(gt=1.0, le=1000.0)] = 4.0
    """A box is matched with the anchors whose sides are less than so many times as long or as short (Table 2)."""
    balance: tuple[Positive, Positive, Positive] = (4.0, 1.0, 0.4)
    """Weights of the levels' objectness, the finest first (YOLOv5's)."""
    label_smoothing: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0


class Detect(Section):
    """From a detector's raw outputs to boxes. torchvision's networks suppress overlaps themselves, always by IoU."""

    confidence: Fraction = 0.001
    """Less certain boxes are dropped; low for mAP, which ranks, higher for people."""
    overlap: Fraction = 0.6
    """Of two boxes of a class that overlap more, the less certain one is suppressed."""
    nms_overlap: Literal["iou", "diou", "eiou"] = "diou"
    """How overlap is measured; `diou` and `eiou` spare boxes whose centres lie apart."""
    most: Count = 300
    """Boxes kept in an image."""


class Optim(Section):
    """The optimiser and its schedule."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, Field(gt=0.0, le=1e30)] = 0.025
    """Peak learning rate at `scale.global_batch`. One that is too high costs no memory: training says that it diverged.
    """
    weight_decay: Weight = 0.0003
    momentum: Fraction = 0.9
    """SGD's momentum, or Adam's beta1."""
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: Weight = 1.0
    clip_norm: Weight = 0.0
    """Largest gradient norm; 0 leaves gradients alone."""
    ema: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Decay of the exponential moving average of the weights; 0 keeps none."""


def _workers(value: Any) -> Any:
    least, most = value if isinstance(value, list | tuple) and len(value) == 2 else (value, value)
    if not all(type(count) is int and 1 <= count <= MOST_WORKERS for count in (least, most)) or least > most:
        raise ValueError(
            f"must be a number of workers from 1, or a range of them [least, most] with least <= most, at most {MOST_WORKERS}, "
            f"not {_shortened(value)}"
        )
    return least if least == most else (least, most)


class Scale(Section):
    """How much hardware, and how a batch is cut over it."""

    workers: Annotated[int | tuple[int, int], BeforeValidator(_workers)] = 1
    """Or a range [least, most]: as many as the cluster has room for while the run goes on. Every size in it must divide
    `global_batch`.
    """
    gpus_per_worker: Annotated[float, Field(ge=0.0, le=64.0)] | Literal["auto"] = "auto"
    """`auto`: 1 where the cluster has a GPU for every worker, else 0."""
    cpus_per_worker: Annotated[float, Field(gt=0.0, le=4096.0)] | Literal["auto"] = "auto"
    """`auto`: an equal share that leaves room for Ray Data."""
    global_batch: Count = 32
    """Clips per optimiser step, over all workers."""
    micro_batch: Count | None = None
    """Clips per forward pass on one worker; the rest of its share is accumulated. None: its whole share."""
    amp: Literal["auto", "bf16", "fp16", "off"] = "auto"
    """Mixed precision. `auto`: bf16 on a GPU, off on the CPU."""
    compile: bool = False
    """`torch.compile` the network."""

    @property
    def accumulation(self) -> int:
        """Forward passes per optimiser step on one worker, where all are there."""
        most = self.sizes[-1]
        return self.global_batch // (most * (self.micro_batch or self.global_batch // most))

    @property
    def sizes(self) -> range:
        """All numbers of workers that the run may have."""
        least, most = (self.workers, self.workers) if isinstance(self.workers, int) else self.workers
        return range(least, most + 1)

    @property
    def multiple(self) -> int:
        """What `global_batch` must be a multiple of."""
        return math.lcm(*self.sizes) * (self.micro_batch or 1)

    @model_validator(mode="after")
    def _divisible(self) -> Scale:
        uneven = [size for size in self.sizes if self.global_batch % (size * (self.micro_batch or 1))]
        if uneven:
            each = f" of micro_batch {self.micro_batch}" if self.micro_batch else ""
            within = f", which scale.workers {list(self.workers)} allows" if len(self.sizes) > 1 else ""
            raise ValueError(
                f"scale.global_batch {self.global_batch} cannot be cut evenly over {listed(uneven, 'or')} workers{each}{within}; "
                f"global_batch must be a multiple of {self.multiple}"
            )
        return self


class Tracking(Section):
    """Weights & Biases."""

    project: Annotated[str, Field(min_length=1, max_length=128)] = "posture"
    mode: Literal["auto", "online", "offline", "off"] = "auto"
    """`auto`: online where an API key is found, else offline."""
    group: Annotated[str, Field(max_length=128)] | None = None


class BaseRun(Section):
    """What training runs of all kinds have."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] = 0
    epochs: Count = 50
    steps_per_epoch: Annotated[int, Field(ge=1, le=10**9)] | None = None
    """An epoch, after which the run validates and saves, ends after so many steps; None: when everything was seen."""
    patience: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Stop after this many epochs without a better `metric`; 0 never stops early."""
    weights: Text = ""
    """Weights to start from: a run, a checkpoint's folder, a .safetensors file, or a state dict (.pt, .pth); empty:
    random ones.
    """
    optim: Optim = Optim()
    scale: Scale = Scale()
    tracking: Tracking = Tracking()


class ActionRun(BaseRun):
    """Everything one training run of an action classifier depends on."""

    task: ClassVar[str] = "action"

    metric: Literal["accuracy", "mean_class_accuracy", "map"] = "accuracy"
    """What selects the best checkpoint, measured on `val`."""
    model: Annotated[C3D | TwoStream | VideoResNet, Field(discriminator="kind")]
    data: ClipData = ClipData()
    loss: ActionLoss = ActionLoss()

    @model_validator(mode="after")
    def _neighbouring_frames(self) -> ActionRun:
        if "flow" in self.model.inputs and self.data.step != 1:
            raise ValueError(
                f"data.step must be 1 for a model that reads optical flow, not {self.data.step}: flow is between neighbouring stored frames"
            )
        return self


class DetectionRun(BaseRun):
    """Everything one training run of a detector depends on; the defaults are the paper's Table 2 where it has them."""

    task: ClassVar[str] = "detection"

    epochs: Count = 100
    metric: Literal["map50_95", "map50"] = "map50_95"
    """What selects the best checkpoint, measured on `val`."""
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
                f"data.multi_scale must be 0 for ssd300, not {self.data.multi_scale:g}: its boxes are laid out for one size"
            )
        return self


AnyRun = ActionRun | DetectionRun
KINDS: dict[str, type[AnyRun]] = {
    kind: run
    for run, models in (
        (ActionRun, (C3D, TwoStream, VideoResNet)),
        (DetectionRun, (YOLOv5, YOLOv7, SSD300, FasterRCNN)),
    )
    for model in models
    for kind in get_args(get_type_hints(model)["kind"])
}
"""The kind of run that each kind of model is trained by."""


class Study(Section):
    """Runs to train on one budget, from several seeds, and to compare on the same test segments. `posture compare`
    takes one.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,49}$")]
    subject: AnyRun
    """What the others are compared with."""
    baselines: tuple[AnyRun, ...] = ()
    ablations: tuple[AnyRun, ...] = ()
    """The subject with parts taken away."""
    references: tuple[AnyRun, ...] = ()
    """What a user would take instead. Networks that cannot be narrowed, where the subject is: they then train as long
    as it does.
    """
    replacements: tuple[str, ...] = ()
    """Names of those ablations in which something else stands in the part's place."""
    departures: tuple[Text, ...] = ()
    """Where the subject departs from the paper, a sentence or two each; see `posture.runs.recipes.points`."""
    titles: dict[str, str] = {}
    """Names for people, by run name."""
    epochs: Count = 30
    """The budget of every run, in passes over the training clips."""
    learning_rates: tuple[Positive, ...] = (1 / 3, 1.0, 3.0)
    """Factors on each run's own learning rate; the one with the least validation loss is taken."""
    search_share: Annotated[float, Field(gt=0.0, le=1.0)] = 1 / 3
    """Share of the epochs that each learning rate is tried for."""

    @property
    def runs(self) -> tuple[AnyRun, ...]:
        """All of them, the subject first."""
        return (self.subject, *self.baselines, *self.ablations, *self.references)

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        names = [run.name for run in self.runs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"study {self.name!r} has two runs named {twice!r}; every run needs a name of its own")
        if other := next((run for run in self.runs if run.task != self.subject.task), None):
            raise ValueError(
                f"study {self.name!r} compares runs of one task; {self.subject.name!r} is of {self.subject.task}, {other.name!r} of {other.task}"
            )
        return self


def override(run: AnyRun, changes: dict[str, Any]) -> AnyRun:
    """A new run with dotted `changes` (`{"model.groups": 4}`) applied and everything validated again.

    Raises InputError naming the field, the value and what is allowed.
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
    """A run from plain values (a saved `run.json`), of whatever shape; one of an older version means what it did.

    Raises InputError naming field, value and what is allowed.
    """
    model = tree.get("model") if isinstance(tree, dict) else None
    if not isinstance(model, dict):
        raise InputError(
            f"model: a run has the fields of a model here (given {_shortened(model if isinstance(tree, dict) else tree)})"
        )
    kind = model.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"model.kind: must be one of {', '.join(KINDS)} (given {_shortened(kind)})")
    tree = tree | {"model": BEFORE.get(kind, {}) | model}
    try:
        return KINDS[kind].model_validate(tree)
    except ValidationError as error:
        raise InputError(sentences(error)) from None


def sentences(error: ValidationError) -> str:
    """What is wrong with a run, field by field."""
    return "; ".join(_sentence(problem) for problem in error.errors())


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """`["optim.lr=0.01", "model.norm=group"]` as dotted changes; values are JSON where they parse as JSON, else text."""
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
    """The dotted changes in a JSON file, or in `file` itself where that is JSON: `{"optim.lr": 0.01}`, or the `changes`
    of what a search found.

    Raises InputError naming the file.
    """
    try:
        found = json.loads(file if file.lstrip().startswith("{") else Path(file).read_text())
    except OSError as error:
        raise InputError(f"--set-file {file}: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f'--set-file {file}: no JSON ({error}); write fields and values, such as {{"optim.lr": 0.01}}'
        ) from None
    changes = found.get("changes", found) if isinstance(found, dict) else None
    if not isinstance(changes, dict) or any(isinstance(value, dict) for value in changes.values()):
        raise InputError(
            f'--set-file {file}: holds no fields and values, such as {{"optim.lr": 0.01}}, nor what posture tune --out writes'
        )
    return changes


def _unknown_field(path: str, name: str, node: Any) -> str:
    allowed = ", ".join(sorted(node)) if isinstance(node, dict) else "nothing below it"
    return f"{path}: there is no field {name!r} here; the fields are {allowed}"


def _sentence(problem: Any) -> str:
    """One validation problem as `field: what is wrong (given value)`."""
    parts = [str(part) for part in problem["loc"]]
    if parts[0:1] == ["model"]:
        del parts[1:2]  # the model's kind, which pydantic puts between model and field
    path = ".".join(parts) or "run"
    message = _cut(problem["msg"].removeprefix("Value error, "), MOST_SAID)
    given = problem.get("input")
    shown = "" if isinstance(given, dict) or problem["type"] == "value_error" else f" (given {_shortened(given)})"
    return f"{path}: {message[0].lower()}{message[1:]}{shown}"


def _shortened(value: Any) -> str:
    """A value as it is written in Python, or how that begins."""
    try:
        return _cut(repr(value), MOST_SHOWN)
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return f"a {type(value).__name__} too long to show"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."
