"""Read labelled videos: every layout becomes files with labelled segments (`LabelledVideos`).

| layout | recognised by |
|---|---|
| segments | a table with the columns video, start, end, label (and split, group, athlete) |
| kinetics | a table with the columns label, youtube_id, time_start, time_end (and split) |
| ucf101 | trainlistNN.txt and testlistNN.txt |
| label-studio | a JSON export of Label Studio with timeline labels or video rectangles |
| folders | one folder per class, perhaps below train/, val/, test/ |

With any of them review.csv, the answers from `posture review`, labels files that have no other label.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from posture.data.labels import label_studio, ucf101
from posture.data.labels.names import SPLIT_NAMES, VideoNames, composed, first_few
from posture.data.labels.records import AnnotatedVideo, Label, LabelledVideos
from posture.data.labels.review_csv import REVIEWED
from posture.data.labels.table import COLUMNS, SUFFIXES, Table, TableLine, read_rows, table_of
from posture.data.labels.tree import Tree
from posture.data.labels.unread import DOCUMENTS, SPREADSHEETS, open_tables, unread
from posture.data.store.files import VIDEO_SUFFIXES, File, absolute, list_files
from posture.data.store.schema import SPLITS, UNLABELLED
from posture.errors import InputError

LAYOUTS = ("segments", "kinetics", "ucf101", label_studio.LAYOUT, "folders")
UNSURE = "unsure"
"""Label that `posture predict --write segments` gives to stretches without an answer. Such rows are left out."""
UNLABELLED_FOLDERS = (UNLABELLED, "unlabeled")
"""Folders of the layout `folders` that are not a class."""
UCF101_GROUP = re.compile(r"_(g\d\d)_c\d\d$")
NO_GROUPS = (
    "every file is a group of its own, so two files of one recording or one athlete may be in different splits; to "
    "keep them together, "
)
TO_NAME_GROUPS = {
    "segments": "add a column group to the table",
    "folders": (
        "name them as UCF101 does (v_Jump_g01_c01.mp4 and v_Jump_g01_c02.mp4 are of group g01), or list them in a "
        "table with a column group"
    ),
}
UCF101_CLIP = re.compile(r"v_(.+_g\d\d)_c\d\d")


class NoLabels(InputError):
    """Videos are there, but nothing that could label them."""


def read_footage(
    source: str, *, layout: str | None = None, split_number: int = 1, reviewed: bool = True
) -> LabelledVideos:
    """Read the labelled videos at `source`: a folder, an `s3://` prefix, or a label table beside its videos.

    `split_number` selects one of UCF101's three official splits. `reviewed` adds the answers in review.csv. Raises
    InputError naming the file, line and field at fault. Without `layout` it also raises InputError if several layouts
    are there, or a table seems to hold labels but is not understood.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: the layouts are {', '.join(LAYOUTS)}")
    root, table = table_of(absolute(source))
    if layout == label_studio.LAYOUT or PurePosixPath(root).suffix.lower() == ".json":
        return label_studio.read_label_studio(Tree(source))
    listed = list_files(root, suffixes=VIDEO_SUFFIXES | SUFFIXES | SPREADSHEETS | DOCUMENTS)
    videos = [file for file in listed if file.suffix in VIDEO_SUFFIXES]
    others = [file for file in listed if file.suffix not in VIDEO_SUFFIXES]
    if not videos:
        raise InputError(f"{root}: no video files here ({', '.join(sorted(VIDEO_SUFFIXES))})")
    answers = reviewed and table != REVIEWED and any(file.relative == REVIEWED for file in others)
    try:
        footage = _read_layout(root, table, layout, videos, others, split_number)
    except NoLabels:
        reading = _segments(videos, [REVIEWED], root) if answers else None
        if reading is None or not reading.labels:
            raise
        return _collect(root, "segments", videos, reading)
    return _with_answers(footage, videos) if answers else footage


def find_unlabelled(source: str) -> tuple[str, list[File]]:
    """Return the root of `source`, and its videos without a label other than in review.csv.

    Raises InputError as `read_footage` does.
    """
    root, _ = table_of(absolute(source))
    videos = list_files(root)
    try:
        labelled = {video.file.relative for video in read_footage(source, reviewed=False).videos}
    except NoLabels:
        labelled = set()
    return root, [file for file in videos if file.relative not in labelled]


def read_with_unlabelled(source: str, *, layout: str | None = None, split_number: int = 1) -> LabelledVideos:
    """Read the footage as `read_footage` does, with the label `unlabelled` for the whole of each video without one.

    Such a video is a group of its own, and on the side of train or val. Raises InputError as `read_footage` does, but
    not if no video has a label.
    """
    try:
        footage = read_footage(source, layout=layout, split_number=split_number)
    except NoLabels:
        root, _ = table_of(absolute(source))
        footage = LabelledVideos(
            root=root, layout="folders", videos=[], unlabelled=[f.relative for f in list_files(root)]
        )
    without = set(footage.unlabelled)
    videos = [
        AnnotatedVideo(file, (Label(0.0, None, UNLABELLED, f"{UNLABELLED} {file.relative}", "train"),))
        for file in list_files(footage.root)
        if file.relative in without
    ]
    return replace(footage, videos=[*footage.videos, *videos], unlabelled=[])


def _read_layout(
    root: str, table: str, layout: str | None, videos: list[File], others: list[File], split_number: int
) -> LabelledVideos:
    """Read the named table, else the named layout, else the layout that is there."""
    chosen = [
        file
        for file in others
        if (file.relative == table if table else file.relative != REVIEWED and not ucf101.is_list(file))
    ]
    tables, broken = open_tables(root, chosen)
    kinds = {kind: [found for found in tables if found.kind == kind] for kind in ("segments", "kinetics")}
    if table and not kinds["segments"] + kinds["kinetics"]:
        raise InputError(
            broken.get(table)
            or (
                f"{root}/{table}: no such file, or it has neither the columns {','.join(COLUMNS['segments'])} nor "
                f"{','.join(COLUMNS['kinetics'])}"
            )
        )
    lists = ucf101.lists_of(others, split_number) if not table and layout in (None, "ucf101") else {}
    found = layout or _recognised(root, kinds, lists, others, split_number)
    notes = (
        [] if table else unread(root, tables, broken, others, VideoNames(videos), layout=found, guessed=layout is None)
    )
    unused = [file.relative for file in others if ucf101.is_list(file)] if found != "ucf101" and not table else []
    if unused:
        notes.append(f"not read, because the layout is {found}: {first_few(sorted(unused), 3)}")
    if found == label_studio.LAYOUT:
        footage = label_studio.read_label_studio(Tree(root))
        return replace(footage, notes=[*footage.notes, *notes])
    if found == "ucf101":
        reading = _ucf101(root, videos, _require_both(root, lists, split_number))
    elif found == "folders":
        reading = _folders(root, videos)
    elif kinds[found]:
        reading = (_segments if found == "segments" else _kinetics)(videos, kinds[found])
    else:
        raise InputError(
            next(iter(broken.values()), "")
            or f"{root}: the layout {found} needs a CSV with the columns {','.join(COLUMNS[found])}"
        )
    reading.notes += notes
    return _collect(root, found, videos, reading)


def _recognised(
    root: str, kinds: dict[str, list[Table]], lists: dict[str, File], others: list[File], split_number: int
) -> str:
    """Return the only layout whose tables or lists are there, else `folders`.

    Raises InputError if there are several layouts.
    """
    there = {kind: tables[0].name for kind, tables in kinds.items() if tables} | (
        {"ucf101": next(iter(lists.values())).relative} if lists else {}
    )
    if any(file.suffix == ".json" for file in others):
        exports = label_studio.label_studio_tables(Tree(root))
        there |= {label_studio.LAYOUT: exports[0]} if exports else {}
    if len(there) > 1:
        raise InputError(
            f"{root}: labels in several layouts, {', '.join(f'{kind} ({name})' for kind, name in there.items())}; "
            "choose one with --layout"
        )
    if not there and any(ucf101.is_list(file) for file in others):
        return "ucf101"  # its reader then says which list is missing
    return next(iter(there), "folders")


def _require_both(root: str, lists: dict[str, File], split_number: int) -> dict[str, File]:
    if not {"train", "test"} <= set(lists):
        raise InputError(
            f"{root}: the layout ucf101 needs trainlist{split_number:02d}.txt and "
            f"testlist{split_number:02d}.txt (--split-number {split_number})"
        )
    return lists


def _with_answers(footage: LabelledVideos, videos: list[File]) -> LabelledVideos:
    """Add the labels that review.csv gives to files without one. A label of the layout itself takes precedence."""
    reading = _segments(videos, [REVIEWED], footage.root)
    open_files = set(footage.unlabelled)
    footage = replace(
        footage,
        missing=footage.missing + reading.missing,
        refused=footage.refused + reading.refused,
        notes=footage.notes + reading.notes,
    )
    answers = {name: found for name, found in reading.labels.items() if name in open_files}
    if not answers:
        return footage
    labelled = {
        video.file.relative: video
        for video in [*footage.videos, *_collect(footage.root, footage.layout, videos, Reading(answers)).videos]
    }
    count = sum(map(len, answers.values()))
    return replace(
        footage,
        videos=[labelled[name] for name in sorted(labelled)],
        unlabelled=[name for name in footage.unlabelled if name not in answers],
        notes=[
            *footage.notes,
            f"{REVIEWED} labels {count:,} segment{'s' * (count != 1)} of {len(answers):,} "
            f"file{'s' * (len(answers) != 1)} that had no label",
        ],
    )


@dataclass
class Reading:
    """Contents of tables, lists or folders."""

    labels: dict[str, list[Label]] = field(default_factory=dict)
    """Relative path of a video -> its labels."""
    missing: list[str] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    """Groups that neither a table nor a file name gives: each is a single file."""

    def group_of(self, label: str, path: PurePosixPath) -> str:
        """Return UCF101's group (`v_Archery_g08_c02` -> `Archery_g08`), else a group of the file's own."""
        if match := UCF101_GROUP.search(path.stem):
            return f"{label}_{match[1]}"
        self.own.add(f"{label}/{path.stem}")
        return f"{label}/{path.stem}"

    def add(self, found: list[File], where: TableLine, name: str) -> File | None:
        """Return the only file found for a name. Otherwise record it as missing or ambiguous and return None."""
        if len(found) == 1:
            return found[0]
        if found:
            paths = " or ".join(file.relative for file in found[:3])
            self.refused.append({
                "uri": name,
                "verdict": "missing_video",
                "reason": f"named by {where}, which may mean {paths}; add its folder and suffix",
            })
        else:
            self.missing.append(f"{where}: {name}")
        return None


def _segments(videos: list[File], tables: Iterable[Table | str], root: str = "") -> Reading:
    """Read the rows of tables. review.csv is given by name, below `root`; its rows without a label are skipped."""
    named = VideoNames(videos)
    reading = Reading()
    unsure: Counter[str] = Counter()
    for table in tables:
        reading.notes += [] if isinstance(table, str) else table.notes_for_user()
        for where, row in read_rows(root, table, "segments") if isinstance(table, str) else table.rows():
            if where.file == REVIEWED and not row["label"]:
                continue
            if row["label"].casefold() == UNSURE:
                unsure[where.file] += 1
                continue
            file = reading.add(
                named.candidates(row["video"], where.file, moved=where.file == REVIEWED), where, row["video"]
            )
            if file is None:
                continue
            start, end = where.seconds("start", row["start"]) or 0.0, where.seconds("end", row["end"])
            group = composed(row.get("group", ""))
            if not group:
                reading.own.add(group := file.stem)
            reading.labels.setdefault(file.relative, []).append(
                _label(
                    where, start, end, row["label"], group, row.get("split"), athlete=composed(row.get("athlete", ""))
                )
            )
    reading.notes += [f"{name}: rows labelled {UNSURE}, which are not read: {n:,}" for name, n in unsure.items()]
    return reading


def _kinetics(videos: list[File], tables: Iterable[Table]) -> Reading:
    """Read Kinetics tables. A video's file is named by its id, or by id and times if it is already trimmed.

    If several files match, the one in the folder of its label or split is taken.
    """
    stems: dict[str, list[File]] = {}
    for file in videos:
        stems.setdefault(file.stem, []).append(file)
    reading = Reading()
    for table in tables:
        reading.notes += table.notes_for_user()
        for where, row in table.rows():
            video = row["youtube_id"]
            start, end = (
                where.seconds("time_start", row["time_start"]) or 0.0,
                where.seconds("time_end", row["time_end"]),
            )
            trimmed = stems.get(f"{video}_{round(start):06d}_{round(end or 0):06d}")
            label = _label(where, *((0.0, None) if trimmed else (start, end)), row["label"], video, row.get("split"))
            file = reading.add(_in_folder_of(label, trimmed or stems.get(video, [])), where, video)
            if file is not None:
                reading.labels.setdefault(file.relative, []).append(label)
    return reading


def _in_folder_of(label: Label, files: list[File]) -> list[File]:
    """Return the files below a folder of the label's class, else of its split, if several files have one name."""

    def folders(file: File) -> set[str]:
        return {composed(part).casefold().replace("_", " ") for part in PurePosixPath(file.relative).parts[:-1]}

    of_class = [file for file in files if label.label.casefold().replace("_", " ") in folders(file)]
    of_split = [
        file
        for file in of_class or files
        if label.split in {SPLIT_NAMES.get(folder) for folder in folders(file)} - {None}
    ]
    return files if len(files) < 2 else of_split or of_class or files


def _ucf101(root: str, videos: list[File], lists: dict[str, File]) -> Reading:
    named = VideoNames(videos)
    reading = Reading()
    for split, file_of_list in lists.items():
        lines, guessed = ucf101.listed(root, file_of_list.relative)
        reading.notes += [f"{file_of_list.relative} is not UTF-8 and was read as {guessed}"] if guessed else []
        for where, names in lines:
            found = next(
                (found for name in names if (found := named.candidates(name, where.file, any_suffix=True))), []
            )
            file = reading.add(found, where, names[-1])
            if file is None:
                continue
            path = PurePosixPath(names[-1])
            label = path.parent.name or PurePosixPath(file.relative).parent.name
            group = reading.group_of(label, path)
            reading.labels.setdefault(file.relative, []).append(_label(where, 0.0, None, label, group, split))
    return reading


def _folders(root: str, videos: list[File]) -> Reading:
    reading = Reading()
    deeper = set()
    for file in videos:
        path = PurePosixPath(file.relative)
        parts = path.parts
        split = SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 2 else None
        if len(parts) < 2 or parts[0].lower() in UNLABELLED_FOLDERS:
            continue
        label = parts[1] if split else parts[0]
        reading.labels[file.relative] = [Label(0.0, None, composed(label), reading.group_of(label, path), split)]
        deeper |= set(parts[1 + bool(split) : -1])
    if not reading.labels:
        raise NoLabels(
            f"{root}: no layout recognised; put videos in one folder per class, or add a CSV with the columns "
            "video,start,end,label beside them"
        )
    classes = {found[0].label for found in reading.labels.values()}
    if deeper:
        reading.notes.append(
            f"the classes are the top folders ({first_few(sorted(classes), 3)}), not the folders inside them "
            f"({first_few(sorted(deeper), 3)}); if those are the classes, give the folder that contains them"
        )
    elif len(classes) == 1:
        reading.notes.append(
            f"all videos have one class, {first_few(sorted(classes), 3)}: each class is a folder, and there is only one"
        )
    return reading


def _collect(root: str, layout: str, videos: list[File], reading: Reading) -> LabelledVideos:
    """Return the labelled videos. Repeated rows count once.

    Raises InputError if one segment has two labels, or no video has a label.
    """
    labels = {name: tuple(sorted(set(found), key=_place)) for name, found in reading.labels.items()}
    for name, found in labels.items():
        for first, second in itertools.pairwise(found):
            if (first.start, first.end, first.athlete) == (second.start, second.end, second.athlete):
                raise InputError(
                    f"{name}: {first.start} s to {first.end or 'its end'} is labelled twice: "
                    f"{first.label} ({first.group}, {first.split}) and {second.label} ({second.group}, {second.split})"
                    + ("" if first.athlete else "; if they are two athletes, name each in a column athlete")
                )
    if not labels:
        first = reading.missing[:1] or [f"{refusal['uri']}, {refusal['reason']}" for refusal in reading.refused[:1]]
        raise InputError(f"{root}: no label names a video that is here (the first: {first[0] if first else 'none'})")
    repeated = sum(map(len, reading.labels.values())) - sum(map(len, labels.values()))
    notes = [
        *reading.notes,
        *([f"{repeated:,} row{'s' * (repeated != 1)} repeated; each counts once"] if repeated else []),
    ]
    drawn = set(SPLITS) - {label.split for found in labels.values() for label in found}
    if drawn and len(labels) > 1 and all(label.group in reading.own for found in labels.values() for label in found):
        notes.append(NO_GROUPS + TO_NAME_GROUPS["segments" if layout == "segments" else "folders"])
    labels = _separate_recordings(labels, reading.own)
    annotated = [AnnotatedVideo(file, labels[file.relative]) for file in videos if file.relative in labels]
    return LabelledVideos(
        root=root,
        layout=layout,
        videos=annotated,
        missing=reading.missing,
        unlabelled=[file.relative for file in videos if file.relative not in labels],
        refused=reading.refused,
        notes=notes,
    )


def _separate_recordings(labels: dict[str, tuple[Label, ...]], own: set[str]) -> dict[str, tuple[Label, ...]]:
    """Separate files of one name in several splits: `train/jump/001.mp4` and `test/jump/001.mp4` are two recordings."""
    splits: dict[str, set[str]] = defaultdict(set)
    for label in itertools.chain.from_iterable(labels.values()):
        if label.split is not None:
            splits[label.group].add(label.split)
    torn = {group for group in own if len(splits[group]) > 1}
    return {
        name: tuple(
            replace(label, group=str(PurePosixPath(name).with_suffix(""))) if label.group in torn else label
            for label in found
        )
        for name, found in labels.items()
    }


def _place(label: Label) -> tuple[float, float, str, str]:
    return label.start, label.end or float("inf"), label.athlete, label.label


def _label(
    where: TableLine, start: float, end: float | None, label: str, group: str, split: str | None, *, athlete: str = ""
) -> Label:
    """Return the label of a row. Raises InputError naming the field at fault."""
    if not label:
        raise InputError(f"{where}: label is empty")
    if any(unicodedata.category(letter) == "Cc" for letter in label):
        raise InputError(
            f"{where}: label {label[:40]!r} contains a line break or another control character; is a quote not closed?"
        )
    if end is not None and end <= start:
        raise InputError(f"{where}: end {end} is not after start {start}")
    split = (split or "").lower()
    if split and split not in SPLIT_NAMES:
        raise InputError(f"{where}: split {split!r}; the splits are {', '.join(SPLITS)}")
    return Label(start, end, composed(label), group, SPLIT_NAMES.get(split), athlete)
