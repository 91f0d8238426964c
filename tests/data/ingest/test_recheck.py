"""Stores of earlier versions, whose decoder gave other frames than asked for some files, are brought up to date."""

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import write_deltalake

from posture.data.decode.cut import Cut
from posture.data.ingest import recheck as module
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.ingest.recheck import EXACT, earlier_frames, earlier_videos, recheck
from posture.data.labels.videos import read_footage
from posture.data.store import schema
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from tests.support.numbered import number_of, write_numbered

pytestmark = pytest.mark.long

RECIPES = DecodeRecipe(48, 64, 10, 1, 2), DecodeRecipe(32, 40, 8, 2, 1, jpeg=90)
X264_B = {"preset": "ultrafast", "bf": "3", "b_strategy": "0"}


@pytest.fixture
def footage(tmp_path):
    folder = tmp_path / "footage"
    folder.mkdir()
    write_numbered(folder / "exact.mp4", options=X264_B)
    write_numbered(folder / "shifted.ts", options=X264_B)
    (folder / "labels.csv").write_text(
        "video,start,end,label\nexact.mp4,0,1,jump\nexact.mp4,1,,throw\nshifted.ts,0,1,jump\nshifted.ts,1,2,throw\nshifted.ts,2,,jump\n"
    )
    return folder


@pytest.fixture
def earlier(footage, tmp_path):
    """A store as an earlier version would have left it: without the column `decoder`, with clips of other frames and an
    end that is too late.
    """
    store = Store(str(tmp_path / "store"), create=True)
    for recipe in RECIPES:
        ingest_clips(read_footage(str(footage)), store, IngestOptions(cut=Cut(recipe, 4), max_refused_share=0))
    videos = [row for row in store.read("videos").to_pylist()]
    (shifted,) = [row["video"] for row in videos if row["uri"].endswith(".ts")]
    segments = store.read("segments").to_pylist()
    wrong = {row["segment"] for row in segments if row["video"] == shifted}
    clips = store.read("clips")
    black = [
        row | {"pixels": bytes(len(row["pixels"]))} if row["segment"] in wrong and not row["offsets"] else row
        for row in clips.to_pylist()
    ]
    store.replace(
        "clips", pa.Table.from_pylist(black, schema=schema.CLIPS), key="clip", values=clips["clip"].to_pylist()
    )
    late = [row | {"end": 3.4} for row in segments if row["video"] == shifted and row["start"] == 2.0]
    store.upsert("segments", pa.Table.from_pylist(late, schema=schema.SEGMENTS), keys=["segment"])
    old = pa.Table.from_pylist(
        [row | ({"seconds": 3.4, "frames": 85} if row["video"] == shifted else {}) for row in videos],
        schema=schema.VIDEOS,
    )
    write_deltalake(store.table_uri("videos"), old.drop_columns(["decoder"]), mode="overwrite", schema_mode="overwrite")
    return store


def shown(store):
    """By video and recipe, the first and last number of every clip with its start; and where segments end."""
    videos = {row["video"]: row["uri"].rpartition("/")[2] for row in store.read("videos").to_pylist()}
    segments = {row["segment"]: row for row in store.read("segments").to_pylist()}
    clips = set()
    for row in store.read("clips").to_pylist():
        frames = decode_frames(row["pixels"], row["offsets"], (row["frames"], row["height"], row["width"]))
        clips.add((
            videos[segments[row["segment"]]["video"]],
            row["recipe"],
            round(row["start"], 3),
            number_of(frames[0]),
            number_of(frames[-1]),
        ))
    return clips, {(videos[row["video"]], row["start"], round(row["end"], 3)) for row in segments.values()}


def right(footage, tmp_path):
    store = Store(str(tmp_path / "right"), create=True)
    for recipe in RECIPES:
        ingest_clips(read_footage(str(footage)), store, IngestOptions(cut=Cut(recipe, 4)))
    return shown(store)


def test_wrong_clips_are_decoded_again_and_right_ones_stay(footage, earlier, tmp_path):
    assert len(earlier_videos(earlier)) == 2
    before = earlier.versions()
    report = recheck(earlier, limit_seconds=60)
    assert (
        report.videos == 2
        and [item["uri"] for item in report.wrong] == [str(footage / "shifted.ts")]
        and not report.refused
    )
    assert report.clips == 9 and "mpegts" in report.wrong[0]["reason"]
    assert shown(earlier) == right(footage, tmp_path)
    decoders = {
        row["uri"].rpartition("/")[2]: (row["decoder"], row["frames"]) for row in earlier.read("videos").to_pylist()
    }
    assert decoders == {"exact.mp4": (EXACT, 75), "shifted.ts": ("pyav", 75)}
    assert earlier.read("clips", version=before["clips"]).num_rows == 15, "earlier versions can still be read"
    versions = earlier.versions()
    assert recheck(earlier, limit_seconds=60).videos == 0 and earlier.versions() == versions
    again = ingest_clips(read_footage(str(footage)), earlier, IngestOptions(cut=Cut(RECIPES[0], 4)))
    assert (again.unchanged, again.decoded) == (2, 0)
    assert earlier.read("clips", version=before["clips"]).num_rows == 15


def test_killed_anywhere_it_ends_with_the_same(footage, earlier, tmp_path, monkeypatch):
    """The power fails after every second commit in turn."""
    expected = right(footage, tmp_path)
    commit, left = Store._commit, 0

    def failing(store, name, write):
        nonlocal left
        if left == 0:
            raise KeyboardInterrupt
        left -= 1
        commit(store, name, write)

    monkeypatch.setattr(module, "CLIPS_AT_ONCE", 2)
    monkeypatch.setattr(Store, "_commit", failing)
    kills = 0
    for allowed in range(1, 30, 2):
        left = allowed
        try:
            recheck(earlier, limit_seconds=60)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills > 2 and not earlier_videos(earlier)
    assert shown(earlier) == expected


def test_what_cannot_be_read_now_stays_and_is_told(footage, earlier):
    (footage / "shifted.ts").write_bytes((footage / "shifted.ts").read_bytes()[:-188])
    clips = earlier.versions()["clips"]
    report = recheck(earlier, limit_seconds=60)
    assert [(item["verdict"], item["reason"]) for item in report.refused] == [
        ("unreadable", "the file has changed since it was ingested")
    ]
    assert not report.wrong and earlier.versions()["clips"] == clips and len(earlier_videos(earlier)) == 1


def test_cropped_clips_and_flow_are_removed_and_counted(footage, earlier):
    whole = earlier.read("clips", where=pc.field("recipe") == str(RECIPES[0])).to_pylist()
    cropped = f"{RECIPES[0]}-boxes0.2"
    earlier.append(
        "clips",
        pa.Table.from_pylist(
            [row | {"clip": f"{row['clip']}c", "recipe": cropped} for row in whole], schema=schema.CLIPS
        ),
    )
    earlier.create_tables()
    flow = {"method": "dis", "bound": 20.0, "frames": 9, "height": 48, "width": 64, "vectors": b""}
    earlier.append("flows", pa.Table.from_pylist([flow | {"clip": row["clip"]} for row in whole], schema=schema.FLOWS))
    report = recheck(earlier, limit_seconds=60)
    assert report.removed == {cropped: 6} and report.flows == 6
    assert (
        earlier.read("clips", where=pc.field("recipe") == cropped).num_rows == 4 and earlier.read("flows").num_rows == 4
    )


def test_frames_of_earlier_versions_are_counted(tmp_path):
    store = Store(str(tmp_path / "store"), create=True)
    store.create_tables()
    image = {"height": 4, "width": 4, "bytes": 1, "pixels": b"x"}
    stored = [
        image | row
        for row in (
            {"image": "a-0000001", "uri": "a.mp4#t=1.000000"},
            {"image": "a-0000002", "uri": "a.mp4#t=2.000000", "decoder": "pyav"},
            {"image": "b", "uri": "b.png"},
        )
    ]
    store.append("images", pa.Table.from_pylist(stored, schema=schema.IMAGES))
    assert earlier_frames(store) == 1
