"""Posture: distributed training and search for sports footage, on Ray."""

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Return the module that the spaces of sweeps written by earlier versions import as `posture.sweep`."""
    if name != "sweep":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from posture.search import wandb_sweep

    return wandb_sweep
