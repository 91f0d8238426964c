"""Every command that the READMEs, manifests and schedules tell people or machines to run is one that exists, with
options that it has.
"""

import re
import shlex
import subprocess
from functools import cache
from itertools import pairwise

import pytest

from posture.__main__ import app
from tests.infra.manifests import MANIFESTS, ROOT, TEXTS
from tests.support.guides import posture_commands, typed

READMES = [ROOT / folder / "README.md" for folder in ("cluster", "infra")]
TYPED = [line for path in READMES for line in typed(path)]
POSTURE = sorted({
    command
    for path in TEXTS
    for command in posture_commands(
        "\n".join(typed(path)) if path.suffix == ".md" else path.read_text().replace("\\\n", " ")
    )
})
RAY = [line for line in TYPED if re.match(r"ray (job )?\w", line)]


def test_there_is_a_command_for_each_part_of_the_work():
    assert {line.split()[0] for line in POSTURE} >= {"ingest", "train", "evaluate", "compare", "tune", "retrain"}


@pytest.mark.parametrize("line", POSTURE)
def test_posture_understands(line):
    app.parse_args(shlex.split(line), exit_on_error=False, print_error=False)


@cache
def ray_commands():
    from ray.scripts.scripts import cli

    return cli


@pytest.mark.parametrize("line", RAY)
def test_ray_understands(line):
    """Parsed by Ray's own command line; nothing is run."""
    command, words = ray_commands(), shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        command = command.get_command(None, words.pop(0))
    context = command.make_context("ray", words)
    if "entrypoint" in context.params:
        assert (
            context.params["submission_id"]
            and (context.params["entrypoint_resources"] == '{"driver": 1}' or context.params["entrypoint_num_cpus"])
            and context.params["working_dir"] == "."
        )


def test_ids_of_jobs_are_each_given_once():
    ids = re.findall(r"--submission-id (\S+)", " ".join(RAY))
    assert len(ids) == len(set(ids)) >= 6


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_what_is_typed_is_shell(path):
    subprocess.run(["bash", "-n"], input="\n".join(typed(path)), text=True, check=True, timeout=20)


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_files_named_are_there(path):
    named = set(re.findall(r"(?<![\w/])((?:cluster|infra)/[\w./-]*\w)", path.read_text()))
    assert named and {name for name in named if not (ROOT / name).exists()} == set()
    bare = set(re.findall(r"`([\w-]+\.(?:yaml|yml|json|py|txt))`", path.read_text())) - {"job.yaml", "history.json"}
    assert bare <= {file.name for file in TEXTS}


@pytest.mark.parametrize("line", [line for line in POSTURE if "--set" in line])
def test_changes_are_those_that_recipes_take(line):
    from posture.config import override, parse_assignments
    from posture.runs.recipes import load_recipe

    words = shlex.split(line)
    changes = parse_assignments([value for option, value in pairwise(words) if option == "--set"])
    recipe = next(word for word in words if re.fullmatch(r"jobs/\w+\.py:\w+", word))
    assert override(load_recipe(recipe), changes)


def test_recipes_named_are_there():
    from posture.runs.recipes import load_recipe, load_study

    named = {
        path
        for text in [
            *TYPED,
            *(document["spec"].get("entrypoint", "") for _, document in MANIFESTS if document["kind"] == "RayJob"),
        ]
        for path in re.findall(r"jobs/\w+\.py:\w+", text)
    }
    assert named
    for path in named:
        (load_study if path.endswith("study") else load_recipe)(path)


def test_every_file_is_told_of():
    told = "".join(path.read_text() for path in READMES)
    kept = [path for path in TEXTS if path.name != "README.md" and "__pycache__" not in path.parts]
    assert [
        str(path.relative_to(ROOT)) for path in kept if path.name not in told and f"{path.parent.name}/" not in told
    ] == []
