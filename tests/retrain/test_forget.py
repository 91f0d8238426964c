"""A forgotten video is gone from every table and the disk and does not come back; models trained on it say so."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posture.data.decode.cut import Cut
from posture.data.feed.clips import StreamedClips, index_footage
from posture.data.feed.shards import open_index
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.labels.videos import read_footage
from posture.data.store import schema
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.data.store.tables import Store
from posture.display.html import breaks
from posture.errors import InputError
from posture.retrain.forget import IN_ORDER, find, forget
from posture.retrain.registry import Registry
from posture.runs.folder import RunFolder
from tests.support.footage import make_class_folders
from tests.support.processes import posture_here
from tests.support.registries import RECORD

pytestmark = pytest.mark.long

OPTIONS = IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 1)))


@pytest.fixture(scope="module")
def ingested(tmp_path_factory):
    place = tmp_path_factory.mktemp("forget")
    make_class_folders(place / "in", per_class=4, frames=40)
    ingest_clips(read_footage(str(place / "in")), Store(str(place / "store"), create=True), OPTIONS)
    return place


@pytest.fixture
def place(ingested, tmp_path):
    """A store, the footage it was made of, a registry with a version and a run that read it, and a report."""
    for name in ("in", "store"):
        shutil.copytree(ingested / name, tmp_path / name)
    store = Store(str(tmp_path / "store"))
    segments = {
        row["segment"]: [row["label"], row["split"], row["group"]] for row in store.read("segments").to_pylist()
    }
    registry = Registry(str(tmp_path / "registry"), create=True)
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    registry.write_json(
        {"segments": segments, "new": sorted(segments), "baseline": None, "refused": [], "ingests": []},
        "passes",
        "0001-20260101-000000",
        "segments.json",
    )
    registry.write_json(
        {"changed": [{"segment": segment, "uri": "x"} for segment in segments]},
        "passes",
        "0001-20260101-000000",
        "decision.json",
    )
    registry.promote(
        registry.add(RECORD | {"pass": "0001-20260101-000000", "store": store.uri}, tmp_path / "model.safetensors"),
        why="first",
    )
    answers = pa.table(
        {"segment": sorted(segments), "champion": [[0.5, 0.5]] * len(segments)},
        metadata={"classes": '["right", "left"]'},
    )
    pq.write_table(answers, tmp_path / "registry" / "passes" / "0001-20260101-000000" / "predictions.parquet")
    run = RunFolder(str(tmp_path / "runs"), "one")
    run.write_json("run.json", {"store": store.uri, "versions": store.versions()})
    for name, shown in (
        ("report.html", victim(store)["segment"]),
        ("short.html", victim(store)["segment"][:12]),
        ("file.html", breaks(victim_file(store))),
        ("other.html", f"another_{victim_file(store)}, of nobody"),
    ):
        for folder in ("evaluation", "evaluation/test"):  # where versions before wrote, and where they write now
            Path(run.uri, folder).mkdir(exist_ok=True)
            Path(run.uri, folder, name).write_text(f"<p>{shown}</p>")
    return tmp_path


def victim(store):
    """A segment that was trained on."""
    return next(
        row
        for row in sorted(store.read("segments").to_pylist(), key=lambda row: row["segment"])
        if row["split"] == "train"
    )


def victim_file(store):
    video = victim(store)["video"]
    return Path(next(row["uri"] for row in store.read("videos").to_pylist() if row["video"] == video)).name


def test_it_is_gone_from_head_and_disk_and_marked(place):
    store, registry = Store(str(place / "store")), Registry(str(place / "registry"))
    segment = victim(store)
    uri = next(row["uri"] for row in store.read("videos").to_pylist() if row["video"] == segment["video"])
    clips = {
        row["clip"]: row["pixels"] for row in store.read("clips").to_pylist() if row["segment"] == segment["segment"]
    }
    before, versions = {name: store.read(name).num_rows for name in schema.TABLES}, store.versions()
    done = posture_here(
        "forget",
        Path(uri).name,
        "--store",
        store.uri,
        "--registry",
        registry.uri,
        "--runs",
        str(place / "runs"),
        "--yes",
    )
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^(\w+): (\d+ rows?) removed", done.stdout, re.MULTILINE) == [
        (name, "1 row" if name in ("videos", "groups", "segments", "clips") else "0 rows") for name in IN_ORDER
    ]
    assert "\n1 clip, 1 segment, 1 group\n" in done.stdout
    assert "can no longer be read" in done.stdout and "report.html" in done.stdout and "v0001" in done.stdout

    gone = {name: before[name] - store.read(name).num_rows for name in schema.TABLES}
    assert gone == {name: 1 if name in ("videos", "groups", "segments", "clips") else 0 for name in schema.TABLES}
    tokens = [segment["video"].encode(), segment["segment"].encode(), *(pixels[:200] for pixels in clips.values())]
    data = [path.read_bytes() for path in (place / "store").rglob("*.parquet")]
    assert not any(token in content for token in tokens for content in data)
    with pytest.raises(InputError, match=r"version \d+ of segments cannot be read, because a video was forgotten"):
        store.read("segments", version=versions["segments"])

    assert registry.version("v0001")["marks"][0] | {"time": 0} == {
        "video": segment["video"],
        "time": 0,
        "segments": 1,
        "splits": ["train"],
    }
    assert "trained on 1 forgotten video" in posture_here("registry", "list", registry.uri).stdout
    assert json.loads((place / "runs" / "one" / "forgotten.json").read_text()) == [segment["video"]]
    pages = (place / "runs" / "one" / "evaluation").rglob("*.html")
    assert sorted(str(path.relative_to(place / "runs" / "one")) for path in pages) == [
        "evaluation/other.html",
        "evaluation/test/other.html",
    ]
    for name in ("segments.json", "decision.json"):
        assert segment["segment"] not in (place / "registry" / "passes" / "0001-20260101-000000" / name).read_text()
    told = pq.read_table(place / "registry" / "passes" / "0001-20260101-000000" / "predictions.parquet")
    assert segment["segment"] not in told["segment"].to_pylist() and told.num_rows == before["segments"] - 1
    assert json.loads(told.schema.metadata[b"classes"]) == ["right", "left"]

    report = ingest_clips(read_footage(str(place / "in")), store, OPTIONS)  # its file still lies there
    assert report.decoded == 0 and [(Path(item["uri"]).name, item["verdict"]) for item in report.refused] == [
        (Path(uri).name, "forgotten")
    ]
    assert (
        segment["video"] not in store.read("videos")["video"].to_pylist()
        and store.read("groups").num_rows == before["groups"] - 1
    )
    shutil.move(next((place / "in").rglob(Path(uri).name)), place / "in" / "right" / "renamed.mp4")
    assert [item["verdict"] for item in ingest_clips(read_footage(str(place / "in")), store, OPTIONS).refused] == [
        "forgotten"
    ]


def test_predictions_that_cannot_be_read_are_named_and_nothing_is_removed(place):
    store, broken = Store(str(place / "store")), place / "runs" / "one" / "evaluation" / "predictions.parquet"
    broken.write_bytes(b"half")
    before = store.versions()
    with pytest.raises(InputError, match=r"one/evaluation/predictions\.parquet: not a Parquet file"):
        find(victim(store)["video"], store, registry=None, runs=[str(place / "runs")])
    assert store.versions() == before and broken.read_bytes() == b"half"


def test_killed_in_between_the_same_command_finishes(place):
    store = Store(str(place / "store"))
    segment = victim(store)
    found = find(segment["video"][:12], store, registry=None, runs=[])

    class Killed(Exception):
        pass

    for last in ("clips", "segments", "videos"):

        def tell(line, last=last):
            if line.startswith(f"{last}:"):
                raise Killed

        with pytest.raises(Killed):
            forget(found, store, registry=None, report=tell)
        found = find(segment["video"], store, registry=None, runs=[])
    forget(found, store, registry=None)
    assert (
        segment["video"] not in str(store.read("videos").to_pylist())
        and store.read("clips").num_rows == 7
        and store.read("groups").num_rows == 7
    )


def test_it_asks_and_says_what_is_not_there(place):
    store = str(place / "store")
    for arguments, complaint in ((("nothing.mp4", "--yes"), "no video 'nothing.mp4'"), (("left00.mp4",), "add --yes")):
        done = posture_here("forget", *arguments, "--store", store)
        assert done.returncode == 2 and complaint in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert Store(store).read("videos").num_rows == 8


@pytest.mark.parametrize("version", ["this", "earlier"])
def test_what_is_known_of_a_video_in_which_nobody_was_found_is_gone_too(place, version):
    def nobody(frames):
        return [(np.zeros((0, 4)), np.zeros(0)) for _ in frames]

    nobody.size = 40
    store = Store(str(place / "searched"), create=True)
    recipe = DecodeRecipe(32, 40, 20, 2, 1, crop=crop_name(0.2, detector="1f2e3d4c"))
    options = IngestOptions(cut=Cut(recipe), max_refused_share=1.0)
    report = ingest_clips(read_footage(str(place / "in")), store, options, open_finder=lambda: nobody)
    assert (report.segments, store.read("segments").num_rows, store.read("absences").num_rows) == (0, 0, 8)
    rows = store.read("absences").to_pylist()
    if version == "earlier":
        rows = [row | {"video": None} for row in rows]
        store.upsert("absences", pa.Table.from_pylist(rows, schema.ABSENCES), keys=["segment", "recipe"])
    gone = next(row for row in store.read("videos").to_pylist() if row["uri"].endswith("left00.mp4"))["video"]
    forget(find(gone, store, registry=None, runs=[]), store, registry=None)
    left = store.read("absences").to_pylist()
    # earlier versions did not note the video, so that all of theirs go
    assert sorted(row["segment"] for row in left) == sorted(
        row["segment"] for row in rows if version == "this" and row["video"] != gone
    )
    assert len(left) == (7 if version == "this" else 0)


def test_every_table_is_known_to_it():
    assert set(IN_ORDER) | {"ingests"} == set(schema.TABLES)


def test_the_others_are_read_as_before(place):
    """Deltalake writes what it keeps of a file in a layout of its own."""
    store = Store(str(place / "store"))
    gone = victim(store)

    def clips():
        index = index_footage(store, "train")
        footage = open_index(index, feed="memory")
        return {
            key: footage.clip(number)
            for number, key in enumerate(index.keys)
            if index.segment_ids[index.segments[number]] != gone["segment"]
        }

    before = clips()
    forget(find(gone["video"], store, registry=None, runs=[]), store, registry=None)
    after = clips()
    assert (
        len(before) > 1 and before.keys() == after.keys() and all((after[key] == before[key]).all() for key in before)
    )
    streamed = StreamedClips(index_footage(store, "train"))
    assert {streamed.keys[index]: clip.tobytes() for index, clip in streamed.stream(0, 0, 1, 0)} == {
        key: clip.tobytes() for key, clip in after.items()
    }
