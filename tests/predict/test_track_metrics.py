"""IDF1 and HOTA: equal to TrackEval's values, and to sums that are small enough to try every assignment."""

from __future__ import annotations

import itertools
from functools import reduce
from operator import add

import numpy as np
import pytest

from posture.predict.answers import Track
from posture.predict.track_metrics import ALPHAS, Look, count_tracks, looks_of, track_metrics

FIXTURES = ("clean", "swaps", "crowd", "fragments")


def fixture(name: str) -> tuple[list[Look], list[Look]]:
    """Return labelled and found tracks of 40 frames, drawn from a fixed seed.

    Found boxes are shifted, missed, made up, and change their ids, differently in each fixture.
    """
    shift, missed, made_up, swaps, athletes = {
        "clean": (1.0, 0.0, 0.0, 0.0, 3),
        "swaps": (4.0, 0.1, 0.1, 0.08, 3),
        "crowd": (9.0, 0.2, 0.5, 0.05, 6),
        "fragments": (6.0, 0.4, 0.3, 0.3, 2),
    }[name]
    rng = np.random.default_rng(FIXTURES.index(name))
    starts, speeds = rng.uniform(0, 200, (athletes, 2)), rng.uniform(-4, 4, (athletes, 2))
    ids, next_id = np.arange(athletes) + 10, 100
    truths, found = [], []
    for frame in range(40):
        corners = starts + frame * speeds
        boxes = np.concatenate([corners, corners + (30, 60)], axis=1)
        seen = rng.random(athletes) > 0.1
        truths.append((np.flatnonzero(seen) * 3, boxes[seen]))
        if rng.random() < swaps:
            ids = rng.permutation(ids)
        if rng.random() < swaps:
            ids[rng.integers(athletes)] = next_id = next_id + 1
        kept = rng.random(athletes) >= missed
        shown = [boxes[kept] + rng.normal(0, shift, (int(kept.sum()), 4))]
        numbers = [ids[kept]]
        if rng.random() < made_up:
            shown.append(np.array([[5.0, 5.0, 25.0, 50.0]]))
            numbers.append(np.array([7]))
        found.append((np.concatenate(numbers), np.concatenate(shown)))
    return truths, found


TRACKEVAL = {
    "clean": (0.94273128, 0.89166667, 1.0, 0.83222194, 0.83192071, 0.83252334),
    "swaps": (0.59030837, 0.5877193, 0.59292035, 0.39083705, 0.58975915, 0.25956241),
    "crowd": (0.23963134, 0.24528302, 0.23423423, 0.20531967, 0.32413887, 0.13223734),
    "fragments": (0.1875, 0.21052632, 0.16901408, 0.14605683, 0.2825658, 0.07723362),
}
"""IDF1, IDP, IDR, HOTA, DetA, AssA by TrackEval 1.3.0; it would install a second OpenCV, so it is no dependency."""
TRACKEVAL_TOGETHER = (0.468503937, 0.430531375, 0.452127630, 0.468391660)
"""IDF1, HOTA, DetA, AssA of the four as videos of one data set (its `combine_sequences`)."""


@pytest.mark.parametrize("name", FIXTURES)
def test_the_values_are_those_of_trackeval(name: str):
    metrics = track_metrics(*fixture(name))
    assert list(metrics) == ["idf1", "idp", "idr", "hota", "deta", "assa"]
    assert list(metrics.values()) == pytest.approx(TRACKEVAL[name], abs=1e-6)


def test_counts_of_videos_add_up_as_in_trackeval():
    metrics = reduce(add, (count_tracks(*fixture(name)) for name in FIXTURES)).metrics()
    assert [metrics[key] for key in ("idf1", "hota", "deta", "assa")] == pytest.approx(TRACKEVAL_TOGETHER, abs=1e-6)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    area = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (area - width * height)


def best(sets: tuple[int, int], score) -> list[tuple[int, int]]:
    """Return the one-to-one pairs with the largest sum, of all that there are."""
    few, many = sorted(sets)
    flip = sets[0] > sets[1]
    tried = (
        [(b, a) if flip else (a, b) for a, b in enumerate(chosen)]
        for chosen in itertools.permutations(range(many), few)
    )
    return max(tried, key=lambda pairs: sum(score(*pair) for pair in pairs))


@pytest.mark.parametrize("name", ["clean", "swaps"])
def test_the_values_are_those_of_the_definitions(name: str):
    """Each matched box on its own: its association is TPA / (TPA + FNA + FPA)."""
    truths, found = fixture(name)
    tracks = [sorted({int(id) for ids, _ in looks for id in ids}) for looks in (truths, found)]
    lengths = [
        {id: sum(int((ids == id).sum()) for ids, _ in looks) for id in own}
        for looks, own in zip((truths, found), tracks, strict=True)
    ]
    overlap = [
        np.array([[iou(a, b) for b in two] for a in one]).reshape(len(one), len(two))
        for (_, one), (_, two) in zip(truths, found, strict=True)
    ]
    near, alike = np.zeros((len(tracks[0]), len(tracks[1]))), np.zeros((len(tracks[0]), len(tracks[1])))
    for (ids, _), (others, _), values in zip(truths, found, overlap, strict=True):
        for i, id in enumerate(ids):
            for j, other in enumerate(others):
                place = tracks[0].index(id), tracks[1].index(other)
                near[place] += values[i, j] >= 0.5
                if values[i, j] > 0:
                    alike[place] += values[i, j] / (values[i].sum() + values[:, j].sum() - values[i, j])
    alignment = np.array([
        [alike[i, j] / (lengths[0][one] + lengths[1][two] - alike[i, j]) for j, two in enumerate(tracks[1])]
        for i, one in enumerate(tracks[0])
    ])
    identified = sum(near[pair] for pair in best((len(tracks[0]), len(tracks[1])), lambda i, j: near[i, j]))
    everything = sum(lengths[0].values()) + sum(lengths[1].values())

    hota = []
    for alpha in ALPHAS:
        pairs = []
        for (ids, _), (others, _), values in zip(truths, found, overlap, strict=True):
            if len(ids) and len(others):
                score = {
                    (i, j): alignment[tracks[0].index(ids[i]), tracks[1].index(others[j])] * values[i, j]
                    for i in range(len(ids))
                    for j in range(len(others))
                }
                pairs += [
                    (int(ids[i]), int(others[j]))
                    for i, j in best((len(ids), len(others)), lambda i, j, score=score: score[i, j])
                    if values[i, j] >= alpha
                ]
        share = sum(
            pairs.count(pair) / (lengths[0][pair[0]] + lengths[1][pair[1]] - pairs.count(pair)) for pair in pairs
        )
        hota.append((share / (everything - len(pairs))) ** 0.5)
    metrics = track_metrics(truths, found)
    assert metrics["idf1"] == pytest.approx(2 * identified / everything, abs=1e-9)
    assert metrics["hota"] == pytest.approx(np.mean(hota), abs=1e-9)


def test_ends_of_the_scale():
    truths, _ = fixture("clean")
    empty = [(np.zeros(0, int), np.zeros((0, 4)))] * 40
    assert track_metrics(truths, truths) == pytest.approx(
        dict.fromkeys(("idf1", "idp", "idr", "hota", "deta", "assa"), 1)
    )
    for one, other in ((truths, empty), (empty, truths), (empty, empty), ([], [])):
        assert set(track_metrics(one, other).values()) == {0.0}
    named = [(np.array([f"athlete {id}" for id in ids], dtype=object).astype(str), boxes) for ids, boxes in truths]
    assert track_metrics(named, truths)["idf1"] == 1.0


def test_tracks_are_read_frame_by_frame_with_their_gaps_filled():
    corner = np.arange(4, dtype=np.float32)
    one = Track(1, np.array([2, 6]), np.array([2, 6]) / 25, np.stack([corner, corner + 8]), np.ones(2))
    two = Track(2, np.array([4]), np.array([4]) / 25, corner[None], np.ones(1))
    looks = looks_of([one, two], range(0, 10, 2))
    assert [ids.tolist() for ids, _ in looks] == [[], [1], [1, 2], [1], []]
    assert looks[2][1].tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]
    assert [boxes.shape for _, boxes in looks_of([], [0, 1])] == [(0, 4)] * 2


def test_what_cannot_be_compared_is_refused():
    truths, found = fixture("clean")
    with pytest.raises(ValueError):
        count_tracks(truths, found[:-1])
    twice = [(np.array([1, 1]), np.array([[0.0, 0, 10, 10], [5, 0, 15, 10]]))]
    with pytest.raises(ValueError, match="frame 0: an id appears twice"):
        count_tracks(twice, twice)
