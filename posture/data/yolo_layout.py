"""YOLO folders -> `Pictures`, as Ultralytics reads them and Roboflow writes them."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from pathlib import PurePosixPath
from typing import Any

from posture.data.files import File, exists, is_remote, join
from posture.data.picture_files import AnnotatedPicture, BadLabel, Box, Pictures, Refusal, Tree, numbers, still_group
from posture.data.rows import SPLITS
from posture.errors import InputError

YOLO_LABELS = "labels"
"""The folder of labels beside `images`."""


def yolo_table(tree: Tree) -> str | None:
    """The data set's YAML file. Raises InputError where there are several, or the one is broken."""
    found = []
    for name in tree.tables(".yaml", ".yml"):
        is_it = name == tree.named or PurePosixPath(name).stem == "data"
        try:
            content = _yaml(tree, name)
        except InputError:
            if is_it:
                raise
            continue
        if isinstance(content, dict) and "names" in content and any(split in content for split in SPLITS):
            found.append(name)
        elif is_it:
            raise InputError(f"{join(tree.root, name)}: a YOLO data set needs names and at least one of train, val and test")
    nearest = [name for name in found if name.count("/") == found[0].count("/")]
    if len(nearest) > 1:
        raise InputError(f"{tree.root}: {', '.join(nearest)} describe a data set each; name the one to take in place of the folder")
    return nearest[0] if nearest else None


def _yaml(tree: Tree, name: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(tree.text(name))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{join(tree.root, name)}{where}: not YAML ({getattr(error, 'problem', None) or 'it cannot be read'})") from None


def read_yolo(tree: Tree) -> Pictures | None:
    """Each picture's boxes stand in a text file of its name, `class x y w h` in shares of the picture, below `labels` in place of `images`.

    Polygons give the box around them. A picture without such a file shows nothing, as training by Ultralytics takes it.
    """
    table = yolo_table(tree)
    if table is None:
        return None
    content = _yaml(tree, table)
    where = join(tree.root, table)
    names = _class_names(content["names"], where)
    pose = bool(content.get("kpt_shape"))
    folder = join(tree.root, posixpath.dirname(table)).rstrip("/")
    for base in dict.fromkeys((_base(folder, content.get("path")), tree.root)):
        tree = tree if base == tree.root else Tree(base)
        pictures, missing, notes = _pictures(tree, content, folder, table)
        if pictures:
            break
    else:
        raise InputError(f"{where}: neither train nor val nor test names a folder or list with pictures below {base}")
    labels = {file.relative: _label(file.relative) for file, _ in pictures}
    texts = tree.texts(sorted(name for name in set(labels.values()) if name in tree.files))
    read, refused = [], []
    for file, split in sorted(pictures, key=lambda pair: pair[0].relative):
        name = labels[file.relative]
        try:
            boxes, its_labels = _read_boxes(name, texts.get(name, ""), names, pose=pose)
        except BadLabel as error:
            refused.append(Refusal(file, error.verdict, str(error)))
            continue
        read.append(AnnotatedPicture(file, boxes, its_labels, still_group(file.relative), split, normalised=True))
    return Pictures(tree.root, "yolo", read, missing + _lonely(tree, labels), tree.pictures_without(labels), refused, notes)


def _class_names(names: Any, where: str) -> dict[int, str]:
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names or not all(type(number) is int and number >= 0 for number in names):
        raise InputError(f"{where}: names must be a list of classes, or number: class for each")
    found = {number: str(name).strip() for number, name in names.items()}
    repeated = [name for name, count in Counter(found.values()).items() if count > 1 or not name]
    if repeated:
        raise InputError(f"{where}: names has {repeated[0]!r} {'twice' if repeated[0] else 'for a class'}; every class needs a name of its own")
    return found


def _base(folder: str, path: Any) -> str:
    """The data set's folder: `path` as it is or from the YAML file's folder, which itself it is where `path` names nothing here."""
    if not path or is_remote(folder):
        inside = posixpath.normpath(str(path or "."))
        return folder if inside == "." or inside.startswith(("/", "..")) or not exists(join(folder, inside)) else join(folder, inside)
    place = posixpath.normpath(posixpath.join(folder, str(path)))
    return place if exists(place) else folder


def _pictures(tree: Tree, content: dict[str, Any], folder: str, table: str) -> tuple[list[tuple[File, str]], list[str], list[str]]:
    """Pictures with their split, what is named in vain, and entries that name nothing."""
    pictures: list[tuple[File, str]] = []
    missing: list[str] = []
    notes = []
    for split in SPLITS:
        entries = content.get(split)
        for entry in entries if isinstance(entries, list) else [entries] if entries else []:
            found, lost = _entry(tree, str(entry), folder)
            if not found and not lost:
                notes.append(f"{table}: {split}: {entry} names no folder or list with pictures here")
            pictures += [(file, split) for file in found]
            missing += lost
    return pictures, missing, notes


def _entry(tree: Tree, entry: str, folder: str) -> tuple[list[File], list[str]]:
    """The pictures that one entry of train, val or test names, and what it names in vain."""
    entry = entry.strip().replace("\\", "/")
    home = posixpath.relpath(folder, tree.root) if folder.startswith(tree.root) else "."
    for place in (_inside(tree, entry, "."), _inside(tree, entry, home), re.sub(r"^(\.\./)+", "", entry)):
        place = posixpath.normpath(place or "..")
        if place.lower().endswith(".txt") and place in tree.files:
            return _list(tree, place)
        found = [file for file in tree.pictures if place == "." or file.relative.startswith(f"{place}/")]
        if found:
            return found, []
    return [], []


def _list(tree: Tree, name: str) -> tuple[list[File], list[str]]:
    found, missing = [], []
    for number, line in enumerate(tree.text(name).splitlines(), start=1):
        line = line.strip().replace("\\", "/")
        if not line:
            continue
        parts = line.split("/")  # a list that was made on another machine still ends in the same folders
        places = [_inside(tree, line, "."), _inside(tree, line, posixpath.dirname(name)), *("/".join(parts[at:]) for at in range(1, len(parts) - 1))]
        file = next((tree.files[place] for place in places if place in tree.files), None)
        if file is None:
            missing.append(f"{name} line {number}: {line}")
        else:
            found.append(file)
    return found, missing


def _inside(tree: Tree, place: str, folder: str) -> str | None:
    """`place`, given from `folder` or absolutely, as a path below the tree's root; None where it lies elsewhere."""
    if place.startswith(f"{tree.root}/"):
        return posixpath.normpath(place[len(tree.root) + 1:])
    if place.startswith("/"):
        return None
    inside = posixpath.normpath(posixpath.join(folder, place))
    return None if inside.startswith("..") else inside


def _label(picture: str) -> str:
    parts = list(PurePosixPath(picture).with_suffix(".txt").parts)
    for place in reversed(range(len(parts) - 1)):
        if parts[place] == "images":
            parts[place] = YOLO_LABELS
            break
    return "/".join(parts)


def _read_boxes(name: str, text: str, names: dict[int, str], *, pose: bool) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    boxes: list[Box] = []
    labels = []
    for line, content in enumerate(text.splitlines(), start=1):
        where = f"{name} line {line}"
        fields = numbers(content.split(), where)
        if not fields:
            continue
        number, *shape = fields
        if number not in names:
            raise BadLabel(f"{where}: class {number:g}, and there is {_span(names)}", verdict="unknown_class")
        if len(shape) == 4 or (pose and len(shape) > 4):
            x, y, width, height = shape[:4]
            boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        elif len(shape) >= 6 and len(shape) % 2 == 0:
            boxes.append((min(shape[::2]), min(shape[1::2]), max(shape[::2]), max(shape[1::2])))
        else:
            raise BadLabel(f"{where}: {len(fields)} numbers; a box has 5, a polygon 7, 9 or more")
        labels.append(names[int(number)])
    return tuple(boxes), tuple(labels)


def _span(names: dict[int, str]) -> str:
    if len(names) == 1 or len(names) <= max(names) - min(names):
        return ", ".join(map(str, sorted(names)))
    return f"{min(names)} to {max(names)}"


def _lonely(tree: Tree, labels: dict[str, str]) -> list[str]:
    """Labels in the folders of labels that belong to no picture."""
    named, folders = set(labels.values()), {posixpath.dirname(label) for picture, label in labels.items() if label != _beside(picture)}
    beside = {_beside(file.relative) for file in tree.pictures}
    strays = [name for name in tree.tables(".txt") if posixpath.dirname(name) in folders and name not in named and name not in beside]
    others = {_label(file.relative) for file in tree.pictures}
    return [f"{name}: {PurePosixPath(name).stem}" for name in strays if name not in others and PurePosixPath(name).stem != "classes"]


def _beside(picture: str) -> str:
    return str(PurePosixPath(picture).with_suffix(".txt"))
