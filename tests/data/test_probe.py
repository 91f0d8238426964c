"""Every kind of bad file has its own verdict."""

import os
from fractions import Fraction

import numpy as np
import pytest

from posture.data.probe import open_video
from posture.data.video import Unreadable


def write_sound(path):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        sound.rate, sound.time_base = 44100, Fraction(1, 44100)
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def write_bad_files(folder, good):
    """One file per verdict: {name: verdict}."""
    content = good.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no film\n" * 200)
    (folder / "cut.mp4").write_bytes(content[:len(content) // 2])
    (folder / "early.mp4").write_bytes(early_index(good)[:-len(content) // 2])
    write_sound(folder / "sound.mp4")
    (folder / "lost.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    write_frameless(folder / "frameless.mp4")
    return {"empty.mp4": "empty", "text.mp4": "not_video", "cut.mp4": "truncated", "early.mp4": "truncated", "sound.mp4": "no_video_stream",
            "lost.mp4": "unreadable", "pipe.mp4": "unreadable", "frameless.mp4": "no_frames"}


def early_index(path):
    """The same video with its index in front, so that a cut leaves a file that opens."""
    import av

    target = path.with_suffix(".early.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = target.read_bytes()
    target.unlink()
    return content


def write_frameless(path):
    """A container that announces a video stream and has no packet of it."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()


@pytest.mark.parametrize("name", ["empty.mp4", "text.mp4", "cut.mp4", "early.mp4", "sound.mp4", "frameless.mp4"])
def test_verdicts(tmp_path, video, name):
    verdicts = write_bad_files(tmp_path / "bad", video("good.mp4", frames=80))
    with pytest.raises(Unreadable) as caught:
        open_video(str(tmp_path / "bad" / name), height=24, width=40)
    assert caught.value.verdict == verdicts[name], str(caught.value)
    assert str(tmp_path) not in str(caught.value)


def test_a_good_video_opens(video):
    stream, reader = open_video(str(video("good.mp4", frames=30)), height=10, width=20)
    assert (stream.frames, len(reader)) == (30, 30)
