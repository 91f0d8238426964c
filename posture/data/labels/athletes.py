"""Tell which athlete a label describes, and what to say if that is open: several athletes may act at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

from posture.data.labels.records import Label, LabelledVideos, Tube

OVERLAP = 0.5
"""Share of the shorter of two segments from which on they show the same: borders drawn by people overlap a little."""


def labelled_tube(tubes: Iterable[Tube], athlete: str) -> Tube | None:
    """Return the tube with the name `athlete`, else the one with that number, such as `fight/3` for `3`."""
    drawn = [tube for tube in tubes if tube.boxes]
    named = [tube for tube in drawn if tube.name == athlete]
    numbered = [tube for tube in drawn if "/" in tube.name and tube.name.rpartition("/")[2] == athlete]
    return next(iter(named or numbered), None)


def unnamed_athletes(footage: LabelledVideos) -> list[str]:
    """Return sentences about athletes with boxes whom no label names, and about actions of tracks that are not read."""
    unnamed: list[str] = []
    acting = False
    for video in footage.videos:
        tubes = [tube for tube in video.tubes or () if tube.boxes]
        names = {label.athlete or label.group for label in video.labels}
        told = [found.name for name in names if (found := labelled_tube(tubes, name))]
        # a single athlete needs no name
        unnamed += [
            f"{tube.name} in {video.file.relative}" for tube in tubes if len(tubes) > 1 and tube.name not in told
        ]
        acting = acting or any(tube.actions for tube in tubes)
    notes = []
    if unnamed:
        notes.append(
            f"athletes with boxes whom no label names: {len(unnamed):,}, such as {unnamed[0]}; they are not trained, "
            "unless a segment without an athlete follows the one with most boxes. To train them, give the table a "
            "column athlete"
        )
    if acting:
        notes.append(f"the actions of CVAT's tracks are not read, because the layout is {footage.layout}")
    return notes


def mixed_actions(footage: LabelledVideos) -> list[str]:
    """Return a sentence about segments whose frames show another action too, if clips are whole frames."""
    pairs = [(video.file.relative, first) for video in footage.videos for first, _ in _overlapping(video.labels)]
    if not pairs:
        return []
    video, label = pairs[0]
    return [
        f"segments that overlap in time with another action: {len(pairs):,}, such as {label.label} at "
        f"{label.start:g} s of {video}; whole frames show both. To train each athlete with their own action, give "
        "boxes and ingest with --crop boxes"
    ]


def without_mixed_up(footage: LabelledVideos) -> LabelledVideos:
    """Refuse the labels of several athletes at once without boxes: a detector cannot tell who of them is who."""
    videos, refused = [], []
    for video in footage.videos:
        boxless = [
            label for label in video.labels if label.athlete and not labelled_tube(video.tubes or (), label.athlete)
        ]
        open_labels = {
            label
            for pair in _overlapping(video.labels, overlap=0.0)
            if pair[0].athlete != pair[1].athlete
            for label in pair
            if label in boxless
        }
        refused += [
            {
                "uri": video.file.uri,
                "verdict": "no_athlete",
                "reason": (
                    f"{label.label} from {label.start:g} s: others act at the same time, and there are no boxes that "
                    f"tell which of them is {label.athlete}"
                ),
            }
            for label in video.labels
            if label in open_labels
        ]
        if labels := tuple(label for label in video.labels if label not in open_labels):
            videos.append(replace(video, labels=labels))
    return replace(footage, videos=videos, refused=[*footage.refused, *refused])


def _overlapping(labels: Iterable[Label], *, overlap: float = OVERLAP) -> Iterator[tuple[Label, Label]]:
    """Yield the pairs of labels that share more than this share of the shorter one; of one action, only if it is 0."""
    ordered = sorted(labels, key=lambda label: label.start)
    for number, first in enumerate(ordered):
        for second in ordered[number + 1 :]:
            ends = [math.inf if label.end is None else label.end for label in (first, second)]
            shared = min(ends) - second.start
            if ends[0] <= second.start:
                break
            shortest = min(ends[0] - first.start, ends[1] - second.start)
            much = shared > overlap * shortest or shared == math.inf
            if much and (overlap == 0.0 or first.label != second.label):
                yield first, second
