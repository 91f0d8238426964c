"""Batches of clips or images alike: the steps of an epoch, the order of a stream, and prefetching."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from posture.data.feed.clip_transforms import clip_generator
from posture.errors import InputError
from posture.train import order

Item = TypeVar("Item")


class Batch(Protocol):
    """Clips or images for one forward pass, in host memory."""

    indices: np.ndarray
    """(n,) int64, indices in the source."""

    @property
    def targets(self) -> Any:
        """Targets of the loss, in host memory."""
        ...

    def counts(self, task: Any) -> dict[str, float]:
        """Return the number that each term of the task's loss is divided by."""
        ...

    def keys(self, run: Any, *, epoch: int) -> np.ndarray:
        """Return keys of the network's own randomness (dropout), (n,) int64: a function of seed, epoch and clip."""
        ...

    def tensors(self, run: Any, device: torch.device, *, epoch: int | None = None) -> tuple[tuple[Tensor, ...], Any]:
        """Return the network's inputs and the targets on `device`: augmented as in `epoch`, or, if None, centred."""
        ...


class Batches(ABC):
    """One worker's share of training data (`source`) and of `validation` data; `run` is one of `posture.config`.

    Each is in memory, or streamed if it has a method `stream`. Raises InputError if the global batch cannot be filled
    or dealt evenly.
    """

    unit: ClassVar[str]
    """"clips" or "images"."""

    def __init__(self, source: Any, run: Any, *, rank: int, world_size: int, validation: Any) -> None:
        self.source, self.validation, self.run, self.rank, self.world_size = source, validation, run, rank, world_size
        self.streams = hasattr(source, "stream")
        self.share = order.share_size(run.scale.global_batch, world_size=world_size)
        steps = order.steps_per_epoch(len(source), global_batch=run.scale.global_batch, unit=self.unit)
        if self.streams:
            # Equal in all epochs and on all workers, and enough for every clip; workers with fewer repeat some.
            longest = max(source.longest_share(epoch, world_size, run.seed) for epoch in range(run.epochs))
            steps = -(-longest // self.share)
        self.steps_per_epoch = min(steps, run.steps_per_epoch or steps)
        self.micro_batch = run.scale.micro_batch or self.share
        self.accumulation, rest = divmod(self.share, self.micro_batch)
        if rest:
            raise InputError(
                f"scale.micro_batch {self.micro_batch} does not divide the {self.share} {self.unit} of each of "
                f"{world_size} workers"
            )
        if not len(validation):
            raise InputError(f"there are no {self.unit} to validate on; the split `val` is empty")

    @property
    def order(self) -> dict[str, Any]:
        """Everything that decides which clips come in which step; saved in checkpoints."""
        found = {"seed": self.run.seed, "global_batch": self.run.scale.global_batch, **self.contents}
        return found | {"workers": self.world_size} if self.streams else found

    @property
    @abstractmethod
    def contents(self) -> dict[str, Any]:
        """Further entries of `order`: the number of clips and the like."""

    @abstractmethod
    def training(self, epoch: int, *, start_step: int = 0) -> Generator[list[Any]]:
        """Yield this worker's micro batches for every step of the epoch from `start_step`. Close it to stop early."""

    @abstractmethod
    def evaluation(self) -> Generator[Any]:
        """Yield this worker's share of the validation data, each once and centred; the last batch may be smaller."""

    def share_of_step(self, epoch_order: np.ndarray, step: int) -> np.ndarray:
        """Return the part of an epoch's order that this worker computes in `step`: (share, ...)."""
        return order.share_of_step(
            epoch_order, step, global_batch=self.run.scale.global_batch, rank=self.rank, world_size=self.world_size
        )

    def endless(self, epoch: int) -> Iterator[tuple[int, tuple[Any, ...], int]]:
        """Yield (index, arrays, repeat) as the stream has them, then its first ones again, without end."""
        first: list[tuple[int, tuple[Any, ...]]] = []
        for index, *arrays in self.source.stream(epoch, self.rank, self.world_size, self.run.seed):
            if len(first) < self.share:
                first.append((index, tuple(arrays)))
            yield index, tuple(arrays), 0
        if not first:
            raise InputError(
                f"worker {self.rank} of {self.world_size} got no {self.unit} from the stream; use fewer workers"
            )
        for number, (index, arrays) in enumerate(cycle(first)):
            yield index, arrays, 1 + number // len(first)


def clip_keys(stream: int, clips: np.ndarray, repeats: np.ndarray, *, seed: int, epoch: int) -> np.ndarray:
    """Return a random number for each clip, or image, of one epoch: (n,) int64."""
    drawn = [
        clip_generator(stream, seed=seed, epoch=epoch, clip=clip, repeat=repeat).integers(2**63)
        for clip, repeat in zip(clips.tolist(), repeats.tolist(), strict=True)
    ]
    return np.array(drawn, dtype=np.int64)


def chunks(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield lists of `size` items; the last may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


def prefetched(items: Iterator[Item], *, depth: int = 2) -> Generator[Item]:
    """Yield the same items, up to `depth` of them made ahead by a thread that ends with this iterator.

    An error is raised in place of the item that caused it.
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
