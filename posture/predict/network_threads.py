"""Threads in which networks run side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class NetworkThreads:
    """On a CPU, as many threads as torch uses for an operation, each with operations of one thread; on a GPU, one.

    Threads that share an operation wait for each other at its end, and much longer if the machine has other work.
    Threads that share the images wait once for each batch.
    """

    def __init__(self, device: Any) -> None:
        """`device` is a torch.device."""
        import torch

        self.count = torch.get_num_threads() if device.type == "cpu" else 1
        """Number of threads."""
        self._pool = ThreadPoolExecutor(self.count, thread_name_prefix="network")
        if self.count > 1:
            started = threading.Barrier(self.count + 1)
            for _ in range(self.count):
                self._pool.submit(_use_one, started)
            started.wait()
            torch.set_num_threads(self.count)  # of threads to come; `_use_one` changed it

    def mapped(self, function: Callable[[Any], list[Result]], items: Any) -> Callable[[], list[Result]]:
        """Begin to call `function` with parts of a sequence or an array, one part for each thread.

        Returns a function that waits, and returns the results of all items in order.
        """
        size = max(1, -(-len(items) // self.count))
        parts = [self._pool.submit(function, items[at : at + size]) for at in range(0, len(items), size)]
        return lambda: [result for part in parts for result in part.result()]


def _use_one(started: threading.Barrier) -> None:
    """Let operations of this thread use no other threads."""
    import torch

    torch.get_num_threads()  # a thread takes the process's number when it first asks, and then keeps its own
    torch.set_num_threads(1)
    started.wait()
