"""Sliding windows over a video: which frames each has, and its frames as they come from the decoder.

A window has the frames that a stored clip of the run's decode recipe has, and the network takes the same ones of them
as in `posture evaluate`. Legend: T frames of a window, H x W pixels of a frame.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from posture.data.decode.cut import frame_numbers
from posture.data.feed.clip_transforms import frame_indices
from posture.data.store.schema import DecodeRecipe


@dataclass(frozen=True)
class Sampling:
    """How a run takes its input from a video."""

    recipe: DecodeRecipe
    """Decode recipe of the stored clips."""
    frames: int
    """Frames that the network takes of a stored clip."""
    step: int = 1
    """Distance of these frames, in stored frames."""

    @property
    def span(self) -> int:
        """Frames of the video from the first to the last stored frame of a window."""
        return (self.recipe.frames - 1) * self.recipe.stride + 1

    @property
    def covered(self) -> int:
        """Frames of the video from the first to the last one that the network sees."""
        return min(self.span, (self.frames - 1) * self.step * self.recipe.stride + 1)

    def hop(self, overlap: float) -> int:
        """Return the frames from one window to the next, which then share `overlap` of the frames that are seen.

        It is a multiple of the recipe's stride, so that windows share decoded frames.
        """
        return self.recipe.stride * max(1, round(self.covered * (1.0 - overlap) / self.recipe.stride))

    def slide(self, frames: range, overlap: float) -> list[list[int]]:
        """Return the frame numbers of each window over `frames`; one shorter window if they are fewer than a window."""
        starts = range(frames.start, frames.stop - self.span + 1, self.hop(overlap))
        if not starts:
            return frame_numbers(frames.start, frames.stop, self.recipe)[:1]
        return [list(range(start, start + self.span, self.recipe.stride)) for start in starts]

    def spread(self, frames: range) -> list[list[int]]:
        """Return the windows that ingest cuts of `frames` as one segment: those that `posture evaluate` scores."""
        return frame_numbers(frames.start, frames.stop, self.recipe)

    def seen(self, numbers: Sequence[int]) -> tuple[int, int]:
        """Return the first and the last frame number of a window that the network sees."""
        chosen = frame_indices(len(numbers), self.frames, step=self.step)
        return numbers[chosen[0]], numbers[chosen[-1]]


class FrameBuffer:
    """The frames that open windows still need. Its size depends on the length of a window, not of the video."""

    def __init__(self, windows: Sequence[Sequence[int]]) -> None:
        """`windows` are frame numbers of each, in any order."""
        self._windows: list[Sequence[int]] = []
        self._order: list[int] = []
        self._oldest: list[int] = []
        self._done = 0
        self._frames: dict[int, np.ndarray] = {}
        self._numbers: deque[int] = deque()
        self.last = -1
        """Highest frame number that was added."""
        self.extend(windows)

    def extend(self, windows: Sequence[Sequence[int]]) -> None:
        """Add windows that all begin and end after those before them."""
        order = sorted(range(len(windows)), key=lambda index: windows[index][-1])
        firsts = np.array([windows[index][0] for index in order], np.int64)
        self._oldest += np.minimum.accumulate(firsts[::-1])[::-1].tolist()
        self._order += [len(self._windows) + index for index in order]
        self._windows += windows

    def add(self, number: int, frame: np.ndarray) -> None:
        """Add the next frame, uint8 (H, W, 3); a frame before all open windows is not kept."""
        self.last = number
        if self._done < len(self._order) and number >= self._oldest[self._done]:
            self._frames[number] = frame
            self._numbers.append(number)

    def complete(self, *, until: int) -> Iterator[tuple[int, Callable[[], np.ndarray]]]:
        """Yield (index, function that returns the frames (T, H, W, 3)) of each window whose last frame was added and is
        at most `until`. A window is complete once. One that lacks a frame, of a live stream, is left out.
        """
        while self._done < len(self._order) and self._windows[self._order[self._done]][-1] <= min(until, self.last):
            index = self._order[self._done]
            if all(number in self._frames for number in self._windows[index]):
                yield index, lambda index=index: np.stack([self._frames[number] for number in self._windows[index]])
            self._done += 1
            self._forget()

    def _forget(self) -> None:
        oldest = self._oldest[self._done] if self._done < len(self._order) else self.last + 1
        for number in list(itertools.takewhile(lambda number: number < oldest, self._numbers)):
            self._numbers.popleft()
            del self._frames[number]
