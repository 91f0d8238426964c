"""Networks whose kernels a GPU launches all at once: CUDA graphs.

Looking at an image or two, a GPU waits for Python to launch the next kernel most of the time. What a network launches
depends on the shape of its input alone, so it is recorded once for each shape and replayed from then on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

WARM_UPS = 3
"""Passes before a recording: libraries choose their kernels and take their memory in the first ones."""
MOST_SHAPES = 8
"""Each recording keeps memory of its own; input of further shapes is computed kernel by kernel."""


class Graphed:
    """`forward`, of a network in evaluation on a GPU, called as it is, with one tensor, under `torch.inference_mode`.

    Recorded when a shape comes for the second time, with autocast as it is then. The outputs are overwritten by the
    next call with that shape: use them up before. A network that waits for the GPU within (torchvision's detectors do,
    to suppress overlaps) cannot be recorded: RuntimeError.
    """

    def __init__(self, forward: Callable[[Tensor], Any]) -> None:
        self.forward = forward
        self._came: set[Any] = set()
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Any]] = {}

    def __call__(self, inputs: Tensor) -> Any:
        key = (inputs.shape, inputs.stride(), inputs.dtype, inputs.device)
        if key not in self._came or (key not in self._recorded and len(self._recorded) == MOST_SHAPES):
            self._came.add(key)
            return self.forward(inputs)
        with torch.cuda.device(inputs.device):  # of several, a worker's may not be the process's current one
            if key not in self._recorded:
                self._recorded[key] = self._record(inputs)
            graph, kept, outputs = self._recorded[key]
            kept.copy_(inputs)
            graph.replay()
        return outputs

    def _record(self, inputs: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor, Any]:
        kept, now, beside = inputs.clone(), torch.cuda.current_stream(), torch.cuda.Stream()
        beside.wait_stream(now)
        with torch.cuda.stream(beside):
            for _ in range(WARM_UPS):
                self.forward(kept)
        now.wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may go on with the GPU
            outputs = self.forward(kept)
        return graph, kept, outputs


class Branches:
    """Parts of a network that end in outputs of their own: a recording has them beside the rest, on a GPU that has
    room, else they come in turn.

    What a branch is given must be held until `join`: the rest of the network would write over it.
    """

    def __init__(self) -> None:
        self._streams: list[torch.cuda.Stream] = []
        self._outputs: list[Tensor] = []

    def start(self, branch: Callable[[Tensor], Tensor], x: Tensor) -> None:
        if not _is_recorded(x):
            self._outputs.append(branch(x))
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._outputs.append(branch(x))
        self._streams.append(stream)

    def join(self) -> list[Tensor]:
        """The outputs, in the order of their starts."""
        for stream in self._streams:
            torch.cuda.current_stream().wait_stream(stream)
        return self._outputs


def _is_recorded(x: Tensor) -> bool:
    return x.is_cuda and not torch.compiler.is_compiling() and torch.cuda.is_current_stream_capturing()
