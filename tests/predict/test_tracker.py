"""Tracks of athletes: which boxes are one athlete's, under which id."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from posture.errors import InputError
from posture.predict.tracker import MIN_LOOKS, TRACKERS, AthleteTracker

NOTHING = np.zeros((0, 4), np.float32), np.zeros(0, np.float32)


def boxes_at(*lefts: float) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes of 40 x 90 pixels with these left edges, and their scores."""
    boxes = np.array([[left, 50, left + 40, 140] for left in lefts], np.float32).reshape(-1, 4)
    return boxes, np.full(len(lefts), 0.9, np.float32)


@pytest.mark.parametrize("name", TRACKERS)
def test_two_athletes_who_pass_each_other_keep_their_ids(name: str):
    tracker = AthleteTracker(name, fps=25)
    frame = np.random.default_rng(0).integers(0, 255, (200, 400, 3), np.uint8)
    shown = []
    for look in range(60):
        right, left = boxes_at(5.0 * look), boxes_at(300 - 5.0 * look)
        order = (right, left) if look % 2 else (left, right)  # a detector orders by confidence
        boxes, scores = (np.concatenate(values) for values in zip(*order, strict=True))
        shown.append(tracker.update(3 * look, 3 * look / 75, boxes, scores, frame))
    tracks = tracker.tracks()
    assert [track.id for track in tracks] == [1, 2] and tracker.dropped == 0
    rightward = min(tracks, key=lambda track: track.boxes[0, 0])
    assert (np.diff(rightward.boxes[:, 0]) > 0).all()
    for track in tracks:
        assert track.frames.dtype == np.int64 and track.boxes.shape == (len(track.frames), 4)
        assert np.array_equal(track.times, track.frames / 75) and (track.scores == np.float32(0.9)).all()
        assert len(track.frames) >= 55 and track.frames[0] == 0, "the looks before its confirmation are in it"
    for look, athletes in enumerate(shown):
        for id, box, _ in athletes:
            (place,) = np.flatnonzero(tracks[id - 1].frames == 3 * look)
            assert np.array_equal(tracks[id - 1].boxes[place], box)
    assert [len(athletes) for athletes in shown[: MIN_LOOKS - 1]] == [0] * (MIN_LOOKS - 1)


@pytest.mark.parametrize("name", TRACKERS)
def test_frames_may_be_smaller_than_the_video(name: str):
    """The camera swings by 15 pixels a look, and one athlete moves with it."""
    wide = np.random.default_rng(0).integers(0, 255, (100, 400, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    trackers = [AthleteTracker(name, fps=25, size=size) for size in (None, (400, 800))]
    for look in range(40):
        frame = wide[:, 15 * look : 15 * look + 800].copy()
        for left, colour in ((700 - 15 * look, (220, 30, 30)), (20, (30, 30, 220))):
            frame[50:140, left : left + 40] = colour
        for tracker, seen in zip(trackers, (frame, frame[::2, ::2]), strict=True):
            tracker.update(look, look / 25, *boxes_at(700 - 15 * look, 20), seen)
    full, reduced = (tracker.tracks() for tracker in trackers)
    assert len(full) == 2 and [len(track.frames) for track in full] == [len(track.frames) for track in reduced]
    assert all(np.array_equal(one.boxes, other.boxes) for one, other in zip(full, reduced, strict=True))


def test_the_trackers_that_look_at_pixels_say_so():
    assert {name for name in TRACKERS if AthleteTracker(name, fps=25).uses_frames} == {"tracktrack", "botsort"}


@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("fps", [10, 50])
def test_a_hidden_athlete_is_found_again_within_a_second(name: str, fps: float):
    for seconds, ids in ((0.6, [1]), (2.0, [1, 2])):
        tracker = AthleteTracker(name, fps=fps)
        for look in range(round((2 + seconds) * fps)):
            hidden = fps <= look < (1 + seconds) * fps
            tracker.update(look, look / fps, *(NOTHING if hidden else boxes_at(100)))
        assert [track.id for track in tracker.tracks()] == ids, seconds


@pytest.mark.parametrize(
    ("left", "colour", "looks", "ids"),
    [
        (190, (220, 30, 30), 8, [1]),
        (190, (30, 30, 220), 8, [1, 2]),
        (340, (220, 30, 30), 8, [1, 2]),
        (190, (220, 30, 30), 40, [1, 2]),
    ],
    ids=["same clothes", "other clothes", "too far away", "too late"],
)
def test_an_athlete_who_comes_back_elsewhere_is_known_by_the_clothes(
    left: int, colour: tuple[int, ...], looks: int, ids: list[int]
):
    tracker = AthleteTracker(TRACKERS[0], fps=25)
    shown = []
    for look in range(50 + looks):
        frame = np.full((200, 400, 3), 90, np.uint8)
        place, shirt = (100, (220, 30, 30)) if look < 25 else (left, colour)
        hidden = 25 <= look < 25 + looks
        frame[50:140, place : place + 40] = (90, 90, 90) if hidden else shirt
        shown.append(tracker.update(look, look / 25, *(NOTHING if hidden else boxes_at(place)), frame))
    assert [track.id for track in tracker.tracks()] == ids and [id for id, _, _ in shown[-1]] == ids[-1:]
    assert sum(len(track.frames) for track in tracker.tracks()) == 50
    assert all((np.diff(track.frames) > 0).all() for track in tracker.tracks())


@pytest.mark.parametrize("name", TRACKERS)
def test_boxes_that_flash_up_are_dropped_and_counted(name: str):
    tracker = AthleteTracker(name, fps=25)
    for look in range(40):
        boxes, scores = boxes_at(20, 300) if look in (10, 20, 39) else boxes_at(20)
        tracker.update(look, look / 25, boxes, scores)
    assert len(tracker.tracks()) == 1
    assert tracker.dropped in (1, 2, 3), "the first may come back as the second"


@pytest.mark.parametrize("name", TRACKERS)
def test_nothing_found_is_no_track(name: str):
    tracker = AthleteTracker(name, fps=25)
    assert [tracker.update(look, look / 25, *NOTHING) for look in range(5)] == [[]] * 5
    assert tracker.tracks() == () and tracker.dropped == 0


def test_memory_grows_by_the_numbers_of_the_tracks_only():
    tracker = AthleteTracker("bytetrack", fps=25)

    def watch(looks: range) -> int:
        for look in looks:
            tracker.update(look, look / 25, *boxes_at(20, 200 if look % 100 < 50 else 320))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = watch(range(200))
    grown = watch(range(200, 1200)) - before
    tracemalloc.stop()
    numbers, ended_tracks = 1000 * 2 * 36, 20 * 4096  # the library keeps the last thousand tracks that ended
    assert grown < 1.2 * numbers + ended_tracks, grown


def test_what_is_unknown_is_told():
    with pytest.raises(InputError, match="tracker 'sort' is unknown; choose one of: tracktrack, bytetrack"):
        AthleteTracker("sort", fps=25)
    with pytest.raises(InputError, match="greater than 0, not 0"):
        AthleteTracker("bytetrack", fps=0)
