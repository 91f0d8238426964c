"""torchvision's video networks, with its names of weights, so that its published weights fit.

Sizes for 101 classes, and costs of one clip:

| network | M parameters | GMAC |
|---|---:|---|
| r3d_18 | 33.22 | 40.70 for 16 frames of 112 x 112 |
| mc3_18 | 11.54 | 43.34 |
| r2plus1d_18 | 31.35 | 40.52 |
| s3d | 8.01 | 17.98 for 16 frames of 224 x 224 |
| mvit_v2_s | 34.31 | 64.22 |
| swin3d_t | 27.93 | 43.88 |
"""

# torch types every submodule as Tensor | Module
# pyright: reportArgumentType=false

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from posture.errors import InputError
from posture.models import configs
from posture.models.frame_inputs import StemConv3d
from posture.models.keyed import KeyedDepth, KeyedDropout

S3D_WINDOW = (2, 7, 7)
"""Frames, rows and columns that S3D's last pooling averages over."""


class SmallestPool(nn.Module):
    """S3D's last pooling: averages over windows at stride 1, as published, or over all positions of smaller maps."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the averages of `x` (N, C, t, h, w)."""
        window = [min(sides) for sides in zip(S3D_WINDOW, x.shape[2:], strict=True)]
        return functional.avg_pool3d(x, window, stride=1)


def torchvision_video(config: configs.TorchvisionVideo) -> nn.Module:
    """Return the network with random weights; normalised RGB clips (N, 3, T, H, W), float -> logits (N, classes).

    Raises InputError if torchvision cannot be imported.
    """
    try:
        from torchvision.models import video
        from torchvision.ops import StochasticDepth
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise InputError(f"model.kind {config.kind!r} is torchvision's, which cannot be imported: {error}") from None
    network = getattr(video, config.kind)(weights=None, num_classes=config.classes)
    if config.kind == "s3d":
        network.avgpool, network.classifier[0] = SmallestPool(), KeyedDropout(config.dropout)
    elif config.kind == "mvit_v2_s":
        network.head[0] = KeyedDropout(config.dropout)
    elif config.dropout:  # without weights of its own: names in a state dict stay torchvision's
        network.avgpool = nn.Sequential(network.avgpool, KeyedDropout(config.dropout))
    if config.input != "rgb":
        path, first = next(named for named in network.named_modules() if isinstance(named[1], nn.Conv3d))
        network.set_submodule(path, StemConv3d(first, config.input))
    depths = [(path, part.p) for path, part in network.named_modules() if isinstance(part, StochasticDepth)]
    if not depths and config.stochastic_depth:  # ResNets: the end of each branch, where no weight's name changes
        depths = [(f"{path}.conv2.2", 0.0) for path, part in network.named_modules() if hasattr(part, "conv2")]
    for number, (path, published) in enumerate(depths, start=1):
        share = config.stochastic_depth
        part = KeyedDepth(published if share is None else share * number / len(depths))
        parent, _, name = path.rpartition(".")
        network.get_submodule(parent).add_module(name, part)
    return network
