"""Small labelled images and tracked videos for tests, in the layouts that people have. What is boxed is bright, all
else is dark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from posture.data.decode.video import write_video
from posture.data.labels.tubes import UCF101_24_SIZE
from tests.conftest import SHARED_FOOTAGE

BRIGHT = 150
Box = tuple[int, int, int, int]


def shared(name: str) -> Path:
    """Real footage, where it lies beside the checkout."""
    folder = SHARED_FOOTAGE / name
    if not folder.is_dir():
        pytest.skip(f"no real footage at {folder}")
    return folder


def draw(boxes: Sequence[Box], *, size: tuple[int, int] = (48, 64), seed: int = 0) -> np.ndarray:
    """Return uint8 (H, W, 3) in which only the pixels of `boxes` (x1, y1, x2, y2; x2, y2 exclusive) are bright."""
    pixels = np.random.default_rng(seed).integers(0, 60, (*size, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 230
    return pixels


def save(path: Path, boxes: Sequence[Box] = (), *, size: tuple[int, int] = (48, 64), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw(boxes, size=size, seed=seed))
    return path


def bright_box(encoded: bytes) -> Box | None:
    """Around what is bright in an encoded image."""
    rows, columns = np.nonzero(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR).mean(axis=2) > BRIGHT)
    return (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1) if len(rows) else None


def some_boxes(count: int, *, seed: int = 0) -> list[Box]:
    """One box for each of `count` images of 48 x 64 pixels."""
    generator = np.random.default_rng(seed)
    return [
        (x, y, x + int(generator.integers(4, 20)), y + int(generator.integers(4, 20)))
        for x, y in zip(
            generator.integers(0, 40, count).tolist(), generator.integers(0, 26, count).tolist(), strict=True
        )
    ]


def yolo_line(box: Box, number: int = 0, *, size: tuple[int, int] = (48, 64)) -> str:
    x1, y1, x2, y2 = box
    return (
        f"{number} {(x1 + x2) / 2 / size[1]:.8f} {(y1 + y2) / 2 / size[0]:.8f} {(x2 - x1) / size[1]:.8f} "
        f"{(y2 - y1) / size[0]:.8f}\n"
    )


def write_yolo(
    root: Path, counts: dict[str, int], *, names: Sequence[str] = ("athlete",), suffix: str = ".png"
) -> Path:
    """`counts` images with one box each for every split, named a000 on, all different."""
    seed = 0
    for split, count in counts.items():
        for number, box in enumerate(some_boxes(count, seed=len(split))):
            seed += 1
            save(root / "images" / split / f"{split[0]}{number:03d}{suffix}", [box], seed=seed)
            label = root / "labels" / split / f"{split[0]}{number:03d}.txt"
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(yolo_line(box, number % len(names)))
    (root / "data.yaml").write_text(
        yaml.safe_dump({"path": ".", **{split: f"images/{split}" for split in counts}, "names": list(names)})
    )
    return root


def write_coco(root: Path, counts: dict[str, int]) -> Path:
    """As COCO's own: annotations/instances_train.json beside train/."""
    for split, count in counts.items():
        images, annotations = [], []
        for number, (x1, y1, x2, y2) in enumerate(some_boxes(count, seed=len(split))):
            name = f"{split}_{number:012d}.png"
            save(root / split / name, [(x1, y1, x2, y2)], seed=number + 1000 * len(split))
            images.append({"id": 10 + number, "file_name": name, "height": 48, "width": 64})
            annotations.append({
                "id": number,
                "image_id": 10 + number,
                "category_id": 7,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": 0,
            })
        table = root / "annotations" / f"instances_{split}.json"
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(
            json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "athlete"}]})
        )
    return root


def voc_xml(name: str, boxes: Sequence[Box], *, size: tuple[int, int] = (48, 64)) -> str:
    """VOC counts pixels from 1 and means both ends."""
    objects = "".join(
        f"<object><name>athlete</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
        f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
        for x1, y1, x2, y2 in boxes
    )
    return (
        f"<annotation><filename>{name}</filename><size><width>{size[1]}</width><height>{size[0]}</height><depth>3</depth></size>"
        f"{objects}</annotation>"
    )


def write_voc(root: Path, counts: dict[str, int]) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for split, count in counts.items():
        for number, box in enumerate(some_boxes(count, seed=len(split))):
            stem = f"{split}_{number:06d}"
            save(root / "JPEGImages" / f"{stem}.png", [box], seed=number + 1000 * len(split))
            (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(f"{stem}.png", [box]))
        (root / "ImageSets" / "Main" / f"{split}.txt").write_text(
            "".join(f"{split}_{number:06d}\n" for number in range(count))
        )
    return root


def moving_box(frame: int) -> Box:
    """Where the athlete is in a frame of `write_film`: every frame elsewhere."""
    return 4 + 2 * frame, 8 + frame // 2, 28 + 2 * frame, 40 + frame // 2


def write_film(path: Path, *, frames: int = 30, seed: int = 0, size: tuple[int, int] = (64, 112)) -> Path:
    """A video of `size` (height, width) in pixels with the athlete at `moving_box`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, (draw([moving_box(number)], size=size, seed=seed) for number in range(frames)), fps=25.0)
    return path


def write_cvat(root: Path, *, film: str = "jump.mp4", frames: int = 30, outside: Sequence[int] = ()) -> Path:
    """A film of which all frames are annotated; the athlete is outside in the frames `outside`."""
    write_film(root / film, frames=frames)
    boxes = "".join(
        f'<box frame="{number}" outside="{int(number in outside)}" occluded="0" keyframe="{int(number % 10 == 0)}" '
        f'xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0"></box>'
        for number in range(frames)
        for x1, y1, x2, y2 in [moving_box(number)]
    )
    (root / "annotations.xml").write_text(
        '<?xml version="1.0" encoding="utf-8"?>\n'
        f"<annotations><version>1.1</version><meta><task><size>{frames}</size><start_frame>0</start_frame>"
        f"<stop_frame>{frames - 1}</stop_frame><frame_filter></frame_filter>"
        "<original_size><width>112</width><height>64</height></original_size></task>"
        f'<source>{film}</source></meta><track id="3" label="athlete" source="manual">{boxes}</track></annotations>'
    )
    return root


def write_ucf101_24(root: Path, tubes: dict[str, list[tuple[int, int]]]) -> Path:
    """Films named `Class/v_Class_gNN_cNN`, each with a tube for every (first, last) frame, counted from 1 as the
    annotations do.
    """
    from scipy.io import savemat

    entries = np.zeros((1, len(tubes)), dtype=[("num_imgs", object), ("name", object), ("tubes", object)])
    for place, (name, spans) in enumerate(tubes.items()):
        write_film(root / "videos" / f"{name}.avi", seed=place, size=UCF101_24_SIZE)
        made = np.zeros((1, len(spans)), dtype=[("ef", object), ("sf", object), ("class", object), ("boxes", object)])
        for number, (first, last) in enumerate(spans):
            corners = [moving_box(frame - 1) for frame in range(first, last + 1)]
            made[0, number] = (
                np.uint8([[last]]),
                np.uint8([[first]]),
                np.uint8([[1]]),
                np.array([[x1 + 1, y1 + 1, x2 - x1, y2 - y1] for x1, y1, x2, y2 in corners], np.uint8),
            )
        entries[0, place] = (np.uint8([[30]]), name, made)
    savemat(root / "finalAnnots.mat", {"annot": entries})
    return root
