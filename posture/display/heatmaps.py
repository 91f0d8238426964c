"""Heat over frames: a network's few positions laid on the images it looked at, and sheets of them to save and to log.

Legend: T frames, H x W their pixels; t x h x w the positions of a map. Frames are uint8 RGB (T, H, W, 3).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HEAT = "inferno"
"""matplotlib's colours of heat: evenly perceived, also in grey and by the colour-blind."""
COLDEST = 0.3
"""Where on that scale heat begins: below it lies black, which would read as shadow."""
DIM, COVER = 0.55, 0.75
"""How much light is left of a cold place, and how much of a hot one is covered by its colour."""
INK, SOFT, GROUND, LINES = "#1b1d20", "#5b6067", "#fdfdfb", ("#0b5fa5", "#c2570c", "#3f8f86", "#8a5a9e")
DOTS_PER_INCH = 120
SHEET_INCHES, MARGIN_INCHES, CURVE_INCHES = 12.0, 0.3, 3.4
WIDTH_INCHES = SHEET_INCHES - 2 * MARGIN_INCHES


@dataclass(frozen=True)
class HeatmapRow:
    """A filmstrip: what it shows, in what range, and its images with a caption each."""

    title: str
    note: str
    pictures: np.ndarray
    """(n, H, W, 3) uint8."""
    captions: list[str]


def over_frames(values: np.ndarray, frames: int, size: tuple[int, int]) -> np.ndarray:
    """A map (t, h, w) at every frame and pixel: (T, H, W) float32, linear in time, smooth in space, never outside the
    map's own range.
    """
    import cv2

    values = np.asarray(values, dtype=np.float32)
    spread = np.stack([over_time(column, frames) for column in values.reshape(len(values), -1).T], axis=1)  # (T, h * w)
    small = spread.reshape(frames, *values.shape[1:]).astype(np.float32)
    # of a position: hides the edges between them, no more
    softness = 0.3 * size[0] / values.shape[1], 0.3 * size[1] / values.shape[2]
    large = [cv2.resize(item, size[::-1], interpolation=cv2.INTER_LINEAR) for item in small]
    return np.stack([
        cv2.GaussianBlur(item, (0, 0), sigmaX=softness[1], sigmaY=softness[0], borderType=cv2.BORDER_REPLICATE)
        for item in large
    ])


def over_time(weights: np.ndarray, frames: int) -> np.ndarray:
    """Weights (t,) at every frame: (T,) float64. Each stands in the middle of the frames it is for; between them it is
    linear.
    """
    centres = (np.arange(len(weights)) + 0.5) * frames / len(weights) - 0.5
    return np.interp(np.arange(frames), centres, weights)


def stretched(maps: np.ndarray) -> np.ndarray:
    """Values moved to 0..1 by their least and largest; all 0 where they are all the same."""
    low, high = float(maps.min()), float(maps.max())
    return (maps - low) / (high - low) if high > low else np.zeros_like(maps)


def heated(frames: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Frames with heat (T, H, W) in 0..1 on them: cold places dim and grey, hot ones in the colours of `HEAT`; uint8
    (T, H, W, 3).
    """
    from matplotlib import colormaps

    images = frames.astype(np.float32) / 255.0
    grey = (images @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]
    glow = colormaps[HEAT](COLDEST + (1.0 - COLDEST) * heat)[..., :3].astype(np.float32)
    # a little later than the colour, so that lukewarm places stay readable
    strength = (heat.astype(np.float32) ** 1.3)[..., None]
    lit = (1.0 - strength) * DIM * grey + strength * images
    mixed = (1.0 - COVER * strength) * lit + COVER * strength * glow
    return (mixed.clip(0.0, 1.0) * 255.0).round().astype(np.uint8)


def flow_colours(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Motion (h, w, 2), dx and dy, as uint8 (H, W, 3): the hue is the direction, and the paler the slower; white stands
    still.
    """
    import cv2

    large = cv2.resize(np.asarray(flow, dtype=np.float32), size[::-1], interpolation=cv2.INTER_LINEAR)
    speed, direction = cv2.cartToPolar(large[..., 0], large[..., 1], angleInDegrees=True)
    fast = max(1.0, float(np.percentile(speed, 99)))  # a pixel at least, or stillness would look like noise
    colours = np.stack([direction / 2, 255 * (speed / fast).clip(0, 1), np.full_like(speed, 255)], axis=-1).astype(
        np.uint8
    )
    return cv2.cvtColor(colours, cv2.COLOR_HSV2RGB)


def sheet(title: str, rows: Sequence[HeatmapRow]) -> bytes:
    """Filmstrips one below the other: a PNG."""
    across = WIDTH_INCHES / max(len(row.pictures) for row in rows)
    heights = [_height(row, across) for row in rows]
    figure, top = _figure(title, inches=sum(heights))
    for row, height in zip(rows, heights, strict=True):
        _strip(figure, row, top=top, across=across)
        top -= height
    return _png(figure)


def curve_sheet(
    title: str,
    curves: dict[str, np.ndarray],
    seconds: np.ndarray,
    *,
    bounds: tuple[float, float],
    keys: Sequence[int],
    row: HeatmapRow,
) -> bytes:
    """Weights (T,) of each name over `seconds` (T,), the last one strong with the frames `keys` marked, above a
    filmstrip of them: a PNG.
    """
    across = WIDTH_INCHES / max(4, len(row.pictures))
    height = _height(row, across)
    figure, top = _figure(title, inches=CURVE_INCHES + height)
    total = figure.get_figheight()
    place = (0.8, top - CURVE_INCHES + 0.6, WIDTH_INCHES - 0.5, CURVE_INCHES - 1.0)  # inches: left, up, width, height
    axes = figure.add_axes(
        [length / whole for length, whole in zip(place, (SHEET_INCHES, total) * 2, strict=True)], facecolor="none"
    )
    *others, (name, strong) = curves.items()
    for number, (other, weights) in enumerate(others):
        axes.plot(seconds, weights, color=LINES[1 + number % 3], linewidth=1.5, linestyle="--", label=other)
    axes.plot(seconds, strong, color=LINES[0], linewidth=2.4, label=name)
    axes.plot(
        seconds[list(keys)],
        strong[list(keys)],
        "o",
        color=LINES[0],
        markersize=8,
        markeredgecolor=GROUND,
        clip_on=False,
        zorder=3,
    )
    axes.set(xlim=(seconds[0], seconds[-1]), ylim=bounds)
    axes.set_xlabel("seconds", color=SOFT)
    axes.legend(frameon=False, labelcolor=SOFT, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=4, borderaxespad=0.2)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#dcd9d1")
    axes.grid(axis="y", color="#ebe9e3")
    axes.tick_params(colors=SOFT, length=0, pad=7)
    _strip(figure, row, top=top - CURVE_INCHES, across=across)
    return _png(figure)


def _height(row: HeatmapRow, across: float) -> float:
    """Inches that a filmstrip takes when its images are `across` wide."""
    return across * row.pictures.shape[1] / row.pictures.shape[2] + 0.68


def _figure(title: str, *, inches: float) -> tuple[Any, float]:
    """A sheet with a title and `inches` of room below it; and the height above its foot at which that begins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SHEET_INCHES, inches + 0.7), dpi=DOTS_PER_INCH, facecolor=GROUND)
    FigureCanvasAgg(figure)  # which text is measured by
    _write(figure, MARGIN_INCHES, inches + 0.36, title, size=15, colour=INK, room=WIDTH_INCHES)
    return figure, inches


def _strip(figure: Any, row: HeatmapRow, *, top: float, across: float) -> None:
    """Draw a filmstrip from `top` inches above the foot downwards."""
    total, down = figure.get_figheight(), across * row.pictures.shape[1] / row.pictures.shape[2]
    taken = _write(
        figure, MARGIN_INCHES, top - 0.14, row.title, size=10.5, colour=INK, weight="bold", room=WIDTH_INCHES / 2
    )
    _write(
        figure,
        SHEET_INCHES - MARGIN_INCHES,
        top - 0.14,
        row.note,
        size=9.5,
        colour=SOFT,
        align="right",
        room=WIDTH_INCHES - taken - 0.2,
    )
    for place, (image, caption) in enumerate(zip(row.pictures, row.captions, strict=True)):
        left = MARGIN_INCHES + place * across
        axes = figure.add_axes((
            left / SHEET_INCHES,
            (top - 0.28 - down) / total,
            (across - 0.04) / SHEET_INCHES,
            down / total,
        ))
        axes.imshow(image, interpolation="lanczos", aspect="auto")
        axes.set_axis_off()
        _write(figure, left, top - 0.28 - down - 0.13, caption, size=9, colour=SOFT, room=across - 0.08)


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
    """A line of text whose middle is `up` inches above the sheet's foot, smaller if it needs more than `room` inches;
    returns the inches it takes.

    No letter in it is markup.
    """
    written = figure.text(
        left / SHEET_INCHES,
        up / figure.get_figheight(),
        text,
        fontsize=size,
        color=colour,
        weight=weight,
        ha=align,
        va="center",
        parse_math=False,
    )
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
    """Without matplotlib's warnings: letters that its typeface lacks become boxes; the page has them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")
        yield
