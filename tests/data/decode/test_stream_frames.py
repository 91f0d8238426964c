"""A stream of a file's frames: equal to what training stores, in order, and as far as a file can be read."""

import os
import shutil
import signal

import numpy as np
import psutil
import pytest

from posture.data.decode import limits
from posture.data.decode.cut import Clip, Cut
from posture.data.decode.decode_file import cut_file, frames_to_search
from posture.data.decode.sandbox import Sandbox
from posture.data.decode.stream_frames import stream_frames
from posture.data.decode.video import open_video
from posture.data.labels.records import Label
from posture.data.store.schema import DecodeRecipe
from posture.errors import Unreadable
from tests.support.footage import with_early_index
from tests.support.numbered import number_of, write_numbered

pytestmark = pytest.mark.long

WHOLE = [Label(0.0, None, "kick", "ann", "train")]
FAST = {"preset": "ultrafast"}
B_FRAMES = FAST | {"bf": "3", "b_strategy": "0"}
UNEVEN = [24 * number + 7 * (number % 3) for number in range(60)]
FILES = {
    "plain.mp4": {"options": B_FRAMES},
    "portrait.mp4": {"options": B_FRAMES, "turn": 90, "stamps": UNEVEN},
    "odd.mkv": {"options": FAST, "size": (98, 166)},
    "deep.mp4": {"options": FAST, "pixels": "yuv420p10le"},
    "unstamped.avi": {"codec": "libx264", "options": B_FRAMES},
}
LENGTH = 50


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return {name: write_numbered(folder / name, frames=LENGTH, **given) for name, given in FILES.items()}


def frames_of(items, role):
    """Return the numbers, times, ends and stacked frames of a role."""
    rows, images = [], []
    for item in items:
        if isinstance(item, Clip) and item.row["role"] == role:
            shape = len(item.row["numbers"]), item.row["height"], item.row["width"], 3
            images.append(np.frombuffer(item.pixels, np.uint8).reshape(shape))
            rows.append(item.row)
    joined = {name: [value for row in rows for value in row[name]] for name in ("numbers", "times", "ends")}
    return joined, np.concatenate(images)


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("name", FILES)
def test_frames_are_those_that_training_stores(films, name, fit):
    recipe = DecodeRecipe(48, 64, LENGTH, 1, 1, fit)
    (stored,) = [item for item in cut_file(str(films[name]), "v", WHOLE, Cut(recipe)) if isinstance(item, Clip)]
    joined, images = frames_of(stream_frames(str(films[name]), recipe=recipe, longest=80), "clip")
    assert joined["numbers"] == list(range(LENGTH)) and joined["times"] == stored.row["times"]
    assert images.tobytes() == bytes(stored.pixels)


@pytest.mark.parametrize("name", FILES)
def test_frames_to_search_are_those_of_ingest(films, name):
    recipe = DecodeRecipe(48, 64, 16, 3, 1, crop="detector-1f2e3d4c-0.2")
    wanted = [
        item
        for item in frames_to_search(str(films[name]), "v", WHOLE, Cut(recipe), stored=frozenset(), longest=80)
        if isinstance(item, Clip)
    ]
    first = wanted[0].row["numbers"][0]
    with open_video(str(films[name])) as reader:
        start, whole, cap = reader.times()[first], reader.frames(range(first, LENGTH)), reader.stream.fps / 3
    items = list(stream_frames(str(films[name]), recipe=recipe, longest=80, fps_cap=cap, start=start))
    assert items[0]["every"] == 3
    joined, images = frames_of(items, "search")
    numbers = [number for item in wanted for number in item.row["numbers"]]
    assert joined["numbers"][: len(numbers)] == numbers
    assert images[: len(numbers)].tobytes() == b"".join(bytes(item.pixels) for item in wanted)
    assert (frames_of(items, "whole")[1] == whole).all()


def test_a_part_begins_and_ends_in_time(films):
    items = list(stream_frames(str(films["portrait.mp4"]), start=0.5, end=1.2))
    joined, images = frames_of(items, "whole")
    first, stop = items[0]["first"], items[0]["stop"]
    assert joined["numbers"] == list(range(first, stop)) == [number_of(image) for image in images]
    assert UNEVEN[first - 1] < 0.5 * 600 <= UNEVEN[first] and UNEVEN[stop - 1] < 1.2 * 600 <= UNEVEN[stop]
    assert joined["times"] == pytest.approx([tick / 600 for tick in UNEVEN[first:stop]])
    assert joined["ends"] == pytest.approx([tick / 600 for tick in UNEVEN[first + 1 : stop + 1]])
    assert items[0]["frames"] == LENGTH


def test_the_last_frame_ends_with_the_video(films):
    items = list(stream_frames(str(films["plain.mp4"]), longest=64))
    assert frames_of(items, "search")[0]["ends"][-1] == items[0]["seconds"] == pytest.approx(LENGTH / 25)
    assert {item.row["role"] for item in items if isinstance(item, Clip)} == {"search"}


def test_a_decoder_in_another_process_gives_the_same_and_stops_when_told(films):
    recipe = DecodeRecipe(48, 64, 8, 1, 1, "crop")
    with Sandbox() as sandbox:
        options = {"recipe": recipe, "longest": 60, "fps_cap": 12.5, "start": 0.2}
        there = list(sandbox.stream(str(films["plain.mp4"]), **options, limit_seconds=60))
        here = list(stream_frames(str(films["plain.mp4"]), **options))
        assert there[0] == here[0] and len(there) == len(here)
        for role in ("clip", "search"):
            assert frames_of(there, role)[0] == frames_of(here, role)[0]
            assert (frames_of(there, role)[1] == frames_of(here, role)[1]).all()
        items = sandbox.stream(str(films["plain.mp4"]), **options, limit_seconds=60)
        next(items), next(items)
        items.close()
        assert len(list(sandbox.stream(str(films["plain.mp4"]), **options, limit_seconds=60))) == len(here)


def test_what_a_file_that_was_cut_off_still_holds_comes_first(films, tmp_path):
    path = tmp_path / "cut.mp4"
    content = with_early_index(films["plain.mp4"])
    path.write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(Unreadable, match="index lists"):
        open_video(str(path))
    got = []
    with Sandbox() as sandbox, pytest.raises(Unreadable) as caught:
        for item in sandbox.stream(str(path), recipe=None, longest=None, limit_seconds=60):
            got.append(item)
    assert caught.value.verdict == "truncated" and "index lists" in str(caught.value)
    joined, images = frames_of(got, "whole")
    assert 10 < len(joined["numbers"]) < LENGTH - 5
    assert joined["numbers"] == list(range(len(images)))
    # the last packets are incomplete, and what is missing of their frames is concealed
    assert [number_of(image) for image in images[:-4]] == joined["numbers"][:-4]


def test_a_damaged_end_is_not_a_still_image(films, tmp_path):
    path = tmp_path / "damaged.mp4"
    shutil.copy(films["plain.mp4"], path)
    data = bytearray(path.read_bytes())
    at = data.index(b"mdat")
    stop = data.index(b"moov")
    data[at + 4 + (stop - at) * 2 // 5 : stop - 4] = bytes(stop - 4 - (at + 4 + (stop - at) * 2 // 5))
    path.write_bytes(data)
    got = []
    with pytest.raises(Unreadable) as caught:
        for item in stream_frames(str(path)):
            got.append(item)
    assert caught.value.verdict == "truncated"
    joined, images = frames_of(got, "whole")
    assert 12 < len(images) < LENGTH // 2
    assert [number_of(image) for image in images[:12]] == joined["numbers"][:12]


def test_a_decoder_that_hangs_is_given_up(films):
    with Sandbox() as sandbox:
        list(sandbox.frames(str(films["plain.mp4"]), [0], limit_seconds=60))
        os.kill(sandbox._process.pid, signal.SIGSTOP)
        with pytest.raises(Unreadable, match=r"nothing was decoded for 0\.5 s"):
            list(sandbox.stream(str(films["plain.mp4"]), recipe=None, longest=None, limit_seconds=0.5))


def test_a_file_that_takes_long_to_open_gives_signs_of_life(films, monkeypatch):
    told = []
    monkeypatch.setattr(limits, "_tell", lambda: told.append(1))
    monkeypatch.setattr(limits, "_told", 0.0)
    open_video(str(films["plain.mp4"])).close()
    assert told


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path):
    path = write_numbered(tmp_path / "long.mp4", frames=10_000, options=FAST)
    held = []
    with Sandbox() as sandbox:
        for item in sandbox.stream(str(path), recipe=DecodeRecipe(48, 64), longest=80, limit_seconds=60):
            if isinstance(item, Clip) and item.row["role"] == "clip" and item.row["numbers"][0] % 2000 == 0:
                held.append(psutil.Process(sandbox._process.pid).memory_info().rss)
    assert len(held) == 5 and max(held[1:]) < 1.1 * held[1]
