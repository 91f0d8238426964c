"""Micro batches and the thread that makes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from posture.errors import InputError
from posture.train.batches import prefetched
from posture.train.clip_batches import ClipBatches
from tests.support.small_run import SmallFootage, StreamedFootage, small_run

FOOTAGE = SmallFootage(41)


def indices_by_step(batches: ClipBatches, epoch: int, *, start_step: int = 0) -> list[list[int]]:
    return [
        [index for batch in step for index in batch.indices.tolist()]
        for step in batches.training(epoch, start_step=start_step)
    ]


def prefetch_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("prefetch")]


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("micro_batch", [None, 2])
def test_the_global_batch_is_the_same_for_any_workers_and_accumulation(
    world_size: int, micro_batch: int | None
) -> None:
    whole = indices_by_step(ClipBatches(FOOTAGE, small_run(), rank=0, world_size=1, validation=FOOTAGE), 3)
    run = small_run(scale__workers=world_size, scale__micro_batch=micro_batch)
    shares = [
        ClipBatches(FOOTAGE, run, rank=rank, world_size=world_size, validation=FOOTAGE) for rank in range(world_size)
    ]
    assert {share.steps_per_epoch for share in shares} == {3}
    parts = [indices_by_step(share, 3) for share in shares]
    assert [[index for part in parts for index in part[step]] for step in range(3)] == whole
    assert all(len(step) == run.scale.accumulation for step in shares[0].training(3))


def test_a_batch_holds_the_clips_it_names() -> None:
    batches = ClipBatches(FOOTAGE, small_run(data__temporal_jitter=False), rank=0, world_size=1, validation=FOOTAGE)
    (batch,) = next(steps := batches.training(0))
    steps.close()
    assert batch.stored["rgb"].shape == (12, 8, 20, 24, 3) and batch.stored["rgb"].dtype == np.uint8
    for clip, label, index in zip(batch.stored["rgb"], batch.labels, batch.indices, strict=True):
        stored = FOOTAGE.clip(index)
        start = (len(stored) - 8) // 2
        np.testing.assert_array_equal(clip, stored[start : start + 8])
        assert label == FOOTAGE.labels[index]


def test_training_mixes_clips_and_validation_does_not() -> None:
    run = small_run(data__mixup=0.5, data__erasing=1.0)
    batches = ClipBatches(FOOTAGE, run, rank=0, world_size=1, validation=FOOTAGE)
    (batch,) = next(steps := batches.training(0))
    steps.close()
    (clips,), answers = batch.tensors(run, torch.device("cpu"), epoch=0)
    assert answers.shape == (12, run.model.classes) and answers.dtype == torch.float32
    labels = batch.targets
    partners = labels.roll(-1)
    own = answers.gather(1, labels[:, None])[:, 0]
    assert bool(((own > 0) & (own < 1))[labels != partners].all()) and bool((own[labels == partners] == 1).all())
    plain = small_run(data__erasing=1.0)
    (unmixed,), hard = batch.tensors(plain, torch.device("cpu"), epoch=0)
    assert torch.equal(hard, labels)
    share = own[labels != partners][0]
    place = int((labels != partners).nonzero()[0])
    mean = share * unmixed[place] + (1 - share) * unmixed[(place + 1) % 12]
    torch.testing.assert_close(clips[place], mean)
    (views,), targets = batch.tensors(run, torch.device("cpu"))
    assert torch.equal(targets, labels) and torch.equal(views, batch.tensors(plain, torch.device("cpu"))[0][0])


def test_a_random_step_is_the_clips_own_and_training_alone_has_it() -> None:
    run = small_run(model__frames=8, data__steps=(1, 2, 3), data__temporal_jitter=False)
    starts = [np.arange(40).reshape(40, 1, 1, 1) + np.zeros((1, 20, 24, 3), dtype=np.int64)] * 60
    footage = SmallFootage(60)
    footage.frames = [frames.astype(np.uint8) for frames in starts]
    batches = ClipBatches(footage, run, rank=0, world_size=1, validation=footage)
    steps: dict[int, set[int]] = {}
    for epoch in range(2):
        for (batch,) in batches.training(epoch):
            for index, clip in zip(batch.indices.tolist(), batch.stored["rgb"], strict=True):
                (found,) = set(np.diff(clip[:, 0, 0, 0].astype(int)).tolist())
                steps.setdefault(found, set()).add(index)
    assert sorted(steps) == [1, 2, 3] and all(len(clips) > 15 for clips in steps.values())
    assert [batch.stored["rgb"].tolist() for step in batches.training(1) for batch in step] == [
        batch.stored["rgb"].tolist() for step in batches.training(1) for batch in step
    ]
    seen = [np.diff(clip[:, 0, 0, 0].astype(int)) for batch in batches.evaluation() for clip in batch.stored["rgb"]]
    assert {int(step) for clip in seen for step in clip} == {run.data.step}


def test_a_random_start_is_the_clips_own() -> None:
    starts = {}
    for world_size in (1, 2):
        for rank in range(world_size):
            for (batch,) in ClipBatches(
                FOOTAGE, small_run(), rank=rank, world_size=world_size, validation=FOOTAGE
            ).training(1):
                for clip, index in zip(batch.stored["rgb"], batch.indices.tolist(), strict=True):
                    np.testing.assert_array_equal(starts.setdefault(index, clip), clip)
    centred = [FOOTAGE.clip(index)[(len(FOOTAGE.clip(index)) - 8) // 2] for index in starts]
    assert any((clip[0] != frame).any() for clip, frame in zip(starts.values(), centred, strict=True))


def test_an_epoch_can_start_at_any_step() -> None:
    batches = ClipBatches(FOOTAGE, small_run(), rank=0, world_size=1, validation=FOOTAGE)
    assert indices_by_step(batches, 2, start_step=1) == indices_by_step(batches, 2)[1:]


def test_balanced_draws_tell_repeats_apart() -> None:
    footage = SmallFootage(36)
    footage.labels = np.array([0] * 2 + [1] * 10 + [2] * 24)
    batches = ClipBatches(footage, small_run(data__balanced=True), rank=0, world_size=1, validation=footage)
    drawn = [batch for step in batches.training(0) for batch in step]
    assert np.bincount(np.concatenate([batch.labels for batch in drawn])).tolist() == [12, 12, 12]
    pairs = [pair for batch in drawn for pair in zip(batch.indices.tolist(), batch.repeats.tolist(), strict=True)]
    assert len(set(pairs)) == 36 and {repeat for index, repeat in pairs if index < 2} == set(range(6))


@pytest.mark.parametrize("world_size", [1, 2, 3, 50])
def test_evaluation_sees_every_clip_exactly_once(world_size: int) -> None:
    run = small_run(scale__global_batch=50 if world_size == 50 else 12)
    training = SmallFootage(50)
    seen = [
        index
        for rank in range(world_size)
        for batch in ClipBatches(training, run, rank=rank, world_size=world_size, validation=FOOTAGE).evaluation()
        for index in batch.indices.tolist()
    ]
    assert sorted(seen) == list(range(41))


def test_a_stream_gives_equal_steps_and_every_clip() -> None:
    # 25 clips of one worker are 5 steps of 6, and the other one's 16 are 3
    shares = [list(range(16)), list(range(16, 41))]
    streamed = StreamedFootage(FOOTAGE, shares=shares)
    parts = [
        indices_by_step(
            ClipBatches(streamed, small_run(scale__workers=2), rank=rank, world_size=2, validation=FOOTAGE), 0
        )
        for rank in (0, 1)
    ]
    assert [len(step) for part in parts for step in part] == [6] * 10
    assert {index for part in parts for step in part for index in step} == set(range(41))
    flat = [index for step in parts[0] for index in step]
    assert flat == list(range(16)) + [0, 1, 2, 3, 4, 5] * 2 + [0, 1]


def test_a_stream_repeats_under_a_key_of_its_own_and_resumes() -> None:
    streamed = StreamedFootage(FOOTAGE, shares=[list(range(41))])
    batches = ClipBatches(streamed, small_run(), rank=0, world_size=1, validation=streamed)
    assert [batch.repeats.sum() for step in batches.training(0) for batch in step] == [0, 0, 0, 7]
    assert indices_by_step(batches, 0, start_step=2) == indices_by_step(batches, 0)[2:]
    assert sorted(index for batch in batches.evaluation() for index in batch.indices.tolist()) == list(range(41))


def test_what_cannot_be_batched_is_refused() -> None:
    streamed = StreamedFootage(FOOTAGE, shares=[[], list(range(41))])
    with pytest.raises(InputError, match="only 41 training clips"):
        ClipBatches(FOOTAGE, small_run(scale__global_batch=42), rank=0, world_size=1, validation=FOOTAGE)
    with pytest.raises(InputError, match="micro_batch 4 does not divide the 6 clips"):
        ClipBatches(FOOTAGE, small_run(scale__micro_batch=4), rank=0, world_size=2, validation=FOOTAGE)
    with pytest.raises(InputError, match=r"data.balanced needs footage held in memory"):
        ClipBatches(streamed, small_run(data__balanced=True), rank=0, world_size=2, validation=FOOTAGE)
    with pytest.raises(InputError, match=r"data.mixup and data.cutmix mix the clips .* at least 2, not 1"):
        ClipBatches(
            FOOTAGE, small_run(data__cutmix=1.0, scale__micro_batch=1), rank=0, world_size=1, validation=FOOTAGE
        )
    with pytest.raises(InputError, match="no clips to validate on"):
        ClipBatches(FOOTAGE, small_run(), rank=0, world_size=1, validation=SmallFootage(0))
    with pytest.raises(InputError, match="worker 0 of 2 got no clips"):
        next(ClipBatches(streamed, small_run(), rank=0, world_size=2, validation=FOOTAGE).training(0))


def counting(made: list[int], *, until: int = 100, fail_at: int = -1) -> Iterator[int]:
    for number in range(until):
        if number == fail_at:
            raise OSError("the disk is gone")
        made.append(number)
        yield number


def test_prefetching_stays_within_its_depth_and_ends_with_its_consumer() -> None:
    made: list[int] = []
    items = prefetched(counting(made), depth=2)
    assert [next(items), next(items)] == [0, 1]
    items.close()
    assert len(made) <= 4 and prefetch_threads() == []


def test_prefetching_ends_when_the_consumer_raises() -> None:
    items = prefetched(counting([]))
    with pytest.raises(KeyError):
        for _ in items:
            raise KeyError
    items.close()
    assert prefetch_threads() == []


def test_an_error_comes_in_its_items_place() -> None:
    items = prefetched(counting([], fail_at=3))
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(items)
    assert prefetch_threads() == []


def test_all_items_come_in_order() -> None:
    assert list(prefetched(counting([], until=20))) == list(range(20))
    assert list(prefetched(iter([]))) == []
    assert prefetch_threads() == []
