"""Randomness within networks that depends on the clip or image, not on its batch or worker.

Each row of a batch has a key (see `posture.train.batches.Batch.keys`), and a part of a network draws its numbers from
the row's key and its own position in the network. Call `set_keys` before a forward pass in training; without keys they
draw from torch's generator, as torch does.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

BITS = 24
"""Bits of a random number: the precision of float32."""


class Keyed:
    """A module whose randomness is a function of the keys of its rows."""

    keys: Tensor | None = None
    """(N,) int64, keys of the next batch; None draws from torch's generator."""


class KeyedDropout(Keyed, nn.Dropout):
    """Dropout (N, ...) with a mask that is a function of each row's key, this layer and the position in the row."""

    def forward(self, x: Tensor) -> Tensor:
        if self.keys is None or not self.training or not self.p:
            return functional.dropout(x, self.p, self.training)
        kept = random_bits(self.keys, x[0].numel()).view(x.shape) >= round(self.p * 2**BITS)
        return torch.where(kept, x / (1 - self.p), 0.0)


class KeyedDepth(Keyed, nn.Module):
    """Stochastic depth (Huang 2016, arXiv 1603.09382): drop a whole row (N, ...) of a residual branch with probability
    `p`, as a function of the row's key and this layer; rows that stay are divided by 1 - p.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        if self.keys is None:
            dropped = torch.rand(len(x), device=x.device) < self.p
        else:
            dropped = random_bits(self.keys, 1)[:, 0] < round(self.p * 2**BITS)
        return torch.where(dropped.view(-1, *[1] * (x.ndim - 1)), 0.0, x / (1 - self.p))


def set_keys(network: nn.Module, keys: np.ndarray | None, device: torch.device | str = "cpu") -> None:
    """Give each `Keyed` part of a network keys of its own for the next batch, from those of its rows, (N,) int64.

    None removes them.
    """
    for number, part in enumerate(module for module in network.modules() if isinstance(module, Keyed)):
        part.keys = None if keys is None else _mixed(torch.from_numpy(keys) + number).to(device)


def random_bits(keys: Tensor, count: int) -> Tensor:
    """Return uniform integers from 0 to 2**BITS - 1, (N, count) int64, for keys (N,) int64; equal on all devices."""
    return (_mixed(keys[:, None] + torch.arange(1, count + 1, device=keys.device) * _GOLDEN) >> (64 - BITS)) & (
        2**BITS - 1
    )


_GOLDEN, _FIRST, _SECOND = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mixed(numbers: Tensor) -> Tensor:
    """Apply SplitMix64's output function (Steele 2014, "Fast splittable pseudorandom number generators"); products of
    int64 wrap around.
    """
    numbers = (numbers ^ _shifted(numbers, 30)) * _FIRST
    numbers = (numbers ^ _shifted(numbers, 27)) * _SECOND
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shift to the right with zeros from the left: torch's own shift repeats the sign."""
    return (numbers >> bits) & (2 ** (64 - bits) - 1)
