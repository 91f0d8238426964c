"""COCO JSON and Pascal VOC -> `Pictures`.

Sources: the COCO data format (Lin 2014), the VOC development kit (Everingham 2010).
"""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from pathlib import PurePosixPath
from typing import Any

from posture.data.files import File, join
from posture.data.picture_files import AnnotatedPicture, BadLabel, Box, Pictures, Refusal, Tree, numbers, split_of, still_group
from posture.data.plain_xml import BadXML, parse_xml
from posture.errors import InputError

_COCO_KEYS = ("images", "annotations", "categories")


def coco_tables(tree: Tree) -> list[str]:
    """JSON files that look like COCO's; of COCO's own, the instances alone."""
    found = [name for name in tree.tables(".json") if name == tree.named or any(f'"{key}"' in tree.begins(name) for key in _COCO_KEYS)]
    instances = [name for name in found if PurePosixPath(name).name.startswith("instances")]
    return instances or found


def read_coco(tree: Tree) -> Pictures | None:
    """Boxes as x, y, w, h in pixels. Crowds, which no single box fits, are left out and counted."""
    tables = coco_tables(tree)
    if not tables:
        return None
    by_name: dict[str, list[File]] = defaultdict(list)
    for file in tree.pictures:
        by_name[PurePosixPath(file.relative).name].append(file)
    found = Pictures(tree.root, "coco", [])
    crowds = 0
    for table in tables:
        content = _coco_content(tree, table)
        stem = PurePosixPath(table).stem
        words = [*re.split(r"[^a-z0-9]+", stem.lower()), *reversed([part.lower() for part in PurePosixPath(table).parts[:-1]])]
        split = next((named for word in words if (named := split_of(word))), None)
        names = {entry["id"]: str(entry["name"]).strip() for entry in content["categories"]}
        by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for annotation in content["annotations"]:
            by_image[annotation.get("image_id")].append(annotation)
        for entry in content["images"]:
            name = str(entry["file_name"]).replace("\\", "/")
            file = _coco_file(by_name, name, table, stem.removeprefix("instances_"), split)
            annotations = by_image.pop(entry["id"], [])
            if file is None:
                found.missing.append(f"{table}: {name}")
                continue
            crowds += sum(bool(annotation.get("iscrowd")) for annotation in annotations)
            try:
                boxes, labels = _coco_boxes(table, [annotation for annotation in annotations if not annotation.get("iscrowd")], names)
                size = tuple(int(side) for side in numbers((entry.get("height", 0), entry.get("width", 0)), f"{table}: image {entry['id']}"))
            except BadLabel as error:
                found.refused.append(Refusal(file, error.verdict, str(error)))
                continue
            found.pictures.append(AnnotatedPicture(file, boxes, labels, still_group(name), split, size=size if all(size) else None))  # type: ignore[arg-type]
        found.missing.extend(f"{table}: image {image} of {len(lost)} annotations" for image, lost in by_image.items())
    if crowds:
        found.notes.append(f"{crowds:,} annotations of crowds were left out")
    used = {picture.file.relative for picture in found.pictures} | {refusal.file.relative for refusal in found.refused}
    found.unlabelled.extend(tree.pictures_without(used))
    return found


def _coco_content(tree: Tree, table: str) -> dict[str, Any]:
    where = join(tree.root, table)
    try:
        content = json.loads(tree.text(table))
    except json.JSONDecodeError as error:
        raise InputError(f"{where} line {error.lineno}: not JSON ({error.msg})") from None
    needed = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
    for key, fields in needed.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) and all(name in entry for name in fields) for entry in entries):
            raise InputError(f"{where}: {key} must be a list of objects{' with ' + ' and '.join(fields) if fields else ''}, as COCO has it")
    return content


def _coco_boxes(table: str, annotations: list[dict[str, Any]], names: dict[Any, str]) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    boxes: list[Box] = []
    labels = []
    for annotation in annotations:
        where = f"{table}: annotation {annotation.get('id')}"
        if annotation.get("category_id") not in names:
            raise BadLabel(f"{where}: category {annotation.get('category_id')!r} is not in categories", verdict="unknown_class")
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise BadLabel(f"{where}: bbox {str(box)[:60]} is not x, y, width, height")
        x, y, width, height = numbers(box, f"{where}: bbox")
        boxes.append((x, y, x + width, y + height))
        labels.append(names[annotation["category_id"]])
    return tuple(boxes), tuple(labels)


def _coco_file(by_name: dict[str, list[File]], name: str, table: str, tag: str, split: str | None) -> File | None:
    """The picture of that name: beside the table, else in the folder that is named like the table, else in its split's, else the only one."""
    found = [file for file in by_name[PurePosixPath(name).name] if f"/{file.relative}".endswith(f"/{name}")]
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(table), name))

    def folders(file: File) -> list[str]:
        return [part.lower() for part in PurePosixPath(file.relative).parts[:-1]]

    for chosen in ([file for file in found if file.relative == beside], [file for file in found if tag.lower() in folders(file)],
                   [file for file in found if split and split in map(split_of, folders(file))], found):
        if len(chosen) == 1:
            return chosen[0]
    return None


def voc_folders(tree: Tree) -> list[str]:
    """Relative paths of the folders that have Annotations in them; "" is the root."""
    found = {}
    for name in tree.tables(".xml"):
        folder, inner = posixpath.split(posixpath.dirname(name))
        if inner.lower() == "annotations" and folder not in found:
            found[folder] = re.search(r"<annotation[\s>]", tree.begins(name)) is not None
    return [folder for folder, is_it in found.items() if is_it]


def read_voc(tree: Tree) -> Pictures | None:
    """Boxes as xmin, ymin, xmax, ymax, the numbers from 1 of pixels that belong to the box. Lists in ImageSets/Main give the splits."""
    folders = voc_folders(tree)
    if not folders:
        return None
    found = Pictures(tree.root, "voc", [])
    for folder in folders:
        _read_voc_folder(tree, folder, found)
    used = {picture.file.relative for picture in found.pictures} | {refusal.file.relative for refusal in found.refused}
    found.unlabelled.extend(tree.pictures_without(used))
    return found


def _read_voc_folder(tree: Tree, folder: str, found: Pictures) -> None:
    prefix = f"{folder}/" if folder else ""
    pictures: dict[str, File] = {}
    for file in tree.pictures:
        if file.relative.startswith(prefix):
            pictures.setdefault(PurePosixPath(file.relative).stem, file)
    tables = {PurePosixPath(name).stem: name for name in tree.tables(".xml")
              if name.startswith(prefix) and posixpath.dirname(name[len(prefix):]).lower() == "annotations"}
    texts = tree.texts(tables.values())
    listed = _voc_lists(tree, prefix)
    for stem, split, where in listed or [(stem, None, name) for stem, name in tables.items()]:
        file = pictures.get(stem)
        if file is None:
            found.missing.append(f"{where}: {stem}")
        elif stem in tables:
            try:
                boxes, labels, size = _voc_boxes(tables[stem], texts[tables[stem]])
            except BadLabel as error:
                found.refused.append(Refusal(file, error.verdict, str(error)))
                continue
            found.pictures.append(AnnotatedPicture(file, boxes, labels, still_group(file.relative), split, size=size))
    if listed:
        found.missing.extend(f"{name}: {stem}" for stem, name in tables.items() if stem not in pictures)


def _voc_lists(tree: Tree, prefix: str) -> list[tuple[str, str, str]]:
    """(stem, split, list and line) of every picture in ImageSets/Main; trainval counts where there is no train."""
    lists = {name: f"{prefix}ImageSets/Main/{name}.txt" for name in ("train", "val", "test", "trainval")}
    there = {name: path for name, path in lists.items() if path in tree.files}
    if "trainval" in there:
        there = there if "train" not in there else {name: path for name, path in there.items() if name != "trainval"}
    lines = [(line.split()[0], name.replace("trainval", "train"), f"{path} line {number}")
             for name, path in there.items() for number, line in enumerate(tree.text(path).splitlines(), start=1) if line.strip()]
    return list({(stem, split): (stem, split, where) for stem, split, where in lines}.values())


def _voc_boxes(name: str, text: str) -> tuple[tuple[Box, ...], tuple[str, ...], tuple[int, int] | None]:
    try:
        root = parse_xml(text)
    except BadXML as error:
        raise BadLabel(f"{name}: {error}") from None
    boxes: list[Box] = []
    labels = []
    for number, item in enumerate(root.findall("object"), start=1):
        where = f"{name}: object {number}"
        label = (item.findtext("name") or "").strip()
        if not label:
            raise BadLabel(f"{where}: it has no name")
        left, top, right, bottom = numbers((item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")), f"{where}: bndbox")
        boxes.append((left - 1, top - 1, right, bottom))
        labels.append(label)
    height, width = numbers((root.findtext(f"size/{side}") or 0 for side in ("height", "width")), f"{name}: size")
    return tuple(boxes), tuple(labels), (int(height), int(width)) if height and width else None
