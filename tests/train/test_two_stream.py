"""Networks that take optical flow, alone or beside the frames, through batches, training and scoring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from posture.config import ActionRun
from posture.data.feed.clip_transforms import evaluation_view, frame_indices, network_inputs
from posture.models import build
from posture.models.configs import TwoStream
from posture.tasks.action import ActionTask
from posture.train.clip_batches import ClipBatches
from posture.train.context import LocalContext
from posture.train.evaluate import score
from posture.train.loop import fit
from tests.support.small_run import CLASSES, DiskFolder, FlowFootage, small_run

STREAMS = {"both": ("rgb", "flow"), "spatial": ("rgb",), "temporal": ("flow",)}


class StreamedFlow:
    """The same from end to end."""

    def __init__(self, footage: FlowFootage, names: tuple[str, ...]) -> None:
        self.footage, self.names = footage, names
        self.classes, self.labels, self.segments = footage.classes, footage.labels, footage.segments

    def __len__(self) -> int:
        return len(self.footage)

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        for index in range(rank, len(self), world_size):
            yield index, *({"rgb": self.footage.clip, "flow": self.footage.flow}[name](index) for name in self.names)

    def longest_share(self, epoch: int, world_size: int, seed: int) -> int:
        return -(-len(self) // world_size)


FOOTAGE = FlowFootage(18)


def run_with(streams: str, **changes: Any) -> ActionRun:
    # 7 fields of the clip's 8 frames, at a size that ResNet-18 shrinks to a single cell.
    model = TwoStream(
        classes=3,
        frames=8,
        size=16,
        width=0.125,
        dropout=0.0,
        streams=streams,
        backbone="resnet18",
        flow_frames=7,
        subtract_mean_flow=False,
    )
    return small_run(**changes).model_copy(update={"model": model})


@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("streamed", [False, True])
def test_frames_and_flow_of_a_clip_begin_together(streams: str, streamed: bool) -> None:
    names = STREAMS[streams]
    footage = StreamedFlow(FOOTAGE, names) if streamed else FOOTAGE
    batches = ClipBatches(footage, run_with(streams), rank=0, world_size=1, validation=footage)
    steps = list(batches.training(1))
    seen, starts = set(), set()
    for batch in [*(batch for step in steps for batch in step), *batches.evaluation()]:
        assert tuple(batch.stored) == names and batch.frame_size == (20, 24)
        for place, index in enumerate(batch.indices.tolist()):
            seen.add(index)
            frames, flow = FOOTAGE.clip(index), FOOTAGE.flow(index)
            if "flow" in names:
                fields = batch.stored["flow"][place]
                start = int(fields[0, 0, 0, 1]) - 10 * index
                np.testing.assert_array_equal(fields, flow[start : start + 7])
            else:
                start = next(at for at in range(len(frames) - 7) if (frames[at] == batch.stored["rgb"][place, 0]).all())
            if "rgb" in names:
                np.testing.assert_array_equal(batch.stored["rgb"][place], frames[start : start + 8])
            starts.add(start)
    assert seen == set(range(18)) and len(starts) > 2


def test_one_stream_reads_nothing_of_the_other() -> None:
    flow, clip = FlowFootage(18), FlowFootage(18)
    flow.clip = clip.flow = lambda index: pytest.fail("read what the model does not take")  # type: ignore[method-assign]
    for streams, footage in (("temporal", flow), ("spatial", clip)):
        assert (
            len(list(ClipBatches(footage, run_with(streams), rank=0, world_size=1, validation=footage).evaluation()))
            == 2
        )


@pytest.mark.parametrize("streams", STREAMS)
def test_scores_are_the_mean_of_the_streams_softmaxes(streams: str) -> None:
    run = run_with(streams)
    torch.manual_seed(0)
    network = build(run.model).eval()
    scores = score(network, FOOTAGE, np.array([3, 17]), run, torch.device("cpu"), crops=3, temporal_views=2)
    for row, index in zip(scores, (3, 17), strict=True):
        views = []
        for view in range(2):
            numbers = frame_indices(len(FOOTAGE.clip(index)), 8, view=view, views=2)
            stored = {"rgb": FOOTAGE.clip(index)[numbers], "flow": FOOTAGE.flow(index)[numbers[:-1]]}
            for crop in range(3):
                square = evaluation_view((20, 24), clips=1, crop=crop, crops=3)
                inputs = network_inputs(
                    {name: torch.from_numpy(stored[name])[None] for name in STREAMS[streams]},
                    square,
                    data=run.data,
                    size=16,
                )
                logits = network(*inputs).detach().reshape(-1, 3)
                views.append(logits.softmax(dim=1).mean(dim=0).numpy())
        np.testing.assert_allclose(row, np.mean(views, axis=0), rtol=1e-4, atol=1e-6)


def test_it_learns_which_way_things_move(folder: DiskFolder) -> None:
    """A flip that did not turn dx round would make `left` and `right` the same."""
    run = run_with("temporal", epochs=12, scale__global_batch=6, optim__lr=0.02)
    torch.manual_seed(0)
    batches = ClipBatches(FOOTAGE, run, rank=0, world_size=1, validation=FlowFootage(12, seed=1))
    result = fit(run, ActionTask(run, CLASSES), batches, LocalContext(folder), None, model=build(run.model))
    assert result["best"] == 1.0 and result["history"][-1]["train_loss"] < 0.7 * result["history"][0]["train_loss"]
