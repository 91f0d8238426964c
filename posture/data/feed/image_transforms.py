"""From stored images to a detector's input: decoding, letterboxes for evaluation, and augmentation for training. Boxes
follow pixels.

Legend: h x w an image's own pixels, S = `size` the side in pixels of the network's square; boxes (B, 4) float32 as x1,
y1, x2, y2. Coordinates are continuous: pixel i of a row covers i to i + 1, so that a box around one pixel is one wide,
and resizing is a plain product. All changes of an image's geometry (letterbox, resize, rotation, shift, flip, position
in a mosaic) are one affine map, and its pixels are resampled once. Random numbers are keyed on (seed, epoch, image,
repeat), as in `posture/data/feed/clip_transforms.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from posture.data.feed.clip_transforms import clip_generator
from posture.errors import InputError

# Each use of an image's key draws from a stream of its own, so that turning one kind of augmentation off does not
# change the others.
MOSAIC, VIEW, SIDE, NETWORK, DONOR, PASTE = 0, 1, 2, 3, 4, 5

GREY = 114
"""Level of all three colours outside the image."""
LEAST_SIDE = 2.0
"""Minimum side of a box in pixels of the network's image; smaller boxes are dropped."""

NO_BOXES, NO_LABELS = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


class BoxedImage(NamedTuple):
    """A decoded image with its boxes."""

    pixels: np.ndarray
    """uint8 (h, w, 3), RGB."""
    boxes: np.ndarray
    """(B, 4) float32, in pixels of `pixels`."""
    labels: np.ndarray
    """(B,) int64."""
    ignored: np.ndarray = NO_BOXES
    """(R, 4) float32, ignore regions."""
    ignored_labels: np.ndarray = NO_LABELS
    """(R,) int64."""


def decode_image(
    encoded: np.ndarray, stored_size: Sequence[int], *, name: str, longest: int | None = None
) -> np.ndarray:
    """Return an encoded image (JPEG, PNG, WebP, BMP) as uint8 (h, w, 3) RGB, upright according to its EXIF data.

    With `longest`, an image whose longer side is longer is shrunk to that; a JPEG is then decoded no larger than
    necessary. `stored_size` is its (height, width) before that. Raises InputError, with its `name`, if it does not
    decode to that size.
    """
    reduction = _reduction(encoded, stored_size, longest)
    try:
        # OpenCV takes RGB at full size and "reduced grey" in RGB: the flag for BGR must be off.
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR_RGB | {1: 0, 2: 16, 4: 32, 8: 64}[reduction])
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InputError(f"the stored image {name} does not decode")
    if pixels.shape[:2] != tuple(-(-int(side) // reduction) for side in stored_size):
        found = f"{pixels.shape[0] * reduction} x {pixels.shape[1] * reduction}"
        raise InputError(
            f"the stored image {name} is {found} pixels high and wide, "
            f"but the store says {stored_size[0]} x {stored_size[1]}"
        )
    height, width = pixels.shape[:2]
    if longest is None or max(height, width) <= longest:
        return pixels
    return cv2.resize(pixels, _fitted(height, width, longest), interpolation=cv2.INTER_AREA)


def read_image(
    encoded: np.ndarray,
    stored_size: Sequence[int],
    boxes: np.ndarray,
    labels: np.ndarray,
    *,
    name: str,
    longest: int | None = None,
    regions: tuple[np.ndarray, np.ndarray] = (NO_BOXES, NO_LABELS),
) -> BoxedImage:
    """Decode an image as `decode_image` does, with its boxes and ignore regions (`regions`: (R, 4) and their labels),
    which shrink with it.
    """
    pixels = decode_image(encoded, stored_size, name=name, longest=longest)
    height, width = stored_size
    shrunk = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2, dtype=np.float32)
    return BoxedImage(pixels, boxes * shrunk, labels, regions[0] * shrunk, regions[1])


@dataclass(frozen=True)
class Letterbox:
    """Position of an image of `height` x `width` in the network's square: x maps to scale_x * x + dx, y likewise.

    The two scales differ slightly, because the image's sides there are whole pixels.
    """

    height: int
    width: int
    scale_x: float
    scale_y: float
    dx: int
    dy: int

    def boxes_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (D, 4) of the square in pixels of the image, clipped to it, as float32."""
        found = (np.asarray(boxes, dtype=np.float64) - [self.dx, self.dy] * 2) / ([self.scale_x, self.scale_y] * 2)
        return np.clip(found, 0.0, [self.width, self.height] * 2).astype(np.float32)

    def boxes_to_square(self, boxes: np.ndarray) -> np.ndarray:
        """Return boxes (D, 4) of the image in pixels of the square, as float32."""
        return (
            np.asarray(boxes, dtype=np.float64) * ([self.scale_x, self.scale_y] * 2) + [self.dx, self.dy] * 2
        ).astype(np.float32)


def letterbox(
    pixels: np.ndarray, boxes: np.ndarray, size: int, *, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, Letterbox]:
    """Return uint8 (h, w, 3) as large as possible in the middle of a grey (S, S, 3), its boxes there, and its position.

    The square is written into `out` if given.
    """
    height, width = pixels.shape[:2]
    new_width, new_height = _fitted(height, width, size)
    x, y = (size - new_width) // 2, (size - new_height) // 2
    where = Letterbox(height, width, new_width / width, new_height / height, x, y)
    square = _grey(size, out)
    inside = square[y : y + new_height, x : x + new_width]
    if (new_height, new_width) == (height, width):
        inside[:] = pixels
    else:
        shrinks = new_width < width or new_height < height
        interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        cv2.resize(pixels, (new_width, new_height), dst=inside, interpolation=interpolation)
    return square, where.boxes_to_square(boxes), where


@dataclass(frozen=True)
class View:
    """Augmentation of an image, or of four in a mosaic, in the network's square; the defaults change nothing."""

    scale: float = 1.0
    """Factor on the letterboxed image's size, about the square's middle."""
    degrees: float = 0.0
    """Clockwise rotation about the square's middle."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Shift in x and y, as a share of S, after the rotation."""
    flip: bool = False
    """Left-right flip, last."""
    hue: float = 1.0
    """Factor on the hue, likewise `saturation` and `value`."""
    saturation: float = 1.0
    value: float = 1.0
    centre: tuple[float, float] = (0.5, 0.5)
    """Point where the corners of a mosaic's four images meet, as a share of S, before all this."""
    tile: int = 0
    """Position of a mosaic's first image: 0 above left, 1 above right, 2 below left, 3 below right of the centre."""

    def matrix(self, size: int) -> np.ndarray:
        """Return the map from the square before to the square after, (3, 3) float64."""
        angle = np.deg2rad(self.degrees)
        cosine, sine = self.scale * np.cos(angle), self.scale * np.sin(angle)
        rotation = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        back = _shift(size * (0.5 + self.shift[0]), size * (0.5 + self.shift[1]))
        moved = back @ rotation @ _shift(-size / 2, -size / 2)
        return np.diag([-1.0, 1.0, 1.0]) @ _shift(-size, 0.0) @ moved if self.flip else moved


def draw_view(data: Any, *, seed: int, epoch: int, image: int, repeat: int = 0) -> View:
    """Return an image's random view in one epoch.

    `data` is `run.data`, `image` its index, `repeat` the number of its earlier occurrences in this epoch.
    """
    generator = clip_generator(VIEW, seed=seed, epoch=epoch, clip=image, repeat=repeat)
    scale, rotation, x, y, hue, saturation, value = generator.uniform(-1.0, 1.0, 7).tolist()
    flip, centre_x, centre_y, tile = generator.random(4).tolist()
    return View(
        scale=1 + data.resize * scale,
        degrees=data.rotate * rotation,
        shift=(data.shift * x, data.shift * y),
        flip=flip < data.flip,
        hue=1 + data.hue * hue,
        saturation=1 + data.saturation * saturation,
        value=1 + data.value * value,
        centre=(centre_x, centre_y),
        tile=int(4 * tile),
    )


def augment(
    images: Sequence[BoxedImage], view: View, size: int, *, least_visible: float = 0.1, out: np.ndarray | None = None
) -> BoxedImage:
    """Return one image, or a mosaic of four, in `view` on a square of S pixels, written into `out` (S, S, 3) if given.

    The mosaic is that of Bochkovskiy 2020 (arXiv 2004.10934, section 3.4): four images, each as large as its letterbox,
    meet at `view.centre`. Boxes are clipped to the square. A box is dropped if less than the share `least_visible` of
    its area, or less than `LEAST_SIDE` pixels of a side, remains. Ignore regions are clipped but never dropped while
    any part remains.
    """
    if len(images) not in (1, 4):
        raise ValueError(f"a view shows one image or a mosaic of four, not {len(images)}")
    seen, square = view.matrix(size), _grey(size, out)
    boxes, regions = [], []
    for number, image in enumerate(images):
        tile = (view.tile + number) % 4 if len(images) == 4 else None
        matrix = seen @ _placed(image.pixels.shape[0], image.pixels.shape[1], size, tile=tile, centre=view.centre)
        _paste(square, image.pixels, matrix)
        boxes.append(_moved(image.boxes, matrix))
        regions.append(_moved(image.ignored, matrix))
    recolour(square, hue=view.hue, saturation=view.saturation, value=view.value)
    everything, labels = np.concatenate(boxes), np.concatenate([image.labels for image in images])
    clipped, kept = clip_boxes(everything, size, least_visible=least_visible)
    ignored = np.clip(np.concatenate(regions), 0.0, size).astype(np.float32)
    left = (ignored[:, 2:] > ignored[:, :2]).all(axis=1)
    ignored_labels = np.concatenate([image.ignored_labels for image in images])
    return BoxedImage(square, clipped[kept], labels[kept], ignored[left], ignored_labels[left])


def clip_boxes(boxes: np.ndarray, size: int, *, least_visible: float) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes (B, 4) clipped to the square of S pixels, float32, and whether enough of each remains, (B,) bool."""
    clipped = np.clip(boxes, 0.0, size)
    whole, left = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
    kept = (left >= LEAST_SIDE).all(axis=1) & (left.prod(axis=1) >= least_visible * whole.prod(axis=1))
    return clipped.astype(np.float32), kept


def recolour(pixels: np.ndarray, *, hue: float, saturation: float, value: float) -> None:
    """Multiply hue, saturation and value of uint8 RGB (h, w, 3) in place; hue is circular."""
    if hue == saturation == value == 1.0:
        return
    levels = np.arange(256.0)
    table = np.stack(
        [
            np.rint(levels * hue) % 180,
            np.minimum(np.rint(levels * saturation), 255),
            np.minimum(np.rint(levels * value), 255),
        ],
        axis=1,
    )
    colours = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)  # OpenCV halves the hue: 0..179
    cv2.LUT(colours, table.astype(np.uint8)[None], dst=colours)
    cv2.cvtColor(colours, cv2.COLOR_HSV2RGB, dst=pixels)


def use_one_thread() -> None:
    """Let OpenCV use no threads of its own in this process: its callers are many threads already."""
    cv2.setNumThreads(0)


def _grey(size: int, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return np.full((size, size, 3), GREY, np.uint8)
    out.fill(GREY)
    return out


def _fitted(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return width and height, at least 1, with a longer side of `longest`."""
    longer = max(height, width)
    return max(1, round(width * longest / longer)), max(1, round(height * longest / longer))


def _reduction(encoded: np.ndarray, stored_size: Sequence[int], longest: int | None) -> int:
    """Return the factor by which a JPEG can be decoded smaller, which is faster, with a longer side of at least
    `longest`.
    """
    if longest is None or encoded[:2].tobytes() != b"\xff\xd8":
        return 1
    return next((factor for factor in (8, 4, 2) if max(stored_size) >= factor * longest), 1)


def _shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _placed(height: int, width: int, size: int, *, tile: int | None, centre: tuple[float, float]) -> np.ndarray:
    """Return the map of an image to its letterbox's size, in the middle of the square or in a tile of a mosaic around
    its centre: (3, 3) float64.
    """
    scale = size / max(height, width)
    new_width, new_height = width * scale, height * scale
    if tile is None:
        x, y = (size - new_width) / 2, (size - new_height) / 2
    else:
        x = size * centre[0] - (new_width if tile % 2 == 0 else 0.0)
        y = size * centre[1] - (new_height if tile < 2 else 0.0)
    return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])


def _moved(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return boxes (B, 4) around the mapped corners of `boxes`, float64."""
    # (B, 4, 2)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _paste(square: np.ndarray, pixels: np.ndarray, matrix: np.ndarray) -> None:
    """Draw an image into the square where the affine `matrix` (3, 3) maps it: the pixels whose centres it covers."""
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ matrix[:2, :2].T + matrix[:2, 2]
    left, top = np.clip(np.ceil(corners.min(axis=0) - 0.5), 0, len(square)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0) - 0.5), 0, len(square)).astype(int).tolist()
    if left >= right or top >= bottom:
        return
    inside = square[top:bottom, left:right]
    # OpenCV counts from pixel centres and from the corner of its output.
    centred = _shift(-0.5 - left, -0.5 - top) @ matrix @ _shift(0.5, 0.5)
    upright = matrix[0, 1] == matrix[1, 0] == 0.0
    how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    warped = cv2.warpAffine(pixels, centred[:2], (right - left, bottom - top), dst=inside if upright else None, **how)
    if not upright:
        mask = np.zeros(inside.shape[:2], np.uint8)
        fraction = 4  # bits
        cv2.fillConvexPoly(
            mask, np.rint((corners - [left + 0.5, top + 0.5]) * 2**fraction).astype(np.int32), 255, shift=fraction
        )
        cv2.copyTo(warped, mask, inside)
