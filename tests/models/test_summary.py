"""Parameter and multiply-accumulate counts: the published ones, and sums worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posture.models import build
from posture.models.configs import C3D, IMPROVED
from posture.models.summary import gmacs, latency_ms, parameters, table


def test_c3d_has_its_published_size_and_cost():
    (row,) = table({"c3d": C3D(classes=101)})
    assert row["name"] == "c3d"
    assert row["parameters"] == 78_409_573
    assert row["gmacs_112"] == pytest.approx(38.547, abs=5e-4)


def test_c3d_multiplications_add_up():
    """Each convolution: inputs x outputs x 27 at every output position; then the three linear layers."""
    convolutions = [(3, 64, 16, 112), (64, 128, 16, 56), (128, 256, 8, 28), (256, 256, 8, 28), (256, 512, 4, 14), (512, 512, 4, 14)]
    convolutions += [(512, 512, 2, 7)] * 2
    total = sum(inputs * outputs * 27 * frames * side**2 for inputs, outputs, frames, side in convolutions)
    total += 8192 * 4096 + 4096 * 4096 + 4096 * 101
    with torch.device("meta"):
        assert gmacs(build(C3D())) == pytest.approx(total / 1e9, rel=1e-12)


def test_improved_is_smaller_and_cheaper_than_c3d():
    rows = {row["name"]: row for row in table({"c3d": C3D(), "improved": C3D(**IMPROVED)})}
    assert rows["improved"]["parameters"] == 7_076_769
    assert rows["improved"]["gmacs_112"] == pytest.approx(8.269, abs=5e-4)
    assert rows["improved"]["gmacs_56"] == pytest.approx(2.033, abs=5e-4)


def test_counting_leaves_the_network_as_it_was():
    network = build(C3D(width=0.125, norm="batch", head="gap"))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    gmacs(network, frames=32, size=56)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert next(network.parameters()).device.type == "cpu"


def test_frozen_parameters_are_not_counted():
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    assert parameters(layer) == 6


@pytest.mark.parametrize("training", [True, False])
def test_latency_is_that_of_one_clip_in_evaluation_mode(training: bool):
    seen = []

    class Slow(nn.Module):
        def forward(self, clips):
            seen.append((clips.shape, self.training, torch.is_grad_enabled()))

    network = Slow().train(training)
    found = latency_ms(network, C3D(frames=20, size=32), device="cpu", repeats=5, warm_ups=2)
    assert seen == [((1, 3, 20, 32, 32), False, False)] * 7
    assert 0 < found["least"] <= found["median"] <= found["most"] and network.training is training
