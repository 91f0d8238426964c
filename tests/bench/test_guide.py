"""Run each benchmark that the guide names once."""

import json
import shlex
import subprocess
import sys

import pytest

from posture.data.synthetic.footage import generate
from tests.support.guides import ROOT, typed

NAMES = [shlex.split(line)[2] for line in typed(ROOT / "posture" / "bench" / "README.md")]


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("footage") / "athletes", videos=24, athletes=8)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_prints_and_writes_its_ratios(name, footage, tmp_path):
    options = ["--rounds", "1", "--json", str(tmp_path / "figures.json")]
    if name not in ("models", "detectors"):
        options += ["--footage", str(footage)]
    done = subprocess.run([sys.executable, "-m", "posture", "bench", name, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["ratios"] and ("ratio" in done.stdout or "time of" in done.stdout)
