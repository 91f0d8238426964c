"""The pass over a live source: it answers while frames come, and its end is not known.

Windows begin at fixed numbers of frames. One that lacks a frame, because the source was lost or the networks were
slower than it, is left out, and no segment reaches over such a gap.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.data.decode.cut import BACKGROUND, Clip
from posture.data.decode.decode_file import FRAMES_AT_ONCE
from posture.display.text import counted
from posture.predict.answers import UNSURE, WHOLE_FRAME, Prediction
from posture.predict.passes import Found, VideoPass, pixels
from posture.predict.windows import Sampling

WINDOWS_AHEAD = 64
"""Windows that are opened at a time."""
WRITE_SECONDS, WRITE_SHARE = 2.0, 0.05
"""Time between two answers, and the most of the time that making and writing them may take."""
TOLD_SECONDS = 2.0
"""Time for which the last class of an athlete is shown."""
MOST_UNSEEN = 300
"""Most looks without athletes that the tracker takes for a gap; after fewer it has given all up."""


@dataclass(frozen=True)
class SeenAthlete:
    """An athlete, or the whole frame, in the frame that is shown."""

    track: int
    box: np.ndarray | None
    """(4,) in pixels of the shown frame; None for the whole frame."""
    label: str
    """A class, UNSURE, or "" if no window has been classified lately."""
    confidence: float


class LivePass(VideoPass):
    """A pass over the messages of `Sandbox.live`.

    `on_answer` gets the answer so far every few seconds; `on_frame` each frame to draw, uint8 (H, W, 3), with its time,
    end, and what is seen in it.
    """

    def __init__(
        self,
        *arguments: Any,
        on_answer: Callable[[Prediction], None],
        on_frame: Callable[[np.ndarray, float, float, list[SeenAthlete]], None],
        on_status: Callable[[str], None],
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self._on_answer, self._on_frame, self._on_status = on_answer, on_frame, on_status
        self._dropped, self._next, self._due, self._came = 0, 0, 0.0, time.monotonic()
        self._boxes: dict[int, list[tuple[int, np.ndarray]]] = {}

    def _planned(self, sampling: Sampling) -> tuple[list[Sequence[int]], int]:
        return [], sys.maxsize

    def _take(self, clip: Clip, found: Callable[[], list[Found]] | None) -> None:
        row = clip.row
        self._dropped, self._came = row["dropped"], time.monotonic()
        if row["role"] == "shown":
            self._show(row, pixels(clip))
            return
        if (sampling := self._model.sampling) is not None:
            while self._next <= row["numbers"][-1]:
                hop, start = sampling.hop(self._overlap), self._next
                starts = range(start, start + WINDOWS_AHEAD * hop, hop)
                more = [range(begin, begin + sampling.span, sampling.recipe.stride) for begin in starts]
                self._windows += more
                self._buffer.extend(more)
                self._next = starts.stop
        super()._take(clip, found)
        self._flush()
        self._stream["seconds"] = self._ends[-1] if self._ends else 0.0

    def _look(self, row: dict[str, Any], frames: np.ndarray, found: list[Found]) -> None:
        missed = (row["numbers"][0] - self._looked) // self._every - 1 if self._looked >= 0 else 0
        for _ in range(min(missed, MOST_UNSEEN)):  # the tracker counts looks
            self._tracker.update(self._looked, row["times"][0], np.zeros((0, 4)), np.zeros(0))
        super()._look(row, frames, found)

    def _followed(self, number: int, shown: list[tuple[int, np.ndarray, float]]) -> None:
        super()._followed(number, shown)
        self._boxes[number] = [(track, box) for track, box, _ in shown]
        for old in [one for one in self._boxes if one < number - FRAMES_AT_ONCE - self._every]:
            del self._boxes[old]

    def _after(self) -> None:
        now = time.monotonic()
        if now - self._came > 1.0:
            self._on_status(f"no frame for {now - self._came:.0f} s")
        elif self._times:
            late = f", {self._dropped:,} frames dropped" if self._dropped else ""
            self._on_status(f"{self._ends[-1]:.0f} s{late}")
        if self._times and now >= self._due:
            self._collect()
            self._on_answer(self._answer())
            took = time.monotonic() - now
            self._due = now + max(WRITE_SECONDS, took / WRITE_SHARE)

    def _show(self, row: dict[str, Any], frames: np.ndarray) -> None:
        shrunk = np.array([row["width"] / self._stream["width"], row["height"] / self._stream["height"]] * 2)
        for number, at, end, frame in zip(row["numbers"], row["times"], row["ends"], frames, strict=True):
            looked = max((one for one in self._boxes if one <= number), default=None)
            boxes = self._boxes.get(looked, []) if looked is not None and number - looked < self._every else []
            seen = [SeenAthlete(track, box * shrunk, *self._told(track, at)) for track, box in boxes]
            if WHOLE_FRAME in self._lanes:
                seen.append(SeenAthlete(WHOLE_FRAME, None, *self._told(WHOLE_FRAME, at)))
            self._on_frame(frame, at, end, seen)

    def _told(self, track: int, at: float) -> tuple[str, float]:
        """Return label and confidence of the last window of a track, ("", 0.0) if it ended long before `at`."""
        if not (found := self._lanes.get(track)):
            return "", 0.0
        index, row = found[-1]
        last = self._windows[index][-1]
        probabilities = self._model.calibrated(row[None])[0]
        best = int(probabilities.argmax())
        label, confidence = self._model.classes[best], float(probabilities[best])
        if label == BACKGROUND or at - self._end_of(last) > TOLD_SECONDS:
            return "", 0.0
        return (label if confidence >= self._model.threshold else UNSURE), confidence

    def _remarks(self, tracks: tuple[Any, ...], lanes: tuple[Any, ...]) -> list[str]:
        said = super()._remarks(tracks, lanes)
        if self._dropped:
            said.append(
                f"{self._dropped:,} of the camera's frames were dropped, because the networks were slower than the "
                "camera; nothing is said about these times"
            )
        if self._gaps:
            missing = sum(after - before for before, after in self._gaps)
            said.append(f"{counted(len(self._gaps), 'gap')} of {missing:.1f} s in all without frames")
        return said
