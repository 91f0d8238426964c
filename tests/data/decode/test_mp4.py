"""Files for browsers: H.264 with even sides, the times and the sound of their source."""

import av
import numpy as np
import pytest

from posture.data.decode.mp4 import Mp4Writer
from posture.data.decode.sandbox import Sandbox
from posture.data.decode.video import open_video
from posture.errors import Unreadable
from tests.support.numbered import number_of, numbered_frame, sound_of, with_sound, write_numbered

pytestmark = pytest.mark.long

UNEVEN = np.cumsum([0.0, *np.random.default_rng(5).uniform(0.01, 0.09, 59)])


def write(path, times, *, size=(96, 160), start=0, **options):
    ends = [*times[1:], times[-1] + 0.04]
    with Mp4Writer(path, fps=25.0, **options) as writer:
        for number, (time, end) in enumerate(zip(times, ends, strict=True)):
            if time >= start:
                writer.add(numbered_frame(number, height=size[0], width=size[1]), time=time, end=end)
    return path


def test_browsers_can_play_it(tmp_path):
    path = write(tmp_path / "a.mp4", UNEVEN)
    with av.open(str(path)) as file:
        (stream,) = file.streams
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.height, context.width) == ("h264", "yuv420p", 96, 160)
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]


def test_every_frame_keeps_its_time_and_colours(tmp_path):
    with open_video(str(write(tmp_path / "a.mp4", UNEVEN))) as reader:
        assert reader.times() == pytest.approx(UNEVEN, abs=2e-5)
        frames = reader.frames(range(60))
    assert [number_of(frame) for frame in frames] == list(range(60))
    for place, colour in (((10, 10), (255, 0, 0)), ((85, 150), (255, 255, 255)), ((10, 150), (0, 255, 0))):
        assert np.abs(frames[0][place].astype(int) - colour).max() < 12
    with av.open(str(tmp_path / "a.mp4")) as file:
        assert float(file.streams.video[0].duration * file.streams.video[0].time_base) == pytest.approx(
            UNEVEN[-1] + 0.04, abs=1e-3
        )


@pytest.mark.parametrize("size", [(97, 161), (64, 51), (33, 80)])
def test_odd_sides_become_even(tmp_path, size):
    with open_video(str(write(tmp_path / "a.mp4", UNEVEN[:5], size=size))) as reader:
        frame = reader.frames([4])[0]
    assert frame.shape[:2] == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    assert np.abs(frame[-1].astype(int) - frame[-2]).max() < 60


@pytest.mark.parametrize(
    ("codec", "name", "written"),
    [
        ("aac", "a.mp4", "aac"),
        ("libmp3lame", "a.mkv", "mp3float"),
        ("pcm_s16le", "a.mov", "aac"),
        ("aac", "a.ts", "aac"),
        ("libopus", "a.mkv", "aac"),
    ],
)
@pytest.mark.parametrize("start", [0.0, 0.8])
def test_the_sound_stays_with_the_frames(tmp_path, codec, name, written, start):
    film = write_numbered(tmp_path / "film.mp4", frames=50, options={"preset": "ultrafast", "bf": "2"})
    rate = 48000 if codec == "libopus" else 44100
    source = with_sound(film, tmp_path / name, codec, begins=1.2, seconds=2.0, rate=rate)
    with Sandbox() as sandbox:
        answer = sandbox.sound(str(source), str(tmp_path / "sound.mp4"), start=start, end=None, limit_seconds=60)
    assert answer == {"kind": "sound", "found": True, "note": ""}
    times = np.arange(50) / 25
    path = write(tmp_path / "out.mp4", times, start=start, sound=tmp_path / "sound.mp4", sound_start=start)
    found, onset, end = sound_of(path)
    assert found == written and onset == pytest.approx(1.2 - start, abs=0.05)
    assert end == pytest.approx(2.0 - start, abs=0.06)


def test_the_sound_ends_where_it_is_told_to_and_with_the_last_frame(tmp_path):
    film = write_numbered(tmp_path / "film.mp4", frames=75, options={"preset": "ultrafast"})
    for codec, name in (("aac", "a.mp4"), ("pcm_s16le", "b.mov")):
        source = with_sound(film, tmp_path / name, codec, begins=0.5, seconds=3.0)
        with Sandbox() as sandbox:
            sandbox.sound(str(source), str(tmp_path / "sound.mp4"), start=1.0, end=2.0, limit_seconds=60)
        assert sound_of(tmp_path / "sound.mp4")[2] == pytest.approx(1.0, abs=0.05)
        path = write(tmp_path / "out.mp4", np.arange(25, 35) / 25, sound=tmp_path / "sound.mp4", sound_start=1.0)
        assert sound_of(path)[2] == pytest.approx(0.4, abs=0.05)


def test_no_sound_is_no_error(tmp_path):
    film = write_numbered(tmp_path / "film.mp4", frames=10)
    with Sandbox() as sandbox:
        answer = sandbox.sound(str(film), str(tmp_path / "sound.mp4"), limit_seconds=60)
    assert answer == {"kind": "sound", "found": False, "note": ""} and not (tmp_path / "sound.mp4").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, Unreadable("truncated", "it ends here")])
def test_what_was_written_before_an_end_in_the_midst_plays(tmp_path, error):
    with pytest.raises((KeyboardInterrupt, Unreadable)), Mp4Writer(tmp_path / "a.mp4", fps=25.0) as writer:
        for number in range(20):
            writer.add(numbered_frame(number), time=number / 25, end=(number + 1) / 25)
        raise error
    with open_video(str(tmp_path / "a.mp4")) as reader:
        assert [number_of(frame) for frame in reader.frames(range(20))] == list(range(20))


def test_after_another_error_an_earlier_file_stays(tmp_path):
    (tmp_path / "a.mp4").write_text("earlier")
    with pytest.raises(RuntimeError), Mp4Writer(tmp_path / "a.mp4", fps=25.0) as writer:
        writer.add(numbered_frame(0), time=0.0, end=0.04)
        raise RuntimeError
    with Mp4Writer(tmp_path / "a.mp4", fps=25.0):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "earlier"
