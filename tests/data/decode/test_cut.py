import functools
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posture.data.decode.cut import Clip, Cut, accept, frame_numbers
from posture.data.decode.decode_file import cut_file, fit_frames
from posture.data.decode.video import write_video
from posture.data.labels.records import Label
from posture.data.store.frame_codec import decode_frames, encode_frames
from posture.data.store.schema import DecodeRecipe, segment_id
from tests.support.numbered import numbered_frame, write_numbered

SMALL = DecodeRecipe(24, 32, 16, 2, 1)


def label(start, end, name="kick"):
    return Label(start, end, name, "ann", "train")


def cut(path, labels, **options):
    items = list(cut_file(str(path), "content", labels, Cut(**{"recipe": SMALL, "min_frames": 8} | options)))
    kinds = {
        kind: [item for item in items if not isinstance(item, Clip) and item["kind"] == kind]
        for kind in ("stream", "segment", "refused")
    }
    return kinds | {"clips": [item for item in items if isinstance(item, Clip)]}


@given(st.integers(0, 500), st.integers(1, 400), st.integers(1, 40), st.integers(1, 5), st.integers(1, 12))
def test_windows_stay_in_the_segment(first, length, frames, stride, windows):
    recipe = DecodeRecipe(16, 16, frames, stride, windows)
    cut_windows = frame_numbers(first, first + length, recipe)
    assert 1 <= len(cut_windows) <= windows
    for numbers in cut_windows:
        assert first <= numbers[0] and numbers[-1] < first + length
        assert all(later - earlier == stride for earlier, later in itertools.pairwise(numbers))
    span = (frames - 1) * stride + 1
    if length >= span:
        assert all(len(numbers) == frames for numbers in cut_windows)
    if windows > 1 and length > span:
        assert cut_windows[0][0] == first and cut_windows[-1][-1] == first + length - 1
    assert len({numbers[0] for numbers in cut_windows}) == len(cut_windows)


def test_a_segment_gives_its_own_frames(video):
    path = video("a.mp4", frames=100)
    found = cut(path, [label(1.0, 3.0)])
    (clip,) = found["clips"]
    assert (clip.row["frames"], clip.row["height"], clip.row["width"], clip.row["offsets"]) == (16, 24, 32, [])
    assert clip.row["start"] == pytest.approx((25 + (50 - 31) / 2) / 25, abs=0.05)
    frames = decode_frames(clip.pixels, [], (16, 24, 32))
    assert frames.shape == (16, 24, 32, 3)
    red = frames[..., 0].mean(axis=1)  # (T, W); the square is the brightest part
    columns = [float(np.flatnonzero(row > row.mean() + row.std()).mean()) for row in red]
    assert columns == sorted(columns) and columns[-1] > columns[0]
    (segment,) = found["segment"]
    assert segment["segment"] == segment_id("content", 1.0, 3.0)
    assert (segment["start"], segment["end"], segment["label"], segment["group"], segment["split"]) == (
        1.0,
        3.0,
        "kick",
        "ann",
        "train",
    )


def test_stored_segments_are_not_decoded_again(video):
    stored = frozenset({segment_id("content", 0.0, 1.0)})
    items = list(
        cut_file(str(video("a.mp4")), "content", [label(0.0, 1.0), label(1.0, 2.0)], Cut(SMALL), stored=stored)
    )
    assert len([item for item in items if isinstance(item, Clip)]) == 1
    assert len([item for item in items if not isinstance(item, Clip) and item["kind"] == "segment"]) == 2


def test_segments_past_the_end_are_refused_and_rounded_ones_kept(video):
    found = cut(video("a.mp4", frames=50), [label(0.0, 2.3), label(0.5, 9.0), label(5.0, None)])
    assert [row["end"] for row in found["segment"]] == [pytest.approx(2.0)]
    assert [item["verdict"] for item in found["refused"]] == ["segment_past_end"] * 2
    assert "the video lasts 2.00 s" in found["refused"][0]["reason"]


def test_short_segments_are_padded_or_refused(video):
    path = video("a.mp4", frames=50)
    assert [clip.row["frames"] for clip in cut(path, [label(0.0, 0.4)])["clips"]] == [5]
    refused = cut(path, [label(0.0, 0.4)], short="refuse")
    assert not refused["clips"] and [item["verdict"] for item in refused["refused"]] == ["too_short"]


def test_background_fills_the_gaps(video):
    found = cut(video("a.mp4", frames=150), [label(1.6, 2.0), label(2.2, 4.0)], background=True)
    background = [row for row in found["segment"] if row["label"] == "background"]
    assert [(row["start"], row["end"]) for row in background] == [(0.0, 1.6), (4.0, 6.0)]  # 0.2 s fit no window
    assert {(row["group"], row["split"]) for row in background} == {("ann", "train")}


def test_each_athlete_has_background_between_their_own_labels():
    red, green = (functools.partial(Label, group="club", split="train", athlete=name) for name in ("red", "green"))
    labels = [red(0.0, 2.0, "run"), green(1.0, 5.0, "jump"), red(4.0, 6.0, "run"), label(9.0, 10.0)]
    accepted, _ = accept(labels, Cut(SMALL, background=True), seconds=10.0, fps=25.0)
    gaps = [(item.athlete, item.start, item.end) for item in accepted if item.label == "background"]
    # that of the whole video has no label at all; that of an athlete has none of the whole video
    assert gaps == [("red", 2.0, 4.0), ("red", 6.0, 9.0), ("green", 5.0, 9.0), ("", 6.0, 9.0)]
    assert {(item.group, item.split) for item in accepted if item.athlete} == {("club", "train")}


def test_accept_without_the_file_agrees_with_cutting_it(video):
    labels = [label(0.0, 1.0), label(1.0, 1.1), label(1.5, 9.0), label(3.0, None)]
    path = video("a.mp4", frames=100)
    for options in ({}, {"short": "refuse"}, {"background": True}):
        found = cut(path, labels, **options)
        accepted, refused = accept(labels, Cut(**{"recipe": SMALL, "min_frames": 8} | options), seconds=4.0, fps=25.0)
        assert [segment_id("content", item.start, item.end) for item in accepted] == [
            row["segment"] for row in found["segment"]
        ]
        assert [item["verdict"] for item in refused] == [item["verdict"] for item in found["refused"]]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_other_aspect_ratios(video, fit):
    recipe = DecodeRecipe(32, 32, 4, 1, 1, fit)
    (clip,) = [
        item
        for item in cut_file(str(video("a.mp4", size=(48, 96))), "c", [label(0, 1)], Cut(recipe, 4))
        if isinstance(item, Clip)
    ]
    frames = decode_frames(clip.pixels, [], (4, 32, 32))
    bars = frames[:, :7].max() == 0 and frames[:, -7:].max() == 0
    assert bars == (fit == "pad") and frames[:, 14:18].max() > 0


def test_fitting_crops_the_middle_and_pads_evenly():
    frames = np.arange(2 * 6 * 8 * 3, dtype=np.uint8).reshape(2, 6, 8, 3)
    np.testing.assert_array_equal(fit_frames(frames, DecodeRecipe(4, 4, fit="crop")), frames[:, 1:5, 2:6])
    padded = fit_frames(frames, DecodeRecipe(7, 9, fit="pad"))
    assert padded.shape == (2, 7, 9, 3) and padded.sum() == frames.sum()


def test_jpeg_frames_are_close_and_picked_singly():
    ramp = np.linspace(0, 255, 40 * 56).reshape(40, 56)
    frames = np.stack([np.stack([ramp, ramp[::-1], np.full_like(ramp, 20 * n)], axis=-1) for n in range(5)]).astype(
        np.uint8
    )
    pixels, offsets = encode_frames(frames, 95)
    assert len(pixels) < frames.nbytes / 3 and len(offsets) == 5
    assert np.abs(decode_frames(pixels, offsets, (5, 40, 56)).astype(int) - frames).mean() < 4
    np.testing.assert_array_equal(
        decode_frames(pixels, offsets, (5, 40, 56), numbers=[3, 1]), decode_frames(pixels, offsets, (5, 40, 56))[[3, 1]]
    )


@given(
    st.builds(
        DecodeRecipe,
        st.integers(16, 512),
        st.integers(16, 512),
        st.integers(1, 99),
        st.integers(1, 9),
        st.integers(1, 9),
        st.sampled_from(["stretch", "crop", "pad"]),
        st.integers(0, 100),
    )
)
def test_a_recipe_is_its_text(recipe):
    assert DecodeRecipe.parse(str(recipe)) == recipe


def test_an_image_that_stands_still_is_noted(tmp_path):
    moving, still = tmp_path / "moving.mp4", tmp_path / "still.mp4"
    write_numbered(moving, frames=50)
    write_video(still, [numbered_frame(number if number < 30 else 30) for number in range(90)], fps=25)
    notes = {
        path.stem: [
            item["note"]
            for item in cut_file(
                str(path), "c", [label(0, 1), label(1, 2), label(2, None)][: 2 if path == moving else 3], Cut(SMALL)
            )
            if not isinstance(item, Clip) and item["kind"] == "note"
        ]
        for path in (moving, still)
    }
    assert notes["moving"] == []
    (note,) = notes["still"]
    assert "2 clips repeat" in note and "from 1.00 s" in note
