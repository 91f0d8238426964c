"""A camera or a stream address that is read as it comes, by a thread of its own; lost connections are made again."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from posture.data.decode.limits import refuse_large
from posture.data.decode.packets import demuxed, shown_stream
from posture.data.decode.stream import failures, plain
from posture.data.decode.timestamps import DISORDER_SECONDS
from posture.display.text import counted
from posture.errors import InputError, Unreadable

PROTOCOLS = {
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,srtp,udp,tls,tcp",
    "rtmp": "rtmp,tcp",
    "http": "http,https,tcp,tls,crypto,data",
    "https": "http,https,tcp,tls,crypto,data",
}
"""FFmpeg's protocols that a stream of each scheme may use; never files of this machine."""
WAIT_SECONDS = 10.0
"""A source that sends nothing for this long is lost."""
LONGEST_WAIT = 10.0
"""Most seconds between two attempts to reconnect; they begin at 1 s and double."""
USUAL_RATE = 25.0
"""Frames per second of a source that does not tell its rate."""
JUMP_SECONDS = 10.0
"""A larger step of the time stamps is a jump of the source's clock; the time of arrival then counts."""
AHEAD_SECONDS = 1.0
"""A source that sends faster than its time stamps go, such as a file on a web server, is read this much ahead."""
BUFFERED_FRAMES, BUFFERED_BYTES = 250, 400_000_000
"""Most decoded frames that wait. If they are full, frames are dropped until all of them are taken."""


@dataclass(frozen=True)
class LiveSource:
    """A camera or an address of a stream."""

    address: str
    """As FFmpeg opens it; may hold credentials, so it is never shown or written."""
    name: str
    """Shown and written name: without user, password and query."""
    form: str | None = None
    """FFmpeg's input format of a device; None for addresses."""

    @staticmethod
    def parse(text: str) -> LiveSource | None:
        """Return the source that `text` names: `camera:0`, `/dev/video0`, `rtsp://...`, `http://...`; None if it names
        a file or folder. Raises InputError if it cannot be opened here.
        """
        camera = re.fullmatch(r"camera:(\d+)", text)
        if camera or re.fullmatch(r"/dev/video\d+", text):
            if sys.platform != "linux":
                raise InputError(f"{text}: cameras are read on Linux only; give the address of a stream")
            device = f"/dev/video{camera[1]}" if camera else text
            if not os.path.exists(device):
                raise InputError(f"{text}: there is no camera at {device}")
            return LiveSource(device, text, "v4l2")
        scheme = text.partition("://")[0].lower()
        if "://" not in text or scheme not in PROTOCOLS:
            return None
        try:
            parts = urlsplit(text)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host:
            raise InputError(f"{scheme}://...: an address has a host, and perhaps a port: {scheme}://HOST:PORT/PATH")
        host = f"[{host}]" if ":" in host else host
        return LiveSource(text, f"{scheme}://{host}{f':{port}' if port else ''}{parts.path}")

    def open(self) -> tuple[Any, Any]:
        """Return the container and its video stream. Raises Unreadable, or one of `failures()`."""
        import av

        scheme = self.address.partition("://")[0].lower()
        options = {} if self.form else {"protocol_whitelist": PROTOCOLS[scheme]}
        if scheme.startswith("rtsp"):
            options["rtsp_transport"] = "tcp"  # over UDP, lost packets damage images
        found = {"timeout": (WAIT_SECONDS, WAIT_SECONDS), "format": self.form, "options": options}
        container = av.open(self.address, metadata_errors="ignore", **found)
        return container, shown_stream(container)


@dataclass(frozen=True)
class LiveFrame:
    """A decoded frame."""

    number: int
    """Counts the source's frames. Numbers are left out if frames are dropped, or a connection was lost."""
    time: float
    """Seconds from the first frame."""
    end: float
    image: Any
    """PyAV's frame."""


class LiveReader:
    """The thread that reads a source. Call `take` until it returns None."""

    def __init__(self, source: LiveSource, *, seconds: float | None, reconnects: int) -> None:
        """`seconds` is the time to read, None without end; `reconnects` the attempts before a source is lost."""
        self._source, self._seconds, self._reconnects = source, seconds, reconnects
        self._ready: deque[LiveFrame] = deque()
        self._changed = threading.Condition()
        self._held: LiveFrame | None = None  # its end is the time of the next one
        self._is_dropping = self._is_closed = self._is_over = False
        self._number, self._began = -1, 0.0
        self.rate, self.aspect = USUAL_RATE, None
        """Frames per second that the source tells, and its pixel aspect ratio; known with the first frame."""
        self.dropped = 0
        """Number of frames that were dropped."""
        self.lost: list[str] = []
        """Why each lost connection ended."""
        self.failure: Unreadable | None = None
        """Why reading ended early."""
        threading.Thread(target=self._run, name="live", daemon=True).start()

    def take(self, most: int, *, wait: float) -> list[LiveFrame] | None:
        """Return up to `most` frames without a gap, [] if none came for `wait` seconds, or None after the last one."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._is_over, timeout=wait)
            taken: list[LiveFrame] = []
            while self._ready and len(taken) < most:
                if taken and self._ready[0].number != taken[-1].number + 1:
                    break
                taken.append(self._ready.popleft())
            self._is_dropping = self._is_dropping and bool(self._ready)
            return taken if taken or not self._is_over else None

    def close(self) -> None:
        """Let the thread end soon."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        tries = 0
        while not self._is_closed:
            before = self._number
            reason = self._connection()
            self._release(None)
            if not reason:
                break
            if self._number < 0:
                self.failure = Unreadable("unreadable", reason)
                break
            tries = 1 if self._number > before else tries + 1
            if tries > self._reconnects:
                after = f"the connection was lost after {self._last_end:.2f} s"
                attempts = counted(self._reconnects, "attempt")
                tried = f", and {attempts} to reconnect failed" if self._reconnects else ""
                self.failure = Unreadable("unreadable", f"{after}{tried}: {reason}")
                break
            if tries == 1:
                self.lost.append(reason)
            self._sleep(min(LONGEST_WAIT, 2.0 ** (tries - 1)))
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _connection(self) -> str:
        """Read one connection. Return why it ended, "" if nothing more is to be read."""
        container = None
        try:
            container, video = self._source.open()
            rate = float(video.average_rate or video.guessed_rate or 0)
            if self._number < 0:
                self.rate, self.aspect = rate if 1 <= rate <= 240 else USUAL_RATE, video.sample_aspect_ratio
            is_file = not self._source.form and _bytes(container) > 0
            self._is_new, offset = True, None
            for image in self._decoded(container, video):
                stamp = float(image.pts * image.time_base) if image.pts is not None and image.time_base else None
                now = time.monotonic() - self._began if self._number >= 0 else 0.0
                offset, at = self._placed(stamp, offset, now)
                if self._is_closed or (self._seconds is not None and at >= self._seconds):
                    return ""
                self._add(image, at)
                self._sleep(at - (time.monotonic() - self._began) - AHEAD_SECONDS)
            return "" if is_file else "the stream ended"
        except Unreadable as error:
            return str(error)
        except failures() as error:  # never str(error): it has the address with its credentials
            if getattr(error, "errno", None) == errno.EIO:  # how FFmpeg tells that a server hung up
                return "the stream ended"
            return plain(error) if getattr(error, "strerror", None) else type(error).__name__
        finally:
            if container is not None:
                container.close()

    def _placed(self, stamp: float | None, offset: float | None, now: float) -> tuple[float | None, float]:
        """Return the difference between time and stamps of this connection, and the time of a frame that came `now`."""
        after = self._last_end if self._number >= 0 else 0.0
        last = after - 1 / self.rate
        if stamp is not None and offset is not None and -DISORDER_SECONDS < stamp + offset - last < JUMP_SECONDS:
            return offset, max(stamp + offset, last + 1e-3)
        if self._is_new and self._number >= 0:
            self._number += max(1, round((max(now, after) - after) * self.rate))
        self._is_new, at = False, max(now, after)
        return (None if stamp is None else at - stamp), at

    def _decoded(self, container: Any, video: Any) -> Iterator[Any]:
        """Yield the frames of a connection from its first keyframe on. Packets that do not decode are skipped.

        An error of the connection is raised after the frames that had come.
        """
        packets, error, is_begun = demuxed(container, video), None, False
        while error is None:
            try:
                packet = next(packets, None)
            except failures() as problem:
                packet, error = None, problem
            try:
                images = video.codec_context.decode(packet if packet is not None and packet.size else None)
            except failures():
                images = []
            for image in images:
                refuse_large(image.height, image.width)
                is_begun = is_begun or (image.key_frame and not image.is_corrupt)
                if is_begun:
                    yield image
            if error is None and (packet is None or not packet.size):
                return
        raise error

    def _add(self, image: Any, at: float) -> None:
        """Number a frame, and queue the one before it."""
        if self._number < 0:
            self._began = time.monotonic()
        self._number += 1
        frame = LiveFrame(self._number, at, at + 1 / self.rate, image)
        self._release(frame)
        self._held, self._last_end = frame, frame.end

    def _release(self, following: LiveFrame | None) -> None:
        """Queue the frame that was held, which lasts up to the following one, or drop it."""
        held, self._held = self._held, None
        if held is None:
            return
        if following is not None and following.number == held.number + 1:
            held = replace(held, end=following.time)
        most = min(BUFFERED_FRAMES, max(2, BUFFERED_BYTES * 2 // (3 * held.image.height * held.image.width)))
        with self._changed:
            self._is_dropping = self._is_dropping or len(self._ready) >= most
            if self._is_dropping:
                self.dropped += 1
            else:
                self._ready.append(held)
            self._changed.notify_all()

    def _sleep(self, seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._is_closed, timeout=max(0.0, seconds))

    _is_new, _last_end = True, 0.0


def _bytes(container: Any) -> int:
    """Return the size that a server tells of what it sends, 0 if it tells none."""
    try:
        return max(0, int(container.size))
    except (*failures(), AttributeError, TypeError):
        return 0
