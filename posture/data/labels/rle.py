"""Compute the box around a COCO run-length mask (Lin 2014; the code of its API) without decoding the mask."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from posture.data.labels.records import BadLabel, Box
from posture.data.labels.tree import around, numbers

MAX_RUNS = 10_000_000


def rle_box(mask: dict[str, Any], where: str) -> Box:
    """Return the box around a mask {"size": [height, width], "counts": runs}.

    The runs of 0 and 1 alternate down the columns, as a list or as COCO's text. Raises BadLabel if they do not add up
    to the size, or no pixel is set.
    """
    size = mask.get("size")
    height, width = map(int, numbers(size, f"{where}: size")) if isinstance(size, list) and len(size) == 2 else (0, 0)
    counts = mask.get("counts")
    runs = (
        _runs(counts, where)
        if isinstance(counts, str)
        else list(map(int, numbers(counts if isinstance(counts, list) else [], f"{where}: counts")))
    )
    if not runs or min(runs) < 0 or len(runs) > MAX_RUNS or sum(runs) != height * width:
        raise BadLabel(f"{where}: the run lengths do not add up to the size, {height} x {width}")
    ends = list(accumulate(runs))
    corners: list[tuple[float, float]] = []
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        if start == end:
            continue
        first, last = divmod(start, height), divmod(end - 1, height)  # column and row
        top, bottom = (first[1], last[1]) if first[0] == last[0] else (0, height - 1)
        corners += [(first[0], top), (last[0] + 1, bottom + 1)]
    if not corners:
        raise BadLabel(f"{where}: the mask is empty")
    return around(corners)


def _runs(text: str, where: str) -> list[int]:
    """Decode COCO's text.

    A number is groups of 5 bits, the lowest first; a sixth bit says that more follow. From the fourth number on it is
    the difference to the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadLabel(f"{where}: counts is not COCO's run-length text")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
