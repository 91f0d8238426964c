"""Read what the athletes of CVAT's tracks do: the attribute `action` of their shapes, which may change over time.

A value holds from its keyframe on, until the next one, as in CVAT's player. Source: the format CVAT for videos 1.1.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import replace
from xml.etree.ElementTree import Element

from posture.data.labels.names import folded
from posture.data.labels.records import Action, TrackedVideo
from posture.data.labels.tree import class_name, numbers

ATTRIBUTES = ("action", "activity")
"""Names of the attribute, in any letter case. The first that a track has is read."""
NO_ACTION = frozenset({"", "-", "none", "no action", "no_action", "nothing", "unsure", "__undefined__"})
"""Values in any letter case that mean no action. CVAT itself writes `__undefined__`, and Posture `unsure`."""


def with_actions(video: TrackedVideo, tracks: Iterable[Element], table: str) -> TrackedVideo:
    """Return the video with the actions of its tubes, one for each of `tracks`. Raises BadLabel if one is no name."""
    assert video.seen is not None
    tubes = []
    for tube, track in zip(video.tubes, tracks, strict=True):
        values = _values(track, f"{table}: track {track.get('id', len(tubes))}")
        actions = _stretches(values, sorted(tube.boxes), video.seen) if values else None
        tubes.append(replace(tube, actions=actions))
    return replace(video, tubes=tubes)


def _values(track: Element, where: str) -> dict[int, str]:
    """Return the action from each keyframe on, "" for none, by frame. It is empty if no shape has the attribute."""
    said = {
        name: {
            int(numbers([shape.get("frame")], where)[0]): attribute.text or ""
            for shape in track
            for attribute in shape.findall("attribute")
            if folded(attribute.get("name") or "") == name
        }
        for name in ATTRIBUTES
    }
    values = next((values for values in said.values() if values), {})
    return {
        frame: "" if folded(value.strip()) in NO_ACTION else class_name(value, where)
        for frame, value in sorted(values.items())
    }


def _stretches(values: dict[int, str], frames: Iterable[int], seen: range) -> tuple[Action, ...]:
    """Return the stretches of `frames`, those with a box, in which the action stays the same.

    A stretch ends where the athlete leaves. Of a task with a step, a frame stands for those up to the next.
    """
    keyframes = list(values)
    found: list[Action] = []
    for frame in frames:
        before = bisect.bisect_right(keyframes, frame)
        label = values[keyframes[before - 1]] if before else ""
        end = min(frame + seen.step, seen.stop)
        if found and found[-1].label == label and found[-1].end >= frame:
            found[-1] = found[-1]._replace(end=end)
            continue
        if found and found[-1].end > frame:  # a keyframe between two frames of a step
            found[-1] = found[-1]._replace(end=frame)
        found.append(Action(frame, end, label))
    return tuple(action for action in found if action.label)
