"""Generated footage: deterministic, exact labels and boxes, splits by athlete, and pairs of classes that differ only in
the order of frames.
"""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch  # noqa: F401  decord must not be loaded before it

from posture.data.decode.video import Reader, probe
from posture.data.synthetic import footage as synthetic
from posture.data.synthetic.figure import PERIOD_SECONDS, REVERSED_PAIRS, loop_pose
from posture.data.synthetic.footage import generate
from posture.data.synthetic.place import PLACES
from posture.data.synthetic.plan import CLASSES, plan, stage
from posture.data.synthetic.scene import LOOP_OF, Shot, perform
from posture.errors import InputError

pytestmark = pytest.mark.long

SMALL = {"size": (48, 64), "fps": 25.0, "segments_per_video": 2}

# Version 1, seed 3: the first row of segments.csv, then frame 50 of the first video: its box, and its means over 4 x 4
# blocks of 12 x 16 pixels.
FROZEN_SEGMENT = ("0.520000", "3.120000", "kick", "val", "athlete_00")
FROZEN_BOX = (21, 11, 45, 46)
FROZEN_GREY = np.array([
    [67.1, 73.7, 74.4, 64.1],
    [91.4, 94.9, 133.0, 125.7],
    [86.0, 91.3, 130.7, 98.4],
    [92.1, 97.4, 90.8, 83.8],
])


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("generated") / "footage", videos=6, athletes=5, seed=3, workers=1, **SMALL)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def scenes(count=6, seed=3, athletes=5, **changes):
    return plan(videos=count, seed=seed, athletes=athletes, **{**SMALL, **changes})


# The folder


def test_same_arguments_give_the_same_footage_on_any_number_of_processes(footage, tmp_path):
    again = generate(tmp_path / "again", videos=6, athletes=5, seed=3, workers=2, **SMALL)
    for name in ("segments.csv", "boxes.csv", "footage.json"):
        assert (footage / name).read_bytes() == (again / name).read_bytes()
    for ours, theirs in zip(scenes(), scenes(), strict=True):
        assert ours == theirs
        for index in (0, 40):
            assert np.array_equal(Shot(ours).frame(index)[0], Shot(theirs).frame(index)[0])
    assert not np.array_equal(Shot(scenes()[0]).frame(0)[0], Shot(scenes(seed=4)[0]).frame(0)[0])


def test_the_generator_is_frozen(footage):
    """Changes of the generated footage must increment VERSION and update these numbers.

    Pixels are compared to within rounding, because OpenCV may differ between processors.
    """
    assert synthetic.VERSION == 1
    first = rows(footage / "segments.csv")[0]
    assert (first["start"], first["end"], first["label"], first["split"], first["group"]) == FROZEN_SEGMENT
    image, boxes = Shot(scenes()[0]).frame(50)
    assert np.abs(np.array(boxes["athlete_00"]) - FROZEN_BOX).max() <= 1
    assert np.abs(image.reshape(4, 12, 4, 16, 3).mean(axis=(1, 3, 4)) - FROZEN_GREY).max() < 1.0


def test_videos_decode_with_the_planned_frames(footage):
    for number, scene in enumerate(scenes()):
        path = str(footage / f"videos/video_{number:04d}.mp4")
        stream = probe(path)
        assert (stream.frames, stream.height, stream.width) == (scene.frames, 48, 64) and abs(stream.fps - 25) < 1e-6
        reader, shot = Reader(path, height=48, width=64), Shot(scene)
        assert len(reader) == scene.frames
        for index in (0, scene.frames - 1):
            shown, drawn = reader.frames([index])[0].astype(float), shot.frame(index)[0].astype(float)
            assert np.abs(shown - drawn).mean() < 8  # the encoder changes pixels a little, and drops no frame


def test_footage_that_stands_is_used_again_and_other_footage_is_never_overwritten(footage, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in footage.rglob("*")}
    assert generate(footage, videos=6, athletes=5, seed=3, **SMALL) == footage
    assert before == {path: path.stat().st_mtime_ns for path in footage.rglob("*")}
    assert [path.name for path in footage.parent.iterdir()] == [footage.name]  # nothing half-written beside it
    with pytest.raises(InputError, match="other arguments"):
        generate(footage, videos=6, athletes=5, seed=4, **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not generated footage"):
        generate(tmp_path, videos=6, athletes=5, **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"videos": 0},
        {"videos": -3},
        {"athletes": 0},
        {"athletes": 2},
        {"athletes": 7},
        {"segments_per_video": 0},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"size": (0, 64)},
        {"size": (49, 64)},
        {"size": (48,)},
        {"seed": -1},
    ],
)
def test_arguments_out_of_range_are_refused(wrong, tmp_path):
    with pytest.raises(InputError, match=next(iter(wrong))):
        generate(tmp_path / "footage", **{"videos": 6, "athletes": 5, **SMALL, **wrong})
    assert not list(tmp_path.iterdir())


# Labels, boxes, splits


def test_tables_say_what_was_planned(footage):
    expected = [
        (
            f"videos/video_{number:04d}.mp4",
            segment.start_frame,
            segment.end_frame,
            segment.label,
            scene.actors[-1].athlete,
        )
        for number, scene in enumerate(scenes())
        for segment in scene.actors[-1].segments
    ]
    table = rows(footage / "segments.csv")
    assert list(table[0]) == ["video", "start", "end", "label", "split", "group"]
    for row, (video, start, end, label, athlete) in zip(table, expected, strict=True):
        assert (row["video"], row["label"], row["split"], row["group"]) == (video, label, athlete.split, athlete.name)
        assert (float(row["start"]) * 25, float(row["end"]) * 25) == pytest.approx((start, end), abs=1e-4)
        assert 1.5 <= float(row["end"]) - float(row["start"]) <= 3.5
    boxes = rows(footage / "boxes.csv")
    assert list(boxes[0]) == ["video", "frame", "athlete", "x1", "y1", "x2", "y2"]
    for number, scene in enumerate(scenes()):
        seen = [
            int(row["frame"])
            for row in boxes
            if row["video"].endswith(f"{number:04d}.mp4") and row["athlete"] == scene.actors[-1].athlete.name
        ]
        assert seen == list(range(scene.frames))
    assert json.loads((footage / "footage.json").read_text())["version"] == synthetic.VERSION


def test_every_frame_of_a_segment_shows_its_loop_and_the_frames_between_do_not():
    for scene in scenes(12, athletes=6):
        actor = scene.actors[-1]
        poses, _, _ = perform(actor, scene.frames, scene.fps)
        starts = [segment.start_frame for segment in actor.segments] + [scene.frames]
        for segment, following in zip(actor.segments, starts[1:], strict=True):
            loop = loop_pose(LOOP_OF[segment.label][0], np.linspace(0, 1, 2000)) + np.array(segment.style_degrees)

            def distance(frames, loop=loop, poses=poses):  # degrees to the nearest pose of the loop, (F,)
                return np.abs((poses[frames, None, 1:] - loop[None, :, 1:] + 180) % 360 - 180).max(axis=2).min(axis=1)

            assert distance(np.arange(segment.start_frame, segment.end_frame)).max() < 1.0
            middle = (segment.end_frame + following) // 2
            assert distance(np.array([middle])).min() > 5.0


def test_boxes_enclose_exactly_the_drawn_athlete():
    checked = bystanders = 0
    for scene in scenes(16, athletes=6, size=(96, 128)):
        shot = Shot(scene)
        for index in range(5, scene.frames, 37):
            image, boxes = shot.frame(index)
            for actor in scene.actors:
                name = actor.athlete.name
                alone, others = shot.frame(index, without=(name,))
                assert name not in others
                changed = (image != alone).any(axis=2)
                x1, y1, x2, y2 = boxes[name]
                assert 0 <= x1 < x2 <= 128 and 0 <= y1 < y2 <= 96
                assert changed[y1:y2, x1:x2].sum() == changed.sum() > 0
                # no one hides this athlete: no edge of the box is more than a faint pixel away
                if actor is scene.actors[-1]:
                    down, across = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
                    assert (
                        np.abs(np.array([across[0], down[0], across[-1] + 1, down[-1] + 1]) - (x1, y1, x2, y2)).max()
                        <= 1
                    )
                    checked += 1
                bystanders += actor is not scene.actors[-1]
    assert checked > 50 and bystanders > 5


def test_the_athlete_fills_the_frame_and_stays_in_it():
    heights, inside = [], []
    for scene in scenes(20, athletes=6, size=(96, 128)):
        shot, name = Shot(scene), scene.actors[-1].athlete.name
        for index in range(0, scene.frames, 20):
            x1, y1, x2, y2 = shot.frame(index)[1][name]
            inside.append(x1 > 0 and y1 > 0 and x2 < 128 and y2 < 96)
            heights.append((y2 - y1) / 96)
    assert 0.5 < np.median(heights) < 0.85 and np.mean(inside) > 0.99


def test_no_athlete_is_on_two_sides_and_classes_are_dealt_evenly():
    for athletes in (3, 7, 20):
        planned = plan(videos=100, seed=athletes, size=(120, 160), fps=25.0, athletes=athletes, segments_per_video=3)
        splits = {}
        for scene in planned:
            for actor in scene.actors:
                splits.setdefault(actor.athlete.name, set()).add(actor.athlete.split)
            assert len({actor.athlete.split for actor in scene.actors}) == 1
        assert len(splits) == athletes and all(len(sides) == 1 for sides in splits.values())
        assert set.union(*splits.values()) == {"train", "val", "test"}
        counts = [sum(s.label == label for scene in planned for s in scene.actors[-1].segments) for label in CLASSES]
        assert sum(counts) == 300 and max(counts) - min(counts) <= athletes
    assert {scene.place for scene in planned} == set(PLACES)


# What an image must not reveal


def test_both_classes_of_a_pair_are_one_loop_in_two_directions():
    assert sorted(CLASSES) == sorted(label for pair in REVERSED_PAIRS for label in pair) and len(set(CLASSES)) == 8
    for scene in scenes(8):
        actor = scene.actors[-1]
        segment = actor.segments[0]
        loop, direction = LOOP_OF[segment.label]
        twin = next(label for label in CLASSES if LOOP_OF[label] == (loop, -direction))
        shortest, longest = PERIOD_SECONDS[loop]
        period = (shortest + segment.tempo * (longest - shortest)) / actor.athlete.tempo
        length = segment.end_frame - segment.start_frame
        mirrored = replace(segment, label=twin, phase=segment.phase + direction * (length - 1) / scene.fps / period)
        there, back = (
            perform(replace(actor, segments=(one,)), scene.frames, scene.fps)[0][one.start_frame : one.end_frame]
            for one in (segment, mirrored)
        )
        assert np.allclose((there - back[::-1] + 180) % 360, 180, atol=1e-6)
        assert np.abs((there - back + 180) % 360 - 180).max() > 20


def test_nothing_but_the_direction_depends_on_the_label():
    person = scenes()[0].actors[-1].athlete
    drawn = [
        stage(person, labels, [], seed=(1, 2), size=(48, 64), fps=25.0)
        for labels in (["run", "jump"], ["bowl", "backpedal"])
    ]
    blank = [
        replace(s, actors=tuple(replace(a, segments=tuple(replace(g, label="") for g in a.segments)) for a in s.actors))
        for s in drawn
    ]
    assert blank[0] == blank[1] and drawn[0] != drawn[1]


@pytest.fixture(scope="module")
def clips():
    """Return grey athletes, cut out and turned right: (clips, 16 frames, 24 * 24), labels, athletes.

    They are easier for every classifier than real footage.
    """
    frames, labels, people = [], [], []
    for scene in plan(videos=140, seed=11, size=(60, 80), fps=25.0, athletes=10, segments_per_video=3):
        shot, actor = Shot(scene), scene.actors[-1]
        for segment in actor.segments:
            shown = [shot.frame(segment.start_frame + 2 * step) for step in range(16)]
            boxes = np.array([found[actor.athlete.name] for _, found in shown])
            (x1, y1), (x2, y2) = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
            cut = [
                cv2.resize(image[y1:y2, x1:x2].mean(axis=2), (24, 24), interpolation=cv2.INTER_AREA)
                for image, _ in shown
            ]
            frames.append(np.array(cut)[:, :, :: 1 if abs(segment.yaw_degrees) < 90 else -1].reshape(16, -1))
            labels.append(CLASSES.index(segment.label))
            people.append(int(actor.athlete.name[-2:]))
    return np.array(frames), np.array(labels), np.array(people)


def held_out_accuracy(features, labels, people, *, neighbours=None):
    """Return the share of held-out clips (5 folds of athletes) with the right one of two classes, over all pairs.

    The classifier is ridge regression or nearest neighbours.
    """
    right = []
    for pair in range(len(REVERSED_PAIRS)):
        member = labels // 2 == pair
        x, side, who = features[member], 2.0 * (labels[member] % 2) - 1, people[member]
        for fold in range(5):
            test = who % 5 == fold
            centre, spread = x[~test].mean(axis=0), x[~test].std(axis=0) + 1e-6
            train_x, test_x = (x[~test] - centre) / spread, (x[test] - centre) / spread
            if neighbours:
                nearest = np.argsort(((test_x[:, None] - train_x[None]) ** 2).sum(axis=2), axis=1)[:, :neighbours]
                score = side[~test][nearest].sum(axis=1)
            else:
                kernel = train_x @ train_x.T / x.shape[1]
                score = test_x @ train_x.T / x.shape[1] @ np.linalg.solve(kernel + np.eye(len(kernel)), side[~test])
            right.extend(np.sign(score) == side[test])
    return float(np.mean(right))


def components(frames, count):
    """Return principal components of single frames: (clips, T, pixels) -> (clips, T, count), each of unit variance."""
    flat = (frames - frames.mean(axis=(1, 2), keepdims=True)).reshape(-1, frames.shape[2])
    flat = flat - flat.mean(axis=0)
    _, axes = np.linalg.eigh(flat.T @ flat)
    projected = flat @ axes[:, -count:]
    return (projected / projected.std(axis=0)).reshape(*frames.shape[:2], count)


def test_only_the_order_of_frames_tells_the_classes_of_a_pair_apart(clips):
    """Chance is 0.5. Without information, one of the nine blind classifiers exceeds `bound` in 0.1 % of footages.

    The bound is binomial, for 420 clips.
    """
    frames, labels, people = clips
    bound = 0.5 + 3.7 * np.sqrt(0.25 / len(labels))
    parts = components(frames, 20)
    rng = np.random.default_rng(0)
    shuffled = np.array([clip[rng.permutation(16)] for clip in parts])
    unordered = np.concatenate([parts.mean(axis=1), parts.std(axis=1), parts.min(axis=1), parts.max(axis=1)], axis=1)
    blind = {
        "first frame": parts[:, 0],
        "middle frame": parts[:, 8],
        "shuffled": shuffled.reshape(len(labels), -1),
        "unordered": unordered,
    }
    for name, features in blind.items():
        for neighbours in (None, 5):
            assert held_out_accuracy(features, labels, people, neighbours=neighbours) < bound, (name, neighbours)

    def whirl(
        clip, lag
    ):  # rotation of the frames in the space of components, which changes sign if time runs backwards
        product = clip[:-lag].T @ clip[lag:]
        return (product - product.T)[np.triu_indices(clip.shape[1], 1)]

    def ordered(sequences):
        return np.array([np.concatenate([whirl(clip, lag) for lag in (1, 2, 3)]) for clip in sequences])

    assert held_out_accuracy(ordered(parts), labels, people) > 0.8
    assert held_out_accuracy(ordered(shuffled), labels, people) < bound  # the same classifier without the order
    # The images do hold information: unordered frames tell which loop it is (chance 0.25).
    loops = np.argmin(
        ((unordered[:, None] - np.array([unordered[labels // 2 == loop].mean(axis=0) for loop in range(4)])) ** 2).sum(
            axis=2
        ),
        axis=1,
    )
    assert np.mean(loops == labels // 2) > 0.5
