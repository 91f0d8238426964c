"""C3D and its toggles: sizes, gradients, what a fresh network computes, and that it learns."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from posture.config import ActionRun, validate
from posture.models import build
from posture.models.attention import STCBAM
from posture.models.c3d import Residual, StandardizedConv3d
from posture.models.configs import C3D, IMPROVED

pytestmark = pytest.mark.long

NARROW = {"classes": 5, "width": 0.125, "size": 56}
SMALL_IMPROVED = C3D(**{**IMPROVED, **NARROW})

TOGGLES = [
    {"stem": "conv7"},
    {"stem_motion": 0.5},
    {"residual": True},
    {"residual": True, "branch_gain": 1.0},
    {"standardize": True},
    {"norm": "batch"},
    {"norm": "group", "groups": 4},
    {"asymmetric": "pair"},
    {"asymmetric": "triple"},
    {"attention": "cbam"},
    {"attention": "stcbam"},
    {"attention": "stcbam", "placement": "early"},
    {"attention": "stcbam", "placement": "stage3+stage5"},
    {"attention": "stcbam", "attention_pool": "avgmax"},
    {"attention": "stcbam", "spatial_attention": "per_frame"},
    {"head": "gap"},
    {"depths": (2, 1, 1, 1, 3)},
    {"widths": (96, 64, 128, 128, 256)},
    {"dropout": 0.0},
]


def compatible(first: dict, second: dict) -> bool:
    return all(second.get(field, value) == value for field, value in first.items())


PAIRS = [{**first, **second} for first, second in itertools.combinations(TOGGLES, 2) if compatible(first, second)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def clips(count: int = 2, frames: int = 16, size: int = 56) -> torch.Tensor:
    return torch.randn(count, 3, frames, size, size)


@pytest.mark.parametrize("changes", [{}, *TOGGLES, *PAIRS], ids=str)
def test_every_toggle_alone_and_in_pairs_trains(changes: dict):
    config = C3D(**{**NARROW, **changes, "size": 32})
    config = replace(config, frames=config.least_frames)
    network = build(config)
    logits = network(clips(2, config.frames, config.size))
    assert logits.shape == (2, 5)
    functional.cross_entropy(logits, torch.tensor([0, 3])).backward()
    missing = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert missing == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": "group", "residual": True},
        IMPROVED,
        {
            **IMPROVED,
            "placement": "all",
            "attention_pool": "avgmax",
            "spatial_attention": "per_frame",
            "asymmetric": "triple",
        },
    ],
)
def test_gradients_reach_every_parameter(changes: dict):
    network = build(C3D(**{**changes, **NARROW, "dropout": 0.0})).double()
    for parameter in network.parameters():  # away from the start, where a zero gain lets none through
        parameter.data += 0.05 * torch.randn_like(parameter)
    functional.cross_entropy(network(clips(4).double()), torch.tensor([0, 1, 2, 3])).backward()
    assert [name for name, parameter in network.named_parameters() if not parameter.grad.any()] == []


@pytest.mark.parametrize("head", ["fc", "gap"])
@pytest.mark.parametrize("stem", ["c3d", "conv7"])
@pytest.mark.parametrize(("frames", "size"), [(16, 112), (32, 56), (20, 63), (16, 34), (16, 16)])
def test_any_clip_size(stem: str, head: str, frames: int, size: int):
    network = build(C3D(classes=3, width=0.125, frames=frames, size=size, stem=stem, head=head)).eval()
    with torch.no_grad():
        assert network(clips(1, frames, size)).shape == (1, 3)


def test_average_pooling_takes_eight_frames_and_other_sizes_than_it_was_built_for():
    network = build(replace(SMALL_IMPROVED, frames=8)).eval()
    with torch.no_grad():
        assert network(clips(1, 8, 56)).shape == network(clips(1, 24, 80)).shape == (1, 5)


@pytest.mark.parametrize("norm", ["none", "batch", "group"])
@pytest.mark.parametrize("attention", ["none", "stcbam"])
def test_a_fresh_residual_stage_is_its_shortcut(norm: str, attention: str):
    network = build(
        replace(
            SMALL_IMPROVED,
            norm=norm,
            attention=attention,
            placement="all",
            depths=(2, 1, 2, 2, 2),
            widths=(64, 128, 256, 512, 512),
            branch_gain=0.0,
        )
    ).eval()
    blocks = [module for module in network.modules() if isinstance(module, Residual)]
    assert len(blocks) == 5
    assert isinstance(blocks[0].shortcut, nn.Identity) and isinstance(blocks[4].shortcut, nn.Identity)
    x = torch.randn(2, 8, 4, 6, 6)
    assert torch.equal(blocks[0](x), x.relu())
    x = torch.randn(2, 8, 4, 6, 6)
    assert torch.equal(blocks[1](x), blocks[1].shortcut(x).relu())


@pytest.mark.parametrize("width", [64, 128])
def test_a_residual_stage_is_torchvisions_basic_block(width: int):
    """With its weights: two 3 x 3 x 3 convolutions with batch normalisation, and a projection if the width changes."""
    video = pytest.importorskip("torchvision.models.video.resnet")
    config = C3D(residual=True, branch_gain=1.0, norm="batch", depths=(1, 1, 1, 2, 1), widths=(64, 64, 64, width, 64))
    stage = build(config).stage4.eval()
    downsample = nn.Sequential(nn.Conv3d(64, width, 1, bias=False), nn.BatchNorm3d(width)) if width != 64 else None
    block = video.BasicBlock(64, width, video.Conv3DSimple, downsample=downsample).eval()
    own, theirs = stage.state_dict(), block.state_dict()
    assert [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in theirs.values()]
    for tensor in theirs.values():  # running statistics too
        if tensor.is_floating_point():
            tensor.copy_(0.05 * torch.randn_like(tensor).abs() + 0.01)
    stage.load_state_dict(dict(zip(own, theirs.values(), strict=True)))
    x = torch.randn(2, 64, 4, 6, 6)
    with torch.no_grad():
        torch.testing.assert_close(stage(x), block(x))


@pytest.mark.parametrize("split", ["none", "pair", "triple"])
@pytest.mark.parametrize("standardize", [False, True])
def test_a_stem_that_starts_with_motion_does_not_see_what_stands_still(split: str, standardize: bool):
    network = build(replace(SMALL_IMPROVED, asymmetric=split, standardize=standardize, norm="none", stem_motion=0.5))
    still, moving = clips(1, 1).expand(-1, -1, 16, -1, -1), clips(1)
    filters = nn.Sequential(*[layer for layer in network.stage1 if isinstance(layer, nn.Conv3d)])
    # up to the one over time
    first = filters[: next(place for place, layer in enumerate(filters) if layer.kernel_size[0] > 1) + 1]
    still_answer, moving_answer = (first(image)[0, :, 2:-2].abs().amax((1, 2, 3)) for image in (still, moving))
    half = len(first[-1].weight) // 2
    assert (still_answer[:half] < 1e-5).all() and (moving_answer > 0.1).all() and (still_answer[half:] > 0.01).all()


def test_filters_are_standardized_before_use():
    """Against Qiao 2019's formula, in float64."""
    stage = build(SMALL_IMPROVED).double().stage4
    layer = next(module for module in stage.modules() if isinstance(module, StandardizedConv3d))
    layer.gain.data.uniform_(0.5, 2.0)
    layer.weight.data.add_(3.0)  # a common offset changes nothing
    filters = layer.weight.detach().flatten(1)
    centred = filters - filters.mean(1, keepdim=True)
    wanted = centred / (centred.square().sum(1, keepdim=True) + 1e-4).sqrt() * layer.gain.detach().flatten(1)
    x = torch.randn(2, layer.in_channels, 4, 7, 7, dtype=torch.float64)
    plain = functional.conv3d(x, wanted.view_as(layer.weight), padding=layer.padding)
    torch.testing.assert_close(layer(x), plain, rtol=1e-9, atol=1e-9)


def test_attention_stands_in_the_placed_stages_alone():
    network = build(replace(SMALL_IMPROVED, placement="stage2+stage4"))
    placed = {name.split(".")[0] for name, module in network.named_modules() if isinstance(module, STCBAM)}
    assert placed == {"stage2", "stage4"}


def test_group_norm_keeps_clips_apart_in_training():
    network = build(replace(SMALL_IMPROVED, dropout=0.0)).train()
    batch = clips(3)
    torch.testing.assert_close(network(batch)[1], network(batch[1:2])[0], rtol=1e-4, atol=1e-5)


def test_split_kernels_keep_the_receptive_field():
    """One output position depends on exactly as many frames, rows and columns of its input as with whole kernels."""
    reached = {}
    for split in ("none", "pair", "triple"):
        stage = build(replace(SMALL_IMPROVED, asymmetric=split, norm="none", residual=False, attention="none")).stage1
        pixels = clips(1, 9, 21).requires_grad_()
        for parameter in stage.parameters():
            parameter.data.abs_()
        stage(pixels.abs()).select(2, 4).select(2, 5).select(2, 5).sum().backward()
        reached[split] = tuple(
            pixels.grad.abs().sum((0, 1, *rest)).count_nonzero().item() for rest in ((3, 4), (2, 4), (2, 3))
        )
    assert reached == {"none": (3, 7, 7), "pair": (3, 7, 7), "triple": (3, 7, 7)}


def test_the_same_seed_gives_the_same_network():
    networks = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        networks.append(nn.utils.parameters_to_vector(build(SMALL_IMPROVED).parameters()))
    assert torch.equal(networks[0], networks[1]) and not torch.equal(networks[0], networks[2])


@pytest.mark.parametrize("changes", [{}, {"norm": "batch"}, IMPROVED])
def test_weights_survive_safetensors(changes: dict, tmp_path: Path):
    config = C3D(**{**changes, **NARROW})
    network = build(config)
    network(clips(4))  # moves batch statistics
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = build(config)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    with torch.no_grad():
        assert torch.equal(network.eval()(clips_ := clips(1)), again.eval()(clips_))


@pytest.mark.parametrize(("changes", "rate"), [({}, 0.001), (IMPROVED, 0.003)], ids=["c3d", "improved"])
def test_fifty_steps_learn_one_batch(changes: dict, rate: float):
    network = build(C3D(**{**changes, **NARROW, "size": 32, "dropout": 0.0}))
    # blocks that survive pooling
    batch, labels = functional.interpolate(torch.randn(5, 3, 4, 4, 4), (16, 32, 32)), torch.arange(5)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    losses = []
    for _ in range(50):
        loss = functional.cross_entropy(network(batch), labels)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[0] == pytest.approx(1.609, abs=0.3)  # log 5: logits start close to 0
    assert losses[-1] < 0.05


@pytest.mark.parametrize("changes", [{}, IMPROVED], ids=["c3d", "improved"])
def test_bfloat16_autocast_stays_close_to_float32(changes: dict):
    """Forward alone: on the CPU, torch 2.15's bfloat16 Conv3d weight gradients are wrong for 3 frames of kernel over 2
    of input.
    """
    network = build(C3D(**{**changes, **NARROW, "dropout": 0.0}))
    batch = clips()
    with torch.no_grad():
        network.head[-1].weight *= 20  # logits of a size that can tell
        exact = network(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = network(batch)
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("changes", [{}, IMPROVED], ids=["c3d", "improved"])
def test_bfloat16_gradients_on_a_gpu_stay_close_to_float32(changes: dict):
    network = build(C3D(**{**changes, **NARROW, "dropout": 0.0})).cuda()
    batch, labels = clips(4).cuda(), torch.arange(4).cuda()
    gradients = []
    for enabled in (False, True):
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=enabled):
            logits = network(batch)
        network.zero_grad()
        functional.cross_entropy(logits.float(), labels).backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in network.parameters()]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.95


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU"
)
def test_compiled_network_computes_the_same():
    network = build(SMALL_IMPROVED).eval()
    compiled = torch.compile(network, fullgraph=True)
    with torch.no_grad():
        batch = clips()
        torch.testing.assert_close(compiled(batch), network(batch), rtol=1e-4, atol=1e-5)


def test_an_unknown_kind_is_refused():
    class Unknown:
        kind = "i3d"

    with pytest.raises(ValueError, match=r"kind must be one of 'c3d', .* not 'i3d'"):
        build(Unknown())


@pytest.mark.parametrize(("frames", "size"), [(16, 112), (16, 56), (16, 64), (16, 96), (24, 48), (32, 33), (16, 16)])
def test_the_fifth_pooling_has_caffes_windows(frames: int, size: int):
    """Caffe: ceil((cells - 2) / 2) + 1 windows (at least one), the first begins with the first cell, and the last is
    cut off at the edge.
    """
    network = build(C3D(**{**NARROW, "size": size, "frames": frames}))
    taken = []
    network.head[0].register_forward_hook(lambda module, inputs, output: taken.extend((inputs[0], output)))
    network(clips(1, frames, size))
    cells, pooled = taken
    reach = [
        [slice(2 * window, 2 * window + 2) for window in range(max(1, -(-(length - 2) // 2) + 1))]
        for length in cells.shape[2:]
    ]
    wanted = torch.stack(
        [cells[:, :, t, y, x].amax((2, 3, 4)) for t in reach[0] for y in reach[1] for x in reach[2]], dim=2
    )
    assert pooled.shape[2:] == tuple(map(len, reach)) and torch.equal(pooled.flatten(2), wanted)


@pytest.mark.parametrize("size", [56, 64])
def test_runs_from_before_that_keep_their_shapes_and_what_they_compute(size: int):
    run = ActionRun(name="x", model=C3D(**{**NARROW, "size": size})).model_dump(mode="json")
    assert validate(run).model.pool5 == "caffe"
    del run["model"]["pool5"]
    old = validate(run).model
    assert old.pool5 == "padded" and validate(ActionRun(name="x", model=old).model_dump(mode="json")).model == old
    network = build(old)
    cells = torch.randn(1, 64, 2, size // 16, size // 16)
    wanted = functional.max_pool3d(functional.pad(cells, (1, 1, 1, 1), value=-torch.inf), 2)
    assert torch.equal(network.head[0](cells), wanted) and network(clips(1, 16, size)).shape == (1, 5)
