"""Micro batches of uint8 clips, assembled in a background thread while the network computes.

Tensor legend: n clips of a micro batch, T frames, H and W the stored height and width in pixels. What a network takes
(`run.model.inputs`) goes by its name: "rgb" is frames (T, H, W, 3) uint8, "flow" the optical flow from each of them to
the next, (T - 1, H, W, 2) uint8 as `posture/data/decode/optical_flow.py` encodes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from posture.data.decode.optical_flow import sampled
from posture.data.feed.clip_transforms import (
    NETWORK,
    TEMPORAL,
    clip_generator,
    draw_augmentation,
    evaluation_view,
    frame_indices,
    network_inputs,
)
from posture.errors import InputError
from posture.train import order

Item = TypeVar("Item")


@runtime_checkable
class ClipSource(Protocol):
    """Clips in memory. `labels`: (clips,) int64 class indices; `segments`: (clips,) int64, shared by the clips of a
    segment.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    segments: np.ndarray

    def __len__(self) -> int: ...

    def clip(self, index: int) -> np.ndarray:
        """Frames (T, H, W, 3) uint8; T may differ between clips, H and W may not."""
        ...

    # And, where the model takes flow: flow(index) -> (T - 1, H, W, 2) uint8.


class StreamedClipSource(Protocol):
    """Clips that do not fit in memory: as `ClipSource`, but they come as they come."""

    classes: tuple[str, ...]
    labels: np.ndarray
    segments: np.ndarray

    def __len__(self) -> int: ...

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """(clip index, and of each of the model's inputs what is stored) of this worker's part; over all workers every
        clip once.
        """
        ...

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Clips of the worker that gets most of them in this epoch."""
        ...


Clip = tuple[int, tuple[np.ndarray, ...], int]
"""Clip index, what is stored of each of the model's inputs, and how often the clip came earlier in this epoch."""


@dataclass(frozen=True)
class Batch:
    """Clips for one forward pass."""

    stored: dict[str, np.ndarray]
    """The model's inputs, temporally sampled: "rgb" (n, T, H, W, 3) uint8, "flow" (n, T - 1, H, W, 2) uint8."""
    labels: np.ndarray
    """(n,) int64."""
    indices: np.ndarray
    """(n,) int64, clip indices in the footage."""
    repeats: np.ndarray
    """(n,) int64, how often the clip came earlier in this epoch (balanced classes draw clips several times)."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width as stored, in pixels."""
        return next(iter(self.stored.values())).shape[2:4]

    @property
    def targets(self) -> Tensor:
        """What the loss compares with: (n,) int64 class indices, in the CPU's memory."""
        return torch.from_numpy(self.labels)

    def counts(self, task: Any) -> dict[str, float]:
        """What each term of the task's loss will be divided by."""
        return task.counts(self.targets)

    def keys(self, run: Any, *, epoch: int) -> np.ndarray:
        """What the network's own randomness (dropout) is drawn from, (n,) int64: of each clip its own, whatever batch
        and worker it is on.
        """
        return clip_keys(NETWORK, self.indices, self.repeats, seed=run.seed, epoch=epoch)

    def tensors(self, run: Any, device: torch.device, *, epoch: int | None = None) -> tuple[tuple[Tensor, ...], Tensor]:
        """The network's inputs and the targets on `device`: augmented as in `epoch`, or, where that is None, centred in
        space.
        """
        if epoch is None:
            view = evaluation_view(self.frame_size, clips=len(self.labels))
        else:
            view = draw_augmentation(
                run.data, self.frame_size, seed=run.seed, epoch=epoch, clips=self.indices, repeats=self.repeats
            )
        stored = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in self.stored.items()}
        return network_inputs(stored, view, data=run.data, size=run.model.size), self.targets.to(
            device, non_blocking=True
        )


class Batches:
    """One worker's share of training `footage` and of `validation` footage; `run` is a `posture.config.Run`.

    Raises InputError where the global batch cannot be filled or dealt evenly.
    """

    def __init__(
        self,
        footage: ClipSource | StreamedClipSource,
        run: Any,
        *,
        rank: int,
        world_size: int,
        validation: ClipSource | StreamedClipSource,
    ) -> None:
        self.footage, self.validation, self.run, self.rank, self.world_size = footage, validation, run, rank, world_size
        self.share = order.share_size(run.scale.global_batch, world_size=world_size)
        self.steps_per_epoch = order.steps_per_epoch(len(footage), global_batch=run.scale.global_batch)
        if not isinstance(footage, ClipSource):
            # The same in all epochs and on all workers, and enough for every clip; whoever has fewer repeats some.
            longest = max(footage.longest_share(epoch, world_size, run.seed) for epoch in range(run.epochs))
            self.steps_per_epoch = -(-longest // self.share)
        self.steps_per_epoch = min(self.steps_per_epoch, run.steps_per_epoch or self.steps_per_epoch)
        self.micro_batch = run.scale.micro_batch or self.share
        self.accumulation, rest = divmod(self.share, self.micro_batch)
        if rest:
            raise InputError(
                f"scale.micro_batch {self.micro_batch} does not divide the {self.share} clips of each of {world_size} workers"
            )
        if not isinstance(footage, ClipSource) and run.data.balanced:
            raise InputError(
                "data.balanced needs footage held in memory; set data.feed to materialize, or data.balanced to false"
            )
        if not len(validation):
            raise InputError("there are no clips to validate on; the split `val` is empty")

    @property
    def order(self) -> dict[str, Any]:
        """What decides which clips come in which step."""
        found = {
            "seed": self.run.seed,
            "global_batch": self.run.scale.global_batch,
            "balanced": self.run.data.balanced,
            "clips": len(self.footage),
        }
        return found if isinstance(self.footage, ClipSource) else found | {"workers": self.world_size}

    def training(self, epoch: int, *, start_step: int = 0) -> Generator[list[Batch]]:
        """For every step of the epoch from `start_step`, this worker's micro batches. Whoever stops early closes it."""
        return prefetched(self._steps(epoch, start_step))

    def evaluation(self) -> Generator[Batch]:
        """This worker's share of the validation clips, each exactly once, centred in time; the last batch may be
        smaller.
        """
        indices = np.arange(len(self.validation))[self.rank :: self.world_size]
        clips = read(self.validation, indices, self.run.model.inputs, rank=self.rank, world_size=self.world_size)
        return prefetched(self._batch(self.validation, chunk) for chunk in chunks(clips, self.micro_batch))

    def _steps(self, epoch: int, start_step: int) -> Iterator[list[Batch]]:
        if isinstance(self.footage, ClipSource):
            clips = self._ordered_clips(self.footage, epoch, start_step)
        else:
            clips = self._streamed_clips(self.footage, epoch, start_step)
        for _ in range(start_step, self.steps_per_epoch):
            yield [
                self._batch(self.footage, list(islice(clips, self.micro_batch)), epoch=epoch)
                for _ in range(self.accumulation)
            ]

    def _ordered_clips(self, footage: ClipSource, epoch: int, start_step: int) -> Iterator[Clip]:
        """In the order that is ours: a function of seed, epoch and step."""
        run = self.run
        key = {"seed": run.seed, "epoch": epoch}
        clips = order.balanced(footage.labels, **key) if run.data.balanced else order.permutation(len(footage), **key)
        drawn = np.stack([clips, order.repeats(clips)], axis=1)  # (clips, 2)
        for step in range(start_step, self.steps_per_epoch):
            mine = order.share_of_step(
                drawn, step, global_batch=run.scale.global_batch, rank=self.rank, world_size=self.world_size
            )
            for index, repeat in mine.tolist():
                yield index, _take(footage, index, run.model.inputs), repeat

    def _streamed_clips(self, footage: StreamedClipSource, epoch: int, start_step: int) -> Iterator[Clip]:
        """As the stream has them, then its first ones again, without end. A resumed epoch skips what it has seen."""
        first: list[tuple[int, tuple[np.ndarray, ...]]] = []
        stream = footage.stream(epoch, self.rank, self.world_size, self.run.seed)
        for number, (index, *arrays) in enumerate(stream):
            if len(first) < self.share:
                first.append((index, tuple(arrays)))
            if number >= start_step * self.share:
                yield index, tuple(arrays), 0
        if not first:
            raise InputError(
                f"worker {self.rank} of {self.world_size} got no clips from the stream; use fewer workers or smaller blocks"
            )
        for number, (index, arrays) in enumerate(cycle(first)):
            yield index, arrays, 1 + number // len(first)

    def _batch(self, footage: ClipSource | StreamedClipSource, clips: list[Clip], *, epoch: int | None = None) -> Batch:
        """Stack clips of `model.frames` frames, with a random start if this is training and `data.temporal_jitter` is
        on.
        """
        model, data, seed = self.run.model, self.run.data, self.run.seed

        def numbers(place: int) -> np.ndarray:
            index, arrays, repeat = clips[place]
            generator = None
            if epoch is not None and data.temporal_jitter:
                generator = clip_generator(TEMPORAL, seed=seed, epoch=epoch, clip=index, repeat=repeat)
            return frame_indices(stored_frames(model.inputs, arrays), model.frames, step=data.step, generator=generator)

        stored = stack(
            model.inputs, [arrays for _, arrays, _ in clips], [numbers(place) for place in range(len(clips))]
        )
        indices, repeats = (np.array([clip[place] for clip in clips], dtype=np.int64) for place in (0, 2))
        return Batch(stored=stored, labels=footage.labels[indices], indices=indices, repeats=repeats)


def read(
    footage: ClipSource | StreamedClipSource,
    indices: np.ndarray,
    inputs: tuple[str, ...],
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Clip]:
    """The clips `indices`, once; from streamed footage, whatever this worker's part of the stream holds."""
    if isinstance(footage, ClipSource):
        for index in indices.tolist():
            yield index, _take(footage, index, inputs), 0
    else:
        for index, *arrays in footage.stream(0, rank, world_size, 0):
            yield index, tuple(arrays), 0


def stored_frames(inputs: tuple[str, ...], arrays: tuple[np.ndarray, ...]) -> int:
    """How many frames are stored of a clip: one more than there is flow."""
    return len(arrays[0]) + (inputs[0] == "flow")


def stack(
    inputs: tuple[str, ...], clips: list[tuple[np.ndarray, ...]], numbers: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """One array for each of `inputs`, of all clips, at the stored frames `numbers` (T,) of each clip."""
    stacked = {}
    for name, arrays in zip(inputs, zip(*clips, strict=True), strict=True):
        frames = len(numbers[0]) - (name == "flow")
        stacked[name] = np.empty((len(clips), frames, *arrays[0].shape[1:]), dtype=np.uint8)
        for place, array in enumerate(arrays):
            if name == "flow":
                stacked[name][place] = sampled(array, numbers[place])
            else:
                # the default mode would copy twice
                np.take(array, numbers[place], axis=0, out=stacked[name][place], mode="clip")
    return stacked


def _take(footage: Any, index: int, inputs: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    return tuple(footage.flow(index) if name == "flow" else footage.clip(index) for name in inputs)


def clip_keys(stream: int, clips: np.ndarray, repeats: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """A random number for each clip, or image, of one epoch: (n,) int64."""
    drawn = [
        clip_generator(stream, seed=seed, epoch=epoch, clip=clip, repeat=repeat).integers(2**63)
        for clip, repeat in zip(clips.tolist(), repeats.tolist(), strict=True)
    ]
    return np.array(drawn, dtype=np.int64)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def prefetched(items: Iterator[Item], *, depth: int = 2) -> Generator[Item]:
    """The same items, up to `depth` of them made ahead by a thread that ends with this iterator; errors come in their
    item's place.
    """
    end: Any = object()
    pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
    try:
        ready = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := ready.popleft().result()) is not end:
            ready.append(pool.submit(next, items, end))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)
