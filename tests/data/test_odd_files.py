"""Generated odd content in every JSON file that Posture reads back: a value, or one sentence that names the file; and
the file stays as it is.
"""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posture.commands.registry import list_versions, show_version
from posture.data.ingest.reports import read_refused, read_report
from posture.data.store.lease import Lease, holder
from posture.data.store.tables import FORGOTTEN, Store
from posture.errors import InputError
from posture.retrain.forget import find
from posture.retrain.registry import Registry
from posture.retrain.watch import watchers
from posture.runs.folder import RunFolder
from posture.runs.recipes import load_recipe
from posture.search.trial import OUTCOME, read
from posture.search.winner import winner_study
from posture.train.checkpoint import read_state
from tests.support.registries import GOOD, make_registry, make_store

pytestmark = pytest.mark.long

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.sampled_from([2**31, 2**63, -(10**30), 10**30, 1e18, -1e308]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["../../x", "/etc/passwd", "v0001", "a/b", "\x1b[2J", "x" * 200, GOOD, "a\nb", "\0"]),
)
TREES = st.recursive(
    ODD,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=6,
)
BROKEN = st.sampled_from([
    b"",
    b"{",
    b"\xff\xfe",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"9" * 5000,
    b"\0",
    b"nan",
    b'"\\ud800"',
])


def changed(good, data):
    """The value with one odd value in it, or without one of its fields."""
    if not isinstance(good, dict | list) or not good or data.draw(st.integers(0, 5)) == 0:
        return data.draw(TREES)
    place = data.draw(st.sampled_from(sorted(good) if isinstance(good, dict) else range(len(good))))
    if isinstance(good, dict):
        others = {name: value for name, value in good.items() if name != place}
        return others if data.draw(st.integers(0, 5)) == 0 else {**good, place: changed(good[place], data)}
    return [*good[:place], changed(good[place], data), *good[place + 1 :]]


def look_at_registry(uri):
    registry = Registry(uri)
    registry.champion(), registry.history(), registry.passes(), registry.current(), registry.last(), watchers(registry)
    list_versions(uri)
    show_version(uri, None)


FILES = {
    "registry/champion.json": look_at_registry,
    "registry/versions/v0001/version.json": look_at_registry,
    "registry/last.json": look_at_registry,
    f"registry/versions/v0001/forgotten/{GOOD}.json": look_at_registry,
    "registry/watchers/a-7.json": look_at_registry,
    "registry/current.json": look_at_registry,
    "registry/_lease/000000000001.json": lambda uri: (holder(uri), Lease(uri)._latest()),
    f"store/{FORGOTTEN}/{GOOD}.json": lambda uri: (
        Store(uri).forgotten(),
        find(GOOD, Store(uri), registry=None, runs=[]),
    ),
    "runs/one/run.json": lambda uri: RunFolder(uri, "one").record(),
    "runs/one/history.json": lambda uri: RunFolder(uri, "one").read_json("history.json"),
    "runs/one/checkpoints.json": lambda uri: RunFolder(uri, "one").checkpoints(),
    "runs/one/holder.json": lambda uri: RunFolder(uri, "one").read_json("holder.json"),
    f"runs/one/{OUTCOME}": lambda uri: read(RunFolder(uri, "one")),
}
"""What is read, below a laboratory, and by what; which gets the path of the first folder."""
CONTENT = {
    "registry/current.json": {
        "pass": "0001-20260101-000000",
        "step": "train",
        "started": 1.0,
        "asked": "x",
        "versions": {"clips": 1},
        "run": "a",
        "champion": None,
        "baseline": None,
        "left_out": [],
        "look": {},
        "record": {},
    },
    "registry/last.json": {
        "time": 1.0,
        "status": "nothing",
        "sentence": "x",
        "pass": None,
        "unsettled": [],
        "unlabelled": [],
    },
    f"registry/versions/v0001/forgotten/{GOOD}.json": {"video": GOOD, "time": 1.0, "segments": 2, "splits": ["train"]},
    "registry/watchers/a-7.json": {
        "host": "a",
        "process": 7,
        "schedule": "x",
        "footage": "f",
        "began": 1.0,
        "beat": 1.0,
        "next": 2.0,
        "working_since": None,
    },
    "registry/_lease/000000000001.json": {"holder": "x", "host": "a", "machine": "m", "process": 7, "expires": 1.0},
    f"store/{FORGOTTEN}/{GOOD}.json": {"video": GOOD, "bytes": 1, "time": 1.0, "versions": {"clips": 0}},
    "runs/one/run.json": {
        "run": load_recipe("jobs/action.py:improved").model_dump(mode="json"),
        "store": "s",
        "versions": {"clips": 1},
        "classes": ["a"],
        "footage": {"train": {"clips": 2}},
        "created": 1.0,
    },
    "runs/one/history.json": [{"epoch": 1, "val_accuracy": 0.5, "seconds": 1.0}],
    "runs/one/checkpoints.json": {"best": "a", "last": "b"},
    "runs/one/holder.json": {"mark": "x", "host": "a", "process": 7, "since": 1.0},
    f"runs/one/{OUTCOME}": {"state": "complete", "values": [0.5], "by_epoch": [0.5], "reason": ""},
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    place = tmp_path_factory.mktemp("lab")
    make_store(place / "store")
    make_registry(place / "registry", store=str(place / "store"))
    for name, value in CONTENT.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(json.dumps(value))
    return place


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_odd_content_is_a_value_or_a_sentence(lab, name, data):
    file, uri = lab / name, str(lab / name.partition("/")[0])
    before = file.read_bytes()
    odd = (
        data.draw(BROKEN)
        if data.draw(st.integers(0, 9)) == 0
        else json.dumps(changed(json.loads(before), data)).encode()
    )
    try:
        file.write_bytes(odd)
        try:
            FILES[name](uri)
        except InputError as error:
            assert file.name in str(error) or "there is no" in str(error), error
        assert file.read_bytes() == odd
    finally:
        file.write_bytes(before)
    FILES[name](uri)  # the right content is read


REPORT = {
    "ingest": "a",
    "footage": "f",
    "layout": "folders",
    "recipe": "r",
    "files": 2,
    "classes": {"jump": {"train": 1}},
    "refused": [{"uri": "x", "verdict": "empty", "reason": "why"}],
    "seconds": 1.0,
}


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_reports_states_and_winners_of_odd_content(lab, data):
    store = Store(str(lab / "store"))
    for use in (read_report, read_refused):
        try:
            use(json.dumps(changed(REPORT, data)), store)
        except InputError as error:
            assert "the report of an ingest" in str(error)
    for good, file, use in (
        (
            {"epoch": 1, "history": [{"epoch": 1}], "optimizer": "SGD", "best": 0.5},
            "state.json",
            lambda: read_state(lab),
        ),
        (
            {
                "search": "s",
                "trial": 3,
                "base": "jobs/action.py:improved",
                "base_changes": {},
                "changes": {"optim.lr": 0.1},
            },
            "best.json",
            lambda: winner_study(str(lab / "best.json")),
        ),
    ):
        (lab / file).write_text(json.dumps(changed(good, data)))
        try:
            use()
        except InputError as error:
            assert "\n" not in str(error).strip()
