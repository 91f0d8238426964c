"""Generated footage of several athletes: exact boxes and actions of each, who act at the same time and cross."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch  # noqa: F401  decord must not be loaded before it

from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.synthetic.footage import generate
from posture.data.synthetic.images import write_images
from posture.data.synthetic.plan import CLASSES, plan
from posture.data.synthetic.scene import Shot, perform
from posture.errors import InputError

SMALL = {"size": (48, 64), "fps": 25.0, "segments_per_video": 2}


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("together") / "footage"
    return generate(folder, videos=6, athletes=6, athletes_per_video=2, seed=5, workers=1, **SMALL)


def scenes_of(count: int, together: int, **changes) -> list:
    return plan(**{"videos": count, "seed": 5, "athletes": 9, "athletes_per_video": together, **SMALL, **changes})


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_tables_have_every_athlete(footage: Path):
    scenes = scenes_of(6, 2, athletes=6)
    expected = {
        (f"videos/video_{number:04d}.mp4", actor.athlete.name, segment.label, segment.start_frame, segment.end_frame)
        for number, scene in enumerate(scenes)
        for actor in scene.performers
        for segment in actor.segments
    }
    table = rows(footage / "segments.csv")
    assert len(table) == 24 and all(row["athlete"] == row["group"] for row in table)
    assert expected == {
        (row["video"], row["athlete"], row["label"], round(float(row["start"]) * 25), round(float(row["end"]) * 25))
        for row in table
    }
    boxes = {(row["video"], int(row["frame"]), row["athlete"]): row for row in rows(footage / "boxes.csv")}
    for index in (0, 30, scenes[1].frames - 1):
        drawn = Shot(scenes[1]).frame(index)[1]
        assert len(drawn) == 2
        for name, box in drawn.items():
            row = boxes["videos/video_0001.mp4", index, name]
            assert tuple(int(row[key]) for key in ("x1", "y1", "x2", "y2")) == box
    assert json.loads((footage / "footage.json").read_text())["arguments"]["athletes_per_video"] == 2


def test_ingest_reads_the_segments_of_each_athlete_with_their_boxes(footage: Path):
    found = read_tracked_footage(str(footage))
    assert len(found.videos) == 6 and not found.missing
    for video in found.videos:
        names = {tube.name for tube in video.tubes or ()}
        assert len(names) == 2 and {label.group for label in video.labels} == names
        assert len(video.labels) == 4 and len({label.split for label in video.labels}) == 1


@pytest.mark.parametrize("together", [2, 3])
def test_athletes_act_at_the_same_time_and_cross(together: int):
    for scene in scenes_of(8, together):
        assert len(scene.performers) == len(scene.actors) == together
        assert len({actor.athlete.name for actor in scene.actors}) == together
        acting = np.zeros((together, scene.frames), bool)
        for own, actor in zip(acting, scene.actors, strict=True):
            for segment in actor.segments:
                own[segment.start_frame : segment.end_frame] = True
        assert (acting.sum(axis=0) == together).sum() > scene.fps, "over a second of actions of all"
        for number in range(len(scene.actors[0].segments)):
            assert len({actor.segments[number].label for actor in scene.actors}) == together
        paths = np.array([perform(actor, scene.frames, scene.fps)[2] for actor in scene.actors])
        orders = {tuple(np.argsort(paths[:, actor.segments[0].end_frame - 1])) for actor in scene.actors}
        orders |= {tuple(np.argsort(paths[:, -1]))}
        assert len(orders) > 1, "someone passed another"


def test_all_athletes_of_a_video_are_in_one_split_and_classes_are_dealt_evenly():
    scenes = scenes_of(90, 3)
    counts: dict[str, int] = defaultdict(int)
    splits: dict[str, set[str]] = defaultdict(set)
    for scene in scenes:
        assert len({actor.athlete.split for actor in scene.actors}) == 1
        for actor in scene.actors:
            splits[actor.athlete.name].add(actor.athlete.split)
            for segment in actor.segments:
                counts[segment.label] += 1
    assert len(splits) == 9 and all(len(sides) == 1 for sides in splits.values())
    assert set(counts) == set(CLASSES) and max(counts.values()) - min(counts.values()) <= 9


def test_athletes_stay_in_the_frame():
    inside = []
    for scene in scenes_of(8, 3, size=(96, 128)):
        shot = Shot(scene)
        for index in range(0, scene.frames, 25):
            boxes = shot.frame(index)[1]
            inside += [
                name in boxes and boxes[name][0] > 0 and boxes[name][2] < 128
                for name in (actor.athlete.name for actor in scene.actors)
            ]
    assert np.mean(inside) > 0.9


def test_images_call_every_athlete_an_athlete(footage: Path, tmp_path: Path):
    made = write_images(footage, tmp_path / "images", every=40)
    names = [path.read_text() for path in made.glob("labels/*/*.txt")]
    frames = {int(path.stem[-5:]) for path in made.glob("images/*/*.jpg")}
    assert len(names) >= 6 and 0 in frames
    for lines in names:
        assert [line.split()[0] for line in lines.splitlines()] == ["0", "0"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"athletes_per_video": 0}, "athletes_per_video must be from 1 to 6, not 0"),
        ({"athletes_per_video": 7, "athletes": 30}, "athletes_per_video must be from 1 to 6, not 7"),
        ({"athletes_per_video": 3, "athletes": 8}, "takes at least 9 athletes .* not 8"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict, reason: str, tmp_path: Path):
    with pytest.raises(InputError, match=reason):
        generate(tmp_path / "footage", **{"videos": 30, **SMALL, **wrong})
    assert not list(tmp_path.iterdir())
