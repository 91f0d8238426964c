"""Micro batches of images with boxes, decoded and augmented by threads in the background while the network computes.

Tensor legend: n images of a micro batch, B boxes in all of them, S the side in pixels of the network's square.

An image is augmented in the same way for any number of workers. Its partners in a mosaic come from the images before
it in the whole epoch's order, so a worker also decodes some of the others' images. Streamed images have partners from
their own worker's stream.
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
from itertools import islice
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from posture.data.feed.clip_transforms import clip_generator
from posture.data.feed.copy_paste import paste_boxes
from posture.data.feed.image_transforms import (
    DONOR,
    MOSAIC,
    NETWORK,
    NO_BOXES,
    NO_LABELS,
    PASTE,
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
from posture.models.boxes import Targets
from posture.train import order
from posture.train.batches import Batches, chunks, clip_keys, prefetched

THREADS = min(8, os.cpu_count() or 1)
"""Threads of one worker that decode and augment: OpenCV releases Python's lock."""


class ImageSource(Protocol):
    """Encoded images in memory, with their boxes: `posture.data.feed.images.Images`, which also has `ignored` and
    `ignored_labels`.
    """

    classes: tuple[str, ...]
    keys: list[str]
    boxes: list[np.ndarray]
    """(B, 4) float32 each, xyxy in pixels of the stored image."""
    labels: list[np.ndarray]
    """(B,) int64 each."""
    sizes: np.ndarray
    """(images, 2) int64, height and width."""

    def __len__(self) -> int: ...

    def image(self, index: int) -> np.ndarray:
        """Return the image, uint8 (h, w, 3), RGB. Raises InputError if it cannot be decoded."""
        ...

    def encoded(self, index: int) -> np.ndarray:
        """Return the image's file, uint8 (bytes,)."""
        ...


class StreamedImageSource(Protocol):
    """Images that do not fit in memory: as `ImageSource`, in an order of their own."""

    classes: tuple[str, ...]
    keys: list[str]
    boxes: list[np.ndarray]
    labels: list[np.ndarray]
    sizes: np.ndarray

    def __len__(self) -> int: ...

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (image index, its file) of this worker's part; over all workers every image comes once."""
        ...

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Return the maximum number of images that a worker gets in this epoch."""
        ...


class Encoded(NamedTuple):
    """An image to be decoded."""

    index: int
    file: np.ndarray
    """uint8 (bytes,)."""
    position: int
    """Position in this worker's order of all epochs."""


class Draw(NamedTuple):
    """An image of a batch, before it is decoded."""

    image: Encoded
    repeat: int
    """Earlier occurrences of the image in this epoch."""
    partners: list[Encoded]
    """The other three images of a mosaic, or none."""
    donors: tuple[Encoded | None, ...] = ()
    """For the image and each partner, the image whose boxes are pasted into it, or None; empty: for none of them."""


@dataclass(frozen=True)
class ImageBatch:
    """Augmented images for one forward pass, see `posture.train.batches.Batch`."""

    pixels: np.ndarray
    """(n, S, S, 3) uint8, RGB."""
    boxes: np.ndarray
    """(B, 4) float32, xyxy in pixels of `pixels`."""
    labels: np.ndarray
    """(B,) int64."""
    images: np.ndarray
    """(B,) int64, position in the batch of each box's image, ascending."""
    indices: np.ndarray
    """(n,) int64, image indices in the source; for a mosaic, that of its first image."""
    repeats: np.ndarray
    """(n,) int64, earlier occurrences of the image in this epoch."""
    letterboxes: tuple[Letterbox, ...] = ()
    """In evaluation, the position of each image in its square, which maps boxes back to the stored image."""
    ignored: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    """Ignore regions, as `boxes`, `labels` and `images`; None: there are none."""

    @property
    def targets(self) -> Targets:
        """Boxes to find, in host memory."""
        regions = (
            None if self.ignored is None else Targets(*map(torch.from_numpy, self.ignored), count=len(self.pixels))
        )
        found = map(torch.from_numpy, (self.boxes, self.labels, self.images))
        return Targets(*found, count=len(self.pixels), ignored=regions)

    def counts(self, task: Any) -> dict[str, float]:
        return task.counts(self.targets, size=self.pixels.shape[1:3])

    def keys(self, run: Any, *, epoch: int) -> np.ndarray:
        return clip_keys(NETWORK, self.indices, self.repeats, seed=run.seed, epoch=epoch)

    def tensors(self, run: Any, device: torch.device, *, epoch: int | None = None) -> tuple[tuple[Tensor], Targets]:
        """Return the input, float32 (n, 3, S, S) in 0..1 laid out channels last, and the targets, on `device`.

        `run` and `epoch` are unused: images are augmented already.
        """
        images = torch.from_numpy(self.pixels).to(device, non_blocking=True)
        return (images.permute(0, 3, 1, 2).to(torch.float32).div_(255.0),), _moved(self.targets, device)


class ImageBatches(Batches):
    """Batches of images; the sources are `ImageSource` or `StreamedImageSource`, the run is a `DetectionRun`."""

    unit = "images"

    def __init__(self, source: Any, run: Any, *, rank: int, world_size: int, validation: Any) -> None:
        super().__init__(source, run, rank=rank, world_size=world_size, validation=validation)
        # It keeps the images that mosaics are made of, and those that the threads work on.
        self._decoded = _Decoded(source, longest=max(self._sides()), limit=run.data.mosaic_buffer + THREADS)

    @property
    def contents(self) -> dict[str, Any]:
        return {"pictures": len(self.source)}  # the name in checkpoints

    def training(self, epoch: int, *, start_step: int = 0) -> Generator[list[ImageBatch]]:
        with _threads() as pool:
            yield from prefetched(self._steps(pool, epoch, start_step))

    def evaluation(self) -> Generator[ImageBatch]:
        size, batch = self.run.model.size, self.micro_batch
        return letterboxed(self.validation, size=size, batch=batch, rank=self.rank, world_size=self.world_size)

    def side(self, epoch: int, step: int) -> int:
        """Return S of a step, the same on all workers."""
        sides = self._sides()
        return sides[int(clip_generator(SIDE, seed=self.run.seed, epoch=epoch, clip=step).integers(len(sides)))]

    def _sides(self) -> list[int]:
        """Return all values of S: around the model's size, in steps of 32 pixels."""
        size, share = self.run.model.size, self.run.data.multi_scale
        if not share:
            return [size]
        low, high = size * (1 - share) / 32, size * (1 + share) / 32  # to within rounding
        return [32 * count for count in range(max(1, math.ceil(low - 1e-6)), math.floor(high + 1e-6) + 1)]

    def _steps(self, pool: ThreadPoolExecutor, epoch: int, start_step: int) -> Iterator[list[ImageBatch]]:
        draws = (self._streamed if self.streams else self._ordered)(epoch, start_step)
        for step in range(start_step, self.steps_per_epoch):
            mine, side = list(islice(draws, self.share)), self.side(epoch, step)
            squares = np.empty((self.share, side, side, 3), dtype=np.uint8)
            seen = list(pool.map(partial(self._augmented, epoch=epoch), mine, squares))
            indices, repeats = [draw.image.index for draw in mine], [draw.repeat for draw in mine]
            parts = [slice(at, at + self.micro_batch) for at in range(0, self.share, self.micro_batch)]
            yield [_batch(squares[part], seen[part], indices[part], repeats[part]) for part in parts]

    def _ordered(self, epoch: int, start_step: int) -> Iterator[Draw]:
        """Yield this worker's draws in an order that is a function of seed, epoch and step."""
        images = self.source
        every = order.permutation(len(images), seed=self.run.seed, epoch=epoch)[
            : self.steps_per_epoch * self.run.scale.global_batch
        ].tolist()
        for step in range(start_step, self.steps_per_epoch):
            for at in self.share_of_step(np.arange(len(every)), step).tolist():
                # Partners come from all workers' images. The epoch is a circle: before its first image come its last,
                # so that every position has equally many to draw from.
                reach = len(every) - 1
                back = [0, *self._distances(epoch, every[at], reach=reach)]
                giving = self._donor_distances(epoch, every[at], shown=len(back), reach=reach)
                drawn = [
                    Encoded(every[at - far], images.encoded(every[at - far]), epoch * len(every) + at - far)
                    for far in (*back, *giving)
                ]
                donors = tuple(image if far else None for image, far in zip(drawn[len(back) :], giving, strict=True))
                yield Draw(drawn[0], 0, drawn[1 : len(back)], donors)

    def _streamed(self, epoch: int, start_step: int) -> Iterator[Draw]:
        """Yield the stream's draws without those of the steps before `start_step`."""
        before: deque[Encoded] = deque(maxlen=self.run.data.mosaic_buffer)
        for number, (index, (file,), repeat) in enumerate(self.endless(epoch)):
            image = Encoded(index, file, epoch * self.steps_per_epoch * self.share + number)
            if number >= start_step * self.share:
                back = self._distances(epoch, index, repeat=repeat, reach=len(before))
                giving = self._donor_distances(epoch, index, repeat=repeat, shown=1 + len(back), reach=len(before))
                donors = tuple(before[-far] if far else None for far in giving)
                yield Draw(image, repeat, [before[-far] if far else image for far in back], donors)
            before.append(image)

    def _distances(self, epoch: int, index: int, *, repeat: int = 0, reach: int) -> list[int]:
        """Return the distances back to the three partners of an image, at most `reach`; none if it comes alone."""
        data = self.run.data
        if not data.mosaic or self._alone(epoch):
            return []
        generator = clip_generator(MOSAIC, seed=self.run.seed, epoch=epoch, clip=index, repeat=repeat)
        if generator.random() >= data.mosaic:
            return []
        reach = min(reach, data.mosaic_buffer)
        return (1 + generator.choice(reach, 3, replace=reach < 3)).tolist() if reach else [0, 0, 0]

    def _donor_distances(self, epoch: int, index: int, *, repeat: int = 0, shown: int, reach: int) -> list[int]:
        """Return the distances back to the images whose boxes are pasted into the `shown` ones, 0 for those that stay
        as they are; none if no boxes are pasted.
        """
        data = self.run.data
        if not data.copy_paste or not reach or self._alone(epoch):
            return []
        generator = clip_generator(DONOR, seed=self.run.seed, epoch=epoch, clip=index, repeat=repeat)
        chosen = generator.random(shown) < data.copy_paste
        return (chosen * generator.integers(1, min(reach, data.mosaic_buffer), shown, endpoint=True)).tolist()

    def _alone(self, epoch: int) -> bool:
        """Return True if images come one by one in this epoch, as in evaluation."""
        return epoch >= self.run.data.mosaic_until * self.run.epochs

    def _augmented(self, draw: Draw, out: np.ndarray, *, epoch: int) -> BoxedImage:
        """Return a draw's image or mosaic, written into `out` (S, S, 3)."""
        run, key = self.run, {"seed": self.run.seed, "epoch": epoch, "repeat": draw.repeat}
        view = draw_view(run.data, image=draw.image.index, **key)
        images = [self._decoded(image) for image in (draw.image, *draw.partners)]
        if any(donor is not None for donor in draw.donors):
            generator = clip_generator(PASTE, clip=draw.image.index, **key)
            images = [
                image if donor is None else paste_boxes(image, self._decoded(donor), generator)
                for image, donor in zip(images, draw.donors, strict=True)
            ]
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
    """Yield letterboxed images for evaluation, each once over all workers, `batch` at a time, with all boxes.

    `indices` chooses images (None: all). If they are streamed, each worker gets those of its part of the stream.
    """
    wanted = np.arange(len(images)) if indices is None else indices
    found: Iterator[tuple[int, np.ndarray]]
    if (stream := getattr(images, "stream", None)) is not None:
        chosen = set(wanted.tolist())
        found = ((index, encoded) for index, encoded in stream(0, rank, world_size, 0) if index in chosen)
    else:
        found = ((index, cast(ImageSource, images).encoded(index)) for index in wanted[rank::world_size].tolist())

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
    """Decoded images no larger than the network's square. It keeps the `limit` latest in the worker's order.

    Thread-safe.
    """

    def __init__(self, images: ImageSource | StreamedImageSource, *, longest: int, limit: int) -> None:
        self._images, self._longest, self._limit = images, longest, limit
        self._kept: dict[int, BoxedImage] = {}
        self._positions: dict[int, int] = {}
        self._lock = threading.Lock()

    def __call__(self, image: Encoded) -> BoxedImage:
        index, file, position = image
        with self._lock:
            if index in self._kept:
                self._positions[index] = max(self._positions[index], position)
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
            self._kept[index], self._positions[index] = decoded, position
            while len(self._kept) > self._limit:
                oldest = min(self._positions, key=self._positions.__getitem__)
                del self._kept[oldest], self._positions[oldest]
        return decoded


def _regions(images: Any, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Return an image's ignore regions (R, 4) and their labels."""
    return (
        (images.ignored[index], images.ignored_labels[index]) if hasattr(images, "ignored") else (NO_BOXES, NO_LABELS)
    )


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="images", initializer=use_one_thread)


def _batch(
    squares: np.ndarray,
    seen: Any,
    indices: list[int],
    repeats: list[int] | None = None,
    *,
    letterboxes: tuple[Letterbox, ...] = (),
) -> ImageBatch:
    regions = _together(seen, "ignored", "ignored_labels")
    rows = (np.array(values, dtype=np.int64) for values in (indices, repeats or [0] * len(indices)))
    return ImageBatch(
        squares,
        *_together(seen, "boxes", "labels"),
        *rows,
        letterboxes=letterboxes,
        ignored=regions if len(regions[0]) else None,
    )


def _together(seen: Any, boxes: str, labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes and labels of all images, and each one's image."""
    images = np.repeat(np.arange(len(seen), dtype=np.int64), [len(getattr(image, boxes)) for image in seen])
    together, classes = (np.concatenate([getattr(image, name) for image in seen]) for name in (boxes, labels))
    return together, classes, images


def _moved(targets: Targets, device: torch.device) -> Targets:
    moved = (part.to(device, non_blocking=True) for part in targets[:3])
    ignored = None if targets.ignored is None else _moved(targets.ignored, device)
    return Targets(*moved, count=targets.count, ignored=ignored)
