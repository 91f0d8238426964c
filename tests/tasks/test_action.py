"""The loss and the counts, against formulas written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from posture.config import ActionLoss, ActionRun
from posture.errors import InputError
from posture.models.configs import C3D
from posture.runs.classification_metrics import classification_metrics
from posture.tasks.action import ActionTask, probabilities

CLASSES = ("bowl", "clean", "jerk", "snatch")


def task_with(label_smoothing: float = 0.0) -> ActionTask:
    return ActionTask(
        ActionRun(name="r", model=C3D(classes=4), loss=ActionLoss(label_smoothing=label_smoothing)), CLASSES
    )


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_loss_is_a_sum_over_clips(label_smoothing: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(6, 4, generator=generator), torch.tensor([0, 3, 2, 2, 1, 0])
    task = task_with(label_smoothing)
    total, count = task.loss(logits, labels)["class"]
    exact = logits.double().numpy()
    log_probabilities = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    target = np.eye(4)[labels.numpy()] * (1 - label_smoothing) + label_smoothing / 4
    assert float(total) == pytest.approx(-(target * log_probabilities).sum(), rel=1e-5)
    assert count == 6 and task.counts(labels) == {"class": 6}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("streams", [(), (2,)])
def test_the_loss_of_a_mixed_clip_is_the_mixed_loss(label_smoothing: float, streams: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels, others = torch.randn(1, *streams, 4, generator=generator), torch.tensor([1]), torch.tensor([3])
    task = task_with(label_smoothing)
    one, other = (task.loss(logits, label)["class"][0] for label in (labels, others))
    mixed, count = task.loss(logits, 0.3 * torch.eye(4)[labels] + 0.7 * torch.eye(4)[others])["class"]
    torch.testing.assert_close(mixed, 0.3 * one + 0.7 * other)
    assert count == 1


def test_halves_add_up_to_the_whole() -> None:
    logits, labels = torch.randn(7, 4, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 3, 2, 2, 1, 0, 3])
    task = task_with()
    together = task.totals(logits, labels)
    apart = task.added(task.totals(logits[:3], labels[:3]), task.totals(logits[3:], labels[3:]))
    assert together.shape == (7, len(task.classes) + 1) and together.dtype == torch.float32
    torch.testing.assert_close(apart, together, rtol=1e-6, atol=0)


def test_half_precision_logits_are_summed_in_full() -> None:
    logits = torch.full((4096, 4), 0.25, dtype=torch.bfloat16)
    total, _ = task_with().loss(logits, torch.zeros(4096, dtype=torch.int64))["class"]
    assert total.dtype == torch.float32 and float(total) == pytest.approx(4096 * np.log(4), rel=1e-5)


def test_metrics_of_a_known_confusion() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2 + [2] * 2)  # no clip of the fourth class
    answers = torch.tensor([0, 0, 0, 0, 0, 3, 1, 2, 2, 2])
    logits = torch.zeros(10, 4)
    logits[torch.arange(10), answers] = 1.0
    task = task_with(label_smoothing=0.2)
    metrics = task.metrics([task.totals(logits, labels), None])
    right, wrong = np.log(np.e + 3) - 1, np.log(np.e + 3)
    assert metrics["accuracy"] == pytest.approx(0.8) and metrics["count"] == 10
    assert metrics["mean_class_accuracy"] == pytest.approx((5 / 6 + 1 / 2 + 1) / 3)
    assert metrics["loss"] == pytest.approx((8 * right + 2 * wrong) / 10, rel=1e-6)


def test_map_is_that_of_the_report() -> None:
    # no clip of the fourth class
    logits, labels = torch.randn(40, 4, generator=torch.Generator().manual_seed(5)), torch.arange(40) % 3
    task = task_with()
    report = classification_metrics(softmax(logits.double().numpy()), labels.numpy(), ["a", "b", "c", "d"])
    found = task.metrics([task.totals(logits[:11], labels[:11]), task.totals(logits[11:], labels[11:])])
    assert [found[name] for name in ("accuracy", "mean_class_accuracy", "map")] == pytest.approx([
        report[name] for name in ("accuracy", "macro_recall", "map")
    ])


def test_a_network_for_other_classes_is_refused() -> None:
    with pytest.raises(InputError, match=r"model.classes is 5, but the footage has 4"):
        task_with().loss(torch.zeros(2, 5), torch.zeros(2, dtype=torch.int64))


def softmax(logits: np.ndarray) -> np.ndarray:
    scores = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def test_streams_are_fused_by_their_mean_scores() -> None:
    outputs = 3 * torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(2))
    exact = softmax(outputs.double().numpy())
    np.testing.assert_allclose(probabilities(outputs).numpy(), exact.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(probabilities(outputs[:, 1]).numpy(), exact[:, 1], rtol=1e-5)
    assert probabilities(outputs.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_each_stream_learns_as_if_it_were_alone(label_smoothing: float) -> None:
    outputs, labels = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(3)), torch.tensor([0, 3, 2, 2, 1, 0])
    task = task_with(label_smoothing)
    total, count = task.loss(outputs, labels)["class"]
    alone = [task.loss(outputs[:, stream], labels)["class"][0] for stream in (0, 1)]
    assert float(total) == pytest.approx(float(sum(alone)), rel=1e-6) and count == 6


def test_what_is_judged_is_the_streams_common_answer() -> None:
    outputs, labels = 2 * torch.randn(40, 2, 4, generator=torch.Generator().manual_seed(4)), torch.arange(40) % 4
    task = task_with()
    metrics = task.metrics([task.totals(outputs[:1], labels[:1]), task.totals(outputs[1:], labels[1:])])
    fused = softmax(outputs.double().numpy()).mean(axis=1)
    assert metrics["count"] == 40 and metrics["accuracy"] == (fused.argmax(axis=1) == labels.numpy()).mean()
    assert metrics["loss"] == pytest.approx(-np.log(fused[np.arange(40), labels.numpy()]).mean(), rel=1e-5)


def test_two_streams_for_other_classes_are_refused() -> None:
    with pytest.raises(InputError, match=r"model.classes is 5, but the footage has 4"):
        task_with().loss(torch.zeros(2, 2, 5), torch.zeros(2, dtype=torch.int64))
