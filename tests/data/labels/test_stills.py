"""Odd labels of images: those that are understood, and those that are refused by name, not read as an empty image."""

import json
import unicodedata

import numpy as np
import pytest

from posture.data.labels.images import image_layout, read_images
from posture.data.labels.records import BadLabel
from posture.data.labels.rle import rle_box
from posture.data.labels.safe_xml import BadXML, parse_xml
from posture.data.store.safe_json import MAX_CLASSES
from posture.errors import InputError
from tests.support.cases import case

YOLO = "0 0.5 0.5 0.2 0.4\n"


def shown(found):
    return {image.file.relative: (image.boxes, image.labels) for image in found.images}


def refused(found):
    return {refusal.file.relative: refusal.reason for refusal in found.refused}


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("train/Images/1.JPG", "train/labels/1.txt"),
        ("train/JPEGS/1.jpg", "train/labels/1.txt"),
        ("train/Images/1.jpg", "train/Labels/1.TXT"),
        ("imgs/train/1.jpeg", "labels/train/1.txt"),
        ("images/train/1.jpg", "images/train/1.txt"),
        ("images/a/images/1.jpg", "images/a/labels/1.txt"),
        (unicodedata.normalize("NFD", "images/Läufer.jpg"), unicodedata.normalize("NFC", "labels/Läufer.txt")),
    ],
)
def test_yolo_labels_are_found_in_any_letter_case_and_form(root, image, label):
    root(image), root(label, YOLO), root("data.yaml", f"train: {image.rpartition('/')[0]}\nnames: [athlete]\n")
    found = read_images(root.path)
    assert shown(found) == {image: (((0.4, 0.3, 0.6, 0.7),), ("athlete",))} and found.missing == []


def test_images_without_a_file_of_labels_are_counted_and_an_empty_file_says_nobody(root):
    for number in range(4):
        root(f"images/{number}.jpg")
    root("labels/0.txt", YOLO), root("labels/1.txt", " \n"), root("data.yaml", "train: images\nnames: [athlete]\n")
    found = read_images(root.path)
    assert [len(image.boxes) for image in found.images] == [1, 0, 0, 0]
    assert (
        found.notes[0] == "images without a label file, such as labels/2.txt, taken as images without objects: 2 of 4"
    )
    assert found.notes[1].startswith(
        "every image is a group of its own, so two frames of one recording may be in different splits; "
    )
    root("images/match_frame_0012.jpg")
    assert len(read_images(root.path).notes) == 1


def test_a_file_of_labels_that_two_folders_may_own_refuses_both(root):
    root("train/1.jpg"), root("test/1.jpg"), root("train/2.jpg"), root("labels/1.txt", YOLO), root("labels/2.txt", YOLO)
    root("data.yaml", "train: train\ntest: test\nnames: [athlete]\n")
    found = read_images(root.path)
    assert list(shown(found)) == ["train/2.jpg"] and set(refused(found).values()) == {
        "labels/1.txt may belong to images in test and train"
    }


def test_labels_of_another_kind_beside_those_that_are_read_are_named(root):
    (
        root("images/1.jpg"),
        root("labels/1.txt", YOLO),
        root("data.yaml", "train: images\nnames: [a]\n"),
        root("package.json", '{"name": "x"}'),
    )
    assert read_images(root.path).notes == []
    root("images/1.json", '{"version": "5.0", "shapes": [{"label": "a", "points": [[1, 2], [3, 4]]}]}')
    assert read_images(root.path).notes == ["not read, because the layout is yolo, but may hold labels: images/1.json"]


def test_a_file_of_labels_that_cannot_be_read_is_not_an_empty_one(root, tmp_path):
    root("images/1.jpg"), root("labels/2.txt"), root("data.yaml", "train: images\nnames: [athlete]\n")
    (tmp_path / "labels" / "1.txt").symlink_to(tmp_path / "gone.txt")
    with pytest.raises(InputError, match=r"labels/1.txt: this label file cannot be read"):
        read_images(root.path)


def test_files_of_labels_that_belong_to_nothing_are_named(root):
    (
        root("images/1.jpg"),
        root("labels/1.txt", YOLO),
        root("labels/2.txt", YOLO),
        root("labels/old/3.txt"),
        root("labels/classes.txt", "athlete\n"),
    )
    root("notes/4.txt", YOLO), root("images/5.tif"), root("data.yaml", "train: images\nnames: [athlete]\n")
    found = read_images(root.path)
    assert found.missing == ["labels/2.txt: 2", "labels/old/3.txt: 3"]
    assert found.notes == ["images in a format that is not read (.tif; convert them to JPEG or PNG): 1"]


def test_files_of_labels_in_a_folder_of_another_name_are_named(root):
    (
        root("imgs/1.jpg"),
        root("annotations/1.TXT", YOLO),
        root("imgs/2.jpg"),
        root("annotations/2.txt"),
        root("imgs/3.jpg"),
        root("annotations/3.txt", "jump\n"),
    )
    root("data.yaml", "train: imgs\nnames: [athlete]\n")
    assert read_images(root.path).missing == ["annotations/1.TXT: 1", "annotations/2.txt: 2"]


def test_an_image_in_two_lists_is_refused_once(root):
    (
        root("images/1.jpg"),
        root("labels/1.txt", "9 0.5 0.5 0.2 0.4"),
        root("data.yaml", "train: images\nval: images\nnames: [athlete]\n"),
    )
    assert len(read_images(root.path).refused) == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (
            "0 80 60 80 60",
            (
                "line 1: 80 is not a share of the image between 0 and 1; divide coordinates in pixels by its "
                "width and height"
            ),
        ),
        ("0 10 10 50 10 50 40", "line 1: 50 is not a share of the image"),
        (
            "0 0.5 0.5 0.2 0.4 0.93",
            (
                "line 1: 6 numbers; a box has 5, a polygon 7, 9 or more; remove a sixth number, such as a "
                "confidence or a track id"
            ),
        ),
        ("0 0,5 0,5 0,2 0,4", "line 1: '0,5' is not a number"),
        ("0 1_0 0.5 0.2 0.4", "line 1: '1_0' is not a number"),
        ("0 " + "9" * 5000 + " 0.5 0.2 0.4", "line 1: '9999999999"),
    ],
)
def test_yolo_rows_in_other_units_or_with_other_columns_refuse_their_image(root, line, reason):
    (
        root("images/1.jpg"),
        root("labels/1.txt", line),
        root("images/2.jpg"),
        root("labels/2.txt", YOLO),
        root("data.yaml", "train: images\nnames: [a]\n"),
    )
    found = read_images(root.path)
    assert list(shown(found)) == ["images/2.jpg"] and refused(found)["images/1.jpg"].startswith(
        f"labels/1.txt {reason}"
    )


def test_turned_boxes_and_utf16_are_read(root):
    root("images/1.jpg"), root("labels/1.txt", "0 0.5 0.1 0.9 0.5 0.5 0.9 0.1 0.5\n".encode("utf-16"))
    root("data.yaml", "train: images\nnames: {0: no}\n".encode("utf-16"))
    assert shown(read_images(root.path)) == {"images/1.jpg": (((0.1, 0.1, 0.9, 0.9),), ("no",))}


def test_a_pose_must_have_the_points_that_the_yaml_says(root):
    root("images/1.jpg"), root("labels/1.txt", "0 0.5 0.5 0.2 0.4 0.1 0.2 2 0.3 0.4 2\n")
    root("images/2.jpg"), root("labels/2.txt", "0 0.5 0.5 0.2 0.4 0.1 0.2\n")
    root("data.yaml", "train: images\nkpt_shape: [2, 3]\nnames: [a]\n")
    found = read_images(root.path)
    assert (
        list(shown(found)) == ["images/1.jpg"]
        and "7 numbers; a box has 5, a polygon 7, 9 or more, a pose 11 by kpt_shape" in refused(found)["images/2.jpg"]
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train: images\nnames: [a, b]\nnc: 3\n", "data.yaml: nc is 3, but names has 2 classes"),
        ("train: images\nnames: ['']\n", "data.yaml: names, class 0: the class has no name"),
        ("train: images\nnames: [[a, b]]\n", "data.yaml: names, class 0: the class has no name"),
        ("train: images\nnames: [" + "a" * 300 + "]\n", "must be one line of at most 200 characters"),
        ("train: images\nnames: {'" + "9" * 5000 + "': a}\n", "data.yaml"),
        (
            "train: images\nnames:\n" + "".join(f"- c{number}\n" for number in range(MAX_CLASSES + 1)),
            "25,001 classes; the maximum is 25,000",
        ),
        ("train: images\nnames: [a]\nkpt_shape: 17\n", "kpt_shape must be"),
    ],
)
def test_a_data_yaml_that_contradicts_itself_or_is_too_much_is_an_error(root, text, complaint):
    root("images/1.jpg"), root("labels/1.txt", YOLO), root("data.yaml", text)
    with pytest.raises(InputError, match=complaint):
        read_images(root.path)


def test_keys_of_a_data_yaml_that_are_not_read_are_named(root):
    root("images/1.jpg"), root("labels/1.txt", YOLO), root("data.yaml", "train: images\nvalid: images\nnames: [a]\n")
    assert read_images(root.path).notes == ["data.yaml: valid is not read; the splits are train, val and test"]


@pytest.mark.parametrize("link", [False, True])
def test_path_leads_out_of_the_footage_only_if_that_is_allowed(root, tmp_path, link):
    (
        root("elsewhere/images/1.jpg"),
        root("elsewhere/labels/1.txt", YOLO),
        root("set/images/2.jpg"),
        root("set/labels/2.txt", YOLO),
    )
    path = "inner" if link else "../elsewhere"
    if link:
        (tmp_path / "set" / "inner").symlink_to(tmp_path / "elsewhere")
    root("set/data.yaml", f"path: {path}\ntrain: images\nnames: [a]\n")
    with pytest.raises(InputError, match=rf"data.yaml: path: {path} leads out of .*/set; add --outside to read it"):
        read_images(f"{root.path}/set")
    assert list(shown(read_images(f"{root.path}/set", outside=True))) == ["images/1.jpg"]
    root("set/data.yaml", "path: /nowhere/at/all\ntrain: images\nnames: [a]\n")
    assert list(shown(read_images(f"{root.path}/set"))) == ["images/2.jpg"], (
        "a path of another machine names nothing here"
    )


def coco(
    root,
    annotations,
    images=({"id": 1, "file_name": "1.jpg", "height": 48, "width": 64},),
    categories=({"id": 3, "name": "athlete"},),
):
    root("photos/1.jpg")
    root("labels.json", json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return read_images(root.path)


@pytest.mark.parametrize(("image", "category"), [("1", "3"), (1.0, 3.0), (" 1 ", 3), (1, "3")])
def test_ids_as_texts_join(root, image, category):
    found = coco(root, [{"id": 1, "image_id": image, "category_id": category, "bbox": [1, 2, 3, 4]}])
    assert shown(found) == {"photos/1.jpg": (((1, 2, 4, 6),), ("athlete",))}


def test_ids_that_do_not_join_or_are_there_twice_are_an_error(root):
    with pytest.raises(
        InputError, match=r"none of the 1 annotations has an image_id that is the id of an image; the first is '000001'"
    ):
        coco(root, [{"id": 1, "image_id": "000001", "category_id": 3, "bbox": [1, 2, 3, 4]}])
    with pytest.raises(InputError, match="two images have the id 1"):
        coco(root, [], [{"id": 1, "file_name": "1.jpg"}, {"id": "1", "file_name": "2.jpg"}])
    with pytest.raises(InputError, match="category 3 is both 'a' and 'b'"):
        coco(root, [], categories=[{"id": 3, "name": "a"}, {"id": "3", "name": "b"}])
    with pytest.raises(InputError, match="25,001 categories; the maximum is 25,000"):
        coco(root, [], categories=[{"id": number, "name": str(number)} for number in range(MAX_CLASSES + 1)])


@pytest.mark.parametrize(
    ("annotation", "box"),
    [
        ({"segmentation": [[1, 9, 4, 2], [7, 5, 3, 3]]}, (1, 2, 7, 9)),
        ({"segmentation": {"size": [4, 5], "counts": [6, 2, 3, 1, 8]}}, (1, 2, 3, 4)),
        ({"bbox": None, "segmentation": [[1, 9, 4, 2]]}, (1, 2, 4, 9)),
        ({"bbox": [], "keypoints": [5, 6, 2, 0, 0, 0, 9, 1, 1]}, (5, 1, 9, 6)),
    ],
)
def test_a_missing_bbox_is_the_box_around_what_else_was_drawn(root, annotation, box):
    assert shown(coco(root, [{"id": 1, "image_id": 1, "category_id": 3} | annotation])) == {
        "photos/1.jpg": ((box,), ("athlete",))
    }


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ({}, "bbox None is not x, y, width, height"),
        ({"keypoints": [5, 6, 2, 0, 0, 0]}, "bbox None is not"),
        ({"segmentation": [[1, 2, 3]]}, "bbox None is not"),
        ({"segmentation": {"size": [4, 5], "counts": [3]}}, "run lengths do not add up to the size, 4 x 5"),
        ({"segmentation": {"size": [4, 5], "counts": [20]}}, "the mask is empty"),
        ({"segmentation": {"counts": 3}}, "run lengths do not add up"),
        ({"bbox": [1, 2, 3, 10**30 * 10**9]}, None),
        ({"bbox": [[[[[1]]]], 2, 3, 4]}, "is not a number"),
        ({"category_id": [3]}, "category [3] is not in categories"),
    ],
)
def test_annotations_that_give_no_box_refuse_their_image(root, annotation, reason):
    found = coco(root, [{"id": 1, "image_id": 1, "category_id": 3} | annotation])
    assert (reason is None and found.images) or (found.images == [] and reason in refused(found)["photos/1.jpg"])


@pytest.mark.parametrize("crowd", [{"iscrowd": 1}, {"iscrowd": "1"}, {"iscrowd": True}, {"ignore": 1}])
def test_crowds_are_ignore_regions(root, crowd):
    (image,) = coco(
        root,
        [
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "iscrowd": "0"},
            {"id": 2, "image_id": 1, "category_id": 3, "segmentation": {"size": [4, 5], "counts": [0, 20]}} | crowd,
        ],
    ).images
    assert image.boxes == ((1, 2, 4, 6), (0, 0, 5, 4)) and image.ignored == (False, True)


def test_rows_that_are_repeated_count_once(root):
    row = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}
    found = coco(
        root,
        [{"id": 1} | row, {"id": 2} | row, {"id": 3, "iscrowd": 1} | row, {"id": 4} | row | {"bbox": [1, 2, 3, 5]}],
    )
    assert found.images[0].boxes == ((1, 2, 4, 6), (1, 2, 4, 6), (1, 2, 4, 7)) and found.images[0].ignored == (
        False,
        True,
        False,
    )
    assert found.notes[0] == "boxes given twice in their image, counted once: 1"


def test_coco_names_in_another_form(root):
    root("photos/" + unicodedata.normalize("NFD", "Läufer.JPG")), root("photos/1.jpg")
    image = {"id": 1, "file_name": unicodedata.normalize("NFC", "photos\\Läufer.jpg")}
    found = coco(root, [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]}], [image])
    assert len(shown(found)) == 1 and found.missing == [] and found.unlabelled == ["photos/1.jpg"]


def test_runs_of_masks_give_the_box_of_the_mask():
    masks = pytest.importorskip("pycocotools.mask")
    generator = np.random.default_rng(7)
    for _ in range(200):
        height, width = generator.integers(1, 30, 2)
        pixels = np.asfortranarray(generator.random((height, width)) < generator.choice([0.02, 0.3, 0.95])).astype(
            np.uint8, order="F"
        )
        text = masks.encode(pixels)["counts"].decode()
        mask = {"size": [int(height), int(width)], "counts": text}
        rows, columns = np.nonzero(pixels)
        if len(rows):
            assert rle_box(mask, "x") == (
                columns.min(),
                0 if _wraps(pixels) else rows.min(),
                columns.max() + 1,
                height if _wraps(pixels) else rows.max() + 1,
            )
        else:
            with pytest.raises(BadLabel, match="the mask is empty"):
                rle_box(mask, "x")


def _wraps(pixels):
    """Return True if a run continues from the bottom of a column to the top of the next: both pixels are then set."""
    return bool((pixels[-1, :-1] & pixels[0, 1:]).any())


@pytest.mark.parametrize("counts", ["\x7f", "0" * 3, "oooooooooooooooooooo", "", "é"])
def test_broken_texts_of_runs_are_bad_labels(counts):
    with pytest.raises(BadLabel):
        rle_box({"size": [2, 2], "counts": counts}, "x")


def voc(name, objects, *, encoding="utf-8", more=""):
    body = "".join(
        f"<object><name>{label}</name>{extra}<bndbox><xmin>11</xmin><ymin>21</ymin><xmax>40</xmax><ymax>60</ymax></bndbox></object>"
        for label, extra in objects
    )
    return (
        f"<?xml version='1.0' encoding='{encoding}'?><annotation><filename>{name}</filename>{more}{body}</annotation>"
    )


def test_difficult_objects_are_ignore_regions(root):
    (
        root("JPEGS/1.jpg"),
        root(
            "Annotations/1.xml",
            voc("1.jpg", [("a", "<difficult>0</difficult>"), ("b", "<difficult> 1 </difficult>"), ("c", "")]),
        ),
    )
    (image,) = read_images(root.path).images
    assert (
        image.labels == ("a", "b", "c") and image.ignored == (False, True, False) and image.boxes[0] == (10, 20, 40, 60)
    )


@pytest.mark.parametrize(
    ("declared", "written"),
    [
        ("gbk", "gbk"),
        ("gb2312", "gbk"),
        ("GB18030", "gb18030"),
        ("UTF-16", "utf-16"),
        ("utf-8", "utf-8-sig"),
        ("big5", "big5"),
        ("Shift_JIS", "cp932"),
    ],
)
def test_names_are_read_in_the_encoding_that_their_file_declares(root, declared, written):
    root("JPEGImages/1.jpg"), root("Annotations/1.xml", voc("1.jpg", [("足球", "")], encoding=declared).encode(written))
    assert shown(read_images(root.path))["JPEGImages/1.jpg"][1] == ("足球",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            voc("1.jpg", [("篮球", "")], encoding="utf-8").encode("gbk"),
            "it declares the encoding utf-8, but its bytes are not in it",
        ),
        ("<annotation><name>篮</name></annotation>".encode("gbk"), "it declares no encoding and is not UTF-8"),
        (voc("1.jpg", [], encoding="klingon").encode(), "unknown encoding klingon"),
        (voc("1.jpg", [], encoding="rot13").encode(), "unknown encoding"),
        (voc("1.jpg", [], encoding="base64").encode(), "unknown encoding"),
        (voc("1.jpg", [], encoding="punycode").encode(), "unknown encoding"),
        (("<?xml version='1.0' encoding='utf-7'?>" + "<!DOCTYPE a>").encode(), "unknown encoding utf-7"),
        (b"<annotation>\0</annotation>", "not XML"),
        (b"", "not XML"),
        ("<!DOCTYPE a><annotation/>".encode("utf-16"), "<!DOCTYPE> is not allowed"),
    ],
)
def test_xml_whose_encoding_cannot_be_right_is_refused(content, reason):
    with pytest.raises(BadXML, match=reason):
        parse_xml(content)


def test_deep_xml_is_no_trouble():
    assert parse_xml(b"<annotation>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</annotation>").findall("object") == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            "<annotation><objects><object><name>a</name></object></objects></annotation>",
            "<object> is not in an <object> below <annotation>, so it is not read",
        ),
        (
            "<annotation><object><name>a</name><polygon><x1>1</x1></polygon></object></annotation>",
            "object 1 (a): bndbox is missing",
        ),
        ("<annotation><item><bndbox/></item></annotation>", "<bndbox> is not in an <object>"),
        ("<root><annotation/></root>", "its root is <root>, not <annotation>"),
    ],
)
def test_voc_objects_of_another_kind_refuse_their_image(root, content, reason):
    (
        root("JPEGImages/1.jpg"),
        root("Annotations/1.xml", content),
        root("JPEGImages/2.jpg"),
        root("Annotations/2.xml", voc("2.jpg", [])),
    )
    found = read_images(root.path)
    assert shown(found) == {"JPEGImages/2.jpg": ((), ())} and reason in refused(found)["JPEGImages/1.jpg"]


def test_the_same_stem_in_two_folders(root):
    for folder in ("a", "b"):
        root(f"JPEGImages/{folder}/1.jpg"), root(f"Annotations/{folder}/1.xml", voc("1.jpg", [(folder, "")]))
    assert {name: labels for name, (_, labels) in shown(read_images(root.path)).items()} == {
        "JPEGImages/a/1.jpg": ("a",),
        "JPEGImages/b/1.jpg": ("b",),
    }
    root("JPEGImages/2.jpg"), root("JPEGImages/2.png"), root("Annotations/2.xml", voc("2.png", [("c", "")]))
    assert shown(read_images(root.path))["JPEGImages/2.png"][1] == ("c",)
    root("Annotations/2.xml", voc("gone.gif", [("c", "")]))
    found = read_images(root.path)
    assert refused(found) == dict.fromkeys(
        ("JPEGImages/2.jpg", "JPEGImages/2.png"),
        ("Annotations/2.xml: it may belong to JPEGImages/2.jpg or JPEGImages/2.png"),
    )


def test_voc_names_with_spaces_and_in_another_form(root):
    stem = "große Läufer 1"
    (
        root(f"JPEGImages/{unicodedata.normalize('NFD', stem)}.jpg"),
        root(f"Annotations/{stem}.xml", voc("x.jpg", [("a", "")])),
    )
    root("ImageSets/Main/train.txt", f"{stem}\n")
    found = read_images(root.path)
    assert len(found.images) == 1 and found.missing == []


def test_real_encodings_units_folders_and_ids():
    assert {labels for _, labels in shown(read_images(case("voc_declared_encoding"))).values()} == {
        ("足球",),
        ("篮球",),
        ("跑步",),
    }
    pixels = read_images(case("yolo_pixel_units"))
    assert len(pixels.images) == 1 and list(refused(pixels)) == ["images/train/j_pixels.jpg"]
    assert sum(len(image.boxes) for image in read_images(case("yolo_capital_folder")).images) == 6
    assert [len(image.boxes) for image in read_images(case("coco_text_ids")).images] == [1, 1, 1, 1]


def test_layouts_are_recognised_in_utf16(root):
    (
        root("photos/1.jpg"),
        root("labels.json", json.dumps({"images": [], "annotations": [], "categories": []}).encode("utf-16")),
    )
    assert image_layout(root.path) == "coco"
