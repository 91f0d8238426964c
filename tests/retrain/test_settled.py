"""Files that are still being copied are left alone; clocks that jump neither hurry nor block them."""

import pytest

from posture.data.store.files import File
from posture.retrain.intake import settled
from posture.retrain.run_pass import still_changing

NOW = 1_800_000_000.0


def file(name="a.mp4", *, bytes=100, age=1000.0):
    return File(f"/in/{name}", name, bytes, NOW - age)


def look(files, *, again=None, before=None, settle=300.0, now=NOW):
    return settled(files, lambda: files if again is None else again, before or {}, settle=settle, now=now)


def test_old_and_quiet_is_settled_young_or_growing_is_not(monkeypatch):
    monkeypatch.setattr("posture.retrain.intake.LOOK_AGAIN_SECONDS", 0.0)
    old, young, growing = file("old.mp4"), file("young.mp4", age=10), file("growing.mp4")
    whole, looks = look([old, young, growing], again=[old, young, file("growing.mp4", bytes=200)])
    assert whole == {old.uri} and set(looks) == {young.uri, growing.uri}
    assert look([old], again=[])[0] == set()  # it vanished while it was looked at


def test_without_waiting_all_are():
    assert look([file(age=0), file("b.mp4", age=-50)], settle=0.0) == ({"/in/a.mp4", "/in/b.mp4"}, {})


def test_a_time_that_lies_in_the_future_is_waited_for_by_our_own_clock(monkeypatch):
    monkeypatch.setattr("posture.retrain.intake.LOOK_AGAIN_SECONDS", 0.0)
    ahead = file(age=-1e6)
    whole, looks = look([ahead])
    assert not whole and looks[ahead.uri]["since"] == NOW
    whole, looks = look([ahead], before=looks, now=NOW + 200)
    assert not whole and looks[ahead.uri]["since"] == NOW
    assert look([ahead], before=looks, now=NOW + 301)[0] == {ahead.uri}
    # it grew in between: from the beginning
    whole, later = look([file(age=-1e6, bytes=101)], before=looks, now=NOW + 301)
    assert not whole and later[ahead.uri]["since"] == NOW + 301


def test_a_clock_that_went_back_starts_the_wait_anew_and_does_not_block(monkeypatch):
    monkeypatch.setattr("posture.retrain.intake.LOOK_AGAIN_SECONDS", 0.0)
    ahead = file(age=-1e6)
    _, looks = look([ahead], now=NOW + 5000)
    whole, looks = look([ahead], before=looks, now=NOW)
    assert not whole and looks[ahead.uri]["since"] == NOW
    assert look([ahead], before=looks, now=NOW + 300)[0] == {ahead.uri}


@pytest.mark.parametrize(
    ("settle", "count", "told"),
    [
        (300.0, 105, "105 files changed in the last 5 min, or are still changing (--settle 300)"),
        (90.0, 1, "1 file changed in the last 1 min 30 s, or is still changing (--settle 90)"),
    ],
)
def test_a_pass_says_how_long_files_must_have_been_left_alone(settle, count, told):
    assert still_changing(["/in/a.mp4"] * count, settle) == told
