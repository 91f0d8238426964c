"""Small whole files of many kinds, to be broken."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np

from tests.support.footage import moving_square
from tests.support.image_folders import draw, save, some_boxes, write_coco, write_cvat, write_voc, write_yolo, yolo_line

KINDS = (
    ("mp4", "libx264", "yuv420p", {}),
    ("mkv", "libx264", "yuv420p", {"bf": "2"}),
    ("mov", "mjpeg", "yuvj420p", {}),
    ("avi", "mpeg4", "yuv420p", {}),
    ("ts", "mpeg2video", "yuv420p", {}),
    ("mpg", "mpeg1video", "yuv420p", {}),
    ("webm", "libvpx", "yuv420p", {}),
    ("flv", "flv", "yuv420p", {}),
    ("wmv", "wmv2", "yuv420p", {}),
    ("3gp", "mpeg4", "yuv420p", {}),
    ("mp4", "libx265", "yuv420p", {"x265-params": "log-level=none:pools=none"}),
    ("mxf", "mpeg2video", "yuv420p", {}),
)
"""Suffix, encoder, pixel format and options."""
SUFFIXES = tuple(sorted({suffix for suffix, *_ in KINDS}))
IMAGE_SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif")


def encode_video(path: Path, kind: tuple, *, seed: int, frames: int = 20, size: tuple[int, int] = (48, 64)) -> bytes:
    """A video of `frames` at 25 frames/s, height x width pixels."""
    suffix, codec, pix_fmt, options = kind
    with av.open(
        str(path), "w", format={"mkv": "matroska", "ts": "mpegts", "wmv": "asf", "mpg": "mpeg"}.get(suffix, suffix)
    ) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        stream.options = {"threads": "1", **options}
        for pixels in moving_square(frames, seed=seed, size=size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    path.unlink()
    return content


def encode_image(suffix: str, *, seed: int) -> bytes:
    """An image of 48 x 64 pixels with one bright box."""
    pixels = cv2.GaussianBlur(draw(some_boxes(1, seed=seed), seed=seed), (3, 3), 1)
    return cv2.imencode(suffix, pixels)[1].tobytes()


def write_segments(root: Path) -> Path:
    """Three videos and a CSV of their segments."""
    root.mkdir(parents=True)
    for number in range(3):
        (root / f"clip{number}.mp4").write_bytes(encode_video(root / "made.mp4", KINDS[0], seed=number))
    rows = "".join(
        f"clip{number}.mp4,{start},{start + 0.4},{label},g{number},\n"
        for number, label in enumerate(("kick", "jump", "kick"))
        for start in (0.0, 0.4)
    )
    (root / "segments.csv").write_text(f"video,start,end,label,group,split\n{rows}")
    return root


def write_ucf101(root: Path) -> Path:
    """Six videos with UCF101's lists."""
    names = [f"{label}/v_{label}_g0{group}_c01.mp4" for label in ("Kick", "Jump") for group in (1, 2, 3)]
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_video(root / "made.mp4", KINDS[0], seed=number))
    (root / "trainlist01.txt").write_text(
        "".join(f"{name} {1 + number // 3}\n" for number, name in enumerate(names) if number % 3)
    )
    (root / "testlist01.txt").write_text("".join(f"{name}\n" for number, name in enumerate(names) if not number % 3))
    (root / "classInd.txt").write_text("1 Kick\n2 Jump\n")
    return root


def _yolo(root: Path) -> Path:
    return write_yolo(root, {"train": 4, "val": 2})


def _coco(root: Path) -> Path:
    return write_coco(root, {"train": 4, "val": 2})


def _voc(root: Path) -> Path:
    return write_voc(root, {"train": 4, "val": 2})


LAYOUTS = {
    "segments": write_segments,
    "ucf101": write_ucf101,
    "yolo": _yolo,
    "coco": _coco,
    "voc": _voc,
    "cvat": write_cvat,
}
TABLES = {".csv", ".txt", ".yaml", ".json", ".xml"}


def labels_of(root: Path) -> list[Path]:
    """The files of labels below a folder."""
    return sorted(path for path in root.rglob("*") if path.suffix in TABLES)


def add_image(root: Path, name: str, content: bytes) -> None:
    """An image of the layout yolo, with a box."""
    path = root / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    label = (root / "labels" / name).with_suffix(".txt")
    label.parent.mkdir(exist_ok=True)
    label.write_text(yolo_line((8, 8, 40, 40)))


def write_good_images(root: Path, count: int) -> None:
    """Images of the layout yolo that name no split."""
    for number, box in enumerate(some_boxes(count)):
        save(root / "images" / f"good{number:02d}.png", [box], seed=number)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"good{number:02d}.txt").write_text(yolo_line(box))
    (root / "data.yaml").write_text("train: images\nnames: [athlete]\n")
