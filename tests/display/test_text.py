from datetime import UTC, datetime

import pytest

from posture.display.text import clock, confidence, duration, listed, moment, short, signed, size, stamp


def test_lists_have_commas_and_one_word():
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert listed([3, 5, 6], "or") == "3, 5 or 6"


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [
        (0.04, 0, "0 s"),
        (59.6, 0, "1 min"),
        (59.6, 1, "59.6 s"),
        (59.96, 1, "1 min"),
        (4980, 0, "1 h 23 min"),
        (90000, 0, "1 d 1 h"),
        (float("nan"), 0, "–"),
    ],
)
def test_durations_have_their_two_largest_units(seconds, digits, text):
    assert duration(seconds, digits) == text


@pytest.mark.parametrize(
    ("seconds", "digits", "text"),
    [(0, 1, "0:00.0"), (3.25, 1, "0:03.2"), (59.96, 1, "1:00.0"), (3723.04, 1, "1:02:03.0"), (3599.6, 0, "1:00:00")],
)
def test_times_read_as_in_a_player(seconds, digits, text):
    assert clock(seconds, digits) == text


def test_numbers_keep_the_digits_that_matter():
    assert [size(count) for count in (999, 1000, 1_200_000_000, None)] == ["999 B", "1.0 kB", "1.2 GB", "–"]
    assert [signed(value) for value in (4.12, -4.12, -0.04)] == ["+4.1", "−4.1", "0.0"]
    assert [confidence(value) for value in (0.573, 0.0049, None)] == ["0.57", "0.0049", "–"]
    assert short("abcdef", 4) == "abc…" and short("abcd", 4) == "abcd"


def test_moments_are_in_utc():
    seconds = datetime(2025, 5, 3, 14, 5, tzinfo=UTC).timestamp()
    assert moment(seconds) == moment("2025-05-03T16:05:00+02:00") == "3 May 2025, 14:05 UTC"
    assert stamp(seconds) == "2025-05-03 14:05 UTC" and stamp(0) == stamp(None) == "-" and moment("") == "–"
