"""Names that look like SQL, like paths or like nothing at all: exactly the rows go that are named."""

import random

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from posture.data.store import schema
from posture.data.store.tables import DELETE_AT_ONCE, Store
from posture.errors import InputError
from posture.retrain.forget import find, forget

pytestmark = pytest.mark.long

PIECES = [
    "'",
    "''",
    '"',
    "\\",
    "\\'",
    "') OR (1=1) --",
    "' OR ''='",
    "; DROP TABLE groups",
    "--",
    "/*",
    "*/",
    "%",
    "%25",
    "%27",
    "_",
    "$1",
    "${x}",
    "?",
    "\0",
    "\n",
    "\r\n",
    "\t",
    "\x1b[31m",
    "\u2028",
    "\u00e9",
    "e\u0301",
    "\U0001f938",
    "`",
    "x",
    "NULL",
    "E'\\x27'",
    "U&'\\0027'",
    "../",
    "[bold]",
    " ",
    "=1+1",
]


def hostile_names(count, seed):
    """Different names, each of one to four pieces."""
    chance, names = random.Random(seed), dict.fromkeys([*PIECES, "", "a", "A", "a ", " a"])
    while len(names) < count:
        names["".join(chance.choices(PIECES, k=chance.randint(1, 4)))] = None
    return list(names)[:count]


@pytest.fixture(scope="module")
def names():
    return hostile_names(200, 7)


def test_exactly_the_named_rows_go(tmp_path, names):
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    store.append(
        "groups", pa.Table.from_pylist([{"group": name, "split": "train"} for name in names], schema=schema.GROUPS)
    )
    left = list(names)
    chance = random.Random(3)
    while left:
        gone = chance.sample(left, min(len(left), chance.randint(1, 12)))
        store.delete("groups", "group", gone)
        left = [name for name in left if name not in gone]
        assert sorted(store.read("groups")["group"].to_pylist()) == sorted(left), gone


def test_a_name_alone_takes_no_other_with_it(tmp_path, names):
    """One at a time for those that look most like SQL."""
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    store.append(
        "groups", pa.Table.from_pylist([{"group": name, "split": "train"} for name in names], schema=schema.GROUPS)
    )
    for count, name in enumerate(PIECES[:12], start=1):
        store.delete("groups", "group", [name])
        held = store.read("groups")["group"].to_pylist()
        assert len(held) == len(names) - count and name not in held


def test_rows_are_replaced_under_hostile_keys(tmp_path, names):
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    store.append(
        "groups", pa.Table.from_pylist([{"group": name, "split": "train"} for name in names], schema=schema.GROUPS)
    )
    store.upsert(
        "groups",
        pa.Table.from_pylist([{"group": name, "split": "test"} for name in names[::2]], schema=schema.GROUPS),
        keys=["group"],
    )
    held = {row["group"]: row["split"] for row in store.read("groups").to_pylist()}
    assert held == {name: ("test", "train")[number % 2] for number, name in enumerate(names)}


def test_more_rows_go_than_one_predicate_holds(tmp_path):
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    names = [f"{number:032x}" for number in range(2 * DELETE_AT_ONCE + 5)]
    store.append(
        "groups",
        pa.Table.from_pylist([{"group": name, "split": "train"} for name in [*names, "kept"]], schema=schema.GROUPS),
    )
    store.delete("groups", "group", names)
    assert store.read("groups")["group"].to_pylist() == ["kept"]


def segment_rows(number, group):
    """What a store holds of a video in a group of its own."""
    video, segment = f"{number:032x}", f"{number + 1000:032x}"
    return {
        "videos": {
            "video": video,
            "uri": f"/footage/{number}.mp4",
            "bytes": number + 1,
            "modified": 1.0,
            "frames": 10,
            "fps": 25.0,
            "seconds": 0.4,
            "width": 32,
            "height": 24,
            "codec": "h264",
            "verdict": "ok",
            "reason": "",
        },
        "groups": {"group": group, "split": "train"},
        "segments": {
            "segment": segment,
            "video": video,
            "start": 0.0,
            "end": 0.4,
            "label": group,
            "group": group,
            "split": "train",
        },
    }


def store_of(place, names):
    store = Store(str(place), create=True)
    store.create_tables()
    made = [segment_rows(number, name) for number, name in enumerate(names)]
    for table in made[0]:
        store.append(table, pa.Table.from_pylist([row[table] for row in made], schema=schema.TABLES[table]))
    return store


@pytest.mark.parametrize("count", [6, pytest.param(60, marks=pytest.mark.slow)])
def test_a_video_is_forgotten_with_its_group_and_no_other(tmp_path, names, count):
    store = store_of(tmp_path / "store", names)
    left = list(enumerate(names))
    hostile_first = sorted(left, key=lambda item: item[1] not in ("') OR (1=1) --", "'", "\\", "\\'", "\0", "\n"))
    for number, name in hostile_first[:count]:
        forget(find(f"{number:032x}", store, registry=None, runs=[]), store, registry=None)
        left.remove((number, name))
        assert sorted(store.read("groups")["group"].to_pylist()) == sorted(group for _, group in left), name
        assert sorted(store.read("segments")["label"].to_pylist()) == sorted(group for _, group in left), name
        assert store.read("videos").num_rows == len(left)


def test_a_table_that_nothing_can_be_removed_from_leaves_all_of_the_video(tmp_path):
    store = store_of(tmp_path / "store", ["a", "b"])
    DeltaTable(store.table_uri("segments")).alter.set_table_properties({"delta.appendOnly": "true"})
    before = {name: store.read(name) for name in schema.TABLES}
    with pytest.raises(InputError, match=r"segments: cannot be written: .*append-only"):
        forget(find(f"{0:032x}", store, registry=None, runs=[]), store, registry=None)
    assert {name: store.read(name) for name in schema.TABLES} == before and store.forgotten() == {}
