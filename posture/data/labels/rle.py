"""Masks as COCO run-length encodes them (Lin 2014; the code of its API) -> the box around what is set, without the
mask.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Any

from posture.data.labels.records import BadLabel, Box
from posture.data.labels.tree import around, numbers

MOST_RUNS = 10_000_000


def rle_box(mask: dict[str, Any], where: str) -> Box:
    """The box around a mask {"size": [height, width], "counts": runs of 0 and 1 in turn, down the columns, as a list or
    COCO's text}.

    Raises BadLabel if the runs are not as long as the mask, or nothing is set.
    """
    size = mask.get("size")
    height, width = map(int, numbers(size, f"{where}: size")) if isinstance(size, list) and len(size) == 2 else (0, 0)
    counts = mask.get("counts")
    runs = (
        _runs(counts, where)
        if isinstance(counts, str)
        else list(map(int, numbers(counts if isinstance(counts, list) else [], f"{where}: counts")))
    )
    if not runs or min(runs) < 0 or len(runs) > MOST_RUNS or sum(runs) != height * width:
        raise BadLabel(f"{where}: its run lengths do not add up to its size, {height} x {width}")
    ends = list(accumulate(runs))
    corners: list[tuple[float, float]] = []
    for start, end in zip(ends[::2], ends[1::2], strict=False):
        if start == end:
            continue
        first, last = divmod(start, height), divmod(end - 1, height)  # column and row
        top, bottom = (first[1], last[1]) if first[0] == last[0] else (0, height - 1)
        corners += [(first[0], top), (last[0] + 1, bottom + 1)]
    if not corners:
        raise BadLabel(f"{where}: nothing is set in its mask")
    return around(corners)


def _runs(text: str, where: str) -> list[int]:
    """COCO's text: numbers in groups of 5 bits, the lowest first, a sixth bit if more follow; from the fourth on, the
    difference to the one before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadLabel(f"{where}: counts is not COCO's text of run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return runs
