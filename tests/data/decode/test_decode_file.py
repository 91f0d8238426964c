import numpy as np
import pytest

from posture.data.decode.cut import Clip
from posture.data.decode.decode_file import read_frames
from posture.data.decode.sandbox import Sandbox
from posture.errors import Unreadable
from tests.support.image_folders import bright_box, moving_box, shared, write_film


def test_frames_by_number_come_from_another_process(tmp_path):
    path = write_film(tmp_path / "a.mp4", frames=30)
    with Sandbox() as sandbox:
        *found, past = sandbox.frames(str(path), [0, 7, 29, 40], limit_seconds=60)
    assert [clip.row for clip in found] == [
        {
            "frame": frame,
            "time": pytest.approx(frame / 25, abs=1e-4),
            "height": 64,
            "width": 112,
            "coded_height": 64,
            "coded_width": 112,
            "decoder": "pyav",
        }
        for frame in (0, 7, 29)
    ]
    for clip in found:
        assert np.abs(np.subtract(bright_box(clip.pixels), moving_box(clip.row["frame"]))).max() <= 1
    assert past == {"kind": "past_end", "frame": 40, "frames": 30}


def test_a_file_that_is_no_video_has_its_verdict(tmp_path):
    (tmp_path / "a.mp4").write_text("no film" * 99)
    with Sandbox() as sandbox, pytest.raises(Unreadable) as caught:
        list(sandbox.frames(str(tmp_path / "a.mp4"), [0], limit_seconds=60))
    assert caught.value.verdict == "not_video"


def test_times_of_an_avi_that_has_none():
    path = shared("ucf101_24") / "videos" / "Surfing" / "v_Surfing_g18_c03.avi"
    assert [
        item.row["time"] for item in read_frames(str(path), [0, 25, 74]) if isinstance(item, Clip)
    ] == pytest.approx([0.0, 1.0, 2.96])
