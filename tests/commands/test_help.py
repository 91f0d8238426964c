"""The command line as `--help` shows it: groups, an example for each command, and no option without a meaning."""

from __future__ import annotations

import io
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App, CycloptsError
from rich.console import Console

import posture.commands
from posture.__main__ import COMMANDS, app, describe

NAMES = [name for commands in COMMANDS.values() for name in commands]
VERSIONS = ["list", "show", "promote", "rollback", "diff"]
PAGES = [(name,) for name in NAMES] + [("registry", name) for name in VERSIONS]


def command_of(names: tuple[str, ...]) -> App:
    describe([*names])
    return app.parse_commands([*names])[1][-1]


def page(*names: str, width: int = 100) -> str:
    describe([*names])
    written = io.StringIO()
    app.help_print([*names], console=Console(file=written, width=width))
    return written.getvalue()


def test_the_list_is_in_groups_and_imports_no_command():
    code = (
        "import sys\nfrom posture.__main__ import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'ray', 'pandas', 'pyarrow', 'pydantic'}\n"
        "print([name for name in sys.modules if name in heavy or name.startswith('posture.commands')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == "[]\n"
    places = [done.stdout.index(f"─ {title} ─") for title in COMMANDS]
    assert places == sorted(places)
    assert [name for name in NAMES if f"│ {name} " not in done.stdout] == []


def test_each_command_is_a_file_of_its_name():
    files = {path.stem for path in Path(posture.commands.__file__).parent.glob("*.py")}
    assert files - {"__init__", "options"} == set(NAMES)
    assert set(VERSIONS) == {name for name in command_of(("registry",)).resolved_commands() if name[0] != "-"}


@pytest.mark.parametrize("names", PAGES)
def test_the_help_ends_with_an_example_that_is_understood(names: tuple[str, ...]):
    last = page(*names, width=500).strip().splitlines()[-1].strip()
    assert last.startswith(f"Example: posture {' '.join(names)} ")
    app.parse_args(shlex.split(last)[2:], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("names", PAGES)
def test_options_are_explained_and_only_defaults_that_say_something_are_shown(names: tuple[str, ...]):
    text = page(*names)
    assert "[default: ()]" not in text and "[default: False]" not in text
    if command_of(names).default_command:
        arguments = command_of(names).assemble_argument_collection(parse_docstring=True)
        assert [argument.name for argument in arguments.filter_by(show=True) if not argument.parameter.help] == []


def test_only_the_flag_that_is_on_by_default_has_a_negative():
    assert {negative for names in PAGES for negative in re.findall(r"--(?:no|empty)-[\w-]+", page(*names))} == {
        "--no-halving",
        "--no-video",  # an option of that name
    }
    for negative in ("--no-yes", "--no-report"):
        with pytest.raises(CycloptsError, match="Unknown option"):
            app.parse_args(["ingest", "x", "--store", "y", negative], exit_on_error=False, print_error=False)


def test_paragraphs_flow_to_the_width_of_the_terminal():
    narrow, wide = page("ingest", width=60), page("ingest", width=400)
    text = "Folder or s3:// prefix of the footage, or its file of labels (a segments CSV, data.yaml, COCO JSON ...)."
    assert text in wide and text not in narrow
    assert max(map(len, narrow.splitlines())) <= 60


def test_a_page_says_more_than_the_list():
    assert "The exit code is 0 whatever the decision" in page("retrain")
