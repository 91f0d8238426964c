"""Films for tests of cropping: coloured athletes on dark ground, and the table that says where they are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from posture.data.decode.video import write_video

Box = tuple[int, int, int, int]
Path_ = Callable[[int], Box | None]
SIZE = (96, 160)
COLOURS = {"red": (230, 40, 40), "green": (40, 230, 40)}


def across(frame: int) -> Box:
    """A fast one, 20 x 30 pixels."""
    return 10 + 2 * frame, 30, 30 + 2 * frame, 60


def waiting(frame: int) -> Box:
    """A larger one that stands at the right edge."""
    return 124, 20, 154, 80


def make_film(path: Path, athletes: Mapping[str, Path_], *, frames: int = 60, seed: int = 0) -> Path:
    """A film of `SIZE` in which each colour moves as its function says."""
    ground = np.random.default_rng(seed).integers(0, 50, (*SIZE, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)

    def images():
        for number in range(frames):
            image = ground.copy()
            for colour, place in athletes.items():
                if (box := place(number)) is not None:
                    image[box[1] : box[3], box[0] : box[2]] = COLOURS[colour]
            yield image

    write_video(path, images(), fps=25.0)
    return path


def write_boxes(path: Path, films: Mapping[str, Mapping[str, Path_]], *, frames: int = 60) -> Path:
    """boxes.csv of the films, as `make_film` draws them."""
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["video", "frame", "athlete", "x1", "y1", "x2", "y2"])
        table.writerows(
            [film, frame, name, *box]
            for film, athletes in films.items()
            for name, place in athletes.items()
            for frame in range(frames)
            if (box := place(frame)) is not None
        )
    return path


def seen(frames: np.ndarray, colour: str) -> np.ndarray:
    """Where a colour is in each of uint8 (T, H, W, 3): (T, 4) x1, y1, x2, y2 around its pixels; NaN where it is
    nowhere.
    """
    channel = {"red": 0, "green": 1}[colour]
    others = [other for other in range(3) if other != channel]
    found = np.full((len(frames), 4), np.nan)
    for number, frame in enumerate(frames.astype(int)):
        rows, columns = np.nonzero((frame[..., channel] > 120) & (frame[..., others].max(axis=-1) < 120))
        if len(rows):
            found[number] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return found
