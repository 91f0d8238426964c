"""Write images with exact boxes from generated footage (`footage.py`), to try a detector on: a YOLO folder.

    data.yaml                                        train, val and test by athlete, as in the footage;
                                                     names: 0 athlete, 1 bystander
    images/train/athlete_03_frame_000700020.jpg ...  frame 20 of video 7, athlete 3's; JPEG of quality 95
    labels/train/athlete_03_frame_000700020.txt ...  class x y w h: centre and size of the box, in shares of the image
    images.json                                      source and number of the images; written last

Athletes are those whose actions the video shows, and the first of them names the image; everyone else in the image is
a bystander. Boxes are those of boxes.csv, even if another figure hides part of one.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from posture.data.decode.video import Reader
from posture.errors import InputError

VERSION = 1
CLASSES = ("athlete", "bystander")
JPEG_QUALITY = 95

Boxes = dict[int, list[tuple[str, np.ndarray]]]
"""Figures in each frame of a video: (name, x1 y1 x2 y2)."""


def write_images(footage: Path, folder: Path, *, every: int = 10) -> Path:
    """Write every `every`-th frame of generated footage to `folder`, unless it is already there; return `folder`.

    Raises InputError if `footage` is not generated footage, or `folder` holds something else.
    """
    footage, folder = Path(footage), Path(folder)
    if every < 1:
        raise InputError(f"every must be at least 1 frame, not {every}")
    try:
        source = json.loads((footage / "footage.json").read_text())
    except (OSError, ValueError):
        raise InputError(f"{footage} is not generated footage; make some with: posture generate {footage}") from None
    made_of = {
        "generator": "posture.data.synthetic_pictures",
        "version": VERSION,
        "footage": source,
        "every": every,
        "classes": list(CLASSES),
    }
    if _found(folder, made_of):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        boxes, counts = _boxes(footage), Counter()
        for (video, split), athletes in _videos(footage).items():
            counts[split] += _write(partial, footage / video, split, athletes, boxes[video], every)
        names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
        (partial / "data.yaml").write_text(
            "path: .\n"
            + "".join(f"{split}: images/{split}\n" for split in ("train", "val", "test"))
            + f"names:\n{names}"
        )
        (partial / "pictures.json").write_text(json.dumps(made_of | {"pictures": dict(counts)}, indent=2) + "\n")
        partial.chmod(0o755)
        os.replace(partial, folder)  # an empty folder may be there; anything else was refused above
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _found(folder: Path, made_of: dict[str, Any]) -> bool:
    """Return True if the folder holds exactly these images, complete. Raises InputError if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / "pictures.json").read_text())
        counts = found.pop("pictures")
    except (OSError, ValueError, KeyError, AttributeError):
        raise InputError(f"{folder} exists and holds no images of generated footage; give a new folder") from None
    whole = all(
        sum(1 for _ in (folder / part / split).glob("*")) == count
        for split, count in counts.items()
        for part in ("images", "labels")
    )
    if found == made_of and whole and (folder / "data.yaml").is_file():
        return True
    reason = (
        "images of generated footage with missing files"
        if found == made_of
        else "images of other footage, or other frames of it"
    )
    raise InputError(f"{folder} holds {reason}; remove it or give a new folder")


def _videos(footage: Path) -> dict[tuple[str, str], list[str]]:
    """Return the athletes of every video, by its name and split."""
    athletes: dict[tuple[str, str], list[str]] = defaultdict(list)
    with (footage / "segments.csv").open(newline="") as file:
        for video, split, athlete in sorted({
            (row["video"], row["split"], row["group"]) for row in csv.DictReader(file)
        }):
            athletes[video, split].append(athlete)
    return athletes


def _boxes(footage: Path) -> dict[str, Boxes]:
    """Return the boxes of every video."""
    boxes: dict[str, Boxes] = defaultdict(lambda: defaultdict(list))
    with (footage / "boxes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            boxes[row["video"]][int(row["frame"])].append((
                row["athlete"],
                np.array([float(row[name]) for name in ("x1", "y1", "x2", "y2")]),
            ))
    return boxes


def _write(folder: Path, video: Path, split: str, athletes: list[str], boxes: Boxes, every: int) -> int:
    """Write the images of one video and their labels; return their number."""
    places = [folder / part / split for part in ("images", "labels")]
    for place in places:
        place.mkdir(parents=True, exist_ok=True)
    reader = Reader(str(video))
    number = int(video.stem.rpartition("_")[2])
    frames = range(0, len(reader), every)
    for frame, pixels in zip(frames, reader.frames(frames), strict=True):
        name = f"{athletes[0]}_frame_{number:04d}{frame:05d}"
        content = cv2.imencode(
            ".jpg", np.ascontiguousarray(pixels[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
        )[1]
        places[0].joinpath(f"{name}.jpg").write_bytes(content.tobytes())
        lines = [_line(who not in athletes, box, pixels.shape[0], pixels.shape[1]) for who, box in boxes[frame]]
        places[1].joinpath(f"{name}.txt").write_text("".join(lines))
    return len(frames)


def _line(label: int, box: np.ndarray, height: int, width: int) -> str:
    centre, size = (box[:2] + box[2:]) / 2 / (width, height), (box[2:] - box[:2]) / (width, height)
    return f"{int(label)} " + " ".join(f"{share:.8f}" for share in (*centre, *size)) + "\n"
