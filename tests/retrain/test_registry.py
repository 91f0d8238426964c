"""Versions stand once they are written, and exactly one is the champion; in a folder and in a bucket."""

import json
import re

import pytest

from posture.commands.registry import promote_version, roll_back
from posture.data.store.files import exists, join, read_bytes, write_bytes
from posture.errors import Busy, InputError
from posture.retrain.registry import Registry, differences
from posture.runs import tracking
from posture.runs.tracking import artifact_name
from tests.support.processes import posture_here, s3_server
from tests.support.registries import RECORD, TRACKING
from tests.support.wandb_server import Aliases, wandb_server


def check_registry(uri, folder):
    """What a registry promises, on any storage."""
    with pytest.raises(InputError, match="there is no registry here"):
        Registry(uri)
    registry = Registry(uri, create=True)
    assert (registry.champion(), registry.versions(), registry.passes(), registry.current(), registry.last()) == (
        None,
        [],
        [],
        None,
        None,
    )
    weights = folder / "model.safetensors"
    names = []
    for number in range(3):
        weights.write_bytes(b"weights %d" % number)
        names.append(registry.add(RECORD | {"pass": f"000{number + 1}-20260101-000000"}, weights))
    assert names == ["v0001", "v0002", "v0003"]
    assert registry.add(RECORD | {"pass": "0002-20260101-000000"}, weights) == "v0002"  # as a killed pass would
    with registry.checkpoint("v0002") as place:
        assert (place / "model.safetensors").read_bytes() == b"weights 1"

    with pytest.raises(InputError, match="there is no champion yet"):
        registry.rollback(why="x")
    for name in names:
        registry.promote(name, why="better", by_pass=f"000{name[-1]}-20260101-000000")
        assert registry.champion() == name
    registry.promote("v0001", why="again", by_pass="0001-20260101-000000")  # that pass has had its say
    assert registry.champion() == "v0003" and len(registry.history()) == 3
    with pytest.raises(InputError, match="v0003 is the champion already"):
        registry.promote("v0003", why="x")
    assert [registry.rollback(why="worse"), registry.rollback(why="worse")] == ["v0002", "v0001"]
    with pytest.raises(InputError, match="no champion before v0001"):
        registry.rollback(why="x")
    registry.promote("v0003", why="by hand")
    assert registry.rollback(why="no") == "v0001" == Registry(uri).champion()
    assert [entry["action"] for entry in registry.history()] == ["promote"] * 3 + ["rollback"] * 2 + [
        "promote",
        "rollback",
    ]

    # a writer that was killed before the record
    write_bytes(join(uri, "versions", "v0004", "model.safetensors"), b"half")
    assert [version["version"] for version in registry.versions()] == names
    for bad in ("v0004", "../v0001", "v0001/../v0002", "", "champion", "v1"):
        with pytest.raises(InputError, match="there is no version"):
            registry.promote(bad, why="x")
    assert registry.add(RECORD | {"pass": "0004-20260101-000000"}, weights) == "v0004"
    assert read_bytes(registry.path("versions", "v0004", "model.safetensors")) == b"weights 2"

    registry.mark("v0002", "ab12", segments=3, splits=["train"])
    assert registry.version("v0002")["marks"][0]["video"] == "ab12" and registry.version("v0001")["marks"] == []
    registry.write_json({"outcome": "refused"}, "passes", "0001-20260101-000000", "decision.json")
    registry.write_json({}, "passes", "0002-20260101-000000", "segments.json")  # not concluded
    assert registry.passes() == ["0001-20260101-000000"] and registry.decision("0001-20260101-000000") == {
        "outcome": "refused"
    }
    assert registry.new_pass().startswith("0002-")
    for bad in ("0002-20260101-000000", "../0001-20260101-000000"):
        with pytest.raises(InputError, match="there is no pass"):
            registry.decision(bad)
    registry.write_json({"pass": "x"}, "current.json")
    registry.end_current()
    registry.end_current()
    assert registry.current() is None and not exists(registry.path("current.json"))


def test_in_a_folder(tmp_path):
    check_registry(str(tmp_path / "registry"), tmp_path)


@pytest.mark.slow
def test_in_a_bucket(tmp_path, monkeypatch):
    with s3_server() as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        check_registry("s3://lab/registry", tmp_path)


def filled(uri, folder, versions=2):
    registry = Registry(str(uri), create=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    for number in range(versions):
        lr = {"run": {"name": f"run{number}", "optim": {"lr": 0.1 * (number + 1)}, "weights": "", "tracking": TRACKING}}
        name = registry.add(RECORD | lr | {"pass": f"000{number + 1}-20260101-000000"}, folder / "model.safetensors")
        registry.promote(name, why="better")
    return registry


def test_versions_differ_in_what_they_were_made_of(tmp_path):
    ours, theirs = filled(tmp_path / "registry", tmp_path).versions()
    assert differences(ours, theirs) == [("run.optim.lr", "0.1", "0.2")]
    assert differences(ours, theirs | {"metrics": None, "classes": ["dive"]})[:2] == [
        ("classes", "dive, jump", "dive"),
        ("run.optim.lr", "0.1", "0.2"),
    ]


def test_who_changes_the_champion_holds_the_lease(tmp_path):
    registry = filled(tmp_path / "registry", tmp_path)
    with registry.lease(), pytest.raises(Busy, match="another pass is writing to this registry"):
        registry.lease().__enter__()


def test_the_commands_show_and_switch(tmp_path, capsys):
    from posture.__main__ import app

    uri = filled(tmp_path / "registry", tmp_path).uri

    def said(*arguments):
        app(["registry", *arguments], result_action="return_value", exit_on_error=False, print_error=False)
        return capsys.readouterr().out

    assert "v0001" in (listed := said("list", uri)) and "* " in listed and "50.0" in listed
    assert "v0002 (champion)" in said("show", uri) and "jobs/action.py:c3d" in said("show", uri, "v0001")
    assert "optim.lr" in said("diff", uri, "v0001", "v0002")
    assert said("rollback", uri, "--why", "it is slow").splitlines()[
        0
    ] == "v0001 is the champion again" and "it is slow" in said("list", uri)
    assert said("promote", uri, "v0002").splitlines()[0] == "v0002 is the champion"
    assert json.loads((tmp_path / "registry" / "champion.json").read_text())["version"] == "v0002"


def test_the_alias_champion_on_wandb_goes_where_the_pointer_goes(tmp_path, capsys, monkeypatch):
    registry = filled(tmp_path / "registry", tmp_path, versions=3)
    aliases = Aliases(
        artifact_name(registry.uri),
        {"registry-v0001"},
        {"registry-v0002", "challenger"},
        {"registry-v0003", "champion", "latest"},
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with wandb_server(aliases) as url:
        roll_back(registry.uri, why="offline")
        assert "champion" in aliases.versions[2] and not aliases.asked, "without a key nobody is asked"
        monkeypatch.setenv("WANDB_BASE_URL", url)
        monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
        promote_version(registry.uri, "v0001", why="x")
        assert aliases.versions == [
            {"v0", "registry-v0001", "champion"},
            {"v1", "registry-v0002", "challenger"},
            {"v2", "registry-v0003", "latest"},
        ]
        roll_back(registry.uri, why="y")
        assert [number for number, held in enumerate(aliases.versions) if "champion" in held] == [1]
    capsys.readouterr()
    monkeypatch.setattr(tracking, "INIT_SECONDS", 1)
    roll_back(registry.uri, why="W&B is away")
    assert (
        registry.champion() == "v0001"
        and "Weights & Biases did not make v0001 the champion: " in capsys.readouterr().out
    )


def test_two_registries_of_a_project_are_two_artifacts():
    names = {artifact_name(uri) for uri in ("/lab/registry", "/other/registry", "s3://lab/my registry")}
    assert len(names) == 3 and all(re.fullmatch(r"posture-[A-Za-z0-9_.-]+", name) for name in names)


def test_bad_requests_are_one_sentence_each(tmp_path):
    uri = filled(tmp_path / "registry", tmp_path, versions=1).uri
    empty = str(tmp_path / "empty")
    Registry(empty, create=True).write_json({"time": 1.0, "status": "waiting", "sentence": "", "files": 0}, "last.json")
    for arguments, complaint in (
        (("list", str(tmp_path / "none")), "there is no registry here"),
        (("rollback", uri), "no champion before v0001"),
        (("show", uri, "../../x"), "there is no version '../../x'; there is v0001"),
        (("show", empty), "there is no champion yet; posture registry list"),
        (("show", empty, "v0001"), "there is no version yet"),
    ):
        done = posture_here("registry", *arguments)
        assert (
            done.returncode == 2
            and complaint in done.stderr
            and "Traceback" not in done.stderr
            and done.stderr.count("\n") == 1
        ), done.stderr
