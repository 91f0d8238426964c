"""Read frames of a video by their number in the order they are shown, with their own time stamps.

Works for every container and codec that FFmpeg decodes. Random access is exact by construction: the packets say when
each frame is shown, decoding begins at a keyframe that the decoder confirms, and every decoded frame is compared with
what the packets promise. If the packets do not say enough, the file is decoded from its start.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from posture.data.decode.decord_doubt import doubt
from posture.data.decode.limits import at_work, note_failure, refuse_large
from posture.data.decode.orientation import orientation_of, shown_width
from posture.data.decode.packets import MISSING, Packet, demuxed, open_stream, read_packets, refuse_cut
from posture.data.decode.scaling import FrameScaler
from posture.data.decode.stream import SEEKING, SEQUENTIAL, VideoStream, failures
from posture.data.decode.timestamps import MAX_GAP_SECONDS, average_rate, frame_times
from posture.errors import Unreadable

CHECKED_FRAMES = 4
"""Frames decoded at the start to see if packets and frames agree: fields, for example, come two packets per frame."""
EARLY_SHARE = 0.95
"""Share of the packets' time that must decode; otherwise the file was cut off or its end is damaged."""
MIN_DECODED = 0.5
"""Minimum share of the promised frames that must decode."""
BROADCAST_GAP_SECONDS = 10.0
"""Longer gaps in transport and program streams are jumps of their clock."""
SEEK_TRIES = 2
"""Keyframes that are tried before decoding begins at the start of the file."""


class Reader:
    """Frames of one file, upright, resized to `height` x `width`, or the shown size if None. Decodes in one thread.

    Close it, or use it in a `with` block. Raises Unreadable if the file is not a video, holds no frames that decode, or
    was cut off. With `partial`, a file that was cut off or whose end is damaged is read as far as possible.
    """

    def __init__(
        self, path: str, *, height: int | None = None, width: int | None = None, partial: bool = False
    ) -> None:
        self._path, self._partial = path, partial
        self.failure: Unreadable | None = None
        """Why frames of a `partial` file are missing; may be found while frames are read."""
        self.held = 0
        """Number of frames that did not decode and were replaced."""
        self._container, self._video = open_stream(path)
        try:
            refuse_large(self._video.codec_context.height, self._video.codec_context.width)
            packets = read_packets(self._container, self._video)
            try:
                refuse_cut(path, self._container, self._video, packets)
            except Unreadable as error:
                self._fail(error)
            order = packets.order(self._container, self._video)
            self._start()
            head = list(itertools.islice(self._run, CHECKED_FRAMES))
            if not head:
                raise Unreadable(
                    "truncated", f"none of its {len(packets)} frames decodes{': ' * bool(packets.error)}{packets.error}"
                )
            order = None if order is None else _after_undecodable(order, [frame.pts for frame in head])
            self._promised = packets.stamps
            self._orientation = orientation_of(head[0])
            self._scaler = FrameScaler(self._orientation)
            self._doubt = doubt(self._container, self._video, packets, order, self._orientation)
            self._order = order
            """Stamps that frames must have, or None if frames are counted from the start."""
            self._keyframes = packets.keyframes(order) if order is not None else []
            self._stands_in: np.ndarray | None = None
            """If some frames do not decode: for each frame, the index among decoded frames of the one shown then."""
            stamps = order if order is not None else self._all_stamps()
            self.stream = self._described(head[0], stamps)
            refuse_large(self.stream.height, self.stream.width)
        except BaseException:
            self.close()
            raise
        if order is not None:
            self._run = itertools.chain(head, self._run)
        self.height, self.width = height or self.stream.height, width or self.stream.width
        self.readable = len(self)
        """Number of frames before the damaged end of a `partial` file; may shrink while frames are read."""
        self._last: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return self.stream.frames

    @property
    def fps(self) -> float:
        """Average frames per second."""
        return self.stream.fps

    def times(self) -> np.ndarray:
        """Return when each frame is shown, (frames,) float64 seconds from the first, exact for variable rates too."""
        return self.stream.times

    def frames(self, numbers: Sequence[int]) -> np.ndarray:
        """Return frames uint8 (len(numbers), H, W, 3). Raises Unreadable if clearly fewer decode than promised."""
        wanted, indices = np.unique(np.asarray(numbers, np.int64), return_inverse=True)
        if not len(wanted) or wanted[0] < 0 or wanted[-1] >= len(self):
            raise IndexError(f"frames {list(numbers)} of {len(self)}")
        images = np.empty((len(wanted), self.height, self.width, 3), np.uint8)
        size = self.height, self.width
        for index, number in enumerate(wanted.tolist()):
            images[index] = self.sized(number, [size])[size]
        return images if (indices == np.arange(len(numbers))).all() else images[indices]

    def sized(self, number: int, sizes: Collection[tuple[int, int]]) -> dict[tuple[int, int], np.ndarray]:
        """Return a frame, uint8 (H, W, 3), in each of the sizes (H, W). Raises Unreadable as `frames` does."""
        frame = self._frame(number)
        self.held += self._stands_in is not None and bool(self._is_held[number])
        return {size: self._scaler.image(frame, size) for size in sizes}

    def close(self) -> None:
        self._run: Iterator[Any] = iter(())
        self._last = None
        self._container.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _described(self, frame: Any, stamps: np.ndarray) -> VideoStream:
        height, width = self._orientation.size(frame.height, shown_width(frame.width, self._video.sample_aspect_ratio))
        coded_height, coded_width = self._orientation.size(frame.height, frame.width)
        nominal = float(self._video.average_rate or self._video.guessed_rate or 0)
        seconds = np.where(stamps == MISSING, np.nan, stamps * float(self._video.time_base or 0))
        is_broadcast = self._container.format.name in ("mpegts", "mpeg")
        times = frame_times(
            seconds, rate=nominal, largest_gap=BROADCAST_GAP_SECONDS if is_broadcast else MAX_GAP_SECONDS
        )
        return VideoStream(
            average_rate(times, nominal),
            width,
            height,
            coded_width,
            coded_height,
            self._video.codec_context.name,
            SEQUENTIAL if self._order is None else SEEKING,
            self._doubt,
            times,
        )

    def _frame(self, number: int) -> Any:
        """Return a frame by number: the last one again, or decoded by going on from it or from a keyframe between."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        if self._stands_in is not None:
            return self._counted(int(self._stands_in[number]))
        if self._order is None:
            return self._counted(number)
        at = bisect.bisect_right(self._keyframes, number, key=lambda keyframe: keyframe[0])
        first = self._keyframes[at - 1][0] if at else 0
        if not self._next <= number or first > self._next:
            self._go_to(number)
        while self._next <= number:
            frame = next(self._run, None)
            if frame is None or frame.pts != self._order[self._next]:
                self._stand_in()
                return self._frame(number)
            self._last, self._next = (self._next, frame), self._next + 1
        return self._last[1]  # type: ignore[index]

    def _counted(self, index: int) -> Any:
        """Return a frame by its index among all that decode from the start."""
        if self._next > index and (self._last is None or self._last[0] != index):
            self._restart()
        while self._next <= index:
            self._last, self._next = (self._next, next(self._run)), self._next + 1
        return self._last[1]  # type: ignore[index]

    def _go_to(self, number: int) -> None:
        """Go to a position from which frame `number` can be decoded: a keyframe before it, else the start."""
        before = [keyframe for keyframe in self._keyframes if 0 < keyframe[0] <= number][-SEEK_TRIES:]
        for first, packet, is_shown in reversed(before):
            run = self._from_keyframe(packet, int(self._order[first]))  # type: ignore[index]
            frame = next(run, None)
            if frame is not None and frame.pts == self._order[first] and (frame.key_frame or not is_shown):  # type: ignore[index]
                self._run, self._next = itertools.chain([frame], run), first
                return
        self._restart()

    def _from_keyframe(self, keyframe: Packet, first: int) -> Iterator[Any]:
        """Yield the frames shown from the stamp `first` on, decoded from that packet; none if it cannot be found."""
        try:
            self._container.seek(keyframe.pts if keyframe.dts == MISSING else keyframe.dts, stream=self._video)
            packets = demuxed(self._container, self._video)
            packet = next((packet for packet in packets if _reaches(packet, keyframe)), None)
            if packet is not None and packet.pts == keyframe.pts:
                yield from (
                    frame
                    for frame in self._decoded(itertools.chain([packet], packets))
                    if frame.pts is None or frame.pts >= first
                )
        except failures():
            return

    def _start(self) -> None:
        """Decode from the first packet on."""
        self._container.close()
        self._container, self._video = open_stream(self._path)
        self._run, self._next = self._decoded(demuxed(self._container, self._video)), 0

    def _restart(self) -> None:
        """Go back to the first frame."""
        self._start()
        if self._order is not None:
            self._run = itertools.dropwhile(lambda frame: frame.pts != self._order[0], self._run)  # type: ignore[index]

    def _decoded(self, packets: Iterator[Any]) -> Iterator[Any]:
        """Yield all frames in the order they are shown. Packets that do not decode are skipped, as players do."""
        while True:
            try:
                packet = next(packets, None)
            except failures():  # the file ends within a packet
                packet = None
            try:
                frames = self._video.codec_context.decode(packet if packet is not None and packet.size else None)
            except failures() as error:
                note_failure(error)
                frames = []
            at_work()
            yield from frames
            if packet is None or not packet.size:
                return

    def _all_stamps(self) -> np.ndarray:
        """Return the stamps of all frames that decode, (frames,) int64, MISSING if unknown.

        Raises Unreadable (truncated) if decoding ends early.
        """
        self._start()
        stamps = np.array([MISSING if frame.pts is None else frame.pts for frame in self._run], np.int64)
        self._start()
        known = stamps[stamps != MISSING]
        if len(known) and len(self._promised):
            base = float(self._video.time_base)
            begin, promised, last = (
                float(self._promised[0]) * base,
                float(self._promised[-1]) * base,
                float(known.max()) * base,
            )
            if last - begin < EARLY_SHARE * (promised - begin) - 0.1:
                self._fail(
                    Unreadable("truncated", f"nothing decodes after {last - begin:.2f} s of {promised - begin:.2f} s")
                )
        return stamps

    def _stand_in(self) -> None:
        """Replace frames that do not decode by the frame shown at their time, from now on.

        Raises Unreadable (truncated) if there are many.
        """
        stamps = self._all_stamps()
        if len(stamps) < MIN_DECODED * len(self):
            self._fail(Unreadable("truncated", f"{len(stamps)} of its {len(self)} frames decode"))
        by_stamp = np.argsort(stamps, kind="stable")
        index = np.searchsorted(stamps[by_stamp], self._order, "right") - 1  # type: ignore[arg-type]
        index = np.maximum(index, 0)
        self._is_held = stamps[by_stamp[index]] != self._order
        self._stands_in, self._last = by_stamp[index], None
        if self.failure is not None:
            self.readable = len(self) - int(np.argmin(self._is_held[::-1]))

    def _fail(self, error: Unreadable) -> None:
        """Raise the error, or keep it in `failure` if a part of the file is enough."""
        if not self._partial:
            raise error
        self.failure = self.failure or error


def _reaches(packet: Any, keyframe: Packet) -> bool:
    """Return True if the packet is the keyframe, or comes after it."""
    if packet.pts == keyframe.pts and (packet.dts is None or keyframe.dts in (MISSING, packet.dts)):
        return True
    return packet.dts is not None and keyframe.dts != MISSING and packet.dts > keyframe.dts


def _after_undecodable(order: np.ndarray, head: list[int | None]) -> np.ndarray | None:
    """Return the stamps from the first frame that decodes on, or None if the first frames, `head`, do not follow them.

    Frames before the first keyframe of a recording that begins in the middle do not decode.
    """
    (indices,) = np.nonzero(order == (MISSING if head[0] is None else head[0]))
    if not len(indices) or order[indices[0] : indices[0] + len(head)].tolist() != head:
        return None
    return order[indices[0] :]
