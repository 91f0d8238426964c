"""Every kind of bad file has its own verdict."""

import pytest

from posture.data.decode.probe import open_video
from posture.errors import Unreadable
from tests.support.footage import write_bad_files


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "cut.mp4", "early.mp4", "sound.mp4", "frameless.mp4"])
def test_verdicts(tmp_path, video, name):
    verdicts = write_bad_files(tmp_path / "bad", video("good.mp4", frames=80))
    with pytest.raises(Unreadable) as caught:
        open_video(str(tmp_path / "bad" / name), height=24, width=40)
    assert caught.value.verdict == verdicts[name], str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_good_video_opens(video):
    with open_video(str(video("good.mp4", frames=30)), height=10, width=20) as reader:
        assert (reader.stream.frames, len(reader)) == (30, 30)
