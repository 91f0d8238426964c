"""The benchmark of networks, on tiny ones: every row whole, ratios by round, memory that follows the network."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posture.bench import models
from posture.models.configs import C3D, IMPROVED, TwoStream
from posture.runs.recipes import load_recipe

pytestmark = pytest.mark.long

TINY = {"classes": 3, "size": 36, "width": 0.125}
SETTINGS = models.ModelSettings(device="cpu", batch=2, rounds=2, warm_ups=1)


CONFIGS = {"c3d": C3D(**TINY), "improved": C3D(**(IMPROVED | TINY)), "two_stream": TwoStream(**TINY)}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return models.measure(SETTINGS, CONFIGS)


def test_every_network_has_a_row_for_each_precision(result: dict[str, Any]):
    assert [(row["name"], row["mode"], row["precision"]) for row in result["rows"]] == [
        (name, "eager", precision) for name in CONFIGS for precision in ("fp32", "bf16")
    ]
    for row in result["rows"]:
        trains = row["precision"] == "fp32"  # bf16 does not train on the CPU
        assert [len(row[kind]) for kind in ("latency_ms", "forward_clips_per_second", "train_clips_per_second")] == [
            2,
            2,
            2 * trains,
        ]
        assert (
            row["clip"] == "16 x 36 x 36" and row["parameters"] > 0 and row["gmacs"] > 0 and min(row["latency_ms"]) > 0
        )
        assert (row["peak_mib"] is not None) == (trains and sys.platform == "linux")
    assert json.loads(json.dumps(result["rows"])) == result["rows"]
    text = "\n".join(models.lines(result))
    assert text.count("two_stream") == 2 and "improved / c3d, train, eager fp32:" in text and "left out" not in text


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_peak_memory_holds_weights_gradients_and_momentum(result: dict[str, Any]):
    """Three numbers of four bytes for each parameter, besides activations and what torch computes in."""
    config = C3D(classes=3, size=16, width=0.5)
    wide, parameters = models.peak_on_cpu("c3d", config, SETTINGS), models.parameters(models.build(config))
    assert result["rows"][0]["peak_mib"] < 40  # of the narrow one
    assert 12 * parameters / 2**20 < wide < 2 * 12 * parameters / 2**20


def test_ratios_are_taken_round_by_round_within_a_mode_and_precision():
    def row(name: str, precision: str, forward: list[float], train: list[float]) -> dict:
        return {
            "name": name,
            "mode": "eager",
            "precision": precision,
            "forward_clips_per_second": forward,
            "train_clips_per_second": train,
        }

    found = models.ratios([
        row("improved", "fp32", [4.0, 9.0, 2.0], [2.0, 2.0, 2.0]),
        row("c3d", "fp32", [1.0, 3.0, 1.0], [1.0, 4.0, 1.0]),
        row("improved", "bf16", [8.0, 8.0, 8.0], []),
        row("r3d_18", "bf16", [4.0, 4.0, 4.0], []),
    ])
    assert [
        (ratio["over"], ratio["precision"], ratio["work"], ratio["median"], ratio["least"], ratio["most"])
        for ratio in found
    ] == [
        ("c3d", "fp32", "forward", 3.0, 2.0, 4.0),
        ("c3d", "fp32", "train", 2.0, 0.5, 2.0),
        ("r3d_18", "bf16", "forward", 2.0, 2.0, 2.0),
    ]


def test_without_torchvision_its_rows_are_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    everything, none = models.networks(56)
    assert list(everything) == ["c3d", "improved", "two_stream", "r3d_18", "mc3_18", "r2plus1d_18"] and none == []
    recipe = load_recipe("jobs/action.py:improved").model
    assert everything["improved"] == replace(recipe, classes=models.CLASSES, frames=models.FRAMES, size=56)
    assert {config.size for config in everything.values()} == {56}
    monkeypatch.setitem(sys.modules, "torchvision.models.video", None)
    ours, left_out = models.networks(56)
    assert list(ours) == ["c3d", "improved", "two_stream"] and "r2plus1d_18: torchvision does not import" in left_out[0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--networks", "c3d", "resnet"], "--networks resnet: choose from c3d, improved"),
        (["--rounds", "0"], "--batch and --rounds must be at least 1"),
        (["--size", "8"], "--size at least 16"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        models.main(["--device", "cpu", *arguments])
    assert ended.value.code == 2 and complaint in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="Triton compiles for a GPU without a C++ compiler")
def test_a_machine_without_a_compiler_is_told_what_was_left_out(tmp_path: Path):
    code = (
        "from posture.bench.models import *\n"
        "settings = ModelSettings(device='cpu', batch=1, rounds=1, modes=('compiled',))\n"
        "print(measure(settings, {'c3d': C3D(classes=3, size=16, width=0.125, head='gap')})['left_out'])"
    )
    bare = os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, timeout=120)
    assert "c3d compiled: torch cannot compile it here" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU"
)
def test_compiled_networks_stand_beside_eager_ones():
    settings = models.ModelSettings(device="cpu", batch=2, rounds=1, warm_ups=1, modes=("eager", "compiled"))
    result = models.measure(settings, {"c3d": C3D(**TINY)})
    assert [(row["mode"], row["precision"]) for row in result["rows"]] == [
        ("eager", "fp32"),
        ("eager", "bf16"),
        ("compiled", "fp32"),
        ("compiled", "bf16"),
    ] and result["left_out"] == []
