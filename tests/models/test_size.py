"""What a network takes of memory, before it is built."""

from __future__ import annotations

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from posture.config import KINDS, ActionRun, DetectionRun, override
from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, TwoStream
from posture.models.detector_configs import FasterRCNN, YOLOv5
from posture.models.size import memory, refuse_too_large, training_need

CPU = torch.device("cpu")
SMALL = ActionRun(name="small", model=C3D(classes=3, frames=8, size=16, head="gap", width=0.125, norm="group"))


def test_parameters_and_what_training_keeps_of_each():
    run = override(SMALL, {"optim.name": "sgd", "optim.ema": 0.0})
    count = sum(parameter.numel() for parameter in build(run.model).parameters())
    assert training_need(run).parameters == count
    # weight, gradient, states, average
    for changes, numbers in (({}, 3), ({"optim.ema": 0.9}, 4), ({"optim.name": "adamw", "optim.ema": 0.9}, 5)):
        assert training_need(override(run, changes)).weights == 4 * numbers * count


def test_activations_of_a_convolution_and_relu_by_hand():
    """For each clip: the input of each convolution and of the last layer, and what ReLU and pooling keep, once each."""
    run = override(SMALL, {"model.norm": "none", "model.depths": (1, 1, 1, 1, 1), "model.dropout": 0.0})
    clip = 3 * 8 * 16 * 16
    # after each stage's convolution: C T H W
    relu = [8 * 8 * 16 * 16, 16 * 8 * 8 * 8, 32 * 4 * 4 * 4, 64 * 2 * 2 * 2, 64]
    pooled = [8 * 8 * 8 * 8, 16 * 4 * 4 * 4, 32 * 2 * 2 * 2, 64]
    floats = clip + sum(relu) + sum(pooled) + 64  # the average, which the last layer takes
    indices = 2 * sum(pooled)  # int64: where the maxima were
    need = training_need(override(run, {"scale.global_batch": 6, "scale.workers": 3}))
    assert need.activations == pytest.approx(2 * 4 * (floats + indices), rel=0.02)


def test_a_real_pass_keeps_as_much_as_the_one_without_numbers():
    for model in (SMALL.model, YOLOv5(classes=2, size=64, width=0.125, swin=True, attention="cbam")):
        run = SMALL if isinstance(model, C3D) else DetectionRun(name="d", model=model)
        run, network = override(run, {"scale.global_batch": 2}), build(model).train()
        own, kept = {tensor.data_ptr() for tensor in (*network.parameters(), *network.buffers())}, {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in own:  # noqa: B023 - called within this turn
                kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()  # noqa: B023
            return tensor

        shape = (2, 3, 8, 16, 16) if isinstance(model, C3D) else (2, 3, 64, 64)
        with saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = network(torch.rand(shape))  # held: what is freed would be used again
        assert training_need(run).activations == pytest.approx(sum(kept.values()), rel=0.05) and outputs is not None


@pytest.mark.parametrize(
    "run",
    [
        override(
            SMALL,
            {
                "model.width": 16,
                "model.widths": [4096] * 5,
                "model.depths": [8] * 5,
                "model.frames": 1024,
                "model.size": 4096,
                "model.head": "fc",
            },
        ),
        ActionRun(name="t", model=TwoStream(width=16, size=4096, frames=1024, flow_frames=1023)),
        DetectionRun(name="y", model=YOLOv5(width=16, depth=4, size=4096, swin=True, window=64, classes=25_000)),
        DetectionRun(name="f", model=FasterRCNN(width=16, size=4096, classes=25_000)),
    ],
    ids=lambda run: run.model.kind,
)
def test_the_largest_values_are_refused_before_they_take_memory(run: ActionRun | DetectionRun):
    with pytest.raises(
        InputError,
        match=r"^model: [\d,]+ parameters; training takes at least [\d,.]+ GB of memory for each worker, "
        r"but this machine's cpu has [\d.]+ GB; choose smaller model.width",
    ):
        refuse_too_large(run, CPU)


def test_a_network_larger_than_the_machine_is_not_built():
    with pytest.raises(
        InputError,
        match=r"^model: [\d,]+ parameters take [\d,.]+ GB of memory, but this machine has [\d.]+ GB; choose smaller",
    ):
        build(C3D(width=16, hidden=65_536, frames=1024, size=4096))


def test_what_fits_is_let_through():
    refuse_too_large(SMALL, CPU)
    assert 0 < training_need(SMALL).total < memory(CPU)


def test_every_kind_of_network_is_measured():
    for kind in set(KINDS) - {"linear"}:  # which has next to none
        size = {"size": 224} if kind == "mvit_v2_s" else {}  # it takes no other
        run = KINDS[kind].model_validate({"name": "x", "model": {"kind": kind} | size})
        need = training_need(run)
        assert need.parameters > 10**6 and need.activations > 10**6, kind
