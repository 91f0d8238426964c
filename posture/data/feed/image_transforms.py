"""From stored images to what a detector sees: decoding, letterboxes for judging, and augmentation for learning. Boxes
follow pixels.

Legend: h x w an image's own pixels, S = `size` the side in pixels of the network's square; boxes (B, 4) float32 as x1,
y1, x2, y2. Coordinates are continuous: pixel i of a row covers i to i + 1, so that a box around one pixel is one wide,
and resizing is a plain product. Whatever happens to an image's geometry (letterbox, resize, turn, shift, flip, its
place in a mosaic) is one affine map, and its pixels are resampled once. Random numbers are keyed on (seed, epoch,
image, repeat), as `posture/data/feed/clip_transforms.py` does it for clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np

from posture.data.feed.clip_transforms import clip_generator
from posture.errors import InputError

# Each use of an image's key draws from a stream of its own, so that switching one kind of augmentation off leaves the
# others as they were.
MOSAIC, VIEW, SIDE, NETWORK = 0, 1, 2, 3

GREY = 114
"""The level of all three colours where there is no image."""
LEAST_SIDE = 2.0
"""A box with a side of less than so many pixels of the network's image is dropped."""


NO_BOXES, NO_LABELS = np.zeros((0, 4), np.float32), np.zeros(0, np.int64)


class BoxedImage(NamedTuple):
    """A decoded image and what is in it."""

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
    """An encoded image (JPEG, PNG, WebP, BMP) as uint8 (h, w, 3) RGB, turned upright as its EXIF data says.

    With `longest`, one whose longer side is longer comes shrunk to that; a JPEG is then decoded no larger than it must
    be. `stored_size` is its (height, width) before that. Raises InputError, with its `name`, where it does not decode
    to that size.
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
            f"the stored image {name} is {found} pixels high and wide, but the store says {stored_size[0]} x {stored_size[1]}"
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
    """`decode_image` with its boxes and ignore regions, which shrink with it. `regions`: these, (R, 4), and their
    labels.
    """
    pixels = decode_image(encoded, stored_size, name=name, longest=longest)
    height, width = stored_size
    shrunk = np.array([pixels.shape[1] / width, pixels.shape[0] / height] * 2, dtype=np.float32)
    return BoxedImage(pixels, boxes * shrunk, labels, regions[0] * shrunk, regions[1])


@dataclass(frozen=True)
class Letterbox:
    """Where an image of `height` x `width` lies in the network's square: x is at scale_x * x + dx, y at scale_y * y +
    dy.

    The two scales differ by less than a pixel's worth, because the image's sides there are whole pixels.
    """

    height: int
    width: int
    scale_x: float
    scale_y: float
    dx: int
    dy: int

    def boxes_to_image(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (D, 4) of the square in pixels of the image, clipped to it, as float32."""
        found = (np.asarray(boxes, dtype=np.float64) - [self.dx, self.dy] * 2) / ([self.scale_x, self.scale_y] * 2)
        return np.clip(found, 0.0, [self.width, self.height] * 2).astype(np.float32)

    def boxes_to_square(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (D, 4) of the image in pixels of the square, as float32."""
        return (
            np.asarray(boxes, dtype=np.float64) * ([self.scale_x, self.scale_y] * 2) + [self.dx, self.dy] * 2
        ).astype(np.float32)


def letterbox(
    pixels: np.ndarray, boxes: np.ndarray, size: int, *, out: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, Letterbox]:
    """uint8 (h, w, 3) as large as it can be in the middle of a grey (S, S, 3), its boxes there, and how to get back.
    `out` is written to if given.
    """
    height, width = pixels.shape[:2]
    across, down = _fitted(height, width, size)
    laid = Letterbox(height, width, across / width, down / height, (size - across) // 2, (size - down) // 2)
    square = _grey(size, out)
    place = square[laid.dy : laid.dy + down, laid.dx : laid.dx + across]
    if (down, across) == (height, width):
        place[:] = pixels
    else:
        cv2.resize(
            pixels,
            (across, down),
            dst=place,
            interpolation=cv2.INTER_AREA if across < width or down < height else cv2.INTER_LINEAR,
        )
    return square, laid.boxes_to_square(boxes), laid


@dataclass(frozen=True)
class View:
    """What happens to an image, or to four of them together, on the way to the network's square; the defaults change
    nothing.
    """

    scale: float = 1.0
    """Factor on the letterboxed image's size, about the square's middle."""
    degrees: float = 0.0
    """Clockwise turn, about the square's middle."""
    shift: tuple[float, float] = (0.0, 0.0)
    """Move in x and y, in shares of S, after the turn."""
    flip: bool = False
    """Left to right, last."""
    hue: float = 1.0
    saturation: float = 1.0
    value: float = 1.0
    """Factors on the colours."""
    centre: tuple[float, float] = (0.5, 0.5)
    """Where the corners of a mosaic's four images meet, in shares of S, before all this."""
    quarter: int = 0
    """Where in a mosaic the first image lies: 0 above left, 1 above right, 2 below left, 3 below right of the centre.
    """

    def matrix(self, size: int) -> np.ndarray:
        """The square before -> the square after, (3, 3) float64."""
        angle = np.deg2rad(self.degrees)
        cosine, sine = self.scale * np.cos(angle), self.scale * np.sin(angle)
        turn = np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])
        moved = (
            _shifted(size * (0.5 + self.shift[0]), size * (0.5 + self.shift[1])) @ turn @ _shifted(-size / 2, -size / 2)
        )
        return np.diag([-1.0, 1.0, 1.0]) @ _shifted(-size, 0.0) @ moved if self.flip else moved


def draw_view(data: Any, *, seed: int, epoch: int, picture: int, repeat: int = 0) -> View:
    """An image's random view in one epoch; `data` is `run.data`, `image` its index, `repeat` how often it came
    earlier in this epoch.
    """
    generator = clip_generator(VIEW, seed=seed, epoch=epoch, clip=picture, repeat=repeat)
    scale, turn, x, y, hue, saturation, value = generator.uniform(-1.0, 1.0, 7).tolist()
    flip, across, down, quarter = generator.random(4).tolist()
    return View(
        scale=1 + data.resize * scale,
        degrees=data.rotate * turn,
        shift=(data.shift * x, data.shift * y),
        flip=flip < data.flip,
        hue=1 + data.hue * hue,
        saturation=1 + data.saturation * saturation,
        value=1 + data.value * value,
        centre=(across, down),
        quarter=int(4 * quarter),
    )


def augment(
    images: Sequence[BoxedImage], view: View, size: int, *, least_visible: float = 0.1, out: np.ndarray | None = None
) -> BoxedImage:
    """One image, or a mosaic of four, seen by `view` on a square of S pixels. `out`, uint8 (S, S, 3), is written to
    if given.

    A mosaic is that of Bochkovskiy 2020 (arXiv 2004.10934, section 3.4): four images, each as large as its letterbox,
    meet at `view.centre`; the square shows what of them the view shows. Boxes are clipped to the square; those of which
    less than the share `least_visible` of the area is left, or less than `LEAST_SIDE` pixels of a side, are dropped. Of
    ignore regions whatever is left stays.
    """
    if len(images) not in (1, 4):
        raise ValueError(f"a view shows one image or a mosaic of four, not {len(images)}")
    seen, square = view.matrix(size), _grey(size, out)
    boxes, regions = [], []
    for number, image in enumerate(images):
        quarter = (view.quarter + number) % 4 if len(images) == 4 else None
        matrix = seen @ _laid(image.pixels.shape[0], image.pixels.shape[1], size, quarter=quarter, centre=view.centre)
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
    """Boxes (B, 4) clipped to the square of S pixels, float32, and which of them have enough left, (B,) bool."""
    clipped = np.clip(boxes, 0.0, size)
    whole, left = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
    kept = (left >= LEAST_SIDE).all(axis=1) & (left.prod(axis=1) >= least_visible * whole.prod(axis=1))
    return clipped.astype(np.float32), kept


def recolour(pixels: np.ndarray, *, hue: float, saturation: float, value: float) -> None:
    """Multiply hue, saturation and value of uint8 RGB (h, w, 3) in place; hue runs in a circle."""
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
    """Let OpenCV, in this process, compute where it is called: its callers are many threads already."""
    cv2.setNumThreads(0)


def _grey(size: int, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return np.full((size, size, 3), GREY, np.uint8)
    out.fill(GREY)
    return out


def _fitted(height: int, width: int, longest: int) -> tuple[int, int]:
    """Width and height, at least 1, when the longer side becomes `longest`."""
    longer = max(height, width)
    return max(1, round(width * longest / longer)), max(1, round(height * longest / longer))


def _reduction(encoded: np.ndarray, stored_size: Sequence[int], longest: int | None) -> int:
    """By how much a JPEG may be decoded smaller, at a fraction of the time, so that its longer side is still `longest`
    or more.
    """
    if longest is None or encoded[:2].tobytes() != b"\xff\xd8":
        return 1
    return next((factor for factor in (8, 4, 2) if max(stored_size) >= factor * longest), 1)


def _shifted(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _laid(height: int, width: int, size: int, *, quarter: int | None, centre: tuple[float, float]) -> np.ndarray:
    """An image as large as its letterbox, in the middle of the square, or in a quarter of the plane around a mosaic's
    centre: (3, 3) float64.
    """
    scale = size / max(height, width)
    across, down = width * scale, height * scale
    if quarter is None:
        x, y = (size - across) / 2, (size - down) / 2
    else:
        x = size * centre[0] - (across if quarter % 2 == 0 else 0.0)
        y = size * centre[1] - (down if quarter < 2 else 0.0)
    return np.array([[scale, 0.0, x], [0.0, scale, y], [0.0, 0.0, 1.0]])


def _moved(boxes: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Boxes (B, 4) around the mapped corners of `boxes`, float64."""
    # (B, 4, 2)
    corners = boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float64) @ matrix[:2, :2].T + matrix[:2, 2]
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def _paste(square: np.ndarray, pixels: np.ndarray, matrix: np.ndarray) -> None:
    """Draw an image into the square where the affine `matrix` (3, 3) maps it: exactly those pixels whose centres it
    covers.
    """
    height, width = pixels.shape[:2]
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]]) @ matrix[:2, :2].T + matrix[:2, 2]
    left, top = np.clip(np.ceil(corners.min(axis=0) - 0.5), 0, len(square)).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(axis=0) - 0.5), 0, len(square)).astype(int).tolist()
    if left >= right or top >= bottom:
        return
    place = square[top:bottom, left:right]
    # OpenCV counts from pixel centres and from the corner of what it writes.
    centred = _shifted(-0.5 - left, -0.5 - top) @ matrix @ _shifted(0.5, 0.5)
    upright = matrix[0, 1] == matrix[1, 0] == 0.0
    how = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REPLICATE}
    warped = cv2.warpAffine(pixels, centred[:2], (right - left, bottom - top), dst=place if upright else None, **how)
    if not upright:
        mask = np.zeros(place.shape[:2], np.uint8)
        fraction = 4  # bits
        cv2.fillConvexPoly(
            mask, np.rint((corners - [left + 0.5, top + 0.5]) * 2**fraction).astype(np.int32), 255, shift=fraction
        )
        cv2.copyTo(warped, mask, place)
