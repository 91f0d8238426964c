"""Features of a clip: the inputs of a classifier's last layer, in which similar clips lie close together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

from torch import Tensor, nn


def last_layers(model: nn.Module) -> list[nn.Linear | nn.Conv3d]:
    """Return the layer that scores the classes: one, or one for each stream."""
    streams = getattr(model, "streams", None)
    parts = streams.values() if isinstance(streams, nn.ModuleDict) else [model]
    return [[module for module in part.modules() if isinstance(module, nn.Linear | nn.Conv3d)][-1] for part in parts]


@contextlib.contextmanager
def penultimate(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within it, fill the list in each forward pass with the input of the last linear layer, (N, D), of each stream.

    If that layer is a convolution over single positions, whose outputs are averaged, it is the average of its inputs.
    """
    taken: list[Tensor] = []

    def keep(stream: int, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        taken[stream : stream + 1] = [
            inputs[0].detach().flatten(2).mean(2) if inputs[0].ndim > 2 else inputs[0].detach()
        ]

    handles = [
        layer.register_forward_pre_hook(partial(keep, stream)) for stream, layer in enumerate(last_layers(model))
    ]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()
