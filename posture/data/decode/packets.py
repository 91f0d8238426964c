"""Open a video stream, and read its packets without decoding: which frames they promise, where decoding can begin."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from posture.data.decode.limits import at_work, max_pixels
from posture.data.decode.stream import failures, plain
from posture.errors import Unreadable

MISSING = np.iinfo(np.int64).min
"""Stamp of a packet that has none."""
MAX_REORDERING = 40
"""Packets. A frame is shown at most 16 frames, or 32 fields, before or after its position in the file."""
STAMPED_FORMATS = frozenset({"mov", "matroska", "flv", "mpegts"})
"""Containers whose packets say when their frame is shown. Others give the decoding time, or only some frames'."""


class Packet(NamedTuple):
    """Time stamps of a packet in the stream's time base; MISSING if it has none."""

    pts: int
    dts: int


@dataclass(frozen=True)
class Packets:
    """Packets that promise a frame, in the order of the file."""

    pts: np.ndarray
    """(packets,) int64 in the stream's time base, MISSING if unknown."""
    dts: np.ndarray
    key: np.ndarray
    """(packets,) bool: True if decoding can begin here."""
    shown: np.ndarray
    """(packets,) bool: False for packets that are only decoded, because an edit list leaves them out."""
    is_cut: bool
    """True if the last packet is incomplete."""
    error: str
    """Error that ended the reading before the end of the file."""

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def stamps(self) -> np.ndarray:
        """Return when each packet is shown or else decoded: int64, sorted, without packets that have no stamp."""
        stamps = np.where(self.pts == MISSING, self.dts, self.pts)
        return np.sort(stamps[stamps != MISSING])

    def order(self, container: Any, stream: Any) -> np.ndarray | None:
        """Return the stamps of the frames in shown order, (frames,) int64; None if only decoding can tell."""
        pts = self.pts[self.shown]
        dts = self.dts[self.dts != MISSING]
        if not len(pts) or (pts == MISSING).any() or (np.diff(dts) < 0).any():
            return None
        if STAMPED_FORMATS.isdisjoint(container.format.name.split(",")) and stream.codec_context.has_b_frames:
            return None
        order = np.argsort(pts, kind="stable")
        if np.abs(order - np.arange(len(order))).max() > MAX_REORDERING:
            return None
        return pts[order]

    def keyframes(self, order: np.ndarray) -> list[tuple[int, Packet, bool]]:
        """Return (number of the first frame shown from there on, packet, True if it is shown itself), sorted by number.

        Frames after a keyframe that are shown before it need earlier packets, so they are not counted. A keyframe that
        shares its stamp with another frame is left out.
        """
        keyframes = []
        for index in np.flatnonzero(self.key & (self.pts != MISSING)):
            pts = int(self.pts[index])
            first, last = (int(np.searchsorted(order, pts, side)) for side in ("left", "right"))
            if last - first < 2 and first < len(order):
                keyframes.append((first, Packet(pts, int(self.dts[index])), bool(self.shown[index])))
        return sorted(keyframes, key=lambda keyframe: keyframe[0])


def open_stream(path: str) -> tuple[Any, Any]:
    """Return the container and the video stream that a player shows. Raises Unreadable."""
    import av

    try:
        container = av.open(path, metadata_errors="ignore")
    except failures() as error:
        raise Unreadable("not_video", f"not a video container: {plain(error)}") from None
    return container, shown_stream(container)


def shown_stream(container: Any) -> Any:
    """Return the video stream that a player shows: the best one, never a cover image.

    Raises Unreadable, and closes the container, if there is none.
    """
    from av.stream import Disposition

    stills = Disposition.attached_pic | Disposition.timed_thumbnails
    videos = [stream for stream in container.streams.video if not stream.disposition & stills]
    if not videos:
        container.close()
        raise Unreadable("no_video_stream", "the file has no video stream")
    videos = [stream for stream in videos if stream.codec_context is not None]
    if not videos:
        container.close()
        raise Unreadable("no_decoder", "its video has a codec that cannot be decoded here")
    best = container.streams.best("video")
    stream = best if best in videos else max(videos, key=lambda stream: stream.width * stream.height)
    stream.codec_context.thread_count = 1
    if (most := max_pixels()) is not None:
        # includes padding; frames may become larger than the header says
        stream.codec_context.options = {"max_pixels": str(2 * most + 2**20)}
    return stream


def read_packets(container: Any, stream: Any) -> Packets:
    """Read the packets of the whole file. Raises Unreadable if the stream has none."""
    found: list[tuple[int, int, bool, bool]] = []
    codec, is_cut, error = stream.codec_context.name, False, ""
    try:
        for packet in demuxed(container, stream):
            at_work()
            if packet.size and not _is_hidden(packet, codec):
                found.append((
                    MISSING if packet.pts is None else packet.pts,
                    MISSING if packet.dts is None else packet.dts,
                    packet.is_keyframe,
                    not packet.is_discard,
                ))
                is_cut = packet.is_corrupt
    except failures() as problem:
        error = plain(problem)
    if not found:
        raise Unreadable("no_frames", f"the video stream holds no frames{': ' * bool(error)}{error}")
    pts, dts, key, shown = zip(*found, strict=True)
    return Packets(np.array(pts, np.int64), np.array(dts, np.int64), np.array(key), np.array(shown), is_cut, error)


def demuxed(container: Any, stream: Any) -> Iterator[Any]:
    """Yield the stream's packets from the current position, and an empty one at the end. Streams may begin late."""
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:  # PyAV's error for a packet of a new stream; the packet has been read
            continue


def refuse_cut(path: str, container: Any, stream: Any, packets: Packets) -> None:
    """Raise Unreadable (truncated) if the file's structure announces clearly more frames or bytes than it holds.

    Durations and frame rates prove nothing: they are estimates, and another stream of the file may be longer.
    """
    listed = len(stream.index_entries) if "mov" in container.format.name.split(",") else 0
    if len(packets) < 0.95 * listed - 2:
        raise Unreadable("truncated", f"its index lists {listed} frames, but the file holds {len(packets)}")
    held, announced = os.path.getsize(path), _announced_bytes(path)
    if held < 0.95 * announced:
        raise Unreadable("truncated", f"it was written with {announced:,} bytes, but {held:,} are left")
    seconds = max(float((stream.duration or 0) * (stream.time_base or 0)), (container.duration or 0) / 1_000_000)
    if (packets.is_cut or packets.error) and len(packets.stamps):
        begin = min(float(packets.stamps[0] * stream.time_base), (container.start_time or 0) / 1_000_000)
        ends = float(packets.stamps[-1] * stream.time_base) - begin
        if ends < 0.95 * seconds - 0.1:
            raise Unreadable(
                "truncated",
                (
                    f"it ends within a frame after {ends:.2f} s of {seconds:.2f} "
                    f"s{': ' * bool(packets.error)}{packets.error}"
                ),
            )


def _announced_bytes(path: str) -> int:
    """Return the file's size as AVI, Matroska, WebM and ASF write it at the start; 0 if it is not there."""
    with open(path, "rb") as file:
        head = file.read(4096)
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        size = int.from_bytes(head[4:8], "little")
        return size + 8 if 12 < size < 0xFFFFFFFF else 0
    if head[:4] == b"\x1aE\xdf\xa3":
        at = head.find(b"\x18S\x80g")  # the element that contains everything; its size is a number of variable length
        if at < 0 or not head[at + 4 : at + 5] or not head[at + 4]:
            return 0
        length = 9 - head[at + 4].bit_length()
        size = int.from_bytes(head[at + 4 : at + 4 + length], "big") & ((1 << 7 * length) - 1)
        return (
            at + 4 + length + size if size != (1 << 7 * length) - 1 else 0
        )  # all ones: the file was written while it was recorded
    if head[:4] == b"0&\xb2u":
        at = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))  # ASF's file properties
        return int.from_bytes(head[at + 40 : at + 48], "little") if at >= 0 else 0
    return 0


def _is_hidden(packet: Any, codec: str) -> bool:
    """Return True if a packet of VP8 or VP9 holds a frame that is never shown but referred to.

    Sources: RFC 6386, 9.1; VP9 bitstream, 6.2.
    """
    if codec not in ("vp8", "vp9"):
        return False
    data = memoryview(packet)
    first, last = data[0], data[-1]
    if codec == "vp8":
        return not first & 0x10
    if last & 0xE0 == 0xC0:  # several frames in one packet, of which one is shown
        return False
    is_profile_3 = first & 0x30 == 0x30
    flags = first << 1 if is_profile_3 else first
    return not flags & 0x08 and not flags & 0x02
