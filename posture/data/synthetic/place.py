"""Paint backgrounds of generated footage: five kinds of sports ground, painted anew for every video.

A place is larger than the frame, so that a camera can pan, shake and roll over it. Nothing in it moves. Legend: H x W
the frame in pixels; a place is uint8 (1.5 H, W + 1.2 H, 3) RGB, its middle the middle of the frame.
"""

from __future__ import annotations

import cv2
import numpy as np

Colour = tuple[float, ...]

PLACES = ("pitch", "track", "gym", "court", "beach")

BRIGHT = (
    (214, 60, 52),
    (44, 92, 190),
    (245, 200, 60),
    (240, 240, 240),
    (40, 150, 90),
    (235, 130, 40),
    (120, 70, 160),
    (30, 34, 44),
)


def paint_place(kind: str, rng: np.random.Generator, *, height: int, width: int) -> np.ndarray:
    """Paint a place of a kind in `PLACES` for an H x W frame. Returns uint8 (1.5 H, W + 1.2 H, 3) RGB."""
    paint = {"pitch": _pitch, "track": _track, "gym": _gym, "court": _court, "beach": _beach}[kind]
    canvas = np.zeros((round(1.5 * height), round(width + 1.2 * height), 3), np.float32)
    horizon = round(canvas.shape[0] * rng.uniform(0.42, 0.56))
    paint(canvas, horizon, rng)
    canvas = cv2.GaussianBlur(canvas, (0, 0), height / 200)
    canvas += rng.normal(0, rng.uniform(1, 4), canvas.shape).astype(np.float32)
    return np.clip(canvas, 0, 255).astype(np.uint8)


def _near(colour: Colour, rng: np.random.Generator, spread: float = 14) -> Colour:
    return tuple(float(np.clip(channel + rng.uniform(-spread, spread), 0, 255)) for channel in colour)


def _pick(rng: np.random.Generator) -> Colour:
    return _near(BRIGHT[rng.integers(len(BRIGHT))], rng)


def _gradient(area: np.ndarray, top: Colour, bottom: Colour) -> None:
    share = np.linspace(0, 1, area.shape[0], dtype=np.float32)[:, None, None]
    area[:] = (1 - share) * np.array(top, np.float32) + share * np.array(bottom, np.float32)


def _mottle(area: np.ndarray, rng: np.random.Generator, *, strength: float, cells: int) -> None:
    """Add smooth random light and dark patches, about `cells` of them along the width."""
    coarse = rng.normal(0, strength, (max(2, round(cells * area.shape[0] / area.shape[1])), cells, 1)).astype(
        np.float32
    )
    area += cv2.resize(coarse, (area.shape[1], area.shape[0]), interpolation=cv2.INTER_CUBIC)[..., None]


def _line(
    canvas: np.ndarray, start: tuple[float, float], end: tuple[float, float], *, colour: Colour, thickness: int
) -> None:
    first, last = ((round(16 * x), round(16 * y)) for x, y in (start, end))
    cv2.line(canvas, first, last, colour, thickness, cv2.LINE_8, 4)


def _floor_lines(canvas: np.ndarray, horizon: int, rng: np.random.Generator, *, count: int, colour: Colour) -> None:
    """Draw straight lines that run away from the camera to one vanishing point."""
    height, width = canvas.shape[:2]
    vanishing = (rng.uniform(0.3, 0.7) * width, horizon - 0.35 * height)
    floor = canvas[horizon:]
    for x in np.linspace(-0.8, 1.8, count) * width:
        _line(
            floor,
            (vanishing[0], vanishing[1] - horizon),
            (x, height - horizon),
            colour=colour,
            thickness=max(1, height // 120),
        )


def _crowd(area: np.ndarray, rng: np.random.Generator) -> None:
    """Draw a stand: rows of dots in many colours on a dark slope."""
    _gradient(area, _near((58, 60, 72), rng), _near((84, 84, 96), rng))
    step = max(4, area.shape[1] // 60)
    for y in range(step // 2, area.shape[0], step):
        for x in range(step // 2, area.shape[1], step):
            if rng.random() < 0.75:
                centre = (int(x + rng.integers(-1, 2)), int(y + rng.integers(-1, 2)))
                cv2.circle(area, centre, max(1, step // 3), tuple(0.65 * channel for channel in _pick(rng)), -1)


def _boards(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    """Draw advertising boards along the far side."""
    depth, x = round(canvas.shape[0] * 0.055), 0
    while x < canvas.shape[1]:
        length = round(canvas.shape[1] * rng.uniform(0.12, 0.25))
        canvas[horizon - depth : horizon, x : x + length] = _pick(rng)
        for _ in range(rng.integers(2, 5)):  # something like lettering
            left = x + int(rng.uniform(0.1, 0.8) * length)
            canvas[horizon - depth * 2 // 3 : horizon - depth // 3, left : left + length // 12] = _pick(rng)
        x += length


def _sky(area: np.ndarray, rng: np.random.Generator) -> None:
    _gradient(area, _near((96, 150, 214), rng, 25), _near((196, 218, 236), rng))
    _mottle(area, rng, strength=10, cells=7)


def _trees(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    for x in np.arange(0, width, max(1, width // 24)):
        radius = round(height * rng.uniform(0.05, 0.11))
        cv2.circle(canvas, (int(x), horizon - radius // 3), radius, _near((52, 92, 56), rng, 18), -1)


def _pitch(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    _crowd(canvas[:horizon], rng)
    grass = _near((76, 142, 62), rng)
    _gradient(canvas[horizon:], tuple(0.85 * channel for channel in grass), grass)
    bands = rng.integers(4, 8)
    for band in range(0, bands, 2):  # mown stripes, wider towards the camera
        top, bottom = (horizon + round((height - horizon) * (edge / bands) ** 1.6) for edge in (band, band + 1))
        canvas[top:bottom] *= 1.12
    _mottle(canvas[horizon:], rng, strength=4, cells=20)
    _boards(canvas, horizon, rng)
    y = horizon + rng.uniform(0.15, 0.5) * (height - horizon)
    _line(
        canvas,
        (0, y),
        (width, y + rng.uniform(-0.04, 0.04) * height),
        colour=(232, 238, 228),
        thickness=max(1, height // 80),
    )
    x = rng.uniform(0.2, 0.8) * width
    _line(
        canvas,
        (x, y),
        (x + rng.uniform(-0.6, 0.6) * width, height),
        colour=(232, 238, 228),
        thickness=max(1, height // 80),
    )


def _track(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    _sky(canvas[:horizon], rng)
    _trees(canvas, horizon, rng)
    infield = horizon + round(0.12 * (height - horizon))
    canvas[horizon:infield] = _near((92, 150, 78), rng)
    clay = _near((178, 84, 62) if rng.random() < 0.7 else (70, 106, 160), rng)
    _gradient(canvas[infield:], tuple(0.88 * channel for channel in clay), clay)
    _mottle(canvas[infield:], rng, strength=4, cells=30)
    lanes = rng.integers(4, 7)
    for lane in range(lanes + 1):
        y = infield + (height - infield) * (lane / lanes) ** 1.5
        _line(canvas, (0, y), (width, y + 0.02 * height), colour=(236, 228, 222), thickness=max(1, height // 110))
    if rng.random() < 0.6:
        _boards(canvas, horizon, rng)


def _gym(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    wall = _near(((206, 198, 180), (170, 190, 202), (196, 204, 186))[rng.integers(3)], rng)
    _gradient(canvas[:horizon], wall, tuple(0.9 * channel for channel in wall))
    for _ in range(rng.integers(2, 4)):  # wall bars
        left, span = int(rng.uniform(0, 0.85) * width), round(0.14 * width)
        for y in range(round(0.3 * horizon), round(0.97 * horizon), max(4, height // 34)):
            _line(canvas, (left, y), (left + span, y), colour=(150, 112, 70), thickness=max(1, height // 150))
        for x in (left, left + span):
            _line(canvas, (x, 0.28 * horizon), (x, horizon), colour=(124, 90, 56), thickness=max(1, height // 90))
    canvas[horizon - round(0.03 * height) : horizon] = _near((96, 84, 74), rng)
    wood = _near((198, 152, 98), rng)
    _gradient(canvas[horizon:], tuple(0.86 * channel for channel in wood), wood)
    _floor_lines(canvas, horizon, rng, count=34, colour=tuple(0.88 * channel for channel in wood))
    _mottle(canvas[horizon:], rng, strength=3, cells=24)
    for colour in (_pick(rng), _pick(rng)):
        y = horizon + rng.uniform(0.1, 0.8) * (height - horizon)
        _line(
            canvas,
            (0, y),
            (width, y + rng.uniform(-0.05, 0.05) * height),
            colour=colour,
            thickness=max(1, height // 70),
        )


def _court(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    _sky(canvas[:horizon], rng)
    _trees(canvas, horizon, rng)
    for x in np.arange(0, width, max(4, width // 40)):  # fence
        _line(canvas, (x, horizon - 0.18 * height), (x, horizon), colour=(70, 84, 80), thickness=1)
    inner = _near(((52, 98, 158), (60, 128, 104), (106, 88, 148))[rng.integers(3)], rng)
    outer = _near(((70, 130, 96), (150, 82, 66), (58, 84, 130))[rng.integers(3)], rng)
    canvas[horizon:] = outer
    near, far = horizon + 0.95 * (height - horizon), horizon + 0.22 * (height - horizon)
    corners = np.array([(0.1 * width, far), (0.9 * width, far), (1.25 * width, near), (-0.25 * width, near)], np.int32)
    cv2.fillConvexPoly(canvas, corners, inner)
    cv2.polylines(canvas, [corners], True, (238, 240, 238), max(1, height // 90))
    _mottle(canvas[horizon:], rng, strength=3, cells=24)
    net = far + rng.uniform(0.05, 0.25) * (near - far)
    net_height = 0.09 * height
    canvas[int(net - net_height) : int(net)] *= 0.72
    _line(
        canvas, (0, net - net_height), (width, net - net_height), colour=(240, 240, 240), thickness=max(1, height // 80)
    )


def _beach(canvas: np.ndarray, horizon: int, rng: np.random.Generator) -> None:
    height, width = canvas.shape[:2]
    _sky(canvas[:horizon], rng)
    shore = horizon + round(rng.uniform(0.08, 0.2) * (height - horizon))
    sea = horizon - round(0.1 * height)
    _gradient(canvas[sea:shore], _near((54, 118, 158), rng), _near((120, 180, 190), rng))
    sand = _near((216, 190, 140), rng)
    _gradient(canvas[shore:], tuple(0.92 * channel for channel in sand), sand)
    _mottle(canvas[shore:], rng, strength=5, cells=16)
    _mottle(canvas[shore:], rng, strength=5, cells=70)
    for _ in range(rng.integers(2, 5)):  # parasols
        x, top = rng.uniform(0, 1) * width, shore - 0.16 * height
        _line(canvas, (x, top), (x, shore + 0.03 * height), colour=(120, 96, 70), thickness=max(1, height // 110))
        radius = round(rng.uniform(0.05, 0.09) * height)
        cv2.ellipse(canvas, (int(x), int(top) + radius // 2), (radius, radius * 2 // 3), 0, 180, 360, _pick(rng), -1)
