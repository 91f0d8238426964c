"""Videos of all kinds: boxes lie on what is shown, times are those of the frames, the annotated video is upright."""

from fractions import Fraction

import numpy as np
import pytest

from posture.data.decode.video import open_video
from posture.predict.annotate import write_annotated
from posture.predict.model import VideoModel
from posture.runs.trained import open_trained
from tests.support.colour_finder import ColourFinder
from tests.support.explained import make_run
from tests.support.numbered import corners_of, write_numbered

pytestmark = pytest.mark.long

UNEVEN = np.cumsum([0] + [(13, 24, 47, 100)[number % 4] for number in range(89)]).tolist()
"""Times of 90 frames in 1/600 s, as of a phone that films in poor light."""
FILMS = {
    "plain": {},
    "portrait": {"turn": 90},
    "upside down": {"turn": 180},
    "mirrored": {"mirror": True},
    "uneven": {"stamps": UNEVEN, "frames": 90},
    "60 fps": {"fps": 60, "frames": 150},
    "10 bit": {"codec": "libx265", "pixels": "yuv420p10le", "options": {"x265-params": "log-level=none"}},
    "wide pixels": {"aspect": Fraction(4, 3)},
    "odd size": {"size": (97, 161), "pixels": "yuv444p"},
    "b-frames": {"options": {"bf": "3"}},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return VideoModel(
        open_trained(make_run(tmp_path_factory.mktemp("run")).uri, task="action"), detector=ColourFinder()
    )


@pytest.mark.parametrize("name", FILMS)
def test_boxes_times_and_the_annotated_video(model, tmp_path, name):
    settings = FILMS[name]
    video = write_numbered(tmp_path / "film.mp4", **settings)
    found = model.predict(video)
    with open_video(str(video)) as reader:
        times, height, width = reader.times(), reader.stream.height, reader.stream.width
    assert (found.height, found.width) == (height, width)
    red, blue = sorted(found.tracks, key=lambda track: track.boxes[0, 1])
    for track, top in ((red, 0), (blue, height - height // 4)):
        np.testing.assert_array_equal(track.times, times)
        assert np.abs(track.boxes - (0, top, width // 4, top + height // 4)).max() <= 0.06 * max(height, width)
    frames = settings.get("frames", 75)
    expected = (
        np.array(settings["stamps"]) / 600 if "stamps" in settings else np.arange(frames) / settings.get("fps", 25)
    )
    np.testing.assert_allclose(times, expected, atol=1e-3)
    assert found.segments[0].start == 0.0 and found.segments[-1].end == pytest.approx(found.seconds, abs=1e-6)

    write_annotated(found, video, tmp_path / "annotated.mp4")
    with open_video(str(tmp_path / "annotated.mp4")) as reader:
        assert len(reader) == frames and reader.stream.codec == "h264"
        np.testing.assert_allclose(reader.times(), times, atol=1e-3)
        (shown,) = reader.frames([frames // 2])
        assert reader.stream.width == pytest.approx(width, abs=1)
        # the timeline lies below; boxes, the caption and the clock cover the other corners
        assert corners_of(shown[:height])[1] == (0, 255, 0)
