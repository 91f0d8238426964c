import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.compute as pc
import pytest
import yaml
from PIL import Image

from posture.__main__ import main
from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.ingest.ledger import TooManyRefused
from posture.data.ingest.reports import last_report
from posture.data.labels.images import read_images
from posture.data.labels.videos import read_footage
from posture.data.store import schema
from posture.data.store.files import open_root
from posture.data.store.lease import Lease
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed.ingest import ingest, ingest_images
from posture.errors import Busy, InputError
from tests.support import ingested
from tests.support.image_folders import (
    bright_box,
    moving_box,
    save,
    shared,
    write_coco,
    write_cvat,
    write_film,
    write_ucf101_24,
    write_voc,
    write_yolo,
    yolo_line,
)
from tests.support.processes import posture, s3_server

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(root, store, options=ImageOptions(), **settings):  # noqa: B008
    return ingest_images(read_images(str(root), **settings), Store(str(store), create=True), options)


def contents(store):
    return ingested.contents(store, tables=("images", "boxes", "pictures", "groups"))


def labelled(store):
    """{file name, for frames with its number: its row of `boxes` and of `images`}"""
    store = Store(str(store))
    images = {row["image"]: row for row in store.read("images").to_pylist()}
    found = {}
    for row in store.read("boxes").to_pylist():
        image = images[row["image"]]
        name = os.path.basename(image["uri"].partition("#")[0])
        found[(name, int(row["image"].partition("-")[2])) if "#t=" in image["uri"] else name] = row | image
    return found


def verdicts(report):
    return sorted((os.path.basename(item["uri"]), item["verdict"]) for item in report.refused)


@pytest.fixture
def yolo(tmp_path):
    return write_yolo(tmp_path / "pictures", {"train": 12, "val": 4})


def test_crowds_are_stored_as_ignore_regions_and_relabelled_without_decoding(tmp_path):
    write_coco(tmp_path / "pictures", {"train": 4})
    table = tmp_path / "pictures" / "annotations" / "instances_train.json"
    content = json.loads(table.read_text())
    content["annotations"][0]["iscrowd"] = "1"
    content["annotations"].append(content["annotations"][1] | {"id": 99, "bbox": [5, 5, 0, 5]})
    table.write_text(json.dumps(content))
    report = run(tmp_path / "pictures", tmp_path / "store")
    assert (report.added, report.boxes, sum(report.empty.values())) == (3, 2, 0) and verdicts(report) == [
        ("train_000000000001.png", "bad_label")
    ]
    row = labelled(tmp_path / "store")["train_000000000000.png"]
    assert (
        row["boxes"] == []
        and row["ignored_labels"] == ["athlete"]
        and np.allclose(row["ignored"], [bright_box(row["pixels"])], atol=1e-3)
    )
    content["annotations"][0]["iscrowd"] = 0
    table.write_text(json.dumps(content))
    assert run(tmp_path / "pictures", tmp_path / "store").relabelled == 1
    row = labelled(tmp_path / "store")["train_000000000000.png"]
    assert row["ignored"] == [] and np.allclose(row["boxes"], [bright_box(row["pixels"])], atol=1e-3)


@pytest.mark.parametrize(("write", "layout"), [(write_yolo, "yolo"), (write_coco, "coco"), (write_voc, "voc")])
def test_stored_boxes_lie_on_what_was_boxed(write, layout, tmp_path):
    write(tmp_path / "pictures", {"train": 9, "val": 3})
    report = run(tmp_path / "pictures", tmp_path / "store")
    assert (report.layout, report.pictures, report.added, report.boxes, report.refused) == (layout, 12, 12, 12, [])
    assert report.by_split == {"train": 7, "val": 2, "test": 3} and report.classes == {"athlete": report.by_split}
    for name, row in labelled(tmp_path / "store").items():
        assert np.allclose(row["boxes"], [bright_box(row["pixels"])], atol=1e-3), name
        assert (row["labels"], row["tubes"], row["height"], row["width"], row["bytes"]) == (
            ["athlete"],
            [""],
            48,
            64,
            len(row["pixels"]),
        )
        assert math.isnan(row["time"]) and (row["split"] == "test") == name.startswith("v")


def test_the_same_images_twice_add_nothing(yolo, tmp_path):
    first = run(yolo, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    versions = store.versions()
    again = run(yolo, tmp_path / "store")
    assert (again.unchanged, again.added, again.relabelled, again.refused) == (16, 0, 0, [])
    assert store.versions() == versions and last_report(store) == first
    moved = yolo.rename(tmp_path / "elsewhere")
    before = contents(tmp_path / "store")
    report = run(moved, tmp_path / "store")
    assert (report.unchanged, report.added, report.refused) == (16, 0, [])
    after = contents(tmp_path / "store")
    assert all(after[name] == before[name] for name in ("images", "boxes", "groups")) and len(after["pictures"]) == 32


def test_new_images_alone_are_decoded_and_corrected_labels_decode_nothing(yolo, tmp_path):
    run(yolo, tmp_path / "store")
    before = labelled(tmp_path / "store")
    save(yolo / "images" / "train" / "new.png", seed=99)
    (yolo / "labels" / "train" / "t003.txt").write_text(yolo_line((1, 2, 33, 44)))
    (yolo / "labels" / "train" / "t004.txt").unlink()
    report = run(yolo, tmp_path / "store")
    assert (report.unchanged, report.added, report.relabelled, report.boxes) == (14, 1, 2, 0)
    after = labelled(tmp_path / "store")
    assert (
        np.allclose(after["t003.png"]["boxes"], [[1, 2, 33, 44]], atol=1e-3)
        and after["t004.png"]["boxes"] == after["new.png"]["boxes"] == []
    )
    assert sum(report.empty.values()) == 1
    assert len(Store(str(tmp_path / "store")).history("images")) == 3, "made, first ingest, one new image"
    assert all(after[name]["split"] == before[name]["split"] for name in before)


def test_every_bad_image_gets_its_verdict_and_stops_nobody(yolo, tmp_path):
    train, labels = yolo / "images" / "train", yolo / "labels" / "train"
    shutil.copy(yolo / "images" / "val" / "v001.png", train / "copy.png")
    shutil.copy(train / "t000.png", train / "twin.png")
    (train / "cut.png").write_bytes((train / "t001.png").read_bytes()[:3000])
    (train / "empty.png").touch()
    (train / "text.png").write_text("no image" * 50)
    (train / "lost.png").symlink_to(train / "nowhere.png")
    os.mkfifo(train / "pipe.png")
    (labels / "t002.txt").write_text("0 0.5 0.5 nan 0.1\n")
    (labels / "t003.txt").write_text("7 0.5 0.5 0.1 0.1\n")
    (labels / "t004.txt").write_text("0 1.5 0.5 0.1 0.1\n" + yolo_line((1, 2, 33, 44)))
    (labels / "gone.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    report = run(yolo, tmp_path / "store")
    expected = {
        "copy.png": "duplicate",
        "twin.png": "duplicate",
        "cut.png": "truncated",
        "empty.png": "empty",
        "text.png": "not_picture",
        "lost.png": "unreadable",
        "pipe.png": "unreadable",
        "t002.png": "bad_label",
        "t003.png": "unknown_class",
        "t004.png": "box_outside",
        "gone": "missing_picture",
    }
    assert dict(verdicts(report)) == expected and len(report.refused) == len(expected)
    assert all(verdict in schema.VERDICTS for verdict in expected.values())
    reasons = {os.path.basename(item["uri"]): item["reason"] for item in report.refused}
    assert reasons["copy.png"] == (
        "the same content as images/val/v001.png, which is in test, which is labelled 1 athlete; this one is "
        "labelled nothing"
    )
    assert (
        reasons["twin.png"]
        == "the same content as images/train/t000.png, which is labelled 1 athlete; this one is labelled nothing"
    )
    assert "t003.txt line 1" in reasons["t003.png"]
    assert (report.pictures, report.added, report.refused_pictures, report.duplicates) == (23, 14, 9, 2)
    found = labelled(tmp_path / "store")
    assert set(found) == {f"t{number:03d}.png" for number in range(12) if number not in (2, 3)} | {
        f"v{number:03d}.png" for number in range(4)
    }
    assert np.allclose(found["t004.png"]["boxes"], [[1, 2, 33, 44]], atol=1e-3)
    before = contents(tmp_path / "store")
    again = run(yolo, tmp_path / "store")
    assert (
        verdicts(again) == verdicts(report)
        and (again.unchanged, again.added) == (14, 0)
        and contents(tmp_path / "store") == before
    )


def test_limits_are_options_and_what_they_refused_is_tried_again(yolo, tmp_path, capsys):
    Image.new("1", (20000, 20000)).save(yolo / "images" / "train" / "bomb.png")
    (yolo / "labels" / "train" / "bomb.txt").write_text(yolo_line((1, 2, 33, 44)))
    arguments = ("ingest", str(yolo), "--store", str(tmp_path / "store"))
    for odd in (("--max-pixels", "0"), ("--file-memory", "0.1"), ("--max-pixels", "nan")):
        assert command(*arguments, *odd) == 2 and odd[0] in capsys.readouterr().err
    assert command(*arguments, "--max-pixels", "3000") == 2
    assert "17 of 17 images were refused" in capsys.readouterr().err
    assert command(*arguments, "--file-memory", "1") == 0
    said = capsys.readouterr().out
    assert (
        "20,000 x 20,000 pixels; the maximum is 100,000,000 (--max-pixels)" in said
        and "too_large: 1" in said.splitlines()
    )
    assert len(labelled(tmp_path / "store")) == 16


def test_labels_that_turn_bad_take_their_image_back_until_they_are_mended(yolo, tmp_path):
    run(yolo, tmp_path / "store")
    label = yolo / "labels" / "train" / "t005.txt"
    good = label.read_text()
    before = contents(tmp_path / "store")
    for bad, options, verdict in (
        ("0 nan 0 0 0\n", ImageOptions(), "bad_label"),
        ("0 0.5 0.5 1.4 0.2\n", ImageOptions(boxes="refuse"), "box_outside"),
    ):
        label.write_text(bad)
        report = run(yolo, tmp_path / "store", options)
        assert (report.retired, verdicts(report)) == (1, [("t005.png", verdict)]) and "t005.png" not in labelled(
            tmp_path / "store"
        )
        label.write_text(good)
        report = run(yolo, tmp_path / "store")
        assert (report.added, report.unchanged, report.refused) == (1, 15, [])
        assert contents(tmp_path / "store") == before


def test_a_copy_on_the_other_side_of_what_stands_is_refused(yolo, tmp_path):
    run(yolo, tmp_path / "store")
    before = contents(tmp_path / "store")
    shutil.copy(yolo / "images" / "train" / "t000.png", yolo / "images" / "val" / "again.png")
    report = run(yolo, tmp_path / "store")
    assert (
        verdicts(report) == [("again.png", "duplicate")]
        and "t000.png, which is in train" in report.refused[0]["reason"]
    )
    assert contents(tmp_path / "store") == before


def test_an_image_that_was_replaced_takes_the_old_one_with_it(yolo, tmp_path):
    run(yolo, tmp_path / "store")
    save(yolo / "images" / "train" / "t005.png", [(10, 10, 50, 40)], seed=77)
    report = run(yolo, tmp_path / "store")
    assert (report.added, report.retired, report.unchanged) == (1, 1, 15)
    assert len(labelled(tmp_path / "store")) == 16 and Store(str(tmp_path / "store")).read("images").num_rows == 17


def test_images_of_another_size_than_their_labels_are_refused(tmp_path):
    write_voc(tmp_path / "pictures", {"train": 4})
    save(tmp_path / "pictures" / "JPEGImages" / "train_000002.png", size=(96, 128), seed=7)
    assert verdicts(run(tmp_path / "pictures", tmp_path / "store")) == [("train_000002.png", "size_mismatch")]


def test_too_many_refused_images_fail_and_keep_the_good(yolo, tmp_path):
    for number in range(9):
        (yolo / "images" / "train" / f"t{number:03d}.png").write_text(f"no image {number}")
    with pytest.raises(
        TooManyRefused, match=r"9 of 16 images were refused, more than the allowed share of 0\.5"
    ) as caught:
        run(yolo, tmp_path / "store")
    assert caught.value.report.added == len(labelled(tmp_path / "store")) == 7


def test_splits_never_share_a_group(tmp_path):
    root = tmp_path / "pictures"
    for group in range(10):
        for clip in range(2):
            for frame in (5, 9):
                save(
                    root / "images" / f"v_Kick_g{group:02d}_c{clip:02d}_f{frame:04d}.png",
                    seed=100 * group + 10 * clip + frame,
                )
    (root / "data.yaml").write_text("train: images\nnames: [athlete]\n")
    report = run(root, tmp_path / "store")
    sides = {}
    for row in Store(str(tmp_path / "store")).read("boxes").to_pylist():
        sides.setdefault(row["group"], set()).add(row["split"])
    assert len(sides) == 10 and all(len(splits) == 1 for splits in sides.values())
    assert report.by_split == {"train": 24, "val": 4, "test": 12}, "70/30 by group, then a fifth of seven groups"


def test_an_image_or_group_that_would_change_sides_is_refused_by_name(yolo, tmp_path):
    run(yolo, tmp_path / "store")
    (yolo / "images" / "train" / "t000.png").rename(yolo / "images" / "val" / "t000.png")
    with pytest.raises(
        InputError,
        match=r"images/val/t000.png: group '\w+' is stored as (train|val), and the footage now says test; .* use a new "
        r"store",
    ):
        run(yolo, tmp_path / "store")
    for split in ("train", "val"):
        save(tmp_path / "mixed" / "images" / split / f"v_Kick_g01_c0{len(split)}_f01.png", seed=len(split))
    (tmp_path / "mixed" / "data.yaml").write_text(
        yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["athlete"]})
    )
    with pytest.raises(InputError, match="group 'Kick_g01' is in test and in train; a group must be on one side only"):
        run(tmp_path / "mixed", tmp_path / "other")


def on_the_athlete(row, frame):
    """Whether frame and boxes belong together: H.264 and JPEG blur the edge by a pixel at most."""
    return np.abs(np.subtract(bright_box(row["pixels"]), row["boxes"][0])).max() <= 1 and row["boxes"][0] == [
        float(side) for side in moving_box(frame)
    ]


def test_frames_of_a_cvat_video(tmp_path):
    write_cvat(tmp_path / "film", outside=[8])
    report = run(tmp_path / "film", tmp_path / "store")
    assert (report.pictures, report.added, report.boxes, sum(report.empty.values())) == (4, 4, 3, 1)
    found = labelled(tmp_path / "store")
    assert [frame for _, frame in found] == [0, 8, 16, 24] and found["jump.mp4", 8]["boxes"] == []
    for (_, frame), row in found.items():
        assert (
            row["time"] == pytest.approx(frame / 25, abs=1e-4)
            and row["uri"].endswith(f"jump.mp4#t={row['time']:.6f}")
            and row["group"] == "jump"
        )
        assert frame == 8 or (on_the_athlete(row, frame) and row["tubes"] == ["jump/3"])
    assert run(tmp_path / "film", tmp_path / "store").unchanged == 4
    more = run(tmp_path / "film", tmp_path / "store", every=4)
    assert (more.added, more.unchanged) == (4, 4) and len(labelled(tmp_path / "store")) == 8
    fewer = run(tmp_path / "film", tmp_path / "store", every=12)
    assert (fewer.retired, fewer.unchanged) == (5, 3) and set(labelled(tmp_path / "store")) == {
        ("jump.mp4", frame) for frame in (0, 12, 24)
    }
    assert Store(str(tmp_path / "store")).read("images").num_rows == 8


def test_tubes_of_ucf101_24_and_videos_that_are_bad(tmp_path):
    root = write_ucf101_24(
        tmp_path / "films",
        {
            "Jump/v_Jump_g01_c01": [(3, 20), (10, 12)],
            "Jump/v_Jump_g02_c01": [(20, 40)],
            "Jump/v_Jump_g03_c01": [(1, 9)],
            "Run/v_Run_g04_c01": [(1, 30)],
        },
    )
    (root / "videos" / "Jump" / "v_Jump_g03_c01.avi").write_text("no film" * 99)
    shutil.copy(root / "videos" / "Run" / "v_Run_g04_c01.avi", root / "videos" / "Jump" / "v_Jump_g02_c01.avi")
    report = run(root, tmp_path / "store")
    # Jump_g02 is the same film as Run_g04, and the first of them stays; its tube goes on for 10 frames after the film.
    assert verdicts(report) == [
        ("v_Jump_g02_c01.avi", "frame_past_end"),
        ("v_Jump_g03_c01.avi", "not_video"),
        ("v_Run_g04_c01.avi", "duplicate"),
    ]
    found = labelled(tmp_path / "store")
    assert {place[0]: sorted(frame for name, frame in found if name == place[0]) for place in found} == {
        "v_Jump_g01_c01.avi": [8, 10, 16],
        "v_Jump_g02_c01.avi": [24],
    }
    assert all(on_the_athlete(row, frame) for (_, frame), row in found.items())
    assert found["v_Jump_g01_c01.avi", 10]["tubes"] == ["v_Jump_g01_c01/1", "v_Jump_g01_c01/2"]
    again = run(root, tmp_path / "store")
    assert verdicts(again) == verdicts(report) and (again.unchanged, again.added) == (4, 0)


def test_a_video_in_several_jobs_stands_whole_or_not_at_all(tmp_path, monkeypatch):
    from posture.data.ingest import image_ledger

    monkeypatch.setattr(image_ledger, "FRAMES_PER_JOB", 4)
    write_cvat(tmp_path / "film")
    report = run(tmp_path / "film", tmp_path / "store", every=2)
    assert (report.added, report.refused) == (15, [])
    write_film(tmp_path / "film" / "jump.mp4", seed=5)
    hasty = ImageOptions(file_limit_seconds=0.0, seconds_per_frame=0.0, max_refused_share=1.0)
    refused = run(tmp_path / "film", tmp_path / "other", hasty, every=2)
    assert (
        verdicts(refused) == [("jump.mp4", "timeout")]
        and refused.refused_pictures == 15
        and labelled(tmp_path / "other") == {}
    )
    assert run(tmp_path / "film", tmp_path / "other", every=2).added == 15, "the machine may have been to blame"


@pytest.mark.parametrize("boxes_committed", [False, True])
def test_a_killed_ingest_leaves_images_that_are_not_decoded_twice(yolo, tmp_path, boxes_committed):
    """The worst moments: between the commit of images and that of boxes, and between boxes and images."""
    run(yolo, tmp_path / "store")
    whole = contents(tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    gone = store.read("boxes")["image"].to_pylist()[:5]
    if not boxes_committed:
        store.delete("boxes", "image", gone)
    store.delete("pictures", "image", gone)
    version = store.versions()["images"]
    report = run(yolo, tmp_path / "store")
    assert (report.added, report.unchanged) == ((0, 16) if boxes_committed else (5, 11))
    assert contents(tmp_path / "store") == whole and store.versions()["images"] == version


def test_footage_and_images_share_a_store_and_its_groups(small_store, class_folders, tmp_path):
    """Also one that was made before there were images."""
    uri = shutil.copytree(small_store, tmp_path / "store")
    for name in ("images", "boxes", "pictures"):
        shutil.rmtree(uri / name)
    store = Store(str(uri))
    assert store.read("boxes").num_rows == 0 and "boxes" not in store.versions()
    assert (
        ingest(
            read_footage(str(class_folders)), store, IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 2)))
        ).unchanged
        == 16
    )
    group, split = next(
        (row["group"], row["split"]) for row in store.read("groups").to_pylist() if row["split"] == "test"
    )
    save(tmp_path / "pictures" / "images" / f"{group}_frame_3.png", seed=3)
    (tmp_path / "pictures" / "data.yaml").write_text("train: images\nnames: [athlete]\n")
    run(tmp_path / "pictures", uri)
    assert store.read("boxes", where=pc.field("group") == group)["split"].to_pylist() == [split]


def test_a_second_ingest_leaves_with_a_clear_line(yolo, tmp_path):
    with Lease(str(tmp_path / "store")), pytest.raises(Busy, match="another ingest is writing"):
        run(yolo, tmp_path / "store")


def test_the_last_report_may_be_of_either_kind(yolo, small_store, tmp_path):
    uri = shutil.copytree(small_store, tmp_path / "store")
    assert last_report(Store(str(uri))).clips == 32
    report = run(yolo, uri)
    assert last_report(Store(str(uri))) == report


def test_real_images(tmp_path):
    report = run(shared("sports_target"), tmp_path / "store")
    assert (report.pictures, report.added, report.boxes, report.refused) == (288, 288, 288, [])
    assert report.by_split["test"] == 96 and report.by_split["val"] > 20
    sides = {}
    for row in Store(str(tmp_path / "store")).read("boxes").to_pylist():
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())


@pytest.mark.slow
def test_real_tubes(tmp_path):
    report = run(shared("ucf101_24"), tmp_path / "store")
    assert (report.added, report.refused, set(report.classes)) == (135, [], {"BasketballDunk", "Surfing"})
    times = [
        (int(row["image"].partition("-")[2]), row["time"])
        for row in Store(str(tmp_path / "store")).read("boxes").to_pylist()
    ]
    assert all(seconds == pytest.approx(frame / 25, abs=1e-3) for frame, seconds in times)


@pytest.mark.slow
def test_images_in_a_bucket(yolo, tmp_path, monkeypatch):
    import obstore

    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        uploads = open_root("s3://lab/pictures")
        for path in yolo.rglob("*.*"):
            obstore.put(uploads, str(path.relative_to(yolo)), path)
        for expected in (["16", "0", "16", "0", "16", "1"], ["16", "16", "0", "0", "0", "0"]):
            done = posture("ingest", "s3://lab/pictures", "--store", "s3://lab/store", environment=environment)
            assert done.returncode == 0, done.stderr
            lines = done.stdout.splitlines()
            assert lines[[line.startswith("images") for line in lines].index(True) + 1].split()[:6] == expected, (
                done.stdout
            )
        run(yolo, tmp_path / "store")
        near, far = labelled(tmp_path / "store"), labelled("s3://lab/store")
        assert {name: (row["image"], row["boxes"]) for name, row in far.items()} == {
            name: (row["image"], row["boxes"]) for name, row in near.items()
        }


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return write_yolo(tmp_path_factory.mktemp("many") / "pictures", {"train": 200, "val": 100})


def ingest_process(many, store):
    """An ingest of tiny tasks that commits every few images, as a process of its own group."""
    code = f"""
from posture.data.labels.images import read_images
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.store.tables import Store
from posture.data.ingest import images
from posture.distributed.ingest import ingest, ingest_images
images.IMAGES_PER_TASK = 4
if __name__ == "__main__":
    ingest_images(read_images({str(many)!r}), Store({str(store)!r}, create=True), ImageOptions(commit_after=8))
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def stored(store, name):
    path = store / name / "_delta_log"
    return (
        Store(str(store)).read(name, columns=["image"])["image"].to_pylist()
        if (store / "videos").is_dir() and path.is_dir() and any(path.iterdir())
        else []
    )


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [8, 90])
def test_killed_half_way_and_run_again_it_has_the_same_rows(many, tmp_path, wanted):
    calm, store = tmp_path / "calm", tmp_path / "store"
    run(many, calm)
    process = ingest_process(many, store)
    deadline = time.monotonic() + 120
    while len(stored(store, "images")) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kept, done = stored(store, "images"), stored(store, "pictures")
    assert 0 < len(kept) < 300 and len(kept) - len(done) <= 16, "at most a batch was under way"
    versions = Store(str(store)).versions()
    again = posture("ingest", str(many), "--store", str(store))
    assert again.returncode == 0, again.stderr
    assert contents(store) == contents(calm)
    report = json.loads(Store(str(store)).read("ingests")["report"][-1].as_py())
    assert report["unchanged"] + report["added"] == 300
    assert Store(str(store)).read("images", version=versions["images"]).num_rows == len(kept), (
        "what a run has recorded can still be read"
    )


def command(*arguments):
    """The command line in this process, on the tests' Ray; its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code


def lines_of(capsys):
    """What was printed, but for what was waited for on a slow machine: `loading ...`."""
    return [line for line in capsys.readouterr().out.splitlines() if not line.endswith(" ...")]


def test_the_command_says_what_it_found_and_shows_it_again(yolo, tmp_path, capsys):
    (yolo / "labels" / "train" / "t003.txt").write_text("9 0.5 0.5 0.1 0.1\n")
    assert command("ingest", str(yolo), "--store", str(tmp_path / "store")) == 0
    first, second, *rest, following = lines_of(capsys)
    assert following.startswith("next: posture show") and "jobs/detector.py:improved" in following
    # a line of progress may stand before the table
    rest = rest[[line.startswith("images") for line in rest].index(True) :]
    assert "layout yolo, 15 images" in first and "15 boxes of 1 class" in first and "so it becomes test" in second
    table = [line.split() for line in rest]
    assert table[0][:6] == ["images", "unchanged", "added", "refused", "boxes", "classes"] and table[1][:6] == [
        "16",
        "0",
        "15",
        "1",
        "15",
        "1",
    ]
    assert ["athlete", "9", "2", "4"] in table and ["images", "9", "2", "4"] in table and "unknown_class: 1" in rest
    assert rest[-1] == "test is 4 images of 4 groups: too few to tell models apart by"
    assert command("ingest", "--report", "--store", str(tmp_path / "store")) == 0
    again = lines_of(capsys)
    again.remove("the store now:")  # stands above what is said of the splits, which are not that ingest's alone
    assert again == rest


def test_bad_requests_are_one_sentence_each(yolo, tmp_path, capsys):
    store = ("--store", str(tmp_path / "store"))
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "a.jpg").touch()
    broken = shutil.copytree(yolo, tmp_path / "broken")
    (broken / "data.yaml").write_text("names: [a\n")
    for arguments, complaint in (
        ((str(tmp_path / "plain"), *store), "images without labels"),
        ((str(broken), *store), "not YAML"),
        ((str(yolo), *store, "--every", "0"), 'Invalid value "0" for --every. Must be from 1 to'),
        ((str(yolo), *store, "--layout", "coco"), "the layout coco needs a JSON file"),
        ((str(yolo / "none.yaml"), *store), "no such file"),
    ):
        code = command("ingest", *arguments)
        complained = capsys.readouterr().err
        assert code == 2 and complaint in complained and complained.count("\n") == 1, complained
    assert not (tmp_path / "store").exists()


def test_broken_labels_load_neither_torch_nor_ray(yolo, tmp_path):
    (yolo / "data.yaml").write_text("names: [a\n")
    code = (
        "import sys\nfrom posture.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('torch', 'ray') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ingest", str(yolo), "--store", str(tmp_path / "s")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.splitlines()[-1] == "[]" and "not YAML" in done.stderr
