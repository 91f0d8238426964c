import subprocess
import sys

import pytest

from posture.bench import facts, ratio

pytestmark = pytest.mark.long


def test_ratios_are_taken_round_by_round():
    assert ratio([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == {"median": 2.0, "least": 1.0, "most": 3.0}


def test_what_was_measured_is_said():
    assert facts(clips=3, plain_processes=2) == "clips 3, plain processes 2"


@pytest.mark.parametrize("name", ["models", "detectors"])
def test_the_benchmarks_of_networks_run_where_only_torch_and_numpy_are(name: str):
    missing = ("cyclopts", "pydantic", "rich", "ray", "pyarrow", "deltalake")
    code = f"import sys\nfor name in {missing}:\n    sys.modules[name] = None\n"
    code += f"from posture.bench.{name} import main\nmain(['--rounds', '0'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "--batch and --rounds must be at least 1" in done.stderr
    assert f"usage: python -m posture.bench.{name}" in done.stderr
