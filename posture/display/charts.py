"""Geometry of the charts that `charts.html` draws as SVG.

Colours are classes of the style sheet, so that a chart follows light and dark mode.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from posture.display.text import short

Points = Sequence[tuple[float, float]]

LOOKS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
"""Looks of the lines of one chart, in turn; those after the fourth are styled in `comparison.html`."""
NARROW = 380
"""Width of a chart in a narrow column, in units of the drawing (about a pixel)."""
LETTER = 6.6
"""Mean width of a letter in a chart, in these units."""


@dataclass(frozen=True)
class ChartLine:
    """One curve. `look` is its class in the style sheet: first, second, third, fourth, faint or guide."""

    name: str
    points: Points
    look: str = "first"
    listed: bool = True
    """Show the line in the legend."""


@dataclass(frozen=True)
class Dot:
    """A mark at (x, y) with a hover text and a `label` beside it. `look` is that of its line."""

    x: float
    y: float
    radius: float = 3.5
    text: str = ""
    label: str = ""
    look: str = "first"


@dataclass(frozen=True)
class Bar:
    """A rectangle from the x axis up to `y`, between `left` and `right`, with a hover text."""

    left: float
    right: float
    y: float
    text: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves, marks and bars over two linear axes; `x` and `y` convert values to positions in the drawing."""

    title: str
    x_label: str
    y_label: str
    x_ticks: list[float]
    y_ticks: list[float]
    lines: list[ChartLine] = field(default_factory=list)
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
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1
        )

    def path(self, line: ChartLine) -> str:
        """Return the SVG path of a curve; values that are not finite interrupt it."""
        steps, pen = [], "M"
        for x, y in line.points:
            if math.isfinite(x) and math.isfinite(y):
                steps.append(f"{pen}{self.x(x):g} {self.y(y):g}")
                pen = "L"
            else:
                pen = "M"
        return "".join(steps)

    @property
    def legend(self) -> list[tuple[ChartLine, str]]:
        """The listed lines with their texts: the name, and the names of lines that coincide with it and are hidden."""
        covered: set[int] = set()
        entries = []
        for index, line in reversed(list(enumerate(self.lines))):
            if not line.listed or index in covered:
                continue
            hidden = [
                other
                for other in range(index)
                if self.lines[other].listed and other not in covered and self._same(line, self.lines[other])
            ]
            covered.update(hidden)
            entries.append((
                line,
                line.name
                + (f", and the same: {', '.join(self.lines[other].name for other in hidden)}" if hidden else ""),
            ))
        return entries[::-1]

    @property
    def coinciding(self) -> str:
        """A sentence on coinciding lines that are not listed, except faint ones; empty if there are none."""
        groups: list[list[ChartLine]] = []
        for line in self.lines:
            if line.listed or line.look in ("faint", "guide") or len(line.points) < 2:
                continue
            group = next((group for group in groups if self._same(group[0], line)), None)
            if group is None:
                groups.append([line])
            else:
                group.append(line)
        same = [" = ".join(line.name for line in group) for group in groups if len(group) > 1]
        return f"The same curve: {'; '.join(same)}." if same else ""

    def _same(self, line: ChartLine, other: ChartLine) -> bool:
        """Return True if two lines look the same: at each x they are within one unit of each other."""
        if [x for x, _ in line.points] != [x for x, _ in other.points]:
            return False
        pairs = [(first, second) for (_, first), (_, second) in zip(line.points, other.points, strict=True)]
        return bool(pairs) and all(
            math.isfinite(first) == math.isfinite(second)
            and (not math.isfinite(first) or abs(self.y(first) - self.y(second)) <= 1)
            for first, second in pairs
        )

    @property
    def notes(self) -> list[tuple[float, float, str, str]]:
        """Positions of the labels of the dots, (x, y, anchor, label), without overlap; a label without room is
        dropped.
        """
        taken: list[tuple[float, float, float, float]] = []
        placed = []
        for dot in self.dots:
            if not dot.label:
                continue
            x, y, length = self.x(dot.x), self.y(dot.y), LETTER * len(dot.label)
            for anchor, down in itertools.product(
                ("start", "end") if x <= 0.6 * self.width else ("end", "start"), (-8, 18)
            ):
                left, base = (x + 8 if anchor == "start" else x - 8 - length), y + down
                box = (left, base - 11, left + length, base + 3)
                if (
                    left >= 0
                    and box[2] <= self.width
                    and box[1] >= 0
                    and box[3] <= self.height - self.bottom
                    and not any(_overlap(box, one) for one in taken)
                ):
                    taken.append(box)
                    placed.append((x + 8 if anchor == "start" else x - 8, round(base, 1), anchor, dot.label))
                    break
        return placed

    @property
    def narrow(self) -> Chart | None:
        """The same chart for a narrow column, with fewer ticks; None if this one is narrow enough."""
        if self.width <= NARROW:
            return None
        step = -(-len(self.x_ticks) // 6)
        kept = (
            self.x_ticks[::step] if (len(self.x_ticks) - 1) % step == 0 else [*self.x_ticks[:-1:step], self.x_ticks[-1]]
        )
        kept = kept if len(kept) < 3 or kept[-1] - kept[-2] > 0.7 * (kept[1] - kept[0]) else [*kept[:-2], kept[-1]]
        return replace(self, x_ticks=kept, width=NARROW, height=min(self.height, 300))


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    """Return True if two boxes (left, top, right, bottom) overlap."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def over_epochs(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """Return (epoch, value) of each record of history.json; NaN, which interrupts a curve, if it has no value."""
    return [
        (float(row.get("epoch", index + 1)), math.nan if row.get(key) is None else float(row[key]))
        for index, row in enumerate(history)
    ]


def ticks(low: float, high: float, about: int = 5, *, whole: bool = False) -> list[float]:
    """Return evenly spaced round numbers that cover `low` to `high`; with `whole`, integers only."""
    if not high > low:
        low, high = (low, low + 1) if whole else (min(low, 0.0), max(high, 0.0) or 1.0)
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    if whole:
        step = max(1.0, round(step))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{index * step:.12g}") for index in range(first, last + 1)]


LONGEST = 44
"""Maximum number of letters of a name in a drawing; the tables have the full name."""


@dataclass(frozen=True)
class Cell:
    """One field of a confusion matrix."""

    x: float
    y: float
    count: int
    share: float
    right: bool
    text: str


@dataclass(frozen=True)
class Matrix:
    """The drawing of a confusion matrix: rows are true, columns predicted classes; the shade is the share of the row.

    Empty fields are not drawn.
    """

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
        """Return the font size at which `count` fits its field."""
        return round(min(13.0, self.side * 0.5, self.side * 1.45 / len(str(count))), 1)


def matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], *, width: float = 1040.0) -> Matrix:
    """Lay out a confusion matrix within `width`; it is readable for up to about 100 classes.

    `counts`: (K, K) segments, rows are true, columns predicted classes.
    """
    total = len(classes)
    names = [short(name, LONGEST) for name in classes]
    longest = max((len(name) for name in names), default=1)
    slant = 45 if total <= 24 else 90
    margin, edge = 34.0, 4.0  # for the words "true" beside and "predicted" above; for the outline

    def around(label_size: float) -> tuple[float, float, float]:
        """Return the room left of, above and right of the fields (slanted names overhang)."""
        length, angle = longest * label_size * 0.58, math.radians(slant)
        return margin + length, margin + length * math.sin(angle) + label_size, max(edge, length * math.cos(angle))

    def side_beside(label_size: float) -> float:
        left, _, right = around(label_size)
        return min(42.0, (width - left - right) / max(total, 1))

    label_size = 13.0
    for _ in range(3):  # names and fields share the width, so their sizes depend on each other
        label_size = min(13.0, side_beside(label_size) * 0.85)
    side, (left, top, right) = side_beside(label_size), around(label_size)

    cells = []
    for truth, row in enumerate(counts):
        for guess, count in enumerate(row):
            if count:
                share, x, y = count / sum(row), left + guess * side, top + truth * side
                text = f"{classes[truth]} predicted as {classes[guess]}: {count} of {sum(row)} ({100 * share:.0f} %)"
                cells.append(Cell(round(x, 1), round(y, 1), count, round(share, 3), truth == guess, text))
    return Matrix(
        names=names,
        present=[sum(row) > 0 for row in counts],
        cells=cells,
        side=round(side, 2),
        left=round(left, 1),
        top=round(top, 1),
        label_size=round(label_size, 1),
        slant=slant,
        width=round(left + total * side + right, 1),
        height=round(top + total * side + edge, 1),
    )


@dataclass(frozen=True)
class Column:
    """One bar of a group: its value, with a whisker from `low` to `high`; None draws nothing."""

    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""


@dataclass(frozen=True)
class Columns:
    """Groups of bars side by side, one bar for each series, with whiskers."""

    title: str
    series: list[str]
    groups: list[tuple[list[str], list[Column]]]
    """For each group, the lines of its name and a bar for each of `series`."""
    y_ticks: list[float]
    width: int = 1040
    height: int = 330

    left = 50
    right = 6
    top = 12

    @property
    def bottom(self) -> int:
        """Room for the names."""
        return 16 + 16 * max((len(name) for name, _ in self.groups), default=1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1
        )

    @property
    def step(self) -> float:
        """Width of a group with its gap."""
        return (self.width - self.left - self.right) / max(len(self.groups), 1)

    @property
    def bar(self) -> float:
        """Width of one bar."""
        return min(26.0, self.step * 0.78 / max(len(self.series), 1))

    def x(self, group: int, series: int) -> float:
        """Return the left edge of a bar."""
        return round(self.left + self.step * (group + 0.5) + self.bar * (series - len(self.series) / 2), 1)


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval, None if there is none. `look`: right, wrong or unsure."""

    name: str
    value: float
    low: float | None
    high: float | None
    look: str
    text: str


@dataclass(frozen=True)
class Intervals:
    """Values with intervals around zero, one per row, below their names."""

    title: str
    x_label: str
    x_ticks: list[float]
    rows: list[Interval]
    width: int = 340

    left = 12
    right = 12
    row = 40
    top = 4
    bottom = 44

    @property
    def height(self) -> int:
        return self.top + self.row * len(self.rows) + self.bottom

    def x(self, value: float) -> float:
        """Return the position of a value, clipped to the ticks."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return round(
            self.left + (min(max(value, low), high) - low) / (high - low) * (self.width - self.left - self.right), 1
        )

    def y(self, row: int) -> float:
        """Return the position of an interval; its name is above."""
        return self.top + self.row * (row + 0.7)
