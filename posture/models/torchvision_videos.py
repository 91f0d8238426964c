"""torchvision's video ResNets (Tran 2018, arXiv 1711.11248), unchanged, so that their published weights fit.

Sizes for 101 classes and 16 frames of 112 x 112: r3d_18 33.22 M parameters, 40.70 GMAC; mc3_18 11.54 M, 43.34;
r2plus1d_18 31.35 M, 40.52.
"""

from __future__ import annotations

from torch import nn

from posture.errors import InputError
from posture.models import configs
from posture.models.keyed import KeyedDropout


def video_resnet(config: configs.VideoResNet) -> nn.Module:
    """Return the network with random weights; normalised RGB clips (N, 3, T, H, W), float -> logits (N, classes).

    Raises InputError if torchvision cannot be imported.
    """
    try:
        from torchvision.models import video
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that was built for another torch
        raise InputError(f"model.kind {config.kind!r} is torchvision's, which cannot be imported: {error}") from None
    network = getattr(video, config.kind)(weights=None, num_classes=config.classes)
    if config.dropout:  # without weights of its own: names in a state dict stay torchvision's
        network.avgpool = nn.Sequential(network.avgpool, KeyedDropout(config.dropout))
    return network
