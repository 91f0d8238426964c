"""Copy-paste of labelled boxes: what is in the boxes of one image is laid over another (Dwibedi 2017, arXiv
1708.01642).

Boxes have no masks. So the whole box is cut out, with some of the background around the athlete, and its edges fade
into the other image.
"""

from __future__ import annotations

import cv2
import numpy as np

from posture.data.feed.image_transforms import BoxedImage

MOST_COVERED = 0.5
"""Maximum share of a box's area that pasted boxes may cover; other boxes are dropped."""
MOST_SHARED = 0.1
"""Maximum overlap, as a share of the smaller box, of a box that is cut out with another box of its image."""
RESIZE = 1.5
"""Maximum factor by which a pasted box is larger or smaller, beside the image's own side, than where it was cut out."""
FADED = 0.1
"""Share of the shorter side over which a pasted box fades at each edge."""


def paste_boxes(image: BoxedImage, donor: BoxedImage, generator: np.random.Generator) -> BoxedImage:
    """Return `image` with the boxes of `donor` pasted at random places, resized and half of them flipped.

    A box that overlaps another box or an ignore region of the donor by more than `MOST_SHARED` is left out, because
    part of the other one would come with it. Boxes stay inside the image. Earlier boxes are dropped if more than
    `MOST_COVERED` of their area is covered. The image's own ignore regions stay.
    """
    height, width = image.pixels.shape[:2]
    pixels, top_layer = image.pixels.copy(), np.zeros((height, width), np.int32)
    boxes, labels, layers = [*image.boxes], [*image.labels.tolist()], [0] * len(image.boxes)
    relative = max(height, width) / max(donor.pixels.shape[:2])
    for number in _alone(donor):
        cut, inside = _cut(donor.pixels, donor.boxes[number])
        factor, place, flip = RESIZE ** generator.uniform(-1.0, 1.0), generator.random(2), generator.random() < 0.5
        if not cut.size:
            continue
        factor = min(relative * factor, height / cut.shape[0], width / cut.shape[1])
        rows, columns = (max(1, int(side * factor)) for side in cut.shape[:2])
        y, x = (int(share * (room + 1)) for share, room in zip(place, (height - rows, width - columns), strict=True))
        shrinks = rows < cut.shape[0] or columns < cut.shape[1]
        patch = cv2.resize(cut, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        inside = inside * ([columns / cut.shape[1], rows / cut.shape[0]] * 2)
        if flip:
            patch, inside = patch[:, ::-1], np.array([columns, 0, columns, 0]) + inside[[2, 1, 0, 3]] * [-1, 1, -1, 1]
        _lay(pixels[y : y + rows, x : x + columns], patch)
        boxes.append((inside + [x, y, x, y]).astype(np.float32))
        labels.append(int(donor.labels[number]))
        layers.append(layers[-1] + 1 if layers else 1)
        top_layer[y : y + rows, x : x + columns] = layers[-1]
    seen = [1 - _covered(top_layer, box, layer) >= 1 - MOST_COVERED for box, layer in zip(boxes, layers, strict=True)]
    kept = np.array(seen, dtype=bool)
    return image._replace(
        pixels=pixels, boxes=np.array(boxes, np.float32).reshape(-1, 4)[kept], labels=np.array(labels, np.int64)[kept]
    )


def _alone(image: BoxedImage) -> list[int]:
    """Return the indices of the boxes that hardly overlap another box or an ignore region."""
    others = np.concatenate([image.boxes, image.ignored]).astype(np.float64)
    areas = np.prod(others[:, 2:] - others[:, :2], axis=1)
    found = []
    for number, box in enumerate(others[: len(image.boxes)]):
        sides = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
        shared = sides.clip(min=0.0).prod(axis=1) > MOST_SHARED * np.minimum(areas, areas[number])
        shared[number] = False
        if not shared.any():
            found.append(number)
    return found


def _cut(pixels: np.ndarray, box: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the whole pixels (h, w, 3) that a box touches, and the box within them, (4,) float64."""
    height, width = pixels.shape[:2]
    left, top = np.floor(box[:2]).clip(0, [width, height]).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).clip(0, [width, height]).astype(int).tolist()
    inside = np.clip(box.astype(np.float64), 0, [width, height] * 2) - [left, top, left, top]
    return pixels[top:bottom, left:right], inside


def _lay(under: np.ndarray, patch: np.ndarray) -> None:
    """Lay a patch over pixels of its size (h, w, 3) in place, less opaque towards its edges."""
    rows, columns = patch.shape[:2]
    fade = max(1.0, FADED * min(rows, columns))
    ramps = [np.minimum(1.0, (0.5 + np.minimum(at := np.arange(side), at[::-1])) / fade) for side in (rows, columns)]
    opacity = (ramps[0][:, None] * ramps[1])[..., None]  # (h, w, 1)
    under[:] = np.rint(opacity * patch + (1.0 - opacity) * under).astype(np.uint8)


def _covered(top_layer: np.ndarray, box: np.ndarray, layer: int) -> float:
    """Return the share of a box's pixels on which a later layer lies."""
    left, top = np.floor(box[:2]).clip(min=0).astype(int).tolist()
    right, bottom = np.ceil(box[2:]).astype(int).tolist()
    within = top_layer[top:bottom, left:right]
    return float((within > layer).mean()) if within.size else 0.0
