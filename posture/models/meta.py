"""Networks without weights, to count and to measure them before they are built."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class ShapesOnly(TorchFunctionMode):
    """A mode that leaves out what changes neither a shape nor a count: random initial weights, norms, activations, and
    sums and products that have the shape of their first argument.

    On the meta device they take most of the time, because torch computes their shapes in Python.
    """

    LEFT_OUT = frozenset({
        nn.init.kaiming_uniform_,
        nn.init.uniform_,
        nn.init.normal_,
        Tensor.normal_,
        Tensor.uniform_,
        functional.batch_norm,
        functional.group_norm,
        functional.layer_norm,
        functional.relu,
        functional.silu,
        functional.gelu,
        functional.dropout,
    })
    BINARY = frozenset({Tensor.add, Tensor.sub, Tensor.mul})

    def __torch_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), settings: dict[str, Any] | None = None
    ) -> Any:
        settings = settings or {}
        if function not in self.LEFT_OUT and not (function in self.BINARY and _fits_into(*arguments)):
            return function(*arguments, **settings)
        return arguments[0] if arguments else settings["tensor"]


def _fits_into(first: Any, second: Any) -> bool:
    """Return True if the sum of both has the shape of the first."""
    if not isinstance(second, Tensor):
        return True
    ends = zip(reversed(first.shape), reversed(second.shape), strict=False)
    return second.ndim <= first.ndim and all(side in (1, whole) for whole, side in ends)


def build_on_meta(config: Any) -> nn.Module:
    """Return the network of `config` on the meta device: its shapes, without weights."""
    from posture.models import build

    with torch.device("meta"), ShapesOnly():
        return build(config)


def class_tensors(config: Any) -> frozenset[str]:
    """Return the names of the tensors whose shape depends on the number of classes: those of the last layer."""
    own, one_more = (build_on_meta(one).state_dict() for one in (config, replace(config, classes=config.classes + 1)))
    return frozenset(name for name, tensor in own.items() if tensor.shape != one_more[name].shape)
