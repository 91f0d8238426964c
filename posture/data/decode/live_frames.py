"""Stream the frames of a camera or address as they come, in the sizes that classifying, finding and drawing need.

Runs in the decoder's process (`data/decode/sandbox.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip
from posture.data.decode.decode_file import FRAMES_AT_ONCE, fit_frames, search_size
from posture.data.decode.live_source import LiveFrame, LiveReader, LiveSource
from posture.data.decode.orientation import orientation_of, shown_width
from posture.data.decode.scaling import FrameScaler
from posture.data.decode.stream import VideoStream
from posture.data.decode.stream_frames import look_every, role_sizes
from posture.data.store.frame_codec import encode_frames
from posture.data.store.schema import DecodeRecipe

ENDLESS = 2**53
"""Number after the last frame of a stream whose end is not known."""
SILENT_SECONDS = 0.5
"""Time after which {"kind": "waiting"} tells that nothing comes."""


def live_frames(
    source: LiveSource,
    *,
    recipe: DecodeRecipe | None = None,
    longest: int | None = None,
    shown: int | None = None,
    fps_cap: float | None = None,
    seconds: float | None = None,
    reconnects: int = 5,
) -> Iterator[dict[str, Any] | Clip]:
    """Yield the frames of a live source as `stream_frames` yields those of a file, with these differences:

        * `stop` is ENDLESS. Numbers are left out where frames were dropped or did not come.
        * With `shown`, a Clip of role "shown" follows, the longer side at most `shown`, to be drawn.
        * {"kind": "waiting", lost} comes while there is no frame, with the number of lost connections.
        * A row has `dropped`, the number of frames that were dropped until then.

    Reading ends after `seconds`. Raises Unreadable if there is no connection, or after it was lost and `reconnects`
    attempts failed.
    """
    reader = LiveReader(source, seconds=seconds, reconnects=reconnects)
    try:
        scaler, sizes, every = None, {}, 1
        while (frames := reader.take(FRAMES_AT_ONCE, wait=SILENT_SECONDS)) is not None:
            if not frames:
                yield {"kind": "waiting", "lost": len(reader.lost)}
                continue
            if scaler is None:
                scaler, stream = FrameScaler(orientation_of(frames[0].image)), _described(frames[0], reader)
                every = look_every(stream.fps, fps_cap)
                sizes = role_sizes(stream, recipe, longest)
                if shown is not None:
                    sizes["shown"] = search_size(stream, shown)
                yield {"kind": "stream", **stream.columns, "first": 0, "stop": ENDLESS, "every": every}
            for role, size in sizes.items():
                chosen = [frame for frame in frames if role != "search" or frame.number % every == 0]
                if chosen:
                    yield _clip(role, chosen, size, scaler, recipe, dropped=reader.dropped)
        for reason in reader.lost:
            yield {"kind": "note", "note": f"the connection was lost, and made again: {reason}"}
        if reader.failure is not None:
            raise reader.failure
    finally:
        reader.close()


def _clip(
    role: str,
    frames: Sequence[LiveFrame],
    size: tuple[int, int],
    scaler: FrameScaler,
    recipe: DecodeRecipe | None,
    *,
    dropped: int,
) -> Clip:
    stacked = np.stack([scaler.image(frame.image, size) for frame in frames])
    if role == "clip" and recipe is not None:
        stacked = fit_frames(stacked, recipe)
    row = {
        "role": role,
        "numbers": [frame.number for frame in frames],
        "times": [frame.time for frame in frames],
        "ends": [frame.end for frame in frames],
        "height": stacked.shape[1],
        "width": stacked.shape[2],
        "dropped": dropped,
    }
    return Clip(row, encode_frames(stacked, 0)[0])


def _described(frame: LiveFrame, reader: LiveReader) -> VideoStream:
    orientation, image = orientation_of(frame.image), frame.image
    height, width = orientation.size(image.height, shown_width(image.width, reader.aspect))
    coded = orientation.size(image.height, image.width)
    return VideoStream(reader.rate, width, height, coded[1], coded[0], "", "", "", np.zeros(1))
