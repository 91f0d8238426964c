"""State that the steps of a pass share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from posture.config import ActionRun
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.retrain.options import RetrainOptions
from posture.retrain.registry import Registry
from posture.runs.folder import RunFolder

Tell = Callable[[str], None]
Progress = Callable[[str], AbstractContextManager[Callable[..., None]]]
"""Function like `posture.display.console.progress`."""


@contextlib.contextmanager
def silent(what: str) -> Any:
    """Report no progress."""
    yield lambda *_: None


@dataclass(frozen=True)
class PassContext:
    """A running pass, which holds the registry's lease."""

    options: RetrainOptions
    run: ActionRun
    registry: Registry
    lease: Lease
    store: Store
    champion: str | None
    wish: str
    """Digest of the request (`digest_of_wish`)."""
    tell: Tell
    progress: Progress

    @property
    def runs(self) -> str:
        """Folder of the challengers' runs."""
        return self.options.runs or self.registry.path("runs")

    def folder(self, plan: dict[str, Any]) -> RunFolder:
        """Return the folder of the challenger's run."""
        return RunFolder(self.runs, plan["run"])

    def write(self, value: Any, *parts: str) -> None:
        """Write a file of the registry. Raises Busy if the lease was lost."""
        self.lease.check()
        self.registry.write_json(value, *parts)
