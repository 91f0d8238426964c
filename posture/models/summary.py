"""What a network costs: parameters, and multiply-accumulates (GMAC; one MAC is two FLOP) of one clip."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from posture.models import build


def parameters(model: nn.Module) -> int:
    """Trainable numbers in `model`."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def gmacs(model: nn.Module, frames: int = 16, size: int = 112) -> float:
    """Multiply-accumulates, in 1e9, of a forward pass over one RGB clip of `frames` frames of `size` x `size`.

    Convolutions and matrix products are counted (half of torch's FLOP count); norms, activations and poolings are not.
    Only shapes are computed, wherever `model` is and without touching it.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        functional_call(model, shapes, torch.empty(1, 3, frames, size, size, device="meta"))
    return counter.get_total_flops() / 2 / 1e9


def table(named_configs: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each configuration: `name`, `parameters` at its own size, `gmacs_112` and `gmacs_56` for 16 frames of that size."""
    rows = []
    for name, config in named_configs.items():
        with torch.device("meta"):
            row: dict[str, Any] = {"name": name, "parameters": parameters(build(config))}
            for size in (112, 56):
                row[f"gmacs_{size}"] = gmacs(build(replace(config, frames=16, size=size)), 16, size)
        rows.append(row)
    return rows
