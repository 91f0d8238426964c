import pytest
import torch

from posture.models import build
from posture.models.configs import C3D, IMPROVED, Linear, TorchvisionVideo, TwoStream
from posture.models.features import penultimate

CLIP, FLOW = torch.randn(2, 3, 16, 32, 32), torch.randn(2, 2, 15, 32, 32)


@pytest.mark.parametrize(
    ("config", "inputs"),
    [
        (C3D(**{**IMPROVED, "classes": 3, "width": 0.125, "size": 32}), [CLIP]),
        (C3D(classes=3, width=0.125, size=32), [CLIP]),
        (Linear(classes=3, size=32), [CLIP]),
        (TorchvisionVideo(kind="r3d_18", classes=3, size=32), [CLIP]),
        (TorchvisionVideo(kind="s3d", classes=3, size=32), [CLIP]),
        (TorchvisionVideo(kind="swin3d_t", classes=3, size=32), [CLIP]),
        (TwoStream(classes=3, width=0.125, size=32, backbone="resnet18"), [CLIP, FLOW]),
    ],
)
def test_the_last_layers_make_the_scores_from_the_features(config, inputs):
    torch.manual_seed(0)
    model = build(config).eval()
    with torch.inference_mode(), penultimate(model) as taken:
        scores = model(*inputs)
        again = model(*[stream[:1] for stream in inputs])
    linear = [
        [module for module in part.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv3d)][-1]
        for part in (model.streams.values() if isinstance(config, TwoStream) else [model])
    ]
    assert len(taken) == len(linear) and all(len(features) == 1 for features in taken), "only the last pass is held"
    for place, (layer, features) in enumerate(zip(linear, taken, strict=True)):
        with torch.inference_mode():
            made = layer(features) if isinstance(layer, torch.nn.Linear) else layer(features[..., None, None, None])
            made = made.flatten(1)
        torch.testing.assert_close(made, again[:, place] if again.ndim == 3 else again)
    assert not any(module._forward_pre_hooks for module in model.modules()) and len(scores) == 2
