"""Stream the frames of a whole video in order, decoded once, in the sizes that classifying, finding and drawing need.

Runs in the decoder's process (`data/decode/sandbox.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip
from posture.data.decode.decode_file import FRAMES_AT_ONCE, decoded_size, fit_frames, held_note, search_size
from posture.data.decode.video import Reader, VideoStream, open_video
from posture.data.store.frame_codec import encode_frames
from posture.data.store.schema import DecodeRecipe
from posture.errors import Unreadable

BYTES_AT_ONCE = 64_000_000
"""Bytes of shown frames in memory, unless one frame is larger."""


def stream_frames(
    path: str,
    *,
    recipe: DecodeRecipe | None = None,
    longest: int | None = None,
    fps_cap: float | None = None,
    start: float = 0.0,
    end: float | None = None,
) -> Iterator[dict[str, Any] | Clip]:
    """Yield the frames shown from `start` up to `end` (seconds), a few at a time, as Clips of raw pixels.

    First comes {"kind": "stream", **VideoStream.columns, first, stop, every}: frames `first` up to `stop` follow,
    numbered from the video's first. A Clip's row is {role, numbers, times, ends, height, width}; a frame is shown from
    its time up to its end. Its role is

        * "clip": frames as `cut_file` stores them raw, for a `recipe` without a crop.
        * "whole": the shown size, to cut along tracks: for a `recipe` with a crop, or without `recipe` and `longest`.
        * "search": the longer side at most `longest`, as `frames_to_search` gives it; each `every`-th frame from
          `first` on, at most `fps_cap` per second.

    A {"kind": "note", note} at the end tells of replaced frames. Raises Unreadable, also after the last frame of a file
    that was cut off or damaged.
    """
    with open_video(path, partial=True) as reader:
        stream, shown = reader.stream, reader.times()
        ends = np.append(shown[1:], stream.seconds)
        first, stop = np.searchsorted(shown, [start - 1e-6, np.inf if end is None else end - 1e-6]).tolist()
        every = look_every(stream.fps, fps_cap)
        yield {"kind": "stream", **stream.columns, "first": first, "stop": stop, "every": every}
        at_once = min(FRAMES_AT_ONCE, max(1, BYTES_AT_ONCE // (3 * stream.height * stream.width)))
        sizes = role_sizes(stream, recipe, longest)
        for begin in range(first, stop, at_once):
            roles = {
                role: range(begin, min(begin + at_once, stop))[(first - begin) % every :: every]
                if role == "search"
                else range(begin, min(begin + at_once, stop))
                for role in sizes
            }
            images, failure = _decoded(reader, roles, sizes)
            for role, frames in images.items():
                if not frames:
                    continue
                stacked, numbers = np.stack(frames), list(roles[role][: len(frames)])
                if role == "clip" and recipe is not None:
                    stacked = fit_frames(stacked, recipe)
                _, height, width, _ = stacked.shape
                row = {"times": shown[numbers].tolist(), "ends": ends[numbers].tolist()}
                yield Clip(
                    {"role": role, "numbers": numbers, **row, "height": height, "width": width},
                    encode_frames(stacked, 0)[0],
                )
            if failure is not None:
                raise failure
        if reader.held:
            yield held_note(reader)
        if reader.failure is not None:
            raise reader.failure


def look_every(fps: float, fps_cap: float | None) -> int:
    """Return n, so that looking at every n-th frame of a video keeps within `fps_cap` looks per second."""
    return 1 if fps_cap is None else max(1, math.ceil(fps / fps_cap - 1e-6))


def role_sizes(stream: VideoStream, recipe: DecodeRecipe | None, longest: int | None) -> dict[str, tuple[int, int]]:
    """Return the size (height, width) to decode at for each role."""
    sizes = {}
    if recipe is not None or longest is None:
        is_whole = recipe is None or recipe.crop
        sizes["whole" if is_whole else "clip"] = (
            (stream.height, stream.width) if recipe is None else decoded_size(stream, recipe)
        )
    if longest is not None:
        sizes["search"] = search_size(stream, longest)
    return sizes


def _decoded(
    reader: Reader, roles: Mapping[str, range], sizes: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, list[np.ndarray]], Unreadable | None]:
    """Return each role's frames up to the first that cannot be read, and why it cannot."""
    images: dict[str, list[np.ndarray]] = {role: [] for role in roles}
    for number in sorted({number for numbers in roles.values() for number in numbers}):
        here = [role for role, numbers in roles.items() if number in numbers]
        try:
            of_size = reader.sized(number, {sizes[role] for role in here})
        except Unreadable as error:
            return images, error
        if number >= reader.readable:
            return images, reader.failure
        for role in here:
            images[role].append(of_size[sizes[role]])
    return images, None
