import json

import pytest
import yaml

from posture.data.labels.images import image_layout, read_images
from posture.data.labels.tree import still_group
from posture.errors import InputError
from tests.support.image_folders import (
    moving_box,
    shared,
    some_boxes,
    voc_xml,
    write_coco,
    write_cvat,
    write_ucf101_24,
    write_voc,
    write_yolo,
    yolo_line,
)


@pytest.fixture
def sports_target():
    return shared("sports_target")


@pytest.fixture
def ucf101_24():
    return shared("ucf101_24")


def shown(found):
    """{file or (file, frame): (boxes, labels)}"""
    return {
        image.file.relative if image.frame is None else (image.file.relative, image.frame): (image.boxes, image.labels)
        for image in found.images
    }


def splits(found):
    return {image.file.relative: image.split for image in found.images}


@pytest.mark.parametrize(("write", "layout"), [(write_yolo, "yolo"), (write_coco, "coco"), (write_voc, "voc")])
def test_the_same_boxes_in_every_layout_of_stills(write, layout, tmp_path):
    counts = {"train": 3, "val": 2, "test": 2}
    write(tmp_path, counts)
    assert image_layout(str(tmp_path)) == layout
    found = read_images(str(tmp_path))
    assert (found.layout, found.missing, found.unlabelled, found.refused, found.notes) == (layout, [], [], [], [])
    scale = (64, 48, 64, 48) if layout == "yolo" else (1, 1, 1, 1)
    for split, count in counts.items():
        boxes = [image.boxes[0] for image in found.images if image.split == split]
        for box, drawn in zip(boxes, some_boxes(count, seed=len(split)), strict=True):
            assert [side * factor for side, factor in zip(box, scale, strict=True)] == pytest.approx(drawn, abs=1e-4)


def test_splits_that_are_held_out(tmp_path):
    write_yolo(tmp_path, {"train": 3, "val": 2})
    found = read_images(str(tmp_path))
    assert sorted(map(str, splits(found).values())) == ["test"] * 2 + ["train"] * 3
    assert len(found.notes) == 1 and "val is the only hold-out, so it becomes test" in found.notes[0]
    kept = read_images(str(tmp_path), named_val="val")
    assert sorted(map(str, splits(kept).values())) == ["train"] * 3 + ["val"] * 2 and kept.notes == []


def test_where_nothing_is_held_out_the_store_decides(tmp_path):
    write_yolo(tmp_path, {"train": 4})
    assert set(splits(read_images(str(tmp_path))).values()) == {None}
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [athlete]\n")
    found = read_images(str(tmp_path))
    assert len(found.images) == 4 and set(splits(found).values()) == {None}


def test_yolo_places_and_names(root):
    for name in ("images/a/1.jpg", "images/b/2.jpg", "images/b/3.jpg", "images/c/4.jpg", "flat/5.jpg"):
        root(name)
    root("labels/a/1.txt", "1 0.5 0.5 0.2 0.4\n\n")
    root("flat/5.txt", "4 0.1 0.1 0.7 0.2 0.3 0.6\n")
    root("lists/val.txt", "./images/b/2.jpg\n\n/home/somebody/set/images/b/3.jpg\nimages/b/gone.jpg\n")
    table = root(
        "data.yaml",
        yaml.safe_dump({
            "path": "nowhere/to/be/found",
            "train": ["images/a", "flat"],
            "val": "lists/val.txt",
            "test": "images/none",
            "names": {1: "athlete", 4: "ball"},
        }),
    )
    found = read_images(root.path)
    boxes = shown(found)
    assert boxes["images/a/1.jpg"] == (((0.4, 0.3, 0.6, 0.7),), ("athlete",))
    assert boxes["flat/5.jpg"] == (((0.1, 0.1, 0.7, 0.6),), ("ball",)), "a polygon gives the box around it"
    assert boxes["images/b/2.jpg"] == boxes["images/b/3.jpg"] == ((), ())
    assert found.missing == ["lists/val.txt line 4: images/b/gone.jpg"] and found.unlabelled == ["images/c/4.jpg"]
    assert found.notes[0] == "data.yaml: test: images/none names no folder or list with images here"
    assert read_images(str(table)).images == found.images


def test_yolo_table_in_a_folder_of_its_own(root):
    root("photos/1.jpg"), root("cfg/data.yaml", "train: ../photos\nnames: [athlete]\n")
    assert list(shown(read_images(root.path))) == ["photos/1.jpg"]
    root("cfg/set.yaml", "path: ../photos\ntrain: .\nnames: [athlete]\n")
    assert list(shown(read_images(f"{root.path}/cfg/set.yaml"))) == ["1.jpg"]
    with pytest.raises(InputError, match=r"cfg/data.yaml, cfg/set.yaml describe a data set each; give one of them"):
        read_images(root.path)


def test_a_image_that_two_tables_label_differently_is_refused(root):
    root("photos/1.jpg")
    for name, label in (("a", "athlete"), ("b", "athlete"), ("c", "ball")):
        root(
            f"{name}.json",
            json.dumps({
                "images": [{"id": 1, "file_name": "1.jpg"}],
                "categories": [{"id": 1, "name": label}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
            }),
        )
    with pytest.raises(InputError, match=r"photos/1.jpg is labelled twice, with different boxes"):
        read_images(root.path)
    root("c.json").unlink()
    assert len(read_images(root.path).images) == 1


def test_yolo_as_roboflow_exports_it(root):
    for place in ("train", "valid", "test"):
        (
            root(f"{place}/images/jump_jpg.rf.{place}1.jpg"),
            root(f"{place}/labels/jump_jpg.rf.{place}1.txt", "0 0.5 0.5 1 1\n"),
        )
    root("data.yaml", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnc: 1\nnames: ['athlete']\n")
    found = read_images(root.path)
    assert [(image.split, image.group, len(image.boxes)) for image in found.images] == [
        (split, "jump", 1) for split in ("test", "train", "val")
    ]


def test_yolo_pose_keeps_the_box(root):
    root("images/1.jpg"), root("labels/1.txt", "0 0.5 0.5 0.2 0.4 0.1 0.2 2 0.3 0.4 1\n")
    root("data.yaml", "train: images\nkpt_shape: [2, 3]\nnames: [person]\n")
    assert shown(read_images(root.path)) == {"images/1.jpg": (((0.4, 0.3, 0.6, 0.7),), ("person",))}


def test_a_label_without_its_image(root):
    (
        root("images/1.jpg"),
        root("labels/1.txt", "0 0.5 0.5 0.2 0.4\n"),
        root("labels/2.txt", "0 0.5 0.5 0.2 0.4\n"),
        root("labels/classes.txt", "athlete\n"),
    )
    root("data.yaml", "train: images\nnames: [athlete]\n")
    assert read_images(root.path).missing == ["labels/2.txt: 2"]


@pytest.mark.parametrize(
    ("line", "verdict", "reason"),
    [
        ("2 0.5 0.5 0.2 0.4", "unknown_class", "labels/1.txt line 2: class 2 does not exist; the classes are 0 to 1"),
        ("-1 0.5 0.5 0.2 0.4", "unknown_class", "labels/1.txt line 2: class -1"),
        ("0.5 0.5 0.5 0.2 0.4", "unknown_class", "labels/1.txt line 2: class 0.5"),
        ("0 0.5 0.5 nan 0.4", "bad_label", "labels/1.txt line 2: 'nan' is not a number"),
        ("0 0.5 0.5 inf 0.4", "bad_label", "labels/1.txt line 2: 'inf' is not a number"),
        ("0 0.5 0.5 x 0.4", "bad_label", "labels/1.txt line 2: 'x' is not a number"),
        ("0 0.5 0.5 0.2", "bad_label", "labels/1.txt line 2: 4 numbers"),
        ("0 0.5 0.5 0.2 0.4 0.9", "bad_label", "labels/1.txt line 2: 6 numbers"),
    ],
)
def test_bad_yolo_lines_refuse_their_image_alone(root, line, verdict, reason):
    root("images/1.jpg"), root("labels/1.txt", f"0 0.5 0.5 0.2 0.4\n{line}\n"), root("images/2.jpg")
    root("data.yaml", "train: images\nnames: [athlete, ball]\n")
    found = read_images(root.path)
    assert list(shown(found)) == ["images/2.jpg"]
    (refusal,) = found.refused
    assert (refusal.file.relative, refusal.verdict) == ("images/1.jpg", verdict) and refusal.reason.startswith(reason)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("names: [a\ntrain: images\n", r"data.yaml line \d: not YAML"),
        ("- a\n", "needs names and at least one of train, val and test"),
        ("train: images\n", "needs names"),
        ("train: images\nnames: 3\n", "names must be a list of classes"),
        ("train: images\nnames: {a: b}\n", "names must be a list of classes"),
        ("train: images\nnames: [a, a]\n", "names has 'a' twice"),
        ("train: photos\nnames: [a]\n", "none of train, val and test names a folder"),
    ],
)
def test_a_broken_data_yaml_is_named(root, content, complaint):
    root("images/1.jpg"), root("data.yaml", content)
    with pytest.raises(InputError, match=complaint):
        read_images(root.path)


def coco(root, annotations, images=None, categories=({"id": 3, "name": "athlete"},)):
    root("photos/1.jpg")
    images = images or [{"id": 1, "file_name": "1.jpg", "height": 48, "width": 64}]
    root("labels.json", json.dumps({"images": images, "annotations": annotations, "categories": list(categories)}))
    return read_images(root.path)


def test_coco_boxes_crowds_and_images_that_are_not_there(root):
    found = coco(
        root,
        [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1.5, 2, 10, 20]},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [0, 0, 60, 40], "iscrowd": 1},
            {"id": 3, "image_id": 9, "category_id": 3, "bbox": [0, 0, 60, 40]},
        ],
        [
            {"id": 1, "file_name": "1.jpg", "height": 48, "width": 64},
            {"id": 2, "file_name": "2.jpg", "height": 48, "width": 64},
        ],
    )
    assert shown(found) == {"photos/1.jpg": (((1.5, 2.0, 11.5, 22.0), (0.0, 0.0, 60.0, 40.0)), ("athlete", "athlete"))}
    assert found.images[0].ignored == (False, True)
    assert found.images[0].size == (48, 64) and found.images[0].split is None
    assert found.missing == ["labels.json: 2.jpg", "labels.json: image 9 of 1 annotations"]
    assert found.notes == [
        (
            "boxes of crowds or difficult objects, kept as ignore regions (neither true nor false positives, and "
            "not trained on): 1"
        )
    ]


def test_coco_finds_the_same_name_in_the_folder_of_its_split(root):
    for year, word in (("train2017", "train"), ("val2017", "val")):
        root(f"{year}/000001.jpg")
        root(
            f"annotations/instances_{year}.json",
            json.dumps({
                "images": [{"id": 1, "file_name": "000001.jpg"}],
                "categories": [{"id": 1, "name": word}],
                "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}],
            }),
        )
    root("annotations/captions_train2017.json", json.dumps({"images": [], "annotations": [{"caption": "a jump"}]}))
    found = read_images(root.path, named_val="val")
    assert {image.file.relative: (image.labels, image.split) for image in found.images} == {
        "train2017/000001.jpg": (("train",), "train"),
        "val2017/000001.jpg": (("val",), "val"),
    }
    one = read_images(f"{root.path}/annotations/instances_val2017.json", named_val="val")
    assert splits(one) == {"val2017/000001.jpg": "val"}


@pytest.mark.parametrize(
    ("annotation", "verdict", "reason"),
    [
        ({"category_id": 4, "bbox": [0, 0, 1, 1]}, "unknown_class", "annotation 1: category 4 is not in categories"),
        ({"category_id": 3, "bbox": [0, 0, 1]}, "bad_label", "is not x, y, width, height"),
        ({"category_id": 3}, "bad_label", "bbox None is not x, y, width, height"),
        ({"category_id": 3, "bbox": [0, 0, 1, "x"]}, "bad_label", "'x' is not a number"),
        ({"category_id": 3, "bbox": [0, 0, 1, float("inf")]}, "bad_label", "'inf' is not a number"),
    ],
)
def test_bad_coco_annotations_refuse_their_image(root, annotation, verdict, reason):
    found = coco(root, [{"id": 1, "image_id": 1} | annotation])
    (refusal,) = found.refused
    assert (
        found.images == []
        and refusal.verdict == verdict
        and reason in refusal.reason
        and "labels.json" in refusal.reason
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ('{"images": [', "labels.json line 1: not JSON"),
        ('{"images": [], "annotations": []}', "categories must be a list of objects with id and name"),
        (
            '{"images": [{"id": 1}], "annotations": [], "categories": []}',
            "images must be a list of objects with id and file_name",
        ),
        (
            '{"images": [{"id": 1, "file_name": "7.jpg"}], "annotations": [], "categories": []}',
            r"no label names an image .*labels.json: 7.jpg",
        ),
    ],
)
def test_a_broken_coco_file_is_named(root, content, complaint):
    root("photos/1.jpg"), root("labels.json", content)
    with pytest.raises(InputError, match=complaint):
        read_images(root.path)


def test_voc_counts_pixels_from_one_and_means_both_ends(root):
    root("VOC/JPEGImages/1.jpg"), root("VOC/JPEGImages/2.jpg"), root("VOC/JPEGImages/3.jpg")
    (
        root("VOC/Annotations/1.xml", voc_xml("1.jpg", [(0, 0, 64, 48)])),
        root("VOC/Annotations/2.xml", voc_xml("2.jpg", [])),
        root("VOC/Annotations/4.xml", ""),
    )
    found = read_images(root.path)
    assert shown(found) == {
        "VOC/JPEGImages/1.jpg": (((0.0, 0.0, 64.0, 48.0),), ("athlete",)),
        "VOC/JPEGImages/2.jpg": ((), ()),
    }
    assert found.missing == ["VOC/Annotations/4.xml: 4"] and found.unlabelled == ["VOC/JPEGImages/3.jpg"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("<annotation><object>", "line 1: not XML"),
        ("<annotation><object><bndbox/></object></annotation>", "object 1: the class has no name"),
        (
            "<annotation><object><name>a</name><bndbox><xmin>1</xmin></bndbox></object></annotation>",
            "object 1: bndbox: 'None' is not a number",
        ),
        (
            '<!DOCTYPE annotation [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>\n'
            "<annotation><object><name>&b;</name></object></annotation>",
            "<!DOCTYPE> is not allowed",
        ),
        ('<annotation>\n<!ENTITY a SYSTEM "file:///etc/passwd"></annotation>', "line 2: <!ENTITY> is not allowed"),
    ],
)
def test_bad_voc_files_refuse_their_image(root, content, reason):
    (
        root("JPEGImages/1.jpg"),
        root("Annotations/1.xml", content),
        root("JPEGImages/0.jpg"),
        root("Annotations/0.xml", voc_xml("0.jpg", [])),
    )
    found = read_images(root.path)
    (refusal,) = found.refused
    assert list(shown(found)) == ["JPEGImages/0.jpg"] and refusal.verdict == "bad_label" and reason in refusal.reason


def test_cvat_gives_every_nth_frame_and_no_box_that_is_outside(tmp_path):
    write_cvat(tmp_path, outside=[8, 9])
    assert image_layout(str(tmp_path)) == "cvat"
    found = read_images(str(tmp_path))
    assert shown(found) == {
        ("jump.mp4", 0): ((moving_box(0),), ("athlete",)),
        ("jump.mp4", 8): ((), ()),
        ("jump.mp4", 16): ((moving_box(16),), ("athlete",)),
        ("jump.mp4", 24): ((moving_box(24),), ("athlete",)),
    }
    assert {(image.group, image.size) for image in found.images} == {("jump", (64, 112))}
    assert "all images are in one group, jump" in found.notes[0]
    assert len(read_images(str(tmp_path), every=1).images) == 30


def cvat(root, track, meta="<meta><source>a.mp4</source></meta>"):
    root("a.mp4"), root("b.mp4")
    root("a.xml", f"<annotations>{meta}<track id='0' label='athlete'>{track}</track></annotations>")
    return read_images(root.path, every=1)


def test_cvat_turned_boxes_and_polygons_give_the_upright_box_around_them(root):
    found = cvat(
        root,
        "<box frame='0' outside='0' xtl='10' ytl='20' xbr='30' ybr='24' rotation='90'/>"
        "<polygon frame='1' outside='0' points='1,9;4,2;7,5'/><points frame='2' outside='0' points='1,2'/>",
    )
    (first,), (second,), third = (image.boxes for image in found.images)
    assert first == pytest.approx((18, 12, 22, 32)) and second == (1, 2, 7, 9) and third == ((1, 2, 1, 2),), (
        "a point, which has no area, is refused later"
    )
    assert found.unlabelled == ["b.mp4"]


def test_cvat_frames_of_a_task_that_took_every_third(root):
    meta = (
        "<meta><task><start_frame>6</start_frame><stop_frame>20</stop_frame><frame_filter>step=3</frame_filter></task>"
        "<source>a.mp4</source></meta>"
    )
    root("a.mp4")
    root(
        "a.xml",
        (
            f"<annotations>{meta}<track id='0' label='athlete'><box frame='9' outside='0' xtl='1' ytl='1' xbr='2' "
            "ybr='2'/></track></annotations>"
        ),
    )
    assert [image.frame for image in read_images(root.path, every=1).images] == [6, 9, 12, 15, 18]
    assert [image.frame for image in read_images(root.path, every=7).images] == [6, 12, 18]


@pytest.mark.parametrize(
    "box",
    [
        "<box frame='1' outside='0' xtl='nan' ytl='1' xbr='2' ybr='2'/>",
        "<box frame='1' outside='0' xtl='1'/>",
        "<box frame='-1' outside='0' xtl='1' ytl='1' xbr='2' ybr='2'/>",
        "<polygon frame='0' outside='0' points='1;2'/>",
    ],
)
def test_bad_cvat_tracks_refuse_their_video(root, box):
    found = cvat(root, box)
    assert found.images == [] and [(refusal.file.relative, refusal.verdict) for refusal in found.refused] == [
        ("a.mp4", "bad_label")
    ]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("<annotations><track>", "a.xml line 1: not XML"),
        ("<!DOCTYPE x>\n<annotations></annotations>", "a.xml line 1: <!DOCTYPE> is not allowed"),
        ("<annotations><image id='0' name='1.jpg'/></annotations>", "this is not CVAT for video 1.1"),
    ],
)
def test_a_broken_cvat_file_is_named(root, content, complaint):
    root("a.mp4"), root("a.xml", content)
    with pytest.raises(InputError, match=complaint):
        read_images(root.path)


def test_ucf101_24_gives_frames_of_tubes_counted_from_one(tmp_path):
    write_ucf101_24(tmp_path, {"Jump/v_Jump_g01_c01": [(3, 20), (10, 12)], "Run/v_Run_g02_c03": [(30, 30)]})
    assert image_layout(str(tmp_path)) == "ucf101_24"
    found = read_images(str(tmp_path))
    jump, run = "videos/Jump/v_Jump_g01_c01.avi", "videos/Run/v_Run_g02_c03.avi"
    # Tube 1 covers frames 2 to 19, tube 2 frames 9 to 11: every eighth is 8 and 16, and 10 is added for tube 2.
    assert shown(found) == {
        (jump, 8): ((moving_box(8),), ("Jump",)),
        (jump, 10): ((moving_box(10),) * 2, ("Jump", "Jump")),
        (jump, 16): ((moving_box(16),), ("Jump",)),
        (run, 29): ((moving_box(29),), ("Run",)),
    }
    assert [image.tubes for image in found.images] == [
        ("v_Jump_g01_c01/1",),
        ("v_Jump_g01_c01/1", "v_Jump_g01_c01/2"),
        ("v_Jump_g01_c01/1",),
        ("v_Run_g02_c03/1",),
    ]
    assert [image.group for image in found.images] == ["Jump_g01"] * 3 + ["Run_g02"]


def test_ucf101_24_with_the_official_lists_and_half_of_the_videos(tmp_path):
    write_ucf101_24(
        tmp_path, {"Jump/v_Jump_g01_c01": [(1, 9)], "Jump/v_Jump_g02_c01": [(1, 9)], "Jump/v_Jump_g03_c01": [(1, 9)]}
    )
    (tmp_path / "videos" / "Jump" / "v_Jump_g03_c01.avi").unlink()
    (tmp_path / "trainlist01.txt").write_text("Jump/v_Jump_g01_c01.avi 1\n")
    (tmp_path / "testlist01.txt").write_text("Jump/v_Jump_g02_c01.avi\n")
    found = read_images(str(tmp_path))
    assert {image.group: image.split for image in found.images} == {"Jump_g01": "train", "Jump_g02": "test"}
    assert found.notes == ["1 of the videos that finalAnnots.mat describes are not here"] and found.missing == []


def test_ucf101_24_beside_copies_of_its_videos_and_lists_as_windows_writes_them(tmp_path):
    root = write_ucf101_24(tmp_path / "two", {"Jump/v_Jump_g01_c01": [(1, 9)], "Jump/v_Jump_g02_c01": [(1, 9)]})
    for copy in ("one", "three"):
        (tmp_path / copy / "Jump").mkdir(parents=True)
        (tmp_path / copy / "Jump" / "v_Jump_g01_c01.mp4").touch()
    (root / "trainlist01.txt").write_text("Jump\\v_Jump_g01_c01.avi 1\r\n")
    (root / "testlist01.txt").write_text("Jump\\v_Jump_g02_c01.avi\r\n")
    found = read_images(str(tmp_path), layout="ucf101_24")
    assert {image.file.relative: image.split for image in found.images} == {
        "two/videos/Jump/v_Jump_g01_c01.avi": "train",
        "two/videos/Jump/v_Jump_g02_c01.avi": "test",
    }


def test_a_broken_mat_file_is_named(root, tmp_path):
    from scipy.io import savemat

    root("a.mp4")
    for content in (b"", b"MATLAB 5.0 MAT-file" + b"x" * 500):
        (tmp_path / "finalAnnots.mat").write_bytes(content)
        with pytest.raises(InputError, match=r"finalAnnots.mat: not the annotations of UCF101-24"):
            read_images(root.path)
    savemat(tmp_path / "finalAnnots.mat", {"annot": [1, 2]})
    with pytest.raises(
        InputError, match=r"finalAnnots.mat: not the annotations of UCF101-24: `annot` lacks the fields name and tubes"
    ):
        read_images(root.path)


def test_footage_is_not_taken_for_images(root, class_folders):
    assert image_layout(str(class_folders)) is None
    (
        root("kick/a.mp4"),
        root("kick/thumb.jpg"),
        root("footage.json", '{"generator": "x"}'),
        root("camera.xml", "<clip/>"),
        root("segments.csv", "video\n"),
    )
    (root("kick/latin.xml")).write_bytes("<?xml version='1.0' encoding='latin-1'?><größe/>".encode("latin-1"))
    assert image_layout(root.path) is None and image_layout(f"{root.path}/segments.csv") is None


def test_folders_without_labels_are_refused_with_what_is_missing(root):
    root("a.jpg")
    with pytest.raises(InputError, match=r"images without labels; add a data.yaml"):
        image_layout(root.path)
    for layout, needed in (
        ("yolo", "a data.yaml"),
        ("coco", "a JSON file"),
        ("voc", "Annotations"),
        ("cvat", "an XML file"),
        ("ucf101_24", "finalAnnots.mat"),
    ):
        with pytest.raises(InputError, match=f"the layout {layout} needs {needed}"):
            read_images(root.path, layout=layout)
    with pytest.raises(InputError, match="no such file"):
        read_images(f"{root.path}/other.yaml")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("images/train/v_Archery_g08_c02_f0020.jpg", "Archery_g08"),
        ("v_HorseRace_g25_c01.png", "HorseRace_g25"),
        ("images/val/match3_frame_0012.jpg", "match3"),
        ("images/val/day1/match3-f12.jpg", "day1/match3"),
        ("images/train/match3/000012.jpg", "match3"),
        ("train/match3/img_00012.jpg", "match3"),
        ("train2017/000000000139.jpg", ""),
        ("images/train/000012.jpg", ""),
        ("JPEGImages/2007_000027.jpg", ""),
        ("images/train/sub/holiday.jpg", ""),
        ("images/v_Archery_final.jpg", ""),
        ("train/images/jump_png.rf.0a1b2c.jpg", "jump"),
        ("train/images/match3_frame_7_jpg.rf.0a1b2c.jpg", "match3"),
    ],
)
def test_groups_of_stills_are_told_by_their_names(name, group):
    assert still_group(name) == group


def test_real_sports_target(sports_target):
    found = read_images(str(sports_target))
    assert (found.layout, len(found.images), found.missing, found.refused, found.unlabelled) == (
        "yolo",
        288,
        [],
        [],
        [],
    )
    groups = {split: {image.group for image in found.images if image.split == split} for split in ("train", "test")}
    assert not groups["train"] & groups["test"] and all(
        group.split("_")[0] in ("BasketballDunk", "Surfing") for group in groups["test"]
    )


def test_real_ucf101_24(ucf101_24):
    found = read_images(str(ucf101_24))
    assert (found.layout, len({image.file.uri for image in found.images}), found.refused) == ("ucf101_24", 14, [])
    assert {label for image in found.images for label in image.labels} == {"BasketballDunk", "Surfing"}
    assert all(0 <= x1 < x2 <= 320 and 0 <= y1 < y2 <= 240 for image in found.images for x1, y1, x2, y2 in image.boxes)


def test_labels_that_are_not_text_are_refused(tmp_path):
    write_yolo(tmp_path, {"train": 2})
    (tmp_path / "labels" / "train" / "t000.txt").write_bytes(b"0 0.5 \xff\xfe 0.2 0.4\n")
    found = read_images(str(tmp_path))
    assert [refusal.verdict for refusal in found.refused] == ["bad_label"] and len(found.images) == 1
    (tmp_path / "data.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not UTF-8 text"):
        read_images(str(tmp_path))


def test_yolo_line_of_the_tests_is_the_format_itself():
    assert yolo_line((0, 0, 64, 48)) == "0 0.50000000 0.50000000 1.00000000 1.00000000\n"
