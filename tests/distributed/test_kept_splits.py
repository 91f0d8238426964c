"""Splits are drawn over what was kept: bad files beside good ones move none of them, and a stopped ingest goes on to
the same splits.
"""

import random
import shutil

import pytest

from posture.config import override
from posture.data.decode.cut import Cut
from posture.data.feed.clips import index_footage
from posture.data.feed.images import index_images
from posture.data.ingest import clips, images
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.labels.images import read_images
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed import ingest as on_ray
from posture.errors import InputError
from posture.retrain.intake import take_in
from posture.retrain.options import InboxOptions
from posture.runs.backend import LOCAL
from posture.runs.recipes import load_recipe
from tests.support.footage import make_video, write_bad_files
from tests.support.image_folders import save, some_boxes, yolo_line

pytestmark = pytest.mark.long

CUT = Cut(DecodeRecipe(32, 40, 20, 2, 1))


def ingest(root, store, *, commit_after=256, stop_after=None, seed=0):
    """In this process. `stop_after` so many files it stops as a kill does: nothing is tidied up."""

    def progress(done, *_):
        if stop_after is not None and done >= stop_after:
            raise KeyboardInterrupt

    options = IngestOptions(cut=CUT, seed=seed, commit_after=commit_after, max_refused_share=1.0)
    return ingest_clips(read_footage(str(root)), Store(str(store), create=True), options, progress=progress)


def clips_stored(store, *tables):
    store = Store(str(store))
    return {name: sorted(map(str, store.read(name).to_pylist())) for name in tables or ("groups", "segments", "clips")}


def splits(store, table="segments", key="segment"):
    return {row[key]: row["split"] for row in Store(str(store)).read(table).to_pylist()}


@pytest.fixture
def folders(class_folders, tmp_path):
    """A copy to change."""
    return shutil.copytree(class_folders, tmp_path / "footage")


@pytest.mark.parametrize("seed", range(3))
def test_bad_files_move_no_good_one(class_folders, folders, tmp_path, seed):
    ingest(class_folders, tmp_path / "good", seed=seed)
    names = random.Random(seed)
    write_bad_files(folders / "left", folders / "left" / "left00.mp4")
    for number in range(30):
        (folders / names.choice(("left", "right")) / f"{names.random()}.mp4").write_text(f"no film {number}\n" * 99)
    report = ingest(folders, tmp_path / "mixed", seed=seed)
    assert len(report.refused) == 38 and clips_stored(tmp_path / "mixed") == clips_stored(tmp_path / "good")
    sides = splits(tmp_path / "good", "groups", "group").values()
    assert (
        report.splits == f"groups: {', '.join(f'{[*sides].count(side)} {side}' for side in ('train', 'val', 'test'))}; "
        f"test (0.2) and val (0.2) drawn by group from what was kept, seed {seed}"
    )


def test_a_label_that_gives_no_clip_moves_nothing_either(tmp_path):
    for number in range(8):
        make_video(tmp_path / "footage" / f"{number}.mp4", frames=50, seed=number)
    table = tmp_path / "footage" / "s.csv"
    good = "video,start,end,label,group\n" + "".join(f"{number}.mp4,0,2,kick,g{number}\n" for number in range(8))
    table.write_text(good)
    ingest(tmp_path / "footage", tmp_path / "good")
    table.write_text(good + "".join(f"{number % 8}.mp4,{number},90,kick,past{number}\n" for number in range(30)))
    ingest(tmp_path / "footage", tmp_path / "mixed")
    assert clips_stored(tmp_path / "mixed") == clips_stored(tmp_path / "good")


def test_a_segment_that_the_labels_name_again_comes_back(tmp_path):
    for number in range(3):
        make_video(tmp_path / "footage" / f"{number}.mp4", frames=50, seed=number)
    table = tmp_path / "footage" / "s.csv"
    lines = [
        "video,start,end,label\n",
        *(f"{number}.mp4,{start},{start + 1},kick\n" for number in range(3) for start in (0, 1)),
    ]
    table.write_text("".join(lines))
    ingest(tmp_path / "footage", tmp_path / "store")
    before = clips_stored(tmp_path / "store")
    table.write_text("".join(lines[:3] + lines[4:]))
    assert ingest(tmp_path / "footage", tmp_path / "store").retired == 1 and len(splits(tmp_path / "store")) == 5
    table.write_text("".join(lines))
    report = ingest(tmp_path / "footage", tmp_path / "store")
    assert (report.segments, report.clips, report.decoded, report.relabelled) == (1, 0, 0, 0)
    assert clips_stored(tmp_path / "store") == before


@pytest.mark.parametrize("stop_after", [3, 16, 27])
def test_stopped_and_run_again_it_has_the_same_splits(folders, tmp_path, monkeypatch, stop_after):
    monkeypatch.setattr(clips, "CLIPS_PER_TASK", 3)
    for number in range(12):
        (folders / "left" / f"left{number:02d}_bad.mp4").write_text(f"no film {number}\n" * 99)
    ingest(folders, tmp_path / "calm")
    store = tmp_path / "store"
    with pytest.raises(KeyboardInterrupt):
        ingest(folders, store, commit_after=2, stop_after=stop_after)
    assert set(splits(store).values()) == {""} and Store(str(store)).read("groups").num_rows == 0
    with pytest.raises(
        InputError,
        match="have no split yet, since the ingest that decoded them was stopped; run the same posture ingest again",
    ):
        index_footage(Store(str(store)), "train")
    (
        make_video(tmp_path / "other" / "left" / "x.mp4", seed=77),
        make_video(tmp_path / "other" / "left" / "y.mp4", seed=78),
    )
    between = ingest(tmp_path / "other", store)  # other footage is split by itself, and says that some waits
    assert between.waiting == list(splits(store).values()).count("") > 0
    report = ingest(folders, store)
    calm, found = splits(tmp_path / "calm"), splits(store)
    assert {segment: found[segment] for segment in calm} == calm and len(found) == 18
    assert (report.segments, report.relabelled, report.waiting) == (16, 0, 0) and sum(
        map(sum, map(dict.values, report.classes.values()))
    ) == 16


def test_groups_that_stand_keep_their_sides_beside_bad_files(folders, tmp_path):
    ingest(folders, tmp_path / "store")
    before = splits(tmp_path / "store")
    for number in range(20):
        (folders / "left" / f"bad{number}.mp4").write_text(f"no film {number}\n" * 99)
        if number < 5:
            make_video(folders / "right" / f"new{number}.mp4", seed=900 + number)
    copy = shutil.copytree(folders, tmp_path / "copy", ignore=shutil.ignore_patterns("bad*"))
    shutil.copytree(tmp_path / "store", tmp_path / "clean")
    ingest(copy, tmp_path / "clean")
    ingest(folders, tmp_path / "store")
    after = splits(tmp_path / "store")
    assert {segment: after[segment] for segment in before} == before and len(after) == 21
    assert after == splits(tmp_path / "clean")


def test_a_copy_that_comes_first_by_name_moves_nothing(folders, tmp_path):
    ingest(folders, tmp_path / "store")
    before = clips_stored(tmp_path / "store")
    for name in ("left00", "left03", "left05"):
        shutil.copy(folders / "left" / f"{name}.mp4", folders / "left" / f"a{name}.mp4")
    report = ingest(folders, tmp_path / "store")
    assert {item["verdict"] for item in report.refused} == {"duplicate"} and len(report.refused) == 3
    assert clips_stored(tmp_path / "store") == before and (report.relabelled, report.retired) == (0, 0)


def test_a_pass_takes_in_what_a_stopped_ingest_left(folders, tmp_path):
    run = override(load_recipe("jobs/action.py:improved"), {"data.recipe": str(CUT.recipe)})
    store = Store(str(tmp_path / "store"), create=True)
    with pytest.raises(KeyboardInterrupt):
        ingest(folders, tmp_path / "store", commit_after=1, stop_after=16)
    drop = InboxOptions(str(folders), settle=0.0)
    taken = take_in(drop, store, run, {}, backend=LOCAL)
    assert [(report.decoded, report.segments) for report in taken.reports] == [(0, 16)]
    assert set(splits(tmp_path / "store").values()) == {"train", "val", "test"}
    assert take_in(drop, store, run, taken.memory, backend=LOCAL).reports == []


@pytest.fixture
def image_folder(tmp_path):
    """40 images for which no split is named."""
    root = tmp_path / "pictures"
    for number, box in enumerate(some_boxes(40)):
        save(root / "images" / f"p{number:03d}.png", [box], seed=number)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"p{number:03d}.txt").write_text(yolo_line(box))
    (root / "data.yaml").write_text("train: images\nnames: [athlete]\n")
    return root


@pytest.mark.usefixtures("ray_cluster")
def test_bad_images_move_no_good_one(image_folder, tmp_path):
    def take(root, store):
        return on_ray.ingest_images(
            read_images(str(root)), Store(str(store), create=True), ImageOptions(max_refused_share=1.0)
        )

    take(image_folder, tmp_path / "good")
    for number in range(50):
        (image_folder / "images" / f"bad{number}.png").write_bytes(f"no image {number}".encode() * 20)
        (image_folder / "labels" / f"bad{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    report = take(image_folder, tmp_path / "mixed")
    assert (report.added, report.refused_pictures) == (40, 50) and report.by_split == {
        "train": 22,
        "val": 6,
        "test": 12,
    }
    tables = ("groups", "boxes")
    assert clips_stored(tmp_path / "mixed", *tables) == clips_stored(tmp_path / "good", *tables)
    assert (
        report.splits
        == "groups: 22 train, 6 val, 12 test; test (0.3) and val (0.2) drawn by group from what was kept, seed 0"
    )


@pytest.mark.usefixtures("ray_cluster")
def test_images_of_a_stopped_ingest_wait_and_get_the_same_splits(image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "IMAGES_PER_TASK", 4)

    def take(store, progress=None):
        return on_ray.ingest_images(
            read_images(str(image_folder)),
            Store(str(store), create=True),
            ImageOptions(commit_after=4),
            progress=progress,
        )

    def stop(done, *_):
        if done >= 16:
            raise KeyboardInterrupt

    take(tmp_path / "calm")
    with pytest.raises(KeyboardInterrupt):
        take(tmp_path / "store", stop)
    assert set(splits(tmp_path / "store", "boxes", "image").values()) == {""}
    with pytest.raises(InputError, match="its images have no split yet"):
        index_images(Store(str(tmp_path / "store")), "train")
    assert take(tmp_path / "store").added == 40
    tables = ("groups", "boxes", "pictures")
    assert clips_stored(tmp_path / "store", *tables) == clips_stored(tmp_path / "calm", *tables)
