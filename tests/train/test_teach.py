"""Targets of a student: the mean of what its teachers say, beside the labels."""

import numpy as np
import pytest
import torch
from torch import nn

from posture.train.teach import Teachers
from tests.support.small_run import SmallNetwork


class Says(nn.Module):
    """The same probabilities for each clip."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).log())

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(clips), -1)


def test_targets_are_a_share_of_the_teachers_mean_and_the_rest_of_the_labels():
    teachers = Teachers([(Says(0.6, 0.3, 0.1), [0, 1, 2]), (Says(0.1, 0.1, 0.8), [2, 0, 1])], share=0.25)
    clips = (torch.zeros(2, 3, 4, 8, 8),)
    said = np.array([(0.6 + 0.8) / 2, (0.3 + 0.1) / 2, (0.1 + 0.1) / 2])  # the second has its classes in another order
    found = teachers.targets(clips, torch.tensor([2, 0]))
    np.testing.assert_allclose(found, 0.25 * said + 0.75 * np.array([[0, 0, 1], [1, 0, 0]]), atol=1e-6)
    mixed = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.0, 0.8]])
    np.testing.assert_allclose(teachers.targets(clips, mixed), 0.25 * said + 0.75 * mixed.numpy(), atol=1e-6)


def test_two_streams_teach_with_their_mean():
    class Streams(nn.Module):
        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[0.9, 0.1], [0.3, 0.7]]).log().expand(len(clips), 2, 2)

    found = Teachers([(Streams(), [0, 1])], share=1.0).targets((torch.zeros(1, 3, 4, 8, 8),), torch.tensor([1]))
    assert found[0].tolist() == pytest.approx([0.6, 0.4])


def test_teachers_do_not_learn():
    network = SmallNetwork(dropout=0.5).train()
    teachers = Teachers([(network, [0, 1, 2])], share=0.5)
    found = teachers.targets((torch.randn(2, 3, 8, 16, 16),), torch.tensor([0, 1]))
    assert not network.training and not found.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())
