"""One file and its labels -> its row, its segments, its decoded clips. Runs where the file is decoded
(`data/decode/sandbox.py`).

Legend: T stored frames, H x W stored pixels; times in seconds from the first frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posture.data.decode.probe import open_video
from posture.data.decode.tracks import as_shown, candidates, is_seen, other_size
from posture.data.decode.video import Reader, VideoStream
from posture.data.labels.tubes import Tube
from posture.data.labels.videos import Label
from posture.data.store.schema import DecodeRecipe, clip_id, segment_id
from posture.errors import InputError

BACKGROUND = "background"
"""The class of stretches between the labels."""

PAST_END_SECONDS = 0.5
"""Labels are often rounded: an end this little past the video's is the video's end."""


FRAMES_AT_ONCE = 8
"""So many of a video's frames are in memory at its own size."""

STILL_LEVELS = 2
"""Of 255: frames whose pixels differ by no more show the same image."""


@dataclass(frozen=True)
class Cut:
    """How segments are cut into clips."""

    recipe: DecodeRecipe = DecodeRecipe()
    min_frames: int = 16
    """A segment with fewer stored frames is shorter than one clip."""
    short: str = "pad"
    """`pad`: short segments are kept, training repeats their last frame; `refuse`: they get the verdict too_short."""
    background: bool = False
    """Also cut a clip of class `background` from every gap between labels that is long enough."""


@dataclass(frozen=True)
class Clip:
    """A clips row, and `times`: when each of its frames is shown. `pixels` are the raw frames, or JPEG frames that
    start at `offsets`.
    """

    row: dict[str, Any]
    pixels: bytes | memoryview


def accept(
    labels: Sequence[Label],
    cut: Cut,
    *,
    seconds: float,
    fps: float,
    shown: np.ndarray | None = None,
    stored: Callable[[Label], int] = lambda label: 0,
) -> tuple[list[Label], list[dict[str, str]]]:
    """The labels that a video of this length can give clips for, in seconds, background included; and a refusal
    {verdict, reason} for each other.

    `shown` (frames,) is when each frame is, in seconds; without it, frames are taken to come at an even pace. `stored`
    gives the frames of a label's clip in the store, 0 if it has none.
    """
    labels = [label.timed(fps) for label in labels]
    accepted, refused = [], []
    for label in [*labels, *(_gaps(labels, seconds, cut, fps) if cut.background else ())]:
        end = seconds if label.end is None else label.end
        name = f"{label.label} from {label.start:g} s to {'its end' if label.end is None else f'{end:g} s'}"
        frames = max(stored(label), math.ceil(_frames_in(label, min(end, seconds), fps, shown) / cut.recipe.stride))
        if label.start >= seconds or end > seconds + PAST_END_SECONDS:
            refused.append({"verdict": "segment_past_end", "reason": f"{name}: the video lasts {seconds:.2f} s"})
        elif (
            frames < cut.min_frames
            if cut.short == "refuse"
            else frames < 1 and round((min(end, seconds) - label.start) * fps) < 1
        ):
            needed = (
                f"{frames} frames to store; one clip needs {cut.min_frames}"
                if cut.short == "refuse"
                else "no frame is shown in that time"
            )
            refused.append({"verdict": "too_short", "reason": f"{name}: {needed}"})
        else:
            accepted.append(label)
    return accepted, refused


def _frames_in(label: Label, end: float, fps: float, shown: np.ndarray | None) -> int:
    """How many of the video's frames the label holds up to `end`, in seconds."""
    if shown is not None:
        first, last = label.frames or np.searchsorted(shown, [label.start - 1e-6, end - 1e-6]).tolist()
        return min(last, len(shown)) - first
    return math.ceil(end * fps - 1e-3) - math.ceil(label.start * fps - 1e-3)


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

    Segments in `stored` have their clips already and give only their row. Properties: {"kind": "stream",
    **VideoStream.columns, doubt}; refusals: {"kind": "refused", verdict, reason} and of the verdict `no_athlete` also
    segment; segments: {"kind": "segment", **row}; what is odd without being wrong: {"kind": "note", note}. A recipe
    with a crop cuts along the `tubes`. Raises Unreadable.
    """
    with open_video(path) as reader:
        reader.height, reader.width = _decoded_size(reader.stream, cut.recipe)
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
                "note": f"most frames of {len(still):,} {'clip' if len(still) == 1 else 'clips'} repeat the frame before, the first "
                f"from {still[0]:.2f} s on: an image that stands still",
            }
        if reader.held:
            yield {
                "kind": "note",
                "note": f"{reader.held:,} of the frames asked for do not decode; the ones shown before them stand in",
            }


def _cut_segment(
    reader: Reader, video: str, label: Label, recipe: DecodeRecipe, tubes: Sequence[Tube], *, is_stored: bool
) -> Iterator[dict[str, Any] | Clip]:
    """The segment's clips, unless they are stored, and its row; its refusal if it shows no athlete to cut it along.

    Before a clip that stands still: {"kind": "still", start}.
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
    }


def frames_to_search(
    path: str, video: str, labels: Sequence[Label], cut: Cut, *, stored: frozenset[str], longest: int
) -> Iterator[dict[str, Any] | Clip]:
    """Yield what a detector has to see of a file to find the athletes in the segments that are not `stored`.

    First {"kind": "stream", width, height}, the video's own; then each segment's frames, few at a time, as Clips of raw
    pixels with {segment, numbers, height, width}: every frame that any window of it stores, the longer side no longer
    than `longest`. Raises Unreadable.
    """
    with open_video(path) as reader:
        stream = reader.stream
        scale = min(1.0, longest / max(stream.height, stream.width))
        reader.height, reader.width = max(1, round(stream.height * scale)), max(1, round(stream.width * scale))
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


def span_of(label: Label, seconds: float, shown: np.ndarray) -> range:
    """The segment's frames, at least one, in a video of that length; `shown` (frames,) is when each of its frames is,
    in seconds.
    """
    end = seconds if label.end is None else min(label.end, seconds)
    first, last = label.frames or (int(place) for place in np.searchsorted(shown, [label.start - 1e-6, end - 1e-6]))
    first = min(first, len(shown) - 1)  # a segment may begin while the last frame is shown
    return range(first, max(min(last, len(shown)), first + 1))


def segment_of(video: str, label: Label) -> str:
    """The key of the label's segment; the label's times are in seconds."""
    return segment_id(video, label.start, label.end, label.athlete)


def windows_of(
    label: Label, segment: str, span: range, recipe: DecodeRecipe, tubes: Sequence[Tube]
) -> Iterator[tuple[int, list[int], Tube | None]]:
    """The segment's windows: their number, their frames, and the tube that they are cut along; only those in which
    there is one, if frames are cropped.

    `span` is the segment's frames. Tubes that a detector found have their segment's key as their name, and come best
    first.
    """
    if recipe.searched:
        along = [tube for tube in tubes if tube.name == segment]
    else:
        along = candidates(tubes, athlete=label.athlete, group=label.group, frames=span) if recipe.crop else []
    for window, numbers in enumerate(frame_numbers(span.start, span.stop, recipe)):
        tube = next((tube for tube in along if is_seen(tube, numbers)), None)
        if tube is not None or not recipe.crop:
            yield window, numbers, tube


def no_athlete(label: Label, end: float) -> dict[str, str]:
    """The refusal of a segment in which nobody is seen."""
    return {
        "verdict": "no_athlete",
        "reason": f"{label.label} from {label.start:g} s to {end:g} s: no athlete there, or in too few frames",
    }


def frame_numbers(first: int, last: int, recipe: DecodeRecipe) -> list[list[int]]:
    """The file's frames that each window of the segment [first, last) stores.

    Windows lie evenly from the segment's start to its end (one window: in its middle). A segment shorter than a window
    is one shorter window.
    """
    span = (recipe.frames - 1) * recipe.stride + 1
    slack = last - first - span
    if slack < 0:
        short = list(range(first, last, recipe.stride))
        return [short] if short else []
    shares = np.linspace(0.0, 1.0, recipe.windows) if recipe.windows > 1 else np.array([0.5])
    starts = sorted({first + round(float(share) * slack) for share in shares})
    return [list(range(start, start + span, recipe.stride)) for start in starts]


def fit_frames(frames: np.ndarray, recipe: DecodeRecipe) -> np.ndarray:
    """(T, h, w, 3) -> (T, H, W, 3): the middle of a larger image, or a smaller one on black."""
    _, height, width, _ = frames.shape
    if (height, width) == (recipe.height, recipe.width):
        return frames
    top, left = (height - recipe.height) // 2, (width - recipe.width) // 2
    if recipe.fit == "crop":
        return frames[:, top : top + recipe.height, left : left + recipe.width]
    canvas = np.zeros((len(frames), recipe.height, recipe.width, 3), np.uint8)
    canvas[:, -top : -top + height, -left : -left + width] = frames
    return canvas


def encode_frames(frames: np.ndarray, quality: int) -> tuple[bytes | memoryview, list[int]]:
    """Frames as stored bytes, and where each JPEG frame starts; `quality` 0 keeps raw pixels and has no starts."""
    if not quality:
        return memoryview(np.ascontiguousarray(frames)).cast("B"), []
    import cv2

    images = [
        cv2.imencode(".jpg", frame[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes() for frame in frames
    ]
    return b"".join(images), [0, *np.cumsum([len(image) for image in images[:-1]]).tolist()]


def decode_frames(
    pixels: Any, offsets: Sequence[int], shape: tuple[int, int, int], *, numbers: Sequence[int] | None = None
) -> np.ndarray:
    """Stored bytes -> uint8 (T, H, W, 3); raw frames are a read-only view. `numbers` picks frames, and only those are
    decoded.

    Raises InputError if the bytes are not so many frames of that size.
    """
    length, height, width = shape
    if not len(offsets):
        if len(pixels) != length * height * width * 3:
            raise InputError(
                f"a clip of the store has {len(pixels):,} bytes, which are not {length} frames of {height} x {width} pixels"
            )
        frames = np.frombuffer(pixels, np.uint8).reshape(length, height, width, 3)
        frames.flags.writeable = False
        return frames if numbers is None else frames[list(numbers)]
    import cv2

    data = np.frombuffer(pixels, np.uint8)
    ends = [*list(offsets)[1:], len(data)]
    wanted = range(length) if numbers is None else numbers
    if len(offsets) != length or any(
        not 0 <= start < end <= len(data) for start, end in zip(offsets, ends, strict=True)
    ):
        raise InputError(
            f"a clip of the store has {len(data):,} bytes, in which the places of its {length} frames do not lie"
        )
    frames = [cv2.imdecode(data[offsets[n] : ends[n]], cv2.IMREAD_COLOR_RGB) for n in wanted]
    if any(frame is None or frame.shape != (height, width, 3) for frame in frames):
        raise InputError(f"a clip of the store does not decode to frames of {height} x {width} pixels")
    return np.stack(frames)


def _decoded_size(stream: VideoStream, recipe: DecodeRecipe) -> tuple[int, int]:
    """Height and width to decode at, so that cropping or padding gives the recipe's: the decoder resizes, which costs
    least.

    What is cut out is resized after.
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
    """The frames (T, H, W, 3) around the athlete. `reader` gives them at the size that the video is shown at."""
    from posture.data.decode.cropping import cut_out, cuts_along

    size = {"height": recipe.height, "width": recipe.width}
    cuts = cuts_along(
        tube,
        numbers,
        margin=recipe.margin,
        height=reader.height,
        width=reader.width,
        aspect=recipe.width / recipe.height,
    )
    frames = np.empty((len(numbers), recipe.height, recipe.width, 3), np.uint8)
    for begin in range(0, len(numbers), FRAMES_AT_ONCE):
        whole = reader.frames(numbers[begin : begin + FRAMES_AT_ONCE])
        for place, frame in enumerate(whole, start=begin):
            frames[place] = cut_out(frame, cuts[place], **size)
    return frames


def _stands_still(frames: np.ndarray) -> bool:
    """Whether more than half of the frames (T, H, W, 3) show the same as the one before."""
    some = frames[:, ::3, ::3].astype(np.int16)
    same = np.abs(np.diff(some, axis=0)).max(axis=(1, 2, 3), initial=0) <= STILL_LEVELS
    return bool(2 * same.sum() > len(same))


def _gaps(labels: Sequence[Label], seconds: float, cut: Cut, fps: float) -> Iterator[Label]:
    """A `background` label in the middle of every gap that holds a whole window; it stays in its neighbours' group."""
    length = ((cut.recipe.frames - 1) * cut.recipe.stride + 1) / fps
    at = 0.0
    for label in [*sorted(labels, key=lambda item: item.start), None]:
        until = seconds if label is None else min(seconds, label.start)
        if until - at >= length:
            start = round((at + until - length) / 2, 3)
            yield Label(start, round(start + length, 3), BACKGROUND, labels[0].group, labels[0].split)
        if label is not None:
            at = max(at, seconds if label.end is None else label.end)
