"""Two-Stream: published sizes, what each stream looks at, gradients, and that it learns."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from posture.config import ActionRun, validate
from posture.models import build
from posture.models.configs import TwoStream
from posture.models.summary import gmacs, input_shapes, parameters

NARROW = TwoStream(classes=5, width=0.125, size=56, dropout=0.0)
STREAMS, BACKBONES = ("both", "spatial", "temporal"), ("cnn_m", "resnet18")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def inputs_of(config: TwoStream, clips: int = 2) -> list[Tensor]:
    return [
        torch.randn(shape) for shape in input_shapes(config.inputs, frames=config.frames, size=config.size, clips=clips)
    ]


def count(config: TwoStream) -> tuple[int, float]:
    with torch.device("meta"):
        network = build(config)
    return parameters(network), gmacs(network, config.frames, config.size, inputs=config.inputs)


def test_cnn_m_has_its_published_size() -> None:
    """Each convolution: inputs x outputs x kernel, and biases; full6 sees 6 x 6 cells of 512."""
    after_first = 96 * 256 * 25 + 256 + 256 * 512 * 9 + 512 + 2 * (512 * 512 * 9 + 512)
    linear = 512 * 36 * 4096 + 4096 + 4096 * 2048 + 2048 + 2048 * 101 + 101
    spatial, temporal = (channels * 96 * 49 + 96 + after_first + linear for channels in (3, 20))
    assert (spatial, temporal) == (90_627_813, 90_707_781)
    for streams, expected in (("spatial", spatial), ("temporal", temporal), ("both", spatial + temporal)):
        assert count(TwoStream(streams=streams))[0] == expected


def test_cnn_m_multiplications_add_up() -> None:
    """At 224 x 224 the convolutions' outputs are 109, 26 and 13 pixels wide."""
    convolutions = 3 * 96 * 49 * 109**2 + 96 * 256 * 25 * 26**2 + (256 * 512 + 2 * 512 * 512) * 9 * 13**2
    linear = 512 * 36 * 4096 + 4096 * 2048 + 2048 * 101
    assert count(TwoStream(streams="spatial"))[1] == pytest.approx((convolutions + linear) / 1e9, rel=1e-12)


def test_resnet18_has_its_published_size() -> None:
    parameters, cost = count(TwoStream(streams="spatial", backbone="resnet18", classes=1000))
    assert parameters == 11_689_512 and cost == pytest.approx(1.814, abs=5e-4)


def test_the_temporal_stream_lacks_the_second_normalisation() -> None:
    def norms(streams: str) -> int:
        return sum(
            isinstance(module, nn.LocalResponseNorm) for module in build(replace(NARROW, streams=streams)).modules()
        )

    assert (norms("spatial"), norms("temporal"), norms("both")) == (2, 1, 3)


@pytest.mark.parametrize(("streams", "backbone", "size"), itertools.product(STREAMS, BACKBONES, (56, 112)))
def test_gradients_reach_every_parameter(streams: str, backbone: str, size: int) -> None:
    config = replace(NARROW, streams=streams, backbone=backbone, size=size)
    network = build(config)
    logits = network(*inputs_of(config))
    assert logits.shape == ((2, 2, 5) if streams == "both" else (2, 5))
    logits.square().sum().backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.abs().sum() > 0] == []


@pytest.mark.parametrize(
    ("backbone", "size", "frames"), [("cnn_m", 25, 11), ("cnn_m", 33, 16), ("cnn_m", 100, 32), ("resnet18", 16, 11)]
)
def test_other_sizes_and_lengths_work(backbone: str, size: int, frames: int) -> None:
    config = replace(NARROW, backbone=backbone, size=size, frames=frames)
    assert build(config)(*inputs_of(config)).isfinite().all()


def test_the_spatial_stream_sees_the_middle_frame_alone() -> None:
    network = build(replace(NARROW, streams="spatial")).eval()
    (clips,) = inputs_of(replace(NARROW, streams="spatial"))
    logits = network(clips)
    others = torch.randn_like(clips)
    others[:, :, 8] = clips[:, :, 8]
    torch.testing.assert_close(network(others), logits)
    others[:, :, 8] += 1.0
    assert not torch.allclose(network(others), logits)


def test_the_temporal_stream_sees_ten_fields_around_it_in_order() -> None:
    """Of 15 fields, the third to the twelfth; channels are dx, dy, dx, dy, ... (section 3.1)."""
    config = replace(NARROW, streams="temporal", subtract_mean_flow=False)
    network = build(config).eval()
    (flow,) = inputs_of(config)
    stacked = torch.stack([flow[:, axis, field] for field in range(2, 12) for axis in (0, 1)], dim=1)
    torch.testing.assert_close(network(flow), network.streams["flow"].network(stacked))


def test_a_camera_that_pans_is_subtracted_where_asked() -> None:
    flow = torch.randn(2, 2, 15, 56, 56)
    pan = torch.randn(2, 2, 15, 1, 1)
    for subtract in (True, False):
        network = build(replace(NARROW, streams="temporal", subtract_mean_flow=subtract)).eval()
        assert torch.allclose(network(flow + pan), network(flow), rtol=1e-3, atol=1e-6) == subtract


def test_both_streams_are_each_alone() -> None:
    network = build(NARROW).eval()
    clips, flow = inputs_of(NARROW)
    logits = network(clips, flow)
    for place, (name, x) in enumerate((("rgb", clips), ("flow", flow))):
        torch.testing.assert_close(logits[:, place], network.streams[name](x))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_narrow_network_fits_a_batch(backbone: str) -> None:
    config = replace(NARROW, backbone=backbone)
    network, (clips, flow), labels = build(config), inputs_of(config, clips=5), torch.arange(5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.001)
    for _ in range(50):
        loss = functional.cross_entropy(network(clips, flow).flatten(0, 1), labels.repeat_interleave(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_saved_weights_give_the_same_answer(backbone: str, tmp_path: Path) -> None:
    config = replace(NARROW, backbone=backbone)
    network, copy, inputs = build(config).eval(), build(config).eval(), inputs_of(config)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    copy.load_state_dict(load_file(tmp_path / "model.safetensors"))
    torch.testing.assert_close(copy(*inputs), network(*inputs), rtol=0, atol=0)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_it_runs_in_half_precision(backbone: str) -> None:
    config = replace(NARROW, backbone=backbone)
    network, inputs = build(config).eval(), inputs_of(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(*inputs)
    torch.testing.assert_close(half.float(), network(*inputs), rtol=0.1, atol=0.02)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"frames": 10}, "frames must be greater than flow_frames 10, not 10"),
        ({"frames": 10, "streams": "temporal"}, "frames must be greater than flow_frames"),
        ({"size": 24}, "size must be at least 25 pixels with backbone 'cnn_m', not 24"),
        ({"size": 15, "backbone": "resnet18"}, "size must be at least 16 pixels"),
        ({"streams": "all"}, "streams must be one of 'both', 'spatial', 'temporal', not 'all'"),
        ({"backbone": "vgg"}, "backbone must be one of 'cnn_m', 'resnet18'"),
        ({"width": 0.0}, "width must be"),
        ({"dropout": 1.0}, "dropout must be at least 0 and less than 1"),
        ({"flow_frames": 0}, "flow_frames must be"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace(NARROW, **changes)


def test_a_single_frame_is_enough_for_the_spatial_stream() -> None:
    config = replace(NARROW, streams="spatial", frames=1)
    assert build(config)(*inputs_of(config)).shape == (2, 5)


@pytest.mark.parametrize(
    ("size", "cells"), [(224, (109, 54, 26, 13, 6)), (56, (25, 12, 5, 2, 2)), (100, (47, 23, 11, 5, 5))]
)
def test_cnn_m_pools_overlapping_windows_of_three_at_stride_two(size: int, cells: tuple[int, ...]) -> None:
    """As published: windows begin at every second cell and the last is cut off at the edge; at 224 pixels in all three
    poolings.
    """
    network = build(replace(NARROW, streams="spatial", size=size)).streams["rgb"].network
    found, x = [], torch.randn(2, 3, size, size)
    for layer in network:
        before, x = x, layer(x)
        if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2):
            found.append(x.shape[2])
        if isinstance(layer, nn.MaxPool2d) or (isinstance(layer, nn.AdaptiveMaxPool2d) and size == 224):
            starts = range(0, 2 * x.shape[2], 2)
            wanted = torch.stack(
                [before[..., row : row + 3, column : column + 3].amax((2, 3)) for row in starts for column in starts],
                dim=2,
            )
            assert torch.equal(x.flatten(2), wanted)
        if isinstance(layer, nn.MaxPool2d | nn.AdaptiveMaxPool2d):
            found.append(x.shape[2])
    assert tuple(found) == cells


def test_runs_from_before_keep_their_windows_of_two() -> None:
    run = ActionRun(name="x", model=NARROW).model_dump(mode="json")
    del run["model"]["pooling"]
    old = validate(run).model
    windows = [layer.kernel_size for layer in build(old).modules() if isinstance(layer, nn.MaxPool2d)]
    assert old == replace(NARROW, pooling="2x2") and windows == [2] * 4
    build(old).load_state_dict(build(NARROW).state_dict())  # pooling has no weights
