"""CVAT for video 1.1: shapes, keyframes, tasks of a project."""

import math

import pytest

from posture.data.labels.cvat import MAX_FRAMES
from posture.data.labels.images import image_layout, read_images
from posture.errors import InputError
from tests.support.cases import case

META = (
    "<meta><task><name>t</name><start_frame>0</start_frame><stop_frame>{stop}</stop_frame>{more}</task>"
    "<source>a.mp4</source></meta>"
)


def read(root, tracks, *, stop=9, more="", every=1, meta=None):
    root("a.mp4"), root("a.xml", f"<annotations>{meta or META.format(stop=stop, more=more)}{tracks}</annotations>")
    return read_images(root.path, every=every)


def track(*shapes, number=0, label="athlete", more=""):
    return f"<track id='{number}' label='{label}' {more}>{''.join(shapes)}</track>"


def box(frame, left, *, outside=0, more=""):
    return (
        f"<box frame='{frame}' keyframe='1' outside='{outside}' xtl='{left}' ytl='20' xbr='{left + 50}' ybr='120' "
        f"{more}/>"
    )


def boxes(found):
    return {image.frame: image.boxes for image in found.images}


def test_boxes_between_keyframes_are_interpolated_and_the_last_one_holds(root):
    found = read(root, track(box(0, 10), box(4, 50), box(6, 60, outside=1), box(8, 100)), stop=10)
    left = {frame: [one[0] for one in shown] for frame, shown in boxes(found).items()}
    assert left == {0: [10], 1: [20], 2: [30], 3: [40], 4: [50], 5: [55], 6: [], 7: [], 8: [100], 9: [100], 10: [100]}
    assert found.notes[0] == (
        "a.xml: keyframes only; boxes between them are interpolated, and the last one of a track is kept to "
        "the end, as in CVAT's player"
    )


def test_a_track_with_every_frame_ends_where_its_boxes_end(root):
    found = read(root, track(*(box(frame, 10) for frame in range(4))), stop=6)
    assert {frame: len(shown) for frame, shown in boxes(found).items()} == {0: 1, 1: 1, 2: 1, 3: 1, 4: 0, 5: 0, 6: 0}
    assert found.notes[0] == (
        "a.xml: tracks that end before frame 6 without being marked as outside; later frames count as frames "
        "without them: 1"
    )
    closed = read(root, track(*(box(frame, 10) for frame in range(4)), box(4, 10, outside=1)), stop=6)
    assert not any("outside" in note or "keyframes" in note for note in closed.notes)


def test_a_box_that_is_drawn_once_holds_to_the_end(root):
    found = read(
        root, track(box(2, 10)) + track(*(box(frame, 50) for frame in range(2)), box(2, 50, outside=1)), stop=6
    )
    assert {frame: [one[0] for one in shown] for frame, shown in boxes(found).items()} == {
        0: [50],
        1: [50],
        **{frame: [10] for frame in range(2, 7)},
    }
    assert found.notes[0].startswith("a.xml: keyframes only")


def test_frames_of_a_task_with_a_step_are_those_of_the_video(root):
    more = "<frame_filter>step=3</frame_filter>"
    dense = read(root, track(*(box(frame, frame) for frame in (0, 3, 6))), stop=11, more=more)
    assert {frame: len(shown) for frame, shown in boxes(dense).items()} == {0: 1, 3: 1, 6: 1, 9: 0}
    sparse = read(root, track(box(0, 0), box(6, 60)), stop=11, more=more)
    assert {frame: [one[0] for one in shown] for frame, shown in boxes(sparse).items()} == {
        0: [0],
        3: [30],
        6: [60],
        9: [60],
    }


def test_turns_go_the_short_way_round(root):
    found = read(root, track(box(0, 10, more="rotation='350'"), box(2, 10, more="rotation='10'")), stop=2)
    assert boxes(found)[1][0] == pytest.approx((10, 20, 60, 120)), (
        "half way between 350 and 10 degrees nothing is turned"
    )


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("<polygon frame='0' outside='0' points='1,9;4,2;7,5'/>", (1, 2, 7, 9)),
        ("<polyline frame='0' outside='0' points='1,9;4,2'/>", (1, 2, 4, 9)),
        ("<points frame='0' outside='0' points='3,9;4,2'/>", (3, 2, 4, 9)),
        ("<ellipse frame='0' outside='0' cx='50' cy='40' rx='20' ry='10'/>", (30, 30, 70, 50)),
        ("<ellipse frame='0' outside='0' cx='50' cy='40' rx='20' ry='10' rotation='90'/>", (40, 20, 60, 60)),
        (
            "<ellipse frame='0' outside='0' cx='0' cy='0' rx='20' ry='10' rotation='45'/>",
            [sign * math.sqrt((20**2 + 10**2) / 2) for sign in (-1, -1, 1, 1)],
        ),
        ("<mask frame='0' outside='0' rle='3, 5' left='7' top='8' width='10' height='4'/>", (7, 8, 17, 12)),
        (
            (
                "<cuboid frame='0' outside='0' xtl1='1' ytl1='2' xbl1='1' ybl1='9' xtr1='6' ytr1='3' xbr1='6' "
                "ybr1='8' xtl2='8' ytl2='1' xbl2='8' ybl2='7' xtr2='4' ytr2='2' xbr2='4' ybr2='7'/>"
            ),
            (1, 1, 8, 9),
        ),
        (
            (
                "<skeleton frame='0'><points label='head' outside='0' points='100,50'/><points label='foot' "
                "outside='0' points='120,150'/><points label='hand' outside='1' points='500,500'/><attribute "
                "name='a'>b</attribute></skeleton>"
            ),
            (100, 50, 120, 150),
        ),
        ("<box frame='0' outside='0' xtl='10' ytl='20' xbr='30' ybr='24' rotation='90'/>", (18, 12, 22, 32)),
    ],
)
def test_every_shape_gives_the_box_around_it(root, shape, expected):
    found = read(root, track(shape), stop=1)
    assert boxes(found)[0][0] == pytest.approx(tuple(expected), abs=1e-9) and boxes(found)[1] == ()


def test_a_skeleton_that_is_outside_altogether_shows_nobody(root):
    part = "<points label='head' outside='1' points='100,50'/>"
    assert boxes(read(root, track(f"<skeleton frame='0'>{part}{part}</skeleton>"), stop=0)) == {0: ()}


def test_frames_with_a_shape_that_gives_no_box_are_left_out_by_name(root):
    found = read(
        root,
        track(box(0, 10), box(1, 10)) + track("<brush frame='1' outside='0'/>", "<skeleton frame='2'/>", number=1),
        stop=3,
    )
    assert list(boxes(found)) == [0, 3]
    assert found.notes[0] == "a.xml: frames left out, because <brush> and <skeleton> give no box: 2"


def test_a_shape_that_is_repeated_counts_once_and_another_one_is_an_error(root):
    assert len(boxes(read(root, track(box(0, 10), box(0, 10)), stop=0))[0]) == 1
    found = read(root, track(box(0, 10), box(0, 11)), stop=0)
    assert [refusal.reason for refusal in found.refused] == [
        "a.xml: track 0, box at frame 0: the track has two different shapes in that frame"
    ]


def project(*tasks):
    return (
        "<meta><project><id>7</id><tasks>"
        + "".join(
            f"<task><id>{number}</id><name>{name}</name><start_frame>0</start_frame><stop_frame>{stop}</stop_frame>{more}</task>"
            for number, name, stop, more in tasks
        )
        + "</tasks></project></meta>"
    )


def test_of_a_project_every_video_has_the_boxes_of_its_own_task(root):
    root("b.mp4")
    meta = project((1, "a", 2, ""), (2, "second", 1, "<source>b.mp4</source>"), (3, "c", 1, ""))
    found = read(
        root,
        track(box(0, 10), box(1, 10, outside=1), more="task_id='1'")
        + track(box(0, 200), number=1, label="ball", more="task_id='2'"),
        meta=meta,
    )
    shown = {(image.file.relative, image.frame): image.labels for image in found.images}
    assert shown == {
        ("a.mp4", 0): ("athlete",),
        ("a.mp4", 1): (),
        ("a.mp4", 2): (),
        ("b.mp4", 0): ("ball",),
        ("b.mp4", 1): (),
    }
    assert found.missing == ["a.xml: c"] and found.unlabelled == []


def test_a_track_of_no_task_of_its_project_is_an_error(root):
    with pytest.raises(InputError, match=r"a.xml: track 0 belongs to the task 9, which the project does not contain"):
        read(root, track(box(0, 10), more="task_id='9'"), meta=project((1, "a", 2, "")))
    with pytest.raises(InputError, match=r"a.xml: track 0 belongs to the task None, which"):
        read(root, track(box(0, 10)), meta=project((1, "a", 2, "")))


def test_a_dump_of_images_is_refused_by_a_sentence(root):
    (
        root("a.mp4"),
        root(
            "a.xml",
            (
                "<annotations><image id='0' name='frame_000000'><box label='a' xtl='1' ytl='1' xbr='2' "
                "ybr='2'/></image></annotations>"
            ),
        ),
    )
    with pytest.raises(
        InputError,
        match=r"this is not CVAT for video 1.1; export the task in that format, and a task of images as YOLO or COCO",
    ):
        read_images(root.path)


def test_cvats_xml_beside_images_alone_is_refused_by_a_sentence(root):
    root("1.jpg"), root("a.xml", "<annotations><image id='0' name='1.jpg'/></annotations>")
    with pytest.raises(
        InputError, match=r"a.xml: CVAT's XML, but no video is here; export a task of images as YOLO or COCO"
    ):
        image_layout(root.path)


def test_few_bytes_cannot_stand_for_millions_of_boxes(root):
    many = "".join(track(box(0, 10), box(MAX_FRAMES, 10), number=number) for number in range(2))
    found = read(root, many, every=1000)
    assert (
        found.images == [] and "boxes, interpolated ones included; the maximum is 2,000,000" in found.refused[0].reason
    )
    for stop in ("9" * 5000, "2000001", "x"):
        with pytest.raises(InputError, match=r"stop_frame .* is not a whole number up to 2,000,000"):
            read(root, track(box(0, 10)), stop=stop)
    for frame in ("1.5", "1e300", "2000001", "nan"):
        assert read(root, track(box(frame, 10))).refused[0].verdict == "bad_label"


def test_labels_in_the_encoding_that_the_file_declares(root):
    root("a.mp4")
    text = (
        "<?xml version='1.0' encoding='windows-1251'?>"
        f"<annotations>{META.format(stop=0, more='')}{track(box(0, 10), label='бегун')}</annotations>"
    )
    root("a.xml", text.encode("cp1251"))
    assert read_images(root.path).images[0].labels == ("бегун",)
    root("a.xml", text.replace("windows-1251", "utf-16").encode("utf-16"))
    assert image_layout(root.path) == "cvat" and read_images(root.path).images[0].labels == ("бегун",)


def test_real_keyframes_only():
    found = read_images(case("cvat_keyframes_only"), every=8)
    assert (
        boxes(found)[8] == ((18, 20, 68, 120),)
        and boxes(found)[24] == boxes(found)[32] == ()
        and boxes(found)[64] == ((74, 20, 124, 120),)
    )


def test_real_skeletons():
    assert set(boxes(read_images(case("cvat_skeletons"), every=8)).values()) == {((100, 50, 120, 150),)}


def test_real_project():
    found = read_images(case("cvat_project"), every=8)
    assert {(image.labels, image.boxes) for image in found.images} == {(("athlete",), ((10, 20, 60, 120),))}
    assert found.missing == ["annotations.xml: b"]
