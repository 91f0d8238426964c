"""Absurd numbers on the command line and in a run from elsewhere: one sentence, exit code 2, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posture.__main__ import main
from posture.config import ActionRun
from posture.models.configs import C3D


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("model.width=1e9", "model: width must be a finite number of at most 16, not 1000000000.0"),
        ("model.depths=[1,2,999999999,2,2]", "model: depths must be a finite number of at most 64, not 999999999"),
        ("model.size=100000", "model: size must be a finite number of at most 4,096, not 100000"),
        ("model.classes=2000000000", "model: classes must be a finite number of at most 25,000"),
        ("epochs=1e12", "epochs: must be a number of epochs from 1 to 1,000,000, or auto, not 1"),
        (f"epochs={'9' * 5000}", "epochs: "),
        ("model.frames=" + "[" * 100_000, "model.frames: "),
        ("scale.workers=[1,100000]", "scale.workers: must be a number of workers from 1"),
        ("scale.global_batch=1e15", "scale.global_batch: "),
        ("optim.lr=NaN", "optim.lr: input should be a finite number"),
    ],
)
def test_on_the_command_line(assignment: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = refused(
        [
            "train",
            "jobs/action.py:improved",
            "--store",
            str(tmp_path / "store"),
            "--runs",
            str(tmp_path / "runs"),
            "--set",
            assignment,
        ],
        capsys,
    )
    assert said.startswith(f"posture: {complaint}") and len(said) < 1000 and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_network_too_large_for_this_machine_is_refused_before_anything_is_written(
    small_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    said = refused(
        [
            "train",
            "jobs/action.py:c3d",
            "--store",
            small_store,
            "--runs",
            str(tmp_path),
            "--set",
            "model.width=16",
            "--set",
            "scale.global_batch=4",
            "--set",
            "model.size=64",
            "--local",
        ],
        capsys,
    )
    assert (
        "parameters; training takes at least" in said
        and "choose smaller model.width" in said
        and not list(tmp_path.iterdir())
    )


@pytest.mark.parametrize(
    "change",
    [
        {"width": 1e9},
        {"width": 16, "hidden": 65_536, "frames": 1024},
        {"depths": [1, 1, 10**12, 1, 1]},
        {"kind": []},
        None,
    ],
)
def test_in_a_run_from_elsewhere(
    change: dict | None, small_store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    tree = ActionRun(name="one", model=C3D(classes=2)).model_dump(mode="json")
    tree["model"] = None if change is None else tree["model"] | change
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "run.json").write_text(
        json.dumps({"run": tree, "classes": ["left", "right"], "store": small_store, "versions": {}, "recipe": "x"})
    )
    before = sorted(tmp_path.rglob("*"))
    for command in (
        ["evaluate", str(folder)],
        [
            "train",
            "jobs/action.py:c3d",
            "--store",
            small_store,
            "--runs",
            str(tmp_path),
            "--name",
            "one",
            "--resume",
            "--local",
        ],
    ):
        assert refused(command, capsys).count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
