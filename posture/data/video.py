"""Files to frames and back; the only module that imports a decoder.

Frames are uint8 RGB, (T, H, W, 3). Times are seconds from the first frame: decoders disagree on frame numbers,
so a segment is stored in seconds and turned into frame numbers here, by the reader that decodes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".qt", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".ts", ".m2ts", ".m2t",
                            ".mts", ".vob", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".mxf", ".ogv", ".ogm", ".dv"})
"""Suffixes of video files in lower case; they are compared so."""


class Unreadable(Exception):
    """A file that gives no frames. `verdict` is one of `rows.VERDICTS`."""

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(reason)
        self.verdict = verdict


@dataclass(frozen=True)
class Stream:
    """What the container says of its video stream. `frames` is nominal: decoding decides."""

    frames: int
    fps: float
    width: int
    height: int
    codec: str


def probe(path: str) -> Stream:
    """The video stream of the file at `path`. Raises Unreadable where there is none."""
    import av

    try:
        container = av.open(path, metadata_errors="ignore")
    except av.error.FFmpegError as error:
        raise Unreadable("not_video", f"no video container: {_plain(error)}") from None
    with container:
        if not container.streams.video:
            raise Unreadable("no_video_stream", "the file has no video stream")
        stream = container.streams.video[0]
        fps = float(stream.average_rate or stream.guessed_rate or 0)
        frames = stream.frames or round(float((container.duration or 0) / 1_000_000) * fps)
        if not frames and not any(packet.size for packet in container.demux(stream)):
            raise Unreadable("no_frames", "the video stream holds no frames")
        return Stream(frames, fps, stream.codec_context.width, stream.codec_context.height, stream.codec_context.name)


class Reader:
    """Frames of one file by number, resized to `height` x `width` while decoding, by one thread: the caller decodes many files at once.

    Raises Unreadable where the file cannot be opened or has no frames.
    """

    def __init__(self, path: str, *, height: int, width: int) -> None:
        import decord  # never before torch in a process that needs both

        decord.logging.set_level(decord.logging.QUIET)
        self._width, self._columns = width, 1
        while _is_misread(width * self._columns):
            self._columns *= 2
        try:
            self._reader = decord.VideoReader(path, width=width * self._columns, height=height, num_threads=1)
        except (decord.DECORDError, RuntimeError) as error:
            raise Unreadable("truncated", f"the decoder cannot open it: {_plain(error)}") from None
        if len(self._reader) == 0:
            raise Unreadable("no_frames", "the video stream holds no frames")

    def __len__(self) -> int:
        return len(self._reader)

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return float(self._reader.get_avg_fps())

    def times(self) -> np.ndarray:
        """When each frame is shown, (frames,) float64 seconds from the first; honest for variable frame rates too.

        Of files without times, such as some AVIs of UCF101, for which the decoder makes some up: at an even pace.
        """
        starts = self._reader.get_frame_timestamp(range(len(self._reader)))[:, 0].astype(np.float64)
        times = starts - starts[0]
        if (np.diff(times) <= 0).any() or times[-1] > 2 * len(times) / self.fps:
            return np.arange(len(times)) / self.fps
        return times

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        """Frames (len(numbers), H, W, 3) uint8. Raises Unreadable where one does not decode."""
        import decord

        try:
            frames = self._reader.get_batch(list(numbers)).asnumpy()
        except (decord.DECORDError, RuntimeError) as error:
            raise Unreadable("truncated", f"decoding stops before frame {max(numbers)}: {_plain(error)}") from None
        if self._columns == 1:
            return frames
        split = frames.reshape(*frames.shape[:2], self._width, self._columns, 3)
        return ((split.sum(axis=3, dtype=np.uint16) + self._columns // 2) // self._columns).astype(np.uint8)


def _is_misread(width: int) -> bool:
    """Whether decord 3.4 takes the padding of a row of this many RGB pixels for a fourth channel, and fails.

    FFmpeg pads rows to 16 to 128 bytes, as the processor likes it; where that makes whole pixels, decord counts them as channels.
    Such a width is decoded several times as wide, and the columns averaged.
    """
    padded = {-(-3 * width // align) * align for align in (16, 32, 64, 128)}
    return any(row != 3 * width and row % width == 0 for row in padded)


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


def _plain(error: BaseException) -> str:
    """The decoder's message in one line, without source positions and paths."""
    lines = [line.strip() for line in (getattr(error, "strerror", None) or str(error)).splitlines() if line.strip()]
    text = re.sub(r"^\[[\d:]+\] \S+?:\d+: ", "", lines[0] if lines else type(error).__name__)  # decord's time and source line
    return re.sub(r"\s?'?/\S+", "", text)[:160]
