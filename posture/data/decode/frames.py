"""Single frames of a video, by number. Runs where the file is decoded (`data/decode/sandbox.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from posture.data.decode.cut import Clip, encode_frames
from posture.data.decode.probe import open_video

JPEG_QUALITY = 95


def read_frames(path: str, frames: Sequence[int]) -> Iterator[dict[str, Any] | Clip]:
    """Yield the frames (ascending, from 0) at the size that the video is shown at, each as a Clip of one JPEG with
    {frame, time, height, width, coded_height, coded_width, decoder}; time in seconds.

    Of one past the end: {"kind": "past_end", frame, frames}, the latter how many there are. Raises Unreadable.
    """
    with open_video(path) as reader:
        shown = reader.times()
        for frame in frames:
            if frame >= len(reader):
                yield {"kind": "past_end", "frame": frame, "frames": len(reader)}
                continue
            pixels, _ = encode_frames(reader.frames([frame]), JPEG_QUALITY)
            yield Clip(
                {
                    "frame": frame,
                    "time": float(shown[frame]),
                    "height": reader.height,
                    "width": reader.width,
                    "coded_height": reader.stream.coded_height,
                    "coded_width": reader.stream.coded_width,
                    "decoder": reader.stream.decoder,
                },
                pixels,
            )
