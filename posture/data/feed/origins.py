"""Origins of a store's segments and images: the file, the time in it, and the group."""

# pyarrow.compute makes its functions when it is imported
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from posture.data.store.tables import Store


@dataclass(frozen=True)
class Origin:
    """Stretch of a video that a segment covers."""

    video: str
    """Content hash of the file."""
    uri: str
    """Path or s3:// address of the file; empty if the store no longer lists it."""
    start: float
    """Seconds."""
    end: float
    """Seconds."""
    group: str


def places_of(store: Store, segments: Collection[str], *, versions: dict[str, int] | None = None) -> dict[str, Origin]:
    """Return the origin of each of these segments, by id, without those that are not in the store.

    `versions` pins the tables.
    """
    versions = versions or {}
    uris = {
        row["video"]: row["uri"]
        for row in store.read("videos", columns=["video", "uri", "verdict"], version=versions.get("videos")).to_pylist()
        if row["verdict"] == "ok"
    }
    table = store.read(
        "segments", columns=["segment", "video", "start", "end", "group"], version=versions.get("segments")
    )
    wanted = table.filter(pc.is_in(table["segment"], value_set=pa.array(list(segments), pa.string())))
    return {
        row["segment"]: Origin(row["video"], uris.get(row["video"], ""), row["start"], row["end"], row["group"])
        for row in wanted.to_pylist()
    }


def image_uris(store: Store, images: Collection[str], *, versions: dict[str, int] | None = None) -> dict[str, str]:
    """Return the file of each of these images, by id; for a frame of a video, `video#t=seconds`.

    `versions` pins the tables.
    """
    table = store.read("images", columns=["image", "uri"], version=(versions or {}).get("images"))
    wanted = table.filter(pc.is_in(table["image"], value_set=pa.array(list(images), pa.string())))
    return dict(zip(wanted["image"].to_pylist(), wanted["uri"].to_pylist(), strict=True))
