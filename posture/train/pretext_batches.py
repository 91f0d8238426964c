"""Batches for pretraining without labels: views of each clip, each with draws of its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from posture.data.feed.clip_transforms import PLAY, PRETEXT, clip_generator
from posture.data.feed.pretext_views import COMPARED, PretextView, draw_compared, draw_transformation
from posture.errors import InputError
from posture.train.clip_batches import Clip, ClipBatch, ClipBatches, stack, stored_frames


@dataclass(frozen=True)
class PretextBatch(ClipBatch):
    """The first views of n instances, then their second ones: 2n rows, whose labels are their transformations.

    For transformations an instance is a clip. For contrast it is a clip as it is played, and each clip is played in two
    ways: it takes motion to tell them apart.
    """

    turns: np.ndarray
    """(2n,) int64, quarter turns."""
    stills: np.ndarray
    """(2n,) float32, share of the middle frame of the next row that is mixed into all frames."""

    def tensors(
        self, run: Any, device: torch.device, *, epoch: int | None = None, mirrored: bool = False
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """As `Batch.tensors`, but always augmented: two centred views would be the same."""
        (clips,), labels = super().tensors(run, device, epoch=epoch or 0)
        for turn in (1, 2, 3):
            rows = torch.from_numpy(self.turns == turn).to(device)
            clips[rows] = clips[rows].rot90(turn, (3, 4))
        if self.stills.any():
            shares = torch.from_numpy(self.stills).to(device)[:, None, None, None, None]
            clips = clips.lerp(clips.roll(-1, 0)[:, :, clips.shape[2] // 2, None], shares)
        return (clips,), labels


class PretextBatches(ClipBatches):
    """As `ClipBatches`, with `run.views` views of each clip."""

    def __init__(self, source: Any, run: Any, *, rank: int, world_size: int, validation: Any) -> None:
        super().__init__(source, run, rank=rank, world_size=world_size, validation=validation)
        if run.pretext == "contrast" and self.micro_batch < 2:
            raise InputError(
                "pretext=contrast compares the clips of a micro batch; it must have at least 2, not 1: raise "
                "scale.global_batch or scale.micro_batch"
            )

    def _batch(self, source: Any, clips: list[Clip], *, epoch: int | None = None) -> PretextBatch:
        """Stack the views of the clips. Without an epoch, their draws are those of the first one."""
        instances = self.run.views // 2
        views = [
            (index, arrays, self.run.views * repeat + instances * view + instance)
            for view in (0, 1)
            for instance in range(instances)
            for index, arrays, repeat in clips
        ]
        drawn = [self._drawn(view, epoch or 0) for view in views]
        return PretextBatch(
            stored=stack(self.run.model.inputs, [arrays for _, arrays, _ in views], [one.frames for one in drawn]),
            labels=np.array([one.label for one in drawn], dtype=np.int64),
            indices=np.array([index for index, _, _ in views], dtype=np.int64),
            repeats=np.array([repeat for _, _, repeat in views], dtype=np.int64),
            turns=np.array([one.turns for one in drawn], dtype=np.int64),
            stills=np.array([one.still for one in drawn], dtype=np.float32),
        )

    def _drawn(self, view: Clip, epoch: int) -> PretextView:
        index, arrays, repeat = view
        run = self.run
        key = {"seed": run.seed, "epoch": epoch, "clip": index}
        generator = clip_generator(PRETEXT, **key, repeat=repeat)
        settings = {"step": run.data.step, "generator": generator}
        stored, frames = stored_frames(run.model.inputs, arrays), run.model.frames
        if run.pretext == "transformations":
            return draw_transformation(stored, frames, **settings)
        plays = clip_generator(PLAY, **key, repeat=repeat // run.views).permutation(COMPARED)  # of both instances
        return draw_compared(stored, frames, play=str(plays[repeat % 2]), **settings)
