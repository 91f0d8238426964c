"""Videos of two athletes made of two generated videos side by side, with the boxes and actions of both."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from posture.data.decode.video import open_video, write_video


def put_side_by_side(single: Path, folder: Path) -> Path:
    """Write each two videos of one split of generated footage, of two athletes, as one video to `folder`.

    The shorter one stands still at its end, after its last label. Videos that are left over are left out.
    """
    segments, boxes = (list(csv.DictReader((single / name).open())) for name in ("segments.csv", "boxes.csv"))
    athlete = {row["video"]: row["group"] for row in segments}
    (folder / "videos").mkdir(parents=True)
    said, drawn = [], []
    for number, pair in enumerate(_pairs(segments, athlete)):
        name = f"videos/pair_{number:04d}.mp4"
        width = _write(folder / name, [single / video for video in pair])
        for video, shift in zip(pair, (0, width), strict=True):
            said += [row | {"video": name, "athlete": row["group"]} for row in segments if row["video"] == video]
            drawn += [
                row | {"video": name, "x1": int(row["x1"]) + shift, "x2": int(row["x2"]) + shift}
                for row in boxes
                if row["video"] == video and row["athlete"] == athlete[video]
            ]
    for name, rows in (("segments.csv", said), ("boxes.csv", drawn)):
        with (folder / name).open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    return folder


def _pairs(segments: list[dict[str, str]], athlete: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield two videos of one split and of two athletes at a time."""
    waiting: dict[str, list[str]] = {}
    split = {row["video"]: row["split"] for row in segments}
    for video in split:
        queue = waiting.setdefault(split[video], [])
        other = next((one for one in queue if athlete[one] != athlete[video]), None)
        if other is None:
            queue.append(video)
        else:
            queue.remove(other)
            yield other, video


def _write(path: Path, videos: list[Path]) -> int:
    """Write the videos side by side; return the width of the left one."""
    halves, fps = [], 0.0
    for video in videos:
        with open_video(str(video)) as reader:
            halves.append(reader.frames(range(len(reader))))
            fps = reader.stream.fps
    frames = max(map(len, halves))
    whole = [np.concatenate([half, np.repeat(half[-1:], frames - len(half), axis=0)]) for half in halves]
    write_video(path, iter(np.concatenate(whole, axis=2)), fps=fps)
    return halves[0].shape[2]
