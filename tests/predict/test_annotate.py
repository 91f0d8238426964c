"""The annotated video: a file for browsers with the source's times and sound, and boxes on the athletes."""

import av
import numpy as np
import pytest

from posture.data.decode.video import open_video, probe
from posture.display.colours import UNSURE as GREY
from posture.display.colours import class_colours
from posture.display.overlay import rgb
from posture.errors import InputError, Unreadable
from posture.predict.annotate import Drawing, box_at, write_annotated
from posture.predict.answers import UNSURE, WHOLE_FRAME, ActionSegment, Lane, Prediction, Track
from tests.support.answers import make_prediction
from tests.support.footage import with_early_index
from tests.support.numbered import number_of, sound_of, with_sound, write_numbered

pytestmark = pytest.mark.long

FRAMES, FAST = 50, {"preset": "ultrafast", "bf": "2", "b_strategy": "0"}
UNEVEN = [24 * number + 9 * (number % 3) for number in range(FRAMES)]
SOURCES = {
    "portrait.mp4": {"turn": 90, "stamps": UNEVEN},
    "fast.mkv": {"fps": 60},
    "deep.mp4": {"pixels": "yuv420p10le"},
    "odd.mkv": {"size": (98, 166), "pixels": "yuv444p"},
    "odder.avi": {"codec": "ffv1", "size": (97, 161), "pixels": "bgr0", "options": {}},
    "aac.mp4": {"sound": "aac"},
    "pcm.mov": {"sound": "pcm_s16le"},
}
CLASSES = ("run", "jump")


def make_source(folder, name, *, sound=None, codec="libx264", options=FAST, **given):
    path = write_numbered(folder / f"silent{name}", codec, frames=FRAMES, options=options, **given)
    length = FRAMES / 25
    return with_sound(path, folder / name, sound, begins=1.2, seconds=length) if sound else path


def answer_about(path, *, boxes=None, segments=()):
    """Return an answer with one athlete who stands still."""
    stream = probe(str(path))
    times = stream.times
    found = np.tile(np.array(boxes or [20, 30, 60, 80], np.float32), (stream.frames, 1))
    track = Track(1, np.arange(stream.frames), times, found, np.ones(stream.frames, np.float32))
    lane = Lane(1, times[:1], times[-1:], np.array([[0.8, 0.2]], np.float32))
    size = (stream.width, stream.height, stream.fps, stream.seconds)
    return Prediction(str(path), CLASSES, *size, (track,), (lane,), tuple(segments))


def near(pixel, colour, within=40):
    return bool(np.abs(pixel.astype(int) - rgb(colour)).max() <= within)


@pytest.mark.parametrize("name", SOURCES)
def test_browsers_play_it_with_the_times_and_the_sound_of_the_source(tmp_path, name):
    source = make_source(tmp_path, name, **SOURCES[name])
    told = []
    notes = write_annotated(
        answer_about(source), source, tmp_path / "out.mp4", progress=lambda done, total: told.append((done, total))
    )
    assert notes == () and told[-1] == (FRAMES, FRAMES) and sorted(told) == told
    with av.open(str(tmp_path / "out.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.height % 2, context.width % 2) == ("h264", "yuv420p", 0, 0)
        assert len(file.streams.audio) == ("sound" in SOURCES[name])
    with open_video(str(source)) as before, open_video(str(tmp_path / "out.mp4")) as after:
        assert after.times() == pytest.approx(before.times(), abs=2e-4)
        assert after.stream.width == before.stream.width + before.stream.width % 2
        height = before.stream.height
        assert [number_of(frame[:height]) for frame in after.frames(range(FRAMES))] == list(range(FRAMES))
    if "sound" in SOURCES[name]:
        codec, onset, end = sound_of(tmp_path / "out.mp4")
        assert codec == "aac" and onset == pytest.approx(1.2, abs=0.05) and end == pytest.approx(2.0, abs=0.06)


def test_boxes_lie_on_the_athlete_of_an_upright_phone_video(tmp_path):
    source = make_source(tmp_path, "portrait.mp4", **SOURCES["portrait.mp4"])
    answer = answer_about(source, boxes=[10, 60, 70, 120], segments=[ActionSegment(1, 0.0, 9.0, "jump", 0.8, "jump")])
    write_annotated(answer, source, tmp_path / "out.mp4")
    with open_video(str(tmp_path / "out.mp4")) as reader:
        assert reader.stream.width == 96 and reader.stream.height > 160
        frame = reader.frames([20])[0]
    jump = class_colours(CLASSES)[1]
    assert all(near(frame[y, x], jump) for y, x in ((90, 10), (90, 70), (120, 40)))
    assert not near(frame[90, 40], jump) and not near(frame[140, 40], jump)


def test_a_part_has_its_own_timeline_and_sound(tmp_path):
    source = make_source(tmp_path, "aac.mp4", sound="aac")
    segments = [ActionSegment(1, 0.0, 1.0, "run", 0.7, "run"), ActionSegment(1, 1.0, 2.0, "jump", 0.8, "jump")]
    write_annotated(answer_about(source, segments=segments), source, tmp_path / "out.mp4", start=0.8, end=1.6)
    with open_video(str(tmp_path / "out.mp4")) as reader:
        frames = reader.frames(range(len(reader)))
        assert [number_of(frame[:96]) for frame in frames] == list(range(20, 40))
    run, jump = class_colours(CLASSES)
    row, width = frames[0][-6], frames.shape[2]
    assert near(row[width // 4], run) and near(row[width // 2], jump) and near(row[-6], jump)
    assert sound_of(tmp_path / "out.mp4")[1:] == pytest.approx((0.4, 0.8), abs=0.05)


def test_a_part_that_lies_past_the_end_is_refused(tmp_path):
    source = make_source(tmp_path, "plain.mp4")
    with pytest.raises(InputError, match=r"no frame is shown from 7 s to 9 s; the video lasts 2\.00 s"):
        write_annotated(answer_about(source), source, tmp_path / "out.mp4", start=7.0, end=9.0)
    assert not (tmp_path / "out.mp4").exists()


def test_what_could_be_read_of_a_file_that_was_cut_off_is_written(tmp_path):
    source = make_source(tmp_path, "plain.mp4")
    answer = answer_about(source)
    content = with_early_index(source)
    source.write_bytes(content[: len(content) * 2 // 3])
    (note,) = write_annotated(answer, source, tmp_path / "out.mp4")
    with open_video(str(tmp_path / "out.mp4")) as reader:
        assert 20 < len(reader) < 45 and [number_of(frame[:96]) for frame in reader.frames(range(12))] == [*range(12)]
        assert note.startswith(f"the video could be read up to frame {len(reader)}: its index lists 50 frames")


def test_a_file_that_is_no_video_gives_none(tmp_path):
    source = make_source(tmp_path, "plain.mp4")
    answer = answer_about(source)
    source.write_text("no film" * 99)
    with pytest.raises(Unreadable):
        write_annotated(answer, source, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()


def test_an_interruption_leaves_a_file_that_plays(tmp_path):
    source = make_source(tmp_path, "aac.mp4", sound="aac")

    def interrupt(done, total):
        if done >= 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_annotated(answer_about(source), source, tmp_path / "out.mp4", progress=interrupt)
    with open_video(str(tmp_path / "out.mp4")) as reader:
        assert [number_of(frame[:96]) for frame in reader.frames(range(24))] == list(range(24)) and len(reader) == 24
    assert sound_of(tmp_path / "out.mp4")[2] == pytest.approx(24 / 25, abs=0.05)


def test_boxes_are_interpolated_between_looks_and_hidden_in_long_gaps():
    frames = np.array([4, 8, 12, 40, 44])
    boxes = np.stack([np.array([at, 0, at + 10, 20], np.float32) for at in frames])
    track = Track(1, frames, frames / 25, boxes, np.ones(5, np.float32))
    assert box_at(track, 9).tolist() == [9, 0, 19, 20] and box_at(track, 12).tolist() == [12, 0, 22, 20]
    assert all(box_at(track, number) is None for number in (3, 13, 39, 45))


def test_the_image_says_what_is_unsure_and_what_the_whole_frame_shows():
    frame = np.full((180, 320, 3), 200, np.uint8)
    segments = (
        ActionSegment(WHOLE_FRAME, 0.0, 1.0, "jump", 0.91, "jump"),
        ActionSegment(WHOLE_FRAME, 1.0, 2.0, UNSURE, 0.4, "run"),
    )
    answer = Prediction("a.mp4", CLASSES, 320, 180, 25.0, 2.0, (), (), segments)
    drawing = Drawing(answer, 180, 320, 0.0, 2.0)
    jump = class_colours(CLASSES)[1]
    assert near(drawing.drawn(frame, 10, 0.4)[1, 1], jump, 0) and near(drawing.drawn(frame, 30, 1.2)[1, 1], GREY, 0)
    assert (drawing.drawn(frame, 60, 2.5)[1, 1] == 200).all() and (frame == 200).all()


def test_names_in_letters_that_cannot_be_drawn_and_rows_without_room_are_told():
    assert Drawing(make_prediction(classes=("Läufe", "přeskok", "прыжок")), 240, 320, 0.0, 12.0).notes == []
    drawing = Drawing(make_prediction(athletes=20, classes=("run", "体操", "throw")), 240, 320, 0.0, 12.0)
    assert drawing.notes == [
        "the timeline in the video has no room for the last 5 athletes",
        "in the video, boxes stand for letters that its typeface lacks: 体操",
    ]
