"""Boxes that people drew in videos, held against the videos' own sizes."""

from __future__ import annotations

from collections.abc import Iterable

from posture.data.decode.tracks import as_shown
from posture.data.labels.place_boxes import count_outside
from posture.data.labels.records import AnnotatedVideo
from posture.data.store.tables import Store


def boxes_outside(videos: Iterable[AnnotatedVideo], store: Store) -> tuple[int, int]:
    """How many boxes lie outside of their video's image, or were drawn on another size, and how many there are in all
    videos of known size.
    """
    rows = store.read(
        "videos", columns=["uri", "height", "width", "coded_height", "coded_width", "verdict"]
    ).to_pylist()
    sizes = {
        row["uri"]: ((row["height"], row["width"]), (row["coded_height"], row["coded_width"]))
        for row in rows
        if row["verdict"] == "ok"
    }
    outside = drawn = 0
    for video in videos:
        if video.file.uri in sizes:
            shown, coded = sizes[video.file.uri]
            for tube in (as_shown(tube, coded, shown) for tube in video.tubes or ()):
                drawn += len(tube.boxes)
                outside += (
                    count_outside(list(tube.boxes.values()), *shown) if tube.size in (None, shown) else len(tube.boxes)
                )
    return outside, drawn
