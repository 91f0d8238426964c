"""A small store of images with boxes for tests, every image told by its colour."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pyarrow as pa

from posture.data.store import schema
from posture.data.store.tables import Store

CLASSES = ("athlete", "ball")


class Made(NamedTuple):
    """An image of one colour, with what the store says of it."""

    key: str
    pixels: np.ndarray
    """uint8 (h, w, 3)."""
    boxes: np.ndarray
    """(B, 4) float32."""
    labels: list[str]
    group: str
    split: str
    suffix: str = ".png"

    @property
    def encoded(self) -> bytes:
        return cv2.imencode(self.suffix, np.ascontiguousarray(self.pixels[..., ::-1]))[1].tobytes()


def make_images(
    count: int, *, seed: int = 0, splits: tuple[str, ...] = ("train", "train", "val"), sides: tuple[int, int] = (20, 60)
) -> list[Made]:
    """Images of any sizes: number n has n % 3 boxes, and keys that do not sort as they are numbered."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(count):
        height, width = generator.integers(*sides, 2, endpoint=True).tolist()
        colour = (5 * number % 256, 7 * number % 256, 200 - number % 200)
        corners = np.sort(generator.uniform(0, 1, (number % 3, 2, 2)), axis=1) * (width, height)
        made.append(
            Made(
                f"{number * 37 % 1009:04d}-{number}",
                np.full((height, width, 3), colour, np.uint8),
                corners.reshape(-1, 4).astype(np.float32),
                [CLASSES[(number + place) % 2] for place in range(number % 3)],
                f"group{number // 4}",
                splits[number % len(splits)],
            )
        )
    return made


def write_image_store(folder: Path, made: list[Made], *, files: int = 1) -> Store:
    """A store of these images, whose images are in so many Parquet files."""
    store = Store(str(folder), create=True)
    store.create_tables()
    for part in range(files):
        store.append("images", images_table(made[part::files]))
    store.append("boxes", boxes_table(made))
    return store


def images_table(made: list[Made]) -> pa.Table:
    """Their rows of the table `images`."""
    return pa.Table.from_pylist(
        [
            {
                "image": one.key,
                "uri": f"pictures/{one.key}{one.suffix}",
                "height": one.pixels.shape[0],
                "width": one.pixels.shape[1],
                "bytes": len(one.encoded),
                "pixels": one.encoded,
            }
            for one in made
        ],
        schema.TABLES["images"],
    )


def boxes_table(made: list[Made]) -> pa.Table:
    """Their rows of the table `boxes`."""
    return pa.Table.from_pylist(
        [
            {
                "image": one.key,
                "group": one.group,
                "split": one.split,
                "boxes": one.boxes.tolist(),
                "labels": one.labels,
                "tubes": [""] * len(one.labels),
                "time": float("nan"),
            }
            for one in made
        ],
        schema.TABLES["boxes"],
    )


class SmallImages:
    """Images of one colour each, in memory."""

    def __init__(self, count: int, *, seed: int = 0) -> None:
        made = make_images(count, seed=seed)
        self.classes, self.keys, self.boxes = CLASSES, [one.key for one in made], [one.boxes for one in made]
        self.labels = [np.array([CLASSES.index(label) for label in one.labels], np.int64) for one in made]
        self.sizes = np.array([one.pixels.shape[:2] for one in made]).reshape(-1, 2)
        self.pixels, self.files = [one.pixels for one in made], [np.frombuffer(one.encoded, np.uint8) for one in made]

    def __len__(self) -> int:
        return len(self.keys)

    def encoded(self, index: int) -> np.ndarray:
        return self.files[index]
