"""Layouts that people have pictures with boxes in -> one shape: picture files and frames of videos, with the boxes in each.

| layout | recognised by |
|---|---|
| yolo | a data.yaml with names and train, val or test |
| coco | JSON with images, annotations and categories |
| voc | Annotations/*.xml with the root `annotation` |
| cvat | XML with the root `annotations` (CVAT for video 1.1) beside its video |
| ucf101_24 | finalAnnots.mat and videos |

A split is what the layout says. Where it names nothing but `train`, nothing is held out and the store decides all of it by group. Where it
names `train` and `val` alone, `val` is what its owner holds out: it becomes `test`, and another `val` is carved from `train`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal, get_args

from posture.data import still_layouts, tube_layouts, yolo_layout
from posture.data.labels.table import table_of
from posture.data.picture_files import AnnotatedPicture, Pictures, Tree
from posture.errors import InputError

Layout = Literal["yolo", "coco", "voc", "cvat", "ucf101_24"]
LAYOUTS: tuple[str, ...] = get_args(Layout)

LABELS = {"yolo": "a data.yaml with names, train and val", "coco": "a JSON file with images, annotations and categories",
          "voc": "Annotations/*.xml, one for each picture", "cvat": "an XML file exported as CVAT for video 1.1, and its video",
          "ucf101_24": f"{tube_layouts.UCF101_24} and its videos"}


def picture_layout(source: str) -> str | None:
    """Which layout of pictures with boxes is at `source` (a folder, an `s3://` prefix, or a file of labels); None where it is none of them.

    Raises InputError where there are pictures, and no video, but nothing says what is in them.
    """
    if table_of(source)[1]:
        return None
    tree = Tree(source)
    layout = _recognise(tree)
    if layout is None and tree.pictures and not tree.videos:
        raise InputError(f"{tree.root}: pictures without labels; put beside them {'; or '.join(LABELS[name] for name in ('yolo', 'coco', 'voc'))}")
    return layout


def read_pictures(source: str, *, layout: str | None = None, every: int = 8, named_val: str = "test", split_number: int = 1) -> Pictures:
    """The pictures at `source`, and the frames of its videos, with their boxes.

    Of videos, `every` n-th frame is taken. `named_val` is what becomes of a `val` where no `test` is named. `split_number` chooses among UCF101's
    three official splits, where their lists lie beside finalAnnots.mat. What cannot be used of single pictures is in `refused`; InputError where a
    file that speaks of all of them cannot be read.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: the layouts of pictures are {', '.join(LAYOUTS)}")
    tree = Tree(source)
    found = layout or _recognise(tree)
    if found is None:
        raise InputError(f"{tree.root}: no layout of pictures with boxes is recognised; those known are {', '.join(LAYOUTS)}")
    if found in ("cvat", "ucf101_24"):
        tracked = tube_layouts.read_cvat(tree) if found == "cvat" else tube_layouts.read_ucf101_24(tree, split_number=split_number)
        pictures = None if tracked is None else tube_layouts.sample(tracked, every=every)
    else:
        pictures = {"yolo": yolo_layout.read_yolo, "coco": still_layouts.read_coco, "voc": still_layouts.read_voc}[found](tree)
    if pictures is None:
        raise InputError(f"{tree.root}: the layout {found} needs {LABELS[found]}")
    if not pictures.pictures and not pictures.refused:
        first = f" (the first: {pictures.missing[0]})" if pictures.missing else ""
        raise InputError(f"{pictures.root}: not one label names a picture or video that is here{first}")
    return _with_splits(replace(pictures, pictures=_said_once(pictures.pictures)), named_val)


def _recognise(tree: Tree) -> str | None:
    if tree.videos and any(PurePosixPath(name).name == tube_layouts.UCF101_24 for name in tree.tables(".mat")):
        return "ucf101_24"
    if tree.pictures or tree.named:
        for layout, holds in (("yolo", yolo_layout.yolo_table), ("coco", still_layouts.coco_tables), ("voc", still_layouts.voc_folders)):
            if holds(tree):
                return layout
    return "cvat" if tree.videos and tube_layouts.cvat_tables(tree) else None


def _said_once(pictures: list[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """Without what is said twice. Raises InputError where two tables say different things of a picture."""
    said: dict[tuple[str, int | None, str | None], AnnotatedPicture] = {}
    for picture in pictures:
        if said.setdefault((picture.file.uri, picture.frame, picture.split), picture) != picture:
            frame = "" if picture.frame is None else f" frame {picture.frame}"
            raise InputError(f"{picture.file.relative}{frame} is labelled twice, and not the same; name the one file of labels to take in place of the folder")
    return list(said.values())


def _with_splits(found: Pictures, named_val: str) -> Pictures:
    """The same with the splits that the store is to keep, and None where it decides."""
    pictures, notes = _without_repeated_lists(found.pictures), list(found.notes)
    named = {picture.split for picture in pictures} - {None}
    if named == {"train"}:
        pictures = [replace(picture, split=None) for picture in pictures]
    elif "val" in named and "test" not in named and named_val == "test":
        pictures = [replace(picture, split="test") if picture.split == "val" else picture for picture in pictures]
        notes.append("val is the only part that is held out, so it is taken as test, and another val is carved from train by group "
                     "(--named-val val takes it as it is named)")
    groups = {picture.group for picture in pictures if picture.split is None} if not named - {"train"} else set()
    if len(groups) == 1 and "" not in groups and len(pictures) > 1:
        notes.append(f"everything is of one group, {groups.pop()}, so nothing can be held out for val or test; a group is a video, or a folder of its frames")
    return replace(found, pictures=pictures, notes=notes)


def _without_repeated_lists(pictures: list[AnnotatedPicture]) -> list[AnnotatedPicture]:
    """Where two splits are the same files, as in data sets made only to try something out, they name no split."""
    files: dict[str | None, set[str]] = {}
    for picture in pictures:
        files.setdefault(picture.split, set()).add(picture.file.uri)
    repeated = {split for split in files for other in files if split != other and files[split] == files[other]}
    if not repeated:
        return pictures
    kept = {(picture.file.uri, picture.frame): replace(picture, split=None) for picture in pictures if picture.split in repeated}
    return [picture for picture in pictures if picture.split not in repeated] + list(kept.values())
