"""Who may import whom: the rules that keep the parts apart."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.house import FLOORS, circles, files_of, imported, rooms_of

PACKAGE = Path(__file__).parents[1] / "posture"
FILES = sorted(PACKAGE.rglob("*.py"))


def importers(package, **options):
    return {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.split(".")[0] == package for name in imported(path, **options))
    }


def test_only_the_distributed_part_and_the_benchmarks_import_ray():
    assert all(path.split("/")[0] in ("distributed", "bench") for path in importers("ray"))


def test_wandb_has_one_door():
    assert importers("wandb") == {"runs/tracking.py"}


def test_decoders_have_one_door():
    assert all(path == "data/decode/video.py" or path.startswith("data/decode/") for path in importers("av"))
    assert all(path.startswith("bench/") for path in importers("decord"))


def test_every_room_has_a_floor_and_imports_from_lower_floors_only():
    rooms, floor = rooms_of(PACKAGE), {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert set(rooms) - {"__init__"} == set(floor)
    upwards = {
        f"{room} -> {other}"
        for room, others in rooms.items()
        if room != "__init__"
        for other in others - {"__init__"}
        if floor[other] >= floor[room]
    }
    assert not upwards


def test_no_rooms_and_no_files_import_each_other_in_a_circle():
    assert not circles(rooms_of(PACKAGE))
    assert not circles(files_of(PACKAGE))


def test_the_top_of_the_package_stays_small():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert len(folders) <= 13 and len(list(PACKAGE.glob("*.py"))) <= 4


def test_no_two_classes_have_one_name():
    """Except a network and its configuration, which share the network's name on purpose."""
    names = Counter(
        node.name
        for path in FILES
        if path.name not in ("configs.py", "detector_configs.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


def test_no_test_module_imports_another():
    """What test modules share lies in tests/support."""
    importing = re.compile(
        r"^ *(from|import) tests\.([a-z_0-9]+\.)*test_|^ *from tests\S* import .*\btest_", re.MULTILINE
    )
    assert not [str(path) for path in Path(__file__).parent.rglob("*.py") if importing.search(path.read_text())]


@pytest.mark.parametrize("layer", ["models", "tasks", "train"])
def test_networks_and_loop_need_torch_and_numpy_alone(layer):
    allowed = {"torch", "numpy", "posture", *sys.stdlib_module_names}
    for path in sorted((PACKAGE / layer).rglob("*.py")):
        outside = {name.split(".")[0] for name in imported(path, at_top=True)} - allowed
        assert not outside, f"{path.relative_to(PACKAGE)} imports {sorted(outside)} when it is loaded"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["train", "--help"],
        ["train", "jobs/action.py:improved", "--store", "x", "--set", "optim.rl=1"],
        ["train", "jobs/action.py:nothing", "--store", "x"],
        ["ingest", "--store"],
        ["ingest", "x", "--store", "y", "--size", "9"],
    ],
)
def test_help_and_configuration_errors_load_neither_torch_nor_ray(arguments):
    code = (
        "import sys\nfrom posture.__main__ import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    status = end.code\nelse:\n    status = 0\n"
        "heavy = [name for name in ('torch', 'ray', 'wandb', 'decord', 'matplotlib') if name in sys.modules]\n"
        "print(heavy, status, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    status = 0 if "--help" in arguments else 2
    assert done.stderr.splitlines()[-1] == f"[] {status}", done.stderr
