"""Augmentation and views, against independent formulas."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from posture.config import ClipData
from posture.data.decode.optical_flow import BOUND, ZERO, decode, encode
from posture.data.feed.clip_transforms import (
    LUMA,
    TEMPORAL,
    Augmentation,
    augmented_frames,
    clip_generator,
    draw_augmentation,
    evaluation_view,
    frame_indices,
    network_flow,
    network_input,
    network_inputs,
)

RAW = ClipData(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
"""Leaves images in 0..1."""


def pairs(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    """A smaller and a larger number."""
    return st.tuples(st.floats(low, high), st.floats(low, high)).map(lambda pair: (min(pair), max(pair)))


def clips_of(count: int, *, frames: int = 3, height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (count, frames, height, width, 3), dtype=np.uint8)
    )


def unchanged(count: int, *, height: int = 24, width: int = 32, **changes: Any) -> Augmentation:
    ones = np.ones(count)
    whole = np.tile([0.0, 0.0, width, height], (count, 1))
    return replace(Augmentation(whole, np.zeros(count, dtype=bool), ones, ones, ones), **changes)


@pytest.mark.parametrize("size", [8, 16, 24, 40])
def test_without_a_change_it_is_a_plain_resize(size: int) -> None:
    clips = clips_of(2)
    ours = network_input(clips, unchanged(2), data=RAW, size=size)
    images = clips.flatten(0, 1).permute(0, 3, 1, 2).double() / 255.0
    theirs = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(ours, theirs.view(2, 3, 3, size, size).transpose(1, 2).float(), rtol=0, atol=1e-5)


def test_a_crop_of_whole_pixels_at_its_own_size_is_a_slice() -> None:
    clips = clips_of(1)
    ours = network_input(clips, unchanged(1, crops_xyxy=np.array([[5.0, 7.0, 15.0, 17.0]])), data=RAW, size=10)
    torch.testing.assert_close(ours[0].permute(1, 2, 3, 0), clips[0, :, 7:17, 5:15] / 255.0, rtol=0, atol=1e-6)


def test_a_flip_mirrors_the_crop_and_only_where_asked() -> None:
    clips = clips_of(2)
    crops = np.tile([3.0, 2.0, 20.0, 21.0], (2, 1))
    plain = network_input(clips, unchanged(2, crops_xyxy=crops), data=RAW, size=16)
    flipped = network_input(clips, unchanged(2, crops_xyxy=crops, flips=np.array([True, False])), data=RAW, size=16)
    torch.testing.assert_close(flipped[0], plain[0].flip(-1))
    torch.testing.assert_close(flipped[1], plain[1])


def test_colours_follow_their_formulas() -> None:
    clips = clips_of(2) // 2 + 64
    brightness, contrast, saturation = np.array([1.1, 0.8]), np.array([0.7, 1.2]), np.array([1.3, 0.6])
    ours = network_input(
        clips, unchanged(2, brightness=brightness, contrast=contrast, saturation=saturation), data=RAW, size=24
    )
    plain = network_input(clips, unchanged(2), data=RAW, size=24).double().numpy()
    for number in range(2):
        image = plain[number] * brightness[number]
        grey = np.tensordot(LUMA, image, axes=1)
        image = saturation[number] * image + (1 - saturation[number]) * grey
        mean_grey = np.tensordot(LUMA, image, axes=1).mean()
        image = contrast[number] * image + (1 - contrast[number]) * mean_grey
        np.testing.assert_allclose(ours[number].numpy(), image.clip(0, 1), atol=1e-5)


def test_all_frames_of_a_clip_are_treated_alike() -> None:
    still = clips_of(2, frames=1).expand(-1, 4, -1, -1, -1)
    images = network_input(
        still,
        draw_augmentation(ClipData(), (24, 32), seed=1, epoch=2, clips=np.array([3, 4])),
        data=ClipData(),
        size=16,
    )
    torch.testing.assert_close(images, images[:, :, :1].expand_as(images), rtol=0, atol=1e-5)


def test_normalisation_and_the_image_to_look_at_agree() -> None:
    clips, data = clips_of(2), ClipData()
    augmentation = draw_augmentation(data, (24, 32), seed=0, epoch=0, clips=np.array([0, 1]))
    normalised = network_input(clips, augmentation, data=data, size=16)
    shown = augmented_frames(clips, augmentation, size=16)
    assert shown.shape == (2, 3, 16, 16, 3) and shown.dtype == torch.uint8
    undone = normalised * torch.tensor(data.std).view(1, 3, 1, 1, 1) + torch.tensor(data.mean).view(1, 3, 1, 1, 1)
    np.testing.assert_allclose(shown.permute(0, 4, 1, 2, 3).numpy() / 255.0, undone.numpy(), atol=0.5 / 255 + 1e-5)


def test_randomness_belongs_to_the_clip_not_to_its_batch() -> None:
    data, clips, indices = ClipData(), clips_of(5), np.array([40, 7, 23, 8, 0])
    together = network_input(
        clips, draw_augmentation(data, (24, 32), seed=3, epoch=1, clips=indices), data=data, size=16
    )
    picked = [3, 1]
    apart = network_input(
        clips[picked], draw_augmentation(data, (24, 32), seed=3, epoch=1, clips=indices[picked]), data=data, size=16
    )
    torch.testing.assert_close(apart, together[picked], rtol=0, atol=1e-5)


@pytest.mark.parametrize("other", [{"seed": 4}, {"epoch": 2}, {"clips": np.array([8])}, {"repeats": np.array([1])}])
def test_every_part_of_the_key_matters(other: dict[str, Any]) -> None:
    key: dict[str, Any] = {"seed": 3, "epoch": 1, "clips": np.array([7])}
    assert not np.allclose(
        draw_augmentation(ClipData(), (24, 32), **key).crops_xyxy,
        draw_augmentation(ClipData(), (24, 32), **(key | other)).crops_xyxy,
    )


@settings(max_examples=50, deadline=None)
@given(st.integers(8, 400), st.integers(8, 400), pairs(0.05, 1), pairs(0.3, 3))
def test_parameters_stay_in_their_ranges(
    height: int, width: int, scale: tuple[float, float], aspect: tuple[float, float]
) -> None:
    data = ClipData(crop_scale=scale, crop_aspect=aspect, brightness=0.4, contrast=0.2, saturation=1.0)
    drawn = draw_augmentation(data, (height, width), seed=-1, epoch=0, clips=np.arange(20))
    x0, y0, x1, y1 = drawn.crops_xyxy.T
    assert (x0 >= -1e-9).all() and (y0 >= -1e-9).all() and (x1 <= width + 1e-9).all() and (y1 <= height + 1e-9).all()
    share = (x1 - x0) * (y1 - y0) / (height * width)
    assert (share > 0).all() and (share <= scale[1] + 1e-9).all()
    whole = (x1 - x0 < width - 1e-9) & (y1 - y0 < height - 1e-9)  # those that were not cut to the frame
    assert (share[whole] >= scale[0] - 1e-9).all()
    ratio = ((x1 - x0) / (y1 - y0))[whole]
    assert (ratio >= aspect[0] - 1e-9).all() and (ratio <= aspect[1] + 1e-9).all()
    for factors, spread in ((drawn.brightness, 0.4), (drawn.contrast, 0.2), (drawn.saturation, 1.0)):
        assert (np.abs(factors - 1) <= spread + 1e-9).all() and len(np.unique(factors)) > 1


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flips_come_as_often_as_asked(probability: float) -> None:
    flips = draw_augmentation(ClipData(flip=probability), (24, 32), seed=0, epoch=0, clips=np.arange(2000)).flips
    assert abs(flips.mean() - probability) < 0.04  # four standard deviations


def test_evaluation_crops_are_squares_side_by_side() -> None:
    assert evaluation_view((24, 32), clips=2).crops_xyxy.tolist() == [[4, 0, 28, 24]] * 2
    assert [evaluation_view((24, 32), clips=1, crop=crop, crops=3).crops_xyxy[0, 0] for crop in range(3)] == [0, 4, 8]
    assert [evaluation_view((32, 24), clips=1, crop=crop, crops=3).crops_xyxy[0, 1] for crop in range(3)] == [0, 4, 8]
    assert evaluation_view((24, 32), clips=1).keeps_colours


@given(st.integers(1, 60), st.integers(1, 32), st.integers(1, 4), st.one_of(st.none(), st.integers(0, 99)))
def test_frames_are_evenly_spaced_and_the_last_one_repeats(
    stored: int, frames: int, step: int, seed: int | None
) -> None:
    generator = None if seed is None else clip_generator(TEMPORAL, seed=seed, epoch=0, clip=0)
    indices = frame_indices(stored, frames, step=step, generator=generator)
    assert indices.shape == (frames,) and indices.min() >= 0 and indices.max() < stored
    np.testing.assert_array_equal(indices, np.minimum(indices[0] + step * np.arange(frames), stored - 1))
    span = (frames - 1) * step + 1
    if stored >= span:
        assert len(np.unique(indices)) == frames
    else:
        assert indices[0] == 0 and indices[-1] == stored - 1


def test_a_random_start_reaches_every_place_and_views_are_spread() -> None:
    starts = {
        int(frame_indices(20, 8, step=2, generator=clip_generator(TEMPORAL, seed=0, epoch=0, clip=clip))[0])
        for clip in range(100)
    }
    assert starts == set(range(6))
    assert frame_indices(20, 8, step=2)[0] == 2
    assert [int(frame_indices(20, 8, step=2, view=view, views=3)[0]) for view in range(3)] == [0, 2, 5]


def flow_of(count: int, *, fields: int = 3, height: int = 24, width: int = 32) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(1).integers(1, 256, (count, fields, height, width, 2), dtype=np.uint8)
    )


def test_flow_at_its_own_size_is_in_hundredths_of_the_side() -> None:
    flow = flow_of(2, height=24, width=24)
    ours = network_flow(flow, unchanged(2, width=24), size=24)
    pixels = torch.from_numpy(decode(flow.numpy())).permute(0, 4, 1, 2, 3)  # (N, 2, T - 1, H, W)
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, pixels / 0.24, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [8, 16, 40])
def test_vectors_grow_with_the_image(size: int) -> None:
    """A uniform motion stays uniform, and is as many pixels longer as the crop is enlarged."""
    flow = torch.from_numpy(encode(np.tile([3.0, -2.0], (2, 4, 24, 32, 1))))
    crops = np.array([[2.0, 1.0, 22.0, 16.0], [0.0, 0.0, 32.0, 24.0]])
    pixels = network_flow(flow, unchanged(2, crops_xyxy=crops), size=size) * size / 100
    stored = decode(flow.numpy())[0, 0, 0, 0]
    for clip, (width, height) in enumerate(((20.0, 15.0), (32.0, 24.0))):
        torch.testing.assert_close(
            pixels[clip, 0], torch.full((4, size, size), float(stored[0]) * size / width), rtol=1e-4, atol=0
        )
        torch.testing.assert_close(
            pixels[clip, 1], torch.full((4, size, size), float(stored[1]) * size / height), rtol=1e-4, atol=0
        )


def test_a_flip_mirrors_flow_and_turns_dx_round() -> None:
    flow = flow_of(2)
    crops = np.tile([3.0, 2.0, 20.0, 21.0], (2, 1))
    plain = network_flow(flow, unchanged(2, crops_xyxy=crops), size=16)
    flipped = network_flow(flow, unchanged(2, crops_xyxy=crops, flips=np.array([True, False])), size=16)
    mirrored = plain[0].flip(-1)
    torch.testing.assert_close(flipped[0], torch.stack([-mirrored[0], mirrored[1]]))
    torch.testing.assert_close(flipped[1], plain[1])


def test_flow_has_no_colours_and_lies_on_its_pixels() -> None:
    """The same crop, flip and weights as the frames': an image of the codes is resampled to the same numbers."""
    augmentation = draw_augmentation(ClipData(flip=1.0), (24, 32), seed=5, epoch=1, clips=np.array([0, 1]))
    codes = flow_of(2)[..., :1]
    ours = network_flow(codes.expand(-1, -1, -1, -1, 2).contiguous(), augmentation, size=16)
    ones = np.ones(2)
    colourless = replace(augmentation, brightness=ones, contrast=ones, saturation=ones)
    image = (
        network_input(codes.expand(-1, -1, -1, -1, 3).contiguous(), colourless, data=RAW, size=16)[:, 0] * 255 - ZERO
    )
    x0, y0, x1, y1 = augmentation.crops_xyxy.T
    for axis, scale in enumerate((-1 / (x1 - x0), 1 / (y1 - y0))):
        expected = image * torch.from_numpy(100 * BOUND / 127 * scale).float()[:, None, None, None]
        torch.testing.assert_close(ours[:, axis], expected, rtol=1e-3, atol=1e-2)


def test_a_networks_inputs_come_by_name_and_in_its_order() -> None:
    clips, flow = clips_of(2), flow_of(2)
    data, augmentation = ClipData(), draw_augmentation(ClipData(), (24, 32), seed=5, epoch=1, clips=np.array([0, 1]))
    first, second = network_inputs({"flow": flow, "rgb": clips}, augmentation, data=data, size=16)
    torch.testing.assert_close(first, network_flow(flow, augmentation, size=16), rtol=0, atol=0)
    torch.testing.assert_close(second, network_input(clips, augmentation, data=data, size=16), rtol=0, atol=0)
