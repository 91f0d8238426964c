"""Nothing outside a store, run or registry is read, written or removed through it; odd content is refused in one
sentence.
"""

import contextlib
import json
import os
import time
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pytest

from posture.config import override
from posture.data.feed.clips import index_footage
from posture.data.feed.shards import open_index
from posture.data.store import schema
from posture.data.store.checked import Count, Name, checked_json, path_below
from posture.data.store.files import absolute, local_copy, open_root
from posture.data.store.lease import Lease, holder
from posture.data.store.schema import DecodeRecipe, crop_name
from posture.data.store.tables import FORGOTTEN, Store
from posture.errors import Busy, InputError
from posture.retrain.forget import find, forget
from posture.retrain.registry import Registry
from posture.runs.folder import RunFolder
from posture.runs.recipes import load_recipe
from tests.support.processes import posture_here
from tests.support.registries import GOOD, make_registry, make_store

ELSEWHERE = [
    "../../x",
    "..",
    "/etc/passwd",
    "a/b",
    "a\\..\\b",
    "",
    ".hidden",
    "x" * 200,
    "a\n",
    "a\0b",
    "%2e%2e%2fx",
    "ü",
    "-rf",
]


def snapshot(folder):
    """Return every path below `folder` with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def outside(tmp_path):
    """The user's files, which must stay as they are."""
    folder = tmp_path / "photos"
    (folder / "2025").mkdir(parents=True)
    for name in ("one.parquet", "2025/two.json", "2025/three.jpg"):
        (folder / name).write_bytes(name.encode())
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before


@pytest.mark.parametrize(
    "link",
    [
        "groups/linked",
        "groups/_delta_log/linked",
        "groups/part.parquet",
        "_forgotten",
        "_lease",
        "groups",
        "groups/_delta_log",
        "groups/deep/er/linked",
    ],
)
def test_a_link_in_a_store_leads_to_a_sentence_and_nothing_is_removed(tmp_path, outside, link):
    store = make_store(tmp_path / "store")
    place = tmp_path / "store" / link
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():
        place.rename(outside.parent / "moved")
    place.symlink_to(outside / "one.parquet" if link.endswith("parquet") else outside)
    with pytest.raises(InputError, match=r"a symbolic link to .*photos.*; nothing outside"), Lease(store.uri):
        store.forgotten()
        store.remove_orphans("groups")
    with pytest.raises(InputError, match="a symbolic link to"):
        forget(find(GOOD, store, registry=None, runs=[]), store, registry=None)


def test_a_data_file_that_is_a_link_is_not_read(tmp_path, outside):
    store = make_store(tmp_path / "store")
    (data,) = (tmp_path / "store" / "groups").glob("*.parquet")
    data.rename(tmp_path / "elsewhere.parquet")
    data.symlink_to(tmp_path / "elsewhere.parquet")
    changed = pa.Table.from_pylist([{"group": "a", "split": "val"}], schema=schema.GROUPS)
    for use in (
        lambda: store.read("groups"),
        lambda: store.delete("groups", "group", ["a"]),
        lambda: store.remove_orphans("groups"),
        store.sizes,
        store.versions,
        lambda: store.upsert("groups", changed, keys=["group"]),
    ):
        with pytest.raises(InputError, match="a symbolic link to"):
            use()
    assert (tmp_path / "elsewhere.parquet").exists()


def test_a_pipe_in_a_store_is_not_waited_for(tmp_path):
    store = make_store(tmp_path / "store")
    (data,) = (tmp_path / "store" / "groups").glob("*.parquet")
    data.unlink()
    os.mkfifo(data)
    with pytest.raises(InputError, match="neither a file nor a folder"):
        store.read("groups")


@pytest.mark.parametrize(
    "path",
    [
        "../../photos/one.parquet",
        "..%2F..%2Fphotos%2Fone.parquet",
        "%2e%2e/%2e%2e/photos/one.parquet",
        "{root}/photos/one.parquet",
        "file://{root}/photos/one.parquet",
        "..%252F..%252Fphotos%252Fone.parquet",
        "gone%25.parquet",
        "gone%2525.parquet",
        "gone.parquet",
        "%",
        "a\nb.parquet",
        "%00.parquet",
        "",
    ],
)
@pytest.mark.parametrize("action", ["add", "remove"])
def test_a_log_that_names_other_files_reaches_none_of_them(tmp_path, outside, path, action):
    store = make_store(tmp_path / "store")
    log = max((tmp_path / "store" / "groups" / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    named = path.format(root=tmp_path)
    if action == "add":
        for entry in actions:
            entry.get("add", {})["path"] = named
    else:
        actions.append({"remove": {"path": named, "deletionTimestamp": 1, "dataChange": True, "size": 1}})
    log.write_text("\n".join(map(json.dumps, actions)) + "\n")
    if action == "add":
        with pytest.raises(InputError):
            store.read("groups")
    with pytest.raises(InputError) if action == "add" else contextlib.nullcontext():
        store.delete("groups", "group", ["a"])
    with contextlib.suppress(InputError):
        store.remove_orphans("groups")


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_that_are_no_names(tmp_path, name):
    with pytest.raises(InputError):
        checked_json(json.dumps({"a": name}), "x", dict[str, Name])


@pytest.mark.parametrize(
    "name",
    [GOOD, f"{GOOD}-tube", f"{GOOD}-0000012", "v0001", "0001-20260101-000000", "improved-20260131-142233-3fa9d2c1"],
)
def test_names_that_posture_writes(name):
    assert checked_json(json.dumps([name]), "x", list[Name]) == [name]


@pytest.mark.parametrize(
    "parts", [("..",), ("a", "..", "b"), ("a/../b",), ("/etc",), ("",), ("a", ""), ("a\0",), (".",)]
)
def test_a_path_stays_below_its_root(tmp_path, parts):
    with pytest.raises(InputError, match="is not a path below it"):
        path_below(str(tmp_path), *parts)


@pytest.mark.parametrize("column", ["video", "segment", "clip", "image"])
@pytest.mark.parametrize("value", ["../../x", "a/b", None, "a\nb", "/etc/passwd"])
def test_an_id_from_elsewhere_is_refused_where_it_is_read(tmp_path, column, value):
    table = {"video": "videos", "segment": "absences", "clip": "flows", "image": "pictures"}[column]
    store = make_store(tmp_path / "store")
    number = {pa.string(): "x", pa.int64(): 1, pa.int32(): 1, pa.float64(): 1.0, pa.float32(): 1.0, pa.binary(): b""}
    row = {field.name: number[field.type] for field in schema.TABLES[table]} | {column: value}
    store.append(table, pa.Table.from_pylist([row], schema=schema.TABLES[table]))
    with pytest.raises(InputError, match=f"in column {column} is not what Posture writes"):
        store.read(table)


@pytest.mark.parametrize(
    "folder",
    [
        "versions",
        "passes",
        "versions/v0001",
        "versions/v0001/version.json",
        "versions/v0001/model.safetensors",
        "champion.json",
        "_lease",
    ],
)
def test_a_link_in_a_registry_leads_to_a_sentence(tmp_path, outside, folder):
    registry = make_registry(tmp_path / "registry")
    place = tmp_path / "registry" / folder
    if place.exists():
        place.rename(tmp_path / "moved")
    place.symlink_to(outside)
    with pytest.raises(InputError, match="a symbolic link to"):
        Registry(registry.uri)
        registry.versions(), registry.passes()
        with registry.checkpoint("v0001"), registry.lease():
            pass


def test_a_plan_from_elsewhere_names_no_pass_but_its_own(tmp_path, outside):
    registry = make_registry(tmp_path / "registry")
    for name in ELSEWHERE:
        (tmp_path / "registry" / "current.json").write_text(json.dumps({"pass": name}))
        with pytest.raises(InputError, match=r"current.json: .*at pass"):
            registry.current()
        with pytest.raises(InputError):
            registry.mark(name, GOOD, segments=1, splits=["train"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "photos", "registry"]


def test_links_in_a_run_lead_to_a_sentence(tmp_path, outside):
    run = RunFolder(str(tmp_path / "runs"), "one")
    run.write_json("run.json", {})
    run.write_json("checkpoints.json", {"last": "a", "best": "b"})
    (tmp_path / "runs/one/checkpoints/a").mkdir(parents=True)
    (tmp_path / "runs/one/checkpoints/a/model.safetensors").symlink_to(outside / "one.parquet")
    (tmp_path / "runs/one/checkpoints/b").symlink_to(outside)
    (tmp_path / "runs/one/history.json").symlink_to(outside / "2025/two.json")
    for which in ("last", "best"):
        with pytest.raises(InputError, match="a symbolic link to"), run.checkpoint(which):
            pass
    with pytest.raises(InputError, match="a symbolic link to"):
        run.read_json("history.json")
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "one")
    assert RunFolder.open(str(tmp_path / "runs" / "latest")).exists()  # the folder that the user names may be a link


def test_a_field_that_is_missing_is_named(tmp_path):
    found = checked_json('{"a": {"b": [{"c": 1}]}}', "x.json", dict[str, Any])
    assert found["a"]["b"][0]["c"] == 1 and found.get("d") is None and "d" not in found
    with pytest.raises(InputError, match=r"^x.json: the field 'd' is missing"):
        found["a"]["b"][0]["d"]
    with pytest.raises(KeyError):
        found["e"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1", "not JSON"),
        ("[]", "valid dictionary"),
        ('{"a": -1}', "at a: "),
        ('{"a": 1.5}', "at a: "),
        ('{"a": "1"}', "at a: "),
        ('{"a": 99999999999999999999}', "at a: "),
        ("[" * 100_000, "nested"),
        ('{"a": ' + "9" * 5000 + "}", "digits"),
    ],
)
def test_odd_json_is_refused_in_one_sentence(text, said):
    with pytest.raises(InputError, match=r"^x.json") as told:
        checked_json(text, "x.json", dict[str, Count])
    assert said in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 400


ENTRY = {"holder": "x", "host": "elsewhere", "machine": "another", "process": 7, "expires": time.time() + 30}


ODD_ENTRIES = [
    {"expires": 1e18},
    {"expires": "x"},
    {"expires": 1e10},
    {"expires": float("nan")},
    {"expires": None},
    {"process": 2**80},
    {"process": "1"},
    {"process": 0},
    {"host": None},
]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "7", '"x"', "{}", "[" * 100_000, *ODD_ENTRIES])
def test_a_lease_of_odd_content_is_named_and_stays(tmp_path, content):
    content = content if isinstance(content, str) else json.dumps(ENTRY | content)
    (tmp_path / "_lease").mkdir()
    (tmp_path / "_lease" / "000000000004.json").write_text(content)
    for use in (lambda: Lease(str(tmp_path)).__enter__(), lambda: holder(str(tmp_path))):
        with pytest.raises(InputError, match=r"_lease/000000000004.json") as told:
            use()
        assert not isinstance(told.value, Busy)
    assert snapshot(tmp_path / "_lease") == {"000000000004.json": content.encode()}


def test_other_files_beside_a_lease_are_none(tmp_path):
    (tmp_path / "_lease").mkdir()
    for name in ("notes.json", "1.json", "00000000000a.json", ".000000000009.json"):
        (tmp_path / "_lease" / name).write_text("mine")
    with Lease(str(tmp_path)):
        pass
    assert (tmp_path / "_lease" / "notes.json").read_text() == "mine"


@pytest.mark.parametrize(
    "mark",
    [
        "{",
        "[]",
        "7",
        "{}",
        json.dumps({"video": "../../x", "bytes": 1, "time": 1.0, "versions": {}}),
        json.dumps({"video": GOOD, "bytes": "1", "time": 1.0, "versions": {}}),
        json.dumps({"video": GOOD, "bytes": 1, "time": 1e18, "versions": {}}),
        json.dumps({"video": GOOD, "bytes": 1, "time": 1.0, "versions": {"clips": -1}}),
        json.dumps({"video": GOOD, "bytes": 1, "time": 1.0, "versions": []}),
    ],
)
def test_a_mark_of_odd_content_is_named_and_stays(tmp_path, mark):
    store = make_store(tmp_path / "store")
    (tmp_path / "store" / FORGOTTEN).mkdir()
    (tmp_path / "store" / FORGOTTEN / "x.json").write_text(mark)
    with pytest.raises(InputError, match=r"_forgotten/x.json"):
        store.forgotten()
    before = snapshot(tmp_path / "store")
    with pytest.raises(InputError, match=r"_forgotten/x.json"):
        forget(find(GOOD, store, registry=None, runs=[]), store, registry=None)
    after = snapshot(tmp_path / "store")
    assert {name: content for name, content in after.items() if not name.startswith("_lease")} == before


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/store",
        "http://127.0.0.1:9/x",
        "file:///etc",
        "gs://bucket/x",
        "az://x/y",
        "memory:///",
        "ftp://x/y",
        "S3://x/y",
    ],
)
def test_other_addresses_are_not_contacted(tmp_path, uri):
    for use in (
        absolute,
        open_root,
        lambda uri: Store(uri),
        lambda uri: Registry(uri),
        lambda uri: RunFolder.open(f"{uri}/x"),
    ):
        with pytest.raises(InputError, match=r"an address must be a folder or begin with s3://"):
            use(uri)
    with pytest.raises(OSError, match="an address must be a folder"), local_copy(f"{uri}/a.mp4"):
        pass


def test_a_foreign_run_whose_store_is_an_address_is_refused(tmp_path):
    run = override(load_recipe("jobs/action.py:improved"), {"epochs": 1}).model_dump(mode="json")
    RunFolder(str(tmp_path), "one").write_json(
        "run.json", {"run": run, "classes": ["a"], "versions": {}, "store": "https://evil.example/store"}
    )
    done = posture_here("evaluate", str(tmp_path / "one"))
    assert done.returncode == 2 and "begin with s3://" in done.stderr and done.stderr.count("\n") == 1, done.stderr


def clip(**changes):
    return {
        "clip": "c",
        "segment": "s",
        "recipe": str(DecodeRecipe()),
        "start": 0.0,
        "frames": 2,
        "height": 3,
        "width": 4,
        "offsets": [],
        "pixels": bytes(2 * 3 * 4 * 3),
    } | changes


JPEG = cv2.imencode(".jpg", np.zeros((3, 4, 3), np.uint8))[1].tobytes()
ODD_CLIPS = [
    {"frames": 3},
    {"height": 2**20},
    {"width": 0},
    {"pixels": b""},
    {"pixels": None},
    {"frames": None},
    {"height": -1},
    {"offsets": [0]},
    {"offsets": [0, 10**9]},
    {"offsets": [0, -5]},
    {"offsets": [0, len(JPEG)], "pixels": JPEG + b"no image"},
    {"offsets": [0, len(JPEG)], "pixels": JPEG * 2, "height": 4},
]


@pytest.mark.parametrize("odd", ODD_CLIPS)
def test_a_clip_whose_shape_contradicts_its_bytes_is_refused(tmp_path, odd):
    store = make_store(tmp_path / "store")
    segment = {"segment": "s", "video": GOOD, "start": 0.0, "end": 0.4, "label": "jump", "group": "a", "split": "train"}
    store.append("segments", pa.Table.from_pylist([segment], schema=schema.SEGMENTS))
    store.append("clips", pa.Table.from_pylist([clip()], schema=schema.CLIPS))
    assert open_index(index_footage(store, "train"), feed="memory").clip(0).shape == (2, 3, 4, 3)
    store.delete("clips", "clip", ["c"])
    store.append("clips", pa.Table.from_pylist([clip(**odd)], schema=schema.CLIPS))
    index = index_footage(store, "train")
    with pytest.raises(InputError) as told:
        open_index(index, feed="memory").clip(0)
    assert "clip" in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    "recipe",
    [
        "",
        "x",
        "128x171",
        "128x171-stretch-f32-s2-w1-jpeg",
        "999999x171-stretch-f32-s2-w1-raw",
        "128x171-none-f32-s2-w1-raw",
        "128x171-stretch-f32-s2-w1-raw-",
        "128x171-stretch-f32-s2-w1-raw-detector-../x-0.2",
        "１２８x171-stretch-f32-s2-w1-raw",
    ],
)
def test_a_decode_recipe_that_is_none_is_refused(recipe):
    with pytest.raises(InputError, match="is not a decode recipe"):
        DecodeRecipe.parse(recipe)
    for good in (
        DecodeRecipe(),
        DecodeRecipe(1, 99999, 1024, 1000, 1000, "pad", 100, crop_name(2)),
        DecodeRecipe(crop=crop_name(0.05, detector="1f2e3d4c")),
    ):
        assert DecodeRecipe.parse(str(good)) == good


@pytest.mark.parametrize(
    "boxes",
    [
        [[1.0, 2.0]],
        [[1.0, 2.0, 3.0, 4.0, 5.0]],
        [[1.0, 2.0, 3.0, float("nan")]],
        [[1.0, 2.0, None, 4.0]],
        [None],
        None,
        [[0.0, 0.0, 1.0, 1.0]] * 2,
        [],
    ],
)
def test_boxes_of_odd_shape_are_refused(tmp_path, boxes):
    store = make_store(tmp_path / "store")
    row = {field.name: None for field in schema.BOXES} | {
        "image": "i",
        "group": "a",
        "split": "train",
        "boxes": [[1.0, 2.0, 3.0, 4.0]],
        "labels": ["ball"],
    }
    store.append("boxes", pa.Table.from_pylist([row, row | {"boxes": [], "labels": []}], schema=schema.BOXES))
    assert store.read("boxes").num_rows == 2
    store.append("boxes", pa.Table.from_pylist([row, row | {"boxes": boxes}], schema=schema.BOXES))
    with pytest.raises(InputError, match=r"in column boxes is not what Posture writes"):
        store.read("boxes")
