"""Parameter and multiply-accumulate counts: the published ones, and sums worked out by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posture.models import build
from posture.models.attention import STCBAM
from posture.models.configs import C3D, IMPROVED
from posture.models.detector_configs import SSD300, FasterRCNN, YOLOv5
from posture.models.meta import build_on_meta
from posture.models.summary import OperationCounter, gmacs, image_gflops, latency_ms, parameters, table
from posture.models.swin import WindowAttention


def test_c3d_has_its_published_size_and_cost():
    (row,) = table({"c3d": C3D(classes=101)})
    assert row["name"] == "c3d"
    assert row["parameters"] == 78_409_573
    assert row["gmacs_112"] == pytest.approx(38.547, abs=5e-4)


def test_c3d_multiplications_add_up():
    """Each convolution: inputs x outputs x 27 at every output position; then the three linear layers."""
    convolutions = [
        (3, 64, 16, 112),
        (64, 128, 16, 56),
        (128, 256, 8, 28),
        (256, 256, 8, 28),
        (256, 512, 4, 14),
        (512, 512, 4, 14),
    ]
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


@pytest.mark.parametrize(("side", "windows"), [(8, 4), (9, 9)])  # of 4 x 4 cells; 9 are padded to 12
# torch computes attention in another way where it needs no gradient
@pytest.mark.parametrize("learning", [True, False])
def test_windows_of_attention_are_counted(side: int, windows: int, learning: bool):
    """Products of queries with keys and of weights with values in every window, three matrices before and one after,
    and the position network.
    """
    attention = WindowAttention(64, heads=2, window=4, shift=0)
    with OperationCounter() as counter, torch.set_grad_enabled(learning):
        attention(torch.randn(1, side, side, 64))
    products = windows * 2 * (16 * 16 * 32 + 16 * 16 * 32)
    matrices = side**2 * 64 * 3 * 64 + (windows * 16) * 64 * 64
    positions = 7 * 7 * (2 * 512 + 512 * 2)
    assert counter.total == 2 * (products + matrices + positions)


def test_a_detectors_attention_is_counted():
    """Swin's at 64 pixels: two windows of 8 x 8 cells, one for each block, on a map of 2 x 2, with the matrices of each
    token.
    """
    plain, swin = (YOLOv5(classes=2, width=0.125, size=64, swin=swin) for swin in (False, True))
    whole, without = (image_gflops(build(config), 64) for config in (swin, plain))
    channels, hidden = 64, 256
    bottleneck = 4 * channels * channels * (1 + 9)
    block = (
        64 * channels * channels
        + 4 * channels * 3 * channels
        + 2 * 64 * 64 * channels
        + 15 * 15 * (2 * 512 + 512 * 2)
        + 2 * 4 * channels * hidden
    )
    assert whole - without == pytest.approx(2 * (2 * block - bottleneck) / 1e9, rel=1e-9)


def test_channel_space_and_time_attention_is_counted():
    """Equations (14)-(16): two layers on each channel's mean, a 7 x 7 kernel on the map, one of three frames."""
    attention = STCBAM(64)
    with OperationCounter() as counter, torch.no_grad():
        attention(torch.randn(2, 64, 8, 14, 14))
    assert counter.total == 2 * 2 * (64 * 8 + 8 * 64 + 49 * 14 * 14 + 3 * 8)


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


@pytest.mark.parametrize("config", [SSD300(classes=2, size=300), FasterRCNN(classes=2, size=640, width=0.125)])
def test_torchvisions_detectors_cost_the_same_on_the_meta_device(config):
    assert image_gflops(build_on_meta(config), config.size) == image_gflops(build(config), config.size)


@pytest.mark.parametrize("config", [C3D(**IMPROVED | {"width": 0.125}), C3D(width=0.125, norm="batch", head="gap")])
def test_shapes_alone_have_the_parameters_and_costs_of_weights(config):
    network, shapes = build(config), build_on_meta(config)
    with OperationCounter() as counter, torch.no_grad():
        network(torch.randn(1, 3, 16, 32, 32))
    assert gmacs(shapes, size=32) == gmacs(network, size=32) == counter.total / 2 / 1e9
    assert parameters(shapes) == parameters(network)
