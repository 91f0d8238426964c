import numpy as np
import pytest
import torch

from posture.models import build
from posture.models.configs import Linear
from posture.models.evidence import evidence
from posture.models.summary import gmacs, parameters

CONFIG = Linear(classes=3, frames=4, size=8, grid=2)


def test_features_are_the_mean_frame_the_mean_motion_and_its_course():
    clips = torch.randn(2, 3, 4, 8, 8)
    found = build(CONFIG).features(clips).numpy()
    frames = clips.numpy()
    moved = np.abs(frames[:, :, 1:] - frames[:, :, :-1])
    cells = [np.s_[..., 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] for row in (0, 1) for column in (0, 1)]
    mean = np.stack([frames[cell].mean(axis=(2, 3, 4)) for cell in cells], axis=2)  # (2, 3, 4 cells)
    motion = np.stack([moved[cell].mean(axis=(2, 3, 4)) for cell in cells], axis=2)
    course = moved.mean(axis=(1, 3, 4))
    expected = np.concatenate([mean.reshape(2, -1), motion.reshape(2, -1), course], axis=1)
    assert found.shape == (2, 6 * 4 + 3)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_at_its_published_size_it_has_a_weight_for_each_feature_and_class():
    config = Linear(classes=10)
    network = build(config)
    assert parameters(network) == (6 * 14 * 14 + 15 + 1) * 10
    assert gmacs(network, 16, 56) == pytest.approx((6 * 14 * 14 + 15) * 10 / 1e9)


def test_its_class_map_lies_where_the_motion_speaks_for_the_class():
    network = build(CONFIG)
    with torch.no_grad():
        network.classify.weight.zero_()
        network.classify.weight[1, 3 * 4 : 6 * 4] = 1.0
    clip = torch.zeros(1, 3, 4, 8, 8)
    clip[:, :, 2:, :4, 4:] = 1.0  # something appears in the upper right cell between frames 1 and 2
    (found,) = evidence(network, [clip], target=1).class_maps
    assert found.layer == "motion" and found.values.shape == (3, 2, 2)
    assert np.argwhere(found.values > 0).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": 1}, "frames must be at least 2, not 1"),
        ({"size": 13}, "size must be at least grid 14, not 13"),
        ({"grid": 0}, "grid must be a finite number greater than 0"),
    ],
)
def test_what_has_no_features_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        Linear(**changes)
