"""What the README tells people to type exists."""

import re
import shlex
from pathlib import Path

import pytest

from posture.__main__ import app
from posture.data.store.schema import VERDICTS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
LINES = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("posture ")])
def test_commands_are_understood(line):
    app.parse_args(shlex.split(line)[1:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("make ")])
def test_make_targets_exist(line):
    assert re.search(rf"^{line.split()[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_folders_named_are_there_and_those_there_are_named():
    named = set(re.findall(r"^\| `([a-z_]+)/` \|", README, re.MULTILINE))
    there = {
        path.name
        for path in ROOT.iterdir()
        if path.is_dir() and path.name[0] != "." and (any(path.glob("*.py")) or (path / "README.md").exists())
    }
    assert named == there


def test_recipes_named_are_there():
    from posture.runs.recipes import load_recipe, load_study

    for path in set(re.findall(r"jobs/\w+\.py:\w+(?:\.\w+)?", README)):
        (load_study if path.endswith("study") else load_recipe)(path)


def test_every_verdict_is_explained():
    assert all(f"{verdict}" in README for verdict in VERDICTS if verdict != "ok")


def test_the_licence_is_said():
    assert "AGPL-3.0" in README and "GNU AFFERO" in (ROOT / "LICENSE").read_text()[:200]
