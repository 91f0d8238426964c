"""Memory that a network needs, computed before it is built: on torch's meta device, where tensors have no values.

Everything is in bytes, for float32.
"""

# torch types every submodule as Tensor | Module
# pyright: reportCallIssue=false

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from posture.errors import InputError
from posture.models.meta import build_on_meta

NUMBER = 4
"""Bytes of a float32."""
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Files with a container's memory limit, in versions 2 and 1 of Linux's control groups."""
STATES = {"sgd": 1, "adam": 2, "adamw": 2}
"""Values that each optimiser keeps for each parameter."""
SMALLER = {
    "action": "model.width, widths, depths, size, frames or scale.micro_batch",
    "detection": "model.width, depth, size or scale.micro_batch",
}
"""Fields that reduce memory, by task."""


@dataclass(frozen=True)
class Need:
    """Memory that training a run needs on each worker."""

    parameters: int
    weights: int
    """Bytes of the parameters, their gradients, the optimiser's state and the moving average."""
    activations: int
    """Bytes that a forward pass over a micro batch keeps for the backward pass; for torchvision's detectors, only those
    of the backbone.
    """

    @property
    def total(self) -> int:
        return self.weights + self.activations

    def __str__(self) -> str:
        need = _gigabytes(self.total)
        return f"{self.parameters:,} parameters; training takes at least {need} of memory for each worker"


def training_need(run: Any) -> Need:
    """Return the need of `run` (one of `posture.config`). It takes under a second, because nothing is computed."""
    network = build_on_meta(run.model)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    copies = 2 + STATES[run.optim.name] + bool(run.optim.ema)
    clips = run.scale.micro_batch or run.scale.global_batch // run.scale.sizes[0]
    clips *= run.views
    return Need(parameters, NUMBER * parameters * copies, clips * _activations(run.model))


def refuse_too_large(run: Any, device: torch.device) -> None:
    """Raise InputError, with the numbers, if training `run` needs more memory than `device` has."""
    need, there = training_need(run), memory(device)
    activations = need.activations // (2 if device.type == "cuda" and run.scale.amp != "off" else 1)  # half precision
    # the activations of a compiled network are not known in advance
    if need.weights + (0 if run.scale.compile else activations) > there:
        raise InputError(
            f"model: {need}, but this machine's {device} has {_gigabytes(there)}; choose smaller {SMALLER[run.task]}"
        )


def refuse_unbuildable(config: Any) -> None:
    """Raise InputError, with the numbers, if the parameters of `config`'s network do not fit in memory."""
    parameters, there = _parameters(config), memory(torch.device("cpu"))
    if NUMBER * parameters > there:
        raise InputError(
            f"model: {parameters:,} parameters take {_gigabytes(NUMBER * parameters)} of memory, but this machine has "
            f"{_gigabytes(there)}; choose smaller widths or depths"
        )


def memory(device: torch.device) -> int:
    """Return the memory of a GPU; for the CPU, that of this machine or its container's limit."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    limits = [
        int(text)
        for file in CGROUP_LIMITS
        if Path(file).is_file() and (text := Path(file).read_text().strip()).isdigit()
    ]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


@functools.lru_cache(maxsize=1024)
def _parameters(config: Any) -> int:
    return sum(parameter.numel() for parameter in build_on_meta(config).parameters())


@functools.lru_cache(maxsize=64)
def _activations(config: Any) -> int:
    """Return the bytes of all tensors that autograd keeps for one clip or image, without the parameters."""
    from posture.models.summary import input_shapes

    network = build_on_meta(config).train()
    shapes = (
        input_shapes(config.inputs, frames=config.frames, size=config.size, clips=2)
        if hasattr(config, "inputs")
        else [(2, 3, config.size, config.size)]
    )
    forward = network.backbone if getattr(config, "takes_targets", False) else network
    own = {tensor.untyped_storage()._cdata for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in own:
            kept[tensor.untyped_storage()._cdata] = tensor  # held, so that no other storage gets its number
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        forward(*(torch.empty(shape, device="meta") for shape in shapes))
    # two clips: norms need more than one value
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 2


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"
