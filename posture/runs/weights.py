"""Weights: of a checkpoint to use, and of another run to start from.

Weights to start from are read and checked before a run takes any hardware, then copied into its folder, for every
worker. They may be a run (its best checkpoint), a registry's version, a checkpoint's folder, a .safetensors file, or a
state dict that torch saved (.pt, .pth), such as torchvision's weights or a published YOLOv5 or YOLOv7. From a pickle
only tensors are read.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from posture.data.store.checked import Count, checked_json, checked_value, path_below
from posture.data.store.files import absolute, exists, join, read_bytes, write_bytes
from posture.errors import InputError
from posture.runs.folder import RunFolder

if TYPE_CHECKING:
    from torch import Size, Tensor, nn

START = "start.safetensors"
"""File in a run's folder with the weights that its network starts from, without a last layer that starts afresh."""
ROWS = "rows"
"""Key in its metadata, {"tensors": names, "rows": indices}: of these tensors only the rows of these classes are kept,
in this order.
"""


class StartRows(TypedDict):
    """`ROWS` of a file's metadata."""

    tensors: list[str]
    rows: list[Count]


def copy_weights(path: str, folder: RunFolder, config: Any, *, classes: tuple[str, ...]) -> str:
    """Copy the weights at `path` into the new run's folder; return a sentence on what was copied.

    `config` is one of `posture.models.configs`; `classes` are the footage's. If the weights name their classes, a
    classifier's last layer keeps the rows of the classes that the footage has too, at their new indices, and starts
    afresh for the others. The last layer is left out if no class is the same, in a detector, and if the weights have
    another number of classes without names. Raises InputError naming the file that is missing or damaged, or the first
    tensor that does not fit the network; the folder is then unchanged.
    """
    tensors, known, pretext = _read(path)
    tensors, new = _published(tensors, config, source=path)
    afresh, found = _check(tensors, config, source=path, without=new)
    said = f"starting from {path}"
    if new:
        said += (
            f", which has nothing for {', '.join(sorted({name.partition('.')[0] for name in new}))}: they start afresh"
        )
    if pretext:
        said += f", which learned without labels ({pretext})"
    rows = _common(known or (), classes) if not pretext else []
    if rows and known != classes and len(known) == found and _grows(config, afresh):
        return f"{said}{_keep_rows(tensors, afresh, rows, folder, classes)}"
    if pretext and known != classes:
        said += f": {len(tensors) - len(afresh)} tensors are loaded, and {', '.join(afresh)} start afresh"
    elif found != len(classes):
        said += f", whose {found} classes are not the footage's {len(classes)}: {', '.join(afresh)} start afresh"
    elif known is not None and known != classes:
        said += f", whose classes have other names than the footage's: {', '.join(afresh)} start afresh"
    else:
        afresh = []
    from safetensors.torch import save

    kept = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items() if name not in afresh}
    write_bytes(folder.path(START), save(kept, metadata={"format": "pt"}))
    return said


def _common(known: tuple[str, ...], classes: tuple[str, ...]) -> list[tuple[int, int]]:
    """Return the (old, new) index of every class that both have."""
    return [(known.index(name), number) for number, name in enumerate(classes) if name in known]


def _grows(config: Any, last: list[str]) -> bool:
    """Return True if each of the `last` layer's tensors has one row per class, as a classifier's have."""
    own, one_more = _shapes(config), _shapes(replace(config, classes=config.classes + 1))
    return all(
        own[name][0] == config.classes
        and one_more[name][0] == config.classes + 1
        and own[name][1:] == one_more[name][1:]
        for name in last
    )


def _keep_rows(
    tensors: dict[str, Tensor],
    last: list[str],
    rows: list[tuple[int, int]],
    folder: RunFolder,
    classes: tuple[str, ...],
) -> str:
    """Write the weights, with only the old `rows` of the `last` tensors; return in words what starts afresh."""
    from safetensors.torch import save

    kept = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    kept |= {name: kept[name][[old for old, _ in rows]].contiguous() for name in last}
    content = save(
        kept, metadata={"format": "pt", ROWS: json.dumps({"tensors": last, "rows": [new for _, new in rows]})}
    )
    write_bytes(folder.path(START), content)
    new = sorted(set(classes) - {classes[number] for _, number in rows})
    return f", with what it knows of {len(rows)} classes" + (
        f"; in {', '.join(last)} the rows of {', '.join(new)} start afresh" if new else ""
    )


def load_network(run: Any, checkpoint: Path) -> nn.Module:
    """Return the run's network with the weights of the folder `checkpoint`, in evaluation mode."""
    from posture.train.checkpoint import load_weights

    network = build_network(run)
    load_weights(network, checkpoint / "model.safetensors")
    return network.eval()


def build_network(run: Any) -> nn.Module:
    """Return the run's network with fresh weights."""
    from posture.models import build

    return build(run.model, detect=getattr(run, "detect", None))


def load_start(model: nn.Module, folder: RunFolder) -> None:
    """Load the weights that `copy_weights` wrote into `model`. Raises InputError if they are missing."""
    content = read_bytes(folder.path(START))
    if content is None:
        raise InputError(f"{folder.path(START)}, the weights to start from, is missing; begin a new run with --weights")
    tensors, own = _from_safetensors(content, folder.path(START)), model.state_dict()
    kept = checked_json(_metadata(content).get(ROWS, '{"tensors": [], "rows": []}'), folder.path(START), StartRows)
    try:
        for name in kept["tensors"]:
            rows, tensors[name] = tensors[name], own[name].clone()
            tensors[name][kept["rows"]] = rows.to(own[name])
        model.load_state_dict(tensors, strict=False)  # the last layer may be missing: it stays as it is
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(
            f"{folder.path(START)} does not fit this network ({str(error).splitlines()[0]}); begin a new run with "
            "--weights"
        ) from None


def _metadata(content: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file, whose first eight bytes are the length of its JSON header."""
    return checked_json(content[8 : 8 + int.from_bytes(content[:8], "little")], START, dict[str, Any]).get(
        "__metadata__", {}
    )


def _read(path: str) -> tuple[dict[str, Tensor], tuple[str, ...] | None, str]:
    """Return the tensors at `path` and, for runs and versions of ours, the names of their classes and their pretext."""
    uri = absolute(path)
    record = read_bytes(join(uri, "run.json"))
    if record is not None:
        with RunFolder.open(uri).checkpoint("best") as checkpoint:
            return _read_file(str(checkpoint / "model.safetensors")), _classes(record, uri), _pretext(record, uri)
    inside = join(uri, "model.safetensors")
    version = read_bytes(join(uri, "version.json"))
    if version is not None:
        return _read_file(path_below(uri, "model.safetensors")), _classes(version, uri), ""
    return _read_file(inside if exists(inside) else uri), None, ""


def _classes(record: bytes, uri: str) -> tuple[str, ...]:
    """Return the classes that run.json or version.json names. Raises InputError if it names none."""
    found = checked_json(record, uri, dict[str, Any])
    return tuple(checked_value(found["classes"], f"{uri}: its classes", list[str]))


def _pretext(record: bytes, uri: str) -> str:
    """Return what run.json says that the run learned without labels; empty if it learned classes."""
    run = checked_value(checked_json(record, uri, dict[str, Any]).get("run", {}), f"{uri}: its run", dict[str, Any])
    return checked_value(run.get("pretext", ""), f"{uri}: its pretext", str)


def _read_file(uri: str) -> dict[str, Tensor]:
    readers = {".safetensors": _from_safetensors, ".pt": _from_torch, ".pth": _from_torch}
    content = read_bytes(uri)
    if content is None:
        raise InputError(
            f"weights: there is nothing to start from at {uri}; name a run, a checkpoint's folder, or a file "
            f"({', '.join(readers)})"
        )
    reader = readers.get(PurePosixPath(uri).suffix.lower())
    if reader is None:
        raise InputError(f"weights: {uri} must be one of {', '.join(readers)}")
    return reader(content, uri)


def _from_safetensors(content: bytes, uri: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise InputError(f"weights: {uri} is damaged: {error}") from None


def _from_torch(content: bytes, uri: str) -> dict[str, Tensor]:
    """Return a state dict: a bare one, one below `state_dict` or `model`, or one of a network wrapped for several
    workers (`module.`).
    """
    import torch

    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, depending on the bytes
        raise InputError(
            f"weights: {uri} is damaged, or holds something other than tensors, which is not unpickled "
            f"({type(error).__name__}); save only the network's state_dict()"
        ) from None
    for key in ("state_dict", "model"):
        if isinstance(value, dict) and isinstance(value.get(key), dict):
            value = value[key]
    if (
        not isinstance(value, dict)
        or not value
        or not all(isinstance(tensor, torch.Tensor) for tensor in value.values())
    ):
        raise InputError(f"weights: {uri} holds no state dict (tensors by name); save the network's state_dict()")
    return {str(name).removeprefix("module."): tensor for name, tensor in value.items()}


def _published(tensors: dict[str, Tensor], config: Any, *, source: str) -> tuple[dict[str, Tensor], frozenset[str]]:
    """Return the weights of a published detector under our names, and the names of our tensors that it lacks (Swin,
    attention). Other weights stay as they are.
    """
    if config.kind == "fasterrcnn":
        from posture.models.torchvision_detectors import from_published, with_usual_eps

        fixed = not any(name.endswith("num_batches_tracked") for name in tensors)
        return from_published(with_usual_eps(tensors) if fixed else tensors), frozenset()
    if config.kind not in ("yolov5", "yolov7") or "model.0.conv.weight" not in tensors:
        return tensors, frozenset()
    if config.kind == "yolov5":
        from posture.models.yolov5 import from_published, published_names

        known = published_names(replace(config, swin=False, stem="conv"))
    else:
        from posture.models.yolov7 import from_published, published_names

        known = published_names(config)
    fitting = from_published(tensors, config)
    for name in tensors:
        if name not in known and not name.endswith((".anchors", ".anchor_grid")):
            raise InputError(
                f"{source} has a tensor {name}, which this network lacks; it was saved from another architecture or "
                "depth"
            )
    return fitting, frozenset(_shapes(config)) - frozenset(fitting)


def _check(
    tensors: dict[str, Tensor], config: Any, *, source: str, without: frozenset[str] = frozenset()
) -> tuple[list[str], int]:
    """Return the names of the tensors whose shape depends on the number of classes, and that number in these weights.

    Raises InputError if the weights are not finite, or do not fit `config`'s network in anything but the number of
    classes and the missing tensors `without`.
    """
    from posture.train.checkpoint import refuse_mismatch

    own, one_more = _shapes(config), _shapes(replace(config, classes=config.classes + 1))
    last = [name for name, shape in own.items() if shape != one_more[name]]
    numbers = {
        _classes_of(tensors[name].shape, own[name], one_more[name], classes=config.classes)
        for name in last
        if name in tensors
    }
    classes = int(number) if len(numbers) == 1 and (number := numbers.pop()) == int(number) else config.classes
    wanted = _shapes(replace(config, classes=max(1, classes)))
    refuse_mismatch(tensors, {name: shape for name, shape in wanted.items() if name not in without}, source=source)
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise InputError(f"{source}: tensor {name} holds numbers that are not finite")
    return last, classes


def _classes_of(shape: Size, own: Size, one_more: Size, *, classes: int) -> float:
    """Return the number of classes of a tensor with this `shape`; it has the shape `own` for `classes` and `one_more`
    for one class more.

    A detector's last layers have several entries per class and some others; YOLOv7's implicit vectors have them on
    their second axis.
    """
    axis = next(axis for axis, (before, after) in enumerate(zip(own, one_more, strict=True)) if before != after)
    return classes + (shape[axis] - own[axis]) / (one_more[axis] - own[axis]) if len(shape) == len(own) else classes


def _shapes(config: Any) -> dict[str, Size]:
    """Return the names and shapes of a network's parameters and buffers, without allocating them."""
    import torch

    from posture.models import build

    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(config).state_dict().items()}
