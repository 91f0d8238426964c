import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posture.data.store import schema
from posture.data.store.tables import Store, filesystem
from posture.errors import InputError


def segments(*pairs):
    return pa.Table.from_pylist(
        [
            {"segment": name, "video": "v", "start": 0.0, "end": 1.0, "label": label, "group": "g", "split": "train"}
            for name, label in pairs
        ],
        schema=schema.SEGMENTS,
    )


def write_part(store, name, *clips):
    """Write clips as an ingest worker does: a Parquet file that no version names yet."""
    files, folder = filesystem(store.table_uri("clips"))
    table = pa.Table.from_pylist(
        [
            {
                "clip": clip,
                "segment": clip,
                "recipe": "r",
                "start": 0.0,
                "frames": 1,
                "height": 1,
                "width": 1,
                "offsets": [],
                "pixels": b"rgb",
            }
            for clip in clips
        ],
        schema=schema.CLIPS,
    )
    pq.write_table(table, f"{folder}/{name}", filesystem=files)
    return {"path": name, "bytes": files.get_file_info(f"{folder}/{name}").size, "rows": len(clips)}


def check_store(uri):
    """Check the guarantees of a store, on any storage."""
    store = Store(uri, create=True)
    store.create_tables()
    assert store.versions() == dict.fromkeys(schema.TABLES, 0)
    store.append("segments", segments(("a", "kick"), ("b", "jump")))
    store.upsert("segments", segments(("b", "throw"), ("c", "kick")), keys=["segment"])
    newest = {row["segment"]: row["label"] for row in store.read("segments").to_pylist()}
    assert newest == {"a": "kick", "b": "throw", "c": "kick"}
    assert store.read("segments", version=1)["label"].to_pylist() == ["kick", "jump"]
    store.delete("segments", "segment", ["a", "c"])
    assert store.read("segments")["segment"].to_pylist() == ["b"]
    part = write_part(store, "part-1.parquet", "x", "y")
    write_part(store, "part-2.parquet", "z")
    assert store.read("clips").num_rows == 0
    store.commit_files("clips", [part])
    assert store.remove_orphans("clips") == 1
    assert sorted(store.read("clips")["clip"].to_pylist()) == ["x", "y"]
    version = store.versions()["clips"]
    assert store.remove_orphans("clips") == 0 and store.versions()["clips"] == version
    assert store.sizes()["clips"][1] == 2


def test_a_store_in_a_folder(tmp_path):
    check_store(str(tmp_path / "store"))


def test_nothing_new_makes_no_version(tmp_path):
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    store.append("segments", segments())
    store.upsert("segments", segments(), keys=["segment"])
    store.delete("segments", "segment", [])
    store.commit_files("clips", [])
    assert set(store.versions().values()) == {0}


def test_a_missing_store_is_refused_with_the_way_to_make_one(tmp_path):
    with pytest.raises(InputError, match=r"there is no store here; make one with: posture ingest"):
        Store(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()
