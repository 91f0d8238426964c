"""Predict files into a folder or bucket: one folder for each video. A video that is done is left alone.

OUT/<video>/
  timeline.json, timeline.csv, tracks.csv    the answer, `posture/predict/tables.py`
  annotated.mp4                              the video with boxes, actions and a timeline
  timeline.html                              the page
OUT/index.html                               all videos
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from posture.data.decode.sandbox import Sandbox
from posture.data.store.files import (
    VIDEO_SUFFIXES,
    File,
    absolute,
    is_remote,
    join,
    list_files,
    local_copy,
    named_file,
    write_bytes,
)
from posture.errors import InputError, Unreadable
from posture.predict.annotate import write_annotated
from posture.predict.answers import Prediction
from posture.predict.index import PredictedVideo, predicted_video
from posture.predict.model import VideoModel
from posture.predict.page import PAGE, write_page
from posture.predict.tables import read_prediction, write_tables
from posture.predict.write_labels import Kind, write_labels

ANNOTATED = "annotated.mp4"


@dataclass(frozen=True)
class VideoJob:
    """One video to predict."""

    uri: str
    place: str
    """Folder or s3:// prefix of its files."""
    link: str
    """Path of its page below the folder of all videos."""
    mark: str
    """Size and time of the file: a changed file is predicted again."""


@dataclass(frozen=True)
class Outputs:
    """The files of each video, and the options of prediction."""

    video: bool = True
    """Write the annotated video."""
    labels: tuple[Kind, ...] = ()
    """Kinds of label files (`posture.predict.write_labels`)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of `VideoModel.predict`."""

    def key(self, job: VideoJob, model: VideoModel) -> str:
        """Return a hash of all that decides the files of a video."""
        said = [job.mark, model.description, self.video, self.labels, self.options]
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Predicted:
    """The result of one video."""

    video: PredictedVideo
    """Its row on the page over all videos."""
    place: str
    """Folder or s3:// prefix of its files."""
    is_stopped: bool = False
    was_done: bool = False
    """True if an earlier command had done it."""


def find_videos(sources: Sequence[str], out: str) -> list[VideoJob]:
    """Return the videos that are named or lie below the folders and s3:// prefixes `sources`, each once.

    Raises InputError if a source does not exist or a folder has no videos.
    """
    found: dict[str, File] = {}
    for source in sources:
        uri = absolute(source)
        if os.path.isfile(uri) or (is_remote(uri) and PurePosixPath(uri).suffix.lower() in VIDEO_SUFFIXES):
            found[uri] = named_file(uri)
            continue
        if not is_remote(uri) and not os.path.isdir(uri):
            raise InputError(f"{source}: no such video or folder")
        files = list_files(uri)
        if not files:
            raise InputError(f"{source}: no video files here")
        found |= {file.uri: file for file in files}
    stems = Counter(str(PurePosixPath(file.relative).with_suffix("")) for file in found.values())
    jobs = []
    for file in found.values():
        name = str(PurePosixPath(file.relative).with_suffix(""))
        name = name if stems[name] == 1 else file.relative
        mark = f"{file.bytes} {file.modified}"
        jobs.append(VideoJob(file.uri, join(absolute(out), name), f"{name}/{PAGE}", mark))
    if len({job.place for job in jobs}) < len(jobs):
        raise InputError(f"{', '.join(sources)}: two videos have the same name; predict them into two folders (--out)")
    return jobs


def predict_file(
    model: VideoModel,
    job: VideoJob,
    outputs: Outputs,
    *,
    progress: Callable[[str, int, int], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Predicted:
    """Predict one video and write its files. A video that cannot be read gives a result with the reason.

    `progress` gets the step (looking, drawing), the frames that are done and in total. Raises InputError if the files
    cannot be written.
    """
    key, link = outputs.key(job, model), job.link
    if (found := _done(job, key)) is not None:
        return Predicted(predicted_video(found, link), job.place, was_done=True)
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(local_copy(job.uri))
            prediction = model.predict(
                path,
                progress=None if progress is None else lambda at, total: progress("looking", at, total),
                should_stop=should_stop,
                **outputs.options,
            )
        except (InputError, OSError) as error:
            if should_stop():  # before the first frame
                return Predicted(PredictedVideo(job.uri), job.place, is_stopped=True)
            reason = str(error).removeprefix(f"{job.uri}: ")
            return Predicted(PredictedVideo(job.uri, verdict="unreadable", reason=reason), job.place)
        prediction, is_stopped, shown = replace(prediction, video=job.uri), should_stop(), None
        if outputs.video and is_stopped:
            lacks = "there is no annotated video: the command was stopped before"
            prediction = replace(prediction, notes=(*prediction.notes, lacks))
        write_tables(prediction, job.place)
        for kind in outputs.labels:
            write_labels(prediction, job.place, kind)
        if outputs.video and not is_stopped:
            with model.decoder() as decoder:
                notes, shown, is_stopped = _annotate(
                    prediction, path, job.place, outputs.options, progress, should_stop, decoder
                )
            prediction = replace(prediction, notes=(*prediction.notes, *notes))
    start, end = outputs.options.get("start") or 0.0, outputs.options.get("end")
    span = (start, min(end or prediction.seconds, prediction.seconds)) if start or end else None
    write_page(prediction, job.place, video=shown, span=span)
    if not is_stopped:  # the key says that all files are written
        write_tables(replace(prediction, model=prediction.model | {"key": key}), job.place)
    return Predicted(predicted_video(prediction, link), job.place, is_stopped)


def _annotate(
    prediction: Prediction,
    path: str,
    place: str,
    options: dict[str, Any],
    progress: Callable[[str, int, int], None] | None,
    should_stop: Callable[[], bool],
    decoder: Sandbox,
) -> tuple[tuple[str, ...], str | None, bool]:
    """Write the annotated video. Return notes on it, its name if there is one, and True if it was stopped, so that it
    ends early.
    """

    def drawn(at: int, total: int) -> None:
        if progress is not None:
            progress("drawing", at, total)
        if should_stop():
            raise KeyboardInterrupt

    notes, is_stopped = (), False
    with tempfile.TemporaryDirectory(prefix="posture-predict-") as folder:
        local = Path(folder, ANNOTATED)
        part = {"start": options.get("start") or 0.0, "end": options.get("end")}
        try:
            notes = write_annotated(prediction, path, local, progress=drawn, decoder=decoder, **part)
        except KeyboardInterrupt:
            is_stopped = True
        except Unreadable as error:
            notes = (f"there is no annotated video: {error}",)
        name = ANNOTATED if local.exists() else None
        if name is not None:
            write_bytes(join(place, name), local)
    return notes, name, is_stopped


def _done(job: VideoJob, key: str) -> Prediction | None:
    """Return the answer of an earlier command with the same key, or None."""
    try:
        found = read_prediction(job.place)
    except InputError:  # none, or damaged
        return None
    return found if found.model.get("key") == key else None
