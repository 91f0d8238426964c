"""RandAugment of clips."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from posture.config import ActionRun, ClipData, override
from posture.data.feed.clip_transforms import draw_augmentation, evaluation_view, network_input
from posture.data.feed.rand_augment import RandomOperations, rand_augmented
from posture.errors import InputError
from posture.models.configs import C3D, TwoStream

STRONG = ClipData(rand_augment=2, magnitude=0.8)


def stills(count: int) -> torch.Tensor:
    """Clips (N, T, H, W, 3) that do not move."""
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 32, 32, 3), dtype=np.uint8)
    return torch.from_numpy(images).expand(-1, 5, -1, -1, -1)


def augmented(clips: torch.Tensor, indices: list[int], data: ClipData, *, epoch: int = 0) -> torch.Tensor:
    drawn = draw_augmentation(data, (32, 32), seed=1, epoch=epoch, clips=np.array(indices))
    return network_input(clips, drawn, data=data, size=24)


def test_all_frames_of_a_clip_get_the_same_operations() -> None:
    found = augmented(stills(24), list(range(24)), STRONG)
    torch.testing.assert_close(found, found[:, :, :1].expand_as(found), rtol=0, atol=1e-4)


def test_operations_drift_along_the_clip_in_either_direction() -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 3, 1, 32, 32), dtype=np.float32))
    clips = image.expand(40, -1, 9, -1, -1)
    constant, drifting = (rand_augmented(clips, RandomOperations(np.arange(40), 1, 0.4, drift)) for drift in (0.0, 0.5))
    assert torch.equal(constant, constant[:, :, :1].expand_as(constant))
    torch.testing.assert_close(drifting[:, :, 4], constant[:, :, 4], rtol=0, atol=1e-6)  # the middle has the magnitude
    weak, strong = (rand_augmented(clips[:, :, :1], RandomOperations(np.arange(40), 1, m)) for m in (0.2, 0.6))
    rises, falls = (np.flatnonzero(np.arange(40) % 2 == odd) for odd in (1, 0))
    for clips_of, first, last in ((rises, weak, strong), (falls, strong, weak)):
        torch.testing.assert_close(drifting[clips_of, :, :1], first[clips_of], rtol=0, atol=1e-6)
        torch.testing.assert_close(drifting[clips_of, :, -1:], last[clips_of], rtol=0, atol=1e-6)
    assert (weak - strong).abs().amax((1, 2, 3, 4)).gt(0.05).sum() > 20, "most operations have a strength"


def test_operations_follow_crop_and_colours_and_differ_from_clip_to_clip() -> None:
    clips = stills(1).expand(20, -1, -1, -1, -1)
    plain = ClipData(
        crop_scale=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, brightness=0.0, contrast=0.0, saturation=0.0
    )
    strong = plain.model_copy(update={"rand_augment": 2, "magnitude": 0.8})
    without, found = (augmented(clips, list(range(20)), data) for data in (plain, strong))
    assert torch.equal(without, without[:1].expand_as(without))
    assert len({clip.sum().item() for clip in found}) > 12


def test_operations_belong_to_the_clip_and_the_epoch_and_leave_torchs_generator_alone() -> None:
    clips = stills(4)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    whole = augmented(clips, [3, 9, 4, 1], STRONG)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(augmented(clips[[2, 0]], [4, 3], STRONG), whole[[2, 0]], rtol=0, atol=1e-4)
    assert not torch.allclose(augmented(clips, [3, 9, 4, 1], STRONG, epoch=1), whole)


def test_values_stay_in_range_and_validation_has_none() -> None:
    raw = STRONG.model_copy(update={"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)})
    found = augmented(stills(24), list(range(24)), raw)
    assert float(found.min()) >= 0 and float(found.max()) <= 1
    assert evaluation_view((32, 32), clips=2).operations is None


def test_optical_flow_refuses_it() -> None:
    run = ActionRun(name="x", model=TwoStream())
    with pytest.raises(InputError, match=r"data.rand_augment must be 0 for a model that reads optical flow, not 2"):
        override(run, {"data.rand_augment": 2})
    assert override(run, {"data.erasing": 0.2, "data.mixup": 0.2}).data.mixup == 0.2
    assert override(ActionRun(name="x", model=C3D()), {"data.rand_augment": 2}).data.rand_augment == 2


def test_a_machine_without_torchvision_gets_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.transforms.v2", None)
    with pytest.raises(InputError, match=r"data.rand_augment needs torchvision, which cannot be imported"):
        rand_augmented(torch.zeros(1, 3, 2, 8, 8), RandomOperations(np.array([1]), 1, 0.3))
