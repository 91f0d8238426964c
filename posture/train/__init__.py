"""The training loop. Once imported, this module is called in the place of the function `posture.train`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _CallableModule(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Call the function `posture.train`."""
        return sys.modules["posture"]._train(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
