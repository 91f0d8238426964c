"""CUDA graphs: networks whose kernels a GPU launches all at once.

With an image or two per pass, a GPU mostly waits for Python to launch the next kernel. The kernels of a network depend
only on the shape of its input, so they are recorded once for each shape and replayed afterwards.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

WARM_UPS = 3
"""Passes before a recording: libraries choose their kernels and allocate memory in the first ones."""
MAX_SHAPES = 8
"""Maximum number of recordings, which each keep memory of their own; other shapes run kernel by kernel."""


class Graphed:
    """A network in evaluation mode on a GPU, called with one tensor under `torch.inference_mode`.

    It is recorded when a shape comes for the second time, with autocast as it is then. The outputs are overwritten by
    the next call with that shape: use them before. Raises RuntimeError for a network that waits for the GPU within, as
    torchvision's detectors do to suppress overlaps.
    """

    def __init__(self, forward: Callable[[Tensor], Any]) -> None:
        self.forward = forward
        self._seen: set[Any] = set()
        self._recorded: dict[Any, tuple[torch.cuda.CUDAGraph, Tensor, Any]] = {}

    def __call__(self, inputs: Tensor) -> Any:
        key = (inputs.shape, inputs.stride(), inputs.dtype, inputs.device)
        if key not in self._seen or (key not in self._recorded and len(self._recorded) == MAX_SHAPES):
            self._seen.add(key)
            return self.forward(inputs)
        with torch.cuda.device(inputs.device):  # with several GPUs, a worker's need not be the process's current one
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
            main, streams = torch.cuda.current_stream(), []

            def begin() -> None:
                streams.append(torch.cuda.Stream())
                streams[-1].wait_stream(main)
                torch.cuda.set_stream(streams[-1])

            with around_branches(self.forward, begin, lambda: torch.cuda.set_stream(main)):
                outputs = self.forward(kept)
            for stream in streams:
                main.wait_stream(stream)
        return graph, kept, outputs


@contextlib.contextmanager
def around_branches(network: Any, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
    """Within it, call `begin` before and `end` after each of the network's `branches`.

    A branch is a part that ends in an output of its own, so it can run beside the rest: the names of its first and
    last module. `forward` must hold the input of a branch until it returns; otherwise the rest would overwrite it.
    """
    hooks = []
    for first, last in getattr(network, "branches", ()) if isinstance(network, nn.Module) else ():
        hooks.append(network.get_submodule(first).register_forward_pre_hook(lambda *_: begin()))
        hooks.append(network.get_submodule(last).register_forward_hook(lambda *_: end()))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
