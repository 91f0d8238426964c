"""Find the layouts below a folder, and the folder that each begins in. One is used; several are reported."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import NamedTuple

from posture.data.labels import coco_voc, cvat, images, label_studio, tubes, ucf101, yolo
from posture.data.labels.table import SUFFIXES, table_of
from posture.data.labels.tree import Tree
from posture.data.labels.unread import open_tables
from posture.data.store.files import list_files
from posture.errors import InputError

TOGETHER = {frozenset({"ucf101", "ucf101_24"}): "ucf101_24"}
"""Layouts that form one data set if they are in the same folder, and its layout: UCF101's lists split UCF101-24."""


class LayoutGuess(NamedTuple):
    """A layout that was found."""

    layout: str
    file: str
    """Relative path of one of the files that show it."""
    folder: str
    """Smallest folder around it that contains images or videos; "" is the root."""


def choose_layout(source: str, *, clips: bool = False) -> str | None:
    """Return the layout of images at `source`, or None if videos are labelled there.

    `source` is a folder, an `s3://` prefix or a label file. With `clips`, layouts of videos take precedence. Raises
    InputError listing the layouts if there are several, and as `image_layout` does.
    """
    if table_of(source)[1]:
        return None
    tree = Tree(source)
    if tree.named and label_studio.label_studio_tables(tree):
        return None
    found = [] if tree.named else find_layouts(tree)
    if clips and len({one.layout for one in found}) > 1:
        found = [one for one in found if one.layout not in (*images.OF_STILLS, "cvat")]
    layouts = frozenset(one.layout for one in found)
    if len(layouts) > 1 and not (layouts in TOGETHER and len({one.folder for one in found}) == 1):
        listed = "; ".join(
            f"{one.layout} in {one.folder or 'the folder itself'}" + (f" ({one.file})" if one.file else "")
            for one in found
        )
        raise InputError(
            f"{tree.root}: several layouts are here: {listed}. Give one of these folders, or choose the layout "
            "with --layout"
        )
    if not found or tree.named:
        return images.image_layout(source)
    layout = TOGETHER.get(layouts, next(iter(layouts)))
    return layout if layout in images.LAYOUTS else None


def find_layouts(tree: Tree) -> list[LayoutGuess]:
    """Return every layout in every folder where one begins; `folders` only if there are others too.

    Raises InputError if a file that describes a data set is broken.
    """
    videos = [file.relative for file in tree.videos]
    images = [file.relative for file in tree.images]
    found: dict[tuple[str, str], LayoutGuess] = {}

    def add(layout: str, files: Iterable[str], media: list[str]) -> None:
        for name in files:
            folder = _around(name, media)
            found.setdefault((layout, folder), LayoutGuess(layout, name, folder))

    if images:
        table = yolo.yolo_table(tree)
        add("yolo", [table] if table else [], images)
        add("coco", coco_voc.coco_tables(tree), images)
        add("voc", (f"{folder}/Annotations".lstrip("/") for folder in coco_voc.voc_folders(tree)), images)
    if videos:
        add("ucf101_24", (name for name in tree.tables(".mat") if PurePosixPath(name).name == tubes.UCF101_24), videos)
        add("cvat", cvat.cvat_tables(tree), videos)
        add(label_studio.LAYOUT, label_studio.label_studio_tables(tree), videos)
        others = list_files(tree.root, suffixes=SUFFIXES)
        tables, _ = open_tables(tree.root, [file for file in others if not ucf101.is_list(file)])
        for kind in ("segments", "kinetics"):
            add(kind, (table.name for table in tables if table.kind == kind and table.name != "review.csv"), videos)
        add("ucf101", (file.relative for file in others if ucf101.is_list(file)), videos)
    if found:
        outside = [name for name in videos if not any(_below(name, one.folder) for one in found.values())]
        classes = sorted({name.split("/")[0] for name in outside if "/" in name})
        found |= {("folders", name): LayoutGuess("folders", "", name) for name in classes[:1]}
    return sorted(found.values())


def _around(name: str, media: list[str]) -> str:
    """Return the nearest folder around the file that contains one of `media`, else the root."""
    folder = posixpath.dirname(name)
    while folder and not any(_below(other, folder) for other in media):
        folder = posixpath.dirname(folder)
    return folder


def _below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")
