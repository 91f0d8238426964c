"""Numbers, dates and lists in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeGuard

THIN_SPACE = "\u202f"  # narrow and unbreakable: between a number and its unit
NOTHING = "–"


def counted(number: int, one: str, many: str = "") -> str:
    """Return `1 clip`, `1,200 clips` or `2 classes`; `many` is the plural if it is not `one` with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(words: Sequence[Any], last: str = "and") -> str:
    """Return `one`, `one and two`, or `one, two and three`; `last` is the word before the last item."""
    head, tail = ", ".join(map(str, words[:-1])), str(words[-1]) if words else ""
    return f"{head} {last} {tail}" if head else tail


def short(name: str, longest: int) -> str:
    """Return the name, cut to `longest` letters."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def percent(share: float | None, digits: int = 1) -> str:
    """Return 0.573 as `57.3 %`."""
    return f"{100 * share:.{digits}f}{THIN_SPACE}%" if _known(share) else NOTHING


def decimal(value: float | None, digits: int = 3) -> str:
    """Return 0.5734 as `0.573`."""
    return f"{value:.{digits}f}" if _known(value) else NOTHING


def confidence(value: float | None) -> str:
    """Return 0.573 as `0.57` and 0.0049 as `0.0049`, since a very low threshold must not read as zero."""
    return decimal(value, 2 if not value or value >= 0.01 else 4)


def whole(value: float | None) -> str:
    """Return 78409573 as `78,409,573`."""
    return f"{value:,.0f}" if _known(value) else NOTHING


def amount(value: float) -> str:
    """Return 38.55 as `38.55` and 0.2142 as `0.214`, since the sizes of networks span orders of magnitude."""
    return f"{value:,.{2 if value >= 1 else 3}f}"


def signed(value: float, digits: int = 1) -> str:
    """Return 4.12 as `+4.1`, with a true minus sign; a value that rounds to zero has no sign."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0 else f"{'+' if value > 0 else '−'}{text}"


def duration(seconds: float | None, digits: int = 0, space: str = " ") -> str:
    """Return 4980 as `1 h 23 min`: the two largest units. Seconds below a minute have `digits` decimals."""
    if not _known(seconds):
        return NOTHING
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f}{space}s"
    rest = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, length) in enumerate(units) if rest >= length)
    parts = []
    for name, length in units[first : first + 2]:
        number, rest = divmod(rest, length)
        if number:
            parts.append(f"{number}{space}{name}")
    return " ".join(parts)


def clock(seconds: float, digits: int = 1) -> str:
    """Return a time in a video as a player shows it: 63.25 as `1:03.2`, 3723 as `1:02:03.0`."""
    total = round(seconds * 10**digits)
    minutes, rest = divmod(total, 60 * 10**digits)
    hours, minutes = divmod(minutes, 60)
    width = 3 + digits if digits else 2
    return f"{f'{hours}:{minutes:02d}' if hours else minutes}:{rest / 10**digits:0{width}.{digits}f}"


def size(count: float | None, space: str = " ") -> str:
    """Return a number of bytes as `1.2 GB` (powers of ten)."""
    if not _known(count):
        return NOTHING
    power = min(4, int(math.log10(count) / 3 + 1e-9)) if count >= 1 else 0
    return f"{count / 1000**power:.{1 if power else 0}f}{space}{('B', 'kB', 'MB', 'GB', 'TB')[power]}"


def moment(value: Any) -> str:
    """Return a datetime, an ISO 8601 text or Unix seconds as `3 May 2025, 14:05 UTC`; any other text as it is."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, int | float):
        value = datetime.fromtimestamp(value, UTC)
    if not isinstance(value, datetime):
        try:
            value = datetime.fromisoformat(str(value))
        except ValueError:
            return str(value)
    zone = ""
    if value.tzinfo is not None:
        value, zone = value.astimezone(UTC), " UTC"
    return f"{value.day} {value:%B %Y, %H:%M}{zone}"


def stamp(seconds: float | None) -> str:
    """Return Unix seconds as `2025-05-03 14:05 UTC`, which sorts as text."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC" if seconds else "-"


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)
