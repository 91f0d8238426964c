"""Numbers in words."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """`1 clip`, `1,200 clips`, `2 classes`: `many` is the plural of `one` if that is not made by an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
