import numpy as np
import pytest

from posture.data.decode.cut import Clip, Cut
from posture.data.decode.decode_file import cut_file
from posture.data.feed.clip_transforms import frame_indices
from posture.data.feed.video_window import SHOWN_PIXELS, cut_window
from posture.data.labels.records import Label
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe
from posture.errors import InputError
from tests.support.footage import write_bad_files

RECIPE = DecodeRecipe(32, 40, 20, 2, windows=3, jpeg=90)


@pytest.mark.parametrize("step", [1, 2])
def test_the_middle_is_what_a_store_with_one_window_has(video, step):
    path = str(video("a.mp4", frames=75))
    recipe = DecodeRecipe(32, 40, 20, 2)
    clip = next(
        item for item in cut_file(path, "", [Label(0.0, None, "", "", "")], Cut(recipe)) if isinstance(item, Clip)
    )
    stored = decode_frames(clip.pixels, clip.row["offsets"], (20, 32, 40))
    window = cut_window(path, RECIPE, frames=8, step=step)
    numbers = frame_indices(20, 8, step=step)
    np.testing.assert_array_equal(window.frames, stored[numbers])
    np.testing.assert_allclose(window.seconds, clip.row["start"] + numbers * 2 / 25)


def test_from_a_start_on(video):
    path = str(video("a.mp4", frames=75))
    # the first frame that is shown from then on
    for start, first in ((0.0, 0.0), (1.0, 1.0), (1.01, 1.04), (2.4, 2.4)):
        window = cut_window(path, RECIPE, frames=8, start=start)
        np.testing.assert_allclose(window.seconds, first + 0.08 * np.arange(8), atol=1e-6)
        assert len(np.unique(window.images.mean(axis=(1, 2)), axis=0)) == 8  # no frame is repeated


@pytest.mark.parametrize(("fit", "proportions"), [("stretch", (64, 96 * 32 / 40)), ("crop", (1, 1)), ("pad", (1, 1))])
def test_images_are_what_the_network_sees_in_the_videos_proportions(video, fit, proportions):
    window = cut_window(str(video("a.mp4")), DecodeRecipe(32, 40, 20, 2, fit=fit), frames=8)
    height, width = window.images.shape[1:3]
    assert min(height, width) == SHOWN_PIXELS
    np.testing.assert_allclose(width / height, proportions[1] / proportions[0], atol=0.01)
    square = window.frames[:, :, 4:36].astype(float)  # 32 x 32 of 32 x 40
    rows, columns = (((np.arange(32) + 0.5) * length / 32).astype(int) for length in (height, width))
    assert np.abs(window.images[:, rows][:, :, columns] - square).mean() < 20
    assert (
        np.abs(window.images[::-1, rows][:, :, columns] - square).mean()
        > np.abs(window.images[:, rows][:, :, columns] - square).mean()
    )


def test_a_stored_clip_shorter_than_the_networks_repeats_its_last_frame(video):
    window = cut_window(str(video("a.mp4")), DecodeRecipe(32, 40, 6, 2), frames=8)
    assert (window.frames[5:] == window.frames[5]).all() and not (window.frames[4] == window.frames[5]).all()


@pytest.mark.parametrize("start", [2.5, 3.0, 100.0, -1.0, float("nan")])
def test_a_start_that_cannot_be(video, start):
    with pytest.raises(
        InputError,
        match=rf"--start {start:g}: .*a.mp4 lasts 3.00 s and one clip needs 0.60 s; give a second from 0 to 2.40",
    ):
        cut_window(str(video("a.mp4", frames=75)), RECIPE, frames=8, start=start)


def test_what_is_no_video_or_too_short(video, tmp_path):
    good = video("a.mp4", frames=60)
    with pytest.raises(InputError, match=r"short.mp4: too short: one clip needs 1.24 s, the video lasts 0.40 s"):
        cut_window(str(video("short.mp4", frames=10)), DecodeRecipe(32, 40, 32, 2), frames=16)
    for name in write_bad_files(tmp_path / "bad", good):
        with pytest.raises(InputError, match=rf"{name}: the video cannot be read: \w+"):
            cut_window(str(tmp_path / "bad" / name), RECIPE, frames=8)
    with pytest.raises(InputError, match=r"nothing\.mp4: the video cannot be read"):
        cut_window(str(tmp_path / "nothing.mp4"), RECIPE, frames=8)
