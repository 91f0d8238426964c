"""Boxes, images and clips of one video are in pixels of the video as it is shown, whatever its rotation and pixel
aspect.
"""

import io
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from posture.data.decode.cut import Cut
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.clips import ingest_clips
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.labels.images import read_images
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.store.frame_codec import decode_frames
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.distributed.ingest import ingest_images
from tests.support.numbered import CORNERS, corners_of, write_numbered

FILMS = {
    "portrait": ({"turn": 90}, (160, 96), (160, 96)),
    "wide": ({"aspect": Fraction(16, 9)}, (96, 160), (96, 284)),
    "narrow": ({"aspect": Fraction(1, 2), "turn": 270}, (160, 96), (80, 96)),
}
"""How each is written, its upright (height, width) before the pixel aspect ratio, and as it is shown."""


@pytest.fixture(params=FILMS)
def film(tmp_path, request):
    """A video with CVAT's boxes around the white corner, drawn on upright images without the pixel aspect ratio as
    CVAT draws.
    """
    settings, (height, width), shown = FILMS[request.param]
    root = tmp_path / "film"
    root.mkdir()
    write_numbered(root / "p.mp4", frames=40, **settings)
    box = f'xtl="{width * 3 / 4}" ytl="{height * 3 / 4}" xbr="{width}" ybr="{height}"'
    boxes = "".join(
        f'<box frame="{number}" outside="0" occluded="0" keyframe="1" {box} z_order="0"></box>' for number in range(40)
    )
    (root / "annotations.xml").write_text(
        f"<annotations><version>1.1</version><meta><task><size>40</size><start_frame>0</start_frame><stop_frame>39</stop_frame><original_size>"
        f"<width>{width}</width><height>{height}</height></original_size></task><source>p.mp4</source></meta>"
        f'<track id="0" label="athlete" source="manual">{boxes}</track></annotations>'
    )
    return root, shown


@pytest.mark.usefixtures("ray_cluster")
def test_boxes_and_images(film, tmp_path):
    root, (height, width) = film
    store = Store(str(tmp_path / "store"), create=True)
    for added in (5, 0):  # the second time from what is stored
        report = ingest_images(read_images(str(root), layout="cvat"), store, ImageOptions())
        assert report.added == added and not report.refused
        held = {row["image"]: row for row in store.read("boxes").to_pylist()}
        for row in store.read("images").to_pylist():
            assert (row["height"], row["width"]) == (height, width)
            image = np.asarray(Image.open(io.BytesIO(row["pixels"])))
            assert image.shape == (height, width, 3) and corners_of(image) == list(CORNERS)
            np.testing.assert_allclose(
                held[row["image"]]["boxes"], [[width * 3 / 4, height * 3 / 4, width, height]], atol=1
            )


def test_clips_around_boxes(film, tmp_path):
    root, _ = film
    (root / "segments.csv").write_text("video,start,end,label\np.mp4,0,1.2,jump\n")
    store = Store(str(tmp_path / "store"), create=True)
    report = ingest_clips(
        read_tracked_footage(str(root), drawn=True),
        store,
        IngestOptions(cut=Cut(DecodeRecipe(32, 40, 8, 2, crop="boxes0"), 4)),
    )
    assert report.clips == 1 and not report.refused
    (row,) = store.read("clips").to_pylist()
    frame = decode_frames(row["pixels"], row["offsets"], (8, 32, 40))[0]
    assert (frame[20:28, 25:35] > 200).all(), "the middle of the lower right corner is white"
    (video,) = store.read("videos").to_pylist()
    assert (video["height"], video["width"]) == film[1]
