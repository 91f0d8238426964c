"""`posture predict` beside its slowest stage, plain loops in one process, and Ultralytics' predict.

All use networks with random weights, so no athlete is found; frames are decoded, looked at and classified all the same.
Legend: frames per second of a video, decoded from its file; milliseconds of CPU, of all processes, for each frame.
"""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from posture.bench import facts, generated, ratio
from posture.config import override
from posture.data.decode.cut import Clip
from posture.data.decode.sandbox import Sandbox
from posture.data.decode.tracks import MIN_CONFIDENCE
from posture.data.labels.videos import read_footage
from posture.data.store.schema import DecodeRecipe
from posture.predict.model import WAIT_SECONDS, VideoModel
from posture.predict.tracker import TRACKERS, AthleteTracker
from posture.runs.athlete_finder import MOST_OVERLAP, Finder
from posture.runs.recipes import load_recipe
from posture.runs.trained import TrainedModel

RECIPE = DecodeRecipe(128, 171, 16, 2)
SIZES = {"cpu": 320, "cuda": 640}
"""Side of the detectors' input in pixels, by device."""
VIDEOS = 3
BATCH = 16


def measure(*, rounds: int, footage: str | None) -> dict[str, Any]:
    """Return {"what", "measured": {label: frames/s by round}, "ratios", "notes"}."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = SIZES[device]
    found = [video.file.uri for video in read_footage(footage or generated(videos=20, size=(480, 640))).videos]
    videos = found[:VIDEOS]
    classifier = _untrained("jobs/action.py:improved", **{"data.recipe": str(RECIPE), "model.classes": 10})
    detector = _untrained("jobs/detector.py:improved", **{"model.size": size, "model.classes": 1})
    yolov5s = _untrained("jobs/detector.py:yolov5s", **{"model.size": size, "model.classes": 1})
    both, athletes = VideoModel(classifier, detector=detector), VideoModel(detector=yolov5s)
    looks, windows = _in_memory(both, videos)
    ways: dict[str, Callable[[], Any]] = {
        "decoding alone": lambda: _decode(both, videos),
        "detector alone": lambda: [both.find(part) for part in looks],
        "classifier alone": lambda: [both.probabilities(part) for part in windows],
        "posture predict": lambda: [both.predict(video) for video in videos],
        "plain loop": _plain(both, videos, _as_loaded(detector), _classify(classifier)),
        "plain loop, fused detector": _plain(both, videos, Finder(detector), _classify(classifier)),
        "posture predict, YOLOv5s alone": lambda: [athletes.predict(video) for video in videos],
        "ultralytics predict, YOLOv5su": _ultralytics(videos, size),
    }
    frames = sum(len(part) for part in looks)
    measured: dict[str, list[float]] = {name: [] for name in ways}
    used: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():  # the first pays for loading
        way()
    for number in range(rounds):
        for name, way in list(ways.items())[:: 1 if number % 2 else -1]:
            began, before = time.perf_counter(), sum(os.times()[:4])
            way()
            measured[name].append(frames / (time.perf_counter() - began))
            used[name].append(1e3 * (sum(os.times()[:4]) - before) / frames)
    slowest = min(list(ways)[:3], key=lambda name: float(np.median(measured[name])))
    ours = measured["posture predict"]
    return {
        "what": "predict: "
        + facts(videos=len(videos), frames=frames, device=device, detector_size=size, recipe=RECIPE),
        "measured": {f"{name}, frames/s": values for name, values in measured.items()}
        | {f"{name}, CPU ms/frame": values for name, values in used.items()},
        "ratios": {
            f"posture predict / slowest stage ({slowest})": ratio(ours, measured[slowest]),
            **{f"posture predict / {name}": ratio(ours, measured[name]) for name in ways if "loop" in name},
            "YOLOv5s in posture predict / ultralytics predict": ratio(
                measured["posture predict, YOLOv5s alone"], measured["ultralytics predict, YOLOv5su"]
            ),
        },
        "notes": [
            "weights are random: no athlete is found, and windows are classified as whole frames",
            "plain loop: decord, the networks as they are loaded, frame by frame, one process, torch's own threads",
            "plain loop, fused detector: the same with the detector that posture predict prepares",
        ],
    }


def _untrained(recipe: str, **changes: Any) -> TrainedModel:
    """Return a recipe's model with random weights."""
    from safetensors.torch import save

    from posture.runs.weights import build_network

    run = override(load_recipe(recipe), changes)
    return TrainedModel(
        "", run, tuple(f"class {n}" for n in range(run.model.classes)), save(build_network(run).state_dict())
    )


def _decode(model: VideoModel, videos: list[str]) -> list[Clip]:
    found: list[Clip] = []
    for video in videos:
        with Sandbox() as sandbox:
            asked = {"recipe": RECIPE, "longest": model.look_size, "limit_seconds": WAIT_SECONDS}
            found += [item for item in sandbox.stream(video, **asked) if isinstance(item, Clip)]
    return found


def _in_memory(model: VideoModel, videos: list[str]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Return the frames that the detector gets, and the windows that the classifier gets, in the batches of predict."""
    looks, windows = [], []
    for video in videos:
        frames = []
        for clip in _decode(model, [video]):
            images = np.frombuffer(clip.pixels, np.uint8).reshape(-1, clip.row["height"], clip.row["width"], 3)
            if clip.row["role"] == "search":
                looks.append(images)
            else:
                frames += list(images)
        numbers = model.sampling.slide(range(len(frames)), 0.5) + model.sampling.spread(range(len(frames)))
        windows += [np.stack([frames[number] for number in window]) for window in numbers]
    return looks, [windows[begin : begin + BATCH] for begin in range(0, len(windows), BATCH)]


def _plain(
    model: VideoModel, videos: list[str], find: Callable[..., Any], classify: Callable[[np.ndarray], Any]
) -> Callable[[], None]:
    """Return a loop that decodes, finds, tracks and classifies frame by frame."""
    import torch  # noqa: F401, I001  before decord, which crashes otherwise
    import cv2
    import decord

    def predict(video: str) -> None:
        reader = decord.VideoReader(video)
        tracker = AthleteTracker(TRACKERS[0], fps=reader.get_avg_fps())
        frames: list[np.ndarray] = []
        last = {window[-1]: window for window in model.sampling.slide(range(len(reader)), 0.5)}
        for number in range(len(reader)):
            frame = reader[number].asnumpy()
            scale = min(1.0, model.look_size / max(frame.shape[:2]))
            small = cv2.resize(frame, None, fx=scale, fy=scale)
            ((boxes, scores),) = find(small[None])
            tracker.update(number, number / reader.get_avg_fps(), boxes, scores, small)
            frames.append(cv2.resize(frame, (RECIPE.width, RECIPE.height)))
            if window := last.get(number):
                classify(np.stack([frames[index] for index in window]))

    def loop() -> None:
        for video in videos:
            predict(video)

    return loop


def _as_loaded(detector: TrainedModel) -> Callable[[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Return the detector's network as a checkpoint gives it, with neither fused layers nor channels last."""
    from posture.runs.weights import load_network
    from posture.tasks.detection import DetectionTask
    from posture.train.context import LocalContext
    from posture.train.detect import detect_frames

    run = override(detector.run, {"detect.confidence": MIN_CONFIDENCE, "detect.overlap": MOST_OVERLAP})
    device, task = LocalContext().device, DetectionTask(run, detector.classes)
    with detector.folder() as place:
        network = load_network(run, place).to(device)
    return lambda frames: [found[:2] for found in detect_frames(network, task, frames, run, device)]


def _classify(classifier: TrainedModel) -> Callable[[np.ndarray], Any]:
    """Return a function that classifies one window."""
    import torch

    from posture.runs.weights import load_network
    from posture.tasks.action import probabilities
    from posture.train.context import LocalContext
    from posture.train.evaluate import clip_outputs
    from posture.train.optim import Precision

    run, device = classifier.run, LocalContext().device
    with classifier.folder() as place:
        network = load_network(run, place).to(device)
    precision = Precision(run.scale.amp, device)

    @torch.inference_mode()
    def classify(clip: np.ndarray) -> Any:
        return probabilities(clip_outputs(network, [(clip,)], run, device, precision=precision)).cpu()

    return classify


def _ultralytics(videos: list[str], size: int) -> Callable[[], None]:
    from posture.models.ultralytics_blocks import import_ultralytics

    network = import_ultralytics("ultralytics", need="the benchmark compares with it").YOLO(
        "yolov5su.yaml", verbose=False
    )

    def predict() -> None:
        with tempfile.TemporaryDirectory(prefix="posture-bench-") as folder:
            for video in videos:
                options = {"imgsz": size, "stream": True, "verbose": False, "save": False, "project": folder}
                for _ in network.predict(source=video, **options):
                    pass

    return predict
