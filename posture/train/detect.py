"""A trained detector on images: its detections, and the time they take.

Boxes are (D, 4) float32 xyxy, scores (D,) float32 and labels (D,) int64, best first, in pixels of the stored image.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from posture.data.feed.image_transforms import Letterbox, letterbox
from posture.models.boxes import Detections
from posture.models.graphs import Graphed
from posture.train.image_batches import ImageSource, StreamedImageSource, letterboxed
from posture.train.optim import Precision

WARM_UPS = 3


@torch.inference_mode()
def detect_images(
    network: nn.Module,
    task: Any,
    images: ImageSource | StreamedImageSource,
    run: Any,
    device: torch.device,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return boxes, scores and labels of every image, by index; `task` is a DetectionTask, `run` a DetectionRun.

    `batch` is the number of images per forward pass; `progress` is called with the number of images done and in total.
    Raises RuntimeError if the source does not yield every image exactly once.
    """
    forward, precision = _forward(network, task, device), Precision(run.scale.amp, device)
    found: list[Any] = [None] * len(images)
    done = 0
    for chunk in letterboxed(images, size=run.model.size, batch=batch):
        inputs, _ = chunk.tensors(run, device)
        with precision.autocast():
            outputs = forward(*inputs)
        for index, where, detections in zip(
            chunk.indices.tolist(), chunk.letterboxes, task.detect(outputs), strict=True
        ):
            if found[index] is not None:
                raise RuntimeError(f"image {index} came twice")
            found[index] = in_image(detections, where)
        done += len(chunk.indices)
        if progress is not None:
            progress(done, len(images))
    if any(one is None for one in found):
        raise RuntimeError(f"{sum(one is None for one in found)} of {len(images)} images never came")
    return found


@torch.inference_mode()
def detect_frames(
    network: nn.Module, task: Any, frames: np.ndarray, run: Any, device: torch.device
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Return boxes, scores and labels of each of uint8 (n, h, w, 3) RGB frames, in one pass, on `device`."""
    none = np.zeros((0, 4), dtype=np.float32)
    letterboxes = [letterbox(frame, none, run.model.size) for frame in frames]
    inputs = _inputs(np.stack([square for square, _, _ in letterboxes]), device)
    with Precision(run.scale.amp, device).autocast():
        outputs = network.eval()(inputs)
    return [
        in_image(detections, where) for detections, (_, _, where) in zip(task.detect(outputs), letterboxes, strict=True)
    ]


def in_image(detections: Detections, where: Letterbox) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels as arrays, in pixels of the image before letterboxing."""
    boxes, scores, labels = (part.cpu().numpy() for part in detections)
    return where.boxes_to_image(boxes).astype(np.float32), scores.astype(np.float32), labels.astype(np.int64)


@torch.inference_mode()
def time_images(
    network: nn.Module, task: Any, images: ImageSource, run: Any, device: torch.device
) -> dict[str, list[float]]:
    """Return milliseconds of each image, one by one: `model` is the network only, `whole` is end to end, from decoded
    pixels to boxes (preprocessing, network, suppression).
    """
    forward, precision = _forward(network, task, device), Precision(run.scale.amp, device)
    none = np.zeros((0, 4), dtype=np.float32)
    times: dict[str, list[float]] = {"model": [], "whole": []}
    for number in range(-WARM_UPS, len(images)):
        pixels = images.image(max(number, 0))
        began = time.perf_counter()
        square, _, where = letterbox(pixels, none, run.model.size)
        inputs = _inputs(square[None], device)
        _wait(device)
        before = time.perf_counter()
        with precision.autocast():
            outputs = forward(inputs)
        _wait(device)
        after = time.perf_counter()
        in_image(task.detect(outputs)[0], where)
        if number >= 0:
            times["model"].append(1e3 * (after - before))
            times["whole"].append(1e3 * (time.perf_counter() - began))
    return times


def _inputs(squares: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return uint8 (n, S, S, 3) as float32 (n, 3, S, S) in 0..1 on `device`."""
    return torch.from_numpy(squares).to(device).permute(0, 3, 1, 2).to(torch.float32).div_(255.0)


def _forward(network: nn.Module, task: Any, device: torch.device) -> Callable[[torch.Tensor], Any]:
    """Return the network in evaluation mode, as a CUDA graph on a GPU if it can be recorded.

    Networks that find boxes themselves wait for the GPU, so they cannot.
    """
    network = network.to(device).eval()
    return Graphed(network) if device.type == "cuda" and not task.in_network else network


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
