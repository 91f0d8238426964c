"""A Ray Train worker, as the training loop sees it; and the board through which it talks to the command that waits for it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from torch import nn

from posture.errors import InputError
from posture.runs import RunFolder
from posture.train.context import publish


@ray.remote(num_cpus=0)
class Board:
    """Progress from rank 0 to the command, and the wish to stop the other way."""

    def __init__(self) -> None:
        self._update: dict[str, Any] = {}
        self._stop = False

    def post(self, update: dict[str, Any]) -> bool:
        """Take rank 0's newest numbers; answer whether training should stop."""
        self._update |= update
        return self._stop

    def read(self) -> dict[str, Any]:
        return self._update

    def ask_to_stop(self) -> None:
        self._stop = True


class RayContext:
    """This Ray Train worker among its peers."""

    def __init__(self, folder: RunFolder, board: Any) -> None:
        place = ray.train.get_context()
        self.rank, self.world_size = place.get_world_rank(), place.get_world_size()
        self.device = ray.train.torch.get_device()
        self._folder, self._board = folder, board
        self._answer: Any = None
        self._stop = False
        if self.device.type == "cpu":
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.get_local_world_size()))
        if self.rank == 0:
            board.post.remote({"device": self.device_name, "world_size": self.world_size, "host": socket.gethostname(), "process": os.getpid()})

    @property
    def device_name(self) -> str:
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"CPU ({torch.get_num_threads()} threads)"

    def wrap(self, model: nn.Module) -> nn.Module:
        """DDP; batch statistics over all workers where there is a GPU (SyncBatchNorm knows no CPU)."""
        if self.world_size == 1:
            return model
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
            return nn.parallel.DistributedDataParallel(model, device_ids=[self.device], gradient_as_bucket_view=True)
        return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)

    def sum(self, totals: Any) -> np.ndarray:
        values = np.asarray(totals, dtype=np.float64)
        if self.world_size == 1:
            return values
        tensor = torch.from_numpy(values.copy()).to(self.device)
        dist.all_reduce(tensor)
        return tensor.cpu().numpy()

    def gather(self, value: Any) -> list[Any]:
        if self.world_size == 1:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        if self.world_size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def should_stop(self) -> bool:
        return self._stop

    def report(self, metrics: dict[str, Any], checkpoint: Callable[[Path], None] | None, *, best: bool) -> None:
        refusal = None
        if self.rank == 0 and checkpoint is not None:
            try:
                publish(self._folder, metrics, checkpoint, best=best)
            except InputError as error:
                refusal = str(error)
        if refusal := self.broadcast(refusal):  # all workers end together: none waits for the others
            raise InputError(refusal)
        if self.rank == 0:
            self._board.post.remote({"record": metrics})
        ray.train.report(metrics)

    def progress(self, update: dict[str, Any]) -> None:
        """Post to the board without waiting for it, unless the last post is still under way; its answer says whether to stop."""
        if self.rank != 0:
            return
        if self._answer is not None:
            if not ray.wait([self._answer], timeout=0)[0]:
                return
            self._stop = self._stop or ray.get(self._answer)
        self._answer = self._board.post.remote(update)
