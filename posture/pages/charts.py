"""Geometry of the charts, drawn as SVG by `charts.html`. Colours are style-sheet classes, so that a chart follows light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posture.pages import short

Points = Sequence[tuple[float, float]]

LOOKS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
"""Of the lines of one chart, in turn; those after the fourth are styled in `comparison.html`."""


@dataclass(frozen=True)
class Line:
    """One curve. `look` is its class in the style sheet: first, second, third, fourth, faint or guide."""

    name: str
    points: Points
    look: str = "first"
    listed: bool = True
    """Named in the legend."""


@dataclass(frozen=True)
class Dot:
    """A mark at (x, y) with a hover text; `label` is written beside it."""

    x: float
    y: float
    radius: float = 3.5
    text: str = ""
    label: str = ""


@dataclass(frozen=True)
class Bar:
    """A rectangle from the x axis up to `y`, between `left` and `right`, with a hover text."""

    left: float
    right: float
    y: float
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves, marks and bars over two linear axes; `x`, `y` turn values into positions in the drawing."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[float]
    y_ticks: list[float]
    lines: list[Line] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    width: int = 480
    height: int = 300

    left = 50
    right = 14
    top = 12
    bottom = 42

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return round(self.left + (value - low) / (high - low) * (self.width - self.left - self.right), 1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1)

    def path(self, line: Line) -> str:
        """The curve's SVG path; values that are not finite break it."""
        steps, pen = [], "M"
        for x, y in line.points:
            if math.isfinite(x) and math.isfinite(y):
                steps.append(f"{pen}{self.x(x):g} {self.y(y):g}")
                pen = "L"
            else:
                pen = "M"
        return "".join(steps)


def over_epochs(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of each record of a history.json; NaN, which breaks a curve, where it has no value."""
    return [(float(row.get("epoch", place + 1)), math.nan if row.get(key) is None else float(row[key])) for place, row in enumerate(history)]


def ticks(low: float, high: float, about: int = 5, *, whole: bool = False) -> list[float]:
    """Round numbers, evenly spaced, from at or below `low` to at or above `high`; `whole`: integers only."""
    if not high > low:
        low, high = (low, low + 1) if whole else (min(low, 0.0), max(high, 0.0) or 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


@dataclass(frozen=True)
class Cell:
    """One field of a confusion matrix: position, count, share of its row, hover text."""

    x: float
    y: float
    count: int
    share: float
    right: bool
    text: str


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix as a drawing: rows = truth, columns = guess; shade = share of the row; empty fields are left out."""

    names: list[str]
    present: list[bool]
    cells: list[Cell]
    side: float
    """Width and height of one field."""
    left: float
    top: float
    label_size: float
    slant: int
    """Angle of the column names in degrees."""
    width: float
    height: float

    def count_size(self, count: int) -> float:
        """Type size at which `count` fits its field."""
        return round(min(13.0, self.side * 0.5, self.side * 1.45 / len(str(count))), 1)


def matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], *, width: float = 1040.0) -> Matrix:
    """Lay out a confusion matrix of any number of classes (readable to about a hundred) within `width`.

    `counts`: (K, K) segments, rows = truth, columns = guess.
    """
    total = len(classes)
    names = [short(name, 24) for name in classes]
    longest = max((len(name) for name in names), default=1)
    slant = 45 if total <= 24 else 90
    margin, edge = 34.0, 4.0  # for the word "truth" beside and "guess" above; for the outline

    def around(label_size: float) -> tuple[float, float, float]:
        """Room left of the fields, above them, and right of them (slanted names overhang)."""
        length, angle = longest * label_size * 0.58, math.radians(slant)
        return margin + length, margin + length * math.sin(angle) + label_size, max(edge, length * math.cos(angle))

    def side_beside(label_size: float) -> float:
        left, _, right = around(label_size)
        return min(42.0, (width - left - right) / max(total, 1))

    label_size = 13.0
    for _ in range(3):  # names and fields share the width: settle their sizes together
        label_size = min(13.0, side_beside(label_size) * 0.85)
    side, (left, top, right) = side_beside(label_size), around(label_size)

    cells = []
    for truth, row in enumerate(counts):
        for guess, count in enumerate(row):
            if count:
                share, x, y = count / sum(row), left + guess * side, top + truth * side
                text = f"{classes[truth]} → {classes[guess]}: {count} of {sum(row)} ({100 * share:.0f} %)"
                cells.append(Cell(round(x, 1), round(y, 1), count, round(share, 3), truth == guess, text))
    return Matrix(
        names=names, present=[sum(row) > 0 for row in counts], cells=cells, side=round(side, 2), left=round(left, 1), top=round(top, 1),
        label_size=round(label_size, 1), slant=slant, width=round(left + total * side + right, 1), height=round(top + total * side + edge, 1))


@dataclass(frozen=True)
class Column:
    """One bar of a group: its value, and the least and the most it had; None draws nothing."""

    value: float | None
    least: float | None = None
    most: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Columns:
    """Groups of bars side by side, a look for each place within a group, with whiskers from least to most."""

    title: str
    series: list[str]
    groups: list[tuple[list[str], list[Column]]]
    """The lines of a name, and a bar for each of `series`."""
    y_ticks: list[float]
    width: int = 1040
    height: int = 330

    left = 50
    right = 6
    top = 12
    bottom = 48

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1)

    @property
    def step(self) -> float:
        """Width of a group with the gap after it."""
        return (self.width - self.left - self.right) / max(len(self.groups), 1)

    @property
    def bar(self) -> float:
        """Width of one bar."""
        return min(26.0, self.step * 0.78 / max(len(self.series), 1))

    def x(self, group: int, place: int) -> float:
        """The left edge of a bar."""
        return round(self.left + self.step * (group + 0.5) + self.bar * (place - len(self.series) / 2), 1)


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, None where there is none. `look`: right, wrong or unsure."""

    name: str
    value: float
    low: float | None
    high: float | None
    look: str
    text: str


@dataclass(frozen=True)
class Intervals:
    """Values and intervals beside their names, one a row, around zero."""

    title: str
    x_label: str
    x_ticks: list[float]
    rows: list[Interval]
    width: int = 340

    left = 112
    right = 12
    row = 26
    top = 8
    bottom = 44

    @property
    def height(self) -> int:
        return self.top + self.row * len(self.rows) + self.bottom

    def x(self, value: float) -> float:
        """Values beyond the ticks stop at the edge."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return round(self.left + (min(max(value, low), high) - low) / (high - low) * (self.width - self.left - self.right), 1)

    def y(self, row: int) -> float:
        return self.top + self.row * (row + 0.5)
