"""PNG sheets drawn by matplotlib, to save and to log: filmstrips, curves, images with boxes.

All positions are inches from the lower left corner of the sheet.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.display.boxed_images import COLOURS, DASHED, Box, frame_all
from posture.display.charts import LOOKS, Chart

INK, SOFT, GROUND, FAINT = "#1b1d20", "#5b6067", "#fdfdfb", "#b4b9bf"
LINES = ("#0b5fa5", "#c2570c", "#3f8f86", "#8a5a9e")
LINE_COLOURS = dict(zip(LOOKS, LINES, strict=False))
"""Colours of a chart's first lines; further ones are faint."""
DOTS_PER_INCH = 120
SHEET_INCHES, MARGIN_INCHES, CURVE_INCHES, CHART_INCHES = 12.0, 0.3, 3.4, 5.0
WIDTH_INCHES = SHEET_INCHES - 2 * MARGIN_INCHES


@dataclass(frozen=True)
class Filmstrip:
    """A row of images with a title, a note and a caption for each."""

    title: str
    note: str
    images: np.ndarray
    """(n, H, W, 3) uint8."""
    captions: list[str]


def filmstrip_sheet(title: str, rows: Sequence[Filmstrip]) -> bytes:
    """Draw filmstrips one below the other; return a PNG."""
    width = WIDTH_INCHES / max(len(row.images) for row in rows)
    heights = [_height(row, width) for row in rows]
    figure, top = _figure(title, inches=sum(heights))
    for row, height in zip(rows, heights, strict=True):
        _strip(figure, row, top=top, width=width)
        top -= height
    return _png(figure)


def curve_sheet(
    title: str,
    curves: dict[str, np.ndarray],
    seconds: np.ndarray,
    *,
    bounds: tuple[float, float],
    keys: Sequence[int],
    row: Filmstrip,
) -> bytes:
    """Draw weights (T,) over `seconds` (T,) above a filmstrip; return a PNG.

    The last curve is strong, with the frames `keys` marked.
    """
    width = WIDTH_INCHES / max(4, len(row.images))
    figure, top = _figure(title, inches=CURVE_INCHES + _height(row, width))
    axes = _axes(figure, 0.8, top - CURVE_INCHES + 0.6, WIDTH_INCHES - 0.5, CURVE_INCHES - 1.0)
    *others, (name, strong) = curves.items()
    for index, (other, weights) in enumerate(others):
        axes.plot(seconds, weights, color=LINES[1 + index % 3], linewidth=1.5, linestyle="--", label=other)
    axes.plot(seconds, strong, color=LINES[0], linewidth=2.4, label=name)
    marks = {"color": LINES[0], "markersize": 8, "markeredgecolor": GROUND, "clip_on": False, "zorder": 3}
    axes.plot(seconds[list(keys)], strong[list(keys)], "o", **marks)
    axes.set(xlim=(seconds[0], seconds[-1]), ylim=bounds)
    axes.set_xlabel("seconds", color=SOFT)
    axes.legend(frameon=False, labelcolor=SOFT, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)
    _strip(figure, row, top=top - CURVE_INCHES, width=width)
    return _png(figure)


def chart_sheet(title: str, note: str, chart: Chart) -> bytes:
    """Draw the lines of a chart with their legend beside it; return a PNG."""
    figure, top = _figure(title, inches=CHART_INCHES + 1.1)
    _write(figure, MARGIN_INCHES, top - 0.05, note, size=10.5, colour=SOFT, room=WIDTH_INCHES)
    axes = _axes(figure, 0.9, 0.7, CHART_INCHES * 1.2, CHART_INCHES)
    for line in chart.lines:
        x, y = zip(*line.points, strict=True)
        colour = LINE_COLOURS.get(line.look.split()[0], FAINT)
        label = line.name if line.listed else None
        axes.plot(x, y, color=colour, linewidth=2.4 if line.look == "first" else 1.2, label=label)
    axes.set(xlim=(chart.x_ticks[0], chart.x_ticks[-1]), ylim=(chart.y_ticks[0], chart.y_ticks[-1]))
    axes.set_xlabel(chart.x_label, color=SOFT)
    axes.set_ylabel(chart.y_label, color=SOFT)
    if any(line.listed for line in chart.lines):
        axes.legend(frameon=False, labelcolor=SOFT, loc="upper left", bbox_to_anchor=(1.02, 1.0))
    return _png(figure)


def boxes_sheet(title: str, note: str, images: Sequence[tuple[np.ndarray, Sequence[Box]]], columns: int = 4) -> bytes:
    """Draw images, uint8 (h, w, 3) RGB, with their boxes, `columns` in a row; return a PNG."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    shots = frame_all(images)
    columns = max(2, min(columns, len(shots)))
    width = WIDTH_INCHES / columns
    height = width * shots[0]["height"] / shots[0]["width"] if shots else 0.0
    figure, top = _figure(title, inches=0.5 + -(-len(shots) // columns) * height)
    _write(figure, MARGIN_INCHES, top - 0.05, note, size=9.5, colour=SOFT, room=WIDTH_INCHES)
    for index, shot in enumerate(shots):
        row, column = divmod(index, columns)
        left, up = MARGIN_INCHES + column * width, top - 0.3 - (row + 1) * height
        axes = _bare_axes(figure, left, up + 0.06, width - 0.06, height - 0.06)
        ends = (shot["left"], shot["left"] + shot["image_width"], shot["top"] + shot["image_height"], shot["top"])
        axes.imshow(shot["pixels"], extent=ends, aspect="auto")
        axes.set(xlim=(0, shot["width"]), ylim=(shot["height"], 0))
        for mark in shot["marks"]:
            style = {"edgecolor": COLOURS[mark["kind"]], "linestyle": "--" if mark["kind"] in DASHED else "-"}
            casing = [withStroke(linewidth=3.4, foreground="black")]
            at = (mark["x"], mark["y"])
            axes.add_patch(
                Rectangle(at, mark["width"], mark["height"], fill=False, linewidth=1.8, path_effects=casing, **style)
            )
        for mark in shot["marks"]:
            casing = [withStroke(linewidth=2.2, foreground="black")]
            style = {
                "color": COLOURS[mark["kind"]],
                "fontsize": 7.5,
                "parse_math": False,
                "clip_on": True,
                "path_effects": casing,
            }
            axes.text(mark["tag_x"], mark["tag_y"], mark["tag"], **style)
    return _png(figure)


def _height(row: Filmstrip, width: float) -> float:
    """Return the height of a filmstrip whose images are `width` wide."""
    return width * row.images.shape[1] / row.images.shape[2] + 0.68


def _figure(title: str, *, inches: float) -> tuple[Any, float]:
    """Return a sheet with a title, and the height at which its content, `inches` high, begins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHEET_INCHES, inches + 0.7), dpi=DOTS_PER_INCH, facecolor=GROUND)
    FigureCanvasAgg(figure)  # measures text
    _write(figure, MARGIN_INCHES, inches + 0.36, title, size=15, colour=INK, room=WIDTH_INCHES)
    return figure, inches


def _bare_axes(figure: Any, left: float, up: float, width: float, height: float) -> Any:
    """Add axes without ticks, lines or ground."""
    total = figure.get_figheight()
    axes = figure.add_axes((left / SHEET_INCHES, up / total, width / SHEET_INCHES, height / total), facecolor="none")
    axes.set_axis_off()
    return axes


def _axes(figure: Any, left: float, up: float, width: float, height: float) -> Any:
    """Add the axes of a chart, in the style of the pages."""
    axes = _bare_axes(figure, left, up, width, height)
    axes.set_axis_on()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#dcd9d1")
    axes.grid(axis="y", color="#ebe9e3")
    axes.tick_params(colors=SOFT, length=0, pad=7)
    return axes


def _strip(figure: Any, row: Filmstrip, *, top: float, width: float) -> None:
    """Draw a filmstrip from `top` downwards."""
    height = width * row.images.shape[1] / row.images.shape[2]
    room = WIDTH_INCHES / 2
    taken = _write(figure, MARGIN_INCHES, top - 0.14, row.title, size=10.5, colour=INK, weight="bold", room=room)
    right, room = SHEET_INCHES - MARGIN_INCHES, WIDTH_INCHES - taken - 0.2
    _write(figure, right, top - 0.14, row.note, size=9.5, colour=SOFT, align="right", room=room)
    for index, (image, caption) in enumerate(zip(row.images, row.captions, strict=True)):
        left, foot = MARGIN_INCHES + index * width, top - 0.28 - height
        _bare_axes(figure, left, foot, width - 0.04, height).imshow(image, interpolation="lanczos", aspect="auto")
        _write(figure, left, foot - 0.13, caption, size=9, colour=SOFT, room=width - 0.08)


def _write(
    figure: Any,
    left: float,
    up: float,
    text: str,
    *,
    size: float,
    colour: str,
    room: float,
    weight: str = "normal",
    align: str = "left",
) -> float:
    """Write a line of text, never read as markup, with its middle at `up`; return its width.

    Text wider than `room` is written smaller.
    """
    at = (left / SHEET_INCHES, up / figure.get_figheight())
    style = {"fontsize": size, "color": colour, "weight": weight, "ha": align, "va": "center"}
    written = figure.text(*at, text, parse_math=False, **style)
    with _any_letters():
        wide = written.get_window_extent(figure.canvas.get_renderer()).width / figure.dpi
    if wide > room:
        written.set_fontsize(0.98 * size * room / wide)
    return min(wide, room)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    with _any_letters():
        figure.savefig(buffer, format="png")
    return buffer.getvalue()


@contextlib.contextmanager
def _any_letters() -> Iterator[None]:
    """Silence matplotlib's warnings about letters that its typeface lacks; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield
