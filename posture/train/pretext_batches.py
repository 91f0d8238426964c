"""Batches for pretraining without labels: two views of each clip, each with draws of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posture.data.feed.clip_transforms import PRETEXT, clip_generator
from posture.data.feed.pretext_views import Transformation, draw_transformation, there_and_back
from posture.errors import InputError
from posture.train.clip_batches import Clip, ClipBatch, ClipBatches, stack, stored_frames


@dataclass(frozen=True)
class PretextBatch(ClipBatch):
    """The first views of n clips, then the second ones: 2n rows, whose labels are their transformations."""

    turns: np.ndarray
    """(2n,) int64, quarter turns."""

    def tensors(
        self, run: Any, device: torch.device, *, epoch: int | None = None, mirrored: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `Batch.tensors`, but always augmented: two centred views would be the same."""
        (clips,), labels = super().tensors(run, device, epoch=epoch or 0)
        for turn in (1, 2, 3):
            rows = torch.from_numpy(self.turns == turn).to(device)
            clips[rows] = clips[rows].rot90(turn, (3, 4))
        return (clips,), labels


class PretextBatches(ClipBatches):
    """As `ClipBatches`, with two views of each clip: a batch of n clips has 2n rows."""

    def __init__(self, source: Any, run: Any, *, rank: int, world_size: int, validation: Any) -> None:
        super().__init__(source, run, rank=rank, world_size=world_size, validation=validation)
        if run.pretext != "transformations" and self.micro_batch < 2:
            raise InputError(
                f"pretext={run.pretext} compares the clips of a micro batch; it must have at least 2, not 1: raise "
                "scale.global_batch or scale.micro_batch"
            )

    def _batch(self, source: Any, clips: list[Clip], *, epoch: int | None = None) -> PretextBatch:
        """Stack both views of the clips. Without an epoch, their draws are those of the first one."""
        views = [(index, arrays, 2 * repeat + view) for view in (0, 1) for index, arrays, repeat in clips]
        drawn = [self._drawn(view, epoch or 0) for view in views]
        return PretextBatch(
            stored=stack(self.run.model.inputs, [arrays for _, arrays, _ in views], [one.frames for one in drawn]),
            labels=np.array([one.label for one in drawn], dtype=np.int64),
            indices=np.array([index for index, _, _ in views], dtype=np.int64),
            repeats=np.array([repeat for _, _, repeat in views], dtype=np.int64),
            turns=np.array([one.turns for one in drawn], dtype=np.int64),
        )

    def _drawn(self, view: Clip, epoch: int) -> Transformation:
        index, arrays, repeat = view
        run = self.run
        generator = clip_generator(PRETEXT, seed=run.seed, epoch=epoch, clip=index, repeat=repeat)
        stored = stored_frames(run.model.inputs, arrays)
        if run.pretext == "contrast":
            return Transformation(there_and_back(stored, run.model.frames, step=run.data.step, generator=generator))
        return draw_transformation(stored, run.model.frames, step=run.data.step, generator=generator)
