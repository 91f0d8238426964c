"""Open, probe and write video files. Only modules in `decode/` import a video decoder.

Frames are uint8 RGB, (T, H, W, 3). Times are seconds from the first frame: decoders disagree on frame numbers, so a
segment is stored in seconds, and the reader that decodes it turns them into frame numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from posture.data.decode.reader import Reader
from posture.data.decode.stream import VideoStream
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
"""First bytes of video containers: MP4/MOV, AVI, Matroska/WebM, FLV, MPEG program stream."""


def probe(path: str) -> VideoStream:
    """Return the stream of the video file at `path`. Raises Unreadable as Reader does."""
    with Reader(path) as reader:
        return reader.stream


def open_video(path: str, *, height: int | None = None, width: int | None = None, partial: bool = False) -> Reader:
    """Open a reader of the file's frames (`Reader`). Raises Unreadable with the verdict if it has none to train on."""
    if os.path.getsize(path) == 0:
        raise Unreadable("empty", "the file has no bytes")
    try:
        return Reader(path, height=height, width=width, partial=partial)
    except Unreadable as error:
        if error.verdict == "not_video" and _begins_like_video(path):
            raise Unreadable("truncated", f"it begins like a video, but its index is missing: {error}") from None
        raise


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: float, keyframe_every: int = 30) -> None:
    """Encode uint8 RGB frames (H, W, 3), with even sides, as H.264 in the container that `path` names."""
    from fractions import Fraction

    import av

    with av.open(str(path), mode="w") as container:
        stream = None
        for frame in frames:
            if stream is None:
                stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.gop_size = keyframe_every
                stream.options = {"preset": "veryfast", "crf": "20", "threads": "1"}
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        if stream is None:
            raise ValueError(f"{path}: a video needs at least one frame")
        container.mux(stream.encode())


def _begins_like_video(path: str) -> bool:
    with open(path, "rb") as file:
        head = file.read(188 * 4)
    is_transport_stream = len(head) == 188 * 4 and set(head[::188]) == {0x47}  # MPEG-TS marks every 188-byte packet
    return is_transport_stream or any(head[at : at + len(mark)] == mark for at, mark in _SIGNATURES)
