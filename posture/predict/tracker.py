"""Track athletes through a video by the trackers of ultralytics (AGPL-3.0).

A look is a frame that the tracker sees. Legend: D found boxes of one look, xyxy in pixels of the shown video; n looks
of a track.

ByteTrack: Zhang et al., ECCV 2022. BoT-SORT: Aharon et al., arXiv:2206.14651. OC-SORT: Cao et al., CVPR 2023.
FastTracker: arXiv:2508.14370. TrackTrack: Shim et al., CVPR 2025. Deep OC-SORT is left out: without its network for
appearance it is OC-SORT.
"""

from __future__ import annotations

from array import array
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import yaml

from posture.data.decode.tracks import MIN_CONFIDENCE, SURE_CONFIDENCE
from posture.errors import InputError
from posture.predict.answers import Track
from posture.predict.clothes import clothes_of

CLASSES = {
    "tracktrack": "TRACKTRACK",
    "bytetrack": "BYTETracker",
    "botsort": "BOTSORT",
    "ocsort": "OCSORT",
    "fasttrack": "FASTTracker",
}
TRACKERS = tuple(CLASSES)
"""Names of the trackers that need no network of their own. The first is the default."""
SETTINGS = {"tracktrack": {"with_reid": True, "reid_weight": 1.0, "match_thresh": 0.9, "gmc_method": "none"}}
"""Settings that differ from ultralytics'. TrackTrack adds the distance of appearance to that of place, so colours of
clothes help it, and athletes who are dressed alike are still told apart by where they are.
"""
ALIKE = 0.8
"""Least likeness of clothes, 0..1, with which a new track continues one that was lost."""
REACH = 1.5
"""Farthest from its last place, in heights of its box, at which a lost track goes on."""
MIN_LOOKS = 3
"""Looks after which a track is an athlete; shorter ones are mostly false positives."""
CONFIGURED_FPS = 30.0
"""Frame rate at which ultralytics' numbers of frames are meant."""
DURATIONS = ("track_buffer", "occ_reappear_window", "active_occ_to_lost_thresh")
"""Settings in frames that stand for a time: how long a lost or hidden athlete may be found again."""


class AthleteTracker:
    """A tracker of one video. Call `update` with its looks in order."""

    def __init__(self, name: str, *, fps: float, size: tuple[int, int] | None = None) -> None:
        """Prepare the tracker `name`; `fps` is the rate of looks, `size` height and width of the shown video.

        `size` is needed if frames are given to `update` in another size.

        Raises InputError if there is no such tracker, or ultralytics or lap cannot be imported.
        """
        if name not in CLASSES:
            raise InputError(f"tracker {name!r} is unknown; choose one of: {', '.join(TRACKERS)}")
        if not fps > 0:
            raise InputError(f"the tracker needs a rate of frames greater than 0, not {fps}")
        from posture.models.ultralytics_blocks import import_ultralytics  # loads torch

        need = f"{name} is a tracker of ultralytics"
        trackers = import_ultralytics("ultralytics.trackers", need=need)
        self._found = import_ultralytics("ultralytics.engine.results", need=need).Boxes
        settings = _settings(Path(trackers.__path__[0]).parent / "cfg" / "trackers" / f"{name}.yaml", fps)
        self._moves, self._dresses = settings.get("gmc_method", "none") != "none", bool(settings.get("with_reid"))
        self.uses_frames = self._moves or self._dresses
        """True if the tracker looks at pixels: for the camera's motion, or clothes. Without frames it ignores these."""
        self._size = size
        self._longest = settings.get("track_buffer", 0)
        """Looks after which a lost track does not go on."""
        self._look = 0
        self._tracker = getattr(trackers, CLASSES[name])(SimpleNamespace(**settings))
        self._open: dict[int, _Looks] = {}  # by the library's id, those that may continue
        self._confirmed: list[_Looks] = []  # the place of a track in it, from 1, is its id
        self._dropped = 0

    def update(
        self, number: int, time: float, boxes: np.ndarray, scores: np.ndarray, frame: np.ndarray | None = None
    ) -> list[tuple[int, np.ndarray, float]]:
        """Take the next look: frame `number`, shown at `time` (seconds), and its found boxes (D, 4) and scores (D,).

        `frame` is (H, W, 3) uint8 RGB, perhaps reduced; it is not needed unless `uses_frames`. Returns id, box (4,)
        float32 and score of the confirmed tracks that it shows. The boxes are the detector's own, not smoothed.
        """
        boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
        seen, more, clothes = boxes, {}, None
        self._look += 1
        if frame is not None and self.uses_frames:
            height, width = self._size or frame.shape[:2]
            seen = boxes * np.array([frame.shape[1] / width, frame.shape[0] / height] * 2, np.float32)
            more |= {"img": np.ascontiguousarray(frame[..., ::-1])} if self._moves else {}
            clothes = clothes_of(frame, seen) if self._dresses else None
            more |= {} if clothes is None else {"feats": clothes}
        found = np.column_stack([seen, scores, np.zeros_like(scores)])  # of one class
        self._tracker.update(self._found(found, (1, 1)), **more)  # the size only serves normalised boxes
        shown = []
        for track in self._tracker.tracked_stracks:
            if track.frame_id != self._tracker.frame_id:
                continue  # hidden in this look
            looks = self._open.setdefault(track.track_id, _Looks())
            place = int(track.idx)
            box, score = boxes[place], float(scores[place])
            looks.add(number, time, box, score)
            looks.wear(self._look, None if clothes is None else clothes[place])
            if not looks.id and len(looks.frames) >= MIN_LOOKS:
                looks = self._confirm(track.track_id, looks)
            if looks.id:
                shown.append((looks.id, box, score))
        self._close()
        return sorted(shown, key=lambda one: one[0])

    def tracks(self) -> tuple[Track, ...]:
        """Return the confirmed tracks, with the ids of `update`: from 1, in the order in which they were confirmed.

        The looks before a track's confirmation are in it.
        """
        return tuple(looks.track() for looks in self._confirmed)

    @property
    def dropped(self) -> int:
        """Number of tracks that have fewer than MIN_LOOKS looks, and so are not among `tracks`."""
        return self._dropped + sum(not looks.id for looks in self._open.values())

    def _confirm(self, key: int, looks: _Looks) -> _Looks:
        """Return the lost track that this one continues, with its looks added, or the track itself with a new id."""
        lost = [one for one in self._confirmed if 0 < looks.first - one.last <= self._longest and one.is_near(looks)]
        if lost and (known := max(lost, key=looks.likeness)).likeness(looks) >= ALIKE:
            self._open = {other: one for other, one in self._open.items() if one is not known}
            known.extend(looks)
            self._open[key] = known
            return known
        self._confirmed.append(looks)
        looks.id = len(self._confirmed)
        return looks

    def _close(self) -> None:
        """Forget the tracks that the library has given up."""
        alive = {track.track_id for track in (*self._tracker.tracked_stracks, *self._tracker.lost_stracks)}
        for key in self._open.keys() - alive:
            self._dropped += not self._open.pop(key).id


class _Looks:
    """The numbers of one track, 36 bytes a look."""

    def __init__(self) -> None:
        self.id = 0  # not confirmed yet
        self.frames, self.times = array("q"), array("d")
        self.boxes, self.scores = array("f"), array("f")
        self.first = self.last = 0  # looks of the tracker
        self._clothes: Any = 0.0

    def add(self, number: int, time: float, box: np.ndarray, score: float) -> None:
        self.frames.append(number)
        self.times.append(time)
        self.boxes.extend(box.tolist())
        self.scores.append(score)

    def wear(self, look: int, clothes: np.ndarray | None) -> None:
        """Note that a look shows it, with these clothes, (4 * 216,), if they were seen."""
        self.first, self.last = self.first or look, look
        self._clothes = self._clothes + (0.0 if clothes is None else clothes)

    def likeness(self, other: _Looks) -> float:
        """Return how much its mean clothes are like another's, 0..1; 0 if either's were not seen."""
        norms = np.linalg.norm(self._clothes) * np.linalg.norm(other._clothes)
        return float(np.sum(self._clothes * other._clothes) / norms) if norms else 0.0

    def is_near(self, later: _Looks) -> bool:
        """Return True if a later track begins near its last box."""
        last, first = np.array(self.boxes[-4:]), np.array(later.boxes[:4])
        away = np.abs((last[:2] + last[2:]) / 2 - (first[:2] + first[2:]) / 2).max()
        return bool(away <= REACH * max(last[3] - last[1], first[3] - first[1]))

    def extend(self, later: _Looks) -> None:
        """Add the looks of a later track, which is the same athlete."""
        for name in ("frames", "times", "boxes", "scores"):
            getattr(self, name).extend(getattr(later, name))
        self.last, self._clothes = later.last, self._clothes + later._clothes

    def track(self) -> Track:
        return Track(
            self.id,
            np.array(self.frames, np.int64),
            np.array(self.times, np.float64),
            np.array(self.boxes, np.float32).reshape(-1, 4),
            np.array(self.scores, np.float32),
        )


def _settings(path: Path, fps: float) -> dict[str, Any]:
    """Return ultralytics' settings of a tracker for this rate of looks, with the confidences of our detectors."""
    settings = yaml.safe_load(path.read_text())
    for name in DURATIONS:
        if name in settings:
            settings[name] = max(1, round(settings[name] * fps / CONFIGURED_FPS))
    return (
        settings
        | SETTINGS.get(path.stem, {})
        | {
            "track_low_thresh": MIN_CONFIDENCE,
            "track_high_thresh": SURE_CONFIDENCE,
            "new_track_thresh": SURE_CONFIDENCE,
        }
    )
