import struct

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from posture.data.decode.check_image import EncodedImage, check_image
from posture.data.ingest.parquet_part import ParquetPart
from posture.data.store.tables import Store
from posture.errors import Unreadable
from tests.support.image_folders import draw

SUFFIXES = (".jpg", ".png", ".webp", ".bmp")


def encode(pixels, suffix=".jpg"):
    return cv2.imencode(suffix, pixels)[1].tobytes()


def with_orientation(jpeg, orientation):
    """A JPEG with the EXIF field that cameras write when they are held upright (Exif 2.3, section 4.6.4 A)."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def as_seen(pixels, orientation):
    """What the eight values mean: which side of the image row 0 and column 0 are."""
    seen = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }
    return seen[orientation]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_good_image_stays_byte_for_byte(suffix):
    content = encode(draw([(4, 5, 20, 30)]), suffix)
    assert check_image(content) == EncodedImage(content, 48, 64)


@pytest.mark.parametrize(
    "pixels",
    [
        draw([(4, 5, 20, 30)])[:, :, 0],
        np.dstack([draw([]), np.full((48, 64), 9, np.uint8)]),
        draw([]).astype(np.uint16) * 200,
    ],
)
def test_grey_transparent_and_deep_images_are_good_too(pixels):
    checked = check_image(encode(pixels, ".png"))
    assert (checked.height, checked.width) == (48, 64)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.97])
def test_an_image_that_was_cut_off_is_found_out(suffix, kept):
    content = encode(draw([(4, 5, 20, 30)], size=(96, 128)), suffix)
    with pytest.raises(Unreadable) as caught:
        check_image(content[: int(kept * len(content))])
    assert caught.value.verdict == "truncated"


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (b"", "empty"),
        (b"not an image" * 99, "not_picture"),
        (b"GIF89a" + b"\0" * 99, "not_picture"),
        (b"\xff\xd8\xff" + b"\0" * 99, "truncated"),
        (b"BM", "truncated"),
    ],
)
def test_what_is_no_image_is_refused(content, verdict):
    with pytest.raises(Unreadable) as caught:
        check_image(content)
    assert caught.value.verdict == verdict


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_stored_as_viewers_show_it(orientation):
    pixels = cv2.GaussianBlur(draw([(4, 5, 40, 20)]), (5, 5), 2)
    plain = encode(pixels)
    checked = check_image(with_orientation(plain, orientation))
    stored = np.frombuffer(checked.pixels, np.uint8)
    expected = as_seen(cv2.imdecode(np.frombuffer(plain, np.uint8), cv2.IMREAD_COLOR), orientation)
    assert (checked.height, checked.width) == expected.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    for flags in (cv2.IMREAD_COLOR, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION):
        decoded = cv2.imdecode(stored, flags)
        assert decoded.shape == expected.shape, "no reader may turn it again"
        assert np.abs(decoded.astype(int) - expected).mean() < 3
    assert (checked.pixels == with_orientation(plain, orientation)) == (orientation == 1)


def test_rows_are_written_in_groups_of_32(tmp_path):
    store = Store(str(tmp_path), create=True)
    store.create_tables()
    part = ParquetPart(store.uri, "images")
    for number in range(70):
        part.write({
            "image": f"{number}",
            "uri": "a.png",
            "bytes": number,
            "pixels": b"x" * number,
            "height": 1,
            "width": 2,
        })
    made = part.close()
    assert made["rows"] == 70 and made["bytes"] == (tmp_path / "images" / made["path"]).stat().st_size
    file = pq.ParquetFile(tmp_path / "images" / made["path"])
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [32, 32, 6]
    store.commit_files("images", [made])
    assert {
        row["image"]: (row["bytes"], row["height"], row["width"], len(row["pixels"]))
        for row in store.read("images").to_pylist()
    } == {f"{number}": (number, 1, 2, number) for number in range(70)}
    assert ParquetPart(store.uri, "images").close() is None and len(list((tmp_path / "images").glob("*.parquet"))) == 1
