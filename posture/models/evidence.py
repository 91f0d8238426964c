"""Evidence for a prediction: weights of the attention blocks, and Grad-CAM of one class (Selvaraju 2017, arXiv
1610.02391).

Tensor legend: C channels, t x h x w positions of a feature map, M streams fused late, K classes. One clip at a time, in
evaluation mode.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from posture.models.attention import CBAM, STCBAM

FINE = 5
"""Minimum positions along the shorter side of a feature map to locate something in a frame."""


@dataclass(frozen=True)
class Attention:
    """Weights, each in 0..1, of one attention block for one clip."""

    name: str
    """Position of the block in the network, for example `stage4`."""
    spatial: np.ndarray
    """(t, h, w) float32; t is 1 if one map is used for the whole clip (equation 15)."""
    temporal: np.ndarray | None
    """(t,) float32 (equation 16); None if the block has no attention over time."""


@dataclass(frozen=True)
class ClassMap:
    """Grad-CAM of one class in one stream, at one layer."""

    stream: int
    layer: str
    """Name of the module that made the feature map."""
    values: np.ndarray
    """(t, h, w) float32, at least 0, in the score's units; all 0 if nothing supports the class."""
    flat: bool
    """True for a 2-D network, which sees only the clip's middle (t is 1)."""


@dataclass(frozen=True)
class Evidence:
    """Attention and class maps of one forward pass."""

    attention: list[Attention]
    """In the order of the forward pass; empty for a network without attention."""
    class_maps: list[ClassMap]
    """For each stream the deepest map, followed by a finer one if that is coarse."""


Map = tuple[str, Tensor, Callable[[Tensor], Tensor]]
"""Name of the module that made a feature map, its output, and a function that brings that, or its gradient, into the
shape (N, C, t, h, w).
"""


def evidence(model: nn.Module, inputs: Sequence[Tensor], *, target: int) -> Evidence:
    """Return the evidence of one clip for class `target`; `inputs` are the arguments of `model`, each with N = 1.

    Grad-CAM's layer is the last feature map (several channels at several positions; 5-D, or 4-D in a 2-D network) that
    the class's score depends on and that is not the output of a pooling. If it is less than `FINE` positions high or
    wide, the last one that is not is added: it locates more exactly, but is less specific to the class. Each of M
    streams has its own score and maps.
    """
    with torch.enable_grad(), _watched(model.eval()) as (maps, attention):
        outputs = model(*(one.detach().requires_grad_() for one in inputs))  # (1, K) or (1, M, K)
    scores = outputs.reshape(-1, outputs.shape[-1])[:, target]  # (1,) or (M,)
    return Evidence(
        attention, [found for stream, score in enumerate(scores) for found in _class_maps(stream, score, maps)]
    )


@contextlib.contextmanager
def _watched(model: nn.Module) -> Iterator[tuple[list[Map], list[Attention]]]:
    """Within it, fill the first list with feature maps in a forward pass; after it, the second list has the weights."""
    maps: list[Map] = []
    channels_last = hasattr(model, "patch_embed")  # Video Swin's are (N, t, h, w, C)
    pooled: list[Tensor] = []
    weights: dict[str, dict[str, np.ndarray]] = {}

    def keep_map(name: str, module: nn.Module, __: Any, output: Any) -> None:
        stage, _, inner = name.partition(".")
        if stage == "blocks":  # MViT's tokens: one for the whole clip, then the positions'
            if inner.isdecimal():
                tokens, sides = output
                maps.append((name, tokens, lambda x: x[:, 1:].unflatten(1, tuple(sides)).movedim(-1, 1)))
        elif not isinstance(output, Tensor) or output.ndim not in (4, 5):
            return
        elif channels_last:
            if stage == "features" and output.ndim == 5:
                maps.append((name, output, lambda x: x.movedim(-1, 1)))
        elif "Pool" in type(module).__name__:
            pooled.append(output)
        # A container returns its last part's output, which is no feature map of its own if that was a pooling.
        elif output.shape[1] > 1 and output.shape[-2:].numel() > 1 and not any(output is other for other in pooled):
            maps.append((name, output, lambda x: x))

    def keep_weights(name: str, kind: str, _: nn.Module, __: Any, output: Tensor) -> None:
        weights.setdefault(name, {})[kind] = output.detach().float().cpu().numpy()

    handles = []
    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(partial(keep_map, name)))
        for kind, part in module.named_children() if isinstance(module, CBAM | STCBAM) else ():
            handles.append(part.register_forward_hook(partial(keep_weights, name, kind)))
    attention: list[Attention] = []
    try:
        yield maps, attention
    finally:
        for handle in handles:
            handle.remove()
    for name, label in zip(weights, _labels(list(weights)), strict=True):
        temporal = weights[name].get("temporal")  # (1, 1, t, 1, 1)
        attention.append(
            Attention(label, weights[name]["spatial"][0, 0], None if temporal is None else temporal.reshape(-1))
        )


def _class_maps(stream: int, score: Tensor, maps: list[Map]) -> list[ClassMap]:
    """Return Grad-CAM, equations (1) and (2) of Selvaraju 2017 with time as a third axis: ReLU(sum_k alpha_k A_k)."""
    outputs = [output for _, output, _ in maps]
    gradients = torch.autograd.grad(score, outputs, retain_graph=True, allow_unused=True)
    reached = [
        (name, as_map(output), as_map(gradient))
        for (name, output, as_map), gradient in zip(maps, gradients, strict=True)
        if gradient is not None
    ]
    # Other scores in the same tensor get a gradient too: of zeros.
    found = [item for item in reached if item[2].any()] or reached
    deepest = found[-1]
    finer = [item for item in found if min(item[1].shape[-2:]) >= FINE]
    chosen = [deepest, finer[-1]] if finer and min(deepest[1].shape[-2:]) < FINE else [deepest]
    class_maps = []
    for layer, features, gradient in chosen:
        importance = gradient.mean(tuple(range(2, features.ndim)), keepdim=True)  # alpha_k, (1, C, 1, 1, 1)
        values = (importance * features.detach()).sum(dim=1).relu()[0]  # (t, h, w), or (h, w)
        class_maps.append(
            ClassMap(stream, layer, values.reshape(-1, *values.shape[-2:]).float().cpu().numpy(), features.ndim == 4)
        )
    return class_maps


def _labels(names: list[str]) -> list[str]:
    """Return the stage of each module, numbered if a stage has several blocks."""
    stages = [name.split(".")[0] for name in names]
    return [
        stage if stages.count(stage) == 1 else f"{stage}, block {stages[:number].count(stage) + 1}"
        for number, stage in enumerate(stages)
    ]
