"""Read images with boxes: every layout becomes image files and frames of videos with boxes (`AnnotatedImages`).

| layout | recognised by |
|---|---|
| yolo | a data.yaml with names and train, val or test |
| coco | JSON with images, annotations and categories |
| voc | Annotations/*.xml with the root `annotation` |
| cvat | XML with the root `annotations` (CVAT for video 1.1) beside its video |
| ucf101_24 | finalAnnots.mat and videos |

The layout gives the splits. If it names only `train`, nothing is held out, and the store assigns all splits by group.
If it names only `train` and `val`, then `val` is the hold-out: it becomes `test`, and a new `val` is taken from
`train`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal, get_args

from posture.data.labels import coco_voc, cvat, tubes, yolo
from posture.data.labels.names import first_few
from posture.data.labels.records import AnnotatedImage, AnnotatedImages
from posture.data.labels.table import table_of
from posture.data.labels.tree import Tree
from posture.data.store.files import join
from posture.data.store.safe_json import MAX_CLASSES
from posture.errors import InputError

Layout = Literal["yolo", "coco", "voc", "cvat", "ucf101_24"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
OF_STILLS = ("yolo", "coco", "voc")
"""Layouts of image files. The others are of videos, whose frames are sampled."""

LIKE_LABELS = re.compile(
    r'"(annotations|shapes|regions|objects|bbox|keypoints)"\s*:|<(annotations?|object|bndbox|track)[\s>]'
)
"""Text in a JSON or XML file that suggests labels of images, as COCO, LabelMe, VIA, VOC and CVAT write them."""
MAX_EXAMINED = 50

LABELS = {
    "yolo": "a data.yaml with names, train and val",
    "coco": "a JSON file with images, annotations and categories",
    "voc": "Annotations/*.xml, one for each image",
    "cvat": "an XML file exported as CVAT for video 1.1, and its video",
    "ucf101_24": f"{tubes.UCF101_24} and its videos",
}


def image_layout(source: str) -> str | None:
    """Return the layout of images with boxes at `source`: a folder, an `s3://` prefix or a label file. None if there is
    none.

    Raises InputError if there are images, no video, and no labels.
    """
    if table_of(source)[1]:
        return None
    tree = Tree(source)
    layout = _recognise(tree)
    if layout is None and tree.images and not tree.videos:
        raise InputError(
            f"{tree.root}: images without labels; add {'; or '.join(LABELS[name] for name in ('yolo', 'coco', 'voc'))}"
        )
    return layout


def read_images(
    source: str,
    *,
    layout: str | None = None,
    every: int = 8,
    named_val: str = "test",
    split_number: int = 1,
    outside: bool = False,
) -> AnnotatedImages:
    """Read the images at `source`, and sampled frames of its videos, with their boxes.

    Every `every`-th frame of a video is taken. `named_val` is the split that a `val` becomes if the layout has no
    `test`. `split_number` selects one of UCF101's three official splits, if their lists are beside finalAnnots.mat.
    `outside` allows the `path` of a data.yaml to leave `source`. Labels of single images that cannot be used are in
    `refused`. Raises InputError if a file that describes all images cannot be read.
    """
    if layout is not None and layout not in LAYOUTS:
        raise InputError(f"--layout {layout}: the layouts of images are {', '.join(LAYOUTS)}")
    tree = Tree(source)
    found = layout or _recognise(tree)
    if found is None:
        raise InputError(f"{tree.root}: no layout of images with boxes recognised; Posture reads {', '.join(LAYOUTS)}")
    if found in ("cvat", "ucf101_24"):
        tracked = cvat.read_cvat(tree) if found == "cvat" else tubes.read_ucf101_24(tree, split_number=split_number)
        images = None if tracked is None else tubes.sample(tracked, every=every)
    elif found == "yolo":
        images = yolo.read_yolo(tree, outside=outside)
    else:
        images = coco_voc.read_coco(tree) if found == "coco" else coco_voc.read_voc(tree)
    if images is None:
        raise InputError(f"{tree.root}: the layout {found} needs {LABELS[found]}")
    if not images.images and not images.refused:
        first = f" (the first: {images.missing[0]})" if images.missing else ""
        raise InputError(f"{images.root}: no label names an image or video that is here{first}")
    return _with_splits(_with_notes(replace(images, images=_without_repeated_images(images.images)), tree), named_val)


def _recognise(tree: Tree) -> str | None:
    if tree.videos and any(PurePosixPath(name).name == tubes.UCF101_24 for name in tree.tables(".mat")):
        return "ucf101_24"
    if tree.images or tree.named:
        for layout, holds in (("yolo", yolo.yolo_table), ("coco", coco_voc.coco_tables), ("voc", coco_voc.voc_folders)):
            if holds(tree):
                return layout
    if not (tables := cvat.cvat_tables(tree)):
        return None
    if not tree.videos:
        raise InputError(
            f"{join(tree.root, tables[0])}: CVAT's XML, but no video is here; export a task of images as YOLO or COCO"
        )
    return "cvat"


def _without_repeated_images(images: list[AnnotatedImage]) -> list[AnnotatedImage]:
    """Remove repeated images. Raises InputError if two label files disagree about an image."""
    seen: dict[tuple[str, int | None, str | None], AnnotatedImage] = {}
    for image in images:
        if seen.setdefault((image.file.uri, image.frame, image.split), image) != image:
            frame = "" if image.frame is None else f" frame {image.frame}"
            raise InputError(
                f"{image.file.relative}{frame} is labelled twice, with different boxes; give one label file "
                "instead of the folder"
            )
    return list(seen.values())


def _with_notes(found: AnnotatedImages, tree: Tree) -> AnnotatedImages:
    """Remove repeated boxes and add notes for the user. Raises InputError if there are too many classes."""
    classes = {label for image in found.images for label in image.labels}
    if len(classes) > MAX_CLASSES:
        raise InputError(f"{found.root}: boxes of {len(classes):,} classes; at most {MAX_CLASSES:,} are read")
    images = [_without_repeated_boxes(image) for image in found.images]
    notes = list(found.notes)
    if repeated := sum(
        len(before.boxes) - len(after.boxes) for before, after in zip(found.images, images, strict=True)
    ):
        notes.append(f"boxes given twice in their image, counted once: {repeated:,}")
    if ignored := sum(sum(image.ignored) for image in images):
        notes.append(
            "boxes of crowds or difficult objects, kept as ignore regions (neither true nor false positives, and "
            f"not trained on): {ignored:,}"
        )
    if tree.videos and found.layout in OF_STILLS:
        notes.append(
            f"{len(tree.videos):,} videos are here too and are not read, because the layout {found.layout} is for "
            "images"
        )
    if strange := _unread_labels(tree, found.layout):
        notes.append(f"not read, because the layout is {found.layout}, but may hold labels: {first_few(strange)}")
    if tree.unread:
        kinds = sorted({file.suffix for file in tree.unread})
        notes.append(
            f"images in a format that is not read ({', '.join(kinds)}; convert them to JPEG or PNG): "
            f"{len(tree.unread):,}"
        )
    return replace(found, images=images, notes=notes)


def _unread_labels(tree: Tree, layout: str) -> list[str]:
    """Return files that look like labels among the first MAX_EXAMINED JSON and XML files that the layout ignores."""
    if tree.named:
        return []
    read = {"coco": coco_voc.coco_tables, "voc": coco_voc.voc_tables, "cvat": cvat.cvat_tables}.get(
        layout, lambda tree: []
    )(tree)
    others = sorted({name for name in tree.files if name.lower().endswith((".json", ".xml"))}.difference(read))
    return [name for name in others[:MAX_EXAMINED] if LIKE_LABELS.search(tree.begins(name))]


def _without_repeated_boxes(image: AnnotatedImage) -> AnnotatedImage:
    count = len(image.boxes)
    rows = list(
        zip(image.boxes, image.labels, image.ignored or (False,) * count, image.tubes or ("",) * count, strict=True)
    )
    first = {row: index for index, row in reversed(list(enumerate(rows)))}
    if len(first) == count:
        return image
    kept = sorted(first.values())
    chosen = {
        name: tuple(getattr(image, name)[index] for index in kept)
        for name in ("boxes", "labels", "tubes", "ignored")
        if getattr(image, name)
    }
    return replace(image, **chosen)


def _with_splits(found: AnnotatedImages, named_val: str) -> AnnotatedImages:
    """Set the splits that the store keeps, and None if the store assigns them."""
    images, notes = _without_repeated_lists(found.images), list(found.notes)
    named = {image.split for image in images} - {None}
    if named == {"train"}:
        images = [replace(image, split=None) for image in images]
    elif "val" in named and "test" not in named and named_val == "test":
        images = [replace(image, split="test") if image.split == "val" else image for image in images]
        notes.append(
            "val is the only hold-out, so it becomes test, and a new val is taken from train by group (use "
            "--named-val val to keep it as val)"
        )
    groups = {image.group for image in images if image.split is None} if not named - {"train"} else set()
    if len(groups) == 1 and "" not in groups and len(images) > 1:
        notes.append(
            f"all images are in one group, {groups.pop()}, so nothing can be held out for val or test; a group is "
            "a video, or a folder of its frames"
        )
    if groups == {""} and len(images) > 1 and found.layout in OF_STILLS:
        notes.append(
            "every image is a group of its own, so two frames of one recording may be in different splits; to "
            "keep them together, name them by their video (match3_frame_0012.jpg), or number them in a folder "
            "for each video (match3/0012.jpg)"
        )
    return replace(found, images=images, notes=notes)


def _without_repeated_lists(images: list[AnnotatedImage]) -> list[AnnotatedImage]:
    """Remove the splits that have the same files, as in data sets made only to try something out."""
    files: dict[str | None, set[str]] = {}
    for image in images:
        files.setdefault(image.split, set()).add(image.file.uri)
    repeated = {split for split in files for other in files if split != other and files[split] == files[other]}
    if not repeated:
        return images
    kept = {(image.file.uri, image.frame): replace(image, split=None) for image in images if image.split in repeated}
    return [image for image in images if image.split not in repeated] + list(kept.values())
