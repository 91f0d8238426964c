"""Optimiser, learning-rate schedule, moving average and numeric precision; `optim` is a `posture.config.Optim`."""

from __future__ import annotations

import copy
import math
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from posture.errors import InputError


def build_optimizer(model: nn.Module, optim: Any, *, last: frozenset[str] = frozenset()) -> torch.optim.Optimizer:
    """Return SGD with momentum, Adam or AdamW over the parameters that have a gradient.

    Parameters in `without_decay` have no weight decay. Each group has a `rate`, its learning rate as a share of
    `optim.lr`, from `layer_rates`.
    """
    spared, rates = without_decay(model), layer_rates(model, optim, last=last)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((rates[name], name in spared), []).append(parameter)
    settings = [
        {"params": groups[key], "weight_decay": 0.0 if key[1] else optim.weight_decay, "rate": key[0]}
        for key in sorted(groups, key=lambda key: (-key[0], key[1]))
    ]
    if optim.name == "sgd":
        return torch.optim.SGD(settings, lr=optim.lr, momentum=optim.momentum)
    kind = torch.optim.Adam if optim.name == "adam" else torch.optim.AdamW
    return kind(settings, lr=optim.lr, betas=(optim.momentum, 0.999))


def layer_rates(model: nn.Module, optim: Any, *, last: frozenset[str]) -> dict[str, float]:
    """Return the learning rate of each parameter as a share of `optim.lr`, by name.

    The `last` layer's is `optim.head_lr`. The block before it has `optim.backbone_lr`, and each earlier one
    `optim.layer_decay` times that of the next. Blocks are the network's parts in their order, and the members of a
    numbered part. The two streams of Two-Stream are side by side. A module with a `rate_field` multiplies its
    parameters' rates by that field of `optim`.
    """
    names = [name for name, _ in model.named_parameters()]
    blocks = list(dict.fromkeys(_block(name) for name in names if name not in last))
    rates = {
        name: optim.head_lr
        if name in last
        else optim.backbone_lr * optim.layer_decay ** (len(blocks) - 1 - blocks.index(_block(name)))
        for name in names
    }
    for path, module in model.named_modules():
        if field := getattr(module, "rate_field", ""):
            for name, _ in module.named_parameters():
                rates[f"{path}.{name}"] *= getattr(optim, field)
    return rates


def _block(name: str) -> str:
    parts = name.split(".")[2 if name.startswith("streams.") else 0 :]
    return ".".join(parts[: 2 if parts[1:2] and parts[1].isdecimal() else 1])


def freeze(model: nn.Module, *, last: frozenset[str]) -> None:
    """Let only the parameters named `last` have a gradient."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in last)


def train_mode(network: nn.Module) -> None:
    """Put a network into training mode, but for norms that `freeze` has frozen: they keep their running statistics."""
    network.train()
    for module in network.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()


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
    """Give each parameter group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate"]


def average_decay(optim: Any, *, steps: int) -> float:
    """Return the decay of a run's moving average: `optim.ema`, but at most 1 - 1 / h for a horizon of h steps.

    h is `optim.ema_horizon` times the run's number of `steps`, and at least 1.
    """
    if not optim.ema_horizon:
        return optim.ema
    return min(optim.ema, 1.0 - 1.0 / max(1.0, optim.ema_horizon * steps))


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
