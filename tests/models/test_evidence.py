import numpy as np
import pytest
import torch
from torch import nn

from posture.models import build
from posture.models.attention import STCBAM
from posture.models.configs import C3D, IMPROVED, TorchvisionVideo, TwoStream
from posture.models.evidence import FINE, evidence

SMALL = {"classes": 3, "width": 0.125, "frames": 16}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def clip(size=56, frames=16):
    return torch.randn(1, 3, frames, size, size)


def caught(model, name):
    """A list that the next forward pass fills with what the module `name` is given and what it returns."""
    seen = []
    model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append((inputs[0].detach().clone(), output.detach().clone()))
    )
    return seen


def test_attention_is_what_the_blocks_weigh_with_in_their_order():
    model = build(C3D(**{**SMALL, **IMPROVED})).eval()
    blocks = [name for name, module in model.named_modules() if isinstance(module, STCBAM)]
    for name in blocks:  # a fresh block is nearly even
        block = model.get_submodule(name)
        nn.init.normal_(block.spatial.mlp[-1].weight, std=3.0)
        nn.init.normal_(block.temporal.convolution.weight, std=3.0)
    given = [caught(model, name) for name in blocks]
    found = evidence(model, [clip()], target=0).attention
    assert len(found) == len(blocks) == len({block.name for block in found}) > 1
    for name, seen, weights in zip(blocks, given, found, strict=True):
        block, features = model.get_submodule(name), seen[0][0]
        features = block.channel(features) * features
        spatial = block.spatial(features)
        temporal = block.temporal(spatial * features)
        np.testing.assert_allclose(weights.spatial, spatial[0, 0].detach(), rtol=1e-5)
        np.testing.assert_allclose(weights.temporal, temporal[0, 0, :, 0, 0].detach(), rtol=1e-5)


def test_blocks_without_time_and_networks_without_blocks():
    cbam = build(C3D(**{**SMALL, **IMPROVED, "attention": "cbam", "spatial_attention": "per_frame"}))
    found = evidence(cbam, [clip()], target=1).attention
    assert (
        found
        and all(block.temporal is None and block.spatial.ndim == 3 for block in found)
        and found[0].spatial.shape[0] > 1
    )
    assert evidence(build(C3D(**SMALL, size=56)), [clip()], target=1).attention == []


def test_grad_cam_behind_global_averaging_is_the_class_weights_of_the_features():
    """There the gradient of a logit is known: the linear layer's weights, divided by the number of positions (Zhou
    2016).
    """
    model = build(C3D(**SMALL, size=56, head="gap")).double().eval()
    inputs = clip().double()
    deepest, finer = evidence(model, [inputs], target=2).class_maps
    features = caught(model, deepest.layer)
    model(inputs)
    maps = features[0][1][0]  # (C, t, h, w)
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    expected = torch.einsum("c,cthw->thw", linear.weight[2].detach(), maps).relu() / maps[0].numel()
    assert expected.any()
    np.testing.assert_allclose(deepest.values, expected, rtol=1e-5, atol=1e-9)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert min(deepest.values.shape[1:]) < FINE <= min(finer.values.shape[1:])


def test_a_class_that_nothing_speaks_for_has_an_empty_map():
    model = build(C3D(**SMALL, size=56, head="gap"))
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.constant_(linear.weight[1], -1.0)  # features are rectified: all of them speak against it
    assert not evidence(model, [clip()], target=1).class_maps[0].values.any()


@pytest.mark.parametrize(
    "config",
    [
        C3D(**SMALL, size=56),
        C3D(**SMALL, size=112),
        C3D(**{**SMALL, **IMPROVED}),
        TorchvisionVideo(kind="r3d_18", classes=3, size=56),
    ],
    ids=["c3d-56", "c3d-112", "improved", "r3d_18"],
)
def test_the_layer_is_the_last_feature_map_before_the_last_pooling(config):
    model = build(config)
    inputs = clip(config.size)
    deepest, *finer = evidence(model, [inputs], target=0).class_maps
    module = model.get_submodule(deepest.layer)
    assert (
        deepest.layer.split(".")[0] in ("stage5", "layer4") and "Pool" not in type(module).__name__ and not deepest.flat
    )
    assert bool(finer) == (min(deepest.values.shape[1:]) < FINE)
    assert all(item.values.min() >= 0 for item in (deepest, *finer))
    before = [parameter.clone() for parameter in model.parameters()]
    with torch.inference_mode():  # nothing is watched any more, and nothing was changed
        model(inputs)
    assert all(torch.equal(one, other) for one, other in zip(before, model.parameters(), strict=True))
    assert not any(module._forward_hooks for module in model.modules())


def test_a_map_of_video_swin_is_the_class_weights_of_its_features():
    """As behind any global averaging, here through a layer norm; its maps have their channels last."""
    model = build(TorchvisionVideo(kind="swin3d_t", classes=3, size=64, frames=8)).eval()
    deepest, finer = evidence(model, [clip(64)[:, :, :8]], target=1).class_maps
    assert (deepest.layer, deepest.values.shape) == ("features", (4, 2, 2)) and finer.values.shape == (4, 8, 8)
    assert deepest.values.any() and finer.layer == "features.2"


@pytest.mark.slow
def test_a_map_of_mvit_has_a_value_for_each_token_but_the_clips():
    model = build(TorchvisionVideo(kind="mvit_v2_s", classes=3, size=224)).eval()
    (deepest, *_) = evidence(model, [clip(224)], target=1).class_maps
    assert deepest.layer == "blocks.14" and deepest.values.shape == (8, 7, 7) and deepest.values.any()


@pytest.mark.parametrize("backbone", ["cnn_m", "resnet18"])
def test_each_stream_has_its_own_map(backbone):
    model = build(TwoStream(classes=3, frames=16, size=64, width=0.125, backbone=backbone))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data.abs_()  # every feature speaks for every class
    flow = torch.randn(1, 2, 15, 64, 64)
    found = evidence(model, [clip(64), flow], target=1).class_maps
    assert {item.stream for item in found} == {0, 1} and all(item.flat and item.values.shape[0] == 1 for item in found)
    assert all(item.layer.split(".")[1] == ("rgb", "flow")[item.stream] for item in found)
    other = evidence(model, [clip(64), flow], target=1).class_maps  # another image, the same motion
    for item, again in zip(found, other, strict=True):
        assert np.array_equal(item.values, again.values) == (item.stream == 1)
