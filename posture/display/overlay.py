"""Draw on frames of footage: boxes with tags, and a timeline below the image.

Frames are uint8 RGB (H, W, 3) and changed in place; boxes are xyxy in pixels; colours are `#rrggbb`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from posture.display.colours import ink

GROUND, SEPARATOR, PLAYHEAD = "#16181b", "#2b2f34", "#ffffff"
TEXT_SHARE = 0.022
"""Height of letters, as a share of the square root of the image's pixels."""
MIN_TEXT, SMALLEST_TEXT = 13, 8
"""Pixels. Letters are at least 13 high, unless a tag would be wider than the image."""
MAX_TIMELINE = 0.25
"""Maximum height of a timeline, as a share of the image's height."""
MIN_ROW = 4
"""Minimum height of a row in pixels."""


@dataclass(frozen=True)
class Mark:
    """A box with a tag."""

    box: Sequence[float]
    text: str
    colour: str


@dataclass(frozen=True)
class RowPart:
    """A coloured part of a row of a timeline, from `start` to `end` in seconds."""

    start: float
    end: float
    colour: str
    text: str


@dataclass(frozen=True)
class Row:
    """One row of a timeline, with a short name at its left."""

    name: str
    stretches: Sequence[RowPart]


class Overlay:
    """An image of `height` x `width` pixels with a timeline of the seconds `start` to `end` below it.

    Text is drawn in DejaVu Sans; letters that it lacks appear as boxes.
    """

    def __init__(self, height: int, width: int, rows: Sequence[Row], *, start: float, end: float) -> None:
        self._height, self._width = height, width
        self._start, self._seconds = start, max(end - start, 1e-6)
        self.text = max(MIN_TEXT, round(TEXT_SHARE * math.sqrt(height * width)))
        self._edge = max(2, round(self.text / 9))
        at_most = max(1, int(MAX_TIMELINE * height / MIN_ROW))
        self.hidden_rows = max(0, len(rows) - at_most)
        """Number of rows for which there is no room: the last ones."""
        self._margin = 0
        self._strip = self._drawn(rows[:at_most])
        self._tags: list[tuple[int, int, int, int]] = []

    def canvas(self, frame: np.ndarray) -> np.ndarray:
        """Return a new image: the frame, and the timeline below it."""
        self._tags = []
        return np.concatenate([frame, self._strip])

    def marks(self, image: np.ndarray, marks: Sequence[Mark]) -> None:
        """Draw all boxes, then their tags, each where it hides no other tag if there is room."""
        import cv2

        footage = image[: self._height]
        corners = [tuple(round(float(side)) for side in mark.box) for mark in marks]
        for mark, (left, top, right, bottom) in zip(marks, corners, strict=True):
            for colour, width in (((0, 0, 0), self._edge + 2), (rgb(mark.colour), self._edge)):
                cv2.rectangle(footage, (left, top), (right, bottom), colour, width)
        for mark, (left, top, _, bottom) in zip(marks, corners, strict=True):
            sprite = self._sprite(mark.text, mark.colour)
            tall, wide = sprite.shape[:2]
            x = min(max(left - self._edge // 2, 0), self._width - wide)
            within = top + self._edge, bottom - tall - self._edge
            tops = (top - tall, bottom, *within, top - 2 * tall, bottom + tall, top - 3 * tall, bottom + 2 * tall)
            inside = [y for y in tops if 0 <= y <= self._height - tall]
            free = (y for y in inside if not any(_overlap((x, y, x + wide, y + tall), tag) for tag in self._tags))
            last = min(max(top, 0), self._height - tall)
            self._place(image, sprite, x, next(free, inside[0] if inside else last))

    def caption(self, image: np.ndarray, text: str, colour: str) -> None:
        """Draw a tag in the upper left corner."""
        self._place(image, self._sprite(text, colour), 0, 0)

    def playhead(self, image: np.ndarray, time: float) -> None:
        """Mark the time in the timeline, and write it into the lower right corner of the image."""
        wide = max(1, self._edge // 2)
        x = self._x(time)
        image[self._height :, max(0, x - wide - 1) : x + wide + 1] = 0
        image[self._height :, max(0, x - wide) : x + wide] = rgb(PLAYHEAD)
        sprite = self._sprite(f"{time:.1f} s", GROUND)
        self._place(image, sprite, self._width - sprite.shape[1], self._height - sprite.shape[0])

    def _place(self, image: np.ndarray, sprite: np.ndarray, x: int, y: int) -> None:
        tall, wide = sprite.shape[:2]
        image[y : y + tall, x : x + wide] = sprite
        self._tags.append((x, y, x + wide, y + tall))

    def _sprite(self, text: str, colour: str) -> np.ndarray:
        return tag(text, colour, size=self.text, room=(self._height, self._width))

    def _x(self, time: float) -> int:
        """Return the column of a time in the timeline."""
        share = min(max((time - self._start) / self._seconds, 0.0), 1.0)
        return self._margin + round(share * (self._width - self._margin - 1))

    def _drawn(self, rows: Sequence[Row]) -> np.ndarray:
        """Draw the timeline; its height makes that of the whole image even."""
        tall = min(round(1.5 * self.text), max(MIN_ROW, int(MAX_TIMELINE * self._height / max(1, len(rows)))))
        letters = min(self.text, int(tall / 1.5))
        height = tall * len(rows) + self._edge
        strip = np.full((height + (self._height + height) % 2, self._width, 3), rgb(GROUND), np.uint8)
        is_lettered = letters >= SMALLEST_TEXT
        names = [tag(row.name, GROUND, size=letters, room=(tall, self._width // 4)) for row in rows if row.name]
        self._margin = max((name.shape[1] for name in names), default=0) if is_lettered else 0
        for index, row in enumerate(rows):
            y = self._edge + index * tall
            strip[y : y + 1] = rgb(SEPARATOR)
            if is_lettered and row.name:
                _paste(strip, tag(row.name, GROUND, size=letters, room=(tall, self._width // 4)), 0, y + 1)
            for stretch in row.stretches:
                left, right = self._x(stretch.start), self._x(stretch.end)
                strip[y + 1 : y + tall, left : max(left + 1, right - 1)] = rgb(stretch.colour)
                name = (
                    tag(stretch.text, stretch.colour, size=letters, room=(tall, self._width)) if is_lettered else None
                )
                if name is not None and name.shape[1] <= right - left - 2:
                    _paste(strip, name[: tall - 1], left, y + 1)
        return strip


@functools.lru_cache(maxsize=1024)
def tag(text: str, colour: str, *, size: int, room: tuple[int, int]) -> np.ndarray:
    """Return text on a ground of `colour`, uint8 (h, w, 3), with letters `size` pixels high, at most `room` (h, w).

    Text that is too wide is written smaller, then cut.
    """
    from PIL import Image, ImageDraw

    while True:
        font = _font(size)
        pad = max(2, size // 4)
        left, _, right, _ = font.getbbox(text)
        ascent, descent = font.getmetrics()
        tall, wide = ascent + descent + pad // 2, math.ceil(right - left) + 2 * pad
        if (wide <= room[1] and tall <= room[0]) or size <= SMALLEST_TEXT:
            break
        size -= 1
    image = Image.new("RGB", (max(1, min(wide, room[1])), max(1, min(tall, room[0]))), colour)
    ImageDraw.Draw(image).text((pad - left, pad // 4), text, font=font, fill=ink(colour))
    return np.asarray(image)


def rgb(colour: str) -> tuple[int, int, int]:
    """Return the parts of `#rrggbb`, 0 to 255."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue


def lacks_letters(text: str) -> bool:
    """Return True if the typeface of tags lacks a letter of the text."""
    from matplotlib.ft2font import FT2Font

    known = FT2Font(_typeface()).get_charmap()
    return any(ord(letter) not in known for letter in text)


@functools.cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(_typeface(), size)


def _typeface() -> str:
    """Return the file of DejaVu Sans, which comes with matplotlib."""
    import matplotlib

    return str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans-Bold.ttf")


def _paste(image: np.ndarray, sprite: np.ndarray, x: int, y: int) -> None:
    part = image[y : y + sprite.shape[0], x : x + sprite.shape[1]]
    part[:] = sprite[: part.shape[0], : part.shape[1]]


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
