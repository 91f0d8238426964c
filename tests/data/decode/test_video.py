import subprocess
import sys

import numpy as np
import pytest

from posture.data.decode.video import Reader, open_video, probe, write_video
from posture.errors import Unreadable
from tests.support.footage import write_bad_files
from tests.support.image_folders import shared


def test_frames_survive_a_round_trip(tmp_path):
    frames = [np.full((48, 64, 3), (10 + 3 * n, 120, 200 - 2 * n), np.uint8) for n in range(40)]
    write_video(tmp_path / "a.mp4", frames, fps=20)
    stream = probe(str(tmp_path / "a.mp4"))
    assert (stream.frames, stream.fps, stream.width, stream.height, stream.codec) == (40, 20.0, 64, 48, "h264")
    reader = Reader(str(tmp_path / "a.mp4"), height=48, width=64)
    assert len(reader) == 40
    np.testing.assert_allclose(reader.times(), np.arange(40) / 20, atol=1e-3)
    decoded = reader.frames([0, 7, 39])
    assert decoded.shape == (3, 48, 64, 3)
    for image, number in zip(decoded, (0, 7, 39), strict=True):
        np.testing.assert_allclose(image.mean(axis=(0, 1)), frames[number][0, 0], atol=4)


def test_files_without_times_run_at_an_even_pace():
    reader = Reader(str(shared("ucf101_24") / "videos" / "Surfing" / "v_Surfing_g18_c03.avi"), height=60, width=80)
    np.testing.assert_allclose(reader.times(), np.arange(len(reader)) / reader.fps)
    assert 1 < reader.times()[-1] < 20  # the file has no times, and the decoder's reach ten thousand million years


def test_frames_are_resized_while_decoding(video):
    assert Reader(str(video("a.mp4", frames=10)), height=20, width=30).frames(range(10)).shape == (10, 20, 30, 3)


@pytest.mark.parametrize("width", [16, 31, 32, 48, 64, 95, 96, 97, 112, 128, 171])
def test_every_width_decodes(video, width):
    """The decoder misreads rows at some widths; the image must be the same at all of them."""
    path = str(video("a.mp4", frames=5))
    (frame,) = Reader(path, height=64, width=width).frames([2])
    assert frame.shape == (64, width, 3)
    (wide,) = Reader(path, height=64, width=193).frames([2])
    halves = [image[:, : image.shape[1] // 2].mean() for image in (frame, wide)]
    assert halves[0] == pytest.approx(halves[1], abs=4)


def test_what_is_no_video_says_so(tmp_path):
    (tmp_path / "text.mp4").write_text("a shopping list\n" * 100)
    with pytest.raises(Unreadable) as caught:
        probe(str(tmp_path / "text.mp4"))
    assert caught.value.verdict == "not_video"
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "none.mp4", [], fps=25)


def test_the_decoder_goes_with_torch(video):
    """decord before torch in one process crashes; the import here is lazy, so the caller decides the order."""
    path = video("a.mp4", frames=10)
    code = (
        f"import torch; from posture.data.decode.video import Reader; print(Reader({str(path)!r}, height=64, "
        "width=98).frames([3]).shape, torch.ones(1).sum())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120).returncode == 0


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "cut.mp4", "early.mp4", "sound.mp4", "frameless.mp4"])
def test_every_kind_of_bad_file_has_its_own_verdict(tmp_path, video, name):
    verdicts = write_bad_files(tmp_path / "bad", video("good.mp4", frames=80))
    with pytest.raises(Unreadable) as caught:
        open_video(str(tmp_path / "bad" / name), height=24, width=40)
    assert caught.value.verdict == verdicts[name], str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_good_video_opens(video):
    with open_video(str(video("good.mp4", frames=30)), height=10, width=20) as reader:
        assert (reader.stream.frames, len(reader)) == (30, 30)
