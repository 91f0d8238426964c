"""Random erasing, mixup and cutmix: inputs and labels go together, and all frames of a clip alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from posture.config import ClipData
from posture.data.feed.clip_mixing import ERASED_AREA, erased, mixed

SIZE, CLASSES = 24, 5


def keys(*clips: int, epoch: int = 0) -> list[dict[str, int]]:
    return [{"seed": 3, "epoch": epoch, "clip": clip, "repeat": 0} for clip in clips]


def one_colour(count: int, *, channels: int = 3, frames: int = 4) -> torch.Tensor:
    """Clips (N, C, T, S, S) of which each has its number + 1 everywhere."""
    return (torch.arange(count) + 1.0).view(-1, 1, 1, 1, 1).expand(-1, channels, frames, SIZE, SIZE).clone()


def shares(probabilities: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return probabilities.gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("data", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}], ids=str)
def test_labels_are_mixed_by_the_share_of_the_pixels(data: dict[str, Any]) -> None:
    count = 60
    labels = torch.arange(count) % CLASSES
    inputs = (one_colour(count), one_colour(count, channels=2, frames=3))
    found, answers = mixed(inputs, labels, classes=CLASSES, data=ClipData(**data), keys=keys(*range(count)))
    torch.testing.assert_close(answers.sum(1), torch.ones(count))
    own = shares(answers, labels)
    partners = torch.arange(count).roll(-1)
    torch.testing.assert_close(answers.gather(1, labels[partners][:, None])[:, 0], 1 - own)
    for before, after in zip(inputs, found, strict=True):
        mean = own * before[:, 0, 0, 0, 0] + (1 - own) * before[partners, 0, 0, 0, 0]
        torch.testing.assert_close(after.mean((1, 2, 3, 4)), mean)
        torch.testing.assert_close(after, after[:, :1, :1].expand_as(after))  # all frames alike
    assert own.unique().numel() > 10


def test_mixup_is_one_weight_and_cutmix_a_rectangle() -> None:
    count, labels = 40, torch.zeros(40, dtype=torch.int64)
    for kind in ("mixup", "cutmix", "both"):
        data = ClipData(mixup=1.0 if kind != "cutmix" else 0.0, cutmix=1.0 if kind != "mixup" else 0.0)
        (x,), _ = mixed((one_colour(count),), labels, classes=CLASSES, data=data, keys=keys(*range(count)))
        whole = torch.stack([clip == clip[0, 0, 0, 0] for clip in x]).flatten(1).all(1)
        if kind == "both":
            assert 8 < int(whole.sum()) < 32
            continue
        assert bool(whole.all()) or kind == "cutmix"
        if kind == "cutmix":
            for number, frame in enumerate(x[:, 0, 0]):
                pasted = (frame != number + 1).nonzero()
                if len(pasted):
                    sides = pasted.max(0).values - pasted.min(0).values + 1
                    assert int(sides.prod()) == len(pasted)
                    assert set(frame.unique().tolist()) <= {number + 1.0, (number + 1) % count + 1.0}


def test_without_either_nothing_changes() -> None:
    x, labels = one_colour(3), torch.arange(3)
    (same,), answers = mixed((x,), labels, classes=CLASSES, data=ClipData(), keys=keys(0, 1, 2))
    assert same is x and answers is labels
    assert erased((x,), data=ClipData(), keys=keys(0, 1, 2))[0] is x


def test_a_share_of_the_clips_loses_a_rectangle_of_all_frames_and_inputs() -> None:
    count = 400
    x, flow = erased(
        (one_colour(count, frames=2), one_colour(count, channels=2, frames=2)),
        data=ClipData(erasing=0.3),
        keys=keys(*range(count)),
    )
    gone = x[:, 0, 0] == 0  # (N, S, S)
    assert torch.equal(x == 0, gone[:, None, None].expand_as(x)) and torch.equal(flow == 0, (x == 0)[:, :2])
    touched = gone.flatten(1).any(1)
    assert abs(float(touched.double().mean()) - 0.3) < 0.07
    areas = gone.double().mean((1, 2))[touched]
    assert float(areas.min()) > ERASED_AREA[0] * 0.6 and float(areas.max()) < ERASED_AREA[1] * 1.2
    for clip in gone[touched]:
        places = clip.nonzero()
        assert int((places.max(0).values - places.min(0).values + 1).prod()) == len(places)


def test_a_rectangle_belongs_to_the_clip_and_epoch() -> None:
    data, x = ClipData(erasing=1.0), torch.ones(4, 3, 2, SIZE, SIZE)
    (whole,) = erased((x,), data=data, keys=keys(5, 6, 7, 8))
    (part,) = erased((x[:2],), data=data, keys=keys(7, 6))
    assert torch.equal(part, whole[[2, 1]])
    (later,) = erased((x,), data=data, keys=keys(5, 6, 7, 8, epoch=1))
    assert not np.array_equal(later.numpy(), whole.numpy())
