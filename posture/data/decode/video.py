"""Files to frames and back. Decoding is in `decode/`; together they are the only modules that import a decoder.

Frames are uint8 RGB, (T, H, W, 3). Times are seconds from the first frame: decoders disagree on frame numbers,
so a segment is stored in seconds and turned into frame numbers by the reader that decodes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from posture.data.decode.reader import Reader
from posture.data.decode.stream import VideoStream

__all__ = ["Reader", "VideoStream", "probe", "write_video"]


def probe(path: str) -> VideoStream:
    """What is known of the video file at `path`. Raises Unreadable as Reader does."""
    with Reader(path) as reader:
        return reader.stream


def write_video(path: str | Path, frames: Iterable[np.ndarray], *, fps: float, keyframe_every: int = 30) -> None:
    """Encode uint8 RGB frames (H, W, 3), both even, as H.264 in the container that `path` names."""
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
