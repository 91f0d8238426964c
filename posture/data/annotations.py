"""Layouts people have -> one shape: files, and the labelled segments in each.

| layout | recognised by |
|---|---|
| segments | a CSV with the columns video, start, end, label (and split, group) |
| kinetics | a CSV with the columns label, youtube_id, time_start, time_end (and split) |
| ucf101 | trainlistNN.txt and testlistNN.txt |
| folders | one folder per class, perhaps below train/, val/, test/ |

Beside any of them may lie review.csv, people's answers of `posture review`: it labels files that the layout itself leaves unlabelled.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from posture.data.files import File, absolute, join, list_files, read_bytes
from posture.data.review_table import REVIEWED
from posture.data.rows import SPLITS
from posture.data.video import VIDEO_SUFFIXES
from posture.errors import InputError

if TYPE_CHECKING:
    from posture.data.tube_layouts import Tube

LAYOUTS = ("segments", "kinetics", "ucf101", "folders")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val",
               "test": "test", "testing": "test"}
COLUMNS = {"segments": {"video", "start", "end", "label"}, "kinetics": {"label", "youtube_id", "time_start", "time_end"}}
UNLABELLED = ("unlabelled", "unlabeled")
"""Folders of the layout `folders` that are no class."""
UCF101_GROUP = re.compile(r"_(g\d\d)_c\d\d$")
UCF101_CLIP = re.compile(r"v_(.+_g\d\d)_c\d\d")


@dataclass(frozen=True)
class Label:
    """A labelled stretch of one video. `end` None: to its end. `split` None: the store decides by group."""

    start: float  # seconds
    end: float | None  # seconds
    label: str
    group: str
    split: str | None = None
    athlete: str = ""
    """The tube that is labelled, where it is one athlete's doing that is, not all that the video shows."""
    frames: tuple[int, int] | None = None
    """First, and one after the last, where the layout counts frames; `start` and `end` are then known with the video's frame rate."""

    def timed(self, fps: float) -> Label:
        """The same with start and end in seconds."""
        return self if self.frames is None else replace(self, start=self.frames[0] / fps, end=self.frames[1] / fps)


@dataclass(frozen=True)
class AnnotatedVideo:
    file: File
    labels: tuple[Label, ...]
    tubes: tuple[Tube, ...] | None = None
    """Where the athletes are; None where nobody said."""


@dataclass(frozen=True)
class Footage:
    """What a folder or bucket holds, in its own words."""

    root: str
    layout: str
    videos: list[AnnotatedVideo]
    missing: list[str] = field(default_factory=list)
    """Labels that name a video which is not there: `where: video`."""
    unlabelled: list[str] = field(default_factory=list)
    """Files that no label names."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} of files whose annotations cannot be used."""
    notes: list[str] = field(default_factory=list)
    """Sentences that whoever ingests it should read."""


class NoLabels(InputError):
    """There are videos, and nothing that could say what any of them shows."""


def read_footage(source: str, *, layout: str | None = None, split_number: int = 1, reviewed: bool = True) -> Footage:
    """The annotated videos at `source`: a folder, an `s3://` prefix, or a CSV file beside its videos.

    `split_number` chooses among UCF101's three official splits; `reviewed`: with the answers in review.csv. Raises InputError naming the file,
    line and field at fault.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: the layouts are {', '.join(LAYOUTS)}")
    source = absolute(source)
    root, _, table = source.rpartition("/") if source.lower().endswith(".csv") else (source, "", "")
    listed = list_files(root, suffixes=VIDEO_SUFFIXES | {".csv", ".txt"})
    videos = [file for file in listed if PurePosixPath(file.relative).suffix.lower() in VIDEO_SUFFIXES]
    others = [file for file in listed if PurePosixPath(file.relative).suffix.lower() not in VIDEO_SUFFIXES]
    if not videos:
        raise InputError(f"{root}: no video files here ({', '.join(sorted(VIDEO_SUFFIXES))})")
    named = [file.relative for file in others if file.relative.lower().endswith(".csv") and (file.relative == table if table else file.relative != REVIEWED)]
    answers = reviewed and table != REVIEWED and any(file.relative == REVIEWED for file in others)
    headers = csv_headers(root, named)
    tables = {layout: chosen for layout, columns in COLUMNS.items() if (chosen := [name for name, header in headers.items() if columns <= header])}
    if table and not tables:
        raise InputError(f"{source}: no such file, or neither the columns video,start,end,label nor label,youtube_id,time_start,time_end")
    try:
        footage = _read_layout(root, layout, videos, others, tables, split_number)
    except NoLabels:
        labels, missing = _segment_labels(root, videos, [REVIEWED]) if answers else ({}, [])
        if not labels:
            raise
        return _collect(root, "segments", videos, labels, missing)
    return _with_answers(footage, videos) if answers else footage


def find_unlabelled(source: str) -> tuple[str, list[File]]:
    """The root of the footage at `source`, and its videos that nothing but review.csv says anything of. Raises InputError as `read_footage` does."""
    source = absolute(source)
    root = source.rpartition("/")[0] if source.lower().endswith(".csv") else source
    videos = list_files(root)
    try:
        labelled = {video.file.relative for video in read_footage(source, reviewed=False).videos}
    except NoLabels:
        labelled = set()
    return root, [file for file in videos if file.relative not in labelled]


def _read_layout(root: str, layout: str | None, videos: list[File], others: list[File], tables: dict[str, list[str]], split_number: int) -> Footage:
    lists = {PurePosixPath(file.relative).name: file for file in others}
    train, test = (lists.get(f"{name}list{split_number:02d}.txt") for name in ("train", "test"))
    found = layout or (min(tables, key=lambda name: tables[name]) if tables else "ucf101" if train and test else "folders")
    if found == "ucf101":
        if not (train and test):
            raise InputError(f"{root}: the layout ucf101 needs trainlist{split_number:02d}.txt and testlist{split_number:02d}.txt")
        return _ucf101(root, videos, {"train": train, "test": test})
    if found == "folders":
        return _folders(root, videos)
    if found not in tables:
        columns = {"segments": "video,start,end,label", "kinetics": "label,youtube_id,time_start,time_end"}[found]
        raise InputError(f"{root}: the layout {found} needs a CSV with the columns {columns}")
    return (_segments if found == "segments" else _kinetics)(root, videos, tables[found])


def _with_answers(footage: Footage, videos: list[File]) -> Footage:
    """The footage with the labels that review.csv gives to files that have none; where the layout has come to label a file, it is right."""
    labels, missing = _segment_labels(footage.root, videos, [REVIEWED])
    open_files = set(footage.unlabelled)
    answers = {name: found for name, found in labels.items() if name in open_files}
    if not answers:
        return replace(footage, missing=footage.missing + missing)
    labelled = {video.file.relative: video for video in [*footage.videos, *_collect(footage.root, footage.layout, videos, answers, []).videos]}
    count = sum(map(len, answers.values()))
    return replace(footage, videos=[labelled[name] for name in sorted(labelled)], missing=footage.missing + missing,
                   unlabelled=[name for name in footage.unlabelled if name not in answers],
                   notes=[*footage.notes, f"{REVIEWED} labels {count:,} segment{'s' * (count != 1)} of {len(answers):,} "
                                          f"file{'s' * (len(answers) != 1)} that had no label"])


def csv_headers(root: str, names: list[str]) -> dict[str, set[str]]:
    """The columns of each of the files."""
    return {name: {cell.strip() for cell in _text(root, name).partition("\n")[0].split(",")} for name in names}


def _segments(root: str, videos: list[File], tables: list[str]) -> Footage:
    return _collect(root, "segments", videos, *_segment_labels(root, videos, tables))


def _segment_labels(root: str, videos: list[File], tables: list[str]) -> tuple[dict[str, list[Label]], list[str]]:
    """The labels of each file by its relative path, and those whose video is not there. Of review.csv, rows without a label are left out."""
    named = VideoNames(videos)
    labels: dict[str, list[Label]] = {}
    missing = []
    for where, row in csv_rows(root, tables):
        if where.file == REVIEWED and not row["label"].strip():
            continue
        file = named.find(row["video"], where.file)
        if file is None:
            missing.append(f"{where}: {row['video'].strip()}")
            continue
        start, end = where.seconds("start", row["start"]) or 0.0, where.seconds("end", row["end"])
        group = (row.get("group") or "").strip() or PurePosixPath(file.relative).stem
        labels.setdefault(file.relative, []).append(where.label(start, end, row["label"], group, row.get("split")))
    return labels, missing


def _kinetics(root: str, videos: list[File], tables: list[str]) -> Footage:
    stems = {PurePosixPath(file.relative).stem: file for file in videos}
    labels: dict[str, list[Label]] = {}
    missing = []
    for where, row in csv_rows(root, tables):
        video = row["youtube_id"].strip()
        start, end = where.seconds("time_start", row["time_start"]) or 0.0, where.seconds("time_end", row["time_end"])
        trimmed = stems.get(f"{video}_{round(start):06d}_{round(end or 0):06d}")
        file = trimmed or stems.get(video)
        if file is None:
            missing.append(f"{where}: {video}")
            continue
        span = (0.0, None) if trimmed else (start, end)
        labels.setdefault(file.relative, []).append(where.label(*span, row["label"], video, row.get("split")))
    return _collect(root, "kinetics", videos, labels, missing)


def _ucf101(root: str, videos: list[File], lists: dict[str, File]) -> Footage:
    stems = {PurePosixPath(file.relative).stem: file for file in videos}
    labels: dict[str, list[Label]] = {}
    missing = []
    for split, listed in lists.items():
        for number, line in enumerate(_text(root, listed.relative).splitlines(), start=1):
            path = PurePosixPath(line.split(" ")[0].strip())
            if not path.name:
                continue
            where = Line(listed.relative, number)
            file = stems.get(path.stem)
            if file is None:
                missing.append(f"{where}: {path}")
                continue
            label = path.parent.name or PurePosixPath(file.relative).parent.name
            labels.setdefault(file.relative, []).append(where.label(0.0, None, label, _file_group(label, path), split))
    return _collect(root, "ucf101", videos, labels, missing)


def _folders(root: str, videos: list[File]) -> Footage:
    labels: dict[str, list[Label]] = {}
    for file in videos:
        path = PurePosixPath(file.relative)
        parts = path.parts
        split = SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 2 else None
        if len(parts) < 2 or parts[0].lower() in UNLABELLED:
            continue
        label = parts[1] if split else parts[0]
        labels[file.relative] = [Label(0.0, None, label, _file_group(label, path), split)]
    if not labels:
        raise NoLabels(f"{root}: no layout recognised; put videos in one folder per class, or add a CSV with the columns "
                         "video,start,end,label beside them")
    return _collect(root, "folders", videos, labels, [])


def _file_group(label: str, path: PurePosixPath) -> str:
    """UCF101's group (`v_Archery_g08_c02` -> `Archery_g08`), else the file itself."""
    match = UCF101_GROUP.search(path.stem)
    return f"{label}_{match[1]}" if match else f"{label}/{path.stem}"


def _collect(root: str, layout: str, videos: list[File], labels: dict[str, list[Label]], missing: list[str]) -> Footage:
    annotated = [AnnotatedVideo(file, tuple(sorted(set(labels[file.relative]), key=_place)))
                 for file in videos if file.relative in labels]
    for video in annotated:
        for first, second in itertools.pairwise(video.labels):
            if (first.start, first.end) == (second.start, second.end):
                raise InputError(f"{video.file.relative}: {first.start} s to {first.end or 'its end'} is labelled twice: "
                                 f"{first.label} ({first.group}, {first.split}) and {second.label} ({second.group}, {second.split})")
    if not annotated:
        raise InputError(f"{root}: not one label names a video that is here (the first: {missing[0] if missing else 'none'})")
    return Footage(root, layout, annotated, missing, [file.relative for file in videos if file.relative not in labels])


def _place(label: Label) -> tuple[float, float, str]:
    return label.start, label.end or float("inf"), label.label


@dataclass(frozen=True)
class Line:
    """Where a label stands, for messages, and the checks of its fields."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file} line {self.line}"

    def seconds(self, name: str, text: str) -> float | None:
        """A time; None where the field is empty."""
        if not text.strip():
            return None
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not 0 <= value < 1e7:
            raise InputError(f"{self}: {name} {text.strip()!r} is not a time in seconds, such as 12.5")
        return value

    def box(self, row: dict[str, str]) -> tuple[int, tuple[float, float, float, float]]:
        """The frame and x1, y1, x2, y2 of a row."""
        values = []
        for name in ("frame", "x1", "y1", "x2", "y2"):
            try:
                values.append(float(row[name]))
            except ValueError:
                values.append(math.nan)
            if not math.isfinite(values[-1]):
                raise InputError(f"{self}: {name} {row[name].strip()!r} is not a number")
        frame, left, top, right, bottom = values
        if frame < 0 or frame != int(frame):
            raise InputError(f"{self}: frame {row['frame'].strip()} is not a whole number from 0 on")
        if right <= left or bottom <= top:
            raise InputError(f"{self}: x1 {left:g} to x2 {right:g} and y1 {top:g} to y2 {bottom:g} hold no pixel; x2 and y2 are just past the box")
        return int(frame), (left, top, right, bottom)

    def label(self, start: float, end: float | None, label: str, group: str, split: str | None) -> Label:
        label = label.strip()
        if not label:
            raise InputError(f"{self}: label is empty")
        if end is not None and end <= start:
            raise InputError(f"{self}: end {end} is not after start {start}")
        split = (split or "").strip().lower()
        if split and split not in SPLIT_NAMES:
            raise InputError(f"{self}: split {split!r}; the splits are {', '.join(SPLITS)}")
        return Label(start, end, label, group, SPLIT_NAMES.get(split))


def csv_rows(root: str, tables: list[str]) -> Iterator[tuple[Line, dict[str, str]]]:
    """Every row of the files, by its columns, and where it stands."""
    for name in tables:
        reader = csv.DictReader(io.StringIO(_text(root, name)), skipinitialspace=True)
        for row in reader:
            yield Line(name, reader.line_num), {(key or "").strip(): value or "" for key, value in row.items() if isinstance(value, str | None)}


def _text(root: str, name: str) -> str:
    try:
        return (read_bytes(join(root, name)) or b"").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{join(root, name)}: the file is not UTF-8 text") from None


class VideoNames:
    """Videos as tables name them: by their path below the root or the table, or by a name that one file alone has."""

    def __init__(self, videos: list[File]) -> None:
        self._by_path = {file.relative: file for file in videos}
        counts = Counter(PurePosixPath(file.relative).name for file in videos)
        self._by_name = {name: file for file in videos if counts[name := PurePosixPath(file.relative).name] == 1}

    def find(self, name: str, table: str) -> File | None:
        """The file that the table at the path `table` means by `name`."""
        name = name.strip().replace("\\", "/")
        return self._by_path.get(name) or self._by_path.get(str(PurePosixPath(table).parent / name)) or self._by_name.get(PurePosixPath(name).name)
