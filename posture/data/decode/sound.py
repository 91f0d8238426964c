"""Take the sound out of a video, cut to a stretch of it, in a form that browsers play.

Runs in the decoder's process (`data/decode/sandbox.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from posture.data.decode.limits import at_work
from posture.data.decode.packets import demuxed, open_stream
from posture.data.decode.stream import failures, plain

MP3_RATES = (16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Samples per second of MP3 sound that MP4 files may hold (ISO/IEC 11172-3 and 13818-3)."""
AAC_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
"""Samples per second that sound is encoded with as it is; sound of any other rate gets the last one."""


def extract_sound(path: str, target: str, *, start: float = 0.0, end: float | None = None) -> Iterator[dict[str, Any]]:
    """Write the sound from `start` up to `end`, seconds from the first frame, to the MP4 file `target`.

    AAC and MP3 are copied, everything else is encoded as AAC. Times in the file count from `start`. Yields {"kind":
    "sound", found, note}: found is False if there is none to write; the note says why sound is missing, or is empty.
    Raises Unreadable if the file has no video stream.
    """
    begins = _first_shown(path) + start
    container, _ = open_stream(path)
    with container:
        sound = container.streams.best("audio")
        if sound is None:
            yield {"kind": "sound", "found": False, "note": ""}
            return
        if sound.codec_context is None:
            yield {"kind": "sound", "found": False, "note": "its sound has a codec that cannot be decoded here"}
            return
        length = None if end is None else end - start
        codec, rate = sound.codec_context.name, sound.codec_context.sample_rate
        copies = codec == "aac" or (codec in ("mp3", "mp3float") and rate in MP3_RATES)
        written, failure = (_copy if copies else _encode)(container, sound, target, begins, length)
        note = f"its sound is read only in part: {failure}" if written else f"its sound cannot be read: {failure}"
        yield {"kind": "sound", "found": written > 0, "note": note if failure else ""}


def _first_shown(path: str) -> float:
    """Return the time in seconds at which the container shows the video's first frame."""
    container, video = open_stream(path)
    with container:
        for packet in demuxed(container, video):
            try:
                frames = video.codec_context.decode(packet if packet.size else None)
            except failures():
                continue
            if frames:
                return 0.0 if frames[0].pts is None else float(frames[0].pts * video.time_base)
            if not packet.size:
                break
    return 0.0


def _copy(container: Any, sound: Any, target: str, begins: float, length: float | None) -> tuple[int, str]:
    """Copy packets; return their number, and the error that ended it, or ""."""
    import av

    written, last = 0, None
    shift = round(begins / sound.time_base)
    try:
        with av.open(target, "w", format="mp4") as file:
            copy = file.add_stream_from_template(sound)
            for packet in demuxed(container, sound):
                at_work()
                if not packet.size or packet.pts is None or packet.dts is None:
                    continue
                time = float(packet.pts * packet.time_base) - begins
                if length is not None and time >= length:
                    break
                if time < 0 or (last is not None and packet.dts <= last):
                    continue
                last = packet.dts
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                file.mux(packet)
                written += 1
    except failures() as error:
        return written, plain(error)
    return written, ""


def _encode(container: Any, sound: Any, target: str, begins: float, length: float | None) -> tuple[int, str]:
    """Encode as AAC; return the number of packets, and the error that ended it, or ""."""
    import av

    written, failure = 0, ""
    try:
        frames = _sounds(container, sound)
        first = next(frames, None)
        if first is None:
            return 0, "nothing of it decodes"
        rate = first.sample_rate if first.sample_rate in AAC_RATES else AAC_RATES[-1]
        layout = "mono" if first.layout.nb_channels == 1 else "stereo"
        with av.open(target, "w", format="mp4") as file:
            stream = file.add_stream("aac", rate=rate, layout=layout)
            stream.bit_rate = 160_000
            try:
                for piece in _trimmed(itertools.chain([first], frames), begins, length, rate, layout):
                    for packet in stream.encode(piece):
                        file.mux(packet)
                        written += 1
            except failures() as error:
                failure = plain(error)
            for packet in stream.encode(None):
                file.mux(packet)
                written += 1
    except failures() as error:
        failure = failure or plain(error)
    return written, failure


def _sounds(container: Any, sound: Any) -> Iterator[Any]:
    """Yield the decoded sound. Packets that do not decode are skipped."""
    for packet in demuxed(container, sound):
        at_work()
        try:
            frames = sound.codec_context.decode(packet if packet.size else None)
        except failures():
            continue
        yield from (frame for frame in frames if frame.pts is not None)
        if not packet.size:
            return


def _trimmed(frames: Iterator[Any], begins: float, length: float | None, rate: int, layout: str) -> Iterator[Any]:
    """Yield the sound from `begins` on for `length` seconds, converted, with times that count from `begins`."""
    from av.error import BlockingIOError, EOFError
    from av.filter import Graph

    first = next(frames)
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=first.sample_rate,
        format=first.format.name,
        layout=first.layout.name,
        time_base=first.time_base or Fraction(1, first.sample_rate),
    )
    until = "" if length is None else f":end={begins + length:.6f}"
    nodes = (
        ("atrim", f"start={begins:.6f}{until}"),
        ("asetpts", f"PTS-({begins:.6f})/TB"),
        ("aformat", f"sample_fmts=fltp:sample_rates={rate}:channel_layouts={layout}"),
    )
    graph.link_nodes(source, *(graph.add(*node) for node in nodes), graph.add("abuffersink")).configure()
    for frame in itertools.chain([first], frames, [None]):
        if frame is not None and length is not None and frame.time > begins + length:
            frame = None
        graph.push(frame)
        while True:
            try:
                yield graph.pull()
            except (BlockingIOError, EOFError):
                break
        if frame is None:
            return
