"""Optimiser, learning-rate schedule, moving average and numeric precision; `optim` is a `posture.config.Optim`."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from posture.errors import InputError


def build_optimizer(model: nn.Module, optim: Any) -> torch.optim.Optimizer:
    """Return SGD with momentum, Adam or AdamW, without weight decay for the parameters in `without_decay`."""
    spared = without_decay(model)
    parameters = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for name, parameter in parameters if name not in spared],
            "weight_decay": optim.weight_decay,
        },
        {"params": [parameter for name, parameter in parameters if name in spared], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if optim.name == "sgd":
        return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum)
    kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
    return kind(groups, lr=optim.lr, betas=(optim.momentum, 0.999))


def without_decay(model: nn.Module) -> set[str]:
    """Return names of the parameters without weight decay: norms and biases (one dimension or none), and those that a
    module lists in its own `without_decay`.

    That is a tuple of names of parameters or submodules: gains, temperatures and the like, which are not filters.
    """
    spared = {name for name, parameter in model.named_parameters() if parameter.ndim <= 1}
    for path, module in model.named_modules():
        for listed in getattr(module, "without_decay", ()):
            whole = f"{path}.{listed}" if path else listed
            spared |= {name for name, _ in model.named_parameters() if name == whole or name.startswith(f"{whole}.")}
    return spared


def learning_rate(step: int, *, optim: Any, steps_per_epoch: int, epochs: int) -> float:
    """Return the learning rate of optimiser step `step`, counted from 0 over the whole run.

    A linear warm-up, of at most half the run, to `optim.lr`; then half a cosine down to zero (Loshchilov 2017), or
    constant.
    """
    steps = steps_per_epoch * epochs
    warmup = min(round(optim.warmup_epochs * steps_per_epoch), steps // 2)
    if step < warmup:
        return optim.lr * ((step + 1) / warmup)
    if optim.schedule == "constant":
        return optim.lr
    return optim.lr * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give all parameter groups the same rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate


class Average:
    """Exponential moving average of a model's weights; buffers (running statistics) are copied.

    The decay starts low and rises to `decay`, min(decay, (1 + step) / (10 + step)), so that the first random weights
    are soon forgotten.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, *, step: int) -> None:
        """Move towards `model` after optimiser step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for averaged, current in zip(self.model.parameters(), model.parameters(), strict=True):
            averaged.lerp_(current, 1.0 - decay)
        for averaged, current in zip(self.model.buffers(), model.buffers(), strict=True):
            averaged.copy_(current)


class Precision:
    """Mixed precision of `scale.amp`: bf16, fp16 with a scaled loss (Micikevicius 2018), or none.

    `auto` is off on the CPU, bf16 on a GPU with compute capability 8 or more, fp16 on older ones.
    """

    def __init__(self, amp: str, device: torch.device) -> None:
        if amp == "auto":
            amp = (
                "off"
                if device.type != "cuda"
                else "bf16"
                if torch.cuda.get_device_capability(device)[0] >= 8
                else "fp16"
            )
        # torch 2.15 gets bf16 weight gradients of some 3-D convolutions wrong on the CPU
        if amp != "off" and device.type != "cuda":
            raise InputError(f"scale.amp={amp} needs a GPU, and this is {device}; choose off")
        self.device_type = device.type
        self.dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "off": None}[amp]
        self.scaler = torch.amp.GradScaler(device.type, enabled=amp == "fp16")

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)
