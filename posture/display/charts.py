"""Geometry of the charts, drawn as SVG by `charts.html`. Colours are style-sheet classes, so that a chart follows light
and dark.
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
"""Of the lines of one chart, in turn; those after the fourth are styled in `comparison.html`."""


NARROW = 380
"""Width of a chart in a narrow column, in the drawing's units, which are about those of the screen there."""
LETTER = 6.6
"""Mean width of a letter in a chart, in the drawing's units."""


@dataclass(frozen=True)
class ChartLine:
    """One curve. `look` is its class in the style sheet: first, second, third, fourth, faint or guide."""

    name: str
    points: Points
    look: str = "first"
    listed: bool = True
    """Named in the legend."""


@dataclass(frozen=True)
class Dot:
    """A mark at (x, y) with a hover text; `label` is written beside it. `look` is that of its line."""

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
    """Curves, marks and bars over two linear axes; `x`, `y` turn values into positions in the drawing."""

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
        """The curve's SVG path; values that are not finite break it."""
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
        """The lines that are listed, each with what its key says: its name, and the lines that it hides because they
        run the same way.
        """
        covered: set[int] = set()
        entries = []
        for place, line in reversed(list(enumerate(self.lines))):
            if not line.listed or place in covered:
                continue
            hidden = [
                other
                for other in range(place)
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
        """A sentence on lines without a key that run the same way; empty if there are none. Faint ones are many, and
        are not told apart anyway.
        """
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
        """Whether two lines cannot be told apart in the drawing: at each x they lie within a unit of each other."""
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
        """Where the labels of the dots stand, (x, y, anchor, label): beside their dots, none on another. One that has
        no room is left out.
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
    """Whether two boxes (left, top, right, bottom) share any room."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def over_epochs(history: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of each record of a history.json; NaN, which breaks a curve, where it has no value."""
    return [
        (float(row.get("epoch", place + 1)), math.nan if row.get(key) is None else float(row[key]))
        for place, row in enumerate(history)
    ]


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


LONGEST = 44
"""Letters of a name in a drawing; of a longer one the rest is cut, and it is whole in the tables."""


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
    """A confusion matrix as a drawing: rows = truth, columns = guess; shade = share of the row; empty fields are left
    out.
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
        """Type size at which `count` fits its field."""
        return round(min(13.0, self.side * 0.5, self.side * 1.45 / len(str(count))), 1)


def matrix(counts: Sequence[Sequence[int]], classes: Sequence[str], *, width: float = 1040.0) -> Matrix:
    """Lay out a confusion matrix of any number of classes (readable to about a hundred) within `width`.

    `counts`: (K, K) segments, rows = truth, columns = guess.
    """
    total = len(classes)
    names = [short(name, LONGEST) for name in classes]
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

    @property
    def bottom(self) -> int:
        """Room for the names below."""
        return 16 + 16 * max((len(name) for name, _ in self.groups), default=1)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return round(
            self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom), 1
        )

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
    """Values and intervals below their names, one a row, around zero."""

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
        """Values beyond the ticks stop at the edge."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return round(
            self.left + (min(max(value, low), high) - low) / (high - low) * (self.width - self.left - self.right), 1
        )

    def y(self, row: int) -> float:
        """The height of an interval; its name stands above."""
        return self.top + self.row * (row + 0.7)
