"""Frame k is the k-th frame shown, with its own time stamp, upright and with square pixels, in any container."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from posture.data.decode.stream import SEEKING, SEQUENTIAL
from posture.data.decode.video import open_video
from posture.errors import Unreadable
from tests.support.numbered import CORNERS, corners_of, number_of, remux, write_numbered

FAST = {"preset": "ultrafast"}
TWO_B_FRAMES = {"bf": "2"}
X264_B = {**FAST, "bf": "3", "b_strategy": "0"}
OPEN_GOP = {**FAST, "x265-params": "log-level=none:open-gop=1:bframes=4:b-adapt=0:keyint=12:min-keyint=12"}
PAIRS = {
    "h264_b.mp4": ("libx264", {"options": X264_B}),
    "h264_open_gop.mp4": ("libx264", {"options": X264_B | {"x264-params": "open-gop=1"}}),
    "h264_refresh.mp4": ("libx264", {"options": FAST | {"bf": "0", "x264-params": "intra-refresh=1"}}),
    "h264_fragments.mp4": ("libx264", {"options": X264_B, "muxer": {"movflags": "frag_keyframe+empty_moov"}}),
    "h264.mov": ("libx264", {"options": FAST | {"bf": "0"}}),
    "h264_b.mkv": ("libx264", {"options": X264_B}),
    "h264_b.avi": ("libx264", {"options": X264_B}),
    "h264_b.ts": ("libx264", {"options": X264_B}),
    "h264_b.m2ts": ("libx264", {"options": X264_B, "container": "mpegts"}),
    "h264_b.flv": ("libx264", {"options": X264_B}),
    "h264_b.wmv": ("libx264", {"options": X264_B}),
    "h264_b.mpg": ("libx264", {"options": X264_B}),
    "h264_b.mxf": ("libx264", {"options": X264_B}),
    "h264_b.h264": ("libx264", {"options": X264_B}),
    "hevc_open_gop.mp4": ("libx265", {"options": OPEN_GOP}),
    "hevc_open_gop.ts": ("libx265", {"options": OPEN_GOP}),
    "hevc_open_gop.mkv": ("libx265", {"options": OPEN_GOP}),
    "mpeg2_b.mpg": ("mpeg2video", {"options": TWO_B_FRAMES}),
    "mpeg2_b.ts": ("mpeg2video", {"options": TWO_B_FRAMES}),
    "mpeg2_b.vob": ("mpeg2video", {"options": TWO_B_FRAMES}),
    "mpeg2_b.mxf": ("mpeg2video", {"options": TWO_B_FRAMES}),
    "mpeg1_b.mpg": ("mpeg1video", {"options": TWO_B_FRAMES}),
    "mpeg4_b.avi": ("mpeg4", {"options": TWO_B_FRAMES}),
    "mpeg4_b.mp4": ("mpeg4", {"options": TWO_B_FRAMES}),
    "vp8_hidden.webm": (
        "libvpx",
        {"options": {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "8"}},
    ),
    "vp9.webm": ("libvpx-vp9", {"options": {"deadline": "realtime", "cpu-used": "8"}}),
    "av1.mp4": ("libsvtav1", {"options": {"preset": "13"}}),
    "mjpeg.avi": ("mjpeg", {"pixels": "yuvj420p"}),
    "prores.mov": ("prores_ks", {"pixels": "yuv422p10le"}),
    "wmv2.wmv": ("wmv2", {}),
    "flv1.flv": ("flv", {}),
    "h263.3gp": ("h263", {"size": (144, 176)}),
    "ffv1.mkv": ("ffv1", {}),
    "dnxhd.mxf": ("dnxhd", {"pixels": "yuv422p", "size": (144, 256), "options": {"profile": "dnxhr_sq"}}),
    "dv.dv": ("dvvideo", {"size": (576, 720), "frames": 30}),
}


def decoded_in_order(path):
    """Return the numbers of all frames as decoded by PyAV alone."""
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.mark.parametrize("name", PAIRS)
def test_random_access_equals_decoding_in_order(tmp_path, name):
    codec, settings = PAIRS[name]
    path = write_numbered(tmp_path / name, codec, **settings)
    numbers = decoded_in_order(path)
    assert numbers == list(range(settings.get("frames", 75)))
    with open_video(str(path)) as reader:
        assert len(reader) == len(numbers)
        places = random.Random(name).choices(range(len(numbers)), k=20)
        assert [number_of(*reader.frames([place])) for place in places] == [numbers[place] for place in places]
        np.testing.assert_array_equal(
            [number_of(frame) for frame in reader.frames(places)], [numbers[place] for place in places]
        )
        np.testing.assert_allclose(reader.times(), np.arange(len(numbers)) / 25, atol=0.001)
        assert reader.fps == pytest.approx(25, abs=0.01)


def test_what_packets_tell_is_used_and_the_rest_decoded_in_order(tmp_path):
    decoders = {}
    for name in ("h264_b.mp4", "hevc_open_gop.ts", "vp9.webm", "h264_b.avi", "mpeg2_b.mpg"):
        codec, settings = PAIRS[name]
        with open_video(str(write_numbered(tmp_path / name, codec, **settings))) as reader:
            decoders[name] = reader.stream.decoder
    assert decoders == {
        "h264_b.mp4": SEEKING,
        "hevc_open_gop.ts": SEEKING,
        "vp9.webm": SEEKING,
        "h264_b.avi": SEQUENTIAL,
        "mpeg2_b.mpg": SEQUENTIAL,
    }


def seen(path):
    """Return the numbers of all frames, their times, and the length of the video."""
    with open_video(str(path)) as reader:
        return (
            [number_of(frame) for frame in reader.frames(range(len(reader)))],
            reader.times().tolist(),
            reader.stream.seconds,
        )


@pytest.fixture
def film(tmp_path):
    """Write 75 frames in H.264 with B-frames and a keyframe every 12 frames."""
    return write_numbered(tmp_path / "film.mp4", options=X264_B)


def moved(frames):
    def move(packet, ticks):
        packet.pts += frames * ticks
        packet.dts += frames * ticks

    return move


def test_an_edit_list_cuts_the_beginning(tmp_path, film):
    numbers, times, seconds = seen(
        remux(film, tmp_path / "cut.mp4", moved(-20), muxer={"avoid_negative_ts": "disabled"})
    )
    assert numbers == list(range(20, 75))
    assert times == pytest.approx(np.arange(55) / 25) and seconds == pytest.approx(2.2)
    with open_video(str(tmp_path / "cut.mp4")) as reader:
        assert [number_of(*reader.frames([place])) for place in (50, 3, 29, 0)] == [70, 23, 49, 20]


@pytest.mark.parametrize("name", ["late.mkv", "late.mp4", "late.ts"])
def test_a_late_start_is_second_zero(tmp_path, film, name):
    numbers, times, seconds = seen(remux(film, tmp_path / name, moved(175)))
    assert numbers == list(range(75))
    assert times == pytest.approx(np.arange(75) / 25, abs=1e-3) and seconds == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize("name", ["repeated.mp4", "repeated.mkv"])
def test_repeated_stamps_are_spread_and_the_others_kept(tmp_path, name):
    film = write_numbered(tmp_path / "film.mp4", options=FAST | {"bf": "0"})

    def repeat(packet, ticks):
        number = packet.pts // ticks
        packet.dts -= 2 * ticks
        if 30 <= number < 60:
            packet.pts = number // 3 * 3 * ticks

    numbers, times, _ = seen(remux(film, tmp_path / name, repeat))
    assert numbers == list(range(75))
    assert times == pytest.approx(np.arange(75) / 25, abs=1.5e-3)


def test_a_variable_rate_is_kept(tmp_path):
    stamps = [20 * number if number < 40 else 800 + 60 * (number - 40) for number in range(75)]
    for name in ("film.mp4", "film.mkv"):
        numbers, times, _ = seen(write_numbered(tmp_path / name, stamps=stamps, options=X264_B))
        assert numbers == list(range(75)) and times == pytest.approx(np.array(stamps) / 600, abs=1e-3)


def test_a_recording_that_begins_within_a_group_begins_at_its_first_keyframe(tmp_path):
    content = write_numbered(tmp_path / "film.ts", options=X264_B | {"x264-params": "scenecut=0"}).read_bytes()
    (tmp_path / "later.ts").write_bytes(content[188 * (len(content) // 188 // 3) :])
    numbers, times, _ = seen(tmp_path / "later.ts")
    assert numbers == list(range(numbers[0], 75)) and 0 < numbers[0] < 40 and numbers[0] % 12 == 0
    assert times == pytest.approx(np.arange(len(numbers)) / 25)


def test_two_recordings_in_one_file_follow_each_other(tmp_path):
    content = write_numbered(tmp_path / "film.ts", options=X264_B).read_bytes()
    (tmp_path / "both.ts").write_bytes(content + content)
    numbers, times, seconds = seen(tmp_path / "both.ts")
    assert numbers == [*range(75), *range(75)]
    assert times == pytest.approx(np.arange(150) / 25) and seconds == pytest.approx(6.0)


def test_sound_may_begin_within_the_file(tmp_path):
    film = write_numbered(tmp_path / "film.ts", options=X264_B)
    with av.open(str(film)) as old, av.open(str(tmp_path / "loud.ts"), "w") as new:
        image, sound = new.add_stream_from_template(old.streams.video[0]), new.add_stream("mp2", rate=44100)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
        samples.rate = 44100
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = image
                new.mux(packet)
                samples.pts = None
                new.mux(sound.encode(samples))
    # FFmpeg reads the start and end of a file when it opens it
    long = write_numbered(tmp_path / "long.ts", frames=400, fps=4, options=X264_B)
    stuffing = (b"\x47\x1f\xff\x10" + b"\xff" * 184) * 30_000
    (tmp_path / "both.ts").write_bytes(
        long.read_bytes() + stuffing + (tmp_path / "loud.ts").read_bytes() + stuffing + film.read_bytes()
    )
    with av.open(str(tmp_path / "both.ts")) as container, pytest.raises(IndexError):
        assert len(container.streams) == 1 and list(container.demux(video=0))
    numbers, times, _ = seen(tmp_path / "both.ts")
    assert numbers == [*range(400), *range(75), *range(75)]
    assert times[:400] == pytest.approx(np.arange(400) / 4, abs=1e-3) and np.diff(times).min() > 0.03


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("mirror", [False, True])
def test_frames_are_upright(tmp_path, turn, mirror):
    path = write_numbered(tmp_path / "phone.mp4", frames=3, turn=turn, mirror=mirror, options=FAST)
    with open_video(str(path)) as reader:
        size = (reader.stream.height, reader.stream.width)
        assert (
            size == (reader.stream.coded_height, reader.stream.coded_width) == ((160, 96) if turn % 180 else (96, 160))
        )
        (frame,) = reader.frames([2])
        assert frame.shape == (*size, 3) and corners_of(frame) == list(CORNERS) and number_of(frame) == 2
    with open_video(str(path), height=30, width=40) as reader:
        assert corners_of(*reader.frames([1])) == list(CORNERS)


def test_pixels_that_are_not_square_are_shown_wide(tmp_path):
    for turn, size, coded in ((0, (96, 284), (96, 160)), (90, (284, 96), (160, 96))):
        with open_video(
            str(write_numbered(tmp_path / f"wide{turn}.mp4", frames=3, turn=turn, aspect=Fraction(16, 9), options=FAST))
        ) as reader:
            assert (reader.stream.height, reader.stream.width) == size and (
                reader.stream.coded_height,
                reader.stream.coded_width,
            ) == coded
            (frame,) = reader.frames([1])
            assert frame.shape == (*size, 3) and corners_of(frame) == list(CORNERS)


def test_the_largest_stream_is_shown_and_covers_are_none(tmp_path):
    film = write_numbered(tmp_path / "film.mp4", options=X264_B)
    small = write_numbered(tmp_path / "small.mp4", size=(48, 80), frames=75, options=FAST)
    with av.open(str(small)) as first, av.open(str(film)) as second, av.open(str(tmp_path / "two.mkv"), "w") as both:
        streams = [both.add_stream_from_template(file.streams.video[0]) for file in (first, second)]
        for file, stream in zip((first, second), streams, strict=True):
            for packet in file.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    both.mux(packet)
    with open_video(str(tmp_path / "two.mkv")) as reader:
        assert (reader.stream.height, reader.stream.width) == (96, 160) and number_of(*reader.frames([60])) == 60
    _write_cover(tmp_path / "song.mp4")
    with pytest.raises(Unreadable) as caught:
        open_video(str(tmp_path / "song.mp4"))
    assert caught.value.verdict == "no_video_stream"


def _write_cover(path: Path) -> None:
    """Write sound with a cover image."""
    from tests.support.numbered import numbered_frame

    with av.open(str(path), "w") as file:
        sound, cover = file.add_stream("aac", rate=44100), file.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 160, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        samples.rate = 44100
        file.mux(cover.encode(av.VideoFrame.from_ndarray(numbered_frame(1), format="rgb24")))
        file.mux(cover.encode())
        file.mux(sound.encode(samples))
        file.mux(sound.encode())


@pytest.mark.parametrize("seconds_per_frame", [3600, 1e-4 / 4])
def test_rates_that_no_video_has_are_refused(tmp_path, seconds_per_frame):
    film = write_numbered(tmp_path / "film.mp4", options=FAST | {"bf": "0"})

    def slow(packet, ticks):
        packet.pts = packet.dts = packet.pts // ticks * round(1000 * seconds_per_frame)

    path = tmp_path / "film.mkv"
    if seconds_per_frame > 1:
        remux(film, path, slow)
    else:
        path = _fast(film, tmp_path / "fast.mp4")
    with pytest.raises(Unreadable) as caught:
        open_video(str(path))
    assert caught.value.verdict == "bad_times" and "frames per second" in str(caught.value)


def _fast(film: Path, path: Path) -> Path:
    """Make the time scale in the header of an MP4 a thousand times finer."""
    content = film.read_bytes()
    at = content.index(b"mdhd") + 16
    scale = int.from_bytes(content[at : at + 4], "big")
    path.write_bytes(content[:at] + (1000 * scale).to_bytes(4, "big") + content[at + 4 :])
    return path


def test_frames_that_do_not_decode_are_held(tmp_path):
    """A frame whose packet is destroyed is replaced by the one shown at its time; other frames keep their numbers."""
    film = write_numbered(tmp_path / "film.mkv", "mjpeg", pixels="yuvj420p")
    with av.open(str(film)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    content = bytearray(film.read_bytes())
    begin = content.index(b"\xff\xd8\xff", packets[40][0])
    content[begin : begin + packets[40][1] - 20] = bytes(packets[40][1] - 20)
    film.write_bytes(content)
    with open_video(str(film)) as reader:
        assert len(reader) == 75
        assert [number_of(frame) for frame in reader.frames([39, 40, 41, 74])] == [39, 39, 41, 74]
        assert reader.held == 1


def test_colours_of_a_kind_that_is_not_known_are_taken_as_usual(tmp_path):
    film = write_numbered(tmp_path / "film.mov", "prores_ks", frames=3, pixels="yuv422p10le")
    content = film.read_bytes()
    at = content.index(b"icpf") + 18  # the frame's header: primaries, transfer, matrix
    film.write_bytes(content[:at] + bytes([2, 2, 229]) + content[at + 3 :])
    with open_video(str(film)) as reader:
        assert number_of(*reader.frames([0])) == 0 and corners_of(*reader.frames([0])) == list(CORNERS)


@pytest.mark.parametrize(
    "name", ["h264_b.mkv", "h264_b.flv", "mpeg4_b.avi", "wmv2.wmv", "vp9.webm", "h264_fragments.mp4"]
)
def test_files_that_were_cut_off(tmp_path, name):
    codec, settings = PAIRS[name]
    content = write_numbered(tmp_path / name, codec, **settings).read_bytes()
    (tmp_path / f"cut.{name}").write_bytes(content[: len(content) // 2])
    with pytest.raises(Unreadable) as caught:
        open_video(str(tmp_path / f"cut.{name}"))
    assert caught.value.verdict == "truncated"


def test_an_end_that_does_not_decode_is_cut_off(tmp_path):
    film = write_numbered(tmp_path / "film.mp4", options=X264_B, muxer={"movflags": "faststart"})
    content = bytearray(film.read_bytes())
    content[len(content) * 2 // 3 :] = bytes(len(content) - len(content) * 2 // 3)
    film.write_bytes(content)
    with open_video(str(film)) as reader, pytest.raises(Unreadable) as caught:
        reader.frames([70])
    assert caught.value.verdict == "truncated"


def test_recorders_that_write_neither_duration_nor_index(tmp_path):
    numbers, _, seconds = seen(
        write_numbered(
            tmp_path / "browser.webm",
            "libvpx",
            muxer={"live": "1"},
            options={"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "0"},
        )
    )
    assert numbers == list(range(75)) and seconds == pytest.approx(3.0, abs=0.01)
