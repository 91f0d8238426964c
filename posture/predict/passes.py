"""One pass over a video: find athletes, track them, cut windows along each, classify them in batches.

Frames come from the decoder once, in order. Memory depends on the length of a window and on the numbers in the answer,
not on the video's frames. Legend: n windows, T frames of a window, H x W pixels of a frame, K classes.
"""

from __future__ import annotations

from array import array
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from posture.data.decode.cropping import SMOOTHED_FRAMES, cut_out, cuts_along
from posture.data.decode.cut import Clip
from posture.data.decode.tracks import is_seen
from posture.data.labels.records import Box, Tube
from posture.data.store.frame_codec import decode_frames, encode_frames
from posture.display.text import counted
from posture.errors import InputError, Unreadable
from posture.predict.answers import WHOLE_FRAME, ActionSegment, Lane, Prediction
from posture.predict.segments import segments_of
from posture.predict.tracker import AthleteTracker
from posture.predict.windows import FrameBuffer, Sampling
from posture.train.batches import prefetched

Progress = Callable[[int, int], None]
"""Called with the number of frames that are done, and in total."""
MESSAGES_AHEAD = 4
"""Groups of frames that are decoded, and searched for athletes, before their turn."""
BATCHES_AHEAD = 1
"""Batches of windows that are classified while the pass goes on."""
Found = tuple[np.ndarray, np.ndarray]
"""Boxes (D, 4) and scores (D,) of a frame."""


class Answering(Protocol):
    """The parts of `posture.predict.model.VideoModel` that a pass uses."""

    classes: tuple[str, ...]
    sampling: Sampling | None

    @property
    def look_size(self) -> int | None: ...
    @property
    def threshold(self) -> float: ...
    @property
    def description(self) -> dict[str, Any]: ...
    def probabilities_later(self, clips: list[np.ndarray]) -> Callable[[], np.ndarray]: ...
    def calibrated(self, probabilities: np.ndarray) -> np.ndarray: ...
    def find_later(self, frames: np.ndarray) -> Callable[[], list[Found]]: ...


class VideoPass:
    """The pass over one video. Call `run` once."""

    def __init__(
        self,
        model: Answering,
        name: str,
        *,
        overlap: float,
        shortest: float | None,
        tracker: str,
        batch: int,
        progress: Progress | None,
        should_stop: Callable[[], bool],
    ) -> None:
        self._model, self._name = model, name
        self._overlap, self._shortest, self._tracker_name, self._batch = overlap, shortest, tracker, batch
        self._progress, self._should_stop = progress, should_stop
        self._crops = bool(model.sampling and model.sampling.recipe.crop)
        self._notes: list[str] = []
        self._failure = ""
        self._times, self._ends = array("d"), array("d")
        self._gaps: list[tuple[float, float]] = []
        self._looked = -1
        self._recent: dict[int, dict[int, Box]] = defaultdict(dict)
        self._waiting: list[tuple[int, int, np.ndarray]] = []
        self._begun: deque[tuple[list[tuple[int, int]], Callable[[], np.ndarray]]] = deque()
        self._lanes: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
        self._overall: list[np.ndarray] = []

    def run(self, messages: Iterator[dict[str, Any] | Clip]) -> Prediction:
        """Return the answer about a video, whose frames come as from `Sandbox.stream`. Raises InputError if none can be
        read.
        """
        try:
            for message, found in prefetched(self._searched(messages), depth=MESSAGES_AHEAD):
                if isinstance(message, Clip):
                    self._take(message, found)
                elif message["kind"] == "stream":
                    self._begin(message)
                elif message["kind"] == "note":
                    self._notes.append(message["note"])
                self._after()
                if self._should_stop():
                    self._failure = f"stopped after {self._ends[-1] if self._ends else 0.0:.2f} s"
                    break
        except Unreadable as error:
            self._failure = str(error)
        if not self._times:
            raise InputError(f"{self._name}: the video cannot be read: {self._failure or 'it has no frame there'}")
        self._classify(until=self._stop)
        self._flush()
        self._collect()
        return self._answer()

    def _after(self) -> None:
        """Do what follows a message; nothing for a file."""

    def _searched(
        self, messages: Iterator[dict[str, Any] | Clip]
    ) -> Iterator[tuple[dict[str, Any] | Clip, Callable[[], list[Found]] | None]]:
        """Yield each message, and the search for athletes that was begun in its frames."""
        for message in messages:
            if isinstance(message, Clip) and message.row["role"] == "search":
                yield message, self._model.find_later(pixels(message))
            else:
                yield message, None

    def _begin(self, stream: dict[str, Any]) -> None:
        self._stream, self._first, self._stop = stream, stream["first"], stream["stop"]
        self._every = stream["every"]
        if self._first >= self._stop:
            raise InputError(f"{self._name}: no frame there; the video lasts {stream['seconds']:.2f} s")
        if self._model.look_size is not None:
            size = stream["height"], stream["width"]
            self._tracker = AthleteTracker(self._tracker_name, fps=stream["fps"] / self._every, size=size)
        if self._model.sampling is not None:
            self._windows, self._sliding = self._planned(self._model.sampling)
            self._buffer = FrameBuffer(self._windows)

    def _planned(self, sampling: Sampling) -> tuple[list[Sequence[int]], int]:
        """Return the windows, and how many of them slide; the others belong to the whole video."""
        frames = range(self._first, self._stop)
        windows = sampling.slide(frames, self._overlap)
        return [*windows, *([] if self._crops else sampling.spread(frames))], len(windows)

    def _take(self, clip: Clip, found: Callable[[], list[Found]] | None) -> None:
        row, frames = clip.row, pixels(clip)
        if found is not None:
            self._look(row, frames, found())
        if row["role"] != "search" or self._model.sampling is None:
            self._note_times(row)
            if self._progress is not None:
                self._progress(len(self._times), self._stop - self._first)
        if row["role"] != "search" and self._model.sampling is not None:
            stride = self._model.sampling.recipe.stride if self._crops else 1
            for number, frame in zip(row["numbers"], frames, strict=True):
                if (number - self._first) % stride == 0:  # whole frames are large, and windows along tracks skip these
                    self._buffer.add(number, frame)
        if self._model.sampling is not None:
            self._classify(until=self._looked - SMOOTHED_FRAMES if self._crops else row["numbers"][-1])

    def _note_times(self, row: dict[str, Any]) -> None:
        """Note when frames are shown. If frames before them did not come, from a live stream, that is a gap."""
        if (missing := self._place(row["numbers"][0]) - len(self._times)) > 0:
            self._gaps.append((self._ends[-1], row["times"][0]))
            self._times.extend([self._ends[-1]] * missing)
            self._ends.extend([self._ends[-1]] * missing)
        self._times.extend(row["times"])
        self._ends.extend(row["ends"])

    def _look(self, row: dict[str, Any], frames: np.ndarray, found: list[Found]) -> None:
        """Follow the athletes that were found in these frames."""
        shown = self._stream["width"] / row["width"], self._stream["height"] / row["height"]
        enlarged = np.array([*shown, *shown], np.float32)
        looks = zip(row["numbers"], row["times"], found, frames, strict=True)
        for number, time, (boxes, scores), frame in looks:
            self._followed(number, self._tracker.update(number, time, boxes * enlarged, scores, frame))
            self._looked = number

    def _followed(self, number: int, shown: list[tuple[int, np.ndarray, float]]) -> None:
        """Note id, box and score of the athletes in a frame; windows are cut along them."""
        for track, box, _ in shown if self._crops else ():
            left, top, right, bottom = box.tolist()
            self._recent[track][number] = left, top, right, bottom

    def _classify(self, *, until: int) -> None:
        """Classify the windows that are complete up to the frame `until`."""
        if self._model.sampling is None:
            return
        for index, frames in self._buffer.complete(until=until):
            if not self._crops:
                self._put(WHOLE_FRAME, index, frames())
                continue
            numbers = self._windows[index]
            images = None
            for track, boxes in list(self._recent.items()):
                tube = Tube("", "", boxes)
                if is_seen(tube, numbers):
                    images = frames() if images is None else images
                    self._put(track, index, self._cut(images, tube, numbers))
                self._forget(track, before=numbers[0] - SMOOTHED_FRAMES - self._every)

    def _cut(self, frames: np.ndarray, tube: Tube, numbers: Sequence[int]) -> np.ndarray:
        """Cut a window out around an athlete, as ingest does: (T, H, W, 3)."""
        recipe = self._model.sampling.recipe  # type: ignore[union-attr]
        size = {"height": recipe.height, "width": recipe.width}
        height, width = frames.shape[1:3]
        shape = {"height": height, "width": width, "aspect": recipe.width / recipe.height}
        cuts = cuts_along(tube, numbers, margin=recipe.margin, centred=recipe.centred, **shape)
        return np.stack([cut_out(frame, cut, **size) for frame, cut in zip(frames, cuts, strict=True)])

    def _forget(self, track: int, *, before: int) -> None:
        """Forget an athlete's boxes before a frame; those around it are needed to interpolate."""
        boxes = self._recent[track]
        for number in [number for number in boxes if number < before]:
            del boxes[number]
        if not boxes:
            del self._recent[track]

    def _put(self, track: int, index: int, frames: np.ndarray) -> None:
        """Let the next batch classify a window, with the loss of a stored clip's JPEG."""
        recipe = self._model.sampling.recipe  # type: ignore[union-attr]
        if recipe.jpeg:
            pixels, offsets = encode_frames(frames, recipe.jpeg)
            frames = decode_frames(pixels, offsets, frames.shape[:3])
        self._waiting.append((track, index, frames))
        if len(self._waiting) >= self._batch:
            self._flush()

    def _flush(self) -> None:
        lengths = {len(frames) for _, _, frames in self._waiting}
        for length in lengths:  # a video that is shorter than a window has one other length
            part = [one for one in self._waiting if len(one[2]) == length]
            later = self._model.probabilities_later([frames for _, _, frames in part])
            self._begun.append(([(track, index) for track, index, _ in part], later))
        self._waiting.clear()
        self._collect(but=BATCHES_AHEAD)

    def _collect(self, *, but: int = 0) -> None:
        """Wait for the batches of windows that are classified, except the last `but` ones."""
        while len(self._begun) > but:
            windows, found = self._begun.popleft()
            for (track, index), row in zip(windows, found(), strict=True):
                if index < self._sliding:
                    self._lanes[track].append((index, row))
                else:
                    self._overall.append(row)

    def _answer(self) -> Prediction:
        model, stream = self._model, self._stream
        tracks = self._tracker.tracks() if model.look_size is not None else ()
        spans = {WHOLE_FRAME: (self._times[0], self._ends[-1])} | {
            track.id: (float(track.times[0]), self._end_of(int(track.frames[-1]))) for track in tracks
        }
        lanes = tuple(self._lane(track, found) for track, found in sorted(self._lanes.items()))
        segments = [segment for lane in lanes for segment in self._segments(lane, *spans[lane.track])]
        whole = self._overall and not self._failure
        return Prediction(
            self._name,
            model.classes,
            stream["width"],
            stream["height"],
            stream["fps"],
            stream["seconds"],
            tracks,
            lanes,
            tuple(segments),
            model.threshold,
            model.description | self._options(),
            tuple(self._notes + self._remarks(tracks, lanes)),
            np.stack(self._overall).mean(axis=0, dtype=np.float64).astype(np.float32) if whole else None,
            self._failure,
        )

    def _segments(self, lane: Lane, start: float, end: float) -> Iterator[ActionSegment]:
        """Yield the segments of a lane from `start` to `end`; none reaches over a gap of the stream."""
        shortest = self._shortest if self._shortest is not None else float(np.median(lane.ends - lane.starts)) / 2
        begins, untils = [-np.inf, *(after for _, after in self._gaps)], [*(before for before, _ in self._gaps), np.inf]
        for begin, until in zip(begins, untils, strict=True):
            inside = (lane.starts >= begin) & (lane.starts < until)
            part = Lane(lane.track, lane.starts[inside], lane.ends[inside], lane.probabilities[inside])
            times = {"start": max(start, begin), "end": min(end, until)}
            yield from segments_of(
                part, self._model.classes, **times, threshold=self._model.threshold, shortest=shortest
            )

    def _options(self) -> dict[str, Any]:
        looked = {"tracker": self._tracker_name, "every": self._every} if self._model.look_size is not None else {}
        return looked | ({"overlap": self._overlap} if self._model.sampling else {})

    def _lane(self, track: int, found: list[tuple[int, np.ndarray]]) -> Lane:
        ends = [self._model.sampling.seen(self._windows[index]) for index, _ in sorted(found, key=lambda one: one[0])]  # type: ignore[union-attr]
        probabilities = np.stack([row for _, row in sorted(found, key=lambda one: one[0])])
        return Lane(
            track,
            np.array([self._times[first - self._first] for first, _ in ends]),
            np.array([self._end_of(last) for _, last in ends]),
            self._model.calibrated(probabilities),
        )

    def _end_of(self, number: int) -> float:
        return self._ends[self._place(number)]

    def _place(self, number: int) -> int:
        """Return the place of a frame's times."""
        return (number - self._first) // (1 if self._model.sampling else self._every)

    def _remarks(self, tracks: tuple[Any, ...], lanes: tuple[Lane, ...]) -> list[str]:
        """Return sentences on what was approximated or left out."""
        said = []
        if self._model.look_size is not None:
            if not tracks:
                said.append("no athlete was found")
            if self._tracker.dropped:
                said.append(f"{counted(self._tracker.dropped, 'track')} of a few frames left out")
        if self._model.sampling is None:
            return said
        if self._crops and (silent := {track.id for track in tracks} - {lane.track for lane in lanes}):
            said.append(f"{counted(len(silent), 'athlete')} seen too briefly to be classified: {sorted(silent)}")
        if self._model.look_size is not None and not self._crops:
            said.append(
                "the run was trained on whole frames, so actions are those of the whole frame, not of an athlete"
            )
        if self._windows and len(self._windows[0]) < self._model.sampling.recipe.frames:
            said.append("the video is shorter than one window: its last frame is repeated, as in training")
        return said


def pixels(clip: Clip) -> np.ndarray:
    """Return a clip's frames uint8 (n, H, W, 3)."""
    return np.frombuffer(clip.pixels, np.uint8).reshape(-1, clip.row["height"], clip.row["width"], 3)
