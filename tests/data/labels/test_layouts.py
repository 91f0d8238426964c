import pytest

from posture.data.labels.layouts import choose_layout
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import read_footage
from posture.errors import InputError
from tests.conftest import SHARED_FOOTAGE

CVAT = "<annotations><meta><task><source>a.mp4</source></task></meta></annotations>"
SEGMENTS = "video,start,end,label\na.mp4,0,1,kick\n"
YOLO = "train: images\nnames: [athlete]\n"
COCO = '{"images": [], "annotations": [], "categories": []}'
LISTS = {
    "ucfTrainTestlist/trainlist01.txt": "Jump/v_Jump_g01_c01.avi 1\n",
    "ucfTrainTestlist/testlist01.txt": "Jump/v_Jump_g02_c01.avi\n",
    "UCF-101/Jump/v_Jump_g01_c01.avi": "",
    "UCF-101/Jump/v_Jump_g02_c01.avi": "",
}


@pytest.mark.parametrize(
    ("files", "layout"),
    [
        ({"a.mp4": "", "annotations.xml": CVAT}, "cvat"),
        (
            {
                "videos/a.mp4": "",
                "xml/annotations.xml": CVAT,
                "boxes.csv": "video,frame,athlete,x1,y1,x2,y2\n",
                "review.csv": SEGMENTS,
            },
            "cvat",
        ),
        ({"a.mp4": "", "labels.csv": SEGMENTS, "thumbnails/a.jpg": ""}, None),
        ({"jump/a.mp4": "", "run/b.mp4": ""}, None),
        (LISTS, None),
        (LISTS | {"finalAnnots.mat": ""}, "ucf101_24"),
        (LISTS | {"annotations/finalAnnots.mat": ""}, "ucf101_24"),
        ({"data.yaml": YOLO, "images/a.jpg": "", "film.mp4": "", "takes/one.mp4": ""}, "yolo"),
        ({"set/data.yaml": YOLO, "set/images/a.jpg": "", "set/take.mp4": ""}, "yolo"),
        (
            {
                "annotations/instances_train.json": COCO,
                "train2017/a.jpg": "",
                "annotations/instances_val.json": COCO,
                "val2017/a.jpg": "",
            },
            "coco",
        ),
    ],
)
def test_one_layout_is_taken(root, files, layout):
    for name, content in files.items():
        root(name, content)
    assert choose_layout(root.path) == layout


@pytest.mark.parametrize(
    ("files", "listed"),
    [
        (
            {"a.mp4": "", "annotations.xml": CVAT, "labels.csv": SEGMENTS},
            ["cvat in the folder itself (annotations.xml)", "segments in the folder itself (labels.csv)"],
        ),
        (
            {"one/a.mp4": "", "one/labels.csv": SEGMENTS, "two/data.yaml": YOLO, "two/images/a.jpg": ""},
            ["segments in one (one/labels.csv)", "yolo in two (two/data.yaml)"],
        ),
        (
            {"two/data.yaml": YOLO, "two/images/a.jpg": "", "films/jump/a.mp4": ""},
            ["folders in films", "yolo in two (two/data.yaml)"],
        ),
        (
            {f"one/{name}": content for name, content in LISTS.items()}
            | {"two/finalAnnots.mat": "", "two/Jump/v_Jump_g01_c01.avi": ""},
            ["ucf101 in one (one/ucfTrainTestlist/testlist01.txt)", "ucf101_24 in two (two/finalAnnots.mat)"],
        ),
        (
            LISTS | {"labels.csv": SEGMENTS},
            [
                "segments in the folder itself (labels.csv)",
                "ucf101 in the folder itself (ucfTrainTestlist/testlist01.txt)",
            ],
        ),
        (
            {"data.yaml": YOLO, "images/a.jpg": "", "instances.json": COCO},
            ["coco in the folder itself (instances.json)", "yolo in the folder itself (data.yaml)"],
        ),
    ],
)
def test_several_layouts_are_listed(root, files, listed):
    for name, content in files.items():
        root(name, content)
    with pytest.raises(InputError) as raised:
        choose_layout(root.path)
    assert str(raised.value) == (
        f"{root.path}: several layouts are here: {'; '.join(listed)}. Give one of these folders, or choose the "
        "layout with --layout"
    )


def test_options_of_clips_decide_between_videos_and_images(root):
    root("a.mp4"), root("annotations.xml", CVAT), root("labels.csv", SEGMENTS)
    assert choose_layout(root.path, clips=True) is None and read_footage(root.path).layout == "segments"
    assert choose_layout(f"{root.path}/labels.csv") is None and choose_layout(f"{root.path}/annotations.xml") == "cvat"


def test_clips_around_athletes_are_not_cut_from_the_wrong_data_set(root):
    root("one/a.mp4"), root("one/labels.csv", SEGMENTS), root("two/finalAnnots.mat"), root("two/v_Jump_g01_c01.avi")
    with pytest.raises(InputError, match="several layouts are here: segments in one"):
        read_tracked_footage(root.path)


def test_a_folder_above_several_data_sets():
    if not SHARED_FOOTAGE.is_dir():
        pytest.skip(f"no real footage at {SHARED_FOOTAGE}")
    with pytest.raises(
        InputError, match=r"ucf101 in ucf101 \(.*\); ucf101_24 in ucf101_24 \(.*\); yolo in sports_target \("
    ):
        choose_layout(str(SHARED_FOOTAGE))
