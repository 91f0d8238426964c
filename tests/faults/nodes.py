"""A Ray cluster of several nodes on this machine, and how to take a part of it away."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import descendants

LEAN = {"RAY_AUTH_MODE": "disabled", "RAY_prestart_worker_first_driver": "0", "OMP_NUM_THREADS": "1"}
"""Workers start when they are needed: fewer processes on a small machine."""


class Nodes:
    """Nodes of so many CPUs each, the first of them the head, in a process of their own (`tests/ray_nodes.py`). Close
    it.
    """

    def __init__(self, *cpus: float, environment: Mapping[str, str]) -> None:
        # a short path, and no other Ray's
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        own = LEAN | dict(environment) | {"RAY_TMPDIR": self._folder.name}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ray_nodes", *map(str, cpus)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | own,
        )
        self.environment = own | {"RAY_ADDRESS": self._answer()}
        """What commands need to run here."""

    def tell(self, command: str) -> None:
        """Have it done: `add`, `kill head`, `start`."""
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._answer()

    def raylets(self) -> dict[int, str]:
        return {
            process: command
            for process, command in descendants(self._process.pid).items()
            if "/raylet/raylet" in command.split(" ")[0]
        }

    def workers(self, title: str) -> dict[int, int]:
        """The Ray workers that are called so: {process: raylet of its node}."""
        called = [
            process
            for process, command in descendants(self._process.pid).items()
            if command.startswith("ray::") and title in command
        ]
        return {process: raylet for process in called if (raylet := _parent(process))}

    def others(self) -> list[int]:
        """The raylets of all nodes but the head."""
        return sorted(process for process, command in self.raylets().items() if " --head" not in command)

    def kill_node(self, raylet: int) -> None:
        """All of a node's processes at once, as when its power fails."""
        for process in (raylet, *descendants(raylet)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._folder.cleanup()

    def _answer(self) -> str:
        line = self._process.stdout.readline().strip()
        if not line:
            raise RuntimeError("the nodes did not start")
        return line


def _parent(process: int) -> int:
    """0 where it has ended."""
    try:
        return int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0
