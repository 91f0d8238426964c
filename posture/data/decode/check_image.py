"""Decode an image file to its end and turn it upright. Runs in the decoder's process (`data/decode/sandbox.py`)."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np

from posture.data.decode.limits import refuse_large
from posture.errors import Unreadable

JPEG_QUALITY = 95
"""JPEG quality of images that are encoded again to stand upright."""

_SIGNATURES = {"JPEG": (0, b"\xff\xd8\xff"), "PNG": (0, b"\x89PNG\r\n\x1a\n"), "WebP": (8, b"WEBP"), "BMP": (0, b"BM")}
_OTHERS = {
    "GIF": (0, b"GIF8"),
    "TIFF": (0, b"II*\0"),
    "TIFF (big-endian)": (0, b"MM\0*"),
    "HEIC or AVIF image": (4, b"ftyp"),
    "JPEG 2000": (4, b"jP  "),
    "JPEG XL": (0, b"\xff\x0a"),
    "Photoshop file": (0, b"8BPS"),
    "PDF": (0, b"%PDF"),
}
"""Formats that may hide behind an image's suffix and are not read."""
_EXIF = (b"Exif\x00", b"eXIf", b"EXIF")
"""First bytes of the part of a JPEG, PNG or WebP that may hold an orientation."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored, with the height and width that any viewer shows."""

    pixels: bytes
    height: int
    width: int


def read_image(path: str, content_hash: str) -> EncodedImage:
    """Check the image at `path` as `check_image` does. Raises Unreadable, also if its hash is not `content_hash`."""
    import cv2

    cv2.setNumThreads(1)  # files are decoded in parallel already
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.blake2b(content, digest_size=16).hexdigest() != content_hash:
        raise Unreadable("unreadable", "the file changed while it was read")
    return check_image(content)


def check_image(content: bytes) -> EncodedImage:
    """Decode an image to its end and return it as it is stored. Raises Unreadable with its verdict, or MemoryError.

    Boxes are drawn on what a viewer shows. So an image that its EXIF data turns or mirrors is encoded again as it is
    shown: JPEG as JPEG, other formats losslessly as PNG. All others are kept byte for byte. Only the first image of a
    JPEG that holds several (MPO) counts.
    """
    if not content:
        raise Unreadable("empty", "the file has no bytes")
    kind = _kind(content, _SIGNATURES)
    if kind is None:
        other = _kind(content, _OTHERS)
        raise Unreadable(
            "not_picture",
            f"a {other}; Posture reads JPEG, PNG, WebP and BMP" if other else "not a JPEG, PNG, WebP or BMP",
        )
    _refuse_by_header(content, kind)
    import cv2

    upright = _decoded(content, cv2.IMREAD_COLOR)
    if upright is None:
        raise Unreadable("truncated", f"it begins like a {kind}, but does not decode to its end")
    height, width = upright.shape[:2]
    if any(mark in content for mark in _EXIF):
        lying = _decoded(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if lying is None or not np.array_equal(lying, upright):
            content = (
                cv2.imencode(".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
                if kind == "JPEG"
                else cv2.imencode(".png", upright)[1].tobytes()
            )
    return EncodedImage(content, height, width)


def _kind(content: bytes, signatures: dict[str, tuple[int, bytes]]) -> str | None:
    return next((name for name, (at, mark) in signatures.items() if content[at : at + len(mark)] == mark), None)


def _refuse_by_header(content: bytes, kind: str) -> None:
    """Raise Unreadable for an image that is too large, or an animation, before anything is decoded.

    A header that Pillow cannot read is left to the decoder, which has the same limit (OPENCV_IO_MAX_IMAGE_PIXELS).
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about odd EXIF data and large images, which our own limit covers
        try:
            Image.MAX_IMAGE_PIXELS = None
            with Image.open(io.BytesIO(content), formats=[kind.upper()]) as header:
                width, height = header.size
                frames = getattr(header, "n_frames", 1) if kind in ("PNG", "WebP") else 1
        except MemoryError:
            raise
        except Exception:  # Pillow raises many kinds: OSError, SyntaxError, struct.error, ValueError ...
            return
    refuse_large(height, width)
    if frames > 1:
        raise Unreadable(
            "not_picture", f"an animation of {frames} frames; save the labelled frame as an image of its own"
        )


def _decoded(content: bytes, flags: int) -> np.ndarray | None:
    """Return uint8 (H, W, 3), BGR, or None if the image does not decode to its end. Raises MemoryError."""
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError from None
        return None
