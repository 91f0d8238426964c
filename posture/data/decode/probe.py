"""One verdict per file, before and while it is decoded."""

from __future__ import annotations

import os

from posture.data.decode.video import Reader
from posture.errors import Unreadable

_SIGNATURES = (
    (4, b"ftyp"),
    (4, b"moov"),
    (4, b"mdat"),
    (0, b"RIFF"),
    (0, b"\x1aE\xdf\xa3"),
    (0, b"FLV"),
    (0, b"\x00\x00\x01\xba"),
)
"""How video containers begin: MP4/MOV, AVI, Matroska/WebM, FLV, MPEG program stream."""


def open_video(path: str, *, height: int | None = None, width: int | None = None) -> Reader:
    """A reader of the file's frames (`Reader`). Raises Unreadable with the verdict if there is nothing to train on."""
    if os.path.getsize(path) == 0:
        raise Unreadable("empty", "the file has no bytes")
    try:
        return Reader(path, height=height, width=width)
    except Unreadable as error:
        if error.verdict == "not_video" and _begins_like_video(path):
            raise Unreadable("truncated", f"it begins like a video, but its index is missing: {error}") from None
        raise


def _begins_like_video(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(188 * 4)
    is_transport_stream = len(head) == 188 * 4 and set(head[::188]) == {0x47}  # MPEG-TS marks every 188-byte packet
    return is_transport_stream or any(head[at : at + len(mark)] == mark for at, mark in _SIGNATURES)
