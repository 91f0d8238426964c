"""Read CVAT for video 1.1 (XML): exports of a task, job or project become the tubes of the videos that are here.

Frames are those of the video, from 0, whichever of them a task used. Each shape gives the upright box around it. A file
with keyframes only, which CVAT itself does not export, is interpolated as in CVAT's player: linearly, and the last box
is kept to the task's end. Source: CVAT's exporter and track manager (cvat/apps/dataset_manager).
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element

from posture.data.labels.cvat_actions import with_actions
from posture.data.labels.names import SPLIT_NAMES, composed, folded
from posture.data.labels.records import BadLabel, Box, Refusal, TrackedFootage, TrackedVideo, Tube
from posture.data.labels.safe_xml import BadXML, parse_xml
from posture.data.labels.tree import Tree, around, class_name, numbers
from posture.data.store.files import VIDEO_SUFFIXES, File, join
from posture.errors import InputError

INTERPOLATED = {"box": ("xtl", "ytl", "xbr", "ybr"), "ellipse": ("cx", "cy", "rx", "ry")}
"""Attributes of shapes that are interpolated as they are, with their rotation."""
LISTS = ("polygon", "polyline", "points")
"""Shapes that are given as `x,y;x,y`."""
MAX_ATHLETE = 40
"""Maximum letters of an athlete's name."""
MAX_FRAMES = 2_000_000
"""Maximum frames of a video: 18 hours at 30 frames/s. Higher numbers are mistakes."""
MAX_BOXES = 2_000_000
"""Maximum boxes of a video, interpolated ones included; two keyframes can mean millions. 22 players have them per h."""


@dataclass(frozen=True)
class _Task:
    """A video's task in an export."""

    number: str
    """The task's id in a project; "" in an export of one task or job, whose tracks do not name it."""
    name: str
    source: str
    """File name of the video; "" if the export does not give it."""
    start: int
    stop: int | None
    step: int
    size: tuple[int, int] | None
    """(height, width) in pixels."""


class _Shape(NamedTuple):
    """A shape in one frame.

    `values` are what is interpolated: corners and rotation of a box; centre, radii and rotation of an ellipse; corners
    of the box around any other shape. Rotations are in degrees.
    """

    kind: str
    values: tuple[float, ...]
    outside: bool

    @property
    def upright(self) -> Box:
        if self.kind == "around":
            left, top, right, bottom = self.values
            return left, top, right, bottom
        *values, turn = self.values
        cosine, sine = abs(math.cos(math.radians(turn))), abs(math.sin(math.radians(turn)))
        if self.kind == "ellipse":
            x, y, across, down = values
            across, down = math.hypot(across * cosine, down * sine), math.hypot(across * sine, down * cosine)
        elif turn == 0:
            left, top, right, bottom = values
            return left, top, right, bottom
        else:
            left, top, right, bottom = values
            x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
            across, down = (width * cosine + height * sine) / 2, (width * sine + height * cosine) / 2
        return x - across, y - down, x + across, y + down


def cvat_tables(tree: Tree) -> list[str]:
    return [
        name for name in tree.tables(".xml") if name == tree.named or re.search(r"<annotations[\s>]", tree.begins(name))
    ]


def read_cvat(tree: Tree) -> TrackedFootage | None:
    """Read the tubes of CVAT's tracks. In a project, tasks whose video is missing are left out.

    Frames with a shape that gives no box are left out. Raises InputError if a file is not CVAT for video 1.1.
    """
    tables = cvat_tables(tree)
    if not tables:
        return None
    found = TrackedFootage(root=tree.root, layout="cvat")
    used = set()
    for table in tables:
        where = join(tree.root, table)
        try:
            root = parse_xml(tree.content(table))
            if root.tag != "annotations" or root.find("image") is not None:
                raise BadLabel(
                    "this is not CVAT for video 1.1; export the task in that format, and a task of images as "
                    "YOLO or COCO"
                )
            tasks = _tasks(root)
        except BadXML as error:
            raise InputError(f"{where} {error}") from None
        except BadLabel as error:
            raise InputError(f"{where}: {error}") from None
        for task in tasks:
            file = _video(tree, table, task, alone=len(tables) == len(tasks) == 1)
            if file is None:
                found.missing.append(f"{table}: {task.source or task.name or PurePosixPath(table).stem}")
                continue
            used.add(file.relative)
            tracks = [
                track for track in root.findall("track") if not task.number or track.get("task_id") == task.number
            ]
            try:
                video = _read_tracks(tracks, task, file, table, found.notes)
                found.videos.append(with_actions(video, tracks, table))
            except BadLabel as error:
                found.refused.append(Refusal(file, error.verdict, str(error)))
    found.unlabelled.extend(file.relative for file in tree.videos if file.relative not in used)
    return found


def _tasks(root: Element) -> list[_Task]:
    in_project = root.findall("meta/project/tasks/task")
    if not in_project:
        meta = root.findall("meta")
        return [_task("", [*meta, *(child for element in meta for child in element)])]
    tasks = [_task((task.findtext("id") or "").strip(), [task]) for task in in_project]
    known = {task.number for task in tasks}
    if "" in known or len(known) < len(tasks):
        raise BadLabel("each task of the project needs its own id")
    for track in root.findall("track"):
        if track.get("task_id") not in known:
            raise BadLabel(
                f"track {track.get('id')} belongs to the task {track.get('task_id')}, which the project does not "
                "contain"
            )
    return tasks


def _task(number: str, holders: list[Element]) -> _Task:
    """Return a task as described by `holders`, the elements that may describe it."""

    def said(key: str) -> str:
        return next((text for element in holders if (text := (element.findtext(key) or "").strip())), "")

    def whole(key: str) -> int | None:
        text = said(key)
        if text and not (text.isdecimal() and len(text) < 10 and int(text) <= MAX_FRAMES):
            raise BadLabel(f"{key} {text[:40]!r} is not a whole number up to {MAX_FRAMES:,}")
        return int(text) if text else None

    step = re.search(r"step\s*=\s*(\d{1,7})", said("frame_filter"))
    height, width = whole("original_size/height"), whole("original_size/width")
    return _Task(
        number,
        said("name"),
        said("source"),
        whole("start_frame") or 0,
        whole("stop_frame"),
        max(1, int(step[1])) if step else 1,
        (height, width) if height and width else None,
    )


def _video(tree: Tree, table: str, task: _Task, *, alone: bool) -> File | None:
    """Return the video that the task names, else the one named like the task or table, else the only one."""
    wanted = PurePosixPath((task.source or task.name).replace("\\", "/")).name
    beside = PurePosixPath(table).parent
    stems = [PurePosixPath(wanted).stem, wanted] + ([] if task.number else [PurePosixPath(table).stem])
    for chosen in (
        tree.ending(wanted, VIDEO_SUFFIXES) if wanted else [],
        *(_with_stem(tree, stem) for stem in stems if stem),
    ):
        near = [file for file in chosen if PurePosixPath(file.relative).parent == beside]
        if len(chosen) == 1 or len(near) == 1:
            return (near or chosen)[0]
    return tree.videos[0] if alone and len(tree.videos) == 1 and not task.source else None


def _with_stem(tree: Tree, stem: str) -> list[File]:
    return [file for file in tree.videos if folded(file.stem) == folded(stem)]


def _read_tracks(tracks: list[Element], task: _Task, file: File, table: str, notes: list[str]) -> TrackedVideo:
    stem = file.stem
    drawn, unusable = [], {}
    taken: set[str] = set()
    for index, track in enumerate(tracks):
        where = f"{table}: track {track.get('id', index)}"
        shapes, strange = _shapes(track, where)
        who = _athlete(track) or str(track.get("id", index))
        who = f"{who}.{track.get('id', index)}" if who in taken else who  # CVAT repeats it if a track is split
        taken.add(who)
        drawn.append((f"{stem}/{who}", class_name(track.get("label"), where), shapes))
        unusable |= strange
    frames = [frame for _, _, shapes in drawn for frame in shapes] + list(unusable)
    stop = max(frames, default=task.start) if task.stop is None else task.stop
    open_ended = [
        shapes
        for _, _, shapes in drawn
        for frame, shape in list(shapes.items())[-1:]
        if not shape.outside and frame < stop - task.step
    ]
    gaps = any(
        not shapes[first].outside and second - first > task.step
        for _, _, shapes in drawn
        for first, second in pairwise(shapes)
    )
    # a single box means more than one frame
    gaps |= bool(open_ended) and all(len(shapes) == 1 for shapes in open_ended)
    filled = [_filled(shapes, task.step, stop if gaps else None) for _, _, shapes in drawn]
    made = sum(len(shapes) for _, _, shapes in drawn) + sum(
        len(stretch) for stretches in filled for stretch in stretches.values()
    )
    if made > MAX_BOXES:
        raise BadLabel(f"{table}: {made:,} boxes, interpolated ones included; the maximum is {MAX_BOXES:,}")
    tubes = [
        Tube(name, label, _boxes(shapes, stretches))
        for (name, label, shapes), stretches in zip(drawn, filled, strict=True)
    ]
    if gaps:
        notes.append(
            f"{table}: keyframes only; boxes between them are interpolated, and the last one of a track is kept "
            "to the end, as in CVAT's player"
        )
    if unusable:
        notes.append(
            f"{table}: frames left out, because {' and '.join(sorted(set(unusable.values())))} give no box: "
            f"{len(unusable):,}"
        )
    if open_ended and not gaps:
        notes.append(
            f"{table}: tracks that end before frame {stop} without being marked as outside; later frames count as "
            f"frames without them: {len(open_ended):,}"
        )
    seen = range(task.start, stop + 1, task.step)
    return TrackedVideo(
        file,
        tubes,
        seen,
        frozenset(unusable),
        SPLIT_NAMES.get(PurePosixPath(file.relative).parts[0].lower()),
        task.size,
    )


def _athlete(track: Element) -> str:
    """Return the attribute `athlete` of the track's shapes, as Posture writes it; "" if there is none.

    CVAT gives tracks new ids when a file is uploaded, but keeps their attributes.
    """
    named = (one.text or "" for shape in track for one in shape.findall("attribute") if one.get("name") == "athlete")
    return " ".join(composed(next(named, "")).split())[:MAX_ATHLETE]


def _shapes(track: Element, where: str) -> tuple[dict[int, _Shape], dict[int, str]]:
    """Return a track's shapes by frame, in order, and the elements that are not shapes, by frame."""
    shapes: dict[int, _Shape] = {}
    strange: dict[int, str] = {}
    for element in track:
        here = f"{where}, {element.tag} at frame {element.get('frame')}"
        (number,) = numbers([element.get("frame")], here)
        if not 0 <= number <= MAX_FRAMES or number != int(number):
            raise BadLabel(f"{here}: frames are numbered from 0 to {MAX_FRAMES:,}")
        shape = _shape(element, here)
        if shape is None:
            strange[int(number)] = f"<{element.tag[:40]}>"
        elif shapes.setdefault(int(number), shape) != shape:
            raise BadLabel(f"{here}: the track has two different shapes in that frame")
    return dict(sorted(shapes.items())), strange


def _shape(element: Element, where: str) -> _Shape | None:
    """Return the shape, or None if the element gives no box."""
    outside, get = element.get("outside") == "1", element.get
    if element.tag in INTERPOLATED:
        values = numbers((*map(get, INTERPOLATED[element.tag]), get("rotation") or 0), where)
        return _Shape(element.tag, tuple(values), outside)
    if element.tag == "mask":
        left, top, width, height = numbers((get("left"), get("top"), get("width"), get("height")), where)
        return _Shape("around", (left, top, left + width, top + height), outside)
    if element.tag in LISTS:
        points = [numbers(point.split(","), where) for point in (get("points") or "").split(";")]
        if not all(len(point) == 2 for point in points):
            raise BadLabel(f"{where}: points are not x,y;x,y")
        return _Shape("around", around((x, y) for x, y in points), outside)
    if element.tag == "cuboid":
        across, down = (
            numbers([value for key, value in element.items() if re.fullmatch(f"{axis}[tb][lr][12]", key)], where)
            for axis in "xy"
        )
        return (
            _Shape("around", around(zip(across, down, strict=True)), outside)
            if across and len(across) == len(down)
            else None
        )
    parts = [_shape(part, where) for part in element if part.tag != "attribute"] if element.tag == "skeleton" else []
    if not parts or None in parts:
        return None
    shown = [part for part in parts if part and not part.outside]
    corners = [corner for part in shown or parts if part for corner in (part.upright[:2], part.upright[2:])]
    return _Shape("around", around(corners), outside or not shown)


def _filled(shapes: dict[int, _Shape], step: int, stop: int | None) -> dict[tuple[int, int], range]:
    """Return the frames between each two keyframes, if the first is not outside.

    With `stop`, the last keyframe is kept up to that frame.
    """
    stretches = {
        (first, second): range(first + step, second, step)
        for first, second in pairwise(shapes)
        if not shapes[first].outside
    }
    last = next(reversed(shapes), None)
    if stop is not None and last is not None and not shapes[last].outside:
        stretches[last, last] = range(last + step, stop + 1, step)
    return stretches


def _boxes(shapes: dict[int, _Shape], stretches: dict[tuple[int, int], range]) -> dict[int, Box]:
    """Return the box in each frame in which the track is not outside, interpolated frames included."""
    boxes = {frame: shape.upright for frame, shape in shapes.items() if not shape.outside}
    for (first, second), frames in stretches.items():
        for frame in frames:
            share = (frame - first) / (second - first) if second > first else 0.0
            boxes[frame] = _between(shapes[first], shapes[second], share).upright
    return boxes


def _between(first: _Shape, second: _Shape, share: float) -> _Shape:
    """Interpolate at `share` of the way, 0..1. Rotations take the shorter way. Different shapes become their boxes."""
    if first.kind != second.kind:
        first, second = (_Shape("around", shape.upright, shape.outside) for shape in (first, second))
    values = [before + (after - before) * share for before, after in zip(first.values, second.values, strict=True)]
    if first.kind != "around":
        values[-1] = first.values[-1] + ((second.values[-1] - first.values[-1] + 180) % 360 - 180) * share
    return _Shape(first.kind, tuple(values), outside=False)
