"""Weights to start from: what is taken, what starts afresh, and what is refused."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from posture.errors import InputError
from posture.models import build
from posture.models.configs import C3D, TorchvisionVideo, TwoStream
from posture.runs.folder import RunFolder
from posture.runs.weights import START, copy_weights, load_start

SMALL = C3D(classes=3, frames=8, size=32, width=0.125, head="gap", norm="batch")
CLASSES = ("left", "right", "still")
LAST = ("head.2.weight", "head.2.bias")
"""The layer of SMALL that knows the classes."""


@pytest.fixture
def new(tmp_path: Path) -> RunFolder:
    return RunFolder(str(tmp_path / "runs"), "new")


@pytest.fixture
def network() -> torch.nn.Module:
    torch.manual_seed(1)
    return build(SMALL)


def run_of(network: torch.nn.Module, runs: Path, *, classes: tuple[str, ...] = CLASSES) -> Path:
    """A finished run's folder with `network` as its best checkpoint."""
    folder = RunFolder(str(runs), "first")
    folder.write_json("run.json", {"classes": classes})
    checkpoint = runs / "ready"
    checkpoint.mkdir()
    save_file(network.state_dict(), checkpoint / "model.safetensors")
    folder.publish_checkpoint("epoch-0001", checkpoint, best=True)
    return runs / "first"


def started(folder: RunFolder, config: C3D | TorchvisionVideo) -> torch.nn.Module:
    torch.manual_seed(2)
    fresh = build(config)
    load_start(fresh, folder)
    return fresh


def same(ours: torch.nn.Module, theirs: torch.nn.Module, *, but: tuple[str, ...] = ()) -> bool:
    other = theirs.state_dict()
    return all(torch.equal(tensor, other[name]) != (name in but) for name, tensor in ours.state_dict().items())


@pytest.mark.parametrize("kind", ["run", "checkpoint", "safetensors", "pt", "wrapped"])
def test_every_form_is_taken_whole(kind: str, new: RunFolder, network: torch.nn.Module, tmp_path: Path):
    path = run_of(network, tmp_path)
    if kind == "checkpoint":
        path = next((path / "checkpoints").iterdir())
    elif kind == "safetensors":
        path = Path(shutil.copy(tmp_path / "ready" / "model.safetensors", tmp_path / "mine.safetensors"))
    elif kind != "run":
        path = tmp_path / "mine.pt"
        tensors = network.state_dict()
        wrapped = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}
        torch.save(wrapped if kind == "wrapped" else tensors, path)
    assert copy_weights(str(path), new, SMALL, classes=CLASSES) == f"starting from {path}"
    assert same(started(new, SMALL), network)


def test_another_number_of_classes_starts_the_last_layer_afresh_and_says_so(
    new: RunFolder, network: torch.nn.Module, tmp_path: Path
):
    wider = replace(SMALL, classes=5)
    said = copy_weights(str(run_of(network, tmp_path)), new, wider, classes=("a", "b", "c", "d", "e"))
    assert said.endswith(f"whose 3 classes are not the footage's 5: {LAST[0]}, {LAST[1]} start afresh")
    begun = started(new, wider)
    torch.manual_seed(2)
    fresh, taken = build(wider).state_dict(), network.state_dict()
    for name, tensor in begun.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in LAST else taken[name]), name


def test_so_do_as_many_classes_of_other_names(new: RunFolder, network: torch.nn.Module, tmp_path: Path):
    said = copy_weights(str(run_of(network, tmp_path)), new, SMALL, classes=("dive", "jump", "vault"))
    assert said.endswith(f"whose classes have other names than the footage's: {LAST[0]}, {LAST[1]} start afresh")
    assert same(started(new, SMALL), network, but=LAST[:1])  # biases are zero in both


@pytest.mark.parametrize(
    ("kind", "last"),
    [
        ("mc3_18", ("fc.weight", "fc.bias")),
        ("s3d", ("classifier.1.weight", "classifier.1.bias")),
        pytest.param("r3d_18", ("fc.weight", "fc.bias"), marks=pytest.mark.slow),
        pytest.param("r2plus1d_18", ("fc.weight", "fc.bias"), marks=pytest.mark.slow),
        pytest.param("mvit_v2_s", ("head.1.weight", "head.1.bias"), marks=pytest.mark.slow),
        pytest.param("swin3d_t", ("head.weight", "head.bias"), marks=pytest.mark.slow),
    ],
)
def test_torchvisions_own_file_fits_its_network(kind: str, last: tuple[str, ...], new: RunFolder, tmp_path: Path):
    """With 400 classes, as for Kinetics; only the last layer is left out."""
    from torchvision.models import video

    published = getattr(video, kind)(weights=None, num_classes=400).state_dict()
    torch.save(published, tmp_path / "published.pth")
    config = TorchvisionVideo(kind=kind, classes=2, size=224, dropout=0.1)
    said = copy_weights(str(tmp_path / "published.pth"), new, config, classes=("left", "right"))
    assert said.endswith(f"whose 400 classes are not the footage's 2: {', '.join(last)} start afresh")
    begun = started(new, config).state_dict()
    assert {name for name, tensor in begun.items() if tensor.shape != published[name].shape} == set(last)
    assert all(torch.equal(tensor, published[name]) for name, tensor in begun.items() if name not in last)


class Loaded(Exception):
    """Raised by a pickle that is unpickled after all."""


class Trap:
    def __reduce__(self):
        return _spring, ()


def _spring() -> None:
    raise Loaded


def test_what_does_not_fit_is_named_and_leaves_nothing(new: RunFolder, network: torch.nn.Module, tmp_path: Path):
    tensors = network.state_dict()

    def saved(name: str, changed: dict[str, torch.Tensor]) -> str:
        save_file(changed, tmp_path / name)
        return str(tmp_path / name)

    whole = saved("whole.safetensors", tensors)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(whole).read_bytes()[:-100])
    torch.save({"network": Trap(), **tensors}, tmp_path / "trap.pt")
    (tmp_path / "trap.pth").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "weights.onnx").write_bytes(b"none of ours")
    (tmp_path / "empty").mkdir()
    unfinished = RunFolder(str(tmp_path), "unfinished")
    unfinished.write_json("run.json", {"classes": CLASSES})
    refusals = [
        (
            SMALL,
            str(tmp_path / "none"),
            r"there is nothing to start from at .*none; name a run, a checkpoint's folder, or a file "
            r"\(.safetensors, .pt",
        ),
        (SMALL, str(tmp_path / "empty"), "there is nothing to start from at"),
        (SMALL, str(tmp_path / "weights.onnx"), "weights.onnx must be one of .safetensors, .pt, .pth"),
        (SMALL, unfinished.uri, "this run has no best checkpoint yet"),
        (SMALL, str(cut), "cut.safetensors is damaged"),
        (
            SMALL,
            str(tmp_path / "trap.pt"),
            "trap.pt is damaged, or holds something other than tensors, which is not unpickled",
        ),
        (SMALL, str(tmp_path / "trap.pth"), "trap.pth is damaged, or holds something other than tensors"),
        (SMALL, str(tmp_path / "list.pt"), "list.pt holds no state dict"),
        (
            replace(SMALL, width=0.25),
            whole,
            r"tensor stage1\S* has shape \[8, 3, 3, 3, 3\], but this network needs \[16, 3, 3, 3, 3\]",
        ),
        (replace(SMALL, depths=(1, 1, 3, 2, 2)), whole, "has no tensor stage3.*, which this network needs"),
        (replace(SMALL, depths=(1, 1, 1, 2, 2)), whole, "has a tensor stage3.*, which this network lacks"),
        (
            SMALL,
            saved("headless.safetensors", {name: tensor for name, tensor in tensors.items() if name not in LAST}),
            f"has no tensor {LAST[0]}",
        ),
        (
            SMALL,
            saved("nan.safetensors", tensors | {LAST[1]: torch.full((3,), torch.nan)}),
            f"tensor {LAST[1]} holds numbers that are not finite",
        ),
    ]
    for config, path, complaint in refusals:
        with pytest.raises(InputError, match=complaint):
            copy_weights(path, new, config, classes=CLASSES)
        assert not Path(new.uri).exists()


def test_weights_that_vanished_from_the_run_are_missed(new: RunFolder, network: torch.nn.Module):
    with pytest.raises(InputError, match="the weights to start from, is missing"):
        load_start(network, new)


@pytest.mark.parametrize(
    ("config", "last"),
    [
        (SMALL, LAST),
        (TorchvisionVideo(kind="mc3_18", classes=3, size=32), ("fc.weight", "fc.bias")),
        (
            TwoStream(classes=3, frames=11, size=32, width=0.125),
            (
                "streams.rgb.network.22.weight",
                "streams.rgb.network.22.bias",
                "streams.flow.network.21.weight",
                "streams.flow.network.21.bias",
            ),
        ),
    ],
)
def test_a_head_that_grows_keeps_what_it_knows_of_every_old_class(
    config: C3D | TorchvisionVideo | TwoStream, last: tuple[str, ...], new: RunFolder, tmp_path: Path
):
    """By name, wherever a class now stands among the others; to the bit."""
    torch.manual_seed(1)
    old = build(config)
    for name in last:
        torch.nn.init.normal_(old.get_parameter(name))
    grown, classes = replace(config, classes=4), ("dive", "left", "right", "still")
    said = copy_weights(str(run_of(old, tmp_path)), new, grown, classes=classes)
    assert said.endswith(f", with what it knows of 3 classes; in {', '.join(last)} the rows of dive start afresh")
    begun = started(new, grown)
    torch.manual_seed(2)
    fresh, taken = build(grown).state_dict(), old.state_dict()
    for name, tensor in begun.state_dict().items():
        if name in last:
            assert (
                tensor.shape[0] == 4 and torch.equal(tensor[1:], taken[name]) and torch.equal(tensor[0], fresh[name][0])
            ), name
        else:
            assert torch.equal(tensor, taken[name]), name


def test_classes_that_are_gone_or_moved_take_their_rows_along(new: RunFolder, network: torch.nn.Module, tmp_path: Path):
    said = copy_weights(str(run_of(network, tmp_path)), new, SMALL, classes=("dive", "right", "left"))
    assert "what it knows of 2 classes" in said and "the rows of dive start afresh" in said
    weights, before = started(new, SMALL).state_dict()[LAST[0]], network.state_dict()[LAST[0]]
    assert torch.equal(weights[1], before[CLASSES.index("right")]) and torch.equal(
        weights[2], before[CLASSES.index("left")]
    )
    assert not torch.equal(weights[0], before[CLASSES.index("still")])


def test_a_registrys_version_says_its_classes(new: RunFolder, network: torch.nn.Module, tmp_path: Path):
    version = tmp_path / "versions" / "v0001"
    version.mkdir(parents=True)
    save_file(network.state_dict(), version / "model.safetensors")
    (version / "version.json").write_text(json.dumps({"classes": CLASSES}))
    grown = replace(SMALL, classes=4)
    copy_weights(str(version), new, grown, classes=(*CLASSES, "vault"))
    weights = started(new, grown).state_dict()[LAST[0]]
    assert torch.equal(weights[:3], network.state_dict()[LAST[0]])


def test_published_detectors_of_another_depth_or_form_are_refused(new: RunFolder, tmp_path: Path):
    """A deeper network's weights would fit a shallower one that leaves some of them out."""
    from posture.models.detector_configs import YOLOv5, YOLOv7
    from posture.models.yolov5 import published_names
    from posture.models.yolov7 import published_names as names_of_7

    small, deep = YOLOv5(classes=3, size=64, width=0.125), YOLOv5(classes=3, size=64, width=0.125, depth=0.67)
    tensors = build(deep).state_dict()
    torch.save({theirs: tensors[ours] for theirs, ours in published_names(deep).items()}, tmp_path / "deep.pt")
    with pytest.raises(
        InputError,
        match=r"deep.pt has a tensor model\.2\.m\.1\.\S+, which this network lacks; it was saved from another .*depth",
    ):
        copy_weights(str(tmp_path / "deep.pt"), new, small, classes=CLASSES)
    config = YOLOv7(classes=3, size=64, width=0.125)
    tensors = build(config).state_dict()
    published = {theirs: tensors[ours] for theirs, ours in names_of_7(config).items()} | {
        "model.105.anchors": torch.ones(3, 3, 2)
    }
    torch.save(published, tmp_path / "training.pt")
    assert (
        copy_weights(str(tmp_path / "training.pt"), new, config, classes=CLASSES)
        == f"starting from {tmp_path / 'training.pt'}"
    )
    taken = load_file(new.path(START))
    assert taken.keys() == tensors.keys() and all(torch.equal(taken[name], tensor) for name, tensor in tensors.items())
    torch.save(
        {name: tensor for name, tensor in published.items() if "implicit" not in name}, tmp_path / "inference.pt"
    )
    with pytest.raises(
        InputError,
        match=r"no tensor model\.105\.i\S+, which a published YOLOv7 in training form has; save .*yolov7_training.pt",
    ):
        copy_weights(str(tmp_path / "inference.pt"), new, config, classes=CLASSES)
