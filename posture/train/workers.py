"""A network spread over several workers, with averaged gradients and batch statistics over all workers' clips."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel


def spread(model: nn.Module, device: torch.device) -> nn.Module:
    """Return the model in DDP, with batch statistics over all workers of torch's default process group.

    Its parameters stay the same objects.
    """
    if device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        return DistributedDataParallel(model, device_ids=[device], gradient_as_bucket_view=True)
    share_norms(model)
    return DistributedDataParallel(model, gradient_as_bucket_view=True)


def share_norms(model: nn.Module) -> None:
    """Replace each batch normalisation within the model by a `SharedBatchNorm`."""
    from posture.train.shared_norm import SharedBatchNorm

    for module in list(model.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, _BatchNorm):
                shared = SharedBatchNorm(
                    norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
                ).train(norm.training)
                shared._parameters, shared._buffers = norm._parameters, norm._buffers
                setattr(module, name, shared)
