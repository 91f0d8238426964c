"""Weights to start from: read and checked before a run takes any hardware, then copied into its folder, where every
worker finds the same.

Taken are a run of ours (its best checkpoint), a registry's version, a checkpoint's folder, a .safetensors file, and a
state dict that torch saved (.pt, .pth), such as torchvision's weights, or of a published YOLOv5 or YOLOv7. Of a pickle
nothing but tensors is read.
"""

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
"""In a run's folder: what its network starts from, without the last layer where that starts afresh."""
ROWS = "rows"
"""In its metadata: {"tensors": names, "rows": numbers}, where of these tensors only the rows of some classes are kept,
in that order.
"""


class StartRows(TypedDict):
    """`ROWS` of a file's metadata."""

    tensors: list[str]
    rows: list[Count]


def copy_weights(path: str, folder: RunFolder, config: Any, *, classes: tuple[str, ...]) -> str:
    """Copy the weights at `path` into the new run's folder; returns what was taken, in a sentence.

    `config` is one of `posture.models.configs`; `classes` are the footage's. Of weights whose classes are known by
    name, a classifier's last layer keeps the rows of those that the footage has too, wherever they now stand, and
    starts afresh for the others. The last layer is left out where no class is the same, in a detector, and where the
    weights know another number of classes and no names. Raises InputError naming the file that is missing or damaged,
    or the first tensor that does not fit the network; the folder is then untouched.
    """
    tensors, known = _read(path)
    tensors, new = _published(tensors, config, source=path)
    afresh, found = _check(tensors, config, source=path, without=new)
    said = f"starting from {path}"
    if new:
        said += (
            f", which has nothing for {', '.join(sorted({name.partition('.')[0] for name in new}))}: they start afresh"
        )
    rows = _common(known or (), classes)
    if rows and known != classes and len(known) == found and _grows(config, afresh):
        return f"{said}{_keep_rows(tensors, afresh, rows, folder, classes)}"
    if found != len(classes):
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
    """(old, new) number of every class that both have."""
    return [(known.index(name), number) for number, name in enumerate(classes) if name in known]


def _grows(config: Any, last: list[str]) -> bool:
    """Whether each of the `last` layer's tensors has one row for each class, as a classifier's have."""
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
    """Write what the network starts from, of its `last` tensors the old `rows` alone; returns what starts afresh, in
    words.
    """
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
    """Fill `model` with what `copy_weights` left in the run's folder. Raises InputError where that is gone."""
    content = read_bytes(folder.path(START))
    if content is None:
        raise InputError(f"{folder.path(START)}, the weights to start from, is gone; begin a new run with --weights")
    tensors, own = _from_safetensors(content, folder.path(START)), model.state_dict()
    kept = checked_json(_metadata(content).get(ROWS, '{"tensors": [], "rows": []}'), folder.path(START), StartRows)
    try:
        for name in kept["tensors"]:
            rows, tensors[name] = tensors[name], own[name].clone()
            tensors[name][kept["rows"]] = rows.to(own[name])
        model.load_state_dict(tensors, strict=False)  # the last layer may be missing: it stays as it is
    except (KeyError, IndexError, RuntimeError) as error:
        raise InputError(
            f"{folder.path(START)} does not fit this network ({str(error).splitlines()[0]}); begin a new run with --weights"
        ) from None


def _metadata(content: bytes) -> dict[str, str]:
    """What a safetensors file says besides its tensors: its first eight bytes tell the length of a JSON header."""
    return checked_json(content[8 : 8 + int.from_bytes(content[:8], "little")], START, dict[str, Any]).get(
        "__metadata__", {}
    )


def _read(path: str) -> tuple[dict[str, Tensor], tuple[str, ...] | None]:
    """The tensors at `path`, and the names of the classes they tell apart where a run of ours says so."""
    uri = absolute(path)
    record = read_bytes(join(uri, "run.json"))
    if record is not None:
        with RunFolder.open(uri).checkpoint("best") as checkpoint:
            return _read_file(str(checkpoint / "model.safetensors")), _classes(record, uri)
    inside = join(uri, "model.safetensors")
    version = read_bytes(join(uri, "version.json"))
    if version is not None:
        return _read_file(path_below(uri, "model.safetensors")), _classes(version, uri)
    return _read_file(inside if exists(inside) else uri), None


def _classes(record: bytes, uri: str) -> tuple[str, ...]:
    """The classes that run.json or version.json names. Raises InputError if it does not."""
    found = checked_json(record, uri, dict[str, Any])
    return tuple(checked_value(found["classes"], f"{uri}: its classes", list[str]))


def _read_file(uri: str) -> dict[str, Tensor]:
    readers = {".safetensors": _from_safetensors, ".pt": _from_torch, ".pth": _from_torch}
    content = read_bytes(uri)
    if content is None:
        raise InputError(
            f"weights: there is nothing to start from at {uri}; name a run, a checkpoint's folder, or a file ({', '.join(readers)})"
        )
    reader = readers.get(PurePosixPath(uri).suffix.lower())
    if reader is None:
        raise InputError(f"weights: {uri} is none of {', '.join(readers)}")
    return reader(content, uri)


def _from_safetensors(content: bytes, uri: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(content)
    except SafetensorError as error:
        raise InputError(f"weights: {uri} is damaged: {error}") from None


def _from_torch(content: bytes, uri: str) -> dict[str, Tensor]:
    """A state dict: bare, below `state_dict` or `model`, or of a network that was wrapped for several workers
    (`module.`).
    """
    import torch

    try:
        value = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # of many kinds, as the bytes have it
        raise InputError(
            f"weights: {uri} is damaged, or holds other things than tensors, which are not unpickled ({type(error).__name__}); "
            "save the network's state_dict() alone"
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
    """Weights of a published detector under our names, and our tensors that it has nothing for (Swin, attention); other
    weights as they are.
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
                f"{source} has a tensor {name}, which this network lacks; it was saved from another architecture, or another depth"
            )
    return fitting, frozenset(_shapes(config)) - frozenset(fitting)


def _check(
    tensors: dict[str, Tensor], config: Any, *, source: str, without: frozenset[str] = frozenset()
) -> tuple[list[str], int]:
    """Names of the tensors whose shape depends on the number of classes, and the number that these weights have.

    Raises InputError unless the weights are, but for that number and the tensors `without`, those of `config`'s
    network, and finite.
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
    """The number of classes that a tensor of this `shape` is for, if it has the shape `own` for `classes` and
    `one_more` for one class more.

    A detector's last layers have several entries for each class and some besides, and YOLOv7's implicit vectors have
    them on their second axis.
    """
    axis = next(axis for axis, (before, after) in enumerate(zip(own, one_more, strict=True)) if before != after)
    return classes + (shape[axis] - own[axis]) / (one_more[axis] - own[axis]) if len(shape) == len(own) else classes


def _shapes(config: Any) -> dict[str, Size]:
    """Names and shapes of a network's parameters and buffers; nothing is computed."""
    import torch

    from posture.models import build

    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in build(config).state_dict().items()}
