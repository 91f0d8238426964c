"""Boxes follow pixels: images with bright rectangles, whose place is read back from the pixels, and independent
formulas for the rest.
"""

from __future__ import annotations

import colorsys
import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posture.data.feed.image_transforms import (
    GREY,
    LEAST_SIDE,
    BoxedImage,
    Letterbox,
    View,
    augment,
    clip_boxes,
    decode_image,
    draw_view,
    letterbox,
    read_image,
    recolour,
)
from posture.errors import InputError

NOTHING = {
    "mosaic": 0.0,
    "resize": 0.0,
    "shift": 0.0,
    "rotate": 0.0,
    "flip": 0.0,
    "hue": 0.0,
    "saturation": 0.0,
    "value": 0.0,
}
EVERYTHING = {
    "mosaic": 1.0,
    "resize": 0.5,
    "shift": 0.1,
    "rotate": 10.0,
    "flip": 0.5,
    "hue": 0.015,
    "saturation": 0.7,
    "value": 0.4,
}


def image_of(height: int, width: int, rectangles: dict[int, tuple[int, int, int, int]]) -> BoxedImage:
    """A black image with one white rectangle (x1, y1, x2, y2) in each of the given colour channels, which is its
    label too.
    """
    pixels = np.zeros((height, width, 3), np.uint8)
    for channel, (x1, y1, x2, y2) in rectangles.items():
        pixels[y1:y2, x1:x2, channel] = 255
    return BoxedImage(
        pixels, np.array(list(rectangles.values()), np.float32).reshape(-1, 4), np.array(list(rectangles), np.int64)
    )


def seen_box(pixels: np.ndarray, channel: int) -> np.ndarray | None:
    """The box around the bright pixels of a channel; the grey around images is darker than half."""
    rows, columns = np.nonzero(pixels[:, :, channel] > 127)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) if len(rows) else None


@st.composite
def rectangles(draw: st.DrawFn, height: int, width: int) -> tuple[int, int, int, int]:
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height))


SIDES = st.integers(1, 90)


@st.composite
def boxed_images(draw: st.DrawFn, channels: tuple[int, ...], *, sides: st.SearchStrategy[int] = SIDES) -> BoxedImage:
    height, width = draw(sides), draw(sides)
    return image_of(height, width, {channel: draw(rectangles(height, width)) for channel in channels})


@st.composite
def sets_of_images(draw: st.DrawFn) -> list[BoxedImage]:
    """One image, or four that share the three channels."""
    if draw(st.booleans()):
        return [draw(boxed_images((0, 1, 2)))]
    owners = [draw(st.integers(0, 3)) for _ in range(3)]
    return [
        draw(boxed_images(tuple(channel for channel, owner in enumerate(owners) if owner == number)))
        for number in range(4)
    ]


SHARES = st.floats(0.0, 1.0)
UPRIGHT = st.builds(
    View,
    scale=st.floats(0.5, 1.5),
    shift=st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)),
    flip=st.booleans(),
    centre=st.tuples(SHARES, SHARES),
    tile=st.integers(0, 3),
)


@settings(max_examples=150, deadline=None)
@given(sets_of_images(), UPRIGHT, st.sampled_from([32, 47, 96]), st.sampled_from([0.0, 0.1, 0.5]))
def test_boxes_follow_pixels_through_resizing_shifting_flipping_and_mosaics(
    shown: list[BoxedImage], view: View, size: int, least: float
) -> None:
    result = augment(shown, view, size, least_visible=least)
    assert result.pixels.shape == (size, size, 3) and result.pixels.dtype == np.uint8
    assert (
        result.boxes.dtype == np.float32 and result.labels.dtype == np.int64 and len(result.boxes) == len(result.labels)
    )
    kept = dict(zip(result.labels.tolist(), result.boxes, strict=True))
    for image in shown:
        longer = max(image.pixels.shape[:2])
        for channel, box in zip(image.labels.tolist(), image.boxes, strict=True):
            found = seen_box(result.pixels, channel)
            if channel in kept:
                # Enlarged pixels fade into their neighbours: where the square cuts one before its middle, half a
                # pixel's width is too dark to count.
                cut = kept[channel].min() <= 0 or kept[channel].max() >= size
                faded = view.scale * size / longer / 2 if cut else 0.0
                np.testing.assert_allclose(kept[channel], found, atol=1.01 + faded)
            elif found is not None:  # dropped, because little is left of it, or because it is thin
                area = np.prod((box[2:] - box[:2]) * view.scale * size / longer)
                assert (found[2:] - found[:2]).min() < LEAST_SIDE + 1 or np.prod(
                    found[2:] - found[:2] - 1
                ) < least * area


@settings(max_examples=100, deadline=None)
@given(st.data(), UPRIGHT, st.floats(-180.0, 180.0))
def test_turned_boxes_hold_the_turned_pixels(data: st.DataObject, view: View, degrees: float) -> None:
    size = 64
    owners = data.draw(st.lists(st.integers(0, 3), min_size=3, max_size=3))
    shown = [
        data.draw(
            boxed_images(
                tuple(channel for channel, owner in enumerate(owners) if owner == number), sides=st.integers(40, 90)
            )
        )
        for number in range(4)
    ]
    turned = View(**{**view.__dict__, "degrees": degrees})
    result = augment(shown, turned, size, least_visible=0.0)
    thickness = {
        channel: (box[2:] - box[:2]).min() * view.scale * size / max(image.pixels.shape[:2])
        for image in shown
        for channel, box in zip(image.labels.tolist(), image.boxes, strict=True)
    }
    for channel, box in zip(result.labels.tolist(), result.boxes, strict=True):
        found = seen_box(result.pixels, channel)
        # Wholly seen, and no line that is lost between pixels: as tight as pixels allow, whose corners are rounded.
        if (box > 0).all() and (box < size).all() and thickness[channel] > 3:
            np.testing.assert_allclose(box, found, atol=3.0)
        elif found is not None:
            assert (found[:2] >= box[:2] - 1.5).all() and (found[2:] <= box[2:] + 1.5).all()


def test_a_quarter_turn_is_exact() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    result = augment(
        [BoxedImage(pixels, np.array([[4, 10, 12, 30]], np.float32), np.zeros(1, np.int64))], View(degrees=90.0), 40
    )
    np.testing.assert_array_equal(result.pixels, np.rot90(pixels, -1))
    np.testing.assert_allclose(result.boxes, [[10, 4, 30, 12]], atol=1e-4)


def test_ignore_regions_follow_the_pixels_and_stay_however_little_is_left() -> None:
    pixels, region = np.zeros((32, 32, 3), np.uint8), np.array([[8, 8, 24, 16]], np.float32)
    image = BoxedImage(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), region, np.array([3]))
    for view, left in [
        (View(), [8, 8, 24, 16]),
        (View(shift=(0.5, 0.0)), [24, 8, 32, 16]),
        (View(shift=(0.72, 0.0)), [31.04, 8, 32, 16]),
        (View(shift=(0.0, -0.5)), None),
    ]:
        result = augment([image], view, 32)
        np.testing.assert_allclose(result.ignored, np.float32([left] if left else []).reshape(-1, 4), atol=1e-4)
        assert result.ignored_labels.tolist() == ([3] if left else []) and result.boxes.shape == (0, 4)
    mosaic = augment([image] * 4, View(centre=(0.5, 0.5)), 64)
    assert mosaic.ignored.tolist() == [[0, 48, 16, 64], [48, 48, 64, 64]] and mosaic.ignored_labels.tolist() == [
        3,
        3,
    ], "of the lower two, half each"
    read = read_image(
        encoded(np.zeros((64, 32, 3), np.uint8), ".png"),
        (64, 32),
        *image[1:3],
        name="it",
        longest=32,
        regions=image[3:],
    )
    assert read.ignored.tolist() == [[4, 4, 12, 8]] and read.ignored_labels.tolist() == [3]


def test_whole_pixels_are_moved_untouched() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    image = BoxedImage(pixels, np.array([[8, 8, 24, 16]], np.float32), np.array([3]))
    for view, expected, box in [
        (View(), pixels, [8, 8, 24, 16]),
        (View(flip=True), pixels[:, ::-1], [8, 8, 24, 16]),
        (
            View(shift=(0.25, 0.0)),
            np.concatenate([np.full((32, 8, 3), GREY, np.uint8), pixels[:, :24]], axis=1),
            [16, 8, 32, 16],
        ),
        (
            View(shift=(0.0, -0.5), flip=True),
            np.concatenate([pixels[16:, ::-1], np.full((16, 32, 3), GREY, np.uint8)]),
            None,
        ),
    ]:
        result = augment([image], view, 32)
        np.testing.assert_array_equal(result.pixels, expected)
        assert result.boxes.tolist() == ([] if box is None else [box])


def test_a_mosaic_is_four_images_around_its_centre() -> None:
    """Images of one colour each, of which the centre and the tile say where they are: hand-computed for a wide one
    and a tall one.
    """
    shapes = [(32, 32), (16, 32), (32, 16), (32, 32)]
    shown = [
        BoxedImage(
            np.full((*shape, 3), 10 * number, np.uint8),
            np.array([[0, 0, shape[1], shape[0]]], np.float32),
            np.array([number]),
        )
        for number, shape in enumerate(shapes, start=1)
    ]
    result = augment(shown, View(centre=(0.5, 0.75), tile=1), 64, least_visible=0.0)
    # First above right, then below left, below right, above left of (32, 48); as large as a letterbox of 64.
    assert result.labels.tolist() == [1, 2, 3, 4]
    assert result.boxes.tolist() == [[32, 0, 64, 48], [0, 48, 32, 64], [32, 48, 64, 64], [0, 0, 32, 48]]
    for (x1, y1, x2, y2), number in zip(result.boxes.astype(int).tolist(), result.labels.tolist(), strict=True):
        assert (result.pixels[y1:y2, x1:x2] == 10 * number).all()
    half = augment(shown, View(scale=0.5, centre=(0.5, 0.5)), 64, least_visible=0.0)  # all four, at half their size
    assert half.boxes.tolist() == [[0, 0, 32, 32], [32, 16, 64, 32], [16, 32, 32, 64], [32, 32, 64, 64]]
    assert (
        (half.pixels[:16, 32:] == GREY).all()
        and (half.pixels[32:, :16] == GREY).all()
        and (half.pixels[16:32, 32:] == 20).all()
    )


def test_resampling_is_bilinear_about_pixel_centres() -> None:
    """Against the formula in float64, on a smooth image; to two levels, because OpenCV's weights are 32nds."""
    height, width, size = 30, 44, 64
    down, across = np.mgrid[:height, :width]
    pixels = (
        np
        .stack([127 + 100 * np.sin(across / 9), 120 + 90 * np.cos(down / 7 + across / 20), across * 2.5 + down], axis=2)
        .round()
        .astype(np.uint8)
    )
    view = View(scale=1.3, shift=(0.05, -0.1), flip=True)
    shown = augment([BoxedImage(pixels, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))], view, size).pixels
    scale = 1.3 * size / width
    centres = np.arange(size) + 0.5
    # mirrored, moved back, shrunk back: in pixels from the first one's centre
    x = ((size - centres) - size * 0.55) / scale + width / 2 - 0.5
    y = (centres - size * 0.4) / scale + height / 2 - 0.5
    inside = ((x >= -0.5) & (x < width - 0.5))[None, :] & ((y >= -0.5) & (y < height - 0.5))[:, None]
    x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    left, top = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    right, below = (x - left)[None, :, None], (y - top)[:, None, None]
    rows = pixels[top].astype(float) * (1 - below) + pixels[top + 1] * below
    expected = np.where(inside[..., None], rows[:, left] * (1 - right) + rows[:, left + 1] * right, GREY)
    assert inside.any() and not inside.all()
    np.testing.assert_allclose(shown, expected, atol=2.0)


def test_alone_and_unchanged_an_image_is_its_letterbox() -> None:
    for height, width in ((24, 40), (40, 24), (33, 33), (64, 48)):
        down, across = np.mgrid[:height, :width]
        pixels = np.stack([across * 4, down * 3, across + down], axis=2).astype(np.uint8)
        boxes = np.array([[3, 2, 20, 17]], np.float32)
        square, laid, _ = letterbox(pixels, boxes, 64)
        result = augment([BoxedImage(pixels, boxes, np.zeros(1, np.int64))], View(), 64)
        np.testing.assert_allclose(result.boxes, laid, atol=0.51)
        # but for a line where the halves of a pixel are
        assert (np.abs(result.pixels.astype(int) - square) > 3).any(axis=2).mean() < 0.04


# Letterboxes


@settings(max_examples=100, deadline=None)
@given(boxed_images((0, 1, 2), sides=st.integers(1, 200)), st.sampled_from([32, 64, 75]))
def test_letterboxed_boxes_are_around_their_pixels(image: BoxedImage, size: int) -> None:
    square, boxes, laid = letterbox(image.pixels, image.boxes, size)
    assert square.shape == (size, size, 3) and boxes.shape == (3, 4) and boxes.dtype == np.float32
    for channel, box in enumerate(boxes):
        if (box[2:] - box[:2]).min() >= 2:  # a thinner one may be lost between pixels
            np.testing.assert_allclose(box, seen_box(square, channel), atol=1.01)
    height, width = image.pixels.shape[:2]
    mask = np.ones((size, size), bool)
    down, across = round(height * laid.scale_y), round(width * laid.scale_x)
    mask[laid.dy : laid.dy + down, laid.dx : laid.dx + across] = False
    assert (square[mask] == GREY).all() and max(down, across) == size
    assert abs((size - across) / 2 - laid.dx) <= 0.5 and abs((size - down) / 2 - laid.dy) <= 0.5


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([320, 640]), st.data())
def test_the_way_back_from_a_letterbox(height: int, width: int, size: int, data: st.DataObject) -> None:
    x1, y1, x2, y2 = data.draw(rectangles(height, width))
    pixels = (
        np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))
        if height * width < 10_000
        else np.zeros((height, width, 3), np.uint8)
    )
    boxes = np.array([[x1, y1, x2, y2]], np.float32)
    _, laid_boxes, laid = letterbox(np.ascontiguousarray(pixels), boxes, size)
    np.testing.assert_allclose(laid.boxes_to_image(laid_boxes), boxes, rtol=1e-5, atol=1e-2)
    everywhere = np.array([[-50.0, -50.0, size + 50.0, size + 50.0]])
    np.testing.assert_allclose(laid.boxes_to_image(everywhere), [[0, 0, width, height]])


def test_a_letterbox_by_hand() -> None:
    boxes = np.array([[10, 20, 110, 220], [0, 0, 320, 240]], np.float32)
    square, laid_boxes, laid = letterbox(np.full((240, 320, 3), 7, np.uint8), boxes, 640)
    assert laid == Letterbox(height=240, width=320, scale_x=2.0, scale_y=2.0, dx=0, dy=80)
    assert laid_boxes.tolist() == [[20, 120, 220, 520], [0, 80, 640, 560]]
    assert (square[80:560] == 7).all() and (square[:80] == GREY).all() and (square[560:] == GREY).all()
    out = np.zeros((640, 640, 3), np.uint8)
    again, _, _ = letterbox(np.full((240, 320, 3), 7, np.uint8), boxes, 640, out=out)
    assert again is out
    np.testing.assert_array_equal(out, square)


def test_shrinking_loses_nothing_between_pixels() -> None:
    """Every fourth column is bright: a quarter of that is seen, wherever the new pixels' centres are."""
    fence = np.tile(np.array([200, 0, 0, 0], np.uint8), (256, 64))
    square, _, _ = letterbox(np.repeat(fence[..., None], 3, axis=2), np.zeros((0, 4), np.float32), 64)
    np.testing.assert_allclose(square, 50, atol=1)


# Boxes that are cut


def test_boxes_with_too_little_left_are_dropped() -> None:
    boxes = np.array([
        [-90, 10, 10, 20],  # a tenth is left, exactly
        [-91, 10, 10, 20],  # less
        [10, 10, 12, 90],  # two pixels wide
        [10, 10, 11.9, 90],  # less
        [98.5, 0, 200, 100],  # a sliver
        [-5, -5, 105, 105],  # larger than the image
        [120, 10, 130, 20],  # outside
        [30, 30, 30, 30],  # nothing
    ])  # fmt: skip
    clipped, kept = clip_boxes(boxes, 100, least_visible=0.1)
    assert kept.tolist() == [True, False, True, False, False, True, False, False]
    assert (
        clipped[0].tolist() == [0, 10, 10, 20]
        and clipped[5].tolist() == [0, 0, 100, 100]
        and clipped.dtype == np.float32
    )


@pytest.mark.parametrize("shape", [(1, 200), (200, 1), (1, 1), (3, 7)])
def test_images_of_any_shape_without_boxes(shape: tuple[int, int]) -> None:
    empty = BoxedImage(np.full((*shape, 3), 50, np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    for shown in ([empty], [empty] * 4):
        for view in (View(), View(scale=0.5, degrees=30.0), View(scale=1.5, flip=True, shift=(0.9, 0.9), hue=1.01)):
            result = augment(shown, view, 64)
            assert result.pixels.shape == (64, 64, 3) and result.boxes.shape == (0, 4) and result.labels.shape == (0,)
    square, boxes, _ = letterbox(empty.pixels, empty.boxes, 64)
    assert (square == 50).any() and boxes.shape == (0, 4)


def test_two_or_three_images_are_no_mosaic() -> None:
    image = image_of(4, 4, {})
    with pytest.raises(ValueError, match="one image or a mosaic of four, not 2"):
        augment([image, image], View(), 32)


# Colours


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(0, 255)] * 3), st.floats(0.985, 1.015), st.floats(0.3, 1.7), st.floats(0.6, 1.4))
def test_colours_change_as_the_formula_says(
    colour: tuple[int, int, int], hue: float, saturation: float, value: float
) -> None:
    pixels = np.full((2, 2, 3), colour, np.uint8)
    recolour(pixels, hue=hue, saturation=saturation, value=value)
    h, s, v = colorsys.rgb_to_hsv(*(channel / 255 for channel in colour))
    expected = np.array(colorsys.hsv_to_rgb(h * hue % 1.0, min(1.0, s * saturation), min(1.0, v * value))) * 255
    # Hue is stored in steps of two degrees, saturation in 256 steps (coarse where it is dark).
    np.testing.assert_allclose(pixels[0, 0], expected, atol=9.0)


def test_factors_of_one_leave_every_colour_alone() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    before = pixels.copy()
    recolour(pixels, hue=1.0, saturation=1.0, value=1.0)
    np.testing.assert_array_equal(pixels, before)


def test_hue_runs_in_a_circle() -> None:
    purple = np.full((1, 1, 3), (200, 0, 4), np.uint8)  # a hue of almost 360 degrees
    recolour(purple, hue=1.02, saturation=1.0, value=1.0)
    assert purple[0, 0, 1] > 10 and purple[0, 0, 2] < 2  # past red, towards yellow


# Random views


def test_a_view_is_its_images_own() -> None:
    data = SimpleNamespace(**EVERYTHING)
    key = {"seed": 3, "epoch": 2, "image": 7}
    view = draw_view(data, **key)
    assert view == draw_view(data, **key, repeat=0)
    others = [draw_view(data, **key | change) for change in ({"seed": 4}, {"epoch": 3}, {"image": 8}, {"repeat": 1})]
    assert len({view.scale, *(other.scale for other in others)}) == 5


def test_one_kind_of_augmentation_leaves_the_others_as_they_were() -> None:
    fields = {
        "resize": "scale",
        "rotate": "degrees",
        "shift": "shift",
        "flip": "flip",
        "hue": "hue",
        "saturation": "saturation",
        "value": "value",
    }
    for image in range(20):
        everything = draw_view(SimpleNamespace(**EVERYTHING), seed=0, epoch=0, image=image)
        for switched, field in fields.items():
            less = draw_view(SimpleNamespace(**EVERYTHING | {switched: 0.0}), seed=0, epoch=0, image=image)
            changed = {name for name in View.__dataclass_fields__ if getattr(less, name) != getattr(everything, name)}
            assert changed <= {field} and getattr(less, field) == getattr(View(), field)


def test_views_fill_their_ranges() -> None:
    views = [draw_view(SimpleNamespace(**EVERYTHING), seed=0, epoch=0, image=image) for image in range(800)]
    drawn = np.array([
        (view.scale, view.degrees, *view.shift, view.hue, view.saturation, view.value, *view.centre) for view in views
    ])
    ranges = [(0.5, 1.5), (-10, 10), (-0.1, 0.1), (-0.1, 0.1), (0.985, 1.015), (0.3, 1.7), (0.6, 1.4), (0, 1), (0, 1)]
    assert (np.abs(np.corrcoef(drawn.T) - np.eye(9)) < 0.15).all()
    for values, (low, high) in zip(drawn.T, ranges, strict=True):
        spread = high - low
        assert low <= min(values) < low + 0.02 * spread and high - 0.02 * spread < max(values) <= high
        assert abs(np.mean(values) - (low + high) / 2) < 0.05 * spread
    assert 0.4 < np.mean([view.flip for view in views]) < 0.6
    assert np.bincount([view.tile for view in views], minlength=4).min() > 150


# Decoding


def encoded(pixels: np.ndarray, suffix: str = ".png") -> np.ndarray:
    return cv2.imencode(
        suffix, np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpg" else []
    )[1].reshape(-1)


def turned_by_exif(jpeg: np.ndarray, orientation: int) -> np.ndarray:
    """The JPEG with an EXIF segment that holds nothing but its orientation."""
    tiff = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HHHIHHI", 1, 0x0112, 3, 1, orientation, 0, 0)
    segment = b"\xff\xe1" + struct.pack(">H", 2 + 6 + len(tiff)) + b"Exif\0\0" + tiff
    content = jpeg.tobytes()
    return np.frombuffer(content[:2] + segment + content[2:], np.uint8)


SMOOTH = np.stack(
    [
        np.broadcast_to(np.linspace(0, 240, 150), (100, 150)),
        np.broadcast_to(np.linspace(0, 200, 100)[:, None], (100, 150)),
        np.full((100, 150), 90.0),
    ],
    axis=2,
).astype(np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_images_decode_to_rgb(suffix: str) -> None:
    decoded = decode_image(encoded(SMOOTH, suffix), (100, 150), name="it")
    assert decoded.shape == (100, 150, 3) and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - SMOOTH).max() <= (0 if suffix in (".png", ".bmp") else 8)


def test_grey_and_transparent_and_16_bit_images_are_rgb_too() -> None:
    grey = cv2.imencode(".png", SMOOTH[..., 0])[1].reshape(-1)
    np.testing.assert_array_equal(decode_image(grey, (100, 150), name="it"), np.repeat(SMOOTH[..., :1], 3, axis=2))
    for image in (np.dstack([SMOOTH, SMOOTH[..., 0]]), SMOOTH.astype(np.uint16) * 257):
        decoded = decode_image(cv2.imencode(".png", image)[1].reshape(-1), (100, 150), name="it")
        assert decoded.shape == (100, 150, 3) and decoded.dtype == np.uint8
        assert np.abs(decoded[..., ::-1].astype(int) - SMOOTH).max() <= 1


@pytest.mark.parametrize("longest", [150, 149, 75, 40, 30, 18, 9])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_shrunk_while_decoding_it_is_the_same_image(suffix: str, longest: int) -> None:
    small = decode_image(encoded(SMOOTH, suffix), (100, 150), name="it", longest=longest)
    assert small.shape == (round(100 * longest / 150), longest, 3)
    expected = cv2.resize(SMOOTH, small.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).max() <= 8


def test_boxes_shrink_with_their_image() -> None:
    image = image_of(301, 403, {0: (40, 60, 300, 200), 1: (0, 0, 403, 301)})
    small = read_image(encoded(image.pixels, ".jpg"), (301, 403), image.boxes, image.labels, name="it", longest=100)
    assert small.pixels.shape == (75, 100, 3) and small.boxes.dtype == np.float32
    np.testing.assert_allclose(small.boxes[0], seen_box(small.pixels, 0), atol=1.01)
    np.testing.assert_allclose(small.boxes[1], [0, 0, 100, 75], atol=1e-4)


def test_images_stand_upright() -> None:
    """A camera that was held sideways says so; the image's size is that of what people see."""
    turned = turned_by_exif(encoded(SMOOTH, ".jpg"), 6)
    upright = decode_image(turned, (150, 100), name="it")
    assert np.abs(upright.astype(int) - np.rot90(SMOOTH, -1)).max() <= 8
    assert decode_image(turned, (150, 100), name="it", longest=50).shape == (50, 33, 3)


def test_what_does_not_decode_to_its_size_is_named() -> None:
    with pytest.raises(InputError, match="the stored image abc does not decode"):
        decode_image(np.frombuffer(b"no image at all", np.uint8), (10, 10), name="abc")
    with pytest.raises(InputError, match="the stored image abc does not decode"):
        decode_image(np.zeros(0, np.uint8), (10, 10), name="abc")
    with pytest.raises(
        InputError, match="the stored image abc is 100 x 150 pixels high and wide, but the store says 150 x 100"
    ):
        decode_image(encoded(SMOOTH), (150, 100), name="abc")
