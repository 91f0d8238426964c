"""Train and judge small runs whose numbers are the same on every machine.

Network and loss compute in float64: ten steps of a detector, whose batches are normalised over few pixels, enlarge
float32's rounding a thousandfold. Clips are resampled in float32, and their runs have a low learning rate, which keeps
that noise below 3e-7. Images are augmented by mosaics and flips alone, because OpenCV rounds other transformations
differently from CPU to CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from posture.config import validate
from posture.models import build
from posture.models.configs import IMPROVED
from posture.models.detector_configs import IMPROVED_YOLOV5
from posture.models.fuse import fuse
from posture.runs.classification_metrics import classification_metrics
from posture.tasks.action import ActionTask
from posture.tasks.detection import DetectionTask
from posture.tasks.detection_metrics import detection_metrics
from posture.train.clip_batches import ClipBatches
from posture.train.context import LocalContext
from posture.train.detect import detect_images
from posture.train.evaluate import merge_by_segment, score
from posture.train.image_batches import ImageBatches
from posture.train.loop import fit

NUMBERS = Path(__file__).with_name("numbers.json")
STEPS = 10
MOVES = ("still", "left", "right")
OBJECTS = ("athlete", "ball")
TIMES = ("seconds", "clips_per_second", "data_wait_share")
CPU = torch.device("cpu")

ACTION = {
    "epochs": STEPS,
    "seed": 7,
    "scale": {"global_batch": 12, "micro_batch": 6, "amp": "off"},
    "loss": {"label_smoothing": 0.1},
    "optim": {"name": "adamw", "lr": 0.0005, "weight_decay": 0.05, "warmup_epochs": 3.0},
}
DETECTION = {
    "epochs": STEPS,
    "seed": 7,
    "data": {"resize": 0.0, "shift": 0.0, "hue": 0.0, "saturation": 0.0, "value": 0.0},
    "scale": {"global_batch": 6, "micro_batch": 3, "amp": "off"},
    "optim": {
        "name": "adam",
        "lr": 0.0005,
        "weight_decay": 0.0005,
        "momentum": 0.937,
        "warmup_epochs": 3.0,
        "ema": 0.999,
    }
    | {"clip_norm": 10.0},
}
RUNS: dict[str, dict[str, Any]] = {
    "improved_c3d": ACTION | {"model": {"kind": "c3d", **IMPROVED, "frames": 8, "size": 24, "width": 0.25}},
    "two_stream": ACTION
    | {"model": {"kind": "two_stream", "frames": 6, "flow_frames": 4, "size": 25, "width": 0.125, "dropout": 0.5}},
    "improved_yolov5": DETECTION
    | {"model": {"kind": "yolov5", **IMPROVED_YOLOV5, "size": 64, "width": 0.125, "norm_momentum": 0.1}},
    "yolov7": DETECTION | {"model": {"kind": "yolov7", "size": 64, "width": 0.125, "norm_momentum": 0.1}},
}
"""Runs as plain values: what `run.json` holds."""


class Action(ActionTask):
    """The task in float64."""

    def loss(self, outputs: Tensor, labels: Tensor) -> dict[str, tuple[Tensor, float]]:
        with _float64():
            return super().loss(outputs, labels)


class Detection(DetectionTask):
    """The task in float64."""

    def loss(self, outputs: Any, targets: Any) -> dict[str, tuple[Tensor, float]]:
        with _float64():
            return super().loss(outputs, targets)

    def detect(self, outputs: Any) -> Any:
        with _float64():
            return super().detect(outputs)


class Clips:
    """Noise under a bright bar that stands still or walks left or right, with noise for optical flow; two clips to a
    segment.
    """

    classes = MOVES

    def __init__(self, clips: int, *, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.keys = [f"{number:08x}" for number in range(clips)]
        self.segments = np.arange(clips, dtype=np.int64) // 2
        self.labels = self.segments % 3
        self.frames = [_walk(int(label), 8 + number % 3, generator) for number, label in enumerate(self.labels)]
        self.flows = [
            generator.integers(100, 156, (len(frames) - 1, 28, 32, 2), dtype=np.uint8) for frames in self.frames
        ]

    def __len__(self) -> int:
        return len(self.frames)

    def clip(self, index: int) -> np.ndarray:
        return self.frames[index]

    def flow(self, index: int) -> np.ndarray:
        return self.flows[index]


class Images:
    """Dark noise with one to three bright rectangles, PNG; every third image has an ignore region."""

    classes = OBJECTS

    def __init__(self, images: int, *, seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.keys = [f"{number:08x}" for number in range(images)]
        self.sizes = generator.integers(40, 90, (images, 2))
        self.boxes, self.labels, self.ignored, self.ignored_labels, self.files = [], [], [], [], []
        for number, (height, width) in enumerate(self.sizes.tolist()):
            pixels = generator.integers(0, 60, (height, width, 3), dtype=np.uint8)
            count = 1 + number % 3
            corner, side = generator.integers(0, 24, (count, 2)), generator.integers(8, 17, (count, 2))
            boxes, labels = np.concatenate([corner, corner + side], axis=1), (np.arange(count) + number) % 2
            for (x1, y1, x2, y2), label in zip(boxes.tolist(), labels.tolist(), strict=True):
                pixels[y1:y2, x1:x2] = (230, 230 - 150 * label, 200)
            region = np.array([[width - 12.0, height - 12.0, width, height]])[: int(number % 3 == 0)]
            self.boxes.append(boxes.astype(np.float32))
            self.labels.append(labels.astype(np.int64))
            self.ignored.append(region.astype(np.float32).reshape(-1, 4))
            self.ignored_labels.append(np.zeros(len(region), dtype=np.int64))
            self.files.append(np.frombuffer(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes(), np.uint8))

    def __len__(self) -> int:
        return len(self.files)

    def encoded(self, index: int) -> np.ndarray:
        return self.files[index]


def train_and_judge(
    name: str, changes: dict[str, dict[str, Any]] | None = None, *, steps: int = STEPS
) -> dict[str, Any]:
    """Return the `losses` of the steps, a record each, and the `metrics` of the trained network.

    `changes` replace values in sections of the run: `{"loss": {"l3": 0.06}}`.
    """
    tree = RUNS[name] | {"name": name, "epochs": steps}
    tree |= {section: tree.get(section, {}) | values for section, values in (changes or {}).items()}
    is_action = tree["model"]["kind"] in ("c3d", "two_stream")
    tree["model"] = tree["model"] | {"classes": len(MOVES if is_action else OBJECTS)}
    run = validate(tree)
    torch.manual_seed(run.seed)
    with _float64():
        network = build(run.model)
    network.register_forward_pre_hook(_inputs_in_float64)
    if is_action:
        task, train, val = Action(run, MOVES), Clips(12, seed=1), Clips(12, seed=2)
        batches = ClipBatches(train, run, rank=0, world_size=1, validation=val)
    else:
        task, train, val = Detection(run, OBJECTS), Images(6, seed=1), Images(9, seed=2)
        batches = ImageBatches(train, run, rank=0, world_size=1, validation=val)
    assert batches.steps_per_epoch == 1
    with LocalContext(device=CPU) as ctx:
        history = fit(run, task, batches, ctx, None, model=network)["history"]
    losses = [{key: value for key, value in record.items() if key not in TIMES} for record in history]
    return {"losses": losses, "metrics": (_classified if is_action else _detected)(network, task, val, run)}


def _classified(network: nn.Module, task: Any, clips: Clips, run: Any) -> dict[str, Any]:
    scores = score(network, clips, np.arange(len(clips)), run, CPU, crops=3, temporal_views=2)
    merged = merge_by_segment(scores, clips.segments, clips.labels)
    return classification_metrics(merged.scores, merged.labels, MOVES) | {"scores": merged.scores.tolist()}


def _detected(network: nn.Module, task: Any, images: Images, run: Any) -> dict[str, Any]:
    """Ten steps teach a detector nothing, so what it finds is joined by the true boxes, moved and scored at random."""
    generator = np.random.default_rng(3)
    found, judged = detect_images(fuse(network.eval()), task, images, run, CPU), []
    truth = zip(images.boxes, images.labels, images.ignored, images.ignored_labels, strict=True)
    for (boxes, scores, labels), true in zip(found, truth, strict=True):
        moved = true[0] + generator.normal(0, 2, true[0].shape)
        near = moved.astype(np.float32), generator.uniform(0.01, 1, len(moved)).astype(np.float32), true[1]
        judged.append((*map(np.concatenate, zip((boxes, scores, labels), near, strict=True)), *true))
    sums = [[len(boxes), float(boxes.sum()), float(scores.sum())] for boxes, scores, _ in found]
    return detection_metrics(judged, OBJECTS) | {"found": sums}


@contextmanager
def _float64() -> Iterator[None]:
    """Compute in float64 what the program computes in float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with patch.object(Tensor, "float", Tensor.double):
            yield
    finally:
        torch.set_default_dtype(before)


def _inputs_in_float64(network: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(array.double() for array in inputs)


def _walk(label: int, frames: int, generator: np.random.Generator) -> np.ndarray:
    clip = generator.integers(0, 80, (frames, 28, 32, 3), dtype=np.uint8)
    start = int(generator.integers(4, 24))
    for frame in range(frames):
        left = (start + (0, -2, 2)[label] * frame) % 29
        clip[frame, :, left : left + 3] = 230
    return clip
