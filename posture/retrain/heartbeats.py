"""Who watches a registry: each `posture watch` keeps a small file there, REGISTRY/watchers/<host>-<process>.json, as
long as it lives.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from typing import Any

from posture.data.store.files import exists, list_files
from posture.retrain.registry import JSON, Registry, remove_file

SILENT_SECONDS = 120.0
"""A watcher that has not been heard of for so long was killed, or its machine is off."""


class Heartbeat:
    """The file of this process. `schedule` says in words when passes are due."""

    def __init__(self, registry: Registry, *, schedule: str, footage: str) -> None:
        self._registry = registry
        self._known = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "schedule": schedule,
            "footage": footage,
            "began": time.time(),
        }
        self._name = re.sub(r"[^A-Za-z0-9._-]", "-", f"{self._known['host']}-{os.getpid()}.json")

    def beat(self, state: dict[str, Any]) -> None:
        """Write `state`, {next, working_since}. Storage that is away for a moment stops nothing."""
        with contextlib.suppress(Exception):
            self._registry.write_json(self._known | state | {"beat": time.time()}, "watchers", self._name)

    def end(self) -> None:
        """Remove the file; and those of watchers that fell silent, which nobody else would. Storage that is away keeps
        them.
        """
        with contextlib.suppress(Exception):
            remove_file(self._registry.path("watchers", self._name))
            for watcher in watchers(self._registry):
                if not watcher["lives"]:
                    remove_file(self._registry.path("watchers", watcher["file"]))


def watchers(registry: Registry) -> list[dict[str, Any]]:
    """What each watcher wrote last, with its `file`, and whether it still `lives`."""
    place = registry.path("watchers")
    if not exists(place):
        return []
    found = [
        (file.relative, registry.read_json("watchers", file.relative)) for file in list_files(place, suffixes=JSON)
    ]
    return [
        watcher | {"file": name, "lives": time.time() - watcher["beat"] < SILENT_SECONDS}
        for name, watcher in found
        if watcher
    ]
