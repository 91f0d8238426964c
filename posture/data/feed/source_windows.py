"""Clips cut again from the original files, for evaluation with more windows per segment than the store keeps."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from posture.data.decode.cut import Clip, Cut, frame_numbers
from posture.data.decode.optical_flow import METHODS, flow_of_clip
from posture.data.decode.sandbox import Sandbox
from posture.data.feed.clips import ClipIndex
from posture.data.labels.records import Label
from posture.data.store.files import local_copy
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import InputError, Unreadable

LIMIT_SECONDS = 120.0
"""Time limit for the windows of one segment."""


@dataclass(frozen=True)
class SourceIndex:
    """Windows to cut from the original files: `windows[i]` clips of segment `segment_ids[i]`, numbered segment by
    segment.
    """

    uris: list[str]
    spans: list[tuple[float, float]]
    """Start and end of each segment in seconds."""
    windows: np.ndarray
    """(s,) int64."""
    segment_ids: list[str]
    classes: tuple[str, ...]
    segment_labels: np.ndarray
    """(s,) int64."""
    recipe: DecodeRecipe
    inputs: tuple[str, ...] = ("rgb",)
    """Inputs that are computed of each clip, in this order."""
    flow: str = METHODS[0]
    """Method of the flow, if it is an input."""

    def __len__(self) -> int:
        return int(self.windows.sum())

    @property
    def labels(self) -> np.ndarray:
        return np.repeat(self.segment_labels, self.windows)

    @property
    def segments(self) -> np.ndarray:
        return np.repeat(np.arange(len(self.windows)), self.windows)

    def part(self, indices: np.ndarray) -> SourceIndex:
        """Return the segments of the clips `indices`, which must be whole segments."""
        chosen = np.unique(self.segments[indices])
        return replace(
            self,
            uris=[self.uris[n] for n in chosen],
            spans=[self.spans[n] for n in chosen],
            windows=self.windows[chosen],
            segment_ids=[self.segment_ids[n] for n in chosen],
            segment_labels=self.segment_labels[chosen],
        )


def index_sources(
    store: Store, index: ClipIndex, *, windows: int, inputs: tuple[str, ...] = ("rgb",), flow: str | None = None
) -> SourceIndex:
    """Return the segments of `index` with `windows` clips each, fewer for short segments.

    The model takes `inputs`, and flow by the method `flow`.
    """
    recipe = replace(DecodeRecipe.parse(index.recipe), windows=windows, jpeg=0)
    if recipe.crop:
        raise InputError(
            "--source decodes whole frames, but this run was trained on clips cut around the athlete "
            f"({recipe.crop}), whose positions the store does not keep; evaluate the stored windows instead "
            "(leave out --source), and ingest with more --windows to have more of them"
        )
    videos = {row["video"]: row for row in store.read("videos").to_pylist() if row["verdict"] == "ok"}
    segments = {row["segment"]: row for row in store.read("segments").to_pylist()}
    label_of = dict(zip(index.segments.tolist(), index.labels.tolist(), strict=True))
    uris, spans, counts = [], [], []
    for segment in index.segment_ids:
        row = segments[segment]
        video = videos[row["video"]]
        first, last = (round(row[side] * video["fps"]) for side in ("start", "end"))
        uris.append(video["uri"])
        spans.append((row["start"], row["end"]))
        counts.append(len(frame_numbers(first, max(last, first + 1), recipe)))
    return SourceIndex(
        uris,
        spans,
        np.array(counts, dtype=np.int64),
        index.segment_ids,
        index.classes,
        np.array([label_of[number] for number in range(len(index.segment_ids))], dtype=np.int64),
        recipe,
        inputs,
        flow or METHODS[0],
    )


class SourceFootage:
    """Stream of the clips of a SourceIndex, decoded on this machine's cores on demand.

    A file that cannot be decoded raises InputError. With `tolerant`, its clips are black instead, and `failed` has its
    segment's number with the reason.
    """

    def __init__(self, index: SourceIndex, *, tolerant: bool = False) -> None:
        self.index, self.classes, self.labels, self.segments = index, index.classes, index.labels, index.segments
        self.failed: dict[int, str] = {}
        self._tolerant = tolerant
        self._own = threading.local()

    def __len__(self) -> int:
        return len(self.index)

    def stream(self, epoch: int, rank: int, world_size: int, seed: int) -> Iterator[tuple[Any, ...]]:
        """Yield (clip index, array for each input) of every `world_size`-th segment, in order.

        Arrays are uint8 frames (T, H, W, 3) or flow (T - 1, H, W, 2).
        """
        starts = np.cumsum([0, *self.index.windows[:-1]])
        sandboxes: list[Sandbox] = []
        workers = os.cpu_count() or 1
        mine = range(rank, len(self.index.windows), world_size)
        with ThreadPoolExecutor(max_workers=workers, initializer=self._equip, initargs=(sandboxes,)) as pool:
            try:
                waiting = [pool.submit(self._clips, segment) for segment in mine[: 2 * workers]]
                for at, segment in enumerate(mine):
                    clips = waiting.pop(0).result()
                    if at + 2 * workers < len(mine):
                        waiting.append(pool.submit(self._clips, mine[at + 2 * workers]))
                    for window in range(int(self.index.windows[segment])):
                        yield int(starts[segment]) + window, *clips[min(window, len(clips) - 1)]
            finally:
                for sandbox in sandboxes:
                    sandbox.close()

    def _equip(self, sandboxes: list[Sandbox]) -> None:
        self._own.sandbox = Sandbox()
        sandboxes.append(self._own.sandbox)

    def _clips(self, segment: int) -> list[tuple[np.ndarray, ...]]:
        try:
            clips = self._cut(segment)
        except Exception as error:
            if not self._tolerant:
                raise InputError(
                    f"{self.index.uris[segment]}: cannot be decoded again ({error}); "
                    "evaluate the stored windows instead (leave out --source)"
                ) from None
            self.failed[segment] = str(error)
            recipe = self.index.recipe
            clips = [np.zeros((recipe.frames, recipe.height, recipe.width, 3), np.uint8)]
        return [
            tuple(flow_of_clip(frames, self.index.flow) if name == "flow" else frames for name in self.index.inputs)
            for frames in clips
        ]

    def _cut(self, segment: int) -> list[np.ndarray]:
        start, end = self.index.spans[segment]
        with local_copy(self.index.uris[segment]) as path:
            messages = self._own.sandbox.cut(
                path, "", [Label(start, end, "", "", "")], Cut(self.index.recipe), limit_seconds=LIMIT_SECONDS
            )
            clips = [
                decode_frames(
                    item.pixels, item.row["offsets"], (item.row["frames"], item.row["height"], item.row["width"])
                )
                for item in messages
                if isinstance(item, Clip)
            ]
        if not clips:
            raise Unreadable("no_frames", f"it has no frames from {start:g} s to {end:g} s any more")
        return clips
