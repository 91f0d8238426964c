"""What a classifier knows of a clip just before it names a class: the inputs of its last layer, in which near copies
lie close together.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn


@contextlib.contextmanager
def penultimate(model: nn.Module) -> Iterator[list[Tensor]]:
    """Within it the list holds, after each forward pass, what went into the last linear layer, (N, D); of M streams,
    into the last one of each.
    """
    streams = list(model.streams.values()) if isinstance(getattr(model, "streams", None), nn.ModuleDict) else [model]
    last = [[module for module in stream.modules() if isinstance(module, nn.Linear)][-1] for stream in streams]
    taken: list[Tensor] = []

    def keep(place: int, inputs: tuple[Tensor, ...]) -> None:
        taken[place : place + 1] = [inputs[0].detach()]

    handles = [
        layer.register_forward_pre_hook(lambda _, inputs, place=place: keep(place, inputs))
        for place, layer in enumerate(last)
    ]
    try:
        yield taken
    finally:
        for handle in handles:
            handle.remove()
