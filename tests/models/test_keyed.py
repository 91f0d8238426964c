"""Randomness that belongs to a row: the same in any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from posture.models import build
from posture.models.configs import C3D
from posture.models.detector_configs import FasterRCNN
from posture.models.keyed import BITS, KeyedDepth, KeyedDropout, random_bits, set_keys

KEYS = np.array([3, -5, 2**62, 0, 3], dtype=np.int64)


def splitmix64(state: int) -> int:
    """The published function, in whole numbers without limits."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) % 2**64
    return state ^ (state >> 31)


def test_numbers_are_splitmixs() -> None:
    found = random_bits(torch.from_numpy(KEYS), 6)
    wanted = [
        [splitmix64((key % 2**64 + place * 0x9E3779B97F4A7C15) % 2**64) >> (64 - BITS) for place in range(1, 7)]
        for key in KEYS.tolist()
    ]
    assert found.tolist() == wanted


def test_numbers_are_equally_likely() -> None:
    bits = random_bits(torch.arange(400), 500).double() / 2**BITS
    assert abs(float(bits.mean()) - 0.5) < 0.005 and abs(float(bits.std()) - 12**-0.5) < 0.005
    counts = torch.histc(bits, 20, 0, 1)
    assert (counts / bits.numel() - 1 / 20).abs().max() < 0.003
    # of neighbours, and of rows
    assert abs(float(torch.corrcoef(bits[:, :2].T)[0, 1])) < 0.15 and abs(float(torch.corrcoef(bits[:2])[0, 1])) < 0.15


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_share_is_dropped_and_the_rest_makes_up_for_it(share: float) -> None:
    network = nn.Sequential(KeyedDropout(share)).train()
    set_keys(network, np.arange(64))
    found = network(torch.ones(64, 4, 50))
    assert abs(float((found == 0).double().mean()) - share) < 0.02
    torch.testing.assert_close(found.unique(), torch.tensor([0.0, 1 / (1 - share)]))


@pytest.mark.parametrize("keyed", [True, False])
def test_stochastic_depth_drops_whole_rows(keyed: bool) -> None:
    torch.manual_seed(0)
    layer, x = KeyedDepth(0.3).train(), torch.rand(2000, 3, 2) + 0.1
    set_keys(layer, np.arange(2000) if keyed else None)
    found = layer(x)
    dropped = (found == 0).all(dim=(1, 2))
    assert abs(float(dropped.double().mean()) - 0.3) < 0.04
    torch.testing.assert_close(found[~dropped], x[~dropped] / 0.7)
    assert torch.equal(layer.eval()(x), x)
    if keyed:
        set_keys(layer.train(), np.arange(500, 900))
        assert torch.equal(layer(x[500:900]), found[500:900])


def test_a_row_has_its_mask_in_any_batch_and_layers_have_others() -> None:
    network, x = nn.Sequential(KeyedDropout(0.5)).train(), torch.rand(5, 3, 7) + 0.1
    set_keys(network, KEYS)
    whole = network(x)
    # rows 0 and 4 have one key
    assert not torch.equal(whole[0] == 0, whole[1] == 0) and torch.equal(whole[0] == 0, whole[4] == 0)
    for part in (slice(0, 2), slice(2, 5), slice(4, 5)):
        set_keys(network, KEYS[part])
        assert torch.equal(network(x[part]), whole[part])
    two = nn.Sequential(KeyedDropout(0.5), nn.Identity(), KeyedDropout(0.5)).train()
    set_keys(two, KEYS)
    assert not torch.equal(two[0](x) == 0, two[2](x) == 0)


def test_without_keys_and_in_evaluation_it_is_torchs() -> None:
    layer, plain, x = KeyedDropout(0.5), nn.Dropout(0.5), torch.rand(4, 30)
    for module in (layer, plain):
        torch.manual_seed(1)
        module.found = module(x)
    assert torch.equal(layer.found, plain.found)
    set_keys(layer, KEYS[:4])
    assert torch.equal(layer.eval()(x), x)
    set_keys(layer.train(), None)
    torch.manual_seed(1)
    assert torch.equal(layer(x), plain.found)


def test_gradients_pass_where_it_lets_through() -> None:
    layer, x = KeyedDropout(0.5), torch.rand(5, 40, requires_grad=True)
    set_keys(layer, KEYS)
    found = layer(x)
    found.sum().backward()
    torch.testing.assert_close(x.grad, (found != 0) * 2.0)


def test_a_graph_takes_every_batchs_own_keys() -> None:
    network, x = nn.Sequential(nn.Linear(6, 6), KeyedDropout(0.5)).train(), torch.rand(5, 6)
    compiled = torch.compile(network, backend="aot_eager")
    for keys in (KEYS, KEYS[::-1].copy(), KEYS + 1):
        set_keys(network, keys)
        torch.testing.assert_close(compiled(x), network(x))


def test_networks_drop_by_key() -> None:
    network, clips = build(C3D(classes=3, width=0.125, size=32, dropout=0.5)).train(), torch.randn(4, 3, 16, 32, 32)
    set_keys(network, KEYS[:4])
    whole = network(clips)
    set_keys(network, KEYS[2:4])
    torch.testing.assert_close(network(clips[2:]), whole[2:])


def test_faster_rcnn_learns_from_the_same_anchors_of_an_image_in_any_batch() -> None:
    """As many as torchvision takes, at random among the others."""
    sampler = build(FasterRCNN(classes=2, width=0.125, size=64)).rpn.fg_bg_sampler
    matches = [
        torch.randint(-1, 3, (2000,)),
        torch.cat([torch.ones(3), torch.zeros(997)]).long(),
        torch.zeros(40).long(),
    ]
    plain = [[int(mask.sum()) for mask in masks] for masks in sampler(matches)]
    set_keys(sampler, KEYS[:3])
    whole = sampler(matches)
    assert [[int(mask.sum()) for mask in masks] for masks in whole] == plain
    for positive, negative, match in zip(*whole, matches, strict=True):
        assert (match[positive.bool()] >= 1).all() and (match[negative.bool()] == 0).all()
    sampler.keys = sampler.keys[1:]
    for found, expected in zip(sampler(matches[1:]), whole, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found, expected[1:], strict=True))
    sampler.keys = sampler.keys + 1
    assert not torch.equal(sampler(matches[1:])[1][0], whole[1][1])
