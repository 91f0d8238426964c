import numpy as np
import pytest

from posture.data.decode.cut import frame_numbers
from posture.data.store.schema import DecodeRecipe
from posture.predict.windows import FrameBuffer, Sampling

SAMPLING = Sampling(DecodeRecipe(32, 40, 20, 2), frames=16, step=1)


def test_windows_share_half_of_what_the_network_sees_and_lie_on_the_stride():
    assert (SAMPLING.span, SAMPLING.covered, SAMPLING.hop(0.5), SAMPLING.hop(0.0)) == (39, 31, 16, 32)
    windows = SAMPLING.slide(range(5, 305), 0.5)
    assert windows[0] == list(range(5, 44, 2)) and windows[1][0] == 21
    assert windows[-1][-1] < 305 <= windows[-1][-1] + SAMPLING.hop(0.5) + 1
    assert SAMPLING.seen(windows[0]) == (9, 39)


def test_a_short_video_has_one_short_window():
    assert SAMPLING.slide(range(0, 9), 0.5) == [[0, 2, 4, 6, 8]]
    assert SAMPLING.seen([0, 2, 4, 6, 8]) == (0, 8)


def test_the_whole_is_cut_as_ingest_cuts_a_segment():
    sampling = Sampling(DecodeRecipe(32, 40, 20, 2, 3), frames=16)
    assert sampling.spread(range(3, 200)) == frame_numbers(3, 200, sampling.recipe)


@pytest.mark.parametrize("frames", [400, 4000])
def test_the_buffer_holds_no_more_than_open_windows_need(frames):
    windows = SAMPLING.slide(range(frames), 0.5) + SAMPLING.spread(range(frames))
    buffer, found, most = FrameBuffer(windows), {}, 0
    for number in range(frames):
        buffer.add(number, np.full((2, 2, 3), number % 251, np.uint8))
        for index, images in buffer.complete(until=number):
            found[index] = images()[:, 0, 0, 0].tolist()
        most = max(most, len(buffer._frames))
    assert found == {index: [number % 251 for number in window] for index, window in enumerate(windows)}
    assert most <= 2 * SAMPLING.span and not buffer._frames


def test_windows_wait_until_they_are_asked_for():
    buffer = FrameBuffer([[0, 1], [1, 2]])
    for number in range(3):
        buffer.add(number, np.zeros((1, 1, 3), np.uint8))
    assert [index for index, _ in buffer.complete(until=1)] == [0]
    assert [index for index, _ in buffer.complete(until=9)] == [1]
