"""Order is ours: the same global batches for any number of workers and any accumulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posture.errors import InputError
from posture.train import order


@given(st.integers(1, 200), st.integers(-5, 2**70), st.integers(0, 50))
def test_an_epoch_has_every_clip_once_in_an_order_of_its_own(clips: int, seed: int, epoch: int) -> None:
    drawn = order.permutation(clips, seed=seed, epoch=epoch)
    assert sorted(drawn.tolist()) == list(range(clips))
    np.testing.assert_array_equal(drawn, order.permutation(clips, seed=seed, epoch=epoch))
    if clips >= 100:
        assert (drawn != order.permutation(clips, seed=seed, epoch=epoch + 1)).any()
        assert (drawn != order.permutation(clips, seed=seed + 1, epoch=epoch)).any()
    assert (order.repeats(drawn) == 0).all()


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 30))
def test_workers_shares_make_up_the_step(world_size: int, micro: int, steps: int, spare: int) -> None:
    global_batch = 12 * world_size * micro
    drawn = order.permutation(global_batch * steps + spare % global_batch, seed=0, epoch=0)
    assert order.steps_per_epoch(len(drawn), global_batch=global_batch) == steps
    for step in range(steps):
        shares = [
            order.share_of_step(drawn, step, global_batch=global_batch, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        assert {len(share) for share in shares} == {12 * micro}
        np.testing.assert_array_equal(np.concatenate(shares), drawn[step * global_batch : (step + 1) * global_batch])


@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(0, 20))
def test_balanced_classes_come_equally_often(labels: list[int], epoch: int) -> None:
    drawn = order.balanced(np.array(labels), seed=7, epoch=epoch)
    assert len(drawn) == len(labels)
    np.testing.assert_array_equal(drawn, order.balanced(np.array(labels), seed=7, epoch=epoch))
    per_class = np.bincount(np.array(labels)[drawn], minlength=6)[np.unique(labels)]
    assert per_class.max() - per_class.min() <= 1
    for label in np.unique(labels):  # no clip a third time before all have come twice
        members = np.flatnonzero(np.array(labels) == label)
        times = np.bincount(drawn, minlength=len(labels))[members]
        assert times.max() - times.min() <= 1


def test_repeats_count_earlier_appearances() -> None:
    assert order.repeats(np.array([4, 2, 4, 4, 0, 2])).tolist() == [0, 0, 1, 2, 0, 1]


def test_impossible_batches_are_refused_with_the_numbers() -> None:
    with pytest.raises(InputError, match="global_batch is 64, but there are only 60 training clips"):
        order.steps_per_epoch(60, global_batch=64)
    with pytest.raises(InputError, match="global_batch 10 cannot be dealt evenly to 4 workers"):
        order.share_size(10, world_size=4)
