"""Read COCO JSON and Pascal VOC into `AnnotatedImages`.

Sources: the COCO data format (Lin 2014), the VOC development kit (Everingham 2010).
"""

from __future__ import annotations

import posixpath
import re
import reprlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element

from posture.data.labels.names import composed, folded
from posture.data.labels.records import AnnotatedImage, AnnotatedImages, BadLabel, Box, Refusal
from posture.data.labels.rle import rle_box
from posture.data.labels.safe_xml import BadXML, parse_xml
from posture.data.labels.tree import IMAGE_SUFFIXES, Tree, around, class_name, numbers, split_of, still_group
from posture.data.store.files import File, join
from posture.data.store.safe_json import MAX_CLASSES, load_json
from posture.errors import InputError

_COCO_KEYS = ("images", "annotations", "categories")
_YES = frozenset({"1", "1.0", "true", "yes"})
_VOC_SHAPES = frozenset({"object", "bndbox", "robndbox", "polygon", "point"})


def coco_tables(tree: Tree) -> list[str]:
    """Return the JSON files that look like COCO's; only the `instances` files if there are any."""
    found = [
        name
        for name in tree.tables(".json")
        if name == tree.named or any(f'"{key}"' in tree.begins(name) for key in _COCO_KEYS)
    ]
    instances = [name for name in found if PurePosixPath(name).name.startswith("instances")]
    return instances or found


def read_coco(tree: Tree) -> AnnotatedImages | None:
    """Read COCO files. Boxes are x, y, w, h in pixels.

    An annotation without a box gets the box around its segmentation or keypoints. Crowds are ignore regions. Ids may be
    numbers or texts: 7 equals "7". Raises InputError if an id is given twice or no annotation belongs to an image.
    """
    return _read_each(tree, "coco", coco_tables(tree), _read_coco_table)


def _read_each(
    tree: Tree, layout: str, sources: list[str], read: Callable[[Tree, str, AnnotatedImages], None]
) -> AnnotatedImages | None:
    if not sources:
        return None
    found = AnnotatedImages(root=tree.root, layout=layout)
    for source in sources:
        read(tree, source, found)
    found.unlabelled.extend(tree.images_without(one.file.relative for one in [*found.images, *found.refused]))
    return found


def _read_coco_table(tree: Tree, table: str, found: AnnotatedImages) -> None:
    content = _coco_content(tree, table)
    where = join(tree.root, table)
    stem = PurePosixPath(table).stem
    words = [
        *re.split(r"[^a-z0-9]+", stem.lower()),
        *reversed([part.lower() for part in PurePosixPath(table).parts[:-1]]),
    ]
    split = next((named for word in words if (named := split_of(word))), None)
    names = _coco_names(content["categories"], where)
    images = _coco_images(content["images"], where)
    by_image: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        by_image[_coco_id(annotation.get("image_id"))].append(annotation)
    if by_image and by_image.keys().isdisjoint(images):
        first = next(iter(by_image))[:40]
        raise InputError(
            f"{where}: none of the {len(content['annotations']):,} annotations has an image_id that is the id of "
            f"an image; the first is {first!r}"
        )
    for image, entry in images.items():
        name = str(entry["file_name"])
        file = _coco_file(tree, name, table, stem.removeprefix("instances_"), split)
        annotations = by_image.pop(image, [])
        if file is None:
            found.missing.append(f"{table}: {name}")
            continue
        try:
            boxes, labels, ignored = _coco_boxes(table, annotations, names)
            sides = numbers((entry.get("height") or 0, entry.get("width") or 0), f"{table}: image {image[:40]}")
        except BadLabel as error:
            found.refused.append(Refusal(file, error.verdict, str(error)))
            continue
        size = (int(sides[0]), int(sides[1])) if all(sides) else None
        found.images.append(AnnotatedImage(file, boxes, labels, still_group(name), split, size=size, ignored=ignored))
    found.missing.extend(f"{table}: image {image[:40]} of {len(lost)} annotations" for image, lost in by_image.items())


def _coco_content(tree: Tree, table: str) -> dict[str, Any]:
    where = join(tree.root, table)
    content = load_json(tree.content(table), where)
    needed = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
    for key, fields in needed.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and all(name in entry for name in fields) for entry in entries
        ):
            raise InputError(
                f"{where}: {key} must be a list of objects{' with ' + ' and '.join(fields) if fields else ''}, as "
                "in COCO"
            )
    return content


def _coco_id(value: Any) -> str:
    """Return an id as text. Some exporters write numbers in one place and texts in another."""
    return (
        str(int(value))
        if isinstance(value, float) and value.is_integer()
        else reprlib.repr(value)
        if isinstance(value, dict | list)
        else str(value).strip()
    )


def _coco_names(categories: list[dict[str, Any]], where: str) -> dict[str, str]:
    if len(categories) > MAX_CLASSES:
        raise InputError(f"{where}: {len(categories):,} categories; the maximum is {MAX_CLASSES:,}")
    names: dict[str, str] = {}
    for entry in categories:
        number = _coco_id(entry["id"])
        try:
            name = class_name(None if entry["name"] is None else str(entry["name"]), f"{where}: category {number[:40]}")
        except BadLabel as error:
            raise InputError(str(error)) from None
        if names.setdefault(number, name) != name:
            raise InputError(f"{where}: category {number[:40]} is both {names[number]!r} and {name!r}")
    return names


def _coco_images(entries: list[dict[str, Any]], where: str) -> dict[str, dict[str, Any]]:
    images: dict[str, dict[str, Any]] = {}
    for entry in entries:
        number = _coco_id(entry["id"])
        if images.setdefault(number, entry) != entry:
            raise InputError(f"{where}: two images have the id {number[:40]}, so their annotations are ambiguous")
    return images


def _coco_boxes(
    table: str, annotations: list[dict[str, Any]], names: dict[str, str]
) -> tuple[tuple[Box, ...], tuple[str, ...], tuple[bool, ...]]:
    """Return boxes, classes, and True for each ignore region: `iscrowd`, or `ignore` in some data sets."""
    boxes: list[Box] = []
    labels, ignored = [], []
    for annotation in annotations:
        where = f"{table}: annotation {reprlib.repr(annotation.get('id'))}"
        category = _coco_id(annotation.get("category_id"))
        if category not in names:
            raise BadLabel(
                f"{where}: category {reprlib.repr(annotation.get('category_id'))} is not in categories",
                verdict="unknown_class",
            )
        boxes.append(_coco_box(annotation, where))
        labels.append(names[category])
        ignored.append(any(str(annotation.get(key, 0)).strip().lower() in _YES for key in ("iscrowd", "ignore")))
    return tuple(boxes), tuple(labels), tuple(ignored) if any(ignored) else ()


def _coco_box(annotation: dict[str, Any], where: str) -> Box:
    box, shape, points = (annotation.get(key) for key in ("bbox", "segmentation", "keypoints"))
    if box is None or box == []:
        if isinstance(shape, dict):
            return rle_box(shape, f"{where}: segmentation")
        if (
            isinstance(shape, list)
            and shape
            and all(isinstance(ring, list) and ring and len(ring) % 2 == 0 for ring in shape)
        ):
            rings = [numbers(ring, f"{where}: segmentation") for ring in shape]
            return around((x, y) for ring in rings for x, y in zip(ring[::2], ring[1::2], strict=True))
        if isinstance(points, list) and len(points) % 3 == 0:
            values = numbers(points, f"{where}: keypoints")
            shown = [(x, y) for x, y, seen in zip(values[::3], values[1::3], values[2::3], strict=True) if seen > 0]
            if len(shown) > 1:
                return around(shown)
    if not isinstance(box, list) or len(box) != 4:
        raise BadLabel(f"{where}: bbox {reprlib.repr(box)} is not x, y, width, height")
    x, y, width, height = numbers(box, f"{where}: bbox")
    return x, y, x + width, y + height


def _coco_file(tree: Tree, name: str, table: str, tag: str, split: str | None) -> File | None:
    """Return the image of that name: beside the table, else in a folder of its name or split, else the only one."""
    found = tree.ending(name, IMAGE_SUFFIXES)
    beside = folded(posixpath.normpath(posixpath.join(posixpath.dirname(table), name.replace("\\", "/"))))

    def folders(file: File) -> list[str]:
        return [part.lower() for part in PurePosixPath(file.relative).parts[:-1]]

    for chosen in (
        [file for file in found if folded(file.relative) == beside],
        [file for file in found if tag.lower() in folders(file)],
        [file for file in found if split and split in map(split_of, folders(file))],
        found,
    ):
        if len(chosen) == 1:
            return chosen[0]
    return None


def voc_folders(tree: Tree) -> list[str]:
    """Return the relative paths of the folders that contain Annotations; "" is the root."""
    found: dict[str, bool] = {}
    for name in tree.tables(".xml"):
        folder = _voc_place(name)[0]
        if folder is not None and not found.get(folder):
            found[folder] = re.search(r"<annotation[\s>]", tree.begins(name)) is not None
    return [folder for folder, is_it in found.items() if is_it]


def voc_tables(tree: Tree) -> list[str]:
    """Return the XML files in the folders Annotations."""
    return [name for name in tree.tables(".xml") if _voc_place(name)[0] is not None]


def _voc_place(name: str) -> tuple[str | None, str]:
    """Return the folder that contains an XML file's Annotations, or None, and the folder below Annotations."""
    parts = posixpath.dirname(name).split("/")
    at = next((at for at, part in enumerate(parts) if part.lower() == "annotations"), None)
    return (None, "") if at is None else ("/".join(parts[:at]), "/".join(parts[at + 1 :]))


def read_voc(tree: Tree) -> AnnotatedImages | None:
    """Read VOC folders. Boxes are xmin, ymin, xmax, ymax: numbers, from 1, of the first and last pixels in the box.

    Lists in ImageSets/Main give the splits. `difficult` objects are ignore regions: VOC counts them neither as found
    nor as missed.
    """
    return _read_each(tree, "voc", voc_folders(tree), _read_voc_folder)


def _read_voc_folder(tree: Tree, folder: str, found: AnnotatedImages) -> None:
    prefix = f"{folder}/" if folder else ""
    images: dict[str, list[File]] = defaultdict(list)
    for file in tree.images:
        if file.relative.startswith(prefix):
            images[composed(file.stem)].append(file)
    tables: dict[str, list[str]] = defaultdict(list)
    for name in tree.tables(".xml"):
        if _voc_place(name)[0] == folder:
            tables[composed(PurePosixPath(name).stem)].append(name)
    contents = tree.contents(name for names in tables.values() for name in names)
    listed = _voc_lists(tree, prefix, set(tables))
    for stem, split, where in listed or [(stem, None, names[0]) for stem, names in tables.items()]:
        if stem not in images:
            found.missing.append(f"{where}: {stem}")
            continue
        for name in tables.get(stem, ()):
            _read_voc_file(name, contents[name], images[stem], split, found)
    if listed:
        found.missing.extend(f"{names[0]}: {stem}" for stem, names in tables.items() if stem not in images)


def _read_voc_file(name: str, content: bytes, files: list[File], split: str | None, found: AnnotatedImages) -> None:
    """Add the image that the file describes, or refuse it. `files` are the images with its stem."""
    try:
        root = parse_xml(content)
        inner = f"/{_voc_place(name)[1]}".rstrip("/")
        filename = folded(PurePosixPath((root.findtext("filename") or "").strip().replace("\\", "/")).name)
        for chosen in (
            [file for file in files if f"/{posixpath.dirname(file.relative)}".endswith(inner)],
            [file for file in files if folded(file.name) == filename],
            [file for file in files if "jpegimages" in file.relative.lower().split("/")[:-1]],
        ):
            files = [file for file in files if file in chosen] or files
        if len(files) > 1:
            raise BadLabel(f"{name}: it may belong to {' or '.join(file.relative for file in files)}")
        boxes, labels, ignored, size = _voc_boxes(name, root)
    except (BadXML, BadLabel) as error:
        verdict, reason = (
            (error.verdict, str(error)) if isinstance(error, BadLabel) else ("bad_label", f"{name}: {error}")
        )
        found.refused.extend(Refusal(file, verdict, reason) for file in files)
        return
    found.images.append(
        AnnotatedImage(files[0], boxes, labels, still_group(files[0].relative), split, size=size, ignored=ignored)
    )


def _voc_lists(tree: Tree, prefix: str, tables: set[str]) -> list[tuple[str, str, str]]:
    """Return (stem, split, list and line) of each image in ImageSets/Main. trainval is used if there is no train."""
    lists = {name: tree.at(f"{prefix}ImageSets/Main/{name}.txt") for name in ("train", "val", "test", "trainval")}
    there = {name: file.relative for name, file in lists.items() if file}
    if "trainval" in there:
        there = there if "train" not in there else {name: path for name, path in there.items() if name != "trainval"}
    lines = []
    for name, path in there.items():
        for number, line in enumerate(tree.text(path).splitlines(), start=1):
            if stem := composed(line.strip()):
                # a stem may contain spaces; lists of one class add 1 or -1
                stem = stem if stem in tables else stem.split()[0]
                lines.append((stem, name.replace("trainval", "train"), f"{path} line {number}"))
    return list({(stem, split): (stem, split, where) for stem, split, where in lines}.values())


def _voc_boxes(
    name: str, root: Element
) -> tuple[tuple[Box, ...], tuple[str, ...], tuple[bool, ...], tuple[int, int] | None]:
    """Return boxes, classes, True for each ignore region, and (height, width) if the file gives it."""
    if root.tag != "annotation":
        raise BadLabel(f"{name}: its root is <{root.tag[:40]}>, not <annotation>")
    objects = root.findall("object")
    if not objects and (
        stray := next((element.tag for element in root.iter() if element.tag.lower() in _VOC_SHAPES), None)
    ):
        raise BadLabel(f"{name}: <{stray}> is not in an <object> below <annotation>, so it is not read")
    boxes: list[Box] = []
    labels, ignored = [], []
    for number, item in enumerate(objects, start=1):
        where = f"{name}: object {number}"
        labels.append(class_name(item.findtext("name"), where))
        if item.find("bndbox") is None:
            raise BadLabel(f"{where} ({labels[-1]}): bndbox is missing")
        left, top, right, bottom = numbers(
            (item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")), f"{where}: bndbox"
        )
        boxes.append((left - 1, top - 1, right, bottom))
        ignored.append((item.findtext("difficult") or "").strip().lower() in _YES)
    height, width = numbers((root.findtext(f"size/{side}") or 0 for side in ("height", "width")), f"{name}: size")
    size = (int(height), int(width)) if height and width else None
    return tuple(boxes), tuple(labels), tuple(ignored) if any(ignored) else (), size
