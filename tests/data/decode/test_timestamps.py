import numpy as np
import pytest

from posture.data.decode.timestamps import average_rate, frame_times
from posture.errors import Unreadable

EVEN = np.arange(50) / 25


def times(stamps, rate=25.0, **options):
    return frame_times(np.array(stamps, np.float64), rate=rate, **options)


def test_good_stamps_stay_as_they_are():
    uneven = np.cumsum([0.0, 0.04, 0.1, 0.02, 3.0, 0.04])
    np.testing.assert_allclose(times(uneven), uneven)
    np.testing.assert_allclose(times(7 + uneven), uneven)
    np.testing.assert_allclose(times(-0.5 + uneven), uneven)


def test_each_wrong_stamp_is_mended_by_itself():
    wrong = EVEN.copy()
    wrong[[0, 7, 8, 49]] = np.nan
    np.testing.assert_allclose(times(wrong), EVEN, atol=1e-9)
    wrong = EVEN.copy()
    wrong[20], wrong[30] = 1e9, -1e9
    np.testing.assert_allclose(times(wrong), EVEN, atol=1e-9)
    wrong = EVEN.copy()
    wrong[10:12], wrong[48:] = wrong[10], wrong[48]
    np.testing.assert_allclose(times(wrong), EVEN, atol=1e-9)
    wrong = EVEN.copy()
    wrong[[3, 4]] = wrong[[4, 3]]
    np.testing.assert_allclose(times(wrong), EVEN, atol=1e-9)


def test_a_variable_rate_around_a_repeated_stamp_is_kept():
    stamps = [0.0, 0.1, 0.2, 0.2, 0.3, 1.3, 2.3]
    np.testing.assert_allclose(times(stamps), [0.0, 0.1, 0.2, 0.25, 0.3, 1.3, 2.3])


def test_time_goes_on_after_a_jump():
    np.testing.assert_allclose(times(np.concatenate([EVEN, EVEN])), np.arange(100) / 25, atol=1e-9)
    np.testing.assert_allclose(
        times(np.concatenate([EVEN, 90 + EVEN]), largest_gap=10.0), np.arange(100) / 25, atol=1e-9
    )
    assert times(np.concatenate([EVEN, 90 + EVEN]))[-1] == pytest.approx(90 + EVEN[-1])


def test_without_stamps_the_rate_gives_the_pace():
    np.testing.assert_allclose(times([np.nan] * 50), EVEN)
    np.testing.assert_allclose(times([3.0] * 50), EVEN)
    known = np.full(50, np.nan)
    known[::10] = EVEN[::10]
    np.testing.assert_allclose(times(known, rate=0.0), EVEN, atol=1e-9)


def test_times_increase_whatever_the_stamps():
    generator = np.random.default_rng(0)
    for _ in range(200):
        stamps = generator.choice(
            [
                generator.normal(0, 10, 40),
                generator.integers(0, 5, 40),
                np.full(40, np.nan),
                EVEN[:40],
                np.full(40, 1e18),
            ],
            axis=0,
        )
        found = times(stamps)
        assert found[0] == 0 and np.isfinite(found).all() and (np.diff(found) >= 0).all()


def test_rates():
    assert average_rate(EVEN, 25.0) == 25.0
    assert average_rate(np.arange(50) * 0.0333, 30000 / 1001) == 30000 / 1001, (
        "times in whole milliseconds agree with the rate"
    )
    assert average_rate(EVEN, 600.0) == pytest.approx(25.0)
    for times_, nominal in ((np.array([0.0, 1e8]), 1e-8), (np.arange(50) / 1.7e7, 1.7e7), (np.array([0.0]), 0.0)):
        with pytest.raises(Unreadable) as caught:
            average_rate(times_, nominal)
        assert caught.value.verdict == "bad_times"
