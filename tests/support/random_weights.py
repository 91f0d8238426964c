"""Networks whose weights are not those of the start."""

from __future__ import annotations

import torch
from torch import nn

from posture.models.attention import CBAM
from posture.models.swin import SwinStage


def randomised(network: nn.Module) -> nn.Module:
    """Give a network running statistics, gains and attention that are not those of the start."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, SwinStage | CBAM):
            for parameter in module.parameters():
                parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval()
