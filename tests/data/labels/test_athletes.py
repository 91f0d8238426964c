"""Labels of several athletes in one video: each has its own, and what stays open is said."""

import pytest

from posture.data.labels.athletes import labelled_tube, mixed_actions
from posture.data.labels.records import Tube
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage
from posture.errors import InputError

BOXES = "video,frame,athlete,x1,y1,x2,y2\n" + "".join(
    f"a.mp4,{n},{who},0,0,9,9\n" for n in range(9) for who in ("ann", "bob")
)


def labels(found):
    return [(label.start, label.end, label.label, label.athlete) for video in found.videos for label in video.labels]


def test_two_athletes_may_do_the_same_or_different_things_at_the_same_time(root):
    root("a.mp4")
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,bob\na.mp4,0,2,kick,ann\na.mp4,2,3,run,ann\n")
    found = read_footage(root.path)
    assert labels(found) == [(0, 2, "kick", "ann"), (0, 2, "kick", "bob"), (2, 3, "run", "ann")]
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,bob\na.mp4,0,2,run,bob\n")
    with pytest.raises(InputError, match=r"labelled twice: kick .* and run .*None\)$"):
        read_footage(root.path)
    root("labels.csv", "video,start,end,label,group\na.mp4,0,2,kick,ann\na.mp4,0,2,run,bob\n")
    with pytest.raises(
        InputError, match=r"labelled twice: .*; if they are two athletes, name each in a column athlete"
    ):
        read_footage(root.path)


def test_athletes_whom_no_label_names_are_told(root):
    root("a.mp4"), root("boxes.csv", BOXES)
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,ann\n")
    (note,) = [note for note in read_tracked_footage(root.path).notes if "no label names" in note]
    assert note.startswith("athletes with boxes whom no label names: 1, such as bob in a.mp4")
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,ann\na.mp4,1,2,kick,bob\n")
    assert not any("no label names" in note for note in read_tracked_footage(root.path).notes)
    root("labels.csv", "video,start,end,label\na.mp4,0,2,kick\n")
    assert any("no label names: 2" in note for note in read_tracked_footage(root.path).notes)
    root("boxes.csv", BOXES.replace("bob", "ann"))
    assert not any("no label names" in note for note in read_tracked_footage(root.path).notes)  # one athlete, no doubt


def test_whole_frames_with_two_actions_are_told(root):
    root("a.mp4")
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,ann\na.mp4,1.9,4,run,ann\na.mp4,0.5,,run,bob\n")
    (note,) = mixed_actions(read_footage(root.path))
    assert note.startswith("segments that overlap in time with another action: 1, such as kick at 0 s of a.mp4")
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,ann\na.mp4,1.9,4,run,ann\na.mp4,0,2,kick,bob\n")
    assert mixed_actions(read_footage(root.path)) == []


def test_a_detector_needs_boxes_to_tell_athletes_apart_who_act_at_once(root):
    root("a.mp4")
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,2,kick,ann\na.mp4,1,3,kick,bob\na.mp4,5,6,run,bob\n")
    found = read_tracked_footage(root.path, drawn=False)
    assert labels(found) == [(5, 6, "run", "bob")]
    assert [(one["verdict"], one["reason"][-3:]) for one in found.refused] == [
        ("no_athlete", "ann"),
        ("no_athlete", "bob"),
    ]
    root("boxes.csv", BOXES)
    found = read_tracked_footage(root.path, drawn=False)
    assert len(labels(found)) == 3 and found.refused == [] and len(found.videos[0].tubes) == 2


def test_an_athlete_is_named_by_the_tube_or_by_its_number():
    tubes = [Tube(name, "", {0: (0, 0, 1, 1)}) for name in ("fight/1", "fight/2", "2", "ann")]
    assert [
        found and found.name for found in (labelled_tube(tubes, name) for name in ("1", "2", "fight/2", "bob"))
    ] == ["fight/1", "2", "fight/2", None]
