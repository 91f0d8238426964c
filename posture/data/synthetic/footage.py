"""Generate sports footage with exact labels: videos of jointed figures, for trials, tests and demonstrations.

Footage is a folder:

    videos/video_0000.mp4 ...  H.264, with several labelled segments; between them the athlete stands, turns or walks
    segments.csv               video,start,end,label,split,group: seconds, end exclusive; group is the athlete
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

import cv2
import numpy as np

from posture.data.decode.video import write_video
from posture.data.synthetic.figure import ANGLES, REVERSED_PAIRS, Athlete
from posture.data.synthetic.place import PLACES
from posture.data.synthetic.scene import Actor, Camera, Light, Scene, Segment, Shot, Wave
from posture.errors import InputError

VERSION = 1

CLASSES: tuple[str, ...] = tuple(label for pair in REVERSED_PAIRS for label in pair)

SEGMENT_SECONDS = (1.5, 2.6)
GAP_SECONDS = (0.4, 0.8)
SPLIT_SHARES = (("val", 0.15), ("test", 0.2))
"""Shares of the athletes, at least one each; the rest are train."""

SKIN = ((246, 211, 184), (229, 184, 148), (198, 146, 108), (150, 102, 70), (106, 70, 50), (74, 50, 38))
HAIR = ((34, 28, 26), (74, 48, 32), (122, 82, 44), (196, 160, 92), (150, 62, 36), (90, 90, 96))
CLOTH = (
    (206, 40, 44), (34, 78, 182), (250, 204, 40), (244, 244, 244), (34, 140, 84),
    (240, 120, 30), (116, 60, 160), (36, 40, 52), (40, 190, 200), (236, 110, 160),
)  # fmt: skip


def generate(
    folder: Path,
    *,
    videos: int = 120,
    seed: int = 0,
    size: tuple[int, int] = (120, 160),
    fps: float = 25.0,
    athletes: int = 20,
    segments_per_video: int = 3,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write generated footage to `folder`, unless it is already there; return `folder`.

    size: (height, width) in pixels, both even. athletes: at least 3 (one per split), at most `videos`. workers: number
    of processes, which does not change the footage; by default one per core, none for a handful of videos. progress:
    called with the number of written videos and their total. Raises InputError if an argument is out of range, or the
    folder holds something else.
    """
    folder = Path(folder)
    _check(videos=videos, seed=seed, size=size, fps=fps, athletes=athletes, segments_per_video=segments_per_video)
    arguments = {
        "videos": videos,
        "seed": seed,
        "size": list(size),
        "fps": fps,
        "athletes": athletes,
        "segments_per_video": segments_per_video,
    }
    footage = {
        "generator": "posture.data.synthetic",
        "version": VERSION,
        "arguments": arguments,
        "classes": list(CLASSES),
    }
    if _found(folder, footage):
        return folder
    scenes = plan(
        videos=videos, seed=seed, size=size, fps=fps, athletes=athletes, segments_per_video=segments_per_video
    )
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
    *, videos: int, seed: int, size: tuple[int, int], fps: float, athletes: int, segments_per_video: int
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
        table.writerow(["video", "start", "end", "label", "split", "group"])
        for name, scene in zip(names, scenes, strict=True):
            athlete = scene.actors[-1].athlete
            for segment in scene.actors[-1].segments:
                start, end = (f"{frame / scene.fps:.6f}" for frame in (segment.start_frame, segment.end_frame))
                table.writerow([name, start, end, segment.label, athlete.split, athlete.name])


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


def plan(
    *, videos: int, seed: int, size: tuple[int, int], fps: float, athletes: int, segments_per_video: int
) -> list[Scene]:
    """Plan the scenes of the footage, one per video. Athletes take turns, and each one's classes are dealt evenly."""
    people = _cast(athletes, np.random.default_rng([VERSION, seed, 0]))
    decks: dict[str, list[str]] = {person.name: [] for person in people}
    dealer = np.random.default_rng([VERSION, seed, 1])
    scenes = []
    for number in range(videos):
        person = people[number % athletes]
        deck = decks[person.name]
        while len(deck) < segments_per_video:
            deck.extend(CLASSES[index] for index in dealer.permutation(len(CLASSES)))
        labels = [deck.pop(0) for _ in range(segments_per_video)]
        team = [other for other in people if other.split == person.split and other is not person]
        scenes.append(stage(person, labels, team, seed=(VERSION, seed, 2, number), size=size, fps=fps))
    return scenes


def _cast(count: int, rng: np.random.Generator) -> list[Athlete]:
    """Create the athletes with their looks and splits; every split has at least one."""
    held_out = [split for split, share in SPLIT_SHARES for _ in range(max(1, round(share * count)))]
    splits = rng.permutation(held_out + ["train"] * (count - len(held_out)))

    def pick(colours: tuple, spread: int) -> tuple[int, ...]:
        colour = np.array(colours[rng.integers(len(colours))]) + rng.integers(-spread, spread + 1, 3)
        return tuple(int(channel) for channel in np.clip(colour, 12, 250))

    people = []
    for number, split in enumerate(splits):
        skin = pick(SKIN, 8)
        person = Athlete(
            name=f"athlete_{number:02d}",
            split=str(split),
            skin=skin,
            hair=pick(HAIR, 10),
            shirt=pick(CLOTH, 14),
            shorts=pick(CLOTH, 14),
            socks=skin if rng.random() < 0.5 else pick(CLOTH, 14),
            shoes=pick(CLOTH, 14),
            cap=bool(rng.random() < 0.5),
            girth=float(rng.uniform(1.0, 1.35)),
            legs=float(rng.uniform(0.94, 1.05)),
            tempo=float(rng.uniform(0.9, 1.1)),
        )
        people.append(person)
    return people


def _wave(rng: np.random.Generator, amplitude: float, period_seconds: tuple[float, float]) -> Wave:
    return Wave(float(amplitude * rng.uniform(0.4, 1.0)), float(rng.uniform(*period_seconds)), float(rng.random()))


def stage(
    person: Athlete, labels: list[str], team: list[Athlete], *, seed: tuple[int, ...], size: tuple[int, int], fps: float
) -> Scene:
    """Draw one scene at random. Nothing drawn here depends on the labels."""
    rng = np.random.default_rng(seed)
    segments, frame, x = [], round(rng.uniform(*GAP_SECONDS) * fps), float(rng.uniform(-0.12, 0.12))
    for label in labels:
        walk = bool(rng.random() < 0.5)
        x = float(rng.uniform(-0.16, 0.16)) if walk else x
        length = round(rng.uniform(*SEGMENT_SECONDS) * fps)
        segment = Segment(
            label=label,
            start_frame=frame,
            end_frame=frame + length,
            phase=float(rng.random()),
            tempo=float(rng.random()),
            yaw_degrees=float(rng.uniform(-20, 20) + 180 * (rng.random() < 0.5)),
            x=x,
            walk_here=walk,
            style_degrees=(0.0, *rng.normal(0, 3, len(ANGLES) - 1).tolist()),
        )
        segments.append(segment)
        frame += length + round(rng.uniform(*GAP_SECONDS) * fps)
    sway = (_wave(rng, 0.015, (2, 4)), _wave(rng, 2.5, (2, 3.5)))
    star = Actor(
        person, float(rng.uniform(0.62, 0.68)), float(rng.uniform(0.89, 0.92)), 0.0, 0.0, tuple(segments), sway
    )
    bystanders = []
    if team and rng.random() < 0.3:
        other = team[rng.integers(len(team))]
        side = 1 if rng.random() < 0.5 else -1
        drift = (_wave(rng, 0.03, (3, 6)), _wave(rng, 4, (2, 4)))
        place = (float(rng.uniform(0.34, 0.44)), float(rng.uniform(0.68, 0.74)), side * float(rng.uniform(0.3, 0.55)))
        bystanders.append(Actor(other, *place, float(rng.uniform(0, 180)), (), drift))
    camera = Camera(
        pan=(_wave(rng, 0.12, (5, 10)), _wave(rng, 0.015, (4, 8))),
        shake=(_wave(rng, 0.006, (0.3, 0.8)), _wave(rng, 0.006, (0.3, 0.8))),
        zoom=_wave(rng, 0.04, (4, 9)),
        roll=_wave(rng, 1.5, (3, 7)),
        roll_degrees=float(rng.uniform(-2, 2)),
    )
    light = Light(
        gain=float(rng.uniform(0.8, 1.12)),
        flicker=_wave(rng, 0.03, (0.5, 3)),
        tint=tuple(rng.uniform(0.93, 1.07, 3).tolist()),
        vignette=float(rng.uniform(0.05, 0.35)),
        grain=float(rng.uniform(0.5, 3.0)),
    )
    return Scene(
        height=size[0],
        width=size[1],
        fps=fps,
        frames=frame,
        place=PLACES[rng.integers(len(PLACES))],
        seed=(*seed, 3),
        camera=camera,
        light=light,
        ball=(_wave(rng, 0.6, (4, 9)), _wave(rng, 0.1, (2, 5))) if rng.random() < 0.4 else None,
        actors=(*bystanders, star),
    )
