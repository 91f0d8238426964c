"""Ranges of options."""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

import math
from typing import Any

from cyclopts import Parameter


def between(minimum: float, maximum: float = math.inf) -> Parameter:
    """Return a parameter that refuses numbers outside of the range. None, an option that was left out, passes, and so
    does a word.
    """
    allowed = f"at least {minimum:,}" if maximum == math.inf else f"from {minimum:,} to {maximum:,}"

    def check(_: Any, value: float | str | None) -> None:
        if value is not None and not isinstance(value, str) and not minimum <= value <= maximum:  # NaN is refused too
            raise ValueError(f"Must be {allowed}.")

    return Parameter(validator=check)
