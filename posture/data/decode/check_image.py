"""An image file, decoded to its end and turned upright. Runs in the decoder's process (`data/decode/sandbox.py`)."""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass

import numpy as np

from posture.data.decode.limits import refuse_large
from posture.errors import Unreadable

JPEG_QUALITY = 95
"""Of images that are encoded anew to stand upright."""

_SIGNATURES = {"JPEG": (0, b"\xff\xd8\xff"), "PNG": (0, b"\x89PNG\r\n\x1a\n"), "WebP": (8, b"WEBP"), "BMP": (0, b"BM")}
_OTHERS = {
    "GIF": (0, b"GIF8"),
    "TIFF": (0, b"II*\0"),
    "TIFF of a Mac": (0, b"MM\0*"),
    "HEIC or AVIF image": (4, b"ftyp"),
    "JPEG 2000": (4, b"jP  "),
    "JPEG XL": (0, b"\xff\x0a"),
    "Photoshop file": (0, b"8BPS"),
    "PDF": (0, b"%PDF"),
}
"""What lies under an image's name now and then, and is not read."""
_EXIF = (b"Exif\x00", b"eXIf", b"EXIF")
"""How the part of a JPEG, PNG or WebP begins that may say which side is up."""


@dataclass(frozen=True)
class EncodedImage:
    """An image as it is stored: its sides are those of what any viewer shows."""

    pixels: bytes
    height: int
    width: int


def read_image(path: str, content_hash: str) -> EncodedImage:
    """`check_image` of the file at `path`. Raises Unreadable, also if its content has another hash
    (`files.hash_file`) than `content_hash`.
    """
    import cv2

    cv2.setNumThreads(1)  # as many files at once as there are cores are enough
    with open(path, "rb") as file:
        content = file.read()
    if hashlib.blake2b(content, digest_size=16).hexdigest() != content_hash:
        raise Unreadable("unreadable", "it changed while it was read")
    return check_image(content)


def check_image(content: bytes) -> EncodedImage:
    """The image whose file holds `content`, once it has decoded to its end. Raises Unreadable with its verdict,
    MemoryError.

    Boxes are drawn on what a viewer shows: one whose EXIF data turns or mirrors it is encoded anew as it is seen (a
    JPEG as JPEG, others without loss as PNG), so that no reader can take it otherwise. All others stay byte for byte.
    Of a JPEG that holds several images (MPO) the first counts.
    """
    if not content:
        raise Unreadable("empty", "the file has no bytes")
    kind = _kind(content, _SIGNATURES)
    if kind is None:
        other = _kind(content, _OTHERS)
        raise Unreadable(
            "not_picture",
            f"a {other}; what is read is JPEG, PNG, WebP and BMP" if other else "neither JPEG, PNG, WebP nor BMP",
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

    A header that Pillow does not understand is left to the decoder, which has the same limit
    (OPENCV_IO_MAX_IMAGE_PIXELS).
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd EXIF data, and of large images: our own limit says how large
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
            "not_picture",
            f"an animation of {frames} frames; save the frame that the labels are about as an image of its own",
        )


def _decoded(content: bytes, flags: int) -> np.ndarray | None:
    """uint8 (H, W, 3), BGR; None if it does not decode to its end. Raises MemoryError."""
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error as error:
        if error.code == cv2.Error.STS_NO_MEM:
            raise MemoryError from None
        return None
