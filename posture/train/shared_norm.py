"""Batch normalisation with the statistics of all workers' clips, for CPUs. Importing this file loads torch's compiler,
which takes a second.
"""

# torch types running statistics as optional
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation (N, C, ...) with the statistics of all workers' clips, like `nn.SyncBatchNorm`, which
    supports GPUs only.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    @torch.compiler.disable  # a graph breaks here: the workers talk to each other
    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not distributed.is_initialized() or distributed.get_world_size() == 1:
            return super().forward(x)
        over, shape = [0, *range(2, x.ndim)], [1, -1, *[1] * (x.ndim - 2)]
        variance, mean = torch.var_mean(x, over, correction=0)  # (C,) of this worker's clips
        mean, variance, count = mean.double(), variance.double(), x.numel() / x.shape[1]
        sums = _Sum.apply(torch.stack([torch.full_like(mean, count), count * mean, count * (variance + mean**2)]))
        mean, variance = sums[1] / sums[0], sums[2] / sums[0] - (sums[1] / sums[0]) ** 2
        if self.track_running_stats:
            self._follow(mean.detach(), (variance * sums[0] / (sums[0] - 1)).detach())
        x = (x - mean.to(x.dtype).view(shape)) * (variance + self.eps).rsqrt().to(x.dtype).view(shape)
        return x * self.weight.view(shape) + self.bias.view(shape) if self.affine else x

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Move the running statistics towards a batch's, with the unbiased variance, as torch does."""
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


class _Sum(torch.autograd.Function):
    """Sum over all workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        distributed.all_reduce(total)
        return total
