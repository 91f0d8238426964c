"""Networks. `build(config)` imports the architecture it needs when it needs it; `posture.models.configs` needs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn


def build(config: Any) -> nn.Module:
    """The network of one of the dataclasses in `posture.models.configs`, with fresh weights from torch's global generator.

    Raises ValueError for a `kind` that has no network.
    """
    if config.kind == "c3d":
        from posture.models.c3d import C3D

        return C3D(config)
    raise ValueError(f"kind must be one of 'c3d', not {config.kind!r}")
