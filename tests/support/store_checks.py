"""Checks that a store and a lease pass on any storage."""

from __future__ import annotations

import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from posture.data.store import schema
from posture.data.store.lease import Lease
from posture.data.store.tables import Store, filesystem
from posture.errors import Busy


def check_lease(root):
    """Check the guarantees of a lease, on any storage."""
    with Lease(root, limit_seconds=1.0) as first:
        with pytest.raises(Busy, match="another ingest is writing to this store"):
            Lease(root).__enter__()
        time.sleep(1.5)  # the lease is renewed, so it does not end at its limit
        with pytest.raises(Busy):
            Lease(root).__enter__()
        first.check()
    with Lease(root):
        pass


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
