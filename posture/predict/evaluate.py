"""Evaluate a classifier on long videos: judge its timelines, and write the result into the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from posture.data.labels.names import first_few
from posture.data.labels.records import LabelledVideos
from posture.data.store.files import File
from posture.data.store.tables import Store
from posture.errors import InputError
from posture.predict.model import VideoModel
from posture.predict.untrimmed import judge_untrimmed, trained_on
from posture.predict.untrimmed_page import write_untrimmed
from posture.runs.evaluate import unfinished
from posture.runs.folder import RunFolder, RunRecord, evaluation_name


def evaluate_untrimmed(
    folder: RunFolder,
    model: VideoModel,
    footage: LabelledVideos,
    *,
    labels: str,
    detector: str | None = None,
    split: str = "test",
    which: str = "best",
    batch: int = 16,
    progress: Callable[[int, int, str], None] | None = None,
) -> tuple[dict[str, Any], str]:
    """Judge the timelines, and the tracks if tracks are labelled, that `model` finds in `footage`.

    Write metrics.json, timelines.json and report.html into a folder of the run's evaluation/, and return the metrics
    and the path of the page. `labels` and `detector` are the addresses of footage and detector, `which` the checkpoint
    of the model. Raises InputError as `judge_untrimmed` does.
    """
    record = folder.record()
    metrics, timelines = judge_untrimmed(
        lambda video: model.predict(video, batch=batch), footage, split=split, progress=progress
    )
    judged = {row["video"] for row in metrics["videos"]}
    metrics["notes"] += _seen(record, [video.file for video in footage.videos if video.file.uri in judged])
    metrics |= {
        "name": evaluation_name(split, checkpoint=which, untrimmed=labels, detector=detector),
        "notice": unfinished(record.run, folder),
        "checkpoint": which,
        "tag": folder.checkpoints().get(which),
        "device": model.device_name,
        "labels": labels,
        "detector": detector,
    }
    facts = {key: metrics[key] for key in ("labels", "split", "checkpoint", "detector", "device")}
    return metrics, write_untrimmed(folder, metrics, timelines, facts=facts | model.description)


def _seen(record: RunRecord, files: Sequence[File]) -> list[str]:
    """Return a sentence on the files that the run was trained on, if there are some or that cannot be known."""
    try:
        trained = trained_on(Store(record.store), files, versions=record.versions)
    except InputError:
        return [f"it is not known if the run was trained on these videos: its store {record.store} cannot be read"]
    return [f"the run was trained on videos that are judged here: {first_few(trained, 3)}"] if trained else []
