"""Read YOLO folders into `AnnotatedImages`, as Ultralytics reads them and Roboflow writes them."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections import Counter, defaultdict
from pathlib import PurePosixPath
from typing import Any

from posture.data.labels.names import folded
from posture.data.labels.records import AnnotatedImage, AnnotatedImages, BadLabel, Box, Refusal
from posture.data.labels.tree import Tree, around, class_name, decoded, numbers, still_group
from posture.data.store.files import File, exists, is_remote, join
from posture.data.store.safe_json import MAX_CLASSES, load_yaml
from posture.data.store.schema import SPLITS
from posture.display.text import counted
from posture.errors import InputError

LABELS_FOLDER = "labels"
"""Name of the label folder beside the image folder, in any letter case."""
MAX_SHARE = 2.0
"""A larger coordinate must be in pixels. One a little over 1 belongs to a box that leaves its image."""
KNOWN_KEYS = frozenset({
    *SPLITS, "names", "nc", "path",
    "kpt_shape", "kpt_names", "flip_idx", "channels", "download", "roboflow", "yaml_file",
})  # fmt: skip
"""Keys of a data.yaml. Other keys are reported: `valid` in place of `val` would lose a split."""


def yolo_table(tree: Tree) -> str | None:
    """Return the data set's YAML file. Raises InputError if there are several, or it is broken."""
    found = []
    for name in tree.tables(".yaml", ".yml"):
        is_it = name == tree.named or PurePosixPath(name).stem.lower() == "data"
        try:
            content = load_yaml(tree.text(name), join(tree.root, name))
        except InputError:
            if is_it:
                raise
            continue
        if isinstance(content, dict) and "names" in content and any(split in content for split in SPLITS):
            found.append(name)
        elif is_it:
            raise InputError(
                f"{join(tree.root, name)}: a YOLO data set needs names and at least one of train, val and test"
            )
    nearest = [name for name in found if name.count("/") == found[0].count("/")]
    if len(nearest) > 1:
        raise InputError(
            f"{tree.root}: {', '.join(nearest)} describe a data set each; give one of them instead of the folder"
        )
    return nearest[0] if nearest else None


def read_yolo(tree: Tree, *, outside: bool = False) -> AnnotatedImages | None:
    """Read the boxes of each image from the text file of its name in `labels` beside the image folder.

    A line is `class x y w h` in shares of the image. Polygons and rotated boxes give the box around them. An image
    without a label file has no boxes, as in Ultralytics; a note says how many there are. Raises InputError if the YAML
    file is broken, or its `path` leaves the tree and `outside` is not set.
    """
    table = yolo_table(tree)
    if table is None:
        return None
    content, where = load_yaml(tree.text(table), join(tree.root, table)), join(tree.root, table)
    names = _class_names(content["names"], content.get("nc"), where)
    points = _keypoints(content.get("kpt_shape"), where)
    folder = join(tree.root, posixpath.dirname(table)).rstrip("/")
    for base in dict.fromkeys((_base(tree, folder, content.get("path"), where, outside=outside), tree.root)):
        tree = tree if base == tree.root else Tree(base)
        images, missing, notes = _images_listed(tree, content, folder, table)
        if images:
            break
    else:
        raise InputError(f"{where}: none of train, val and test names a folder or list with images below {base}")
    notes += [
        f"{table}: {key} is not read; the splits are train, val and test" for key in content if key not in KNOWN_KEYS
    ]
    labels = {file.relative: _label(tree, file.relative) for file in dict.fromkeys(file for file, _ in images)}
    contents = tree.contents(sorted({name for name in labels.values() if name}))
    if bare := [image for image, name in labels.items() if not name]:
        notes.append(
            f"images without a label file, such as {_places(bare[0])[0]}, taken as images without objects: "
            f"{len(bare):,} of {len(labels):,}"
        )
    owners: dict[str, set[str]] = defaultdict(set)
    for image, name in labels.items():
        owners[name].add(posixpath.dirname(image))
    read, refused = [], []
    for file, split in sorted(images, key=lambda pair: pair[0].relative):
        name = labels[file.relative]
        try:
            if name and len(owners[name]) > 1:
                raise BadLabel(f"{name} may belong to images in {' and '.join(sorted(owners[name]))}")
            boxes, its_labels = _read_boxes(name, contents.get(name, b""), names, points=points)
        except BadLabel as error:
            refused.append(Refusal(file, error.verdict, str(error)))
            continue
        read.append(AnnotatedImage(file, boxes, its_labels, still_group(file.relative), split, normalised=True))
    return AnnotatedImages(
        root=tree.root,
        layout="yolo",
        images=read,
        missing=missing + _unused_labels(tree, labels),
        unlabelled=tree.images_without(labels),
        refused=list(dict.fromkeys(refused)),
        notes=notes,
    )


def _class_names(names: Any, count: Any, where: str) -> dict[int, str]:
    if isinstance(names, list):
        names = {str(number): name for number, name in enumerate(names)}
    if not isinstance(names, dict) or not names or not all(number.isdecimal() and len(number) < 10 for number in names):
        raise InputError(f"{where}: names must be a list of classes, or number: class for each")
    if len(names) > MAX_CLASSES:
        raise InputError(f"{where}: {len(names):,} classes; the maximum is {MAX_CLASSES:,}")
    try:
        found = {
            int(number): class_name(name if isinstance(name, str) else None, f"{where}: names, class {number}")
            for number, name in names.items()
        }
    except BadLabel as error:
        raise InputError(str(error)) from None
    repeated = [name for name, times in Counter(found.values()).items() if times > 1]
    if repeated:
        raise InputError(f"{where}: names has {repeated[0]!r} twice; each class needs its own name")
    if isinstance(count, str) and count.isdecimal() and count != str(len(found)):
        raise InputError(f"{where}: nc is {count[:20]}, but names has {counted(len(found), 'class', 'classes')}")
    return found


def _keypoints(shape: Any, where: str) -> int:
    """Return how many numbers for keypoints follow a pose's box; 0 if there are none."""
    if not shape:
        return 0
    if not isinstance(shape, list) or not all(
        isinstance(side, str) and side.isdecimal() and len(side) < 4 for side in shape
    ):
        raise InputError(f"{where}: kpt_shape must be [points, 2] or [points, 3]")
    return math.prod(map(int, shape))


def _base(tree: Tree, folder: str, path: Any, where: str, *, outside: bool) -> str:
    """Return the data set's folder: `path`, absolute or from the YAML file's folder, or that folder without it."""
    path = path if isinstance(path, str) else ""
    if is_remote(folder):
        inside = posixpath.normpath(path or ".")
        return (
            folder
            if inside == "." or inside.startswith(("/", "..")) or not exists(join(folder, inside))
            else join(folder, inside)
        )
    target = posixpath.normpath(posixpath.join(folder, path)) if "\0" not in path else folder
    if not path or not exists(target):
        return folder
    root, real = os.path.realpath(tree.root), os.path.realpath(target)
    if not outside and os.path.commonpath([root, real]) != root:
        raise InputError(f"{where}: path: {path} leads out of {tree.root}; add --outside to read it")
    return target


def _images_listed(
    tree: Tree, content: dict[str, Any], folder: str, table: str
) -> tuple[list[tuple[File, str]], list[str], list[str]]:
    """Return the images with their split, the listed files that are missing, and notes about entries without images."""
    images: list[tuple[File, str]] = []
    missing: list[str] = []
    notes = []
    for split in SPLITS:
        entries = content.get(split)
        for entry in entries if isinstance(entries, list) else [entries]:
            if not isinstance(entry, str) or entry.strip() in ("", "~", "null", "None"):
                continue
            found, lost = _entry(tree, entry, folder)
            if not found and not lost:
                notes.append(f"{table}: {split}: {entry} names no folder or list with images here")
            images += [(file, split) for file in found]
            missing += lost
    return images, missing, notes


def _entry(tree: Tree, entry: str, folder: str) -> tuple[list[File], list[str]]:
    """Return the images that an entry of train, val or test names, and the listed files that are missing."""
    entry = entry.strip().replace("\\", "/")
    home = posixpath.relpath(folder, tree.root) if folder.startswith(tree.root) else "."
    for path in (_inside(tree, entry, "."), _inside(tree, entry, home), re.sub(r"^(\.\./)+", "", entry)):
        path = posixpath.normpath(path or "..")
        if path.lower().endswith(".txt") and (listed := tree.at(path)):
            return _list(tree, listed.relative)
        found = [file for file in tree.images if path == "." or folded(file.relative).startswith(folded(f"{path}/"))]
        if found:
            return found, []
    return [], []


def _list(tree: Tree, name: str) -> tuple[list[File], list[str]]:
    found, missing = [], []
    for number, line in enumerate(tree.text(name).splitlines(), start=1):
        line = line.strip().replace("\\", "/")
        if not line:
            continue
        parts = line.split("/")  # a list made on another machine still ends in the same folders
        paths = [
            _inside(tree, line, "."),
            _inside(tree, line, posixpath.dirname(name)),
            *("/".join(parts[at:]) for at in range(1, len(parts) - 1)),
        ]
        file = next((file for path in paths if path and (file := tree.at(path))), None)
        if file is None:
            missing.append(f"{name} line {number}: {line}")
        else:
            found.append(file)
    return found, missing


def _inside(tree: Tree, path: str, folder: str) -> str | None:
    """Return `path`, absolute or relative to `folder`, as a path below the tree's root; None if it is outside."""
    if path.startswith(f"{tree.root}/"):
        return posixpath.normpath(path[len(tree.root) + 1 :])
    if path.startswith("/"):
        return None
    inside = posixpath.normpath(posixpath.join(folder, path))
    return None if inside.startswith("..") else inside


def _places(image: str) -> list[str]:
    """Return where an image's labels may be: Ultralytics' place, then with other folders replaced, then beside it."""
    parts = PurePosixPath(image).with_suffix(".txt").parts
    swapped = {at: "/".join([*parts[:at], LABELS_FOLDER, *parts[at + 1 :]]) for at in reversed(range(len(parts) - 1))}
    first = next((at for at in swapped if parts[at].lower() == "images"), None)
    return [*([swapped[first]] if first is not None else []), *swapped.values(), "/".join(parts)]


def _label(tree: Tree, image: str) -> str:
    """Return the path of an image's label file; "" if it has none."""
    return next((file.relative for path in _places(image) if (file := tree.at(path))), "")


def _read_boxes(
    name: str, content: bytes, names: dict[int, str], *, points: int
) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Return the boxes and classes in a label file. `points` numbers for keypoints follow each box."""
    boxes: list[Box] = []
    labels = []
    try:
        text = decoded(content)
    except UnicodeDecodeError:
        raise BadLabel(f"{name}: the file is not UTF-8 text") from None
    for line, row in enumerate(text.splitlines(), start=1):
        where = f"{name} line {line}"
        fields = numbers(row.split(), where)
        if not fields:
            continue
        number, *shape = fields
        if number not in names:
            raise BadLabel(
                f"{where}: class {number:g} does not exist; the classes are {_span(names)}", verdict="unknown_class"
            )
        shape = shape[:4] if points and len(shape) == 4 + points else shape
        if any(share > MAX_SHARE for share in shape):
            raise BadLabel(
                f"{where}: {max(shape):g} is not a share of the image between 0 and 1; divide coordinates in "
                "pixels by its width and height"
            )
        if len(shape) == 4:
            x, y, width, height = shape
            boxes.append((x - width / 2, y - height / 2, x + width / 2, y + height / 2))
        elif len(shape) >= 6 and len(shape) % 2 == 0 and not points:
            boxes.append(around(zip(shape[::2], shape[1::2], strict=True)))
        else:
            raise BadLabel(
                f"{where}: {len(fields)} numbers; a box has 5, a polygon 7, 9 or more"
                + (
                    f", a pose {5 + points} by kpt_shape"
                    if points
                    else "; remove a sixth number, such as a confidence or a track id"
                )
            )
        labels.append(names[int(number)])
    return tuple(boxes), tuple(labels)


def _span(names: dict[int, str]) -> str:
    if len(names) == 1 or len(names) <= max(names) - min(names):
        return ", ".join(map(str, sorted(names)[:20])) + (" ..." if len(names) > 20 else "")
    return f"{min(names)} to {max(names)}"


def _unused_labels(tree: Tree, labels: dict[str, str]) -> list[str]:
    """Return label files that belong to no image, and are empty or begin with a number.

    They are in a folder with other label files, in a folder named `labels`, or named like an image that has no labels.
    """
    used, folders = set(labels.values()), {posixpath.dirname(name) for name in labels.values() if name}
    used |= {_label(tree, file.relative) for file in tree.images if file.relative not in labels}
    bare = {folded(PurePosixPath(image).stem) for image, name in labels.items() if not name}
    strays = [
        name
        for name in tree.files
        if name.lower().endswith(".txt")
        and name not in used
        and (
            posixpath.dirname(name) in folders
            or LABELS_FOLDER in name.lower().split("/")[:-1]
            or folded(PurePosixPath(name).stem) in bare
        )
    ]
    return [
        f"{name}: {PurePosixPath(name).stem}" for name, content in tree.contents(strays).items() if _is_label(content)
    ]


def _is_label(content: bytes) -> bool:
    first = decoded(content, errors="replace").split(maxsplit=1)[:1]
    try:
        return not first or math.isfinite(float(first[0]))
    except ValueError:
        return False
