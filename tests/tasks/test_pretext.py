"""Learning without labels: the losses against values by hand, the views, and batches of pairs."""

import math

import numpy as np
import pytest
import torch

from posture.data.feed.pretext_views import PLAYS, TRANSFORMATIONS, TURNS, draw_transformation, pretext_outputs
from posture.errors import InputError
from posture.models import build
from posture.tasks.pretext import TEMPERATURE, PretextTask, contrast_losses
from posture.train.context import LocalContext
from posture.train.loop import fit
from posture.train.pretext_batches import PretextBatch, PretextBatches
from tests.support.small_run import SmallFootage, small_run


def pretext_run(pretext="transformations", **changes):
    settings = {"model__width": 0.25, "optim__name": "adamw", "optim__lr": 0.003, "model__norm": "batch"}
    return small_run(pretext=pretext, **settings | {"model__classes": len(pretext_outputs(pretext))} | changes)


def first(batches: PretextBatches) -> PretextBatch:
    """Return the first batch of the first epoch."""
    (batch,) = next(batches.training(0))
    assert isinstance(batch, PretextBatch)
    return batch


def test_contrast_is_the_cross_entropy_of_finding_the_other_view():
    views = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 0.0], [0.0, -0.5]])  # clip 0, clip 1, and again
    one, none, against = (math.exp(cosine / TEMPERATURE) for cosine in (1.0, 0.0, -1.0))
    alike, opposite = -math.log(one / (one + 2 * none)), -math.log(against / (against + 2 * none))
    assert contrast_losses(views).tolist() == pytest.approx([alike, opposite, alike, opposite], rel=1e-5)


def test_losses_of_streams_are_added():
    labels = torch.tensor([3, 0, 1, 15])
    outputs = torch.randn(4, len(TRANSFORMATIONS), generator=torch.Generator().manual_seed(1))
    named = torch.nn.functional.cross_entropy(outputs, labels, reduction="sum").item()
    for pretext, expected in (("transformations", named), ("contrast", contrast_losses(outputs).sum().item())):
        task = PretextTask(pretext_run(pretext))
        total, count = task.loss(outputs, labels)["pretext"]
        assert total.item() == pytest.approx(expected) and {"pretext": count} == task.counts(labels) == {"pretext": 4.0}
        twice, _ = task.loss(outputs[:, None].expand(-1, 2, -1), labels)["pretext"]
        assert twice.item() == pytest.approx(2 * expected)


@pytest.mark.parametrize(("pretext", "clips"), [("transformations", 6), ("contrast", 3)])
def test_metrics_of_several_batches_and_workers_are_those_of_all_clips(pretext, clips):
    task, labels = PretextTask(pretext_run(pretext)), torch.arange(12)
    outputs = torch.randn(12, len(TRANSFORMATIONS), generator=torch.Generator().manual_seed(2))
    if pretext == "contrast":
        outputs[7:] = outputs[1:6] + 0.01  # both views of five instances are alike; those of the first are opposite
        outputs[6] = -outputs[0]
    else:
        outputs[torch.arange(9), labels[:9]] = 20.0
        outputs[9:] = outputs[:3]
    whole = task.metrics([task.totals(outputs, labels)])
    rows = [[0, 1, 6, 7], [2, 3, 4, 5, 8, 9, 10, 11]]  # two batches
    parts = [task.totals(outputs[part], labels[part]) for part in rows]
    assert task.metrics([None, *parts]) == pytest.approx(whole)
    assert task.metrics([task.added(*parts)]) == pytest.approx(whole)
    assert whole["count"] == clips
    assert whole["accuracy"] == pytest.approx(10 / 12 if pretext == "contrast" else 9 / 12)


def test_views_play_clips_in_four_ways_and_turn_them():
    seen = {}
    for seed in range(200):
        drawn = draw_transformation(24, 8, step=1, generator=np.random.default_rng(seed))
        play, turn = divmod(drawn.label, TURNS)
        assert turn == drawn.turns and drawn.frames.min() >= 0 and drawn.frames.max() < 24
        steps = np.diff(drawn.frames)
        seen.setdefault(PLAYS[play], []).append(steps)
    assert set(seen) == set(PLAYS)
    assert (np.array(seen["forwards"]) == 1).all() and (np.array(seen["backwards"]) == -1).all()
    assert (np.array(seen["twice as fast"]) == 2).all()
    for steps in seen["shuffled"]:
        assert not (steps == 1).all() and not (steps == -1).all()
        assert (steps[[0, 2, 4, 6]] == 1).all()  # within each quarter


def test_a_view_longer_than_its_clip_plays_to_the_end_and_back():
    drawn = [draw_transformation(5, 8, step=1, generator=np.random.default_rng(seed)) for seed in range(40)]
    forwards = next(one for one in drawn if one.label // TURNS == 0)
    assert forwards.frames.tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    alone = draw_transformation(1, 8, step=1, generator=np.random.default_rng(0))
    assert alone.frames.tolist() == [0] * 8


def test_a_batch_has_two_views_of_each_clip_with_draws_of_their_own():
    run, footage = pretext_run(scale__global_batch=4), SmallFootage(8)
    batches = PretextBatches(footage, run, rank=0, world_size=1, validation=footage)
    batch = first(batches)
    assert batch.indices.tolist() == [*batch.indices[:4]] * 2 and batch.repeats.tolist() == [0] * 4 + [1] * 4
    (clips,), labels = batch.tensors(run, torch.device("cpu"), epoch=0)
    assert clips.shape[0] == len(labels) == 8 and (batch.turns == batch.labels % TURNS).all() and not batch.stills.any()
    (again,), _ = first(batches).tensors(run, torch.device("cpu"), epoch=0)
    torch.testing.assert_close(again, clips, rtol=0, atol=0)
    assert not any(torch.equal(clips[row], clips[4 + row]) for row in range(4))
    assert batch.turns.any()


def way(frames):
    steps = set(np.diff(frames).tolist())
    return {frozenset({1}): "forwards", frozenset({-1}): "backwards"}.get(frozenset(steps), "twice as fast")


def test_contrast_plays_each_clip_in_two_ways_and_both_views_in_the_same():
    run, footage = pretext_run("contrast", scale__global_batch=4), SmallFootage(8)
    batches = PretextBatches(footage, run, rank=0, world_size=1, validation=footage)
    ways = [
        [way(batches._drawn((index, (footage.clip(index),), repeat), 0).frames) for repeat in range(4)]
        for index in range(8)
    ]
    assert all(first[0] == first[2] != first[1] == first[3] for first in ways)
    assert {one for each in ways for one in each} == {"forwards", "backwards", "twice as fast"}
    batch = batches._batch(footage, [(index, (footage.clip(index),), 0) for index in range(4)], epoch=0)
    assert batch.indices.tolist() == [0, 1, 2, 3] * 4 and not batch.turns.any()
    (clips,), _ = batch.tensors(run, torch.device("cpu"), epoch=0)
    batch.stills[:] = 0
    (plain,), _ = batch.tensors(run, torch.device("cpu"), epoch=0)
    batch.stills[5] = 0.25
    (mixed,), _ = batch.tensors(run, torch.device("cpu"), epoch=0)
    assert len(clips) == 16 and not torch.equal(clips, plain)
    torch.testing.assert_close(mixed[5], 0.75 * plain[5] + 0.25 * plain[6][:, 4, None].expand(-1, 8, -1, -1))
    torch.testing.assert_close(mixed[:5], plain[:5])


@pytest.mark.parametrize("pretext", ["transformations", "contrast"])
def test_a_few_epochs_lower_the_loss_and_are_the_same_each_time(pretext):
    def learn():
        run = pretext_run(pretext, epochs=8, optim__lr=0.01)
        torch.manual_seed(0)
        with LocalContext(device="cpu") as ctx:
            batches = PretextBatches(SmallFootage(24), run, rank=0, world_size=1, validation=SmallFootage(6, seed=1))
            return fit(run, PretextTask(run), batches, ctx, None, model=build(run.model))["history"]

    history = learn()
    assert history[-1]["train_loss"] < 0.97 * history[0]["train_loss"]
    assert 0 <= history[-1]["val_accuracy"] <= 1 and history[-1]["val_loss"] > 0
    assert [row["train_loss"] for row in learn()] == [row["train_loss"] for row in history]


def test_contrast_needs_two_clips_in_a_forward_pass():
    run = pretext_run("contrast", scale__global_batch=4, scale__micro_batch=1)
    with pytest.raises(
        InputError, match="pretext=contrast compares the clips of a micro batch; it must have at least 2"
    ):
        PretextBatches(SmallFootage(8), run, rank=0, world_size=1, validation=SmallFootage(2))
