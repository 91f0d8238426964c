"""Run each benchmark that the guide names once: those of networks on small inputs, the others on little footage."""

import json
import shlex
import subprocess
import sys

import pytest

from posture.data.synthetic.footage import generate
from tests.support.guides import ROOT, typed

NAMES = [shlex.split(line)[2] for line in typed(ROOT / "posture" / "bench" / "README.md") if line.startswith("posture")]
SMALL = {
    "models": "--batch 1 --size 32 --networks improved c3d",
    "detectors": "--batch 1 --size 64 --networks improved yolov5s",
}


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("footage") / "athletes", videos=24, athletes=8)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_and_writes_its_ratios(name, footage, tmp_path):
    if name in SMALL:
        module, options = f"posture.bench.{name}", ["--device", "cpu", *SMALL[name].split()]
    else:
        module, options = "posture", ["bench", name, "--footage", str(footage)]
    options += ["--rounds", "1", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run([sys.executable, "-m", module, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["ratios"] and " / " in done.stdout
