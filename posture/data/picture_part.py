"""What one task makes of its pictures: checked, turned upright, in a Parquet file that no version of `images` names until it is committed."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from posture.data import rows
from posture.data.store import filesystem, writing
from posture.data.video import Unreadable

ROW_GROUP_PICTURES = 32
"""Pictures per Parquet row group: what a streaming reader takes at once."""
JPEG_QUALITY = 95
"""Of pictures that are encoded anew to stand upright."""

_SIGNATURES = {"JPEG": (0, b"\xff\xd8\xff"), "PNG": (0, b"\x89PNG\r\n\x1a\n"), "WebP": (8, b"WEBP"), "BMP": (0, b"BM")}
_EXIF = (b"Exif\x00", b"eXIf", b"EXIF")
"""How the part of a JPEG, PNG or WebP begins that may say which side is up."""


@dataclass(frozen=True)
class Encoded:
    """A picture as it is stored: its sides are those of what any viewer shows."""

    pixels: bytes
    height: int
    width: int


def check_picture(content: bytes) -> Encoded:
    """The picture whose file holds `content`, once it has decoded to its end. Raises Unreadable with its verdict.

    Boxes are drawn on what a viewer shows: one whose EXIF data turns or mirrors it is encoded anew as it is seen (a JPEG as JPEG, others without loss
    as PNG), so that no reader can take it otherwise. All others stay byte for byte.
    """
    if not content:
        raise Unreadable("empty", "the file has no bytes")
    kind = next((name for name, (at, mark) in _SIGNATURES.items() if content[at:at + len(mark)] == mark), None)
    if kind is None:
        raise Unreadable("not_picture", "neither JPEG, PNG, WebP nor BMP")
    import cv2

    upright = _decoded(content, cv2.IMREAD_COLOR)
    if upright is None:
        raise Unreadable("truncated", f"it begins like a {kind}, but does not decode to its end")
    height, width = upright.shape[:2]
    if any(mark in content for mark in _EXIF):
        lying = _decoded(content, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if lying is None or not np.array_equal(lying, upright):
            content = cv2.imencode(".jpg", upright, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes() if kind == "JPEG" \
                else cv2.imencode(".png", upright)[1].tobytes()
    return Encoded(content, height, width)


def _decoded(content: bytes, flags: int) -> np.ndarray | None:
    import cv2

    try:
        return cv2.imdecode(np.frombuffer(content, np.uint8), flags)
    except cv2.error:
        return None


class PicturePart:
    """Writes rows of `images` a row group at a time. Raises InputError where storage takes no more: that is no picture's fault."""

    def __init__(self, store_uri: str, ingest: str) -> None:
        self._table = f"{store_uri}/images"
        self._files, self._folder = filesystem(self._table)
        self._name = f"part-{ingest}-{uuid.uuid4().hex}.parquet"
        self._path = f"{self._folder}/{self._name}"
        self._writer: pq.ParquetWriter | None = None
        self._buffer: list[dict[str, Any]] = []
        self._written = 0

    def write(self, image: str, uri: str, encoded: Encoded) -> None:
        self._buffer.append({"image": image, "uri": uri, "height": encoded.height, "width": encoded.width, "bytes": len(encoded.pixels),
                             "pixels": encoded.pixels})
        if len(self._buffer) >= ROW_GROUP_PICTURES:
            self._flush()

    def close(self) -> dict[str, Any] | None:
        """Finish the file: {path, bytes, rows}, or None (and no file) where nothing was written."""
        self._flush()
        if self._writer is None:
            return None
        with writing(self._table, self._files, self._path):
            self._writer.close()
            return {"path": self._name, "bytes": self._files.get_file_info(self._path).size, "rows": self._written}

    def _flush(self) -> None:
        if self._buffer:
            with writing(self._table, self._files, self._path):
                self._writer = self._writer or pq.ParquetWriter(self._path, rows.IMAGES, filesystem=self._files, compression="none", use_dictionary=False,
                                                                write_statistics=["image"])
                self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=rows.IMAGES))
            self._written += len(self._buffer)
            self._buffer = []
