import io

import numpy as np
from PIL import Image

from posture.display.sheets import DOTS_PER_INCH, Filmstrip, curve_sheet, filmstrip_sheet


def test_sheets_are_images_whatever_the_names():
    images = np.full((3, 20, 30, 3), 90, dtype=np.uint8)
    row = Filmstrip("$x_1$ {} \\frac", "a_$b$", images, ["$", "<b>", "跳"])
    wide = Image.open(io.BytesIO(filmstrip_sheet("v_$a$_b.mp4", [row, Filmstrip("one", "", images[:1], ["x"])])))
    seconds = np.linspace(1, 2, 8)
    curves = {"stage4": np.linspace(0.2, 0.4, 8), "all blocks together": np.linspace(0.1, 0.3, 8)}
    curve = Image.open(io.BytesIO(curve_sheet("v", curves, seconds, bounds=(0.0, 0.5), keys=[0, 4, 7], row=row)))
    assert wide.format == curve.format == "PNG" and wide.width == curve.width > 1000
    assert (np.asarray(wide.convert("RGB")) == 90).all(axis=-1).mean() > 0.2  # the images are there


def test_long_names_are_written_smaller_and_never_cut():
    images = np.full((6, 20, 30, 3), 90, dtype=np.uint8)
    file = "2025-11-07_indoor_meeting_camera_2_athlete_017_attempt_3.mp4"
    name = f"{file}: evidence for exercising with an exercise ball (34.3%)"
    row = Filmstrip(
        "Attention, stage4 of the spatial stream",
        "nearly uniform: weights 0.95220 to 0.95265; 14 x 14 positions at each of 8 times; " * 2,
        images,
        ["12.48 s, weight 0.523, one of two"] * 6,
    )
    drawn = np.asarray(Image.open(io.BytesIO(filmstrip_sheet(name, [row]))).convert("L")).astype(int)
    ground = int(drawn[0, 0])
    edge = round(0.25 * DOTS_PER_INCH)  # the margin is 0.3 inches
    assert (np.abs(drawn[:, -edge:] - ground) < 8).all() and (np.abs(drawn[:, :edge] - ground) < 8).all(), (
        "nothing reaches into the margins"
    )
    assert (np.abs(drawn[:60, -3 * edge : -edge] - ground) > 60).any(), "the title goes as far as there is room"
