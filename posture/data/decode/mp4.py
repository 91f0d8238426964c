"""Write frames, each with its own time, and sound as an MP4 file that browsers play."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from posture.data.decode.stream import failures
from posture.errors import Unreadable

TICKS = 90_000
"""Units per second of the frames' times; they hold the frames of all usual rates within 6 millionths of a second."""
BT709, LIMITED = 1, 1
"""FFmpeg's numbers for the colours of HD video, and for luma from 16 to 235; browsers expect both."""


class Mp4Writer:
    """An H.264 file at `path`, 8 bits, 4:2:0, with its index in front. Use it in a `with` block.

    `sound` is an MP4 file with AAC or MP3 whose time 0 is the time `sound_start` of the frames; it is copied up to the
    end of the last frame. The file appears at `path` when the block ends, also by Ctrl-C or Unreadable, and holds all
    frames up to then. After another error, or without a frame, nothing appears.
    """

    def __init__(self, path: str | Path, *, fps: float, sound: str | Path | None = None, sound_start: float = 0.0):
        self._path = Path(path)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._rate = Fraction(fps).limit_denominator(1001)
        self._sound, self._sound_start = sound, sound_start
        self._file: Any = None
        self._packets: Iterator[tuple[float, Any]] = iter(())
        self._durations: dict[int, int] = {}
        self._first = 0.0
        self._last = -1

    def add(self, frame: np.ndarray, *, time: float, end: float) -> None:
        """Add a frame, uint8 RGB (H, W, 3), shown from `time` up to `end`, in seconds. All have the size of the first.

        A frame with an odd side gets its last row or column twice.
        """
        import av

        frame = np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
        if self._file is None:
            self._first = time
            self._open(*frame.shape[:2])
        image = self._scaler.reformat(
            av.VideoFrame.from_ndarray(frame, format="rgb24"),
            format="yuv420p",
            dst_colorspace=BT709,
            dst_color_range=LIMITED,
            interpolation="BICUBIC",
            threads=1,
        )
        image.pts = self._last = max(self._last + 1, round((time - self._first) * TICKS))
        image.time_base = Fraction(1, TICKS)
        self._durations[self._last] = max(1, round((end - self._first) * TICKS) - self._last)
        self._end = end
        self._mux(self._stream.encode(image))

    def __enter__(self) -> Mp4Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            return
        try:
            if kind is None or issubclass(kind, (KeyboardInterrupt, Unreadable)):
                self._mux(self._stream.encode(None))
                self._mux_sound(self._end)
                self._file.close()
                os.replace(self._part, self._path)
        finally:
            with contextlib.suppress(*failures()):  # a full disk, which the block's own error tells
                self._file.close()
            self._part.unlink(missing_ok=True)

    def _open(self, height: int, width: int) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self._file = av.open(str(self._part), "w", format="mp4", options={"movflags": "+faststart"})
        self._stream = self._file.add_stream("libx264", rate=self._rate)
        self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        self._stream.options = {"preset": "superfast", "crf": "20"}
        context = self._stream.codec_context
        context.time_base = Fraction(1, TICKS)
        context.gop_size = max(1, round(self._rate))  # a second, so that a player jumps quickly
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = LIMITED
        self._scaler = VideoReformatter()
        if self._sound is not None:
            self._packets = self._sounds(str(self._sound))
            self._next = next(self._packets, None)

    def _sounds(self, path: str) -> Iterator[tuple[float, Any]]:
        """Yield the packets of the sound with their times, in seconds of the frames, from the first frame on."""
        import av

        with av.open(path) as sound:
            template = sound.streams.audio[0]
            copy = self._file.add_stream_from_template(template)
            early = self._first - self._sound_start
            for packet in sound.demux(template):
                if packet.dts is None or packet.pts is None:
                    continue
                time = float(packet.pts * packet.time_base) - early
                shift = round(early / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                if time >= 0:
                    yield time + self._first, packet

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.duration = self._durations.pop(packet.pts, packet.duration)
            self._mux_sound(self._first + packet.pts / TICKS)
            self._file.mux(packet)

    def _mux_sound(self, until: float) -> None:
        """Write the sound that begins before `until`, so that both are side by side in the file."""
        while self._next is not None and self._next[0] < until:
            self._file.mux(self._next[1])
            self._next = next(self._packets, None)

    _next: tuple[float, Any] | None = None
