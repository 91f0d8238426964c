"""From stored frames to network input: temporal sampling, augmentation on the device, and evaluation views.

Tensor legend: N clips, T frames, H and W the stored height and width in pixels, S = `size` the network's side in
pixels. Random parameters are drawn on the CPU, separately for each clip, from a key (seed, epoch, clip index, repeat).
So they do not depend on the number of workers or on the other clips of a batch. They are plain arrays (`Augmentation`),
so that boxes and flow can follow the pixels. Optical flow (`posture/data/decode/optical_flow.py`) follows its clip's
crop and flip; it has no colours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posture.data.decode.optical_flow import PIXELS_PER_STEP, ZERO
from posture.data.feed.rand_augment import RandomOperations, rand_augmented

# Each use of a clip's key draws from a stream of its own, so that turning one kind of augmentation off does not change
# the others.
TEMPORAL, SPATIAL, NETWORK, OPERATIONS, ERASING, MIXING, STEP, PRETEXT, PLAY = 0, 1, 2, 10, 11, 12, 13, 14, 15

LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in the grey value (ITU-R BT.601)."""


@dataclass(frozen=True)
class Augmentation:
    """Augmentation of N clips, the same for all frames of a clip."""

    crops_xyxy: np.ndarray
    """(N, 4) float64, pixels of the stored frame."""
    flips: np.ndarray
    """(N,) bool, left-right, after the crop."""
    brightness: np.ndarray
    """(N,) float64, a factor; 1 changes nothing."""
    contrast: np.ndarray
    """(N,) float64, a factor; 1 changes nothing."""
    saturation: np.ndarray
    """(N,) float64, a factor; 1 changes nothing."""
    operations: RandomOperations | None = None
    """RandAugment after crop, flip and colours."""

    @property
    def keeps_colours(self) -> bool:
        """True if all three colour factors are 1 for all clips."""
        return all(bool((factors == 1.0).all()) for factors in (self.brightness, self.contrast, self.saturation))


def clip_generator(stream: int, *, seed: int, epoch: int, clip: int, repeat: int = 0) -> np.random.Generator:
    """Return the generator of one clip in one epoch; `repeat` counts its earlier occurrences in that epoch."""
    return np.random.Generator(
        np.random.Philox(np.random.SeedSequence((seed % 2**64, epoch, clip, repeat), spawn_key=(stream,)))
    )


def frame_indices(
    stored_frames: int,
    frames: int,
    *,
    step: int = 1,
    generator: np.random.Generator | None = None,
    view: int = 0,
    views: int = 1,
) -> np.ndarray:
    """Return the indices of a clip's `frames` stored frames, every `step`-th one: (frames,) int64.

    With a `generator` the start is random. Without, a single view is centred, and several are spread evenly from the
    first possible start to the last. A stored clip that is too short repeats its last frame.
    """
    latest_start = max(0, stored_frames - ((frames - 1) * step + 1))
    if generator is not None:
        start = int(generator.integers(latest_start + 1))
    elif views == 1:
        start = latest_start // 2
    else:
        start = round(latest_start * view / (views - 1))
    return np.minimum(start + step * np.arange(frames), stored_frames - 1)


def draw_augmentation(
    data: Any,
    frame_size: tuple[int, int],
    *,
    seed: int,
    epoch: int,
    clips: np.ndarray,
    repeats: np.ndarray | None = None,
) -> Augmentation:
    """Return random crop, flip, colours and operations of the clips with indices `clips` (N,).

    `data` is `run.data`, `frame_size` the stored (height, width). The crop's area and aspect are drawn as in Szegedy
    2015 (section 6); if it does not fit, the longer side is cut to the frame.
    """
    height, width = frame_size
    repeats = np.zeros(len(clips), dtype=np.int64) if repeats is None else repeats
    keys = zip(clips.tolist(), repeats.tolist(), strict=True)
    uniform = [
        clip_generator(SPATIAL, seed=seed, epoch=epoch, clip=clip, repeat=repeat).random(8) for clip, repeat in keys
    ]
    area, aspect, left, top, flip, brightness, contrast, saturation = np.stack(uniform, axis=1)  # (N,) each, in 0..1
    crop_area = height * width * _between(data.crop_scale, area)
    crop_aspect = np.exp(_between(np.log(data.crop_aspect), aspect))
    crop_width = np.minimum(np.sqrt(crop_area * crop_aspect), width)
    crop_height = np.minimum(np.sqrt(crop_area / crop_aspect), height)
    x, y = left * (width - crop_width), top * (height - crop_height)
    operations = None
    if data.rand_augment:
        seeds = [
            clip_generator(OPERATIONS, seed=seed, epoch=epoch, clip=clip, repeat=repeat).integers(2**63)
            for clip, repeat in zip(clips.tolist(), repeats.tolist(), strict=True)
        ]
        operations = RandomOperations(np.array(seeds, dtype=np.int64), data.rand_augment, data.magnitude, data.drift)
    return Augmentation(
        crops_xyxy=np.stack([x, y, x + crop_width, y + crop_height], axis=1),
        flips=flip < data.flip,
        brightness=_between((1 - data.brightness, 1 + data.brightness), brightness),
        contrast=_between((1 - data.contrast, 1 + data.contrast), contrast),
        saturation=_between((1 - data.saturation, 1 + data.saturation), saturation),
        operations=operations,
    )


def evaluation_view(frame_size: tuple[int, int], *, clips: int, crop: int = 0, crops: int = 1) -> Augmentation:
    """Return the largest square of the frame for each of N = `clips` clips, with unchanged colours.

    One crop is centred; three are left, centre and right (top, centre and bottom of a portrait frame).
    """
    height, width = frame_size
    side = min(height, width)
    share = 0.5 if crops == 1 else crop / (crops - 1)
    x, y = share * (width - side), share * (height - side)
    squares = np.tile([x, y, x + side, y + side], (clips, 1))
    unchanged = np.ones(clips)
    return Augmentation(
        squares, flips=np.zeros(clips, dtype=bool), brightness=unchanged, contrast=unchanged, saturation=unchanged
    )


def network_inputs(
    stored: dict[str, Tensor], augmentation: Augmentation, *, data: Any, size: int
) -> tuple[Tensor, ...]:
    """Return a network's inputs from stored uint8, in the same order: "rgb" by `network_input`, "flow" by
    `network_flow`.
    """
    return tuple(
        network_flow(array, augmentation, size=size)
        if name == "flow"
        else network_input(array, augmentation, data=data, size=size)
        for name, array in stored.items()
    )


def network_input(clips: Tensor, augmentation: Augmentation, *, data: Any, size: int) -> Tensor:
    """Return uint8 clips (N, T, H, W, 3) as float32 (N, 3, T, S, S) on the same device, normalised with `data.mean` and
    `data.std` (`run.data`).
    """
    images = _augmented(clips, augmentation, size)
    mean, std = (torch.tensor(values, device=clips.device).view(1, 3, 1, 1, 1) for values in (data.mean, data.std))
    return images.sub_(mean).div_(std)


def network_flow(flow: Tensor, augmentation: Augmentation, *, size: int) -> Tensor:
    """Return encoded uint8 flow (N, T - 1, H, W, 2) as float32 (N, 2, T - 1, S, S), dx then dy, in hundredths of S.

    It is cropped, resized and flipped like the pixels: vectors grow with the image, by S / crop width and S / crop
    height, and a flip negates dx. Then they are divided by S / 100 pixels, which makes them about unit size for any S.
    """
    x0, y0, x1, y1 = torch.from_numpy(augmentation.crops_xyxy.astype(np.float32)).to(flow.device).unbind(dim=1)
    signs = torch.from_numpy(np.where(augmentation.flips, -1.0, 1.0).astype(np.float32)).to(flow.device)
    # hundredths of S per step of the encoding, (N, 2)
    hundredths = 100.0 * PIXELS_PER_STEP * torch.stack([signs / (x1 - x0), 1.0 / (y1 - y0)], dim=1)
    return _resample(flow, augmentation, size).sub_(ZERO).mul_(hundredths[:, :, None, None, None])


def augmented_frames(clips: Tensor, augmentation: Augmentation, *, size: int) -> Tensor:
    """Return the augmented frames for display: uint8 clips (N, T, H, W, 3) -> uint8 (N, T, S, S, 3)."""
    images = _augmented(clips, augmentation, size)
    return images.mul_(255.0).round_().to(torch.uint8).permute(0, 2, 3, 4, 1).contiguous()


def _augmented(clips: Tensor, augmentation: Augmentation, size: int) -> Tensor:
    """Return (N, 3, T, S, S) float32 in 0..1."""
    images = _resample(clips, augmentation, size, white=255.0)
    if not augmentation.keeps_colours:
        images = _recolour(images, augmentation)
    images = images.clamp_(0.0, 1.0)
    return images if augmentation.operations is None else rand_augmented(images, augmentation.operations)


def _resample(clips: Tensor, augmentation: Augmentation, size: int, *, white: float = 1.0) -> Tensor:
    """Crop, resize and flip: (N, T, H, W, C) -> (N, C, T, S, S) float32, divided by `white`.

    It takes two matrix products: bilinear resampling is separable, and a crop or a flip only moves its weights.
    """
    clip_count, frames, height, width, channels = clips.shape
    x0, y0, x1, y1 = torch.from_numpy(augmentation.crops_xyxy.astype(np.float32)).to(clips.device).unbind(dim=1)
    flips = torch.from_numpy(augmentation.flips).to(clips.device)
    rows = _resampling_weights(y0, y1, height, size)  # (N, S, H)
    columns = _resampling_weights(x0, x1, width, size)  # (N, S, W)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    pixels = clips.to(torch.float32).view(clip_count, frames, height, width * channels)
    resized = (rows / white)[:, None] @ pixels  # (N, T, S, W * C)
    resized = resized.view(clip_count, frames, size, width, channels).permute(0, 4, 1, 2, 3)  # (N, C, T, S, W)
    resized = resized.reshape(clip_count, channels * frames * size, width) @ columns.mT  # (N, C * T * S, S)
    return resized.view(clip_count, channels, frames, size, size)


def _resampling_weights(start: Tensor, end: Tensor, length: int, size: int) -> Tensor:
    """Return weights (N, size, length) that resize a line of `length` pixels, from `start` to `end` (N,), to `size`.

    They are bilinear; when shrinking, the triangle is as wide as an output pixel (antialiasing).
    """
    scale = ((end - start) / size)[:, None]  # stored pixels per output pixel, (N, 1)
    centres = start[:, None] + (torch.arange(size, device=start.device) + 0.5) * scale  # (N, size)
    distance = (torch.arange(length, device=start.device) + 0.5 - centres[..., None]).abs()  # (N, size, length)
    weights = (1.0 - distance / scale.clamp(min=1.0)[..., None]).clamp_(min=0.0)
    return weights / weights.sum(dim=2, keepdim=True)


def _recolour(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Apply brightness, saturation, and contrast about the clip's mean grey: a 3x3 matrix and an offset per clip."""
    luma = images.new_tensor(LUMA)
    factors = np.stack([augmentation.brightness, augmentation.saturation, augmentation.contrast]).astype(np.float32)
    brightness, saturation, contrast = torch.from_numpy(factors).to(images.device)[..., None, None]  # (N, 1, 1) each
    mixing = saturation * torch.eye(3, device=images.device) + (1.0 - saturation) * luma.expand(3, 3)  # (N, 3, 3)
    flat = images.flatten(2)  # (N, 3, T * S * S)
    mean_grey = (flat.mean(dim=2) @ luma)[:, None, None]  # (N, 1, 1)
    return torch.baddbmm((1.0 - contrast) * brightness * mean_grey, contrast * brightness * mixing, flat).view_as(
        images
    )


def _between(bounds: Any, share: np.ndarray) -> np.ndarray:
    low, high = bounds
    return low + (high - low) * share
