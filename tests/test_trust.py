"""What comes from elsewhere, a run, a store, a name, can neither run code nor reach beyond its own folder; and what is
secret stays so.
"""

import json
import os
import pickle
import shutil
import sys

import pyarrow as pa
import pytest

from posture.commands.tune import SearchOptions, place_of
from posture.config import override, validate
from posture.data.store import schema
from posture.data.store.files import absolute, open_root
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.models import build
from posture.runs.folder import RunFolder
from posture.runs.recipes import load_recipe
from posture.runs.tracking import Tracker
from posture.search.study import open_storage
from posture.train.checkpoint import load_weights
from tests.support.small_run import SMALL_ACTION


@pytest.mark.parametrize("tag", ["../../precious", "/etc", "..", "a/b", "", 7, None, "a\nb"])
def test_a_run_from_elsewhere_names_no_folder_but_its_own(tmp_path, tag):
    """Publishing removes what `last` named before."""
    precious = tmp_path / "precious" / "file"
    precious.parent.mkdir()
    precious.touch()
    folder = RunFolder(str(tmp_path / "runs"), "foreign")
    folder.write_json("checkpoints.json", {"last": tag, "best": "epoch-0001-0a0b0c0d"})
    made = tmp_path / "made"
    made.mkdir()
    (made / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"checkpoints.json: names something other than checkpoints of this run"):
        folder.publish_checkpoint("epoch-0002", made, best=False)
    with pytest.raises(InputError, match=r"checkpoints.json"), folder.checkpoint("last"):
        pass
    assert precious.exists()


@pytest.mark.parametrize(
    "name", ["../up", "/tmp/x", "..", ".hidden", "a/b", "a b", "a\n", "ü", "$(touch x)", "a" * 101, ""]
)
def test_names_cannot_leave_their_root(monkeypatch, tmp_path, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="use letters, digits"):
        RunFolder("runs", name)
    if name:  # left out, a search is named after its space
        with pytest.raises(InputError, match=r"--name .*use letters, digits"):
            place_of(SearchOptions("tune_spaces/action.py", "jobs/action.py:improved", {}, name=name))
    with pytest.raises(InputError, match="name"):
        override(load_recipe("jobs/action.py:improved"), {"name": name})
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../../outside.parquet", "{root}/outside.parquet", "file://{root}/outside.parquet", "..%2F..%2Foutside.parquet"],
)
def test_a_store_from_elsewhere_reads_no_file_outside_itself(tmp_path, path):
    store = Store(str(tmp_path / "store"), create=True)
    store.create_tables()
    entry = {"ingest": "a", "time": 1.0, "report": "{}"}
    store.append("ingests", pa.Table.from_pylist([entry], schema=schema.INGESTS))
    assert store.read("ingests").num_rows == 1
    (file,) = (tmp_path / "store" / "ingests").glob("*.parquet")
    shutil.move(file, tmp_path / "outside.parquet")
    log = max((tmp_path / "store" / "ingests" / "_delta_log").glob("*.json"))
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        if "add" in action:
            action["add"]["path"] = path.format(root=tmp_path)
    log.write_text("\n".join(map(json.dumps, actions)) + "\n")
    with pytest.raises(InputError, match="names a file outside itself"):
        store.read("ingests")


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_weights_from_elsewhere_run_no_code(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    run = override(load_recipe("jobs/action.py:improved"), SMALL_ACTION)
    with pytest.raises(InputError, match="is damaged"):
        load_weights(build(run.model), tmp_path / "model.safetensors")
    assert not (tmp_path / "exploded").exists()


def test_a_configuration_from_elsewhere_is_checked_again():
    tree = load_recipe("jobs/action.py:improved").model_dump(mode="json")
    with pytest.raises(InputError, match="name"):
        validate(tree | {"name": "../../up"})
    with pytest.raises(InputError, match="extra"):
        validate(tree | {"__reduce__": "os.system"})


@pytest.mark.parametrize(
    "use", [absolute, open_root, lambda uri: Store(uri, create=True), lambda uri: RunFolder(uri, "a")]
)
def test_credentials_in_an_address_are_refused_and_not_repeated(use):
    with pytest.raises(InputError, match=r"s3://...@bucket/store: leave credentials out of the address") as told:
        use("s3://AKIA1:sesame@bucket/store")
    assert "sesame" not in str(told.value) and "AKIA1" not in str(told.value)


def test_a_secret_key_with_a_slash_in_it_is_seen_too():
    with pytest.raises(InputError, match=r"s3://...@bucket/store: leave credentials out of the address") as told:
        absolute("s3://AKIA1:ses/ame@bucket/store")
    assert "ses" not in str(told.value).partition(": leave")[0]
    assert absolute("s3://bucket/athlete@home:1") == "s3://bucket/athlete@home:1"


def test_a_password_in_the_storage_of_a_search_is_refused_and_not_repeated():
    with pytest.raises(InputError, match=r"--storage postgresql://host/studies: leave out the password") as told:
        open_storage("postgresql://me:se:s@me@host/studies")
    assert "se:s" not in str(told.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:se?same@host/studies",
        "postgresql://host:5432/studies?password=me@sesame",
        "postgresql://me:se/s?ame@host/studies",
    ],
)
def test_a_password_with_signs_of_an_address_in_it_is_not_repeated_in_part(url):
    with pytest.raises(InputError, match=r"--storage postgresql://\.\.\.: leave out the password") as told:
        open_storage(url)
    assert not any(part in str(told.value) for part in ("me:", "se?", "sesame", "se/s"))


def test_tracking_tells_nothing_of_the_command_line_or_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sesame")
    monkeypatch.setattr(sys, "argv", ["posture", "tune", "--storage", "postgresql://me:sesame@host/studies"])
    tracker = Tracker(
        "one", folder=str(tmp_path), config={"tracking": {"project": "posture", "group": None, "mode": "auto"}}
    )
    tracker.log({"loss": 1.0}, 1)
    tracker.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files) and not any(b"sesame" in path.read_bytes() for path in files)
