"""What one file may ask of the process that decodes it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Of a decoder process, the same for videos and pictures."""

    pixels: int = 100_000_000
    """Height x width of a picture or frame, as coded and as shown."""
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
"""Of this process; None: any number, as where a file was decoded before."""


def most_pixels() -> int | None:
    """The pixels that a picture or frame may have in this process; None: any number."""
    return _pixels


def too_large(height: int, width: int) -> str | None:
    """Why a picture or frame of that size is refused (verdict `too_large`); None if it is not."""
    if _pixels is None or height * width <= _pixels:
        return None
    return f"{width:,} x {height:,} pixels are more than {_pixels / 1e6:,.4g} megapixels (--max-pixels)"
