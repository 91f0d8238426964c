"""`fuse`: a network as it is best run once training is over, with the same outputs.

A convolution and the batch normalisation behind it are one convolution, RepConv's branches one 3x3; implicit vectors
are part of the head's convolution; what a Swin block computes from its weights alone is a constant; attention before a
predictor is a scale of its weights and outputs; a Focus stem is the 6x6 convolution that it equals. A module of ours
says by a method `fused()` what it becomes; ultralytics' Conv and Focus, which have none, are known here.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


def fuse(model: nn.Module) -> nn.Module:
    """A copy of `model` for inference, in evaluation mode, without gradients, and channels last. `model` stays as it
    is.
    """
    return channels_last(_fused(copy.deepcopy(model)).eval().requires_grad_(False))


def channels_last(model: nn.Module) -> nn.Module:
    """`model` itself, the weights of its convolutions over images laid out as images come: each place's channels
    side by side.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """The convolution, with a bias, that computes norm(convolution(x)) from running statistics; computed in float64."""
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = torch.zeros_like(gain) if convolution.bias is None else convolution.bias.double()
    weight = convolution.weight.double() * gain[:, None, None, None]
    return with_weights(
        convolution, weight, (bias - norm.running_mean.double()) * gain + norm.bias.double(), like=convolution.weight
    )


def with_weights(shaped: nn.Conv2d, weight: Tensor, bias: Tensor, *, like: Tensor) -> nn.Conv2d:
    """A convolution with these weights, stored as `like` is (device, precision), and with the stride, padding and
    groups of `shaped`.
    """
    outputs, inputs, *kernel = weight.shape
    layer = nn.Conv2d(
        inputs * shaped.groups,
        outputs,
        tuple(kernel),
        shaped.stride,
        shaped.padding,
        shaped.dilation,
        shaped.groups,
        device="meta",
    )
    layer.weight, layer.bias = (
        nn.Parameter(values.detach().to(like.device, like.dtype).contiguous()) for values in (weight, bias)
    )
    return layer


def focus_kernel(kernel: Tensor) -> Tensor:
    """3x3 weights behind ultralytics' Focus (outputs, 4 * C, 3, 3) -> those of the convolution at stride 2 that sees
    the same (outputs, C, 6, 6).

    Focus stacks the pixels of even rows and columns, odd rows, odd columns, and odd both.
    """
    odd_columns, odd_rows, channels = (2, 2, kernel.shape[1] // 4)
    phases = kernel.unflatten(1, (odd_columns, odd_rows, channels))  # (outputs, odd column, odd row, C, 3, 3)
    return phases.permute(0, 3, 4, 2, 5, 1).flatten(4, 5).flatten(2, 3)


def unfocus_kernel(kernel: Tensor) -> Tensor:
    """The inverse of `focus_kernel`: (outputs, C, 6, 6) -> (outputs, 4 * C, 3, 3)."""
    return kernel.unflatten(2, (3, 2)).unflatten(4, (3, 2)).permute(0, 5, 3, 1, 2, 4).flatten(1, 3)


def _fused(module: nn.Module) -> nn.Module:
    if hasattr(module, "fused"):
        return module.fused()
    if _is_ultralytics(module, "Focus") and module.conv.conv.kernel_size == (3, 3):
        folded = fold(module.conv.conv, module.conv.bn)
        whole = nn.Conv2d(1, 1, 6, stride=2, padding=2, device="meta")
        return nn.Sequential(
            with_weights(whole, focus_kernel(folded.weight), folded.bias, like=folded.weight), module.conv.act
        )
    if _is_ultralytics(module, "Conv"):
        return nn.Sequential(fold(module.conv, module.bn), module.act)
    return fuse_parts(module)


def fuse_parts(module: nn.Module) -> nn.Module:
    """`module` itself, each part of it fused."""
    for name, child in module.named_children():
        setattr(module, name, _fused(child))
    return module


def _is_ultralytics(module: nn.Module, name: str) -> bool:
    """Without importing it: where one of its modules is, it has been imported."""
    return type(module).__name__ == name and type(module).__module__.startswith("ultralytics.")
