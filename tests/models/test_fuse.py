"""Fused networks compute what they did before, with fewer parts."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from posture.models import build
from posture.models.detector_configs import IMPROVED_YOLOV5, YOLOv5, YOLOv7
from posture.models.fuse import fold, fuse
from posture.models.summary import parameters
from posture.models.yolov5 import focus_kernel, unfocus_kernel
from tests.support.random_weights import randomised

NETWORKS = [
    YOLOv5(classes=3, width=0.0625),
    YOLOv5(classes=3, width=0.0625, **IMPROVED_YOLOV5),
    YOLOv5(classes=1, width=0.0625, **{**IMPROVED_YOLOV5, "placement": "all"}, attention_pool="avgmax", window=3),
    YOLOv7(classes=3, width=0.0625),
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("config", NETWORKS, ids=["plain", "improved", "all", "yolov7"])
def test_a_fused_network_computes_the_same(config: YOLOv5 | YOLOv7):
    network = randomised(build(config))
    fused = fuse(network.train())
    network.eval()
    images = torch.rand(2, 3, 96, 160)
    with torch.no_grad():
        for output, other in zip(fused(images), network(images), strict=True):
            assert other.std() > 0.1  # there is something to compare
            torch.testing.assert_close(output, other, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert not fused.training and not any(parameter.requires_grad for parameter in fused.parameters())


@pytest.mark.parametrize("config", NETWORKS[1:], ids=["improved", "all", "yolov7"])
def test_the_network_itself_stays_as_it_is(config: YOLOv5 | YOLOv7):
    network = build(config).train()
    before = copy.deepcopy(network.state_dict())
    torch.manual_seed(3)
    fuse(network)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert drawn == torch.rand(1)  # no random number is drawn
    assert network.training and all(parameter.requires_grad for parameter in network.parameters())
    assert {name: tensor.tolist() for name, tensor in before.items()} == {
        name: tensor.tolist() for name, tensor in network.state_dict().items()
    }


def test_published_sizes():
    """As the networks' authors state them: YOLOv5s 7,225,885 and YOLOv7 36,905,341 once fused."""
    assert parameters_at_all(fuse(build(YOLOv5()))) == 7_225_885
    assert parameters_at_all(fuse(build(YOLOv7()))) == 36_905_341


def parameters_at_all(network: nn.Module) -> int:
    return parameters(network.requires_grad_(True))


@pytest.mark.parametrize("settings", [{}, {"bias": True}, {"stride": 2, "padding": 3, "dilation": 2}, {"groups": 2}])
def test_a_convolution_with_its_norm(settings: dict):
    """In float64, against the two in turn."""
    convolution = nn.Conv2d(4, 6, (3, 5), **{"bias": False, **settings})
    norm = nn.BatchNorm2d(6, eps=0.1)
    network = randomised(nn.Sequential(convolution, norm)).double()
    x = torch.randn(2, 4, 12, 15, dtype=torch.float64)
    torch.testing.assert_close(fold(convolution, norm)(x), network(x), rtol=1e-10, atol=1e-10)


def test_half_precision_stays_half():
    network = randomised(build(NETWORKS[0])).to(torch.bfloat16)
    assert {parameter.dtype for parameter in fuse(network).parameters()} == {torch.bfloat16}


def test_a_focus_kernel_is_taken_apart_and_put_together():
    """The pixel of row 2i + r and column 2j + c is at (i, j) of the phase that Focus stacks for (r, c): first even,
    then odd rows, odd columns, both.
    """
    whole = torch.randn(5, 3, 6, 6)
    parts = unfocus_kernel(whole)
    assert torch.equal(focus_kernel(parts), whole)
    for phase, (row, column) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        assert torch.equal(parts[:, 3 * phase : 3 * phase + 3], whole[:, :, row::2, column::2])
