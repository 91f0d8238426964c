"""Read Label Studio's JSON export of videos: timeline labels become segments, video rectangles the tubes of athletes.

Frames begin at 1 there; both ends of a range are labelled. Boxes are percentages of the video, which the task's data
must give as `width` and `height`, and change linearly between keyframes. A region is shown up to a keyframe that is not
enabled, with that frame. Source: Label Studio's documentation of the tags TimelineLabels and VideoRectangle, and its
editor.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

from posture.data.labels.cvat import MAX_BOXES, MAX_FRAMES
from posture.data.labels.cvat_actions import NO_ACTION
from posture.data.labels.names import SPLIT_NAMES, folded
from posture.data.labels.records import AnnotatedVideo, BadLabel, Box, Label, LabelledVideos, Tube
from posture.data.labels.tree import Tree, around, class_name, numbers, video_group
from posture.data.store.files import VIDEO_SUFFIXES, File, join
from posture.data.store.safe_json import load_json
from posture.errors import InputError

LAYOUT = "label-studio"
TASKS = re.compile(r'"(annotations|predictions)"\s*:')
REGIONS = re.compile(r'"(timelinelabels|videorectangle|framesCount|sequence|ranges)"')
"""Text by which an export is recognised."""
ATHLETE = re.compile(r"athlete[ _-]?(.+)", re.IGNORECASE)
"""Label of a rectangle, or name of a row of timeline labels, that belongs to one athlete."""
UPLOADED = re.compile(r"[0-9a-f]{8}-(.+)")
"""Name that Label Studio gives to an uploaded file."""


class _Keyframe(NamedTuple):
    place: list[float]
    """x, y, width, height in percent, and the rotation in degrees."""
    enabled: bool


@dataclass
class _Found:
    """Contents of a task's regions."""

    tubes: dict[str, dict[int, Box]] = field(default_factory=dict)
    """Athlete -> boxes in pixels by frame, from 0."""
    labels: dict[str, str] = field(default_factory=dict)
    """Athlete -> label of the rectangle, if that does not name the athlete."""
    keyframes: list[tuple[str, str, dict[int, _Keyframe], int]] = field(default_factory=list)
    """Athlete, region, its keyframes by frame, from 0, and one past its last frame."""
    spans: list[tuple[str, str, tuple[int, int]]] = field(default_factory=list)
    """Athlete, "" for all that the video shows; action; first frame from 0, and one past the last."""
    unsure: int = 0
    other: set[str] = field(default_factory=set)
    """Types of regions that are not read."""


def label_studio_tables(tree: Tree) -> list[str]:
    """Return the relative paths of the JSON files that Label Studio seems to have exported."""
    return [name for name in tree.tables(".json") if TASKS.search(text := tree.begins(name)) and REGIONS.search(text)]


def read_label_studio(tree: Tree) -> LabelledVideos:
    """Read the tasks whose video is here.

    The last annotation of a task counts, or its last prediction if there is none, which a note says. Raises InputError
    if there is no export, or one is not JSON as Label Studio exports it.
    """
    tables = label_studio_tables(tree)
    if not tables:
        raise InputError(f"{tree.root}: the layout {LAYOUT} needs a JSON export of Label Studio beside its videos")
    videos: dict[str, AnnotatedVideo] = {}
    found = LabelledVideos(root=tree.root, layout=LAYOUT, videos=[])
    for table in tables:
        where = join(tree.root, table)
        tasks = load_json(tree.content(table), where)
        if not isinstance(tasks, list) or not all(isinstance(one, dict) and "data" in one for one in tasks):
            raise InputError(f"{where}: not a list of tasks with data; export the project from Label Studio as JSON")
        for number, task in enumerate(tasks):
            here = f"{table}: task {task.get('id', number + 1)}"
            named = _named(task["data"])
            file = _file(tree, named)
            if file is None:
                found.missing.append(f"{here}: {named or 'no video'}")
            elif file.relative in videos:
                raise InputError(f"{tree.root}/{here}: an earlier task labels {file.relative} too; keep one of them")
            else:
                try:
                    videos[file.relative] = _video(task, file, here, found.notes)
                except BadLabel as error:
                    found.refused.append({"uri": file.uri, "verdict": error.verdict, "reason": str(error)})
    kept = [videos[name] for name in sorted(videos) if videos[name].labels]
    if not kept and not found.refused:
        raise InputError(f"{tree.root}: no task labels a video that is here")
    found.videos.extend(kept)
    used = {video.file.relative for video in kept} | {refused["uri"] for refused in found.refused}
    found.unlabelled.extend(file.relative for file in tree.videos if not {file.relative, file.uri} & used)
    return found


def _named(data: Any) -> str:
    """Return the address of a task's video: the field `video`, or the first that names one."""
    if not isinstance(data, dict):
        return ""
    texts = [value for value in (data.get("video"), *data.values()) if isinstance(value, str)]
    return next((text for text in texts if PurePosixPath(_path(text)).suffix.lower() in VIDEO_SUFFIXES), "")


def _path(address: str) -> str:
    """Return the path in an address: `/data/local-files/?d=match/a%201.mp4` -> `match/a 1.mp4`."""
    _, query, local = address.partition("?d=")
    return unquote(local.partition("&")[0] if query else address.partition("?")[0])


def _file(tree: Tree, named: str) -> File | None:
    name = PurePosixPath(_path(named).replace("\\", "/")).name
    uploaded = UPLOADED.fullmatch(name)
    for wanted in (name, uploaded[1] if uploaded else ""):
        files = tree.ending(wanted, VIDEO_SUFFIXES) if wanted else []
        if len(files) == 1:
            return files[0]
    return None


def _video(task: Mapping[str, Any], file: File, where: str, notes: list[str]) -> AnnotatedVideo:
    done = [one for one in _objects(task.get("annotations"), where) if not one.get("was_cancelled")]
    guesses = [one for one in _objects(task.get("predictions"), where) if "result" in one]
    if len(done) > 1:
        notes.append(f"{where}: {len(done)} annotations; the last one is read")
    if not done and guesses:
        notes.append(f"{where}: without an annotation, so its predictions are read")
    results = _objects((done or guesses or [{}])[-1].get("result"), where)
    size = _size(task["data"])
    found = _Found()
    for number, region in enumerate(results):
        _region(region, found, f"{where}, region {region.get('id', number + 1)}")
    _draw(found, size, where)
    if found.unsure:
        notes.append(f"{where}: stretches that are unsure and not read: {found.unsure:,}")
    if found.other:
        notes.append(f"{where}: not read: regions of the type {', '.join(sorted(found.other))}")
    spans = found.spans or [
        (who, found.labels[who], (min(boxes), max(boxes) + 1))
        for who, boxes in found.tubes.items()
        if who in found.labels
    ]
    path = PurePosixPath(file.relative)
    group, split = video_group(path), SPLIT_NAMES.get(path.parts[0].lower()) if len(path.parts) > 1 else None
    labels = tuple(
        Label(0.0, None, action, group, split, athlete=f"{file.stem}/{who}" if who else "", frames=frames)
        for who, action, frames in dict.fromkeys(spans)
    )
    tubes = tuple(Tube(f"{file.stem}/{who}", "", boxes, size) for who, boxes in found.tubes.items())
    return AnnotatedVideo(file, labels, tubes)


def _objects(value: Any, where: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise BadLabel(f"{where}: annotations, predictions and result must be lists of objects")
    return value


def _size(data: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return (height, width) of the video in pixels, or None if the task's data does not give it."""
    sides = [data.get("height"), data.get("width")]
    whole = [int(side) for side in sides if isinstance(side, int | float) and 0 < side < 1e6]
    return (whole[0], whole[1]) if len(whole) == 2 else None


def _region(region: Mapping[str, Any], found: _Found, where: str) -> None:
    kind, value = str(region.get("type")).lower(), region.get("value")
    if kind not in ("timelinelabels", "videorectangle"):
        found.other.add(kind[:40])
        return
    if not isinstance(value, dict):
        raise BadLabel(f"{where}: it has no value")
    if kind == "timelinelabels":
        athlete = ATHLETE.fullmatch(str(region.get("from_name")))
        for text in _texts(value.get("timelinelabels"), where):
            if folded(text.strip()) in NO_ACTION:
                found.unsure += 1
                continue
            spans = [_span(one, where) for one in _objects(value.get("ranges"), where)]
            who, action = _who(athlete[1], where) if athlete else "", class_name(text, where)
            found.spans += [(who, action, span) for span in spans]
        return
    text = next(iter(_texts(value.get("labels"), where)), "")
    athlete = ATHLETE.fullmatch(text)
    who = _who(athlete[1] if athlete else str(region.get("id") or len(found.tubes) + 1), where)
    found.keyframes.append((who, where, *_sequence(value, where)))
    if text and not athlete:
        found.labels[who] = class_name(text, where)


def _draw(found: _Found, size: tuple[int, int] | None, where: str) -> None:
    """Fill in the tubes from their keyframes."""
    if found.keyframes and size is None:
        raise BadLabel(f"{where}: boxes are percentages; give width and height of the video in the task's data")
    count = sum(end - min(keyframes) for _, _, keyframes, end in found.keyframes)
    if count > MAX_BOXES:
        raise BadLabel(f"{where}: {count:,} boxes, interpolated ones included; the maximum is {MAX_BOXES:,}")
    for who, region, keyframes, end in found.keyframes:
        boxes = {frame: _upright(place, size or (0, 0)) for frame, place in _filled(keyframes, end).items()}
        if not boxes.keys().isdisjoint(found.tubes.get(who, ())):
            raise BadLabel(f"{region}: athlete {who} has another box in the same frame")
        found.tubes[who] = dict(sorted((found.tubes.get(who, {}) | boxes).items()))


def _who(text: str, where: str) -> str:
    return class_name(text.replace("/", " "), where)


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, list | type(None)) or not all(isinstance(one, str) for one in value or ()):
        raise BadLabel(f"{where}: labels must be a list of names")
    return value or []


def _span(span: Mapping[str, Any], where: str) -> tuple[int, int]:
    first, last = _frame(span.get("start"), where), _frame(span.get("end"), where)
    if last < first:
        raise BadLabel(f"{where}: its end {last} is before its start {first}")
    return first - 1, last


def _frame(value: Any, where: str) -> int:
    (number,) = numbers([value], where)
    if not 1 <= number <= MAX_FRAMES or number != int(number):
        raise BadLabel(f"{where}: frame {number:g}; frames are numbered from 1 to {MAX_FRAMES:,}")
    return int(number)


def _sequence(value: Mapping[str, Any], where: str) -> tuple[dict[int, _Keyframe], int]:
    """Return the keyframes of a rectangle in order, by frame from 0, and one past the last frame in which it is shown.

    If the last keyframe is enabled, it is shown to the end of the video.
    """
    found = {}
    for key in _objects(value.get("sequence"), where):
        place = numbers((*(key.get(name) for name in ("x", "y", "width", "height")), key.get("rotation") or 0), where)
        found[_frame(key.get("frame"), where) - 1] = _Keyframe(place, bool(key.get("enabled")))
    if not found:
        raise BadLabel(f"{where}: its sequence is empty")
    last = max(found)
    (count,) = numbers([value.get("framesCount") or 0], where)
    return dict(sorted(found.items())), max(last + 1, min(int(count), MAX_FRAMES)) if found[last].enabled else last + 1


def _filled(keyframes: dict[int, _Keyframe], end: int) -> dict[int, list[float]]:
    """Return the place in each frame in which the rectangle is shown, interpolated between keyframes."""
    places = {frame: keyframe.place for frame, keyframe in keyframes.items()}
    for (first, before), (second, after) in pairwise(keyframes.items()):
        for frame in range(first + 1, second) if before.enabled else ():
            share = (frame - first) / (second - first)
            places[frame] = [a + share * (b - a) for a, b in zip(before.place, after.place, strict=True)]
    last = max(keyframes)
    return places | {frame: keyframes[last].place for frame in range(last + 1, end)}


def _upright(place: Sequence[float], size: tuple[int, int]) -> Box:
    """Return the box in pixels around a rectangle in percent, which is turned around its upper left corner."""
    height, width = size
    x, y, across, down = place[0] * width, place[1] * height, place[2] * width, place[3] * height
    cosine, sine = math.cos(math.radians(place[4])), math.sin(math.radians(place[4]))
    corners = ((dx, dy) for dx in (0, across) for dy in (0, down))
    left, top, right, bottom = around((x + dx * cosine - dy * sine, y + dx * sine + dy * cosine) for dx, dy in corners)
    return left / 100, top / 100, right / 100, bottom / 100
