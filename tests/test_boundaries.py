"""Who may import whom: the rules that keep the parts apart."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "posture"
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path, *, at_top=False):
    """Modules that a file names in its imports, those inside functions too unless `at_top`."""
    tree = ast.parse(path.read_text())
    names = set()
    for node in tree.body if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def importers(package, **options):
    return {
        str(path.relative_to(PACKAGE))
        for path in FILES
        if any(name.split(".")[0] == package for name in imports(path, **options))
    }


def test_only_the_distributed_part_and_the_benchmarks_import_ray():
    assert all(path.split("/")[0] in ("distributed", "bench") for path in importers("ray"))


def test_wandb_has_one_door():
    assert importers("wandb") == {"tracking.py"}


def test_decoders_have_one_door():
    assert all(path == "data/decode/video.py" or path.startswith("data/decode/") for path in importers("av"))
    assert all(path.startswith("bench/") for path in importers("decord"))


LAYERS = ["data", "models", "tasks", "train", "distributed", "commands", "cli"]
"""From the ground up; a part may import those below it. The modules beside the folders stand between train and
commands.
"""
ABOVE_TRAIN = {
    "config",
    "launch",
    "weights",
    "evaluation",
    "runs",
    "tracking",
    "recipes",
    "report",
    "pages",
    "registry",
    "decision",
    "holdout",
    "settling",
    "intake",
    "arrivals",
    "challenger",
    "retrain",
    "notify",
    "forget",
    "show",
    "explain",
    "explain_page",
    "overlays",
    "console",
    "stats",
    "comparison",
    "comparison_page",
    "study",
    "verdicts",
    "detections",
    "detector_evaluation",
    "detector_report",
    "detector_comparison",
    "spaces",
    "search",
    "trials",
    "search_page",
    "sweep",
    "athletes",
    "unlabelled",
    "review",
    "review_server",
    "schedule",
    "heartbeats",
    "drift",
    "decision_page",
}
FORBIDDEN = {
    "data": {"models", "tasks", "train", "distributed", "commands", "cli", "bench"} | ABOVE_TRAIN,
    "models": {"data", "tasks", "train", "distributed", "commands", "cli", "bench"} | ABOVE_TRAIN,
    "tasks": {"train", "distributed", "commands", "cli", "bench"} | ABOVE_TRAIN,
    "train": {"distributed", "commands", "cli", "bench"} | ABOVE_TRAIN,
    "distributed": {"commands", "cli", "bench", "console"},
}


@pytest.mark.parametrize("layer", FORBIDDEN)
def test_arrows_point_one_way(layer):
    for path in sorted((PACKAGE / layer).rglob("*.py")):
        named = {name.split(".")[1] for name in imports(path) if name.startswith("posture.")}
        assert not named & FORBIDDEN[layer], f"{path.relative_to(PACKAGE)} imports {sorted(named & FORBIDDEN[layer])}"


@pytest.mark.parametrize("layer", ["models", "tasks", "train"])
def test_networks_and_loop_need_torch_and_numpy_alone(layer):
    allowed = {"torch", "numpy", "posture", *sys.stdlib_module_names}
    for path in sorted((PACKAGE / layer).rglob("*.py")):
        outside = {name.split(".")[0] for name in imports(path, at_top=True)} - allowed
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
        "import sys\nfrom posture.__main__ import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    status = end.code\nelse:\n    status = 0\n"
        "print([name for name in ('torch', 'ray', 'wandb', 'decord', 'matplotlib') if name in sys.modules], status, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60)
    status = 0 if "--help" in arguments else 2
    assert done.stderr.splitlines()[-1] == f"[] {status}", done.stderr
