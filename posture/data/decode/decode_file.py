"""Decode one file: its row, its segments and clips, or single frames. Runs in the decoder's process
(`data/decode/sandbox.py`).

Legend: T stored frames, H x W stored pixels; times in seconds from the first frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip, Cut, accept, frame_numbers, no_athlete, segment_of, span_of, windows_of
from posture.data.decode.tracks import as_shown, other_size
from posture.data.decode.video import Reader, VideoStream, open_video
from posture.data.labels.records import Label, Tube
from posture.data.store.frame_codec import encode_frames
from posture.data.store.schema import DecodeRecipe, clip_id

JPEG_QUALITY = 95
"""JPEG quality of single frames."""
FRAMES_AT_ONCE = 8
"""Number of frames in memory at the video's own size."""


STILL_LEVELS = 2
"""Maximum difference, of 255, between pixels of frames that show the same image."""


def cut_file(
    path: str,
    video: str,
    labels: Sequence[Label],
    cut: Cut,
    *,
    stored: frozenset[str] = frozenset(),
    tubes: Sequence[Tube] = (),
) -> Iterator[dict[str, Any] | Clip]:
    """Yield the file's properties, then each refused label, then for each segment its clips and its row.

    Segments in `stored` already have their clips and give only their row. A recipe with a crop cuts along the `tubes`.
    Properties are {"kind": "stream", **VideoStream.columns, doubt}, refusals {"kind": "refused", verdict, reason} (with
    segment if the verdict is `no_athlete`), segments {"kind": "segment", **row}, notes {"kind": "note", note}. Raises
    Unreadable.
    """
    with open_video(path) as reader:
        reader.height, reader.width = decoded_size(reader.stream, cut.recipe)
        stream = reader.stream
        yield {"kind": "stream", **stream.columns, "doubt": stream.doubt}
        accepted, refused = accept(labels, cut, seconds=stream.seconds, fps=stream.fps, shown=reader.times())
        yield from ({"kind": "refused", **refusal} for refusal in refused)
        tubes = [
            as_shown(tube, (stream.coded_height, stream.coded_width), (stream.height, stream.width)) for tube in tubes
        ]
        if cut.recipe.crop and (mismatch := other_size(tubes, stream.height, stream.width)):
            yield {"kind": "refused", **mismatch}
            return
        still: list[float] = []
        for label in accepted:
            for item in _cut_segment(
                reader, video, label, cut.recipe, tubes, is_stored=segment_of(video, label) in stored
            ):
                if isinstance(item, Clip) or item["kind"] != "still":
                    yield item
                else:
                    still.append(item["start"])
        if still:
            yield {
                "kind": "note",
                "note": (
                    f"most frames of {len(still):,} {'clip' if len(still) == 1 else 'clips'} repeat the frame before, "
                    f"the first from {still[0]:.2f} s on: the image does not move"
                ),
            }
        if reader.held:
            yield held_note(reader)


def _cut_segment(
    reader: Reader, video: str, label: Label, recipe: DecodeRecipe, tubes: Sequence[Tube], *, is_stored: bool
) -> Iterator[dict[str, Any] | Clip]:
    """Yield the segment's clips, unless they are stored, and its row; or its refusal if it shows no athlete to cut
    along.

    A clip whose image does not move comes after {"kind": "still", start}.
    """
    stream, shown, segment = reader.stream, reader.times(), segment_of(video, label)
    end = stream.seconds if label.end is None else min(label.end, stream.seconds)
    if not is_stored:
        windows = list(windows_of(label, segment, span_of(label, stream.seconds, shown), recipe, tubes))
        if not windows:
            yield {"kind": "refused", **no_athlete(label, end), "segment": segment}
            return
        for window, numbers, tube in windows:
            frames = (
                fit_frames(reader.frames(numbers), recipe) if tube is None else _cropped(reader, numbers, tube, recipe)
            )
            if _stands_still(frames):
                yield {"kind": "still", "start": float(shown[numbers[0]])}
            pixels, offsets = encode_frames(frames, recipe.jpeg)
            yield Clip(
                {
                    "clip": clip_id(segment, recipe, window),
                    "segment": segment,
                    "recipe": str(recipe),
                    "start": float(shown[numbers[0]]),
                    "frames": len(numbers),
                    "height": recipe.height,
                    "width": recipe.width,
                    "offsets": offsets,
                    "times": shown[numbers].tolist(),
                },
                pixels,
            )
    yield {
        "kind": "segment",
        "segment": segment,
        "video": video,
        "start": label.start,
        "end": end,
        "label": label.label,
        "group": label.group,
        "split": label.split,
        "athlete": label.athlete,
    }


def frames_to_search(
    path: str, video: str, labels: Sequence[Label], cut: Cut, *, stored: frozenset[str], longest: int
) -> Iterator[dict[str, Any] | Clip]:
    """Yield the frames in which a detector must find athletes: those of the segments that are not `stored`.

    First comes {"kind": "stream", width, height} of the video; then each segment's frames, a few at a time, as Clips of
    raw pixels with {segment, numbers, height, width}. These are all frames that any of its windows stores, the longer
    side at most `longest`. Raises Unreadable.
    """
    with open_video(path) as reader:
        stream = reader.stream
        reader.height, reader.width = search_size(stream, longest)
        yield {"kind": "stream", "width": stream.width, "height": stream.height}
        for label in accept(labels, cut, seconds=stream.seconds, fps=stream.fps, shown=reader.times())[0]:
            segment = segment_of(video, label)
            if segment in stored:
                continue
            span = span_of(label, stream.seconds, reader.times())
            numbers = sorted({
                number for window in frame_numbers(span.start, span.stop, cut.recipe) for number in window
            })
            for begin in range(0, len(numbers), FRAMES_AT_ONCE):
                some = numbers[begin : begin + FRAMES_AT_ONCE]
                yield Clip(
                    {"segment": segment, "numbers": some, "height": reader.height, "width": reader.width},
                    encode_frames(reader.frames(some), 0)[0],
                )


def read_frames(path: str, frames: Sequence[int]) -> Iterator[dict[str, Any] | Clip]:
    """Yield the frames (ascending, from 0) in the size that the video is shown in, each as a Clip of one JPEG.

    Its row is {frame, time, height, width, coded_height, coded_width, decoder}, with time in seconds. A frame past the
    end gives {"kind": "past_end", frame, frames}, with the number of frames. Raises Unreadable.
    """
    with open_video(path) as reader:
        shown = reader.times()
        for frame in frames:
            if frame >= len(reader):
                yield {"kind": "past_end", "frame": frame, "frames": len(reader)}
                continue
            pixels, _ = encode_frames(reader.frames([frame]), JPEG_QUALITY)
            yield Clip(
                {
                    "frame": frame,
                    "time": float(shown[frame]),
                    "height": reader.height,
                    "width": reader.width,
                    "coded_height": reader.stream.coded_height,
                    "coded_width": reader.stream.coded_width,
                    "decoder": reader.stream.decoder,
                },
                pixels,
            )


def fit_frames(frames: np.ndarray, recipe: DecodeRecipe) -> np.ndarray:
    """Fit (T, h, w, 3) to (T, H, W, 3): the middle of a larger image, or a smaller one on black."""
    _, height, width, _ = frames.shape
    if (height, width) == (recipe.height, recipe.width):
        return frames
    top, left = (height - recipe.height) // 2, (width - recipe.width) // 2
    if recipe.fit == "crop":
        return frames[:, top : top + recipe.height, left : left + recipe.width]
    canvas = np.zeros((len(frames), recipe.height, recipe.width, 3), np.uint8)
    canvas[:, -top : -top + height, -left : -left + width] = frames
    return canvas


def held_note(reader: Reader) -> dict[str, Any]:
    """Return {"kind": "note", note} on the frames that the reader replaced."""
    return {
        "kind": "note",
        "note": f"{reader.held:,} of the frames do not decode and are replaced by the frames shown before them",
    }


def search_size(stream: VideoStream, longest: int) -> tuple[int, int]:
    """Return the height and width at which a detector searches: the longer side at most `longest`."""
    scale = min(1.0, longest / max(stream.height, stream.width))
    return max(1, round(stream.height * scale)), max(1, round(stream.width * scale))


def decoded_size(stream: VideoStream, recipe: DecodeRecipe) -> tuple[int, int]:
    """Return the height and width to decode at, so that cropping or padding gives the recipe's size.

    The decoder resizes, which costs least. Crops along a tube are resized afterwards.
    """
    if recipe.crop:
        return stream.height, stream.width
    if recipe.fit == "stretch":
        return recipe.height, recipe.width
    ratios = recipe.height / stream.height, recipe.width / stream.width
    scale = max(ratios) if recipe.fit == "crop" else min(ratios)
    rounding = np.ceil if recipe.fit == "crop" else np.floor
    return max(1, int(rounding(stream.height * scale))), max(1, int(rounding(stream.width * scale)))


def _cropped(reader: Reader, numbers: Sequence[int], tube: Tube, recipe: DecodeRecipe) -> np.ndarray:
    """Return the frames (T, H, W, 3) around the athlete. `reader` must give frames in the video's shown size."""
    from posture.data.decode.cropping import cut_out, cuts_along

    size = {"height": recipe.height, "width": recipe.width}
    cuts = cuts_along(
        tube,
        numbers,
        margin=recipe.margin,
        height=reader.height,
        width=reader.width,
        aspect=recipe.width / recipe.height,
        centred=recipe.centred,
    )
    frames = np.empty((len(numbers), recipe.height, recipe.width, 3), np.uint8)
    for begin in range(0, len(numbers), FRAMES_AT_ONCE):
        whole = reader.frames(numbers[begin : begin + FRAMES_AT_ONCE])
        for index, frame in enumerate(whole, start=begin):
            frames[index] = cut_out(frame, cuts[index], **size)
    return frames


def _stands_still(frames: np.ndarray) -> bool:
    """Return True if more than half of the frames (T, H, W, 3) show the same as the frame before."""
    some = frames[:, ::3, ::3].astype(np.int16)
    same = np.abs(np.diff(some, axis=0)).max(axis=(1, 2, 3), initial=0) <= STILL_LEVELS
    return bool(2 * same.sum() > len(same))
