"""What one file may ask of the process that decodes it."""

from __future__ import annotations

from dataclasses import dataclass

from posture.errors import Unreadable


@dataclass(frozen=True)
class DecodeLimits:
    """Of a decoder process, the same for videos and images."""

    pixels: int = 100_000_000
    """Height x width of an image or frame, as coded and as shown."""
    memory_bytes: int = 4_000_000_000
    """That the process may hold, the interpreter's 0.3 GB included."""

    def apply(self) -> None:
        """Hold this process to them. The kernel enforces the memory on Linux only."""
        import contextlib
        import resource

        global _pixels
        _pixels = self.pixels
        with contextlib.suppress(ValueError, OSError):  # a lower hard limit is set already
            resource.setrlimit(resource.RLIMIT_DATA, (self.memory_bytes, resource.getrlimit(resource.RLIMIT_DATA)[1]))


_pixels: int | None = None
"""Of this process; None: any number, as in a process that was started for something else."""
_ran_out = False


def most_pixels() -> int | None:
    """The pixels that an image or frame may have in this process; None: any number."""
    return _pixels


def refuse_large(height: int, width: int) -> None:
    """Raise Unreadable (too_large) if an image or frame of that size is not to be decoded in this process."""
    if _pixels is not None and height * width > _pixels:
        raise Unreadable("too_large", f"{width:,} x {height:,} pixels; at most {_pixels:,} are decoded (--max-pixels)")


def note_failure(error: BaseException) -> None:
    """Remember of a failure that decoding goes on after whether it was for want of memory."""
    global _ran_out
    _ran_out = _ran_out or isinstance(error, MemoryError)


def ran_out_of_memory() -> bool:
    """Whether any failure since the last call was for want of memory."""
    global _ran_out
    did, _ran_out = _ran_out, False
    return did
