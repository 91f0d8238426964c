"""Tubes of the athletes of tracked videos: sample frames from them, and read UCF101-24.

A tube has the boxes of one athlete in the frames of a video. Frames are numbered from 0, as the decoder gives them.
Source: the corrected annotations of UCF101-24 (Singh 2017), whose coordinates and frames begin at 1.
"""

from __future__ import annotations

import io
from pathlib import PurePosixPath
from typing import Any

from posture.data.labels import ucf101
from posture.data.labels.names import VideoNames
from posture.data.labels.records import (
    AnnotatedImage,
    AnnotatedImages,
    BadLabel,
    Refusal,
    TrackedFootage,
    TrackedVideo,
    Tube,
)
from posture.data.labels.tree import Tree, numbers, video_group
from posture.data.store.files import join, read_bytes
from posture.errors import InputError

UCF101_24 = "finalAnnots.mat"
UCF101_24_SIZE = (240, 320)
"""(height, width) of UCF101's videos in pixels, on which its boxes were drawn."""


def sample(footage: TrackedFootage, *, every: int) -> AnnotatedImages:
    """Take every `every`-th annotated frame, including frames without a box.

    If frames without a box may just not be annotated, only frames of tubes are taken, and at least one of each tube.
    """
    images = []
    for video in footage.videos:
        group = video_group(PurePosixPath(video.file.relative))
        for frame in _sampled(video, every):
            shown = [(tube.boxes[frame], tube.label, tube.name) for tube in video.tubes if frame in tube.boxes]
            boxes, labels, tubes = zip(*shown, strict=True) if shown else ((), (), ())
            images.append(AnnotatedImage(video.file, boxes, labels, group, video.split, tubes, frame, size=video.size))
    return AnnotatedImages(images=images, **{name: value for name, value in vars(footage).items() if name != "videos"})


def _sampled(video: TrackedVideo, every: int) -> list[int]:
    if video.seen is not None:
        return [frame for frame in video.seen[:: max(1, every // video.seen.step)] if frame not in video.unusable]
    chosen = {frame for tube in video.tubes for frame in tube.boxes if frame % every == 0}
    middles = [
        sorted(tube.boxes)[len(tube.boxes) // 2] for tube in video.tubes if tube.boxes and chosen.isdisjoint(tube.boxes)
    ]
    return sorted(chosen.union(middles))


def read_ucf101_24(tree: Tree, *, split_number: int = 1) -> TrackedFootage | None:
    """Read the tubes of the videos that are here. The class is the name of the video's folder in the annotations."""
    table = next(
        (name for name in tree.tables(".mat") if name == tree.named or PurePosixPath(name).name == UCF101_24), None
    )
    if table is None:
        return None
    named = VideoNames(tree.videos)
    splits = _ucf101_splits(tree, split_number, named)
    found = TrackedFootage(root=tree.root, layout="ucf101_24")
    used, absent = set(), 0
    for entry in _annotations(join(tree.root, table)):
        name = _text(entry["name"])
        file = named.find(name, table, any_suffix=True)
        if file is None:
            absent += 1
            continue
        used.add(file.relative)
        try:
            tubes = _ucf101_24_tubes(
                entry["tubes"], PurePosixPath(name), PurePosixPath(file.relative).parent.name, f"{table}: {name}"
            )
            found.videos.append(TrackedVideo(file, tubes, split=splits.get(file.relative), size=UCF101_24_SIZE))
        except BadLabel as error:
            found.refused.append(Refusal(file, error.verdict, str(error)))
    if absent:
        found.notes.append(f"{absent:,} of the videos that {table} describes are not here")
    found.unlabelled.extend(file.relative for file in tree.videos if file.relative not in used)
    return found


def _annotations(uri: str) -> list[Any]:
    """Return the struct array `annot`, one entry per video."""
    from scipy.io import loadmat

    try:
        entries = loadmat(io.BytesIO(read_bytes(uri) or b""), variable_names=["annot"])["annot"].ravel()
        if not {"name", "tubes"} <= set(entries.dtype.names or ()):
            raise ValueError("`annot` lacks the fields name and tubes")
    except Exception as error:  # the reader raises many kinds of errors for damaged files
        raise InputError(
            f"{uri}: not the annotations of UCF101-24: "
            f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
        ) from None
    return list(entries)


def _text(cell: Any) -> str:
    return str(cell.ravel()[0]) if getattr(cell, "size", 0) else ""


def _ucf101_24_tubes(entries: Any, name: PurePosixPath, folder: str, where: str) -> list[Tube]:
    tubes = []
    for number, entry in enumerate(getattr(entries, "ravel", list)(), start=1):
        try:
            first, last = (int(entry[side].ravel()[0]) - 1 for side in ("sf", "ef"))
            corners = entry["boxes"].astype(float).reshape(-1, 4).tolist()  # stored as bytes, whose sums would overflow
        except (ValueError, IndexError, TypeError, KeyError):
            raise BadLabel(f"{where}: tube {number} needs sf, ef and boxes of four numbers") from None
        if first < 0 or len(corners) != last - first + 1:
            raise BadLabel(f"{where}: tube {number} has {len(corners)} boxes for the frames {first + 1} to {last + 1}")
        boxes = (numbers(corner, f"{where}: tube {number}") for corner in corners)
        placed = {
            frame: (x - 1, y - 1, x - 1 + width, y - 1 + height)
            for frame, (x, y, width, height) in enumerate(boxes, start=first)
        }
        tubes.append(Tube(f"{name.name}/{number}", name.parent.name or folder, placed))
    return tubes


def _ucf101_splits(tree: Tree, number: int, named: VideoNames) -> dict[str, str]:
    """Return relative path of a video -> train, val or test, if UCF101's lists are there too."""
    splits = {}
    for split, file in ucf101.lists_of([tree.files[name] for name in tree.tables(".txt")], number).items():
        for where, names in ucf101.listed(tree.root, file.relative)[0]:
            found = (named.find(name, where.file, any_suffix=True) for name in names)
            splits |= {video.relative: split for video in found if video}
    return splits
