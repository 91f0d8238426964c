import json

import pytest

from posture.data.store.files import write_bytes
from posture.errors import Busy, InputError
from posture.runs.folder import RunFolder, refuse_existing, unique_name
from posture.runs.recipes import load_recipe


def checkpoint(tmp_path, name, text):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "model.safetensors").write_text(text)
    (folder / "state.json").write_text(json.dumps({"text": text}))
    return folder


def test_best_and_last_are_kept_and_nothing_else(tmp_path):
    folder = RunFolder(str(tmp_path / "runs"), "a")
    folder.write_json("run.json", {})
    for number, best in enumerate([True, False, False]):
        folder.publish_checkpoint(f"epoch-{number}", checkpoint(tmp_path, f"c{number}", str(number)), best=best)
    for which, text in (("best", "0"), ("last", "2")):
        with folder.checkpoint(which) as place:
            assert (place / "model.safetensors").read_text() == text
    assert len(list((tmp_path / "runs" / "a" / "checkpoints").iterdir())) == 2


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    """Killed between the files and the switch: the old one stands."""
    folder = RunFolder(str(tmp_path), "a")
    folder.publish_checkpoint("epoch-1", checkpoint(tmp_path, "c1", "one"), best=True)
    write_bytes(
        folder.path("checkpoints", "epoch-2-dead", "model.safetensors"),
        checkpoint(tmp_path, "c2", "two") / "model.safetensors",
    )
    with folder.checkpoint("last") as place:
        assert (place / "model.safetensors").read_text() == "one"


def test_who_took_a_run_last_publishes_alone(tmp_path):
    one, other = RunFolder(str(tmp_path), "a"), RunFolder(str(tmp_path), "a")
    one.take()
    one.publish_checkpoint("epoch-1", checkpoint(tmp_path, "c1", "one"), best=True)
    other.take()
    with pytest.raises(
        Busy, match=r"another process .* has continued this run since .*; this process stops, and what it saved is kept"
    ):
        one.publish_checkpoint("epoch-2", checkpoint(tmp_path, "c2", "two"), best=True)
    other.publish_checkpoint("epoch-2", checkpoint(tmp_path, "c3", "three"), best=False)
    with other.checkpoint("last") as place:
        assert (place / "model.safetensors").read_text() == "three"


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "/abs", "x" * 101, "a b", "a\n"])
def test_names_stay_below_their_root(tmp_path, name):
    with pytest.raises(InputError, match="run name"):
        RunFolder(str(tmp_path), name)


def test_taken_names_are_refused_and_default_names_differ(tmp_path):
    folder = RunFolder(str(tmp_path), "a")
    refuse_existing(folder)
    folder.write_json("run.json", {})
    with pytest.raises(InputError, match="continue it with --resume"):
        refuse_existing(folder)
    assert len({unique_name("improved") for _ in range(50)}) == 50


def test_no_run_and_no_checkpoint_say_so(tmp_path):
    with pytest.raises(InputError, match=r"there is no run here"):
        RunFolder.open(str(tmp_path / "none"))
    folder = RunFolder(str(tmp_path), "a")
    folder.write_json("run.json", {})
    with (
        pytest.raises(InputError, match="no best checkpoint yet"),
        RunFolder.open(str(tmp_path / "a")).checkpoint("best"),
    ):
        pass


def test_a_record_of_an_older_version_is_read(tmp_path):
    """Versions before December 2026 wrote fewer fields; newer ones may write more."""
    folder = RunFolder(str(tmp_path), "old")
    run = load_recipe("jobs/action.py:improved")
    content = {
        "run": run.model_dump(mode="json"),
        "store": "s3://lab/store",
        "versions": {"clips": 3},
        "classes": ["a"],
    }
    folder.write_json("run.json", content | {"later": True})
    record = folder.record()
    assert (record.run, record.store, record.versions, record.classes) == (run, "s3://lab/store", {"clips": 3}, ("a",))
    assert (record.left_out, record.start, record.footage, record.created) == ((), "", {}, 0.0)
    folder.write_record(record)
    assert folder.record() == record
    assert content.items() <= folder.read_json("run.json").items()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"versions": None}, "run.json: .* at versions"),
        ({"run": {"model": {"kind": "c4d"}}}, "run.json: .* at run: .*model.kind: must be one of"),
        ({"classes": [1]}, "run.json: .* at classes"),
    ],
)
def test_a_record_that_is_none_names_its_file_and_field(tmp_path, change, complaint):
    folder = RunFolder(str(tmp_path), "odd")
    run = load_recipe("jobs/action.py:improved").model_dump(mode="json")
    folder.write_json("run.json", {"run": run, "store": "s", "versions": {}, "classes": ["a"]} | change)
    with pytest.raises(InputError, match=complaint):
        folder.record()
