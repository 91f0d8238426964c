"""Images with boxes from generated footage: boxes contain their figures, and a folder is written once."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch  # noqa: F401  decord must not be loaded before it

from posture.data.decode.video import write_video
from posture.data.synthetic.footage import generate
from posture.data.synthetic.images import write_images
from posture.errors import InputError

HEIGHT, WIDTH, FRAMES = 48, 64, 23
VIDEOS = (("athlete_00", "train"), ("athlete_01", "val"), ("athlete_02", "test"), ("athlete_00", "train"))


def place_of(number: int, frame: int) -> tuple[int, int, int, int]:
    """Return where the athlete's red square of video `number` is."""
    return 2 + frame, 4 + 3 * number, 14 + frame, 24 + 3 * number


@pytest.fixture(scope="module")
def footage(tmp_path_factory) -> Path:
    """Footage with squares for athletes: red for the video's own, blue for a bystander, none in the last frames."""
    folder = tmp_path_factory.mktemp("footage") / "footage"
    (folder / "videos").mkdir(parents=True)
    boxes, segments = [], []
    for number, (athlete, split) in enumerate(VIDEOS):
        frames = np.full((FRAMES, HEIGHT, WIDTH, 3), 20, np.uint8)
        name = f"videos/video_{number:04d}.mp4"
        for frame in range(20):
            x1, y1, x2, y2 = place_of(number, frame)
            frames[frame, y1:y2, x1:x2] = (230, 30, 30)
            boxes.append((name, frame, athlete, x1, y1, x2, y2))
            if number == 3:
                frames[frame, 10:30, 44:60] = (30, 30, 230)
                boxes.append((name, frame, "athlete_09", 44, 10, 60, 30))
        write_video(folder / name, frames, fps=25.0)
        segments += [(name, 0.1, 0.3, "kick", split, athlete), (name, 0.4, 0.7, "throw", split, athlete)]
    for name, header, rows in (
        ("boxes.csv", "video,frame,athlete,x1,y1,x2,y2", boxes),
        ("segments.csv", "video,start,end,label,split,group", segments),
    ):
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header.split(","), *rows])
    (folder / "footage.json").write_text(
        json.dumps({"generator": "posture.data.synthetic", "version": 1, "arguments": {"videos": 4}})
    )
    return folder


@pytest.fixture(scope="module")
def images(footage, tmp_path_factory) -> Path:
    return write_images(footage, tmp_path_factory.mktemp("synthetic") / "deep", every=5)


def labels_of(path: Path) -> list[tuple[int, np.ndarray]]:
    """Return class and x1, y1, x2, y2 in pixels of each line."""
    found = []
    for line in path.read_text().splitlines():
        label, *shares = line.split()
        x, y, width, height = (float(share) for share in shares)
        found.append((
            int(label),
            np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * [WIDTH, HEIGHT, WIDTH, HEIGHT],
        ))
    return found


def test_every_fifth_frame_is_in_its_athletes_split(images):
    expected = {
        f"images/{split}/{athlete}_frame_{number:04d}{frame:05d}.jpg"
        for number, (athlete, split) in enumerate(VIDEOS)
        for frame in range(0, FRAMES, 5)
    }
    assert {str(path.relative_to(images)) for path in images.rglob("*.jpg")} == expected
    assert {str(path.relative_to(images)) for path in images.rglob("*.txt")} == {
        name.replace("images", "labels").replace(".jpg", ".txt") for name in expected
    }
    assert " ".join((images / "data.yaml").read_text().split()) == (
        "path: . train: images/train val: images/val test: images/test names: 0: athlete 1: bystander"
    )
    assert not list(images.parent.glob(".*"))


def test_boxes_hold_what_they_name(images):
    for path in images.rglob("*.jpg"):
        number, frame = int(path.stem[-9:-5]), int(path.stem[-5:])
        found = labels_of(Path(str(path).replace("images", "labels")).with_suffix(".txt"))
        if frame >= 20:
            assert found == []
            continue
        assert [label for label, _ in found] == ([0, 1] if number == 3 else [0])
        np.testing.assert_allclose(found[0][1], place_of(number, frame), atol=1e-4)
        image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB).astype(int)
        assert image.shape == (HEIGHT, WIDTH, 3)
        for label, (x1, y1, x2, y2) in found:
            colour = image[..., 2 * label] - image[..., 2 - 2 * label]  # red for athletes, blue for bystanders
            rows, columns = np.nonzero(colour > 100)
            np.testing.assert_allclose(
                (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1), (x1, y1, x2, y2), atol=2.01
            )  # colours have half the resolution


def test_images_that_stand_are_used_again_and_nothing_is_overwritten(footage, images, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in images.rglob("*")}
    assert write_images(footage, images, every=5) == images
    assert {path: path.stat().st_mtime_ns for path in images.rglob("*")} == before
    with pytest.raises(
        InputError, match="holds images of other footage, or other frames of it; remove it or give a new folder"
    ):
        write_images(footage, images, every=4)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "holiday.jpg").touch()
    with pytest.raises(InputError, match="exists and holds no images of generated footage; give a new folder"):
        write_images(footage, mine, every=5)
    assert [path.name for path in mine.iterdir()] == ["holiday.jpg"]
    (tmp_path / "empty").mkdir()
    again = write_images(footage, tmp_path / "empty", every=5)
    assert {path.relative_to(again): path.read_bytes() for path in again.rglob("*") if path.is_file()} == {
        path.relative_to(images): path.read_bytes() for path in images.rglob("*") if path.is_file()
    }
    next(again.rglob("*.txt")).unlink()
    with pytest.raises(InputError, match="with missing files"):
        write_images(footage, again, every=5)


def test_what_is_no_generated_footage_is_refused(footage, tmp_path):
    with pytest.raises(
        InputError, match=rf"{tmp_path} is not generated footage; make some with: posture generate {tmp_path}"
    ):
        write_images(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="every must be at least 1 frame, not 0"):
        write_images(footage, tmp_path / "out", every=0)
    assert list(tmp_path.iterdir()) == []


def test_generated_footage_gives_images(tmp_path):
    """Each video of the real generator gives every twentieth frame, always with its athlete."""
    footage = generate(tmp_path / "footage", videos=3, athletes=3, size=(32, 48), segments_per_video=1, workers=1)
    images = write_images(footage, tmp_path / "pictures", every=20)
    with (footage / "boxes.csv").open(newline="") as file:
        frames = {(row["video"], int(row["frame"])) for row in csv.DictReader(file) if int(row["frame"]) % 20 == 0}
    assert len(list(images.rglob("*.jpg"))) == len(frames) and {
        path.name for path in (images / "images").iterdir()
    } == {"train", "val", "test"}
    assert all(path.read_text().startswith("0 ") for path in (images / "labels").rglob("*.txt"))
