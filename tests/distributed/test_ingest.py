import csv
import os
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.ledger import TooManyRefused
from posture.data.ingest.reports import last_report
from posture.data.labels.videos import read_footage
from posture.data.store import schema
from posture.data.store.lease import Lease
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed.ingest import ingest
from posture.errors import Busy
from tests.support.footage import make_video, write_bad_files
from tests.support.ingested import OPTIONS, contents
from tests.support.small_disk import run_on_small_disk

pytestmark = pytest.mark.usefixtures("ray_cluster")


def run(root, store, options=OPTIONS):
    return ingest(read_footage(str(root)), Store(str(store), create=True), options)


@pytest.fixture
def folders(class_folders, tmp_path):
    """A copy to change."""
    return shutil.copytree(class_folders, tmp_path / "footage")


def test_the_same_folder_twice_adds_nothing(folders, tmp_path):
    first = run(folders, tmp_path / "store")
    assert (first.decoded, first.segments, first.clips, first.refused) == (16, 16, 16, [])
    assert {name: sum(counts.values()) for name, counts in first.classes.items()} == {"left": 8, "right": 8}
    versions = Store(str(tmp_path / "store")).versions()
    again = run(folders, tmp_path / "store")
    assert (again.unchanged, again.decoded, again.clips) == (16, 0, 0)
    assert Store(str(tmp_path / "store")).versions() == versions
    assert last_report(Store(str(tmp_path / "store"))) == first


def test_three_more_files_decode_three(folders, tmp_path):
    run(folders, tmp_path / "store")
    before = contents(tmp_path / "store")
    for number in range(3):
        make_video(folders / "left" / f"new{number}.mp4", seed=900 + number, direction=-1)
    report = run(folders, tmp_path / "store")
    assert (report.decoded, report.clips, report.unchanged) == (3, 3, 16)
    after = contents(tmp_path / "store")
    assert all(set(before[name]) <= set(after[name]) for name in before)


def test_a_corrected_label_decodes_nothing(folders, tmp_path):
    run(folders, tmp_path / "store")
    clips = contents(tmp_path / "store")["clips"]
    table = folders / "segments.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "start", "end", "label", "split", "group"])
        for name in sorted(os.listdir(folders / "left")):
            label = "sideways" if name == "left03.mp4" else "left"
            writer.writerow([f"left/{name}", "", "", label, "", f"left/{name[:-4]}"])
    report = run(folders, tmp_path / "store")
    assert (report.relabelled, report.decoded, report.clips, report.retired) == (1, 0, 0, 0)
    assert contents(tmp_path / "store")["clips"] == clips
    assert Store(str(tmp_path / "store")).read("segments", where=pc.field("label") == "sideways").num_rows == 1


def test_moved_boundaries_replace_the_old_segment(tmp_path, video):
    video("footage/a.mp4", frames=100), video("footage/b.mp4", frames=100, seed=1)
    table = tmp_path / "footage" / "segments.csv"
    table.write_text("video,start,end,label\na.mp4,0,2,kick\na.mp4,2,4,jump\nb.mp4,0,4,kick\n")
    run(tmp_path / "footage", tmp_path / "store")
    table.write_text("video,start,end,label\na.mp4,0,1.5,kick\na.mp4,2,4,jump\nb.mp4,0,4,kick\n")
    report = run(tmp_path / "footage", tmp_path / "store")
    assert (report.decoded, report.clips, report.retired) == (1, 1, 1)
    store = Store(str(tmp_path / "store"))
    assert sorted(store.read("segments", columns=["end"])["end"].to_pylist()) == pytest.approx([1.5, 4.0, 4.0])
    assert store.read("segments", version=store.versions()["segments"] - 2).num_rows == 3


def test_another_recipe_stands_beside_the_first(folders, tmp_path):
    run(folders, tmp_path / "store")
    other = IngestOptions(cut=Cut(DecodeRecipe(24, 24, 16, 1, 2, "crop", 80)))
    report = run(folders, tmp_path / "store", other)
    assert (report.decoded, report.segments, report.clips) == (16, 0, 32)
    recipes = Store(str(tmp_path / "store")).read("clips", columns=["recipe"])["recipe"].to_pylist()
    assert {recipe: recipes.count(recipe) for recipe in set(recipes)} == {
        str(OPTIONS.cut.recipe): 16,
        str(other.cut.recipe): 32,
    }


def test_bad_files_get_their_verdicts_and_stop_nobody(tmp_path, video):
    good = video("footage/kick/good.mp4", frames=60)
    verdicts = write_bad_files(tmp_path / "footage" / "kick", good)
    shutil.copy(good, tmp_path / "footage" / "kick" / "twin.mp4")
    options = IngestOptions(cut=OPTIONS.cut, max_refused_share=1.0)
    report = run(tmp_path / "footage", tmp_path / "store", options)
    found = {os.path.basename(item["uri"]): item["verdict"] for item in report.refused}
    assert found == verdicts | {"twin.mp4": "duplicate"}
    assert (report.decoded, report.clips) == (1, 1)
    before = contents(tmp_path / "store")
    again = run(tmp_path / "footage", tmp_path / "store", options)
    assert {os.path.basename(item["uri"]): item["verdict"] for item in again.refused} == found
    assert contents(tmp_path / "store") == before


def test_labels_that_fit_no_video_are_refused(tmp_path, video):
    video("footage/a.mp4", frames=50), video("footage/b.mp4", frames=50, seed=1)
    (tmp_path / "footage" / "s.csv").write_text(
        "video,start,end,label\na.mp4,0,2,kick\na.mp4,1,20,kick\nb.mp4,0,2,kick\nlost.mp4,0,2,kick\n"
    )
    report = run(tmp_path / "footage", tmp_path / "store")
    assert sorted((os.path.basename(item["uri"]), item["verdict"]) for item in report.refused) == [
        ("a.mp4", "segment_past_end"),
        ("lost.mp4", "missing_video"),
    ]
    assert (report.decoded, report.segments) == (2, 2)
    assert run(tmp_path / "footage", tmp_path / "store").decoded == 0


def test_files_that_take_too_long_are_refused_and_tried_again(tmp_path, video):
    for number in range(3):
        video(f"footage/kick/{number}.mp4", seed=number)
    hasty = IngestOptions(cut=OPTIONS.cut, file_limit_seconds=0.0, seconds_per_label=0.0, max_refused_share=1.0)
    assert {item["verdict"] for item in run(tmp_path / "footage", tmp_path / "store", hasty).refused} == {"timeout"}
    report = run(tmp_path / "footage", tmp_path / "store")
    assert (report.decoded, report.refused) == (3, [])


def test_what_an_earlier_version_refused_is_tried_again_once(tmp_path, video):
    """Stores made before had no column `reader`, and called errors of ours `crashed`; whole files were refused as
    truncated.
    """
    for number in range(4):
        video(f"footage/kick/{number}.mp4", seed=number)
    (tmp_path / "footage" / "kick" / "text.mp4").write_text("no film" * 99)
    run(tmp_path / "footage", tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    rows_of = {os.path.basename(row["uri"]): row for row in store.read("videos").to_pylist()}
    assert {name: row["reader"] for name, row in rows_of.items()} == {f"{number}.mp4": None for number in range(4)} | {
        "text.mp4": schema.READER
    }
    for name, verdict, reader in (
        ("0.mp4", "truncated", None),
        ("1.mp4", "failed", 1),
        ("2.mp4", "failed", schema.READER),
        ("text.mp4", "not_video", None),
    ):
        row = rows_of[name] | {"verdict": verdict, "reason": "said before", "reader": reader}
        store.upsert("videos", pa.Table.from_pylist([row], schema=schema.VIDEOS), keys=["video", "uri"])
    report = run(tmp_path / "footage", tmp_path / "store")
    assert report.decoded == 2 and {
        os.path.basename(item["uri"]): item["reason"] == "said before" for item in report.refused
    } == {"2.mp4": True, "text.mp4": False}
    again = run(tmp_path / "footage", tmp_path / "store")
    assert (again.decoded, again.unchanged, len(again.refused)) == (0, 5, 2)


def test_tables_of_earlier_versions_get_the_columns_that_they_lack(folders, tmp_path):
    run(folders, tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    for name in ("videos", "pictures"):
        held = store.read(name)
        shutil.rmtree(tmp_path / "store" / name)
        write_deltalake(
            store.table_uri(name),
            held.select([column for column in held.column_names if column not in ("reader", "decoder")]),
        )
    (folders / "left" / "text.mp4").write_text("no film" * 99)
    report = run(folders, tmp_path / "store", IngestOptions(cut=OPTIONS.cut, max_refused_share=1.0))
    assert (report.unchanged, report.decoded, len(report.refused)) == (16, 0, 1)
    assert sorted(row["reader"] or 0 for row in store.read("videos").to_pylist()) == [0] * 16 + [schema.READER]


def test_too_many_refused_files_fail_and_keep_the_good(tmp_path, video):
    video("footage/kick/good.mp4")
    for number in range(3):
        (tmp_path / "footage" / "kick" / f"bad{number}.mp4").write_text("no film" * (99 + number))
    with pytest.raises(TooManyRefused, match=r"3 of 4 files were refused, more than the allowed share of 0\.5"):
        run(tmp_path / "footage", tmp_path / "store")
    assert Store(str(tmp_path / "store")).read("clips").num_rows == 1


def test_a_file_that_moved_is_the_same_video(folders, tmp_path):
    run(folders, tmp_path / "store")
    moved = folders.rename(tmp_path / "elsewhere")
    report = run(moved, tmp_path / "store")
    assert (report.unchanged, report.decoded, report.clips, report.refused) == (16, 0, 0, [])
    assert run(moved, tmp_path / "store").unchanged == 16


def test_background_is_added_later_without_decoding_the_rest(tmp_path, video):
    for number in range(4):
        video(f"footage/{number}.mp4", frames=120, seed=number)
    (tmp_path / "footage" / "s.csv").write_text(
        "video,start,end,label\n" + "".join(f"{number}.mp4,0,1,kick\n" for number in range(4))
    )
    run(tmp_path / "footage", tmp_path / "store")
    with_background = IngestOptions(cut=Cut(OPTIONS.cut.recipe, background=True))
    report = run(tmp_path / "footage", tmp_path / "store", with_background)
    assert (report.decoded, report.segments, report.clips) == (4, 4, 4)
    assert set(report.classes) == {"background"}
    assert run(tmp_path / "footage", tmp_path / "store", with_background).decoded == 0


def test_no_group_is_on_two_sides(small_store):
    sides = {}
    for row in Store(small_store).read("segments").to_pylist():
        sides.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in sides.values())
    assert {split for splits in sides.values() for split in splits} == {"train", "val", "test"}


@pytest.mark.parametrize("segments_committed", [False, True])
def test_a_killed_ingest_leaves_clips_that_are_not_decoded_twice(folders, tmp_path, segments_committed):
    """The worst moments: between the commit of clips and that of segments, and between segments and videos."""
    run(folders, tmp_path / "store")
    whole = contents(tmp_path / "store")
    store = Store(str(tmp_path / "store"))
    gone = store.read("segments").to_pylist()[:5]
    if not segments_committed:
        store.delete("segments", "segment", [row["segment"] for row in gone])
    store.delete("videos", "video", [row["video"] for row in gone])
    report = run(folders, tmp_path / "store")
    assert (report.decoded, report.clips) == (5, 0)
    assert contents(tmp_path / "store") == whole


def test_a_second_ingest_leaves_with_a_clear_line(class_folders, tmp_path):
    with Lease(str(tmp_path / "store")), pytest.raises(Busy, match="another ingest is writing"):
        run(class_folders, tmp_path / "store")


def test_a_part_file_forgets_files_that_turned_out_bad(tmp_path):
    from posture.data.ingest.parquet_part import ParquetPart

    store = Store(str(tmp_path), create=True)
    store.create_tables()
    part = ParquetPart(store.uri, "clips", compress=True)

    def add(segment, count):
        part.begin()
        for window in range(count):
            part.write({
                "clip": f"{segment}{window}",
                "segment": segment,
                "recipe": "r",
                "start": 0.0,
                "frames": 1,
                "height": 1,
                "width": 1,
                "offsets": [],
                "pixels": b"rgb",
            })

    add("good", 5)
    add("bad", 20)  # more than a row group: some are on disk already
    part.undo()
    add("fine", 3)
    store.commit_files("clips", [part.close()])
    assert sorted(store.read("clips")["segment"].to_pylist()) == ["fine"] * 3 + ["good"] * 5
    assert store.remove_orphans("clips") == 0


def test_real_footage(ucf101, tmp_path):
    footage = read_footage(str(ucf101))
    some = replace(footage, videos=footage.videos[::15], unlabelled=[], missing=[], notes=[])
    report = ingest(some, Store(str(tmp_path), create=True), IngestOptions(cut=Cut(DecodeRecipe(windows=2))))
    assert (report.decoded, report.segments, report.refused) == (18, 18, [])
    assert report.clips > 18 and len(report.classes) == 4


FULL = """
import shutil, sys
from pathlib import Path
from posture.data.labels.videos import read_footage
from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.ingest.parquet_part import ParquetPart
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import InputError

disk, footage = sys.argv[1:]
options = IngestOptions(cut=Cut(DecodeRecipe(64, 96, 20, 2, 1)))
store = Store(f"{disk}/store", create=True)
store.create_tables()
before, filler = store.versions(), Path(disk, "filler")
part = ParquetPart(store.uri, "images")
try:
    for number in range(64):
        part.write({"image": str(number), "pixels": bytes(100_000)})
except InputError as error:
    print(error)
del part  # its file is closed with it
filler.write_bytes(bytes(shutil.disk_usage(disk).free - 100_000))
try:
    ingest_clips(read_footage(footage), store, options)
except InputError as error:
    print(error)
assert store.versions() == before, "splits are drawn once all is decoded"
filler.unlink()
report = ingest_clips(read_footage(footage), store, options)
assert (report.decoded, report.refused) == (16, []), report
"""


def test_a_store_whose_disk_is_full_is_said_and_blamed_on_no_file(class_folders, tmp_path):
    said = run_on_small_disk(FULL, tmp_path, str(class_folders), megabytes=4).splitlines()
    assert [line.partition(": ")[0] for line in said] == [f"{tmp_path}/store/images", f"{tmp_path}/store/clips"]
    assert all("storage cannot be written: " in line and "No space left on device" in line for line in said)
