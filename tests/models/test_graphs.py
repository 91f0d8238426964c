"""Recorded networks on a GPU answer as they do unrecorded, and boxes are found there as on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from posture.models import build, graphs
from posture.models.boxes import nms
from posture.models.detector_configs import IMPROVED_YOLOV5, YOLOv5, YOLOv7
from posture.models.fuse import fuse
from posture.models.graphs import Graphed, around_branches
from posture.tasks.detection import DetectionTask

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CONFIG = YOLOv5(classes=3, width=0.125, size=96, **IMPROVED_YOLOV5)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return fuse(build(CONFIG)).cuda()


@gpu
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_every_image_gets_its_own_answer(network, dtype):
    graphed = Graphed(network)
    with torch.inference_mode(), torch.autocast("cuda", dtype=torch.bfloat16, enabled=dtype is not None):
        for count in (2, 2, 2, 1, 2, 1, 1):  # the first pass of a shape is plain, the next recorded, then replayed
            images = torch.rand(count, 3, 96, 160, device="cuda")
            for output, other in zip(graphed(images), network(images), strict=True):
                torch.testing.assert_close(output, other, rtol=1e-2, atol=1e-3 if dtype is None else 3e-2)
    assert len(graphed._recorded) == 2


@gpu
def test_layouts_are_shapes_of_their_own_and_recordings_have_a_limit(network, monkeypatch):
    monkeypatch.setattr(graphs, "MAX_SHAPES", 2)
    graphed = Graphed(network)
    with torch.inference_mode():
        for side in (64, 64, 96, 96, 128, 128, 64):
            for layout in (torch.contiguous_format, torch.channels_last):
                images = torch.rand(2, 3, side, 96, device="cuda").contiguous(memory_format=layout)
                for output, other in zip(graphed(images), network(images), strict=True):
                    torch.testing.assert_close(output, other, rtol=1e-2, atol=1e-3)
    assert len(graphed._recorded) == 2


@gpu
@pytest.mark.parametrize("kind", ["iou", "diou", "eiou"])
def test_suppression_keeps_what_it_keeps_on_the_cpu(kind):
    generator = torch.Generator().manual_seed(0)
    corners, sides = torch.rand(3000, 2, generator=generator) * 320, torch.rand(3000, 2, generator=generator) * 80 + 4
    given = (
        torch.cat([corners, corners + sides], dim=1),
        torch.rand(3000, generator=generator),
        torch.randint(3, (3000,), generator=generator),
        torch.randint(5, (3000,), generator=generator),
    )
    how = {"count": 5, "threshold": 0.45, "overlap": kind, "most": 200, "candidates": 500}
    (expected, numbers), (found, others) = nms(*given, **how), nms(*(part.cuda() for part in given), **how)
    assert others == numbers and found.tolist() == expected.tolist()


@gpu
def test_boxes_of_a_batch_are_those_of_its_images(network):
    detect = SimpleNamespace(confidence=1e-4, overlap=0.5, nms_overlap="diou", most=50)
    task = DetectionTask(SimpleNamespace(model=CONFIG, loss=None, detect=detect), ("a", "b", "c"))
    images = torch.rand(4, 3, 96, 96, device="cuda")
    with torch.inference_mode():
        outputs = network(images)
        together = task.detect(outputs)
        for image, found in enumerate(together):
            (alone,) = task.detect([level[image : image + 1] for level in outputs])
            assert len(found.scores) == 50 and all(
                torch.equal(part, other) for part, other in zip(found, alone, strict=True)
            )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("config", [CONFIG, YOLOv5(classes=3, width=0.125), YOLOv7(classes=3, width=0.125)])
def test_branches_are_the_three_outputs_and_end_with_their_last_module(config, fused):
    network = build(config).eval()
    network = fuse(network) if fused else network
    events = []
    with torch.inference_mode(), around_branches(network, lambda: events.append("begin"), lambda: events.append("end")):
        handles = [
            network.get_submodule(last).register_forward_hook(lambda *_: events.append("output"))
            for _, last in network.branches
        ]
        network(torch.rand(1, 3, 64, 64))
    assert events == ["begin", "end", "output"] * 3
    for handle in handles:
        handle.remove()
    network(torch.rand(1, 3, 64, 64))
    assert len(events) == 9
