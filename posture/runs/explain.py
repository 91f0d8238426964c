"""Explain a prediction: a run's probabilities for a video, where and when its attention weighs most, and Grad-CAM.

Legend: T frames of the clip, K classes.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from posture.config import ActionRun
from posture.data.feed.video_window import Window, cut_window
from posture.data.store.schema import DecodeRecipe
from posture.display import heatmaps
from posture.errors import InputError
from posture.runs.folder import RunFolder
from posture.runs.trained import refuse_pretrained_only

if TYPE_CHECKING:
    from posture.models.evidence import Evidence

KEY_FRAMES = 4
"""Maximum number of key frames."""
EVEN = 0.05
"""Attention weights, 0..1, that differ by less count as equal."""
TOP = 5
"""Number of classes listed with their probabilities."""
TOGETHER = "all blocks together"


@dataclass(frozen=True)
class Explanation:
    """Evidence for the prediction of one run on one clip of a video."""

    run: ActionRun
    checkpoint: str
    video: str
    window: Window
    classes: tuple[str, ...]
    probabilities: np.ndarray
    """(K,) float32."""
    target: int
    """Index of the class that Grad-CAM explains."""
    evidence: Evidence
    flow: np.ndarray | None
    """(T - 1, H, W, 2) uint8, encoded as in `posture/data/decode/optical_flow.py`; None without flow."""
    device: str

    @property
    def explained(self) -> str:
        """Name of the class `target`."""
        return self.classes[self.target]

    @property
    def top(self) -> list[tuple[str, float]]:
        """Most probable classes with their probabilities, at most `TOP`."""
        return [
            (self.classes[place], float(self.probabilities[place]))
            for place in np.argsort(-self.probabilities, kind="stable")[:TOP]
        ]

    @property
    def temporal(self) -> dict[str, np.ndarray]:
        """Weights over the clip's frames, (T,) float64, of each block with attention over time; if there are several,
        their product comes last.
        """
        frames = len(self.window.frames)
        curves = {
            block.name: heatmaps.over_time(block.temporal, frames)
            for block in self.evidence.attention
            if block.temporal is not None
        }
        return curves | ({TOGETHER: np.prod(list(curves.values()), axis=0)} if len(curves) > 1 else {})

    @property
    def is_level(self) -> bool:
        """True if attention over time prefers no frame."""
        return bool(self.temporal) and float(np.ptp(list(self.temporal.values())[-1])) < EVEN

    @property
    def key_frames(self) -> list[int]:
        """Frames with the highest weights of attention over time, in order; [] without such attention."""
        return peaks(list(self.temporal.values())[-1]) if self.temporal else []


def explain(
    folder: RunFolder, video: str, *, start: float | None = None, class_name: str | None = None, which: str = "best"
) -> Explanation:
    """Cut one clip of `video` as in the run's store, classify it, and gather evidence for `class_name` (or the most
    probable class).

    The clip begins at `start` seconds, or is the middle of the video. Raises InputError: no checkpoint `which`, an
    unknown class, no readable video, a video too short, a start past its end.
    """
    import torch

    from posture.data.decode.optical_flow import METHODS, flow_of_clip
    from posture.data.feed.clip_transforms import evaluation_view, network_inputs
    from posture.models.evidence import evidence
    from posture.runs.weights import load_network
    from posture.tasks.action import probabilities
    from posture.train.checkpoint import read_state
    from posture.train.context import LocalContext

    record = folder.record()
    run, classes = record.run, record.classes
    if not isinstance(run, ActionRun):
        raise InputError(
            f"{folder.uri} is a detector ({run.model.kind}), and posture explain is for action classifiers; a "
            f"detector's hits and errors are in the report of: posture evaluate {folder.uri}"
        )
    refuse_pretrained_only(run, folder.uri)
    asked = None if class_name is None else _class_index(class_name, classes)
    ctx = LocalContext()
    with folder.checkpoint(which) as checkpoint:
        model, epoch = load_network(run, checkpoint), read_state(checkpoint)["epoch"]
    window = cut_window(
        video, DecodeRecipe.parse(run.data.recipe), frames=run.model.frames, step=run.data.step, start=start
    )
    stored = {"rgb": window.frames}
    if "flow" in run.model.inputs:
        stored["flow"] = flow_of_clip(window.frames, run.data.flow or METHODS[0])
    view = evaluation_view(window.frames.shape[1:3], clips=1)
    inputs = network_inputs(
        {name: torch.from_numpy(stored[name])[None].to(ctx.device) for name in run.model.inputs},
        view,
        data=run.data,
        size=run.model.size,
    )
    model = model.to(ctx.device)
    with torch.inference_mode():
        scores = probabilities(model(*inputs))[0].cpu().numpy()
    target = int(scores.argmax()) if asked is None else asked
    return Explanation(
        run,
        f"{which}, epoch {epoch}",
        video,
        window,
        classes,
        scores,
        target,
        evidence(model, inputs, target=target),
        stored.get("flow"),
        ctx.device_name,
    )


def peaks(weights: np.ndarray) -> list[int]:
    """Return the frames where weights (T,) are highest: the maximum, and other local maxima above the middle of their
    range; in order, at most `KEY_FRAMES`.

    Adjacent frames of equal weight are represented by the middle one.
    """
    steps = np.flatnonzero(~np.isclose(weights[1:], weights[:-1], rtol=0.0, atol=1e-9)) + 1
    runs = np.split(np.arange(len(weights)), steps)
    heights = np.array([weights[run[0]] for run in runs])
    beside = np.concatenate([[-np.inf], heights, [-np.inf]])
    middle = (heights.min() + heights.max()) / 2
    found = [
        place
        for place, height in enumerate(heights)
        if height > max(beside[place], beside[place + 2]) and height >= middle
    ]
    highest = sorted(found, key=lambda place: -heights[place])[:KEY_FRAMES]
    return sorted(int(runs[place][(len(runs[place]) - 1) // 2]) for place in highest)


def _class_index(name: str, classes: tuple[str, ...]) -> int:
    """Return the index of a class. Raises InputError that suggests similar names."""
    if name not in classes:
        near = difflib.get_close_matches(name, classes, n=3) or classes[:8]
        more = f", ... ({len(classes)} in all)" if len(near) < len(classes) else ""
        raise InputError(f"--class {name!r}: the run has no such class; it has {', '.join(near)}{more}")
    return classes.index(name)
