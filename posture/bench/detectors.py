"""Speed of the detectors beside torchvision's and Ultralytics': `python -m posture.bench.detectors`.

All networks are timed in turn, in several rounds, so that a slow moment of the machine affects all of them. The table
has the median and, in brackets, the tenth and the ninetieth percentile of single passes. Ratios are taken of the
rounds' medians, round by round. Networks are fused for inference, channels last, and eager. On a GPU they are also
recorded as CUDA graphs (`graphed`), except for torchvision's, which wait for the GPU within. Two kinds of work are
timed:

* `forward`: from images on the device to raw outputs, before boxes are decoded. torchvision's networks have no such
  point: they suppress overlaps inside.
* `whole`: from images on the device to the final boxes, with each network's own decoding and suppression of overlaps.

Weights are random and so is the image, of which batches are copies. Outputs are scaled so that scores differ, and each
network's threshold lets 300 boxes of an image through to suppression. GFLOPs are twice the multiply-accumulates of
convolutions and matrix products, for one image. Rows of networks from ultralytics or torchvision need those packages.
"""

# torch types every submodule as Tensor | Module
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportOperatorIssue=false

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from posture.bench import chosen, publish, ratio
from posture.errors import InputError
from posture.models import build
from posture.models.detector_configs import IMPROVED_YOLOV5, SSD300, FasterRCNN, YOLOv5, YOLOv7
from posture.models.fuse import channels_last, fuse
from posture.models.graphs import Graphed
from posture.models.summary import image_gflops
from posture.models.ultralytics_blocks import ultralytics_blocks
from posture.tasks.detection import DetectionTask

CLASSES = 80
CANDIDATES = 300
"""Number of an image's boxes above the threshold, and the maximum number kept."""
OVERLAP = 0.6
SSD_SIZE = 300
"""Side of SSD300's images in pixels, regardless of the others' side."""
YAML = {"yolov5su": "yolov5s.yaml", "yolo11s": "yolo11s.yaml"}
"""Ultralytics' own networks."""
COMPARED = {"improved": ("yolov5s", "yolov5su")}
"""Networks whose time is printed as a ratio, and the networks it is divided by."""
PUBLISHED: dict[str, tuple[float, float, str]] = {
    "yolov5s": (7.2, 16.5, ""),
    "yolov7": (36.9, 104.7, "fused"),
    "ssd300": (35.6, 2 * 34.858, "90 classes, at 300 pixels"),
    "faster_rcnn": (41.8, 2 * 134.38, "90 classes, at 800 pixels"),
    "yolov5su": (9.15, 24.2, ""),
    "yolo11s": (9.46, 21.8, ""),
}
"""Parameters in 1e6 and GFLOPs as stated by the networks' authors or libraries, for 640 pixels and 80 classes unless
stated otherwise.
"""


@dataclass(frozen=True)
class DetectorSettings:
    """Settings that are equal for all networks."""

    device: str
    batches: tuple[int, ...]
    """Images of a batch; each network is timed with each number."""
    rounds: int
    images: int = 1
    """Images per network and round, in single batches; at least one batch."""
    warm_ups: int = 3
    threads: int = 1
    """CPU threads."""
    modes: tuple[str, ...] = ("eager",)
    """"eager", "graphed" or both."""
    precisions: tuple[str, ...] = ("fp32",)
    """"fp32", "bf16" (autocast) or both."""


class Yolo:
    """One of our YOLO networks, fused.

    Every `Detector` below has these methods: `forward` returns raw outputs, `look` returns the input of `find`, and
    `find` returns the scores of at most `most` boxes in each image, best first.
    """

    def __init__(self, config: YOLOv5 | YOLOv7) -> None:
        network = build(config)
        _scale(
            network,
            [layer for layer in network.head.levels.modules() if isinstance(layer, nn.Conv2d)],
            size=config.size,
        )
        self.size, self.trained, self.network = config.size, _numbers(network), fuse(network)
        self.detect = SimpleNamespace(confidence=0.0, overlap=OVERLAP, nms_overlap="iou", most=CANDIDATES)
        self.task = DetectionTask(
            SimpleNamespace(model=config, loss=None, detect=self.detect),
            tuple(str(label) for label in range(config.classes)),
        )

    def forward(self, images: Tensor) -> Any:
        return self.network(images)

    look = forward

    def find(
        self, outputs: Any, *, confidence: float, overlap: float = OVERLAP, most: int = CANDIDATES
    ) -> list[Tensor]:
        self.detect.confidence, self.detect.overlap, self.detect.most = confidence, overlap, most
        return [found.scores for found in self.task.detect(outputs)]


class Torchvision:
    """SSD300 or Faster R-CNN: `find` does everything."""

    forward = look = None

    def __init__(self, config: SSD300 | FasterRCNN) -> None:
        self.network = build(config).eval().requires_grad_(False)
        self.size, self.trained = config.size, _numbers(self.network)
        if config.kind == "fasterrcnn":
            self.last, rpn = self.network.roi_heads, self.network.rpn.head
            predictors = [
                rpn.cls_logits,
                rpn.bbox_pred,
                self.last.box_predictor.cls_score,
                self.last.box_predictor.bbox_pred,
            ]
        else:
            self.last, head = self.network, self.network.head
            predictors = [*head.classification_head.module_list, *head.regression_head.module_list]
        _scale(self.network, predictors, size=config.size, normed=self.network.backbone)

    def find(
        self, images: Tensor, *, confidence: float, overlap: float = OVERLAP, most: int = CANDIDATES
    ) -> list[Tensor]:
        self.last.score_thresh, self.last.nms_thresh, self.last.detections_per_img = confidence, overlap, most
        return [found.scores for found in self.network(images)]


class Ultralytics:
    """A network of Ultralytics' by the name of its layer table, fused by its own `fuse`."""

    def __init__(self, yaml: str, size: int) -> None:
        ultralytics_blocks()  # its import changes the process, unless it comes through here first
        from ultralytics.nn.tasks import DetectionModel
        from ultralytics.utils.nms import non_max_suppression

        # where it has been imported, suppression is torchvision's, which is much faster
        with suppress(ImportError, RuntimeError):
            importlib.import_module("torchvision")
        network = DetectionModel(yaml, nc=CLASSES, verbose=False)
        _scale(network, [branch[-1] for branch in (*network.model[-1].cv2, *network.model[-1].cv3)], size=size)
        self.size, self.trained, self.suppress = size, _numbers(network), non_max_suppression
        self.network = network.eval().fuse(verbose=False).requires_grad_(False)
        self.head = self.network.model[-1]

    def forward(self, images: Tensor) -> Any:
        self.head.training = True  # of the head alone, which then leaves its outputs undecoded, as ours does
        outputs = self.network(images)
        self.head.training = False
        return outputs

    def look(self, images: Tensor) -> Tensor:
        return self.network(images)[0]

    def find(
        self, decoded: Tensor, *, confidence: float, overlap: float = OVERLAP, most: int = CANDIDATES
    ) -> list[Tensor]:
        kept = self.suppress(decoded, confidence, overlap, multi_label=True, max_det=most, nc=CLASSES)
        return [found[:, 4] for found in kept]


Detector = Yolo | Torchvision | Ultralytics


class DetectorBench:
    """A network and a number of images, in one mode and precision: a row of the table."""

    def __init__(
        self,
        name: str,
        detector: Detector,
        gflops: float,
        batch: int,
        settings: DetectorSettings,
        *,
        mode: str = "eager",
        precision: str = "fp32",
    ) -> None:
        self.name, self.detector, self.gflops, self.batch, self.settings = name, detector, gflops, batch, settings
        self.mode, self.precision = mode, precision
        self.images = (
            _image(detector.size)
            .to(settings.device)
            .repeat(batch, 1, 1, 1)
            .contiguous(memory_format=torch.channels_last)
        )
        ran = Graphed if mode == "graphed" else lambda work: work
        self.look = ran(detector.look) if detector.look else lambda images: images
        self.work: dict[str, Callable[[Tensor], Any]] = (
            {"forward": ran(detector.forward)} if detector.forward else {}
        ) | {"whole": self.whole}
        self.rounds: dict[str, list[list[float]]] = {"forward": [], "whole": []}
        self.peak_mib: float | None = None
        with self.autocast():
            everything = detector.find(self.look(self.images[:1]), confidence=0.0, overlap=1.0)[0]
        self.confidence = float(everything[-1]) * (1 - 1e-6)  # whether a score must reach a threshold or pass it

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.settings.device, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    def whole(self, images: Tensor) -> list[Tensor]:
        return self.detector.find(self.look(images), confidence=self.confidence)

    def warm_up(self) -> None:
        """Runs everything untimed; notes the memory that it takes on a GPU, weights and images included, other
        networks and recordings not.
        """
        for work in self.work.values():
            for _ in range(self.settings.warm_ups):
                with self.autocast():
                    work(self.images)
        if self.settings.device == "cuda" and self.mode == "eager":
            own = _bytes([*self.detector.network.parameters(), *self.detector.network.buffers(), self.images])
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_allocated()
            with self.autocast():
                self.whole(self.images)
            self.peak_mib = (torch.cuda.max_memory_allocated() - held + own) / 2**20

    def time_round(self) -> None:
        for kind, work in self.work.items():
            milliseconds = []
            for _ in range(max(1, self.settings.images // self.batch)):
                _synchronise(self.settings.device)
                began = time.perf_counter()
                with self.autocast():
                    work(self.images)
                _synchronise(self.settings.device)
                milliseconds.append(1e3 * (time.perf_counter() - began))
            self.rounds[kind].append(milliseconds)

    def row(self) -> dict[str, Any]:
        """Results as plain values: a list of milliseconds per round for each kind of work, and images per second at
        their median.
        """
        speeds = {
            f"{kind}_images_per_second": 1e3 * self.batch / np.median(np.concatenate(rounds)).item()
            for kind, rounds in self.rounds.items()
            if rounds
        }
        return {
            "name": self.name,
            "size": self.detector.size,
            "batch": self.batch,
            "mode": self.mode,
            "precision": self.precision,
            "parameters": self.detector.trained,
            "parameters_as_timed": _numbers(self.detector.network),
            "gflops": self.gflops,
            **{f"{kind}_ms": rounds for kind, rounds in self.rounds.items()},
            **speeds,
            "peak_mib": self.peak_mib,
        }


def measure(settings: DetectorSettings, configs: dict[str, Any]) -> dict[str, Any]:
    """Return `{"settings", "rows", "ratios", "left_out"}`, see `DetectorBench.row` and `ratios`.

    `configs` has a configuration by name, or for a network of Ultralytics' the name of its table and the images' side.
    Networks that cannot be imported are left out, with the reason.
    """
    entries, left_out = [], []
    torch.set_num_threads(settings.threads)
    for name, config in configs.items():
        torch.manual_seed(0)
        try:
            detector = _detector(config)
        except (InputError, ImportError) as error:
            left_out.append(f"{name}: {error}")
            continue
        gflops = image_gflops(detector.network, detector.size)
        channels_last(detector.network.to(settings.device))
        with torch.inference_mode():
            entries += [
                DetectorBench(name, detector, gflops, batch, settings, mode=mode, precision=precision)
                for batch in settings.batches
                for mode in settings.modes
                for precision in settings.precisions
                if mode == "eager" or detector.look
            ]
    with torch.inference_mode():
        for entry in entries:
            entry.warm_up()
        for _ in range(settings.rounds):
            for entry in entries:
                entry.time_round()
    rows = [entry.row() for entry in entries]
    return {"settings": _described(settings), "rows": rows, "ratios": ratios(rows), "left_out": left_out}


def ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return ratios of each round's median milliseconds: `{"of", "to", "batch", "mode", "precision", "work", "median",
    "least", "most"}`.
    """
    same = ("batch", "mode", "precision")
    by_key = {(row["name"], *(row[what] for what in same)): row for row in rows}
    return [
        {
            "of": ours,
            "to": theirs,
            **dict(zip(same, how, strict=True)),
            "work": work,
            **ratio(_medians(row[f"{work}_ms"]), _medians(other[f"{work}_ms"])),
        }
        for (ours, *how), row in by_key.items()
        for theirs in COMPARED.get(ours, ())
        if (other := by_key.get((theirs, *how)))
        for work in ("forward", "whole")
    ]


def lines(result: dict[str, Any]) -> Iterator[str]:
    """Yield the measurements as tables of text."""
    settings, rows = result["settings"], result["rows"]
    yield f"{settings['hardware']}, torch {settings['torch']}, {settings['threads']} CPU threads"
    yield (
        f"fused, channels last; median (10th-90th percentile) of single passes in {settings['rounds']} "
        f"round{'s' * (settings['rounds'] > 1)}; "
        f"whole: with boxes decoded and suppressed, {CANDIDATES} candidates of an image"
    )
    if settings["tf32"]:
        yield "fp32: convolutions and matrix products run as TF32; bf16: autocast"
    sizes = f"{'M parameters':>14}{'as timed':>10}{'published':>11}{'GFLOPs':>9}{'published':>11}"
    yield f"{'network':<13}{'pixels':>7}{sizes}"
    for row in {row["name"]: row for row in rows}.values():
        millions, gflops, where = PUBLISHED.get(row["name"], (None, None, ""))
        sizes = f"{row['parameters'] / 1e6:>14.2f}{row['parameters_as_timed'] / 1e6:>10.2f}"
        sizes += f"{'-' if millions is None else f'{millions:g}':>11}{row['gflops']:>9.1f}"
        sizes += f"{'-' if gflops is None else f'{gflops:.1f}':>11}"
        yield f"{row['name']:<13}{row['size']:>7}{sizes}{f'  ({where})' if where else ''}"
    yield (
        "GFLOPs: twice the multiply-accumulates, for one image; published: as stated by its authors, "
        f"for 640 pixels and {CLASSES} classes unless stated otherwise"
    )
    work = f"{'forward ms':>27}{'images/s':>11}{'whole ms':>27}{'images/s':>11}"
    yield f"{'network':<13}{'mode':<9}{'type':<5}{'batch':>6}{work}{'peak MiB':>10}"
    for row in rows:
        work = "".join(
            f"{_shown(row[f'{kind}_ms']):>27}{_figure(row.get(f'{kind}_images_per_second')):>11}"
            for kind in ("forward", "whole")
        )
        peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:.0f}"
        yield f"{row['name']:<13}{row['mode']:<9}{row['precision']:<5}{row['batch']:>6}{work}{peak:>10}"
    for found in result["ratios"]:
        yield (
            f"time of {found['of']} / {found['to']}, batch {found['batch']}, {found['mode']} {found['precision']}, "
            f"{found['work']}: {found['median']:.2f} ({found['least']:.2f}-{found['most']:.2f})"
        )
    for reason in result["left_out"]:
        yield f"left out: {reason}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m posture.bench.detectors", description=str(__doc__).split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--size", type=int, default=640, help="height and width in pixels, a multiple of 32 (SSD300 always has 300)"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16], help="images in a batch")
    parser.add_argument("--rounds", type=int, default=5, help="how often each network is timed")
    parser.add_argument("--networks", nargs="+", metavar="NAME", dest="only", help="only these")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    try:
        run(**vars(parser.parse_args(arguments)))
    except InputError as error:
        parser.error(str(error))


def run(
    *,
    device: str,
    rounds: int,
    batch: Sequence[int] = (1, 16),
    size: int = 640,
    only: Sequence[str] | None = None,
    json: Path | None = None,
) -> None:
    """Measure, print the table, and write the figures to `json`. Raises InputError."""
    gpu = device == "cuda"
    if gpu and not torch.cuda.is_available():
        raise InputError("--device cuda: torch finds no GPU here; use --device cpu")
    if min(batch) < 1 or rounds < 1:
        raise InputError("--batch and --rounds must be at least 1")
    if size < 64 or size % 32:
        raise InputError(f"--size must be a multiple of 32, at least 64, not {size}")
    settings = DetectorSettings(
        device=device,
        batches=tuple(batch),
        rounds=rounds,
        images=64 if gpu else 3,
        warm_ups=3 if gpu else 1,
        threads=torch.get_num_threads(),
        modes=("eager", "graphed") if gpu else ("eager",),
        precisions=("fp32", "bf16") if gpu else ("fp32",),
    )
    # shapes are fixed: let cuDNN pick its fastest convolutions, for every network alike
    torch.backends.cudnn.benchmark = True
    if gpu:
        # as convolutions are by default, and here too for every network alike
        torch.set_float32_matmul_precision("high")
    result = measure(settings, chosen(networks(size), only))
    publish(result, lines(result), json)


def networks(size: int) -> dict[str, Any]:
    """Every detector by name, for images of `size` x `size`, as `measure` takes them."""
    same: dict[str, Any] = {"classes": CLASSES, "size": size}
    ours = {"improved": YOLOv5(**IMPROVED_YOLOV5, **same), "yolov5s": YOLOv5(**same), "yolov7": YOLOv7(**same)}
    theirs = {"ssd300": SSD300(classes=CLASSES, size=SSD_SIZE), "faster_rcnn": FasterRCNN(**same)}
    return ours | theirs | {name: (yaml, size) for name, yaml in YAML.items()}


def _detector(config: Any) -> Detector:
    """Raises InputError or ImportError where what it is made of does not import."""
    if isinstance(config, tuple):
        return Ultralytics(*config)
    return Torchvision(config) if config.takes_targets else Yolo(config)


def _image(size: int) -> Tensor:
    """(1, 3, size, size), random from coarse to fine: in mere noise every place would be the same to a network that
    sees far.
    """
    generator = torch.Generator().manual_seed(0)
    layers = [
        functional.interpolate(torch.rand(1, 3, cells, cells, generator=generator), size, mode="bilinear")
        for cells in (4, 16, 64)
    ]
    return torch.cat(layers).mean(0, keepdim=True)


@torch.no_grad()
def _scale(
    network: nn.Module, predictors: Iterable[nn.Conv2d | nn.Linear], *, size: int, normed: nn.Module | None = None
) -> None:
    """Gives a fresh network outputs that differ on the image; leaves it in evaluation mode.

    As they come, most scores of some networks are the same, to the last digit, and those of others 1. Norms take the
    statistics of what they see (of `normed`, the part that can be run in training without targets), and each of the
    `predictors` gets outputs with a standard deviation of 1.
    """
    image = _image(size)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics are means of what was seen
    (network if normed is None else normed).train()(image)

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        deviations.setdefault(layer, float(outputs.std()))

    deviations: dict[nn.Module, float] = {}
    watched = [predictor.register_forward_hook(look) for predictor in predictors]
    network.eval()(image)
    for hook in watched:
        hook.remove()
    for predictor, deviation in deviations.items():
        predictor.weight /= deviation


def _described(settings: DetectorSettings) -> dict[str, Any]:
    gpu = settings.device == "cuda"
    return asdict(settings) | {
        "hardware": torch.cuda.get_device_name() if gpu else "CPU",
        "torch": torch.__version__,
        "tf32": gpu and torch.backends.cudnn.allow_tf32,
    }


def _numbers(network: nn.Module) -> int:
    """Parameters, those too that are not trained any more."""
    return sum(parameter.numel() for parameter in network.parameters())


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    return [float(np.median(times)) for times in rounds]


def _shown(rounds: Sequence[Sequence[float]]) -> str:
    if not rounds:
        return "-"
    low, median, high = np.percentile(np.concatenate(rounds), (10, 50, 90))
    return f"{median:.1f} ({low:.1f}-{high:.1f})"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    main()
