"""Micro batches of uint8 clips, assembled in a background thread while the network computes.

Tensor legend: n clips of a micro batch, T frames, H and W the stored height and width in pixels. The model's inputs
(`run.model.inputs`) have names: "rgb" is frames (T, H, W, 3) uint8, "flow" is the optical flow from each frame to the
next, (T - 1, H, W, 2) uint8 as `posture/data/decode/optical_flow.py` encodes it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from posture.data.decode.optical_flow import sampled
from posture.data.feed.clip_mixing import erased, mixed
from posture.data.feed.clip_transforms import (
    NETWORK,
    STEP,
    TEMPORAL,
    clip_generator,
    draw_augmentation,
    evaluation_view,
    frame_indices,
    network_inputs,
)
from posture.errors import InputError
from posture.train import order
from posture.train.batches import Batches, chunks, clip_keys, prefetched


class ClipSource(Protocol):
    """Clips in memory: `posture.data.feed.clips.Clips`."""

    classes: tuple[str, ...]
    labels: np.ndarray
    """(clips,) int64 class indices."""
    segments: np.ndarray
    """(clips,) int64, shared by the clips of a segment."""

    def __len__(self) -> int: ...

    def clip(self, index: int) -> np.ndarray:
        """Return frames (T, H, W, 3) uint8; T may differ between clips, H and W may not."""
        ...

    # And, if the model takes flow: flow(index) -> (T - 1, H, W, 2) uint8.


class StreamedClipSource(Protocol):
    """Clips that do not fit in memory, or are decoded on demand: as `ClipSource`, in an order of their own."""

    classes: tuple[str, ...]
    labels: np.ndarray
    segments: np.ndarray

    def __len__(self) -> int: ...

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield (clip index, array for each of the model's inputs) of this worker's part; over all workers every clip
        comes once.
        """
        ...

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        """Return the maximum number of clips that a worker gets in this epoch."""
        ...


Clip = tuple[int, tuple[np.ndarray, ...], int]
"""Clip index, stored array of each of the model's inputs, and earlier occurrences of the clip in this epoch."""


@dataclass(frozen=True)
class ClipBatch:
    """Clips for one forward pass, see `posture.train.batches.Batch`."""

    stored: dict[str, np.ndarray]
    """The model's inputs, temporally sampled: "rgb" (n, T, H, W, 3) uint8, "flow" (n, T - 1, H, W, 2) uint8."""
    labels: np.ndarray
    """(n,) int64."""
    indices: np.ndarray
    """(n,) int64, clip indices in the source."""
    repeats: np.ndarray
    """(n,) int64, earlier occurrences of the clip in this epoch (balanced classes draw clips several times)."""

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width as stored, in pixels."""
        return next(iter(self.stored.values())).shape[2:4]

    @property
    def targets(self) -> Tensor:
        """Class indices (n,) int64, in host memory."""
        return torch.from_numpy(self.labels)

    def counts(self, task: Any) -> dict[str, float]:
        return task.counts(self.targets)

    def keys(self, run: Any, *, epoch: int) -> np.ndarray:
        return clip_keys(NETWORK, self.indices, self.repeats, seed=run.seed, epoch=epoch)

    def tensors(
        self, run: Any, device: torch.device, *, epoch: int | None = None, mirrored: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `Batch.tensors`; `mirrored` flips the centred view left-right."""
        if epoch is None:
            view = evaluation_view(self.frame_size, clips=len(self.labels))
            view = replace(view, flips=np.full(len(self.labels), mirrored))
        else:
            view = draw_augmentation(
                run.data, self.frame_size, seed=run.seed, epoch=epoch, clips=self.indices, repeats=self.repeats
            )
        stored = {name: torch.from_numpy(array).to(device, non_blocking=True) for name, array in self.stored.items()}
        targets = self.targets.to(device, non_blocking=True)
        inputs = network_inputs(stored, view, data=run.data, size=run.model.size)
        if epoch is None:
            return inputs, targets
        pairs = zip(self.indices.tolist(), self.repeats.tolist(), strict=True)
        keys = [{"seed": run.seed, "epoch": epoch, "clip": clip, "repeat": repeat} for clip, repeat in pairs]
        inputs = erased(inputs, data=run.data, keys=keys)
        return mixed(inputs, targets, classes=run.model.classes, data=run.data, keys=keys)


class ClipBatches(Batches):
    """Batches of clips; the sources are `ClipSource` or `StreamedClipSource`, the run is an `ActionRun`."""

    unit = "clips"

    def __init__(self, source: Any, run: Any, *, rank: int, world_size: int, validation: Any) -> None:
        super().__init__(source, run, rank=rank, world_size=world_size, validation=validation)
        if self.streams and run.data.balanced:
            raise InputError(
                "data.balanced needs footage held in memory; set data.feed to materialize, or data.balanced to false"
            )

        if (run.data.mixup or run.data.cutmix) and self.micro_batch < 2:
            raise InputError(
                "data.mixup and data.cutmix mix the clips of a micro batch; it must have at least 2, not 1: raise "
                "scale.global_batch or scale.micro_batch"
            )

    @property
    def contents(self) -> dict[str, Any]:
        return {"balanced": self.run.data.balanced, "clips": len(self.source)}

    def training(self, epoch: int, *, start_step: int = 0) -> Generator[list[ClipBatch]]:
        return prefetched(self._steps(epoch, start_step))

    def evaluation(self) -> Generator[ClipBatch]:
        return self.once(self.validation)

    def once(self, source: Any) -> Generator[ClipBatch]:
        """Yield this worker's share of the clips of `source`, each once and centred; the last batch may be smaller."""
        indices = np.arange(len(source))[self.rank :: self.world_size]
        clips = read(source, indices, self.run.model.inputs, rank=self.rank, world_size=self.world_size)
        return prefetched(self._batch(source, chunk) for chunk in chunks(clips, self.micro_batch))

    def _steps(self, epoch: int, start_step: int) -> Iterator[list[ClipBatch]]:
        clips = (self._streamed if self.streams else self._ordered)(epoch, start_step)
        for _ in range(start_step, self.steps_per_epoch):
            yield [
                self._batch(self.source, list(islice(clips, self.micro_batch)), epoch=epoch)
                for _ in range(self.accumulation)
            ]

    def _ordered(self, epoch: int, start_step: int) -> Iterator[Clip]:
        """Yield this worker's clips in an order that is a function of seed, epoch and step."""
        run, source = self.run, self.source
        key = {"seed": run.seed, "epoch": epoch}
        clips = order.balanced(source.labels, **key) if run.data.balanced else order.permutation(len(source), **key)
        drawn = np.stack([clips, order.repeats(clips)], axis=1)  # (clips, 2)
        for step in range(start_step, self.steps_per_epoch):
            for index, repeat in self.share_of_step(drawn, step).tolist():
                yield index, _take(source, index, run.model.inputs), repeat

    def _streamed(self, epoch: int, start_step: int) -> Iterator[Clip]:
        """Yield the stream's clips without those of the steps before `start_step`."""
        return islice(self.endless(epoch), start_step * self.share, None)

    def _batch(self, source: Any, clips: list[Clip], *, epoch: int | None = None) -> ClipBatch:
        """Stack clips of `model.frames` frames. In training their start is random with `data.temporal_jitter`, and
        their step with `data.steps`.
        """
        model, data, seed = self.run.model, self.run.data, self.run.seed

        def frames_of(clip: Clip) -> np.ndarray:
            index, arrays, repeat = clip
            step, generator = data.step, None
            if epoch is not None:
                key = {"seed": seed, "epoch": epoch, "clip": index, "repeat": repeat}
                step = int(clip_generator(STEP, **key).choice(data.steps)) if data.steps else step
                generator = clip_generator(TEMPORAL, **key) if data.temporal_jitter else None
            return frame_indices(stored_frames(model.inputs, arrays), model.frames, step=step, generator=generator)

        stored = stack(model.inputs, [arrays for _, arrays, _ in clips], [frames_of(clip) for clip in clips])
        indices, repeats = (np.array([clip[part] for clip in clips], dtype=np.int64) for part in (0, 2))
        return ClipBatch(stored=stored, labels=source.labels[indices], indices=indices, repeats=repeats)


def read(
    source: ClipSource | StreamedClipSource,
    indices: np.ndarray,
    inputs: tuple[str, ...],
    *,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Clip]:
    """Yield the clips `indices` once; of a streamed source, all clips of this worker's part of the stream."""
    if (stream := getattr(source, "stream", None)) is not None:
        for index, *arrays in stream(0, rank, world_size, 0):
            yield index, tuple(arrays), 0
    else:
        for index in indices.tolist():
            yield index, _take(source, index, inputs), 0


def stored_frames(inputs: tuple[str, ...], arrays: tuple[np.ndarray, ...]) -> int:
    """Return the number of a clip's stored frames: one more than its flow fields."""
    return len(arrays[0]) + (inputs[0] == "flow")


def stack(
    inputs: tuple[str, ...], clips: list[tuple[np.ndarray, ...]], frames: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Return one array of all clips for each of `inputs`, at the stored frames `frames` (T,) of each clip."""
    stacked = {}
    for name, arrays in zip(inputs, zip(*clips, strict=True), strict=True):
        length = len(frames[0]) - (name == "flow")
        stacked[name] = np.empty((len(clips), length, *arrays[0].shape[1:]), dtype=np.uint8)
        for number, array in enumerate(arrays):
            if name == "flow":
                stacked[name][number] = sampled(array, frames[number])
            else:
                # the default mode would copy twice
                np.take(array, frames[number], axis=0, out=stacked[name][number], mode="clip")
    return stacked


def _take(source: Any, index: int, inputs: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    return tuple(source.flow(index) if name == "flow" else source.clip(index) for name in inputs)
