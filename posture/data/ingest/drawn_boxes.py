"""Boxes that people drew in videos, held against the videos' own sizes."""

from __future__ import annotations

from collections.abc import Iterable

from posture.data.annotations import AnnotatedVideo
from posture.data.placed_boxes import count_outside
from posture.data.store import Store


def boxes_outside(videos: Iterable[AnnotatedVideo], store: Store) -> tuple[int, int]:
    """How many boxes lie outside of their video's picture, or were drawn on another size, and how many there are in all videos of known size."""
    rows = store.read("videos", columns=["uri", "height", "width", "verdict"]).to_pylist()
    sizes = {row["uri"]: (row["height"], row["width"]) for row in rows if row["verdict"] == "ok"}
    outside = drawn = 0
    for video in videos:
        if video.file.uri in sizes:
            height, width = sizes[video.file.uri]
            for tube in video.tubes or ():
                drawn += len(tube.boxes)
                fits = tube.size in (None, (height, width))
                outside += count_outside(list(tube.boxes.values()), height, width) if fits else len(tube.boxes)
    return outside, drawn
