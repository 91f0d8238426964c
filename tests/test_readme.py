"""Check the README and the guides that it links: their commands, links, folders, images and Python run or exist."""

import re
import shlex
from itertools import pairwise

import pytest
from safetensors.torch import save_file

from posture.__main__ import app
from posture.config import override, parse_assignments
from posture.data.store.schema import VERDICTS, DecodeRecipe
from posture.models import build
from posture.runs.folder import RunFolder, RunRecord
from posture.runs.recipes import load_recipe, load_study
from tests.support.footage import make_video
from tests.support.guides import GUIDES, ROOT, posture_commands, shown, typed

README = (ROOT / "README.md").read_text()
COMMANDS = sorted({command for path in GUIDES for command in posture_commands("\n".join(typed(path)))})


def test_the_readme_is_a_door():
    assert len(README.splitlines()) <= 150
    assert {path.parent.name for path in GUIDES} > {"data", "runs", "compare", "retrain", "jobs", "tune_spaces"}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line):
    app.parse_args(shlex.split(line), exit_on_error=False, print_error=False)


@pytest.mark.parametrize("line", [line for line in COMMANDS if "--set " in line])
def test_changes_are_those_that_recipes_take(line):
    words = shlex.split(line)
    changes = parse_assignments([value for option, value in pairwise(words) if option == "--set"])
    recipe = next(word for word in words if re.fullmatch(r"jobs/\w+\.py:[\w.]+", word))
    assert override(load_recipe(recipe), changes)


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_a_guide_opens_with_an_example(path):
    before = path.read_text().partition("```")[0]
    assert path.parent == ROOT or before.count("\n") <= 3, "a heading and the example"


def test_every_subcommand_is_told():
    names = {name for name in app if not name.startswith("-")}
    assert names == {line.split()[0] for line in COMMANDS} | {"demo"}


def test_make_targets_exist():
    targets = {line.split()[1] for path in GUIDES for line in typed(path) if line.startswith("make ")}
    assert targets and all(
        re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE) for target in targets
    )


@pytest.mark.parametrize("path", GUIDES, ids=lambda path: str(path.parent.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        file, _, heading = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.is_file(), f"{path}: {link}"
        assert not heading or heading in headings(target), f"{path}: {link}"


def headings(path):
    """Return the anchors that GitHub gives a guide's headings."""
    lines = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in lines}


def test_all_guides_are_linked_from_the_readme():
    linked = {(ROOT / link).resolve() for link in re.findall(r"\]\(([^)#]+README\.md)\)", README)}
    assert linked == set(GUIDES) - {ROOT / "README.md"}


def test_folders_named_are_there_and_those_there_are_named():
    named = set(re.findall(r"^\| `([a-z_/]+)/` \|", README, re.MULTILINE))
    there = {
        str(path.relative_to(ROOT))
        for parent in (ROOT, ROOT / "posture")
        for path in parent.iterdir()
        if path.is_dir() and path.name[0] != "." and (any(path.rglob("*.py")) or (path / "README.md").exists())
    }
    assert named == there - {"posture"}


def test_the_picture_is_small():
    (picture,) = re.findall(r"!\[[^]]+\]\((.+)\)", README)
    content = (ROOT / picture).read_bytes()
    assert content.startswith(b"\x89PNG") and len(content) < 200_000


def test_python_shown_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    (code,) = shown(ROOT / "README.md", "python")
    run = override(
        load_recipe("jobs/demo.py:demo"), {"name": "first", "model.classes": 8, "data.recipe": str(DecodeRecipe())}
    )
    folder = RunFolder(str(tmp_path / "runs"), "first")
    folder.write_record(RunRecord(run=run, store="store", versions={}, classes=tuple("abcdefgh")))
    (tmp_path / "made").mkdir()
    save_file(build(run.model).state_dict(), tmp_path / "made" / "model.safetensors")
    folder.publish_checkpoint("epoch-0001", tmp_path / "made", best=True)
    make_video(tmp_path / "clip.mp4", frames=100)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["part"].end == pytest.approx(4.0) and "4.00 s: " in capsys.readouterr().out
    assert names["longer"].epochs == 80 and f"-> {tuple(names['scores'].shape)}" in code


def test_recipes_shown_load():
    for code in shown(ROOT / "jobs" / "README.md", "python"):
        names = {}
        exec(code, names)
        assert names["mine"]().name == "mine"


def test_recipes_named_are_there():
    text = "".join(path.read_text() for path in GUIDES)
    for path in set(re.findall(r"jobs/\w+\.py:\w+(?:\.\w+)?", text)):
        (load_study if path.endswith("study") else load_recipe)(path)


@pytest.mark.parametrize("folder", ["jobs", "tune_spaces"])
def test_every_recipe_and_space_is_told(folder):
    guide = (ROOT / folder / "README.md").read_text()
    for file in (ROOT / folder).glob("*.py"):
        made = set(re.findall(r"^def ([a-z]\w*)\(", file.read_text(), re.MULTILINE)) - {"space"}
        assert f"`{file.name}" in guide and {name for name in made if f"{name}`" not in guide} == set()


def test_files_that_the_guide_to_the_code_names_are_there():
    guide = ROOT / "posture" / "README.md"
    named = set(re.findall(r"`([a-z_/]+\.(?:py|md))`", guide.read_text()))
    assert (
        named and {name for name in named if not any((base / name).is_file() for base in (ROOT, guide.parent))} == set()
    )


def test_the_floors_are_those_that_are_checked():
    from tests.support.house import FLOORS

    rows = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "posture" / "README.md").read_text(), re.MULTILINE)
    assert [(int(number), set(re.findall(r"`([\w/]+)`", rooms))) for number, rooms in reversed(rows)] == [
        (number, set(rooms)) for number, rooms in enumerate(FLOORS, start=1)
    ]


def test_every_verdict_is_told():
    guide = (ROOT / "posture" / "data" / "README.md").read_text()
    assert [verdict for verdict in VERDICTS if verdict != "ok" and f"`{verdict}`" not in guide] == []


def test_the_licence_is_said():
    assert "AGPL-3.0" in README and "GNU AFFERO" in (ROOT / "LICENSE").read_text()[:200]
