"""The differences between studies of the two tasks: choice of learning rates, results, costs."""

# types of libraries are narrower, or wider, than what they take and give
# pyright: reportArgumentType=false

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from posture.compare.action import SeedResult
from posture.compare.detection import DetectionResult
from posture.data.store.checked import read_parquet
from posture.data.store.tables import Store
from posture.runs.folder import Evaluation
from posture.runs.kinds import KINDS

if TYPE_CHECKING:
    from posture.compare.study import Job


class ActionStudy:
    """Studies of action classifiers."""

    criterion = "the least validation loss"
    """Criterion for the choice of the learning rate, in words."""
    latency = "latency: one clip, after all runs"

    def rate_cost(self, history: list[dict[str, Any]]) -> float:
        """Return the value that a learning rate is chosen to minimize; inf if the run diverged in its first epoch."""
        return min((record["val_loss"] for record in history), default=math.inf)

    def result(self, job: Job, scored: Evaluation) -> SeedResult:
        """Return what a run scored on test."""
        table = read_parquet(scored.path("predictions.parquet"), ("segment", "label", "scores"))
        return SeedResult(
            job.run.seed,
            job.folder.uri,
            job.history,
            scored.metrics,
            table["segment"].to_pylist(),
            table["label"].to_numpy(),
            np.stack(table["scores"].to_pylist()),
        )

    def costs(self, run: Any, model: Any, *, timed: bool) -> dict[str, Any]:
        """Return the compute of one clip and, if `timed`, its latency in milliseconds."""
        import torch

        from posture.models.summary import latency_ms

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        latency = latency_ms(model, run.model, device=device) if timed else None
        return {"gmacs": KINDS["action"].compute(run, model), "latency_ms": latency}

    def groups(self, store: Store, index: Any, versions: dict[str, int]) -> dict[str, str]:
        """Return the group of each segment or image."""
        rows = store.read("segments", version=versions["segments"]).to_pylist()
        return {row["segment"]: row["group"] for row in rows}

    def facts(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {"majority_accuracy": metrics["majority_accuracy"]}


class DetectionStudy:
    """Studies of detectors."""

    criterion = "the highest mAP@0.5:0.95 on val"
    latency = "milliseconds and FPS: one image at a time, after each run"

    def rate_cost(self, history: list[dict[str, Any]]) -> float:
        return min((-record["val_map50_95"] for record in history), default=math.inf)

    def result(self, job: Job, scored: Evaluation) -> DetectionResult:
        # older runs have no ignore regions
        names, later = ("boxes", "scores", "labels", "true_boxes", "true_labels"), ("ignored", "ignored_labels")
        table = read_parquet(scored.path("predictions.parquet"), ("image", *names))
        columns = (table[name].to_pylist() for name in (*names, *later) if name in table.column_names)
        images = [image_arrays(*image) for image in zip(*columns, strict=True)]
        return DetectionResult(
            job.run.seed, job.folder.uri, job.history, scored.metrics, table["image"].to_pylist(), images
        )

    def costs(self, run: Any, model: Any, *, timed: bool) -> dict[str, Any]:
        """Return the compute of one image; its latency is measured with NMS, by the evaluation."""
        return {"gmacs": KINDS["detection"].compute(run, model)}

    def groups(self, store: Store, index: Any, versions: dict[str, int]) -> dict[str, str]:
        return dict(zip(index.keys, index.groups, strict=True))

    def facts(self, metrics: dict[str, Any]) -> dict[str, Any]:
        return {}


TASKS: dict[str, ActionStudy | DetectionStudy] = {"action": ActionStudy(), "detection": DetectionStudy()}


def image_arrays(boxes: Any, scores: Any, labels: Any, *there: Any) -> tuple[np.ndarray, ...]:
    """Return arrays; `there` are true boxes and their labels, and perhaps ignore regions and theirs."""
    truth = [
        np.array(values, dtype=np.int64) if at % 2 else np.array(values, dtype=np.float32).reshape(-1, 4)
        for at, values in enumerate(there)
    ]
    return (
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.array(labels, dtype=np.int64),
        *truth,
    )
