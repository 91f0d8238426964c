"""Boxes that were drawn on other images than those that lie here: compared, refused by name, and an error if they are
many.
"""

import csv

import pytest

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.ingest.image_ledger import CheckedImage, ImageLedger, ImageOptions, ImageReport, ImageResult
from posture.data.ingest.ledger import TooManyRefused, refuse_outside
from posture.data.labels.images import read_images
from posture.data.labels.place_boxes import count_outside
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.store.lease import Lease
from posture.data.store.schema import DecodeRecipe, frame_id
from posture.data.store.tables import Store
from tests.support.crops import SIZE, across, make_film
from tests.support.image_folders import write_film, write_ucf101_24, write_yolo

OPTIONS = IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 1, crop="boxes+0.2")))


def cut(root, tmp_path):
    store = Store(str(tmp_path / "store"), create=True)
    return ingest_clips(read_tracked_footage(str(root)), store, OPTIONS), store


def test_videos_of_another_size_than_ucf101_24s_boxes_are_refused_by_name(tmp_path):
    names = [f"Jump/v_Jump_g{number:02d}_c01" for number in range(1, 13)]
    root = write_ucf101_24(tmp_path / "films", {name: [(1, 30)] for name in names})
    report, store = cut(root, tmp_path)
    assert (report.decoded, report.refused) == (12, []) and store.read("clips").num_rows == 12
    write_film(root / "videos" / f"{names[0]}.avi", size=(128, 172), seed=0)
    report, store = cut(root, tmp_path / "one")
    (refused,) = report.refused
    assert refused["uri"].endswith(f"{names[0]}.avi") and refused["verdict"] == "size_mismatch"
    assert refused["reason"].startswith("the labels are for 320 x 240 pixels, but the video is 172 x 128; ")
    assert store.read("clips").num_rows == 11
    write_film(root / "videos" / f"{names[1]}.avi", size=(128, 172), seed=1)
    for _ in range(2):
        with pytest.raises(
            TooManyRefused,
            match=r"films: 60 of 360 boxes lie outside of their images or belong to another size, more than 10 %",
        ):
            cut(root, tmp_path / "two")
    assert Store(str(tmp_path / "two" / "store")).read("clips").num_rows == 10, "what fits is stored"


def table(path, films, scale):
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["video", "frame", "athlete", "x1", "y1", "x2", "y2"])
        rows.writerows(
            [film, frame, "red", *(side * scale for side in across(frame))] for film in films for frame in range(60)
        )


def test_boxes_of_a_table_that_lie_outside_of_their_videos(tmp_path):
    (
        make_film(tmp_path / "in" / "jump" / "a.mp4", {"red": across}),
        make_film(tmp_path / "in" / "run" / "b.mp4", {"red": across}, seed=1),
    )
    table(tmp_path / "in" / "boxes.csv", ("a.mp4", "b.mp4"), 1)
    report, _ = cut(tmp_path / "in", tmp_path)
    assert report.decoded == 2 and not report.refused
    table(tmp_path / "in" / "boxes.csv", ("a.mp4", "b.mp4"), 2)  # as if drawn on 320 x 192
    outside = count_outside([tuple(side * 2 for side in across(frame)) for frame in range(60)], *SIZE)
    assert 30 < outside < 60
    with pytest.raises(TooManyRefused, match=rf"{2 * outside} of 120 boxes lie outside"):
        cut(tmp_path / "in", tmp_path / "again")


def test_more_than_half_of_a_box_has_to_be_inside():
    assert (
        count_outside(
            [(0, 0, 10, 10), (-4, 0, 6, 10), (-5, 0, 5, 10), (-6, 0, 4, 10), (95, 95, 110, 110), (200, 0, 210, 10)],
            100,
            100,
        )
        == 3
    )
    assert count_outside([], 100, 100) == 0


def test_frames_of_another_size_than_ucf101_24s_boxes_are_refused(tmp_path):
    root = write_ucf101_24(tmp_path / "films", {"Jump/v_Jump_g01_c01": [(1, 30)], "Jump/v_Jump_g02_c01": [(1, 30)]})
    images = read_images(str(root))
    assert {image.size for image in images.images} == {(240, 320)}
    store, report = Store(str(tmp_path / "store"), create=True), ImageReport("i", str(root), "ucf101_24")
    with Lease(store.uri) as lease:
        store.create_tables()
        ledger = ImageLedger(store, ImageOptions(), report, lease)
        jobs = ledger.plan(images)
        for job, (height, width) in zip(jobs, ((240, 320), (128, 172)), strict=True):
            shown = [CheckedImage(frame_id(job.content, frame), height, width, frame / 25) for frame in job.frames]
            ledger.add([ImageResult(job.content, len(job.frames), images=shown)], None)
        ledger.commit()
    assert (report.boxes_drawn, report.boxes_outside) == (4, 0), "those of another size are refused with their images"
    assert {item["verdict"] for item in report.refused} == {"size_mismatch"} and len(report.refused) == 4
    assert "for 320 x 240 pixels, but the image is 172 x 128" in report.refused[0]["reason"]


def test_boxes_of_images_that_lie_outside(tmp_path):
    write_yolo(tmp_path / "in", {"train": 12})
    for number, box in enumerate([(1.4, 0.5, 0.2, 0.2), (1.2, 0.5, 0.3, 0.2)]):
        label = tmp_path / "in" / "labels" / "train" / f"t{number:03d}.txt"
        label.write_text(label.read_text() + "0 " + " ".join(map(str, box)) + "\n")
    images = read_images(str(tmp_path / "in"))
    store, report = Store(str(tmp_path / "store"), create=True), ImageReport("i", "in", "yolo")
    with Lease(store.uri) as lease:
        store.create_tables()
        ledger = ImageLedger(store, ImageOptions(), report, lease)
        jobs = ledger.plan(images)
        ledger.add([ImageResult(job.content, 1, images=[CheckedImage(job.content, 48, 64)]) for job in jobs], None)
        ledger.commit()
    assert (report.boxes_drawn, report.boxes_outside) == (14, 2)
    with pytest.raises(TooManyRefused, match="in: 2 of 14 boxes lie outside of their images"):
        refuse_outside(report, report.boxes_outside, report.boxes_drawn)
