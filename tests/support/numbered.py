"""Videos whose frames carry their own number and say which way is up, in the containers and codecs that FFmpeg writes.

An image has four corner blocks: red upper left, green upper right, blue lower left, white lower right. In the half
between them lie two rows of five blocks, black (0) or white (1): bits 0 to 4 of the number in the upper row, 5 to 9 in
the lower, the lowest bit first.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def numbered_frame(number: int, *, height: int = 96, width: int = 160) -> np.ndarray:
    """uint8 (height, width, 3)."""
    frame = np.full((height, width, 3), 90, np.uint8)
    tall, wide = height // 4, width // 4
    for place, colour in enumerate(CORNERS):
        row, column = divmod(place, 2)
        frame[
            row * (height - tall) : row * (height - tall) + tall,
            column * (width - wide) : column * (width - wide) + wide,
        ] = colour
    for bit in range(10):
        row, column = divmod(bit, 5)
        frame[(row + 1) * tall : (row + 2) * tall, column * width // 5 : (column + 1) * width // 5] = 255 * (
            number >> bit & 1
        )
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number that a frame (h, w, 3) of any size carries."""
    height, width, _ = frame.shape
    grey = frame.mean(axis=2)
    middles = [
        (int(height * (0.375 + 0.25 * row)), int(width * (column + 0.5) / 5)) for row in range(2) for column in range(5)
    ]
    return sum(int(grey[y - 1 : y + 2, x - 1 : x + 2].mean() > 128) << bit for bit, (y, x) in enumerate(middles))


def corners_of(frame: np.ndarray) -> list[tuple[int, int, int]]:
    """The colours of the corner blocks, each channel 0 or 255: upper left, upper right, lower left, lower right."""
    height, width, _ = frame.shape
    ys, xs = (height // 8, height - height // 8), (width // 8, width - width // 8)
    return [tuple(255 * int(value > 128) for value in frame[y, x]) for y in ys for x in xs]  # type: ignore[misc]


def write_numbered(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 75,
    fps: int = 25,
    size: tuple[int, int] = (96, 160),
    keyframe_every: int = 12,
    pixels: str = "yuv420p",
    container: str | None = None,
    stamps: Sequence[int] | None = None,
    aspect: Fraction | None = None,
    turn: int = 0,
    mirror: bool = False,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
) -> Path:
    """Encode `frames` numbered frames of `size` (height, width), as stored, at `path`.

    `container` is FFmpeg's name of the container, if the suffix does not give it; `stamps` are the frames' times in
    1/600 s instead of an even pace; `aspect` is that of a pixel. Images are stored turned by `turn` degrees
    clockwise, a multiple of 90, and `mirror`ed left to right before that, and the file says how that is undone.
    `options` go to the encoder, `muxer` to the muxer.
    """
    import av

    with _usual_scheduling(), av.open(str(path), "w", format=container, options=dict(muxer or {})) as file:
        stream = file.add_stream(codec, rate=fps)
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = keyframe_every
        stream.options = {"threads": "1", **(options or {})}
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 600)
        if turn or mirror:
            stream.set_display_rotation(turn, hflip=mirror)
        for number in range(frames):
            shown = numbered_frame(number, height=size[turn % 180 != 0], width=size[turn % 180 == 0])
            stored = np.rot90(shown[:, ::-1] if mirror else shown, -turn // 90)
            image = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24")
            if stamps is not None:
                image.pts, image.time_base = stamps[number], Fraction(1, 600)
            file.mux(stream.encode(image))
        file.mux(stream.encode())
    return path


@contextlib.contextmanager
def _usual_scheduling() -> Iterator[None]:
    """Undo what SVT-AV1 does as root: its caller gets real-time priority, and all that the tests start later would
    inherit it and starve the machine.
    """
    if not hasattr(os, "sched_setscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


def remux(
    source: Path, target: Path, change: Callable[[Any, int], None], *, muxer: Mapping[str, str] | None = None
) -> Path:
    """Copy the video of `source` without encoding it again; `change(packet, ticks)` may give each packet other stamps;
    a frame lasts `ticks`.
    """
    import av

    with av.open(str(source)) as old, av.open(str(target), "w", options=dict(muxer or {})) as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        ticks = round(1 / (old.streams.video[0].time_base * old.streams.video[0].average_rate))
        for packet in old.demux(video=0):
            if packet.size:
                change(packet, ticks)
                packet.stream = stream
                new.mux(packet)
    return target


def with_sound(source: Path, target: Path, codec: str, *, begins: float, seconds: float, rate: int = 44100) -> Path:
    """Copy the video of `source` and add `seconds` of sound in stereo: silence, then a tone from second `begins` on."""
    import av

    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        copy, stream = new.add_stream_from_template(old.streams.video[0]), new.add_stream(codec, rate=rate)
        stream.layout = "stereo"
        at = np.arange(round(seconds * rate)) / rate
        tone = np.where(at < begins, 0.0, 0.5 * np.sin(2 * np.pi * 440 * at))
        samples = np.repeat((tone * 32767).astype(np.int16), 2)[None]
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for begin in range(0, samples.shape[1], 2 * 4096):
            sound = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples[:, begin : begin + 2 * 4096]), "s16", "stereo"
            )
            sound.rate, sound.pts, sound.time_base = rate, begin // 2, Fraction(1, rate)
            while packets and float(packets[0].pts * packets[0].time_base) <= begin / 2 / rate:
                packets[0].stream = copy
                new.mux(packets.pop(0))
            new.mux(stream.encode(sound))
        for packet in packets:
            packet.stream = copy
            new.mux(packet)
        new.mux(stream.encode(None))
    return target


def sound_of(path: Path) -> tuple[str, float, float]:
    """The codec of a file's sound, when its first tone begins, and when it ends; seconds on the clock of the video."""
    import av

    with av.open(str(path)) as file:
        stream = file.streams.audio[0]
        frames = [(frame.time, frame.sample_rate, frame.to_ndarray()) for frame in file.decode(audio=0)]
        name = stream.codec_context.name
    onset = None
    for time, rate, samples in frames:
        scale = 32768 if samples.dtype.kind == "i" else 1.0
        (loud,) = np.nonzero(np.abs(samples[0].astype(np.float64)) > 0.1 * scale)
        if len(loud) and onset is None:
            onset = time + loud[0] / rate
    time, rate, samples = frames[-1]
    return name, -1.0 if onset is None else float(onset), float(time + samples.shape[-1] / rate)
