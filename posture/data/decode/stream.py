"""Properties of a video stream, and the errors that reading and decoding raise."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

SEEKING, SEQUENTIAL = "pyav", "pyav-sequential"
"""How frames are reached: from the keyframe before them, or from the start of the file."""


@dataclass(frozen=True)
class VideoStream:
    """The video stream of a file as it is shown: upright, with square pixels."""

    fps: float
    """Average frames per second."""
    width: int
    height: int
    coded_width: int
    """Width, upright, before the pixel aspect ratio; tools that ignore the ratio, such as CVAT, report this one."""
    coded_height: int
    codec: str
    decoder: str
    """SEEKING, or SEQUENTIAL for files whose packets do not say which frame is which."""
    doubt: str
    """Why earlier versions of Posture may have given other frames (`decord_doubt.doubt`)."""
    times: np.ndarray
    """(frames,) float64: when each frame is shown, in seconds from the first; increasing."""

    @property
    def frames(self) -> int:
        return len(self.times)

    @property
    def columns(self) -> dict[str, Any]:
        """Return its columns of the table `videos`."""
        names = ("frames", "fps", "seconds", "width", "height", "coded_width", "coded_height", "codec", "decoder")
        return {name: getattr(self, name) for name in names}

    @property
    def seconds(self) -> float:
        """Return how long the video lasts, its last frame included."""
        return float(self.times[-1]) + 1.0 / self.fps


@functools.cache
def failures() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading and decoding raise if the file is at fault."""
    from av.error import FFmpegError

    return FFmpegError, OSError, ValueError, MemoryError


def plain(error: BaseException) -> str:
    """Return the decoder's message in one line, without paths."""
    lines = [line.strip() for line in (getattr(error, "strerror", None) or str(error)).splitlines() if line.strip()]
    return re.sub(r"\s?'?/\S+", "", lines[0] if lines else type(error).__name__)[:160]
