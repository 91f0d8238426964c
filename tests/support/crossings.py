"""Measure trackers on generated athletes who cross: `python -m tests.support.crossings [SEEDS]`.

Detections are the exact boxes with errors: corners jitter by 4 % of a side (standard deviation), a tenth of the boxes
is missed, 15 % have a confidence of only 0.1 to 0.3, a frame in twenty shows a box of nobody, and of two boxes that
overlap by more than 0.45 only the more confident is left, as a detector does.
"""

from __future__ import annotations

import sys
from functools import reduce
from operator import add

import numpy as np
import torch
from torchvision.ops import nms

from posture.data.synthetic.plan import plan
from posture.data.synthetic.scene import Shot
from posture.predict.track_metrics import Look, TrackCounts, count_tracks, looks_of
from posture.predict.tracker import TRACKERS, AthleteTracker
from posture.runs.athlete_finder import MOST_OVERLAP

FPS = 25.0


def crossing(seed: int, *, athletes: int = 3) -> tuple[list[Look], list[np.ndarray]]:
    """Return the exact tracks and the frames of a generated video."""
    (scene,) = plan(
        videos=1,
        seed=seed,
        size=(96, 128),
        fps=FPS,
        athletes=3 * athletes,
        segments_per_video=3,
        athletes_per_video=athletes,
    )
    shot = Shot(scene)
    names = [actor.athlete.name for actor in scene.actors]
    looks, frames = [], []
    for index in range(scene.frames):
        frame, boxes = shot.frame(index)
        frames.append(frame)
        ids = np.array([names.index(name) for name in boxes], np.int64)
        looks.append((ids, np.reshape(list(boxes.values()), (-1, 4)).astype(np.float64)))
    return looks, frames


def detections(truths: list[Look], seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return boxes and scores as an imperfect detector finds them."""
    rng = np.random.default_rng(seed)
    found = []
    for _, exact in truths:
        sides = np.tile(exact[:, 2:] - exact[:, :2], 2)
        boxes = exact + rng.normal(0, 0.04, exact.shape) * sides
        faint = rng.random(len(boxes)) < 0.15
        scores = np.where(faint, rng.uniform(0.1, 0.3, len(boxes)), rng.uniform(0.35, 0.95, len(boxes)))
        kept = rng.random(len(boxes)) > 0.1
        boxes, scores = boxes[kept], scores[kept]
        if rng.random() < 0.05:
            left, top = rng.uniform(0, 100), rng.uniform(0, 50)
            boxes, scores = np.vstack([boxes, [[left, top, left + 16, top + 40]]]), np.append(scores, 0.3)
        left_over = nms(torch.from_numpy(boxes), torch.from_numpy(scores), MOST_OVERLAP).numpy()
        found.append((boxes[left_over].astype(np.float32), scores[left_over].astype(np.float32)))
    return found


def judge(
    name: str, truths: list[Look], found: list, frames: list[np.ndarray] | None, *, every: int = 1
) -> TrackCounts:
    """Track every `every`-th frame; compare with the exact tracks."""
    tracker = AthleteTracker(name, fps=FPS / every)
    looks = range(0, len(truths), every)
    for number in looks:
        tracker.update(number, number / FPS, *found[number], frames[number] if frames else None)
    return count_tracks([truths[number] for number in looks], looks_of(tracker.tracks(), looks))


def main(seeds: int) -> None:
    made = [crossing(seed) for seed in range(seeds)]
    found = [detections(truths, seed) for seed, (truths, _) in enumerate(made)]
    print(f"{seeds} videos of three athletes: IDF1 (lowest of a video), HOTA, AssA")
    for every in (1, 2, 3):
        for name, seen in [*((name, True) for name in TRACKERS), (TRACKERS[0], False)]:
            counts = [
                judge(name, truths, boxes, frames if seen else None, every=every)
                for (truths, frames), boxes in zip(made, found, strict=True)
            ]
            least = min(one.metrics()["idf1"] for one in counts)
            all_of_it = reduce(add, counts).metrics()
            print(
                f"every {every} | {name}{'' if seen else ' without colours'} | {all_of_it['idf1']:.3f} ({least:.3f}) | "
                f"{all_of_it['hota']:.3f} | {all_of_it['assa']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 12)
