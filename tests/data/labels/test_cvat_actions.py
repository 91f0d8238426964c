"""Actions of CVAT's tracks, which may change over time, as labelled segments."""

import pytest

from posture.data.labels.tracked_videos import read_tracked_footage
from posture.errors import InputError

META = "<meta><task><stop_frame>{stop}</stop_frame>{more}</task><source>a.mp4</source></meta>"


def track(*shapes, number=0, label="athlete"):
    return f"<track id='{number}' label='{label}'>{''.join(shapes)}</track>"


def acting(frame, left, action=None, *, outside=0):
    attribute = "" if action is None else f"<attribute name='action'>{action}</attribute>"
    return (
        f"<box frame='{frame}' keyframe='1' outside='{outside}' xtl='{left}' ytl='20' xbr='{left + 50}' ybr='120'>"
        f"{attribute}</box>"
    )


def read(root, tracks, *, stop=99, more="", layout=None):
    root("a.mp4"), root("a.xml", f"<annotations>{META.format(stop=stop, more=more)}{tracks}</annotations>")
    return read_tracked_footage(root.path, layout=layout)


def said(found):
    """{(athlete, first frame, one past the last): action}"""
    return {(label.athlete, *label.frames): label.label for video in found.videos for label in video.labels}


def test_each_action_of_each_athlete_is_a_segment_also_at_the_same_time(root):
    ann = track(acting(0, 0, "jump"), acting(40, 9, "run"), acting(60, 9, "none"), acting(80, 9, "run"), number=1)
    bob = track(acting(10, 500, "jump"), acting(90, 500, "jump", outside=1), number=2)
    found = read(root, ann + bob)
    assert found.layout == "cvat" and said(found) == {
        ("a/1", 0, 40): "jump",
        ("a/1", 40, 60): "run",
        ("a/1", 80, 100): "run",
        ("a/2", 10, 90): "jump",
    }
    (video,) = found.videos
    assert {label.group for label in video.labels} == {"a"} and [len(tube.boxes) for tube in video.tubes] == [100, 80]


def test_an_action_ends_where_the_athlete_leaves_and_holds_over_keyframes_that_do_not_name_it(root):
    shapes = (acting(0, 0, "Jump"), acting(10, 5), acting(20, 5, outside=1), acting(30, 5), acting(35, 5, outside=1))
    assert said(read(root, track(*shapes))) == {("a/0", 0, 20): "Jump", ("a/0", 30, 35): "Jump"}


def test_of_a_task_with_a_step_a_frame_stands_for_those_up_to_the_next(root):
    found = read(
        root,
        track(acting(0, 0, "jump"), acting(10, 5, "run"), acting(25, 5, "run", outside=1)),
        stop=25,
        more="<frame_filter>step=5</frame_filter>",
    )
    assert said(found) == {("a/0", 0, 10): "jump", ("a/0", 10, 25): "run"}


def test_tracks_without_an_action_are_left_out_by_name(root):
    ball = track(acting(0, 5), number=7, label="ball")
    unsure = track(acting(0, 5, "unsure"), number=8)
    found = read(root, track(acting(0, 0, "jump")) + ball + unsure)
    assert list(said(found).values()) == ["jump"] and [tube.name for tube in found.videos[0].tubes] == ["a/0"]
    assert found.notes[-1] == "tracks without an action, which are not trained: a/7, a/8"


def test_without_the_attribute_the_labels_of_tracks_are_actions_only_if_asked_for(root):
    tracks = track(acting(0, 0), acting(50, 5, outside=1), label="jump")
    with pytest.raises(InputError, match="no layout recognised"):
        read(root, tracks)
    found = read(root, tracks, layout="cvat")
    assert said(found) == {("a/0", 0, 50): "jump"}
    assert found.notes[-1] == "no track has an attribute action, so the label of each track is its action"


def test_a_table_of_segments_is_read_and_the_actions_of_tracks_are_said_not_to_be(root):
    root("labels.csv", "video,start,end,label,athlete\na.mp4,0,1,kick,3\n")
    found = read(root, track(acting(0, 0, "jump"), number=3) + track(acting(0, 90, "jump"), number=4))
    assert [(label.label, label.athlete) for label in found.videos[0].labels] == [("kick", "3")]
    assert found.notes[-2:] == [
        "athletes with boxes whom no label names: 1, such as a/4 in a.mp4; they are not trained, unless a segment "
        "without an athlete follows the one with most boxes. To train them, give the table a column athlete",
        "the actions of CVAT's tracks are not read, because the layout is segments",
    ]


def test_an_action_that_is_no_name_refuses_its_video_only(root):
    (
        root("b.mp4"),
        root("b.xml", f"<annotations><meta><source>b.mp4</source></meta>{track(acting(0, 0, 'run'))}</annotations>"),
    )
    found = read(root, track(acting(0, 0, "x" * 300)))
    assert said(found) == {("b/0", 0, 1): "run"}
    assert [refused["verdict"] for refused in found.refused] == ["bad_label"]
