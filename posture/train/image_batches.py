"""Micro batches of images with boxes, decoded and augmented by threads in the background while the network computes.

Tensor legend: n images of a micro batch, B boxes in all of them, S the side in pixels of the network's square. A
image looks the same in an epoch whatever the number of workers. Its partners in a mosaic come from the images that
precede it in the whole epoch's order, so that a worker decodes some of the others' images too. Streamed images have
partners from their own worker's stream.
"""

from __future__ import annotations

import math
import os
import threading
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from posture.data.feed.clip_transforms import clip_generator
from posture.data.feed.image_transforms import (
    MOSAIC,
    NETWORK,
    NO_BOXES,
    NO_LABELS,
    SIDE,
    BoxedImage,
    Letterbox,
    augment,
    decode_image,
    draw_view,
    letterbox,
    read_image,
    use_one_thread,
)
from posture.errors import InputError
from posture.models.boxes import Targets
from posture.train import order
from posture.train.batches import chunks, clip_keys, prefetched

THREADS = min(8, os.cpu_count() or 1)
"""Of one worker, to decode and augment: OpenCV lets go of Python's lock."""


@runtime_checkable
class ImageSource(Protocol):
    """Encoded images in memory, with what is in them: `posture.data.feed.images.Images`, which also has `ignored` and
    `ignored_labels`.
    """

    classes: tuple[str, ...]
    keys: list[str]
    boxes: list[np.ndarray]  # (B, 4) float32 each, xyxy in pixels of the stored image
    labels: list[np.ndarray]  # (B,) int64 each
    sizes: np.ndarray  # (images, 2) int64, height and width

    def __len__(self) -> int: ...

    def encoded(self, index: int) -> np.ndarray:
        """The image's file, uint8 (bytes,)."""
        ...


class StreamedImageSource(Protocol):
    """Images that do not fit in memory: as `ImageSource`, but they come as they come."""

    classes: tuple[str, ...]
    keys: list[str]
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    sizes: np.ndarray

    def __len__(self) -> int: ...

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
        """(image index, its file) of this worker's part; over all workers every image once."""
        ...

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Images of the worker that gets most of them in this epoch."""
        ...


class Encoded(NamedTuple):
    """An image on its way to be decoded."""

    index: int
    file: np.ndarray
    """uint8 (bytes,)."""
    place: int
    """Where it comes in this worker's order of all epochs."""


class Draw(NamedTuple):
    """What is shown at one place of a batch."""

    picture: Encoded
    repeat: int
    """How often the image came earlier in this epoch."""
    partners: list[Encoded]
    """The other three of a mosaic, or none."""


@dataclass(frozen=True)
class ImageBatch:
    """Images for one forward pass, as the network sees them."""

    pictures: np.ndarray
    """(n, S, S, 3) uint8, RGB."""
    boxes: np.ndarray
    """(B, 4) float32, xyxy in pixels of `pictures`."""
    labels: np.ndarray
    """(B,) int64."""
    images: np.ndarray
    """(B,) int64, the image that each box is in, ascending."""
    indices: np.ndarray
    """(n,) int64, image indices; of a mosaic, of its first image."""
    repeats: np.ndarray
    """(n,) int64, how often the image came earlier in this epoch."""
    letterboxes: tuple[Letterbox, ...] = ()
    """In evaluation, where each image lies in its square: the way back to pixels of the stored image."""
    ignored: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    """Ignore regions, as `boxes`, `labels` and `images`; None: there are none."""

    @property
    def targets(self) -> Targets:
        """What the loss compares with, in the CPU's memory."""
        regions = None if self.ignored is None else Targets(*map(torch.from_numpy, self.ignored), len(self.pictures))
        return Targets(*map(torch.from_numpy, (self.boxes, self.labels, self.images)), len(self.pictures), regions)

    def counts(self, task: Any) -> dict[str, float]:
        """What each term of the task's loss will be divided by."""
        return task.counts(self.targets, size=self.pictures.shape[1:3])

    def keys(self, run: Any, *, epoch: int) -> np.ndarray:
        """As of a batch of clips: what the network's own randomness is drawn from, (n,) int64."""
        return clip_keys(NETWORK, self.indices, self.repeats, seed=run.seed, epoch=epoch)

    def tensors(self, run: Any, device: torch.device, *, epoch: int | None = None) -> tuple[tuple[Tensor], Targets]:
        """The network's input, float32 (n, 3, S, S) in 0..1 laid out channels last, and the targets, on `device`.

        `run` and `epoch` are for batches of clips: images are augmented already.
        """
        images = torch.from_numpy(self.pictures).to(device, non_blocking=True)
        return (images.permute(0, 3, 1, 2).to(torch.float32).div_(255.0),), _moved(self.targets, device)


class ImageBatches:
    """One worker's share of training images (`images`) and of `validation` images; `run` is a
    `posture.config.DetectorRun`.

    Raises InputError where the global batch cannot be filled or dealt evenly.
    """

    def __init__(
        self,
        images: ImageSource | StreamedImageSource,
        run: Any,
        *,
        rank: int,
        world_size: int,
        validation: ImageSource | StreamedImageSource,
    ) -> None:
        self.footage, self.validation, self.run, self.rank, self.world_size = images, validation, run, rank, world_size
        global_batch = run.scale.global_batch
        self.share = order.share_size(global_batch, world_size=world_size)
        if global_batch > len(images):
            raise InputError(
                f"scale.global_batch is {global_batch}, but there are only {len(images)} training images; choose at most {len(images)}"
            )
        self.steps_per_epoch = order.steps_per_epoch(len(images), global_batch=global_batch)
        if not isinstance(images, ImageSource):
            # The same in all epochs and on all workers, and enough for every image; whoever has fewer repeats some.
            longest = max(images.longest_share(epoch, world_size, run.seed) for epoch in range(run.epochs))
            self.steps_per_epoch = -(-longest // self.share)
        self.steps_per_epoch = min(self.steps_per_epoch, run.steps_per_epoch or self.steps_per_epoch)
        self.micro_batch = run.scale.micro_batch or self.share
        self.accumulation, rest = divmod(self.share, self.micro_batch)
        if rest:
            raise InputError(
                f"scale.micro_batch {self.micro_batch} does not divide the {self.share} images of each of {world_size} workers"
            )
        if not len(validation):
            raise InputError("there are no images to validate on; the split `val` is empty")
        # Kept are the images that mosaics are made of, and those that the threads are at.
        self._decoded = _Decoded(images, longest=max(self._sides()), most=run.data.mosaic_buffer + THREADS)

    @property
    def order(self) -> dict[str, Any]:
        """What decides which images come in which step."""
        found = {"seed": self.run.seed, "global_batch": self.run.scale.global_batch, "pictures": len(self.footage)}
        return found if isinstance(self.footage, ImageSource) else found | {"workers": self.world_size}

    def training(self, epoch: int, *, start_step: int = 0) -> Generator[list[ImageBatch]]:
        """For every step of the epoch from `start_step`, this worker's micro batches. Whoever stops early closes it."""
        with _threads() as pool:
            yield from prefetched(self._steps(pool, epoch, start_step))

    def evaluation(self) -> Generator[ImageBatch]:
        """This worker's share of the validation images, each exactly once, letterboxed; the last batch may be
        smaller.
        """
        size, batch = self.run.model.size, self.micro_batch
        return letterboxed(self.validation, size=size, batch=batch, rank=self.rank, world_size=self.world_size)

    def side(self, epoch: int, step: int) -> int:
        """S of a step, the same on all workers."""
        sides = self._sides()
        return sides[int(clip_generator(SIDE, seed=self.run.seed, epoch=epoch, clip=step).integers(len(sides)))]

    def _sides(self) -> list[int]:
        """What S may be: around the model's size, in steps of 32 pixels."""
        size, share = self.run.model.size, self.run.data.multi_scale
        if not share:
            return [size]
        least, most = size * (1 - share) / 32, size * (1 + share) / 32  # to within rounding
        return [32 * count for count in range(max(1, math.ceil(least - 1e-6)), math.floor(most + 1e-6) + 1)]

    def _steps(self, pool: ThreadPoolExecutor, epoch: int, start_step: int) -> Iterator[list[ImageBatch]]:
        draws = (self._ordered if isinstance(self.footage, ImageSource) else self._streamed)(
            self.footage, epoch, start_step
        )
        for step in range(start_step, self.steps_per_epoch):
            mine, side = list(islice(draws, self.share)), self.side(epoch, step)
            squares = np.empty((self.share, side, side, 3), dtype=np.uint8)
            seen = list(pool.map(partial(self._augmented, epoch=epoch), mine, squares))
            micro = [slice(at, at + self.micro_batch) for at in range(0, self.share, self.micro_batch)]
            yield [
                _batch(
                    squares[part],
                    seen[part],
                    [draw.picture.index for draw in mine[part]],
                    [draw.repeat for draw in mine[part]],
                )
                for part in micro
            ]

    def _ordered(self, images: ImageSource, epoch: int, start_step: int) -> Iterator[Draw]:
        """In the order that is ours: a function of seed, epoch and step."""
        dealt = {"global_batch": self.run.scale.global_batch, "rank": self.rank, "world_size": self.world_size}
        every = order.permutation(len(images), seed=self.run.seed, epoch=epoch)[
            : self.steps_per_epoch * self.run.scale.global_batch
        ].tolist()
        for step in range(start_step, self.steps_per_epoch):
            for place in order.share_of_step(np.arange(len(every)), step, **dealt).tolist():
                # Partners come from all workers' images. Before the epoch's first image come its last: it is a
                # circle, and any place in it has as many to draw from.
                back = [0, *self._distances(epoch, every[place], reach=len(every) - 1)]
                drawn = [
                    Encoded(every[place - far], images.encoded(every[place - far]), epoch * len(every) + place - far)
                    for far in back
                ]
                yield Draw(drawn[0], 0, drawn[1:])

    def _streamed(self, images: StreamedImageSource, epoch: int, start_step: int) -> Iterator[Draw]:
        """As the stream has them, then its first ones again, without end. A resumed epoch skips what it has seen."""
        before: deque[Encoded] = deque(maxlen=self.run.data.mosaic_buffer)
        for number, (index, file, repeat) in enumerate(self._endless(images, epoch)):
            image = Encoded(index, file, epoch * self.steps_per_epoch * self.share + number)
            if number >= start_step * self.share:
                back = self._distances(epoch, index, repeat=repeat, reach=len(before))
                yield Draw(image, repeat, [before[-far] if far else image for far in back])
            before.append(image)

    def _endless(self, images: StreamedImageSource, epoch: int) -> Iterator[tuple[int, np.ndarray, int]]:
        first: list[tuple[int, np.ndarray]] = []
        for image in images.stream(epoch, self.rank, self.world_size, self.run.seed):
            if len(first) < self.share:
                first.append(image)
            yield *image, 0
        if not first:
            raise InputError(
                f"worker {self.rank} of {self.world_size} got no images from the stream; use fewer workers"
            )
        for number, image in enumerate(cycle(first)):
            yield *image, 1 + number // len(first)

    def _distances(self, epoch: int, index: int, *, repeat: int = 0, reach: int) -> list[int]:
        """How far back the three partners of an image are, or none if it comes alone; `reach` is how far they can be."""
        data = self.run.data
        if not data.mosaic or epoch >= data.mosaic_until * self.run.epochs:
            return []
        generator = clip_generator(MOSAIC, seed=self.run.seed, epoch=epoch, clip=index, repeat=repeat)
        if generator.random() >= data.mosaic:
            return []
        reach = min(reach, data.mosaic_buffer)
        return (1 + generator.choice(reach, 3, replace=reach < 3)).tolist() if reach else [0, 0, 0]

    def _augmented(self, draw: Draw, out: np.ndarray, *, epoch: int) -> BoxedImage:
        """A draw's image or mosaic, drawn into `out` (S, S, 3)."""
        run = self.run
        view = draw_view(run.data, seed=run.seed, epoch=epoch, picture=draw.picture.index, repeat=draw.repeat)
        images = [self._decoded(image) for image in (draw.picture, *draw.partners)]
        return augment(images, view, len(out), least_visible=run.data.least_visible, out=out)


def letterboxed(
    images: ImageSource | StreamedImageSource,
    indices: np.ndarray | None = None,
    *,
    size: int,
    batch: int,
    rank: int = 0,
    world_size: int = 1,
) -> Generator[ImageBatch]:
    """Images as they are judged, each exactly once over all workers, `batch` at a time: all boxes, however small, and
    the way back.

    `indices` chooses images (None: all); of streamed ones, each worker gets those that its part of the stream holds.
    """
    wanted = np.arange(len(images)) if indices is None else indices
    if isinstance(images, ImageSource):
        found: Iterator[tuple[int, np.ndarray]] = (
            (index, images.encoded(index)) for index in wanted[rank::world_size].tolist()
        )
    else:
        chosen = set(wanted.tolist())
        found = ((index, encoded) for index, encoded in images.stream(0, rank, world_size, 0) if index in chosen)

    def laid(image: tuple[int, np.ndarray], out: np.ndarray) -> tuple[BoxedImage, Letterbox]:
        index, encoded = image
        pixels = decode_image(encoded, images.sizes[index].tolist(), name=images.keys[index])
        square, boxes, where = letterbox(pixels, images.boxes[index], size, out=out)
        ignored, ignored_labels = _regions(images, index)
        return BoxedImage(square, boxes, images.labels[index], where.boxes_to_square(ignored), ignored_labels), where

    def batches(pool: ThreadPoolExecutor) -> Iterator[ImageBatch]:
        for chunk in chunks(found, batch):
            squares = np.empty((len(chunk), size, size, 3), dtype=np.uint8)
            seen, where = zip(*pool.map(laid, chunk, squares), strict=True)
            yield _batch(squares, seen, [index for index, _ in chunk], letterboxes=where)

    with _threads() as pool:
        yield from prefetched(batches(pool))


class _Decoded:
    """Decoded images no larger than the network's square; the `most` that came last in the worker's order are kept.
    Threads share it.
    """

    def __init__(self, images: ImageSource | StreamedImageSource, *, longest: int, most: int) -> None:
        self._images, self._longest, self._most = images, longest, most
        self._kept: dict[int, BoxedImage] = {}
        self._places: dict[int, int] = {}
        self._lock = threading.Lock()

    def __call__(self, image: Encoded) -> BoxedImage:
        index, file, place = image
        with self._lock:
            if index in self._kept:
                self._places[index] = max(self._places[index], place)
                return self._kept[index]
        images = self._images
        decoded = read_image(
            file,
            images.sizes[index].tolist(),
            images.boxes[index],
            images.labels[index],
            name=images.keys[index],
            longest=self._longest,
            regions=_regions(images, index),
        )
        with self._lock:
            self._kept[index], self._places[index] = decoded, place
            while len(self._kept) > self._most:
                oldest = min(self._places, key=self._places.__getitem__)
                del self._kept[oldest], self._places[oldest]
        return decoded


def _regions(images: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
    """An image's ignore regions (R, 4) and their labels; none if `images` has none for all."""
    return (
        (images.ignored[index], images.ignored_labels[index]) if hasattr(images, "ignored") else (NO_BOXES, NO_LABELS)
    )


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="pictures", initializer=use_one_thread)


def _batch(
    squares: np.ndarray,
    seen: Any,
    indices: list[int],
    repeats: list[int] | None = None,
    *,
    letterboxes: tuple[Letterbox, ...] = (),
) -> ImageBatch:
    regions = _together(seen, "ignored", "ignored_labels")
    numbers = (np.array(values, dtype=np.int64) for values in (indices, repeats or [0] * len(indices)))
    return ImageBatch(
        squares, *_together(seen, "boxes", "labels"), *numbers, letterboxes, regions if len(regions[0]) else None
    )


def _together(seen: Any, boxes: str, labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes and labels of all images, and the image that each is in."""
    images = np.repeat(np.arange(len(seen), dtype=np.int64), [len(getattr(image, boxes)) for image in seen])
    return *(np.concatenate([getattr(image, name) for image in seen]) for name in (boxes, labels)), images


def _moved(targets: Targets, device: torch.device) -> Targets:
    moved = (part.to(device, non_blocking=True) for part in targets[:3])
    return Targets(*moved, targets.count, None if targets.ignored is None else _moved(targets.ignored, device))
