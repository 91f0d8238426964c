"""Limits of pixels and memory for the process that decodes a file, and its signs of life."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from posture.errors import Unreadable


@dataclass(frozen=True)
class DecodeLimits:
    """Limits of a decoder process, for videos and images."""

    pixels: int = 100_000_000
    """Maximum height x width of an image or frame, as coded and as shown."""
    memory_bytes: int = 4_000_000_000
    """Maximum memory of the process, including 0.3 GB for the interpreter."""

    def apply(self) -> None:
        """Set the limits for this process. Only Linux enforces the memory."""
        import contextlib
        import resource

        global _pixels
        _pixels = self.pixels
        with contextlib.suppress(ValueError, OSError):  # a lower hard limit is already set
            resource.setrlimit(resource.RLIMIT_DATA, (self.memory_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


_pixels: int | None = None
"""Maximum pixels in this process; None, in a process that was started for something else, means no limit."""
_ran_out = False
_tell: Callable[[], None] | None = None
_told = 0.0


def max_pixels() -> int | None:
    """Return the maximum pixels of an image or frame in this process; None means no limit."""
    return _pixels


def refuse_large(height: int, width: int) -> None:
    """Raise Unreadable (too_large) if an image or frame of that size must not be decoded in this process."""
    if _pixels is not None and height * width > _pixels:
        raise Unreadable("too_large", f"{width:,} x {height:,} pixels; the maximum is {_pixels:,} (--max-pixels)")


def note_failure(error: BaseException) -> None:
    """Remember if a failure that decoding survives was a lack of memory."""
    global _ran_out
    _ran_out = _ran_out or isinstance(error, MemoryError)


def ran_out_of_memory() -> bool:
    """Return True if any failure since the last call was a lack of memory."""
    global _ran_out
    did, _ran_out = _ran_out, False
    return did


def tell_work(tell: Callable[[], None]) -> None:
    """Call `tell` about once a second while this process reads packets or decodes frames."""
    global _tell
    _tell = tell


def at_work() -> None:
    """Note that a packet was read or decoded."""
    global _told
    if _tell is not None and (now := time.monotonic()) > _told + 1.0:
        _told = now
        _tell()
