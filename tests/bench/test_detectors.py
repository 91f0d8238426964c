"""The benchmark of detectors, on tiny ones: every row whole, equal work for suppression, ratios by round, what is
missing said.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from posture.bench import detectors
from posture.models import build, torchvision_detectors
from posture.models.detector_configs import IMPROVED_YOLOV5, SSD300, FasterRCNN, YOLOv5, YOLOv7
from posture.models.fuse import fuse

pytestmark = pytest.mark.long

TINY: dict[str, Any] = {
    "improved": YOLOv5(classes=3, size=64, width=0.125, **IMPROVED_YOLOV5),
    "yolov5s": YOLOv5(classes=3, size=64, width=0.125),
    "yolov7": YOLOv7(classes=3, size=64, width=0.0625),
    "ssd300": SSD300(classes=3, size=160, width=0.0625),
    "faster_rcnn": FasterRCNN(classes=3, size=64, width=0.0625),
    "yolov5su": ("yolov5n.yaml", 64),
}
SETTINGS = detectors.DetectorSettings(device="cpu", batches=(1, 2), rounds=2, images=3, warm_ups=1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_every_network_has_a_row_for_each_batch():
    result = detectors.measure(SETTINGS, TINY)
    assert [(row["name"], row["batch"]) for row in result["rows"]] == [
        (name, batch) for name in TINY for batch in (1, 2)
    ]
    assert result["left_out"] == []
    for row in result["rows"]:
        undecoded = row["name"] not in ("ssd300", "faster_rcnn")
        passes = {1: 3, 2: 1}[row["batch"]]
        assert [len(times) for times in row["forward_ms"]] == [passes, passes] * undecoded and [
            len(times) for times in row["whole_ms"]
        ] == [passes, passes]
        assert (
            row["whole_images_per_second"] == pytest.approx(1e3 * row["batch"] / np.median(row["whole_ms"]))
            and min(map(min, row["whole_ms"])) > 0
        )
        assert row["parameters"] >= row["parameters_as_timed"] > 1000 and row["gflops"] > 0 and row["peak_mib"] is None
    assert json.loads(json.dumps(result["rows"])) == result["rows"]
    text = "\n".join(detectors.lines(result))
    assert (
        text.count("faster_rcnn ") == 3
        and "time of improved / yolov5su, batch 2, eager fp32, whole:" in text
        and "left out" not in text
    )
    assert "268.8  (90 classes, at 800 pixels)" in text


@pytest.mark.parametrize("name", TINY)
def test_as_many_boxes_go_into_every_networks_suppression(name: str):
    """As many as an image has above the threshold that was found when nothing is suppressed and all are kept; no more
    come out.
    """
    detector = detectors._detector(TINY[name])
    with torch.inference_mode():
        entry = detectors.DetectorBench(name, detector, 0.0, 1, SETTINGS)
        (before,), (after,) = (
            detector.find(entry.look(entry.images), confidence=entry.confidence, overlap=1.0, most=2000),
            entry.whole(entry.images),
        )
    assert 300 <= len(before) <= 305 and 0 < len(after) <= 300  # a few have the same score
    assert (before.diff() <= 0).all() and before.min() >= entry.confidence and after.max() == before.max()
    assert detectors.CANDIDATES == 300 and len(before.unique()) > 200


def test_ultralytics_forward_ends_before_its_boxes_are_decoded():
    detector, image = detectors._detector(TINY["yolov5su"]), torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        raw, decoded = detector.forward(image), detector.network(image)[0]
    assert (
        raw["boxes"].shape[-1] == decoded.shape[-1] == 84
        and raw["boxes"].shape[1] == 4 * 16
        and decoded.shape[1] == 4 + 80
    )
    assert not any(module.training for module in detector.network.modules())
    torch.testing.assert_close(raw["scores"].sigmoid(), decoded[:, 4:])


def test_ratios_are_those_of_each_rounds_medians():
    def row(name: str, batch: int, forward: list[list[float]], whole: list[list[float]]) -> dict:
        return {
            "name": name,
            "batch": batch,
            "mode": "eager",
            "precision": "fp32",
            "forward_ms": forward,
            "whole_ms": whole,
        }

    found = detectors.ratios([
        row("improved", 1, [[2.0, 3.0, 90.0], [4.0, 4.0, 4.0]], [[5.0], [5.0]]),
        row("improved", 16, [[8.0]], [[9.0]]),
        row("yolov5s", 1, [[2.0, 2.0, 1.0], [1.0, 1.0, 7.0]], [[5.0], [10.0]]),
        row("yolov5su", 16, [[16.0]], [[36.0]]),
    ])
    assert [
        (ratio["to"], ratio["batch"], ratio["work"], ratio["median"], ratio["least"], ratio["most"]) for ratio in found
    ] == [
        ("yolov5s", 1, "forward", 2.75, 1.5, 4.0),
        ("yolov5s", 1, "whole", 0.75, 0.5, 1.0),
        ("yolov5su", 16, "forward", 0.5, 0.5, 0.5),
        ("yolov5su", 16, "whole", 0.25, 0.25, 0.25),
    ]


def test_what_is_published_is_what_our_networks_have():
    """To the digits that are stated; multiply-accumulates to the hundredth, since norms and activations are counted by
    some.
    """

    def millions(network: nn.Module) -> float:
        return sum(parameter.numel() for parameter in network.parameters()) / 1e6

    with torch.device("meta"):
        yolov5s, yolov7 = build(YOLOv5()), fuse(build(YOLOv7()))
        networks = {
            "yolov5s": yolov5s,
            "yolov7": yolov7,
            "ssd300": build(SSD300(classes=90)),
            "faster_rcnn": build(FasterRCNN(classes=90)),
        }
        image = torch.empty(1, 3, 640, 640)
    for name, network in networks.items():
        assert millions(network) == pytest.approx(detectors.PUBLISHED[name][0], abs=0.06), name
    for name in ("yolov5s", "yolov7"):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            networks[name].eval()(image)
        assert counter.get_total_flops() / 1e9 == pytest.approx(detectors.PUBLISHED[name][1], rel=0.01)


def test_what_does_not_import_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    everything = detectors.networks(320)
    assert (
        list(everything)
        == ["improved", "yolov5s", "yolov7", "ssd300", "faster_rcnn", "yolov5su", "yolo11s"]
        == ["improved", *detectors.PUBLISHED]
    )
    assert {name: config.size for name, config in everything.items() if not isinstance(config, tuple)} == {
        "improved": 320,
        "yolov5s": 320,
        "yolov7": 320,
        "ssd300": 300,
        "faster_rcnn": 320,
    }
    torchvision_detectors._parts.cache_clear()
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    monkeypatch.setitem(sys.modules, "ultralytics.nn.tasks", None)
    result = detectors.measure(SETTINGS, {name: TINY[name] for name in ("yolov5s", "ssd300", "yolov5su")})
    assert {row["name"] for row in result["rows"]} == {"yolov5s"}
    ssd, ultralytics = result["left_out"]
    assert ssd.startswith(
        "ssd300: model.kind 'ssd300' is torchvision's, which cannot be imported"
    ) and ultralytics.startswith("yolov5su: ")
    assert f"left out: {ssd}" in list(detectors.lines(result))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--networks", "yolov5s", "yolov9"], "--networks yolov9: choose from improved, yolov5s"),
        (["--rounds", "0"], "--batch and --rounds must be at least 1"),
        (["--batch", "1", "0"], "--batch and --rounds must be at least 1"),
        (["--size", "300"], "--size must be a multiple of 32, at least 64, not 300"),
    ],
)
def test_bad_options_are_refused(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        detectors.main(["--device", "cpu", *arguments])
    assert ended.value.code == 2 and complaint in capsys.readouterr().err


def test_the_command_prints_and_writes_what_it_measured(
    tmp_path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        detectors, "networks", lambda size: {name: TINY[name] for name in ("improved", "yolov5s")} if size == 64 else {}
    )
    path = tmp_path / "figures.json"
    detectors.main([
        "--device",
        "cpu",
        "--size",
        "64",
        "--batch",
        "1",
        "--rounds",
        "1",
        "--networks",
        "yolov5s",
        "--json",
        str(path),
    ])
    written = json.loads(path.read_text())
    assert [row["name"] for row in written["rows"]] == ["yolov5s"] and written["settings"]["batches"] == [1]
    assert capsys.readouterr().out.splitlines()[0].startswith("CPU, torch ")
