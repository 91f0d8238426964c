"""YOLOv7 against its published layer table, which is interpreted here row by row."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from posture.models import build
from posture.models.detector_configs import YOLOv7
from posture.models.fuse import fuse
from posture.models.summary import parameters
from posture.models.yolov7 import published_names
from tests.support.random_weights import randomised

NARROW = {"classes": 3, "width": 0.0625}


def elan(width: int, outputs: int) -> list[tuple]:
    """Eight rows: two 1x1, four 3x3, the second and fourth joined with both 1x1, and a 1x1."""
    return [(-1, width, 1, 1), (-2, width, 1, 1), *[(-1, width, 3, 1)] * 4, [-1, -3, -5, -6], (-1, outputs, 1, 1)]


def elan_wide(width: int) -> list[tuple]:
    return [
        (-1, width, 1, 1),
        (-2, width, 1, 1),
        *[(-1, width // 2, 3, 1)] * 4,
        [-1, -2, -3, -4, -5, -6],
        (-1, width, 1, 1),
    ]


def down(width: int, *others: int) -> list[tuple]:
    return ["pool", (-1, width, 1, 1), (-3, width, 1, 1), (-1, width, 3, 2), [-1, -3, *others]]


def up(width: int, source: int) -> list[tuple]:
    return [(-1, width, 1, 1), "upsample", (source, width, 1, 1), [-1, -2]]


TABLE = [
    (-1, 32, 3, 1),
    (-1, 64, 3, 2),
    (-1, 64, 3, 1),
    (-1, 128, 3, 2),  # 0-3: (from, outputs, kernel, stride)
    *elan(64, 256),
    *down(128),
    *elan(128, 512),
    *down(256),
    *elan(256, 1024),
    *down(512),
    *elan(256, 1024),  # 4-50
    "pyramid",  # 51
    *up(256, 37),
    *elan_wide(256),
    *up(128, 24),
    *elan_wide(128),  # 52-75
    *down(128, 63),
    *elan_wide(256),
    *down(256, 51),
    *elan_wide(512),  # 76-101
    ("rep", 75, 256),
    ("rep", 88, 512),
    ("rep", 101, 1024),  # 102-104
]
"""The published rows for 640 pixels; a list is a concatenation, "pool" halves, "upsample" doubles, "pyramid" is SPPCSPC
with 512 outputs.
"""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def convolve(
    x: Tensor,
    state: dict[str, Tensor],
    name: str,
    *,
    stride: int = 1,
    activate: bool = True,
    parts: tuple[str, str] = ("conv", "bn"),
) -> Tensor:
    """A convolution (padded by half its kernel), the norm of running statistics with an eps of 0.001, SiLU."""
    weight = state[f"{name}.{parts[0]}.weight"]
    x = functional.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    mean, variance, gain, bias = (
        state[f"{name}.{parts[1]}.{value}"][:, None, None]
        for value in ("running_mean", "running_var", "weight", "bias")
    )
    x = (x - mean) / (variance + 1e-3).sqrt() * gain + bias
    return x * x.sigmoid() if activate else x


def pyramid(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    inner = x
    for number in (1, 3, 4):
        inner = convolve(inner, state, f"{name}.cv{number}")
    pools = [functional.max_pool2d(inner, side, stride=1, padding=side // 2) for side in (5, 9, 13)]
    for number in (5, 6):
        inner = convolve(torch.cat([inner, *pools], 1) if number == 5 else inner, state, f"{name}.cv{number}")
    return convolve(torch.cat([inner, convolve(x, state, f"{name}.cv2")], 1), state, f"{name}.cv7")


def interpret(state: dict[str, Tensor], x: Tensor, classes: int) -> list[Tensor]:
    results: list[Tensor] = []
    for place, row in enumerate(TABLE):
        name = f"model.{place}"
        if row == "pool":
            x = functional.max_pool2d(x, 2)
        elif row == "upsample":
            x = functional.interpolate(x, scale_factor=2)
        elif row == "pyramid":
            x = pyramid(x, state, name)
        elif isinstance(row, list):
            x = torch.cat([results[source] for source in row], 1)
        elif row[0] == "rep":
            wide, narrow = (
                convolve(results[row[1]], state, f"{name}.{branch}", activate=False, parts=("0", "1"))
                for branch in ("rbr_dense", "rbr_1x1")
            )
            x = functional.silu(wide + narrow)
        else:
            x = convolve(x if not results else results[row[0]], state, name, stride=row[3])
        results.append(x)
    outputs = []
    for level, x in enumerate(results[-3:]):
        x = functional.conv2d(
            x + state[f"model.105.ia.{level}.implicit"],
            state[f"model.105.m.{level}.weight"],
            state[f"model.105.m.{level}.bias"],
        )
        x = x * state[f"model.105.im.{level}.implicit"]
        outputs.append(x.view(len(x), 3, 5 + classes, *x.shape[2:]).permute(0, 1, 3, 4, 2))
    return outputs


def table_shapes() -> dict[str, tuple[int, ...]]:
    """Shapes of the convolutions' weights that the table asks for at width 1, by published name."""
    widths: list[int] = []
    shapes = {}
    for place, row in enumerate(TABLE):
        before = widths[-1] if widths else 3
        if isinstance(row, str):
            widths.append(512 if row == "pyramid" else before)
        elif isinstance(row, list):
            widths.append(sum(widths[source] for source in row))
        elif row[0] == "rep":
            widths.append(row[2])
            shapes[f"model.{place}.rbr_dense.0.weight"] = (row[2], widths[row[1]], 3, 3)
            shapes[f"model.{place}.rbr_1x1.0.weight"] = (row[2], widths[row[1]], 1, 1)
        else:
            source = widths[row[0]] if widths else 3
            widths.append(row[1])
            shapes[f"model.{place}.conv.weight"] = (row[1], source, row[2], row[2])
    return shapes


def test_the_table_has_the_published_rows():
    joins = [place for place, row in enumerate(TABLE) if isinstance(row, list)]
    assert len(TABLE) == 105 and joins == [10, 16, 23, 29, 36, 42, 49, 55, 62, 67, 74, 80, 87, 93, 100]


def test_published_sizes():
    """37,622,682 as it trains; fused it is 36,905,341 (tests/models/test_fuse.py); every convolution has the table's
    shape.
    """
    with torch.device("meta"):
        network = build(YOLOv7())
    assert parameters(network) == 37_622_682
    state, names = network.state_dict(), published_names(YOLOv7())
    assert {name: tuple(state[names[name]].shape) for name in table_shapes()} == table_shapes()


def test_it_computes_what_the_published_table_says():
    config = YOLOv7(**NARROW)
    network = randomised(build(config)).double()
    ours = network.state_dict()
    state = {theirs: ours[name] for theirs, name in published_names(config).items()}
    assert len(state) == len(ours)
    images = torch.rand(2, 3, 64, 96).double()
    with torch.no_grad():
        for output, wanted in zip(network(images), interpret(state, images, 3), strict=True):
            torch.testing.assert_close(output, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", [1, 80])
def test_any_multiple_of_32(classes: int):
    with torch.device("meta"):
        network = build(YOLOv7(classes=classes))
        for height, width in ((320, 320), (416, 416), (640, 640), (96, 160)):
            outputs = network(torch.empty(1, 3, height, width))
            assert [output.shape for output in outputs] == [
                (1, 3, height // stride, width // stride, 5 + classes) for stride in (8, 16, 32)
            ]


def test_gradients_reach_every_parameter():
    network = build(YOLOv7(**NARROW)).train()
    sum((output * torch.randn_like(output)).sum() for output in network(torch.rand(2, 3, 64, 64))).backward()
    assert [
        name
        for name, parameter in network.named_parameters()
        if not (parameter.grad.any() and parameter.grad.isfinite().all())
    ] == []


def test_weights_survive_safetensors(tmp_path: Path):
    network = build(YOLOv7(**NARROW))
    network(torch.rand(4, 3, 64, 64))  # moves batch statistics
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = build(YOLOv7(**NARROW))
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    image = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        assert all(
            torch.equal(one, other) for one, other in zip(network.eval()(image), again.eval()(image), strict=True)
        )


def test_norms_are_yolov5s():
    assert {
        (module.eps, module.momentum)
        for module in build(YOLOv7(**NARROW)).modules()
        if isinstance(module, nn.BatchNorm2d)
    } == {(1e-3, 0.03)}


def test_published_cost():
    """104.7 GFLOP are published for 640 pixels, fused."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        fuse(build(YOLOv7()))(torch.empty(1, 3, 640, 640))
    assert counter.get_total_flops() / 1e9 == pytest.approx(104.7, abs=0.5)
