"""What one task made of its images, as a Parquet file in the table's folder, which no version of `images` names until
it is committed.
"""

from __future__ import annotations

import uuid
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from posture.data.decode.check_image import EncodedImage
from posture.data.store import schema
from posture.data.store.tables import filesystem, writing

ROW_GROUP_IMAGES = 32
"""Images per Parquet row group: what a streaming reader takes at once."""


class ImagePart:
    """Writes rows of `images` a row group at a time. Raises InputError where storage takes no more: that is no
    image's fault.
    """

    def __init__(self, store_uri: str, ingest: str) -> None:
        self._table = f"{store_uri}/images"
        self._files, self._folder = filesystem(self._table)
        self._name = f"part-{ingest}-{uuid.uuid4().hex}.parquet"
        self._path = f"{self._folder}/{self._name}"
        self._writer: pq.ParquetWriter | None = None
        self._buffer: list[dict[str, Any]] = []
        self._written = 0

    def write(self, image: str, uri: str, encoded: EncodedImage, **of_frame: Any) -> None:
        """Add an image; `of_frame` are the columns that only frames of videos have."""
        self._buffer.append({
            "image": image,
            "uri": uri,
            "height": encoded.height,
            "width": encoded.width,
            "bytes": len(encoded.pixels),
            "pixels": encoded.pixels,
            **of_frame,
        })
        if len(self._buffer) >= ROW_GROUP_IMAGES:
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
                self._writer = self._writer or pq.ParquetWriter(
                    self._path,
                    schema.IMAGES,
                    filesystem=self._files,
                    compression="none",
                    use_dictionary=False,
                    write_statistics=["image"],
                )
                self._writer.write_table(pa.Table.from_pylist(self._buffer, schema=schema.IMAGES))
            self._written += len(self._buffer)
            self._buffer = []
