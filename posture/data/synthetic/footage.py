"""Generate sports footage with exact labels: videos of jointed figures, for trials, tests and demonstrations.

Footage is a folder:

    videos/video_0000.mp4 ...  H.264, with several labelled segments; between them the athlete stands, turns or walks
    segments.csv               video,start,end,label,split,group: seconds, end exclusive; group is the athlete; with
                               several athletes in a video also a column athlete
    boxes.csv                  video,frame,athlete,x1,y1,x2,y2: whole pixels, x2 and y2 exclusive, frames from 0;
                               bystanders have boxes too
    footage.json               generator version, arguments and seed; written last

Labels are exact: every frame of a segment shows its motion, and no other frame does. A box is the smallest around all
pixels that the athlete's drawing touches. Frames are a pure function of the arguments; the encoded bytes also depend on
the encoder's version.

Classes come in pairs: one loop of poses in two directions (`figure.py`), starting at a uniformly random pose. All else
in the image is independent of the class and looks alike in both directions of time (`scene.py`). So neither a frame nor
an unordered set of frames tells the class within a pair; only the order does. Splits are by athlete.

The generator is frozen: any change of its frames or labels increments `VERSION`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2

from posture.data.decode.video import write_video
from posture.data.synthetic.plan import CLASSES, MOST_ATHLETES, VERSION, plan
from posture.data.synthetic.scene import Scene, Shot
from posture.errors import InputError


def generate(
    folder: Path,
    *,
    videos: int = 120,
    seed: int = 0,
    size: tuple[int, int] = (120, 160),
    fps: float = 25.0,
    athletes: int = 20,
    segments_per_video: int = 3,
    athletes_per_video: int = 1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write generated footage to `folder`, unless it is already there; return `folder`.

    size: (height, width) in pixels, both even. athletes: at least 3 (one per split), at most `videos`. With
    `athletes_per_video` over 1, athletes do different actions at the same time and cross each other; each split has at
    least that many, and `segments_per_video` counts the actions of one athlete. workers: number of processes, which
    does not change the footage; by default one per core, none for a handful of videos. progress: called with the number
    of written videos and their total. Raises InputError if an argument is out of range, or the folder holds something
    else.
    """
    folder = Path(folder)
    arguments: dict[str, Any] = {
        "videos": videos,
        "seed": seed,
        "size": size,
        "fps": fps,
        "athletes": athletes,
        "segments_per_video": segments_per_video,
        "athletes_per_video": athletes_per_video,
    }
    _check(**arguments)
    recorded = arguments | {"size": list(size)}
    if athletes_per_video == 1:
        del recorded["athletes_per_video"]  # as before the argument existed
    footage = {
        "generator": "posture.data.synthetic",
        "version": VERSION,
        "arguments": recorded,
        "classes": list(CLASSES),
    }
    if _found(folder, footage):
        return folder
    scenes = plan(**arguments)
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        (partial / "videos").mkdir()
        _write(partial, scenes, workers, progress)
        (partial / "footage.json").write_text(json.dumps(footage, indent=2) + "\n")
        partial.chmod(0o755)
        os.replace(partial, folder)  # an empty folder may be there; anything else was refused above
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _check(
    *,
    videos: int,
    seed: int,
    size: tuple[int, int],
    fps: float,
    athletes: int,
    segments_per_video: int,
    athletes_per_video: int,
) -> None:
    for name, value in (("videos", videos), ("athletes", athletes), ("segments_per_video", segments_per_video)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, not {value}")
    if seed < 0:
        raise InputError(f"seed must not be negative, not {seed}")
    if not fps >= 5:
        raise InputError(f"fps must be at least 5, not {fps}: slower footage does not show the direction of a motion")
    if len(size) != 2 or any(side < 32 or side % 2 for side in size):
        raise InputError(f"size must be an even height and an even width of at least 32 pixels, not {size}")
    if not 3 <= athletes <= videos:
        raise InputError(
            f"athletes must be at least 3 (one for each of train, val, test) and at most videos = {videos}, "
            f"not {athletes}"
        )
    if not 1 <= athletes_per_video <= MOST_ATHLETES:
        raise InputError(f"athletes_per_video must be from 1 to {MOST_ATHLETES}, not {athletes_per_video}")
    if athletes < 3 * athletes_per_video:
        raise InputError(
            f"athletes_per_video = {athletes_per_video} takes at least {3 * athletes_per_video} athletes (train, "
            f"val and test have their own), not {athletes}"
        )


def _found(folder: Path, footage: dict) -> bool:
    """Return True if the folder holds exactly this footage, complete. Raises InputError if it holds something else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        same = json.loads((folder / "footage.json").read_text()) == footage
    except (OSError, ValueError):
        raise InputError(f"{folder} exists and is not generated footage; give a new folder") from None
    videos = footage["arguments"]["videos"]
    if same and all(
        (folder / name).is_file() for name in ["segments.csv", "boxes.csv", *(_video_name(n) for n in range(videos))]
    ):
        return True
    reason = (
        "generated footage with missing files" if same else "footage generated with other arguments or another version"
    )
    raise InputError(f"{folder} holds {reason}; remove it or give a new folder")


def _video_name(number: int) -> str:
    return f"videos/video_{number:04d}.mp4"


def _write(folder: Path, scenes: list[Scene], workers: int | None, progress: Callable[[int, int], None] | None) -> None:
    """Render and encode every scene, then write both tables."""
    workers = min(workers if workers is not None else (os.cpu_count() or 1) if len(scenes) > 8 else 1, len(scenes))
    names = [_video_name(number) for number in range(len(scenes))]
    paths = [folder / name for name in names]
    with ExitStack() as stack:
        run = map
        if workers > 1:  # spawned, not forked: the caller may have threads (torch, Ray)
            pool = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)
            )
            run = stack.enter_context(pool).map
        boxes = []
        for made in run(_film, scenes, paths):
            boxes.append(made)
            if progress is not None:
                progress(len(boxes), len(scenes))
    with (folder / "boxes.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["video", "frame", "athlete", "x1", "y1", "x2", "y2"])
        table.writerows([name, *row] for name, rows in zip(names, boxes, strict=True) for row in rows)
    with (folder / "segments.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        together = any(len(scene.performers) > 1 for scene in scenes)
        table.writerow(["video", "start", "end", "label", "split", "group", *["athlete"] * together])
        for name, scene in zip(names, scenes, strict=True):
            for actor in scene.performers:
                athlete = actor.athlete
                for segment in actor.segments:
                    start, end = (f"{frame / scene.fps:.6f}" for frame in (segment.start_frame, segment.end_frame))
                    row = [name, start, end, segment.label, athlete.split, athlete.name]
                    table.writerow([*row, *[athlete.name] * together])


def _film(scene: Scene, path: Path) -> list[tuple]:
    """Write one video; return its boxes as rows (frame, athlete, x1, y1, x2, y2)."""
    shot, rows = Shot(scene), []

    def frames():
        for index in range(scene.frames):
            image, boxes = shot.frame(index)
            rows.extend((index, name, *box) for name, box in boxes.items())
            yield image

    write_video(path, frames(), fps=scene.fps)
    return rows
