"""Write an answer as labels that people correct in their tools and `posture ingest` takes back.

| kind | files |
|---|---|
| segments | segments.csv and boxes.csv, for a spreadsheet or an editor |
| cvat | cvat.xml, CVAT for video 1.1: a track for each athlete, whose action is an attribute |
| label-studio | label-studio.json, tasks with predictions, and label-studio.xml, the interface for them |

Sources: CVAT's documentation of its XML format; Label Studio's documentation of the tags VideoRectangle and
TimelineLabels, and of importing predictions.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Literal
from xml.etree import ElementTree
from xml.etree.ElementTree import Comment, Element, SubElement

import numpy as np

from posture.data.decode.cut import BACKGROUND
from posture.data.labels.table import as_text
from posture.data.store.files import join, write_bytes
from posture.display.colours import UNSURE as UNSURE_COLOUR
from posture.display.colours import class_colours
from posture.errors import InputError
from posture.predict.answers import UNSURE, WHOLE_FRAME, ActionSegment, Prediction, Track
from posture.predict.keyframes import TOLERANCE, keyframes, visits

Kind = Literal["segments", "cvat", "label-studio"]
FILES = {"segments": "segments.csv", "cvat": "cvat.xml", "label-studio": "label-studio.json"}
BOXES_CSV, INTERFACE = "boxes.csv", "label-studio.xml"
NO_ACTION = "none"
"""Value of CVAT's attribute in frames without a segment."""
EARLY = 1e-6
"""Seconds by which a frame may precede a segment that it belongs to: times are rounded."""


def write_labels(prediction: Prediction, folder: str, kind: Kind) -> str:
    """Write an answer as labels into a folder or an `s3://` prefix, and return the path of the file to correct.

    The labels name the video by its file name, so the corrected file belongs beside it. Stretches that are unsure keep
    the label `unsure`, which `posture ingest` leaves out. Raises InputError if the kind is unknown, or a file cannot be
    written.
    """
    if kind not in FILES:
        raise InputError(f"--write {kind}: the kinds are {', '.join(FILES)}")
    if kind == "segments":
        _write_text(join(folder, FILES[kind]), _segments_csv(prediction))
        if prediction.tracks:
            _write_text(join(folder, BOXES_CSV), _boxes_csv(prediction))
    elif kind == "cvat":
        _write_text(join(folder, FILES[kind]), _cvat(prediction))
    else:
        _write_text(join(folder, INTERFACE), _interface(prediction))
        task = json.dumps([_task(prediction)], ensure_ascii=False, indent=1, allow_nan=False)
        _write_text(join(folder, FILES[kind]), task + "\n")
    return join(folder, FILES[kind])


def _write_text(uri: str, text: str) -> None:
    write_bytes(uri, text.encode("utf-8", "replace"))


def _name(prediction: Prediction) -> str:
    return PurePosixPath(prediction.video).name


def _segments_csv(prediction: Prediction) -> str:
    rows = (
        (
            as_text(_name(prediction)),
            f"{segment.start:.3f}",
            f"{segment.end:.3f}",
            as_text(segment.label),
            "" if segment.track == WHOLE_FRAME else segment.track,
        )
        for segment in prediction.segments
    )
    return _csv(("video", "start", "end", "label", "athlete"), rows)


def _boxes_csv(prediction: Prediction) -> str:
    video = as_text(_name(prediction))
    rows = (
        (video, frame, track.id, *(f"{value:.2f}" for value in box))
        for track in prediction.tracks
        for frame, box in zip(track.frames.tolist(), track.boxes.tolist(), strict=True)
    )
    return _csv(("video", "frame", "athlete", "x1", "y1", "x2", "y2"), rows)


def _csv(header: Sequence[str], rows: Any) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _frames(prediction: Prediction) -> int:
    """Return the number of frames of the video, as far as the answer tells."""
    last = max((int(track.frames[-1]) for track in prediction.tracks if len(track.frames)), default=0)
    return max(round(prediction.seconds * prediction.fps), last + 1)


def _shown(prediction: Prediction) -> list[Track]:
    """Return the tracks, and one around the whole frame if segments are about it."""
    if not any(segment.track == WHOLE_FRAME for segment in prediction.segments):
        return list(prediction.tracks)
    frames = np.arange(_frames(prediction))
    whole = np.tile(np.array([0, 0, prediction.width, prediction.height], np.float32), (len(frames), 1))
    times = frames / prediction.fps
    return [Track(WHOLE_FRAME, frames, times, whole, np.ones(len(frames), np.float32)), *prediction.tracks]


def _spans(prediction: Prediction, track: Track) -> list[tuple[int, int, ActionSegment]]:
    """Return the first frame of each segment of a track, and one past its last frame.

    They are frames of the track if it has some within the segment, and else follow from the average frame rate.
    """
    spans = []
    for segment in prediction.of(track.id):
        first, end = np.searchsorted(track.times, [segment.start - EARLY, segment.end - EARLY]).tolist()
        if first < end:
            after = int(track.frames[end]) if end < len(track.frames) else int(track.frames[-1]) + 1
            spans.append((int(track.frames[first]), min(after, int(track.frames[end - 1]) + _step(track)), segment))
    return spans


def _step(track: Track) -> int:
    return int(np.median(np.diff(track.frames))) if len(track.frames) > 1 else 1


def _cvat(prediction: Prediction) -> str:
    root = Element("annotations")
    SubElement(root, "version").text = "1.1"
    meta = SubElement(root, "meta")
    task = SubElement(meta, "task")
    frames = _frames(prediction)
    texts = {"name": _name(prediction), "size": frames, "mode": "interpolation", "start_frame": 0}
    for name, text in (texts | {"stop_frame": frames - 1}).items():
        SubElement(task, name).text = _plain(text)
    label = SubElement(SubElement(task, "labels"), "label")
    SubElement(label, "name").text = "athlete"
    attributes = SubElement(label, "attributes")
    values = "\n".join([NO_ACTION, UNSURE, *(name for name in prediction.classes if name != BACKGROUND)])
    for described in (
        {"name": "athlete", "mutable": "False", "input_type": "text", "default_value": "", "values": ""},
        {"name": "action", "mutable": "True", "input_type": "select", "default_value": NO_ACTION, "values": values},
    ):
        attribute = SubElement(attributes, "attribute")
        for name, text in described.items():
            SubElement(attribute, name).text = _plain(text)
    size = SubElement(task, "original_size")
    SubElement(size, "width").text, SubElement(size, "height").text = str(prediction.width), str(prediction.height)
    SubElement(meta, "source").text = _plain(_name(prediction))
    for track in _shown(prediction):
        _cvat_track(root, prediction, track, frames)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _cvat_track(root: Element, prediction: Prediction, track: Track, frames: int) -> None:
    element = SubElement(root, "track", id=str(track.id), label="athlete", source="auto")
    # the action changes at the first box of a segment, and at the first one after it
    changes: dict[int, str] = {}
    for first, end, segment in _spans(prediction, track):
        changes[int(np.searchsorted(track.frames, first))] = segment.label
        changes.setdefault(int(np.searchsorted(track.frames, end)), NO_ACTION)
    for visit in visits(track):
        kept, tolerance = keyframes(track, visit, changes)
        if tolerance > TOLERANCE:
            element.append(Comment(f" between keyframes, boxes differ from the track by up to {tolerance:.1f} pixels "))
        for index in kept:
            began = max((at for at in changes if at <= index), default=None)
            action = NO_ACTION if began is None else changes[began]
            _cvat_box(element, track, index, int(track.frames[index]), action)
        gone = int(track.frames[visit[-1]]) + 1
        if gone < frames:
            _cvat_box(element, track, int(visit[-1]), gone, NO_ACTION, outside=True)


def _cvat_box(element: Element, track: Track, index: int, frame: int, action: str, *, outside: bool = False) -> None:
    corners = dict(zip(("xtl", "ytl", "xbr", "ybr"), (f"{value:.2f}" for value in track.boxes[index]), strict=True))
    box = SubElement(
        element, "box", frame=str(frame), keyframe="1", outside=str(int(outside)), occluded="0", **corners, z_order="0"
    )
    SubElement(box, "attribute", name="athlete").text = str(track.id)
    SubElement(box, "attribute", name="action").text = _plain(action)


def _plain(text: Any) -> str:
    """Return a text without the characters that XML cannot hold."""
    return "".join(letter if letter.isprintable() or letter in "\n\t" else "?" for letter in str(text))


def _task(prediction: Prediction) -> dict[str, Any]:
    """Return the task of Label Studio; its frames begin at 1, and coordinates are percentages."""
    results = [_region(prediction, track) for track in prediction.tracks if len(track.frames)]
    for track in _shown(prediction):
        for number, (first, end, segment) in enumerate(_spans(prediction, track)):
            results.append({
                "id": f"{_control(track.id)}_{number}",
                "from_name": _control(track.id),
                "to_name": "video",
                "type": "timelinelabels",
                "score": round(segment.confidence, 4),
                "value": {"ranges": [{"start": first + 1, "end": end}], "timelinelabels": [segment.label]},
            })
    size = {"fps": prediction.fps, "width": prediction.width, "height": prediction.height}
    version = str(prediction.model.get("run") or prediction.model.get("version") or "posture")
    return {"data": {"video": _name(prediction)} | size, "predictions": [{"model_version": version, "result": results}]}


def _control(track: int) -> str:
    return "actions" if track == WHOLE_FRAME else f"athlete_{track}"


def _region(prediction: Prediction, track: Track) -> dict[str, Any]:
    sequence, most = [], TOLERANCE
    for visit in visits(track):
        kept, tolerance = keyframes(track, visit)
        most = max(most, tolerance)
        for index in kept:
            left, top, right, bottom = np.asarray(track.boxes[index], np.float64).tolist()
            frame = int(track.frames[index]) + 1
            sequence.append({
                "frame": frame,
                "enabled": index != kept[-1],
                "rotation": 0,
                "x": round(100 * left / prediction.width, 4),
                "y": round(100 * top / prediction.height, 4),
                "width": round(100 * (right - left) / prediction.width, 4),
                "height": round(100 * (bottom - top) / prediction.height, 4),
                "time": round(frame / prediction.fps, 4),
            })
    return {
        "id": _control(track.id),
        "from_name": "boxes",
        "to_name": "video",
        "type": "videorectangle",
        "meta": {"text": [f"boxes within {most:.1f} pixels of the track"]},
        "value": {
            "framesCount": _frames(prediction),
            "duration": prediction.seconds,
            "sequence": sequence,
            "labels": [f"athlete {track.id}"],
        },
    }


def _interface(prediction: Prediction) -> str:
    """Return the labelling interface: boxes of the athletes, and a row of actions for each of them."""
    view = Element("View")
    SubElement(view, "Video", name="video", value="$video", frameRate="$fps")
    if prediction.tracks:
        SubElement(view, "VideoRectangle", name="boxes", toName="video")
        labels = SubElement(view, "Labels", name="athletes", toName="video", allowEmpty="true")
        for track in prediction.tracks:
            SubElement(labels, "Label", value=f"athlete {track.id}")
    named = list(zip(prediction.classes, class_colours(prediction.classes), strict=True))
    for control in [_control(track.id) for track in _shown(prediction)] or [_control(WHOLE_FRAME)]:
        SubElement(view, "Header", value=control.replace("_", " "))
        actions = SubElement(view, "TimelineLabels", name=control, toName="video")
        for name, colour in [*(one for one in named if one[0] != BACKGROUND), (UNSURE, UNSURE_COLOUR)]:
            SubElement(actions, "Label", value=_plain(name), background=colour)
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode") + "\n"
