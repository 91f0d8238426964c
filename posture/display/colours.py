"""Colours of classes: the same on pages and in annotated videos."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

UNSURE = "#8d939b"
"""Colour of stretches without an answer."""
FIRST = ("#2b83c6", "#e0851f", "#2a9d7f", "#b0569a", "#d24a3f", "#c9a816", "#6c63c7", "#7fae35", "#9a6a45", "#1fc3c3")
"""Colours of the first classes. Neighbours differ in lightness or in the blue part, for colour blind viewers."""
GOLDEN = 0.61803398875
"""Step between hues, in turns, that keeps any number of them apart."""


def class_colours(classes: Sequence[str]) -> list[str]:
    """Return one colour for each class, as `#rrggbb`, by its position.

    All can be read on white, on black, and over footage. From the 11th class on, colours resemble earlier ones.
    """
    return [FIRST[place] if place < len(FIRST) else _further(place - len(FIRST)) for place in range(len(classes))]


def ink(colour: str) -> str:
    """Return black or white, the one that reads better on `colour` (WCAG 2.2, relative luminance)."""
    linear = [_linear(int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5)]
    return "#000000" if _luminance(linear) > 0.179 else "#ffffff"


def _further(number: int) -> str:
    """Return a colour whose luminance is one of three, so that yellow does not fade on white, nor blue on black."""
    linear = [_linear(part) for part in colorsys.hls_to_rgb((0.08 + number * GOLDEN) % 1.0, 0.5, 0.5)]
    scale = (0.22, 0.38, 0.12)[number % 3] / _luminance(linear)
    return "#" + "".join(f"{round(255 * _encoded(min(1.0, scale * part))):02x}" for part in linear)


def _luminance(linear: Sequence[float]) -> float:
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _linear(part: float) -> float:
    return part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4


def _encoded(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
