"""YOLOv5 and its toggles: sizes, ultralytics' own layers as a second opinion, gradients, published weights."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from posture.errors import InputError
from posture.models import build
from posture.models.attention import CBAM
from posture.models.detector_configs import IMPROVED_YOLOV5, YOLOv5
from posture.models.fuse import fuse
from posture.models.summary import parameters
from posture.models.yolov5 import from_published, published_names
from tests.support.random_weights import randomised

pytestmark = pytest.mark.long

NARROW = {"classes": 3, "width": 0.0625, "size": 64, "window": 4}
TOGGLES = [
    {"stem": "focus"},
    {"swin": True},
    {"swin": True, "window": 3},
    {"attention": "cbam"},
    {"attention": "cbam", "placement": "backbone"},
    {"attention": "cbam", "placement": "all"},
    {"attention": "cbam", "attention_pool": "avgmax"},
    {"classes": 1},
    {"depth": 0.67},
    {"width": 0.13},
    {"anchors": (((8, 8), (16, 12)), ((20, 30), (40, 30)), ((60, 60), (90, 200)))},
]


def compatible(first: dict, second: dict) -> bool:
    return all(second.get(field, value) == value for field, value in first.items())


PAIRS = [
    {**first, **second} for first, second in itertools.combinations([{}, *TOGGLES[:8]], 2) if compatible(first, second)
]
"""With nothing, each toggle alone."""


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("depth", "width", "published"),
    [(0.33, 0.25, 1_872_157), (0.33, 0.5, 7_235_389), (0.67, 0.75, 21_190_557), (1.0, 1.0, 46_563_709)],
    ids="nsml",
)
def test_published_sizes(depth: float, width: float, published: int):
    with torch.device("meta"):
        assert parameters(build(YOLOv5(depth=depth, width=width))) == published


@pytest.mark.parametrize(("config", "published"), [(YOLOv5(), 16.5), (YOLOv5(width=0.25), 4.5)], ids="sn")
def test_published_cost(config: YOLOv5, published: float):
    """GFLOP for 640 pixels, as published (which count norms too)."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        build(config)(torch.empty(1, 3, 640, 640))
    assert counter.get_total_flops() / 1e9 == pytest.approx(published, rel=0.02)


def test_one_class_has_the_published_size_too():
    with torch.device("meta"):
        assert parameters(build(YOLOv5(classes=1))) == 7_022_326


def test_improved_size_adds_up():
    """A 3x3 kernel of 12 channels in place of one of 6x6 and 3 has as many weights; two Swin blocks stand for a
    bottleneck; CBAM on three outputs.
    """
    bottleneck = 256 * 256 * 10 + 4 * 256
    # four matrices, three biases, temperatures, the bias network
    attention = 4 * 256 * 256 + 3 * 256 + 8 + (2 * 512 + 512 + 512 * 8)
    mlp = 2 * 4 * 256 * 256 + 5 * 256
    swin = 2 * (attention + mlp + 4 * 256)
    spatial = 49 * 8 + 8 + 49 * 8 + 1
    cbam = sum(2 * width * max(8, width // 16) + max(8, width // 16) + width + spatial for width in (128, 256, 512))
    with torch.device("meta"):
        assert parameters(build(YOLOv5(**IMPROVED_YOLOV5))) == 7_235_389 - bottleneck + swin + cbam


@pytest.mark.parametrize("changes", [{}, *PAIRS, *TOGGLES[8:]], ids=str)
def test_every_toggle_alone_and_in_pairs_trains(changes: dict):
    config = YOLOv5(**{**NARROW, **changes})
    network = build(config)
    outputs = network(torch.rand(2, 3, 64, 64))
    anchors = len(config.anchors[0])
    assert [output.shape for output in outputs] == [(2, anchors, side, side, 5 + config.classes) for side in (8, 4, 2)]
    sum(output.square().mean() for output in outputs).backward()
    missing = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.isfinite().all()
    ]
    assert missing == []


@pytest.mark.parametrize(
    "changes", [{}, IMPROVED_YOLOV5, {**IMPROVED_YOLOV5, "placement": "all", "attention_pool": "avgmax"}]
)
def test_gradients_reach_every_parameter(changes: dict):
    # away from the start, where a zero gain lets none through
    network = randomised(build(YOLOv5(**{**NARROW, **changes}))).double().train()
    sum((output * torch.randn_like(output)).sum() for output in network(torch.rand(2, 3, 128, 128).double())).backward()
    assert [
        name
        for name, parameter in network.named_parameters()
        if not (parameter.grad.any() and parameter.grad.isfinite().all())
    ] == []


@pytest.mark.parametrize("classes", [1, 80])
@pytest.mark.parametrize("changes", [{}, IMPROVED_YOLOV5], ids=["plain", "improved"])
def test_any_multiple_of_32(changes: dict, classes: int):
    with torch.device("meta"):
        network = build(YOLOv5(**{**changes, "classes": classes}))
        for height, width in ((320, 320), (416, 416), (640, 640), (96, 160), (352, 608)):
            outputs = network(torch.empty(1, 3, height, width))
            assert [output.shape for output in outputs] == [
                (1, 3, height // stride, width // stride, 5 + classes) for stride in (8, 16, 32)
            ]


def test_odd_sizes_of_a_real_image():
    network = build(YOLOv5(**{**NARROW, **IMPROVED_YOLOV5})).eval()
    with torch.no_grad():
        for height, width in ((32, 32), (96, 160), (352, 32), (416, 416)):
            assert all(output.isfinite().all() for output in network(torch.rand(1, 3, height, width)))


def ultralytics_layers(width: str = "n") -> nn.Sequential:
    """Layers 0 to 23 as ultralytics builds them from its own table for YOLOv5, with the activation that its SPPF has
    lost since.
    """
    from ultralytics.nn.tasks import DetectionModel

    layers = DetectionModel(f"yolov5{width}.yaml", verbose=False).model
    layers[9].cv1.act = nn.SiLU()
    return layers


def run_layers(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    """The inputs of the last layer."""
    results: list[Tensor] = []
    for layer in layers[:-1]:
        sources = [layer.f] if isinstance(layer.f, int) else layer.f
        inputs = [x if source == -1 else results[source] for source in sources]
        x = layer(inputs if len(inputs) > 1 else inputs[0])
        results.append(x)
    return [results[source] for source in layers[-1].f]


def published_state(layers: nn.Sequential, heads: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """A state dict as published YOLOv5 has it: numbered layers, three convolutions in layer 24, and its anchors."""
    state = {f"model.{name}": tensor for name, tensor in layers[:-1].state_dict().items()}
    for level, (weight, bias) in enumerate(heads):
        state |= {f"model.24.m.{level}.weight": weight, f"model.24.m.{level}.bias": bias}
    return state | {"model.24.anchors": torch.rand(3, 3, 2)}


@pytest.fixture(scope="module")
def published() -> tuple[dict[str, Tensor], list[Tensor], Tensor]:
    """A synthetic state dict with the published names, what it computes for an image, and the image."""
    torch.manual_seed(1)
    layers = randomised(ultralytics_layers())
    heads = [(torch.randn(3 * 9, channels, 1, 1) / 8, torch.randn(3 * 9)) for channels in (64, 128, 256)]
    image = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        features = run_layers(layers, image)
        outputs = [
            functional.conv2d(x, *head).view(2, 3, 9, *x.shape[2:]).permute(0, 1, 3, 4, 2)
            for x, head in zip(features, heads, strict=True)
        ]
    return published_state(layers, heads), outputs, image


def test_published_weights_compute_what_they_did(published: tuple):
    state, wanted, image = published
    config = YOLOv5(classes=4, width=0.25)
    network = build(config).eval()
    assert set(published_names(config)) == set(state) - {"model.24.anchors"}
    network.load_state_dict(from_published(state, config))  # strict: every tensor
    with torch.no_grad():
        for output, other in zip(network(image), wanted, strict=True):
            torch.testing.assert_close(output, other, rtol=1e-4, atol=1e-4)


def test_a_published_stem_becomes_a_focus_stem(published: tuple):
    state, wanted, image = published
    config = YOLOv5(classes=4, width=0.25, stem="focus")
    network = build(config).eval()
    network.load_state_dict(from_published(state, config))
    with torch.no_grad():
        for output, other in zip(network(image), wanted, strict=True):
            torch.testing.assert_close(output, other, rtol=1e-4, atol=1e-4)


def test_the_improved_network_takes_published_weights_but_for_its_own_parts(published: tuple):
    state, _, image = published
    config = YOLOv5(classes=4, width=0.25, **IMPROVED_YOLOV5)
    network = build(config).eval()
    missing, unexpected = network.load_state_dict(from_published(state, config), strict=False)
    assert unexpected == [] and {name.split(".")[0] for name in missing} == {
        "stage4",
        "attend_out3",
        "attend_out4",
        "attend_out5",
    }
    assert all(name.startswith("stage4.m.") for name in missing if name.startswith("stage4"))
    plain = build(YOLOv5(classes=4, width=0.25)).eval()
    plain.load_state_dict(from_published(state, YOLOv5(classes=4, width=0.25)))
    with torch.no_grad():
        results = []
        for each in (network, plain):  # the same up to the stage that differs
            each.down4.register_forward_pre_hook(lambda _, inputs: results.append(inputs[0]))
            each(image)
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_weights_of_something_else_are_refused(published: tuple):
    state = dict(published[0])
    state.pop("model.13.cv2.conv.weight")
    with pytest.raises(InputError, match=r"no tensor model\.13\.cv2\.conv\.weight"):
        from_published(state, YOLOv5(classes=4, width=0.25))
    with pytest.raises(InputError, match=r"no tensor model\.0\.conv\.weight"):
        from_published({"stem.conv.weight": torch.zeros(1)}, YOLOv5(classes=4, width=0.25, stem="focus"))


@pytest.mark.parametrize("classes", [1, 80])
def test_a_fresh_head_expects_few_objects(classes: int):
    """Lin 2017: with weights of zero, logits are the priors, on top of torch's uniform biases in +-1/sqrt(fan in)."""
    network = build(YOLOv5(classes=classes))
    for level, stride in enumerate((8, 16, 32)):
        layer = network.head.levels[level]
        biases, slack = layer.bias.detach().view(3, 5 + classes), 1 / math.sqrt(layer.in_channels)
        assert biases[:, :4].abs().max() <= slack
        assert (biases[:, 4] - math.log(8 / (640 / stride) ** 2)).abs().max() <= slack
        assert (biases[:, 5:] - math.log(0.6 / (classes - 0.99999))).abs().max() <= slack + 1e-5


def test_outputs_of_an_anchor_stand_together():
    """Channel a * (5 + K) + k of a level is value k of anchor a."""
    network = build(YOLOv5(**NARROW))
    for layer in network.head.levels:
        nn.init.zeros_(layer.weight)
        layer.bias.data = torch.arange(24.0)
    for output in network(torch.rand(1, 3, 64, 64)):
        assert torch.equal(output[0, :, 1, 1], torch.arange(24.0).view(3, 8))


@pytest.mark.parametrize(
    ("placement", "names"),
    [
        ("neck", {"attend_out3", "attend_out4", "attend_out5"}),
        ("backbone", {"attend1", "attend2", "attend3", "attend4"}),
        ("all", {"attend_out3", "attend_out4", "attend_out5", "attend1", "attend2", "attend3", "attend4"}),
    ],
)
def test_attention_stands_where_it_is_placed(placement: str, names: set[str]):
    network = randomised(build(YOLOv5(**NARROW, attention="cbam", placement=placement)))
    assert {name.split(".")[0] for name, module in network.named_modules() if isinstance(module, CBAM)} == names
    silenced = dict(network.named_modules())
    image = torch.rand(1, 3, 64, 64)
    for name in names:  # each matters to what comes out
        with torch.no_grad():
            before = network(image)
            silenced[f"{name}.cbam.channel.mlp.2"].bias.sub_(3.0)
            assert any(not torch.equal(one, other) for one, other in zip(before, network(image), strict=True)), name


@pytest.mark.parametrize("changes", [{}, IMPROVED_YOLOV5], ids=["plain", "improved"])
def test_weights_survive_safetensors(changes: dict, tmp_path: Path):
    config = YOLOv5(**{**NARROW, **changes})
    network = build(config)
    network(torch.rand(4, 3, 64, 64))  # moves batch statistics
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    again = build(config)
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    image = torch.rand(1, 3, 96, 64)
    with torch.no_grad():
        assert all(
            torch.equal(one, other) for one, other in zip(network.eval()(image), again.eval()(image), strict=True)
        )


def test_norms_are_yolov5s():
    norms = [module for module in build(YOLOv5(**NARROW)).modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 57 and {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.03)}


def test_the_same_seed_gives_the_same_network():
    networks = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        networks.append(nn.utils.parameters_to_vector(build(YOLOv5(**NARROW, **IMPROVED_YOLOV5)).parameters()))
    assert torch.equal(networks[0], networks[1]) and not torch.equal(networks[0], networks[2])


def test_a_few_steps_fit_raw_outputs():
    """The gradient is of use from the first step on: mean squares to fixed targets fall, with every toggle on."""
    network = build(YOLOv5(**{**NARROW, **IMPROVED_YOLOV5, "width": 0.125}))
    image = torch.rand(2, 3, 64, 64)
    targets = [torch.randn_like(output) for output in network(image)]
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        loss = sum(functional.mse_loss(output, target) for output, target in zip(network(image), targets, strict=True))
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.5 * losses[0]


def test_one_graph_holds_the_whole_network():
    """What torch.compile records, run as it is: nothing falls back to Python."""
    network = randomised(build(YOLOv5(**NARROW, **IMPROVED_YOLOV5)))
    compare_compiled(network, torch.compile(network, fullgraph=True, backend="eager"))


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU"
)
def test_compiled_network_computes_the_same():
    network = fuse(randomised(build(YOLOv5(**NARROW, **IMPROVED_YOLOV5))))
    compare_compiled(network, torch.compile(network, fullgraph=True))


def compare_compiled(network: nn.Module, compiled: nn.Module) -> None:
    image = torch.rand(2, 3, 160, 192)
    with torch.no_grad():
        for output, other in zip(compiled(image), network(image), strict=True):
            torch.testing.assert_close(output, other, rtol=1e-3, atol=1e-4)
