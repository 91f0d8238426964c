"""Write an answer as tables, and read it again: `timeline.csv`, `timeline.json` and `tracks.csv`.

The page and the annotated video can be made again from these files. `timeline.json` is written last: a folder that has
it has all three.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import (
    Any,
    NotRequired,  # pydantic needs this one before Python 3.12
)

import numpy as np
import pyarrow as pa
import pyarrow.csv
from typing_extensions import TypedDict

from posture.data.labels.table import as_text
from posture.data.store.checked import checked_json, checked_value
from posture.data.store.files import join, read_bytes, write_bytes
from posture.errors import InputError
from posture.predict.answers import ActionSegment, Lane, Prediction, Track

FORMAT = 1
"""Number of the layout of timeline.json."""
TIMELINE_CSV, TIMELINE_JSON, TRACKS_CSV = "timeline.csv", "timeline.json", "tracks.csv"
TIMELINE_COLUMNS = ("video", "track", "start", "end", "label", "confidence")
TRACK_TYPES = {
    "video": pa.string(), "track": pa.int64(), "frame": pa.int64(), "time": pa.float64(),
    "x1": pa.float64(), "y1": pa.float64(), "x2": pa.float64(), "y2": pa.float64(), "score": pa.float64(),
}  # fmt: skip
"""Columns of tracks.csv."""
TIME_DIGITS, BOX_DIGITS, PROBABILITY_DIGITS = 6, 2, 6
"""Decimals of times and probabilities in timeline.json, and of times and boxes in tracks.csv."""


class _Segment(TypedDict):
    track: int
    start: float
    end: float
    label: str
    confidence: float
    guess: str


class _Lane(TypedDict):
    track: int
    starts: list[float]
    ends: list[float]
    probabilities: list[list[float]]


class _Track(TypedDict):
    id: int
    frames: int


class Timeline(TypedDict):
    """Contents of timeline.json."""

    format: int
    video: str
    width: int
    height: int
    fps: float
    seconds: float
    classes: list[str]
    threshold: float
    model: dict[str, Any]
    notes: list[str]
    failure: str
    segments: list[_Segment]
    overall: NotRequired[list[float] | None]
    lanes: list[_Lane]
    tracks: list[_Track]


def write_tables(prediction: Prediction, folder: str) -> None:
    """Write `timeline.csv`, `timeline.json` and `tracks.csv` into a folder or an `s3://` prefix.

    A reader sees each file as it was before or as it is now. In the CSV files, a name that a spreadsheet would run as a
    formula begins with an apostrophe. Raises InputError if a file cannot be written.
    """
    with tempfile.NamedTemporaryFile() as file:  # the boxes of a long video would double the memory
        _write_tracks(prediction, file)
        file.flush()
        write_bytes(join(folder, TRACKS_CSV), Path(file.name))
    write_bytes(join(folder, TIMELINE_CSV), _timeline_csv(prediction))
    write_bytes(join(folder, TIMELINE_JSON), _as_json(_timeline(prediction)).encode("utf-8", "replace"))


def read_prediction(folder: str) -> Prediction:
    """Return the answer that `write_tables` wrote into a folder or an `s3://` prefix, rounded as it is written.

    Raises InputError naming the file and field if a file is missing, damaged, or was written by a newer version.
    """
    where = join(folder, TIMELINE_JSON)
    found = checked_json(_content(where), where, dict[str, Any])
    if found["format"] != FORMAT:
        raise InputError(f"{where}: format {found['format']!r}; this version of Posture reads format {FORMAT}")
    found = checked_value(found, where, Timeline)
    lanes = tuple(_lane(lane, len(found["classes"]), where) for lane in found["lanes"])
    tracks = _read_tracks(join(folder, TRACKS_CSV))
    expected, held = {one["id"]: one["frames"] for one in found["tracks"]}, {one.id: len(one.frames) for one in tracks}
    if expected != held:
        raise InputError(f"{join(folder, TRACKS_CSV)}: its tracks are not those of {TIMELINE_JSON}; predict again")
    return Prediction(
        video=found["video"],
        classes=tuple(found["classes"]),
        width=found["width"],
        height=found["height"],
        fps=found["fps"],
        seconds=found["seconds"],
        tracks=tracks,
        lanes=lanes,
        segments=tuple(ActionSegment(**segment) for segment in found["segments"]),
        threshold=found["threshold"],
        model=dict(found["model"]),
        notes=tuple(found["notes"]),
        overall=None if (overall := found.get("overall")) is None else np.array(overall, np.float32),
        failure=found["failure"],
    )


def _content(uri: str) -> bytes:
    content = read_bytes(uri)
    if content is None:
        raise InputError(f"{uri}: no such file; posture predict writes it")
    return content


def _timeline_csv(prediction: Prediction) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(TIMELINE_COLUMNS)
    writer.writerows(
        (
            as_text(prediction.video),
            segment.track,
            f"{segment.start:.3f}",
            f"{segment.end:.3f}",
            as_text(segment.label),
            f"{segment.confidence:.4f}",
        )
        for segment in prediction.segments
    )
    return text.getvalue().encode("utf-8", "replace")


def _timeline(prediction: Prediction) -> Timeline:
    return {
        "format": FORMAT,
        "video": prediction.video,
        "width": prediction.width,
        "height": prediction.height,
        "fps": prediction.fps,
        "seconds": prediction.seconds,
        "classes": list(prediction.classes),
        "threshold": prediction.threshold,
        "model": prediction.model,
        "notes": list(prediction.notes),
        "failure": prediction.failure,
        "segments": [
            {
                "track": segment.track,
                "start": round(segment.start, TIME_DIGITS),
                "end": round(segment.end, TIME_DIGITS),
                "label": segment.label,
                "confidence": round(segment.confidence, PROBABILITY_DIGITS),
                "guess": segment.guess,
            }
            for segment in prediction.segments
        ],
        "overall": None if prediction.overall is None else _rounded(prediction.overall, PROBABILITY_DIGITS),
        "lanes": [
            {
                "track": lane.track,
                "starts": _rounded(lane.starts, TIME_DIGITS),
                "ends": _rounded(lane.ends, TIME_DIGITS),
                "probabilities": _rounded(lane.probabilities, PROBABILITY_DIGITS),
            }
            for lane in prediction.lanes
        ],
        "tracks": [{"id": track.id, "frames": len(track.frames)} for track in prediction.tracks],
    }


def _rounded(values: np.ndarray, digits: int) -> list[Any]:
    return np.round(np.asarray(values, np.float64), digits).tolist()


def _as_json(timeline: Mapping[str, Any]) -> str:
    """Return an object with one line for each field, and for each item of a list of objects."""

    def text(value: Any) -> str:
        if isinstance(value, list) and value and isinstance(value[0], dict):
            return "[\n" + ",\n".join(f"  {text(item)}" for item in value) + "\n]"
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)

    return "{\n" + ",\n".join(f"{text(name)}: {text(value)}" for name, value in timeline.items()) + "\n}\n"


def _lane(lane: _Lane, classes: int, where: str) -> Lane:
    windows = len(lane["starts"])
    if len(lane["ends"]) != windows or [len(row) for row in lane["probabilities"]] != [classes] * windows:
        raise InputError(f"{where}: lane {lane['track']} needs a start, an end and {classes} probabilities per window")
    return Lane(
        lane["track"],
        np.array(lane["starts"], np.float64),
        np.array(lane["ends"], np.float64),
        np.array(lane["probabilities"], np.float32).reshape(windows, classes),
    )


def _write_tracks(prediction: Prediction, file: Any) -> None:
    file.write((",".join(TRACK_TYPES) + "\n").encode())
    options = pyarrow.csv.WriteOptions(include_header=False)
    video = as_text(prediction.video).encode("utf-8", "replace").decode()
    for track in prediction.tracks:
        boxes = np.round(np.asarray(track.boxes, np.float64), BOX_DIGITS).reshape(-1, 4)
        values: Iterable[Any] = (
            pa.array([video] * len(track.frames), pa.string()),
            np.full(len(track.frames), track.id, np.int64),
            np.asarray(track.frames, np.int64),
            np.round(np.asarray(track.times, np.float64), TIME_DIGITS),
            *boxes.T,
            np.round(np.asarray(track.scores, np.float64), PROBABILITY_DIGITS),
        )
        pyarrow.csv.write_csv(pa.table(dict(zip(TRACK_TYPES, values, strict=True))), file, options)


def _read_tracks(uri: str) -> tuple[Track, ...]:
    """Return the tracks in the order in which they are written."""
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(_content(uri)),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=TRACK_TYPES, include_columns=[name for name in TRACK_TYPES if name != "video"]
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise InputError(f"{uri}: not what Posture writes: {str(error).splitlines()[0]}") from None
    ids = table["track"].to_numpy()
    cuts = [0, *(np.flatnonzero(np.diff(ids)) + 1).tolist(), len(ids)]
    return tuple(_track(table.slice(first, end - first)) for first, end in pairwise(cuts) if end)


def _track(rows: Any) -> Track:
    boxes = np.stack([rows[name].to_numpy() for name in ("x1", "y1", "x2", "y2")], axis=1)
    return Track(
        id=rows["track"][0].as_py(),
        frames=rows["frame"].to_numpy(),
        times=rows["time"].to_numpy(),
        boxes=boxes.astype(np.float32),
        scores=rows["score"].to_numpy().astype(np.float32),
    )
