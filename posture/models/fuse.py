"""`fuse`: the form of a network that runs fastest once training is over, with the same outputs.

A convolution and the batch normalisation behind it become one convolution, and RepConv's branches one 3x3. Implicit
vectors become part of the head's convolution. What a Swin block computes from its weights only becomes a constant.
Attention before a predictor becomes a scale of its weights and outputs. A Focus stem becomes the 6x6 convolution that
it equals. The networks themselves know nothing of this.

Tensor legend: N images, C channels, H x W cells, A anchors for each level, K classes; windows as in
`posture/models/swin.py`.
"""

# torch types every submodule as Tensor | Module, and a bias and running statistics as optional
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from posture.models.attention import CBAM
from posture.models.swin import SMALLEST_NORM, QueriesKeysValues, WindowAttention, in_windows, kept, padding_bias
from posture.models.yolov5 import ImageCBAM, YOLOv5, focus_kernel
from posture.models.yolov7 import ImplicitPredictor, RepConv


def fuse(model: nn.Module) -> nn.Module:
    """Return a copy of `model` for inference: in evaluation mode, without gradients, and channels last."""
    return channels_last(_fused(copy.deepcopy(model)).eval().requires_grad_(False))


def channels_last(model: nn.Module) -> nn.Module:
    """Return `model` itself, with the weights of its 2-D convolutions channels last in memory, as images come."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)
    return model


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Conv2d:
    """Return the convolution, with a bias, that computes norm(convolution(x)) from running statistics (in float64)."""
    gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = torch.zeros_like(gain) if convolution.bias is None else convolution.bias.double()
    weight = convolution.weight.double() * gain[:, None, None, None]
    return with_weights(
        convolution, weight, (bias - norm.running_mean.double()) * gain + norm.bias.double(), like=convolution.weight
    )


def with_weights(shaped: nn.Conv2d, weight: Tensor, bias: Tensor, *, like: Tensor) -> nn.Conv2d:
    """Return a convolution with these weights on the device and in the precision of `like`, and with the stride,
    padding and groups of `shaped`.
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


class FlatCBAM(nn.Module):
    """ImageCBAM of averages without an axis of time: fewer operations, which matter for one image at a time."""

    def __init__(self, cbam: CBAM) -> None:
        super().__init__()
        self.channel = cbam.channel.mlp
        self.spatial = nn.Sequential(*(_without_time(layer) for layer in cbam.spatial.mlp))

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel(x.mean((2, 3))).sigmoid()[:, :, None, None] * x  # (1)
        return self.spatial(x.mean(1, keepdim=True)).sigmoid() * x  # (2)


class AttendedPredictor(nn.Module):
    """FlatCBAM and a predictor in one, without weighing the many channels; (N, C, H, W) -> (N, A * (5 + K), H, W).

    A 1x1 convolution is linear: its weights take the channels' weights, its outputs those of the cells. One more output
    is the mean over channels, from which the cells' weights are computed.
    """

    def __init__(self, attention: FlatCBAM, predictor: nn.Conv2d) -> None:
        super().__init__()
        self.channel, self.spatial = attention.channel, attention.spatial
        weight = predictor.weight.detach().flatten(1)  # (A * (5 + K), C)
        self.register_buffer("weight", torch.cat([weight, torch.full_like(weight[:1], 1 / weight.shape[1])]))
        self.register_buffer("bias", predictor.bias.detach()[:, None])

    def forward(self, x: Tensor) -> Tensor:
        channels = self.channel(x.mean((2, 3))).sigmoid()  # (N, C), (1)
        outputs = (self.weight * channels[:, None]) @ x.flatten(2)  # (N, A * (5 + K) + 1, H * W)
        cells = self.spatial(outputs[:, -1:].unflatten(2, x.shape[2:])).sigmoid().flatten(2)  # (N, 1, H * W), (2)
        return torch.addcmul(self.bias.to(outputs.dtype), outputs[:, :-1], cells).unflatten(2, x.shape[2:])


class FusedWindowAttention(nn.Module):
    """WindowAttention in fewer steps; (N, H, W, C) -> (N, H, W, C).

    Scales and biases are constants. One selection does the padding, the windows and the heads; another one undoes them.
    """

    def __init__(self, attention: WindowAttention) -> None:
        super().__init__()
        self.heads, self.window, self.shift = attention.heads, attention.window, attention.shift
        self.queries_keys_values = _fused_queries(attention.queries_keys_values)
        self.projection = attention.projection
        scale = attention.scale().detach()  # (heads, 1, 1)
        # of queries and keys: (2, 1, heads, 1, 1)
        self.register_buffer("scales", torch.stack([scale, torch.ones_like(scale)])[:, None])
        self.register_buffer("position_bias", attention.position_bias().detach().contiguous())  # (heads, L, L)

    def forward(self, x: Tensor) -> Tensor:
        images, height, width, channels = x.shape
        inwards, outwards = _selections(height, width, self.window, self.shift, self.heads, x.device)
        depth, cells = channels // self.heads, self.window**2
        parts = self.queries_keys_values(x).view(images, -1, depth).index_select(1, inwards)
        parts = parts.view(images, 3, -1, cells, depth)  # (N, 3, R * S * heads, L, D)
        lengths = torch.linalg.vector_norm(parts[:, :2], dim=-1, keepdim=True).clamp_(min=SMALLEST_NORM)
        queries, keys = (
            (parts[:, :2].unflatten(2, (-1, self.heads)) * (self.scales / lengths.unflatten(2, (-1, self.heads))))
            .flatten(2, 3)
            .unbind(1)
        )
        bias = (
            padding_bias(height, width, self.window, self.shift, self.position_bias.dtype, x.device)
            + self.position_bias
        )  # (R * S, heads, L, L)
        values = functional.scaled_dot_product_attention(
            queries, keys, parts[:, 2], attn_mask=bias.flatten(0, 1)[None].to(queries.dtype), scale=1.0
        )
        values = values.transpose(1, 2).reshape(images, -1, depth)  # in memory, torch puts the heads last already
        return self.projection(values.index_select(1, outwards).view(images, height, width, channels))


@kept
def _selections(
    height: int, width: int, window: int, shift: int, heads: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the index of each piece of D channels, inwards and outwards.

    Inwards: (3 * R * S * heads * L,) pieces of queries, keys and values, in a map of H x W cells with 3C channels;
    padding takes any. Outwards: (H * W * heads,) pieces of the result, in a map of L cells with R * S * heads pieces.
    """
    # (R * S, L)
    cells = in_windows(torch.arange(height * width, device=device).view(height, width), window, shift, padding=-1)
    part, head = torch.arange(3, device=device), torch.arange(heads, device=device)
    # a cell's channels are its parts, and each part its heads
    # (3, R * S, heads, L)
    inwards = (cells.clamp(min=0)[None, :, None] * 3 + part[:, None, None, None]) * heads + head[:, None]
    window_of, place_of = torch.empty(2, height * width, dtype=torch.int64, device=device)
    windows, places = (cells >= 0).nonzero(as_tuple=True)
    window_of[cells[windows, places]], place_of[cells[windows, places]] = windows, places
    outwards = (place_of[:, None] * len(cells) + window_of[:, None]) * heads + head  # (H * W, heads)
    return inwards.flatten(), outwards.flatten()


def _fused(module: nn.Module) -> nn.Module:
    if type(module) in FUSED:
        return FUSED[type(module)](module)
    if _is_ultralytics(module, "Focus") and module.conv.conv.kernel_size == (3, 3):
        folded = fold(module.conv.conv, module.conv.bn)
        whole = nn.Conv2d(1, 1, 6, stride=2, padding=2, device="meta")
        return nn.Sequential(
            with_weights(whole, focus_kernel(folded.weight), folded.bias, like=folded.weight), module.conv.act
        )
    if _is_ultralytics(module, "Conv"):
        return nn.Sequential(fold(module.conv, module.bn), module.act)
    return _fused_parts(module)


def _fused_parts(module: nn.Module) -> nn.Module:
    """Return `module` itself, with each of its parts fused."""
    for name, child in module.named_children():
        setattr(module, name, _fused(child))
    return module


def _fused_yolov5(network: YOLOv5) -> nn.Module:
    """Return the network with its parts fused, and the neck's attention as part of the head."""
    _fused_parts(network)
    for level, name in enumerate(("attend_out3", "attend_out4", "attend_out5")):
        if isinstance(attention := getattr(network, name), FlatCBAM):
            network.head.levels[level] = AttendedPredictor(attention, network.head.levels[level])
            setattr(network, name, nn.Identity())
    return network


def _fused_attention(attention: ImageCBAM) -> nn.Module:
    return FlatCBAM(attention.cbam) if attention.pool == "avg" else attention


def _without_time(layer: nn.Module) -> nn.Module:
    """Return a convolution over one frame at a time as a convolution over images."""
    if not isinstance(layer, nn.Conv3d):
        return layer
    flat = nn.Conv2d(1, 1, layer.kernel_size[1:], padding=layer.padding[1:], device="meta")
    return with_weights(flat, layer.weight.squeeze(2), layer.bias, like=layer.weight)


def _fused_queries(queries: QueriesKeysValues) -> nn.Linear:
    layer = nn.Linear(queries.weight.shape[1], queries.weight.shape[0], device="meta")
    layer.weight, layer.bias = nn.Parameter(queries.weight.detach()), nn.Parameter(queries.bias().detach())
    return layer


def _fused_repconv(block: RepConv) -> nn.Module:
    wide, narrow = fold(*block.wide), fold(*block.narrow)
    kernel = wide.weight.double() + functional.pad(narrow.weight.double(), (1, 1, 1, 1))
    bias = wide.bias.double() + narrow.bias.double()
    return nn.Sequential(with_weights(wide, kernel, bias, like=wide.weight), block.activation)


def _fused_predictor(implicit: ImplicitPredictor) -> nn.Conv2d:
    weight, bias = implicit.predictor.weight.double(), implicit.predictor.bias.double()
    factor = implicit.factor.double().flatten()
    bias = (weight.flatten(1) @ implicit.added.double().flatten() + bias) * factor
    return with_weights(implicit.predictor, weight * factor[:, None, None, None], bias, like=implicit.predictor.weight)


FUSED: dict[type, Callable[[Any], nn.Module]] = {
    YOLOv5: _fused_yolov5,
    ImageCBAM: _fused_attention,
    WindowAttention: FusedWindowAttention,
    QueriesKeysValues: _fused_queries,
    RepConv: _fused_repconv,
    ImplicitPredictor: _fused_predictor,
}
"""Function that fuses each class of ours; ultralytics' Conv and Focus are known by name."""


def _is_ultralytics(module: nn.Module, name: str) -> bool:
    """Return True for a module of ultralytics, without importing it: a module exists only after its import."""
    return type(module).__name__ == name and type(module).__module__.startswith("ultralytics.")
