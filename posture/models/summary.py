"""Cost of a network: parameters, multiply-accumulates (GMAC; one MAC is two FLOP) and milliseconds per clip."""

# torch types every submodule as Tensor | Module
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import contextlib
import copy
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, shape_wrapper

from posture.models.meta import ShapesOnly, build_on_meta


def parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters of `model`."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def input_shapes(inputs: tuple[str, ...], *, frames: int, size: int, clips: int = 1) -> list[tuple[int, ...]]:
    """Return the shapes of `forward`'s arguments, for a configuration's `inputs` (see `posture/models/configs.py`)."""
    channels_and_frames = {"rgb": (3, frames), "flow": (2, frames - 1)}
    return [(clips, *channels_and_frames[name], size, size) for name in inputs]


def gmacs(model: nn.Module, frames: int = 16, size: int = 112, *, inputs: tuple[str, ...] = ("rgb",)) -> float:
    """Return the multiply-accumulates, in 1e9, of a forward pass over one clip of `frames` frames of `size` x `size`.

    Convolutions and matrix products are counted, including those of attention (half of torch's FLOP count). Norms,
    activations, poolings and element-wise products are not. Only shapes are computed; `model` is not changed.
    """
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    shapes = {name: tensor.to("meta") for name, tensor in tensors.items()}
    clip = tuple(torch.empty(shape, device="meta") for shape in input_shapes(inputs, frames=frames, size=size))
    with OperationCounter() as counter, torch.no_grad(), ShapesOnly():
        functional_call(model, shapes, clip)
    return counter.total / 2 / 1e9


class OperationCounter(TorchDispatchMode):
    """Counter of floating-point operations by torch's formulas, and by one for the fused attention that torch uses on a
    CPU.

    torch's own counter loads the compiler, which takes a second and a half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        self._formulas = flop_registry | {attention: shape_wrapper(_attention_flops)}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if formula := self._formulas.get(function.overloadpacket):
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def _attention_flops(
    queries: tuple[int, ...], keys: tuple[int, ...], values: tuple[int, ...], *others: Any, **settings: Any
) -> int:
    """Return the operations of softmax(q k^T) v for shapes (N, heads, L, D), (N, heads, S, D) and (N, heads, S, E): two
    for each product and sum.
    """
    batch, heads, length, depth = queries
    return 2 * batch * heads * length * keys[2] * (depth + values[3])


@torch.no_grad()
def image_gflops(model: nn.Module, size: int) -> float:
    """Return the floating-point operations, in 1e9, of a detector's forward pass over one image of `size` x `size`.

    That is twice its multiply-accumulates, as detectors are mostly quoted (GMAC for classifiers). They are counted as
    in `gmacs`, but a copy of `model` runs once on a grey image on the CPU: the cost of a detector with proposals
    depends on its detections. On the meta device, which has none, the maximum number of proposals is counted.
    """
    on_meta = next(model.parameters()).is_meta
    network = model.eval() if on_meta else copy.deepcopy(model).cpu().float().eval()
    image = torch.full((1, 3, size, size), 0.5, device="meta" if on_meta else "cpu")
    with OperationCounter() as counter, ShapesOnly() if on_meta else contextlib.nullcontext():
        if on_meta and hasattr(network, "transform"):  # torchvision's, whose boxes depend on values
            features = list(network.backbone(image).values())
            if hasattr(network, "rpn"):
                network.rpn.head(features)
                heads, cells = network.roi_heads, network.roi_heads.box_roi_pool.output_size
                proposals = image.new_empty(network.rpn.post_nms_top_n(), features[0].shape[1], *cells)
                heads.box_predictor(heads.box_head(proposals))
            else:
                network.head(features)
        else:
            network(image)
    return counter.total / 1e9


def random_inputs(config: Any, *, clips: int = 1, device: torch.device | str = "cpu") -> tuple[Tensor, ...]:
    """Return normal random inputs of the network of `config`."""
    return tuple(
        torch.randn(shape, device=device)
        for shape in input_shapes(config.inputs, frames=config.frames, size=config.size, clips=clips)
    )


@torch.no_grad()
def latency_ms(
    model: nn.Module, config: Any, *, device: torch.device | str, repeats: int = 20, warm_ups: int = 3
) -> dict[str, float]:
    """Return {"median", "least", "most"} milliseconds of `repeats` forward passes over one clip on `device`.

    `model` is moved there. It runs eagerly, in float32 and evaluation mode, with the clip already on the device, and
    each pass is synchronised.
    """
    device = torch.device(device)
    was_training, model = model.training, model.to(device).eval()
    inputs = random_inputs(config, device=device)
    milliseconds = []
    for _ in range(warm_ups + repeats):
        began = time.perf_counter()
        model(*inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        milliseconds.append(1e3 * (time.perf_counter() - began))
    model.train(was_training)
    timed = np.array(milliseconds[warm_ups:])
    return {"median": float(np.median(timed)), "least": float(timed.min()), "most": float(timed.max())}


def table(named_configs: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each configuration: `name`, `parameters` at its own size, and `gmacs_112` and `gmacs_56` for 16
    frames of that size (None if the network cannot take them).
    """
    rows = []
    for name, config in named_configs.items():
        at_112, at_56 = (_resized(config, size) for size in (112, 56))
        networks = {one: build_on_meta(one) for one in {config, at_112, at_56} if one}
        rows.append({
            "name": name,
            "parameters": parameters(networks[config]),
            "gmacs_112": gmacs(networks[at_112], 16, 112, inputs=config.inputs) if at_112 else None,
            "gmacs_56": gmacs(networks[at_56], 16, 56, inputs=config.inputs) if at_56 else None,
        })
    return rows


def _resized(config: Any, size: int) -> Any:
    """Return `config` for 16 frames of `size` x `size`; None if its network cannot take them."""
    try:
        return replace(config, frames=16, size=size)
    except ValueError:
        return None
