"""A checkpoint: three files, none of them a pickle.

    model.safetensors   weights for evaluation and prediction: the moving average if the run keeps one
    train.safetensors   what resuming needs besides: the optimiser's tensors, and the raw weights beside an average
    state.json          position, history, best value, loss scale, and the run's configuration

Tensors of train.safetensors are named `weights/<parameter or buffer>` and `optimizer/<parameter>/<quantity>`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posture.errors import InputError

MODEL, TRAIN, STATE = "model.safetensors", "train.safetensors", "state.json"


def save(
    directory: Path,
    *,
    model: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
) -> None:
    """Write a checkpoint into the existing folder `directory`; `state` holds plain values (`json.dumps`)."""
    from safetensors.torch import save_file

    tensors = _optimizer_tensors(model, optimizer)
    if average is not None:
        tensors |= {f"weights/{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(_storable((average or model).state_dict()), directory / MODEL, metadata={"format": "pt"})
    save_file(_storable(tensors), directory / TRAIN, metadata={"format": "pt"})
    (directory / STATE).write_text(json.dumps(state | {"optimizer": type(optimizer).__name__}, indent=1))


def load(
    directory: Path, *, model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Load a checkpoint into the objects that were given to `save`, and return its state.

    Raises InputError with the file or tensor if the checkpoint is incomplete, or of another network or optimiser.
    """
    state = read_state(directory)
    if state["optimizer"] != type(optimizer).__name__:
        raise InputError(
            f"{directory} was trained with {state['optimizer']}, but optim.name now asks for {type(optimizer).__name__}"
        )
    stored = _read(directory / TRAIN)
    raw = {name.removeprefix("weights/"): tensor for name, tensor in stored.items() if name.startswith("weights/")}
    if bool(raw) != (average is not None):
        found, asked = ("a", "none") if raw else ("no", "one")
        raise InputError(f"{directory} has {found} moving average of the weights, but optim.ema asks for {asked}")
    load_weights(average or model, directory / MODEL)
    if average is not None:
        _assign(model, raw, source=directory / TRAIN)
    _assign_optimizer(model, optimizer, stored, source=directory / TRAIN)
    return state


def read_state(directory: Path) -> dict[str, Any]:
    """Return the plain values of a checkpoint. Raises InputError if the file is missing or damaged."""
    from posture.data.store.checked import CheckpointState, checked_json

    path = directory / STATE
    try:
        return checked_json(path.read_bytes(), f"{path} is damaged", CheckpointState)
    except FileNotFoundError:
        raise InputError(f"{directory} is no checkpoint: it has no {STATE}") from None
    except OSError as error:
        raise InputError(f"{path} is damaged: {error.strerror}") from None


def load_weights(model: nn.Module, path: Path) -> None:
    """Load all parameters and buffers from a safetensors file, in place.

    Raises InputError with the first tensor that is missing, superfluous or of another shape; the model is then
    unchanged.
    """
    _assign(model, _read(path), source=path)


def refuse_mismatch(stored: dict[str, Tensor], wanted: dict[str, torch.Size], *, source: Path | str) -> None:
    """Raise InputError with the first tensor of `source` that is missing, of another shape than `wanted`, or
    superfluous.
    """
    for name, shape in wanted.items():
        if name not in stored:
            raise InputError(
                f"{source} has no tensor {name}, which this network needs; it was saved from another architecture"
            )
        if stored[name].shape != shape:
            raise InputError(
                f"{source}: tensor {name} has shape {list(stored[name].shape)}, but this network needs {list(shape)}"
            )
    if superfluous := sorted(stored.keys() - wanted.keys()):
        raise InputError(
            f"{source} has a tensor {superfluous[0]}, which this network lacks; it was saved from another architecture"
        )


def refuse_not_finite(stored: dict[str, Tensor], *, source: Path | str) -> None:
    """Raise InputError with the first tensor of `source` that has an infinite or NaN value, which would spoil every
    output.
    """
    for name, tensor in stored.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise InputError(
                f"{source}: tensor {name} holds numbers that are not finite; "
                "its training diverged, or the file is damaged"
            )


def _assign(model: nn.Module, stored: dict[str, Tensor], *, source: Path) -> None:
    own = model.state_dict()
    refuse_mismatch(stored, {name: tensor.shape for name, tensor in own.items()}, source=source)
    refuse_not_finite(stored, source=source)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(stored[name])


def _optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state of each parameter, as `optimizer/<parameter>/<quantity>`."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    return {
        f"optimizer/{names[parameter]}/{key}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def _assign_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, stored: dict[str, Tensor], *, source: Path
) -> None:
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    remembered: dict[int, dict[str, Tensor]] = {}
    for label, tensor in stored.items():
        if not label.startswith("optimizer/"):
            continue
        name, _, key = label.removeprefix("optimizer/").rpartition("/")
        if name not in ordered:
            raise InputError(f"{source}: tensor {label} belongs to a parameter that is not trained here")
        wanted = model.get_parameter(name).shape
        if tensor.ndim and tensor.shape != wanted:
            raise InputError(
                f"{source}: tensor {label} has shape {list(tensor.shape)}, but its parameter has {list(wanted)}"
            )
        remembered.setdefault(ordered.index(name), {})[key] = tensor
    optimizer.load_state_dict({"state": remembered, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise InputError(f"there is no file {path}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path} is damaged: {error}") from None


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors as safetensors requires: each contiguous, with memory of its own."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
