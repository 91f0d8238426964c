"""Every clip judged exactly once, over all views."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from posture.data.feed.clip_transforms import evaluation_view, frame_indices, network_input
from posture.train.evaluate import describe, merge_by_segment, score
from tests.support.small_run import SmallFootage, SmallNetwork, StreamedFootage, small_run

FOOTAGE = SmallFootage(13)
CPU = torch.device("cpu")


@pytest.mark.parametrize(("crops", "temporal_views"), [(1, 1), (3, 1), (3, 2)])
def test_scores_are_mean_probabilities_over_views(crops: int, temporal_views: int) -> None:
    run, network = small_run(), SmallNetwork(dropout=0.5)
    indices = np.array([11, 2, 7, 0, 12])
    scores = score(network, FOOTAGE, indices, run, CPU, crops=crops, temporal_views=temporal_views, batch=4)
    assert scores.shape == (5, 3) and scores.dtype == np.float32
    network.eval()
    for row, index in zip(scores, indices.tolist(), strict=True):
        views = []
        for view in range(temporal_views):
            frames = FOOTAGE.clip(index)
            picked = frames[frame_indices(len(frames), 8, view=view, views=temporal_views)]
            for crop in range(crops):
                square = evaluation_view((20, 24), clips=1, crop=crop, crops=crops)
                inputs = network_input(torch.from_numpy(picked)[None], square, data=run.data, size=16)
                views.append(network(inputs)[0].softmax(dim=0).detach().numpy())
        np.testing.assert_allclose(row, np.mean(views, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 5, 100])
def test_the_batch_size_changes_nothing(batch: int) -> None:
    counts: list[tuple[int, int]] = []
    scores = score(
        SmallNetwork(),
        FOOTAGE,
        np.arange(13),
        small_run(),
        CPU,
        batch=batch,
        progress=lambda *done: counts.append(done),
    )
    np.testing.assert_allclose(
        scores, score(SmallNetwork(), FOOTAGE, np.arange(13), small_run(), CPU), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)
    assert counts[-1] == (13, 13) and len(counts) == -(-13 // batch)
    assert not any(thread.name.startswith("prefetch") for thread in threading.enumerate())


def test_streamed_footage_is_scored_in_the_order_asked_for() -> None:
    streamed = StreamedFootage(FOOTAGE, shares=[[5, 0, 12, *range(1, 5), *range(6, 12)]])
    asked = np.array([12, 3, 4])
    expected = score(SmallNetwork(), FOOTAGE, asked, small_run(), CPU)
    np.testing.assert_allclose(score(SmallNetwork(), streamed, asked, small_run(), CPU), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [[0, 1, 2, 2], [0, 1]])
def test_a_clip_missing_or_twice_is_an_error(share: list[int]) -> None:
    streamed = StreamedFootage(FOOTAGE, shares=[share])
    with pytest.raises(RuntimeError, match="1 of 3 clips were not evaluated exactly once"):
        score(SmallNetwork(), streamed, np.arange(3), small_run(), CPU)


def test_segments_average_their_clips() -> None:
    probabilities = np.array([[0.8, 0.2], [0.1, 0.9], [0.4, 0.6], [0.5, 0.5]], dtype=np.float32)
    merged = merge_by_segment(probabilities, np.array([7, 3, 7, 7]), np.array([0, 1, 0, 0]))
    assert merged.segments.tolist() == [3, 7] and merged.labels.tolist() == [1, 0] and merged.views.tolist() == [1, 3]
    np.testing.assert_allclose(merged.scores, [[0.1, 0.9], [1.7 / 3, 1.3 / 3]], rtol=1e-6)
    assert merged.scores.dtype == np.float32
    with pytest.raises(ValueError, match="different labels"):
        merge_by_segment(probabilities, np.array([7, 3, 7, 7]), np.array([0, 1, 1, 0]))


def test_clips_are_described_in_their_own_order() -> None:
    run, network = small_run(), SmallNetwork(dropout=0.5)
    streamed = StreamedFootage(FOOTAGE, shares=[[5, 0, 12, *range(1, 5), *range(6, 12)]])
    probabilities, features = describe(network, streamed, run, CPU, batch=4)
    np.testing.assert_allclose(probabilities, score(network, FOOTAGE, np.arange(13), run, CPU), rtol=1e-4, atol=1e-6)
    made = network.classify(torch.from_numpy(features)).softmax(dim=1).detach().numpy()
    np.testing.assert_allclose(made, probabilities, rtol=1e-4, atol=1e-6)
