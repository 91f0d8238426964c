"""Draw an answer on its video: boxes, actions and a timeline, as an MP4 file with the original sound."""

from __future__ import annotations

import bisect
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip
from posture.data.decode.mp4 import Mp4Writer
from posture.data.decode.sandbox import Sandbox
from posture.data.decode.tracks import MISSED_LOOKS
from posture.display.colours import UNSURE as UNSURE_COLOUR
from posture.display.colours import class_colours
from posture.display.overlay import Mark, Overlay, Row, RowPart, lacks_letters
from posture.display.text import counted, listed, percent
from posture.errors import InputError, Unreadable
from posture.predict.answers import UNSURE, WHOLE_FRAME, ActionSegment, Prediction, Track

LIMIT_SECONDS = 300.0
"""Time that the decoder may take without decoding anything."""


def write_annotated(
    prediction: Prediction,
    path: str | Path,
    out: str | Path,
    *,
    start: float = 0.0,
    end: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    decoder: Sandbox | None = None,
    limit_seconds: float = LIMIT_SECONDS,
) -> tuple[str, ...]:
    """Write the video at `path`, from `start` up to `end` in seconds, with the answer drawn on it, to the MP4 `out`.

    `progress` gets the numbers of frames written and to write. `decoder` decodes; one is started if None. The video is
    decoded again for this, because the timeline below each frame has the whole answer. Returns sentences on what is
    missing or replaced. A file that can only be read in part gives that part; Ctrl-C leaves what was drawn until then.
    Raises Unreadable if no frame can be read, and InputError if none is shown between `start` and `end`.
    """
    notes: list[str] = []
    lent = Sandbox() if decoder is None else contextlib.nullcontext(decoder)
    with lent as sandbox, tempfile.TemporaryDirectory() as folder:
        sound = Path(folder) / "sound.mp4"
        answer = sandbox.sound(str(path), str(sound), start=start, end=end, limit_seconds=limit_seconds)
        items = sandbox.stream(str(path), recipe=None, longest=None, start=start, end=end, limit_seconds=limit_seconds)
        about: dict[str, Any] = next(items)  # type: ignore[assignment]
        total = about["stop"] - about["first"]
        if not total:
            raise InputError(
                f"{path}: no frame is shown from {start:g} s to {about['seconds'] if end is None else end:g} s; the "
                f"video lasts {about['seconds']:.2f} s"
            )
        drawing = Drawing(
            prediction, about["height"], about["width"], start, min(about["seconds"], np.inf if end is None else end)
        )
        notes += [answer["note"]] * bool(answer["note"]) + drawing.notes
        done = 0
        try:
            with Mp4Writer(
                out, fps=about["fps"], sound=sound if answer["found"] else None, sound_start=start
            ) as writer:
                for item in items:
                    if not isinstance(item, Clip):
                        notes.append(item["note"])
                        continue
                    for number, time, until, frame in _frames(item):
                        writer.add(drawing.drawn(frame, number, time), time=time, end=until)
                        done += 1
                    progress(done, total)
        except Unreadable as error:
            if not done:
                raise
            notes.append(f"the video could be read up to frame {about['first'] + done:,}: {error}")
    return tuple(notes)


class Drawing:
    """An answer, ready to be drawn on frames of `height` x `width` pixels; its timeline shows `start` to `end`."""

    def __init__(self, prediction: Prediction, height: int, width: int, start: float, end: float) -> None:
        self._colours = dict(zip(prediction.classes, class_colours(prediction.classes), strict=True))
        self._tracks = prediction.tracks
        self._segments = {
            lane: sorted(prediction.of(lane), key=lambda segment: segment.start)
            for lane in sorted({segment.track for segment in prediction.segments})
        }
        lanes = sorted({lane.track for lane in prediction.lanes} | set(self._segments))
        rows = [
            Row(
                "" if lane == WHOLE_FRAME else str(lane),
                [
                    RowPart(segment.start, segment.end, self._colour(segment), segment.label)
                    for segment in self._segments.get(lane, ())
                    if segment.end > start and segment.start < end
                ],
            )
            for lane in lanes
        ]
        self._overlay = Overlay(height, width, rows, start=start, end=end)
        hidden = self._overlay.hidden_rows
        self.notes = [f"the timeline in the video has no room for the last {counted(hidden, 'athlete')}"] * bool(hidden)
        if foreign := [name for name in self._colours if lacks_letters(name)]:
            self.notes.append(f"in the video, boxes stand for letters that its typeface lacks: {listed(foreign)}")

    def drawn(self, frame: np.ndarray, number: int, time: float) -> np.ndarray:
        """Return the frame `number`, uint8 RGB (H, W, 3), shown at `time`, with the answer, and the timeline below."""
        image = self._overlay.canvas(frame)
        self._overlay.playhead(image, time)
        if (segment := self._at(WHOLE_FRAME, time)) is not None:
            self._overlay.caption(image, _words(segment), self._colour(segment))
        marks = []
        for track in self._tracks:
            if (box := box_at(track, number)) is not None:
                segment = self._at(track.id, time)
                words = f"{track.id} {_words(segment)}" if segment is not None else str(track.id)
                marks.append(Mark(box.tolist(), words, self._colour(segment)))
        self._overlay.marks(image, marks)
        return image

    def _at(self, lane: int, time: float) -> ActionSegment | None:
        """Return the segment of a lane at a time."""
        segments = self._segments.get(lane, [])
        index = bisect.bisect_right(segments, time, key=lambda segment: segment.start) - 1
        return segments[index] if index >= 0 and time < segments[index].end else None

    def _colour(self, segment: ActionSegment | None) -> str:
        return UNSURE_COLOUR if segment is None else self._colours.get(segment.label, UNSURE_COLOUR)


def box_at(track: Track, number: int) -> np.ndarray | None:
    """Return the athlete's box (4,) in a frame, or None while the athlete is not followed.

    It is interpolated between looks, unless more than MISSED_LOOKS are missing.
    """
    after = int(np.searchsorted(track.frames, number))
    if after < len(track.frames) and track.frames[after] == number:
        return track.boxes[after]
    if not 0 < after < len(track.frames):
        return None
    before, gap = after - 1, track.frames[after] - track.frames[after - 1]
    if gap > (MISSED_LOOKS + 1) * np.median(np.diff(track.frames)):
        return None
    share = (number - track.frames[before]) / gap
    return (1 - share) * track.boxes[before] + share * track.boxes[after]


def _words(segment: ActionSegment) -> str:
    return UNSURE if segment.label == UNSURE else f"{segment.label} {percent(segment.confidence, 0)}"


def _frames(clip: Clip) -> Iterator[tuple[int, float, float, np.ndarray]]:
    """Yield the number, time, end and pixels of each frame of a Clip of `Sandbox.stream`."""
    row = clip.row
    frames = np.frombuffer(clip.pixels, np.uint8).reshape(len(row["numbers"]), row["height"], row["width"], 3)
    yield from zip(row["numbers"], row["times"], row["ends"], frames, strict=True)
