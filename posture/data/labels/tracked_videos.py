"""Read labelled videos with boxes of athletes: segments, and the tubes that clips are cut along.

| beside the videos | gives |
|---|---|
| boxes.csv: video,frame,athlete,x1,y1,x2,y2 | boxes of each athlete in pixels, x2 and y2 exclusive, frames from 0 |
| an XML file of CVAT for video 1.1 | the same; with an attribute `action`, each action of a track is a segment |
| a JSON export of Label Studio | boxes of each athlete, and the actions of the athlete's row of timeline labels |
| finalAnnots.mat of UCF101-24 | boxes and actions of each athlete: every tube is a labelled segment |
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath

from posture.data.labels import cvat, label_studio
from posture.data.labels import tubes as tube_layouts
from posture.data.labels.athletes import unnamed_athletes, without_mixed_up
from posture.data.labels.layouts import choose_layout
from posture.data.labels.names import VideoNames, composed, first_few
from posture.data.labels.records import (
    Action,
    AnnotatedVideo,
    Box,
    Label,
    LabelledVideos,
    TrackedFootage,
    TrackedVideo,
    Tube,
)
from posture.data.labels.table import SUFFIXES, TableLine
from posture.data.labels.tree import Tree, video_group
from posture.data.labels.unread import open_tables
from posture.data.labels.videos import LAYOUTS, read_footage
from posture.data.store.files import list_files
from posture.errors import InputError

WITH_TUBES = (*LAYOUTS, "ucf101_24", "cvat")
"""Layouts whose segments can be cut along boxes."""


class NoBoxes(InputError):
    """Labelled videos are there, but no boxes of athletes."""


def read_tracked_footage(
    source: str, *, layout: str | None = None, split_number: int = 1, drawn: bool = True
) -> LabelledVideos:
    """Read the labelled videos at `source` as `read_footage` does, with their tubes if `drawn`.

    In the layout `ucf101_24`, recognised by finalAnnots.mat, the tubes are the labelled segments, and in the layout
    `cvat`, recognised by an attribute `action` of its tracks, the stretches of one action. With another `layout` these
    files give only the boxes. Raises NoBoxes if there are no boxes, and InputError as `read_footage` does, and naming
    file and line if boxes cannot be read.
    """
    if layout is not None and layout not in WITH_TUBES:
        raise InputError(
            f"--layout {layout}: clips are cut from videos; the layouts of videos are {', '.join(WITH_TUBES)}"
        )
    labelled = layout or choose_layout(source, clips=True)
    if labelled == "ucf101_24":
        tracked = tube_layouts.read_ucf101_24(Tree(source), split_number=split_number)
        if tracked is not None:
            return _labelled_tubes(tracked)
        raise InputError(f"{source}: the layout ucf101_24 needs {tube_layouts.UCF101_24} and its videos")
    if labelled == "cvat":
        tracked = cvat.read_cvat(Tree(source))
        if tracked is None:
            raise InputError(f"{source}: the layout cvat needs an XML file of CVAT for video 1.1 and its videos")
        if layout is not None or any(tube.actions for video in tracked.videos for tube in video.tubes):
            return _labelled_tubes(_acting(tracked))
    footage = read_footage(source, layout=layout, split_number=split_number)
    if footage.layout == label_studio.LAYOUT:
        if drawn and not any(video.tubes for video in footage.videos):
            raise InputError(f"{footage.root}: --crop boxes needs video rectangles around the athletes in the export")
        return _told(footage) if drawn else without_mixed_up(footage)
    named = any(label.athlete for video in footage.videos for label in video.labels)
    if not drawn and not named:
        return footage
    tubes, missing = _tubes(footage, split_number)
    if not tubes and drawn:
        raise NoBoxes(
            (
                f"{footage.root}: --crop boxes needs boxes of the athletes beside the videos: boxes.csv with the "
                "columns video,frame,athlete,x1,y1,x2,y2, an XML file of CVAT for video 1.1, or "
                f"{tube_layouts.UCF101_24}"
            )
            + (f" (the first boxes found are for {missing[0]}, which is missing)" if missing else "")
        )
    videos = [replace(video, tubes=tuple(tubes.get(video.file.relative, ()))) for video in footage.videos]
    footage = replace(footage, videos=videos, missing=[*footage.missing, *missing])
    return _told(footage) if drawn else without_mixed_up(footage)


def _told(footage: LabelledVideos) -> LabelledVideos:
    return replace(footage, notes=[*footage.notes, *unnamed_athletes(footage)])


def _acting(tracked: TrackedFootage) -> TrackedFootage:
    """Return tracked footage of CVAT without the tracks that have no action, and say so.

    If no track has the attribute, the label of each track is its action.
    """
    tubes = [tube for video in tracked.videos for tube in video.tubes]
    idle = [tube.name for tube in tubes if not tube.actions]
    if all(tube.actions is None for tube in tubes):
        note = "no track has an attribute action, so the label of each track is its action"
        return replace(tracked, notes=[*tracked.notes, note])
    notes = [f"tracks without an action, which are not trained: {first_few(idle)}"] if idle else []
    videos = [replace(video, tubes=[tube for tube in video.tubes if tube.actions]) for video in tracked.videos]
    return replace(tracked, videos=videos, notes=[*tracked.notes, *notes])


def _labelled_tubes(tracked: TrackedFootage) -> LabelledVideos:
    """Return every tube as a segment of its own, or each of its actions if it has several."""
    videos = []
    for video in tracked.videos:
        group = video_group(PurePosixPath(video.file.relative))
        labels = tuple(
            Label(0.0, None, action.label, group, video.split, athlete=tube.name, frames=(action.first, action.end))
            for tube in video.tubes
            if tube.boxes
            for action in tube.actions or [Action(min(tube.boxes), max(tube.boxes) + 1, tube.label)]
        )
        if labels:
            videos.append(AnnotatedVideo(video.file, labels, tuple(_named(video))))
    if not videos:
        raise InputError(f"{tracked.root}: no tube with an action belongs to a video that is here")
    refused = [
        {"uri": refusal.file.uri, "verdict": refusal.verdict, "reason": refusal.reason} for refusal in tracked.refused
    ]
    return LabelledVideos(**vars(tracked) | {"videos": videos, "refused": refused})


def _tubes(footage: LabelledVideos, split_number: int) -> tuple[dict[str, list[Tube]], list[str]]:
    """Return all tubes by the video's relative path, and boxes of missing videos as `where: video`."""
    tree = Tree(footage.root)
    tubes: dict[str, list[Tube]] = {}
    missing: list[str] = []
    for tracked in (tube_layouts.read_ucf101_24(tree, split_number=split_number), cvat.read_cvat(tree)):
        if tracked is not None:
            tubes |= {video.file.relative: _named(video) for video in tracked.videos}
            missing += tracked.missing
    drawn, lost = _read_box_tables(footage)
    return tubes | drawn, missing + lost


def _named(video: TrackedVideo) -> list[Tube]:
    return [replace(tube, size=video.size) for tube in video.tubes if tube.boxes]


def _read_box_tables(footage: LabelledVideos) -> tuple[dict[str, list[Tube]], list[str]]:
    """Read boxes.csv, or tables of any name with its columns.

    Raises InputError if an athlete has two boxes in one frame.
    """
    root = footage.root
    tables, _ = open_tables(root, list_files(root, suffixes=SUFFIXES))
    named = VideoNames(list_files(root))
    boxes: dict[str, dict[str, dict[int, Box]]] = defaultdict(lambda: defaultdict(dict))
    lost: dict[str, str] = {}
    for where, row in (row for table in tables if table.kind == "boxes" for row in table.rows()):
        file = named.find(row["video"], where.file)
        if file is None:
            lost.setdefault(row["video"], f"{where}: {row['video']}")
            continue
        athlete = composed(row["athlete"])
        frame, box = _box(where, row)
        if boxes[file.relative][athlete].setdefault(frame, box) != box:
            raise InputError(f"{where}: {athlete or 'the athlete'} already has another box in frame {frame}")
    return {
        video: [Tube(athlete, "", frames) for athlete, frames in athletes.items()] for video, athletes in boxes.items()
    }, list(lost.values())


def _box(where: TableLine, row: dict[str, str]) -> tuple[int, Box]:
    """Return the frame and x1, y1, x2, y2 of a row. Raises InputError naming the field at fault."""
    values = [where.number(name, row[name]) for name in ("frame", "x1", "y1", "x2", "y2")]
    for name, value in zip(("frame", "x1", "y1", "x2", "y2"), values, strict=True):
        if not math.isfinite(value):
            raise InputError(f"{where}: {name} {row[name][:40]!r} is not a number")
    frame, left, top, right, bottom = values
    if frame < 0 or frame != int(frame):
        raise InputError(f"{where}: frame {row['frame']} is not a whole number of at least 0")
    if right <= left or bottom <= top:
        raise InputError(
            f"{where}: x1 {left:g} to x2 {right:g} and y1 {top:g} to y2 {bottom:g} contain no pixel; x2 and y2 "
            "are exclusive"
        )
    return int(frame), (left, top, right, bottom)
