import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posture.predict.answers import UNSURE, Lane
from posture.predict.segments import cells, likeliest, segments_of

CLASSES = ("run", "jump", "rest")


def lane(rows, *, step=1.0, length=2.0):
    """Windows of `length` seconds, one every `step` seconds."""
    starts = step * np.arange(len(rows))
    return Lane(3, starts, starts + length, np.array(rows, np.float32))


def test_a_cell_is_the_mean_of_the_windows_that_cover_it():
    edges, probabilities = cells(lane([(1, 0, 0), (0, 1, 0)]), 0.0, 3.0)
    np.testing.assert_allclose(edges, [0, 1, 2, 3])
    np.testing.assert_allclose(probabilities, [(1, 0, 0), (0.5, 0.5, 0), (0, 1, 0)])


@given(st.lists(st.tuples(st.floats(0.1, 3.0), st.floats(0.1, 5.0)), min_size=1, max_size=12), st.integers(0, 99))
def test_cells_are_means_over_the_windows_that_are_found_one_by_one(steps, seed):
    starts = np.cumsum([step for step, _ in steps])
    ends = np.maximum.accumulate(starts + [length for _, length in steps]) + 1e-3 * np.arange(len(steps))
    rows = np.random.default_rng(seed).dirichlet((1, 1, 1), len(steps)).astype(np.float32)
    edges, probabilities = cells(Lane(1, starts, ends, rows), 0.0, ends[-1] + 2.0)
    for middle, found in zip((edges[:-1] + edges[1:]) / 2, probabilities, strict=True):
        away = [max(start - middle, middle - end, 0.0) for start, end in zip(starts, ends, strict=True)]
        nearest = [row for row, distance in zip(rows, away, strict=True) if distance <= min(away) + 1e-9]
        np.testing.assert_allclose(found, np.mean(nearest, axis=0), atol=1e-6)


def test_neighbours_of_one_class_are_one_segment_and_nothing_is_left_out():
    rows = [(0.8, 0.1, 0.1), (0.7, 0.2, 0.1), (0.1, 0.8, 0.1), (0.1, 0.7, 0.2)]
    run, jump = segments_of(lane(rows), CLASSES, start=0.0, end=5.0)
    assert (run.track, run.label, run.start, run.end) == (3, "run", 0.0, 2.0)
    assert (jump.label, jump.start, jump.end) == ("jump", 2.0, 5.0)
    # of the cells 0-1, 1-2: 0.8 and 0.75
    assert run.confidence == pytest.approx(0.775) and run.guess == "run"


def test_the_ends_take_the_nearest_window():
    (one,) = segments_of(lane([(0.2, 0.7, 0.1)]), CLASSES, start=0.0, end=9.0)
    assert (one.start, one.end, one.confidence) == (0.0, 9.0, pytest.approx(0.7))


def test_a_gap_between_windows_takes_the_nearest():
    gap = Lane(1, np.array([0.0, 8.0]), np.array([2.0, 10.0]), np.array([(1, 0, 0), (0, 1, 0)], np.float32))
    run, jump = segments_of(gap, CLASSES, start=0.0, end=10.0)
    assert run.label == "run" and jump.label == "jump" and jump.start == 8.0


def test_short_segments_join_the_neighbour_that_is_more_confident():
    rows = [(0.9, 0.1, 0), (0.9, 0.1, 0), (0.02, 0.02, 0.96), (0.1, 0.9, 0), (0.3, 0.7, 0)]
    flat = lane(rows, step=1.0, length=1.0)
    assert [part.label for part in segments_of(flat, CLASSES, start=0.0, end=5.0)] == ["run", "rest", "jump"]
    merged = segments_of(flat, CLASSES, start=0.0, end=5.0, shortest=1.5)
    assert [(part.label, part.start, part.end) for part in merged] == [("run", 0.0, 3.0), ("jump", 3.0, 5.0)]
    assert merged[0].confidence == pytest.approx((0.9 + 0.9 + 0.02) / 3)


def test_below_the_threshold_the_answer_is_unsure():
    (one,) = segments_of(lane([(0.5, 0.3, 0.2)]), CLASSES, start=0.0, end=2.0, threshold=0.6)
    assert (one.label, one.guess, one.confidence) == (UNSURE, "run", pytest.approx(0.5))


def test_without_windows_there_are_no_segments():
    none = Lane(1, np.zeros(0), np.zeros(0), np.zeros((0, 3), np.float32))
    assert segments_of(none, CLASSES, start=0.0, end=2.0) == []


def test_background_has_no_segment_and_still_separates_actions():
    rows = [(0.9, 0.1, 0), (0.9, 0.1, 0), (0.1, 0, 0.9), (0.9, 0.1, 0), (0.1, 0.43, 0.47)]
    classes = ("run", "jump", "background")
    found = segments_of(lane(rows, length=1.0), classes, start=0.0, end=5.0)
    assert [(part.label, part.start, part.end) for part in found] == [("run", 0.0, 2.0), ("run", 3.0, 4.0)]
    sure = segments_of(lane(rows, length=1.0), classes, start=0.0, end=5.0, threshold=0.5)
    # a stretch that is too unsure to be background is told
    assert [(part.label, part.guess) for part in sure] == [("run", "run"), ("run", "run"), (UNSURE, "background")]


def test_a_doubtful_window_does_not_tear_an_action_into_pieces_and_a_sure_one_does():
    def found(doubt):
        rows = [(0.8, 0.1, 0.1)] * 3 + [(0.4 - doubt, 0.5 + doubt, 0.1)] + [(0.8, 0.1, 0.1)] * 3
        return [part.label for part in segments_of(lane(rows, length=1.0), CLASSES, start=0.0, end=7.0)]

    assert found(0.0) == ["run"] and found(0.38) == ["run", "jump", "run"]


@given(st.integers(1, 6), st.integers(2, 3), st.integers(0, 10_000))
def test_no_other_sequence_is_more_probable(count, classes, seed):
    generator = np.random.default_rng(seed)
    probabilities, lengths = generator.dirichlet(np.full(classes, 0.3), count), generator.uniform(0.1, 2, count)
    another = (1 - 1 / np.e) / classes

    def logarithm(path):
        seen = sum(
            length * np.log(max(row[name], 1e-3))
            for row, length, name in zip(probabilities, lengths, path, strict=True)
        )
        return seen + sum(
            np.log(another / (1 / np.e + another)) for pair in itertools.pairwise(path) if len({*pair}) == 2
        )

    every = [logarithm(path) for path in itertools.product(range(classes), repeat=count)]
    assert logarithm(likeliest(probabilities, lengths).tolist()) == pytest.approx(max(every))


def test_a_short_background_joins_the_action_around_it():
    rows = [(0.9, 0.1, 0), (0.9, 0.1, 0), (0.1, 0, 0.9), (0.8, 0.2, 0), (0.8, 0.2, 0)]
    (run,) = segments_of(lane(rows, length=1.0), ("run", "jump", "background"), start=0.0, end=5.0, shortest=1.5)
    assert (run.label, run.start, run.end) == ("run", 0.0, 5.0)
