"""What one file may ask of the process that decodes it: pixels, memory and time, the same for images and videos."""

import os
import signal
import struct
import zlib

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from posture.data.decode.cut import Cut
from posture.data.decode.limits import DecodeLimits
from posture.data.decode.sandbox import Sandbox
from posture.data.labels.records import Label
from posture.data.store.files import hash_file
from posture.data.store.schema import VERDICTS, DecodeRecipe
from posture.errors import Unreadable
from tests.support.image_folders import draw, save

pytestmark = pytest.mark.long

WHOLE = [Label(0.0, None, "kick", "ann")]
CUT = Cut(DecodeRecipe(24, 32, 8, 1, 1), 4)


def take(sandbox, path, *, limit_seconds=60.0):
    return sandbox.image(str(path), hash_file(str(path)), limit_seconds=limit_seconds)


def refusal(decode):
    with pytest.raises(Unreadable) as caught:
        decode()
    assert caught.value.verdict in VERDICTS
    return caught.value.verdict, str(caught.value)


def saved(path, image, **settings):
    image.save(path, **settings)
    return path


def png_with(width, height):
    """A PNG that promises so many pixels, and holds hardly any."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks
    )


def test_images_come_from_another_process_which_is_kept(tmp_path):
    paths = [save(tmp_path / f"{number}.png", seed=number) for number in range(3)]
    with Sandbox() as sandbox:
        for path in paths:
            encoded = take(sandbox, path)
            assert (encoded.pixels, encoded.height, encoded.width) == (path.read_bytes(), 48, 64)
        process = sandbox._process
        assert process.pid != os.getpid()
        assert refusal(lambda: sandbox.image(str(paths[0]), "0" * 32, limit_seconds=60)) == (
            "unreadable",
            "the file changed while it was read",
        )
        take(sandbox, paths[0])
        assert sandbox._process is process


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp"])
def test_the_pixels_of_an_image_are_limited(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}")
    with Sandbox(DecodeLimits(pixels=48 * 64)) as sandbox:
        assert take(sandbox, path).width == 64
    with Sandbox(DecodeLimits(pixels=48 * 64 - 1)) as sandbox:
        assert refusal(lambda: take(sandbox, path)) == (
            "too_large",
            "64 x 48 pixels; the maximum is 3,071 (--max-pixels)",
        )


def test_small_files_that_promise_large_images_are_refused_before_they_are_decoded(tmp_path):
    jpeg = cv2.imencode(".jpg", draw([]))[1].tobytes()
    size = jpeg.index(b"\xff\xc0") + 5
    (tmp_path / "wide.jpg").write_bytes(jpeg[:size] + struct.pack(">HH", 65500, 65500) + jpeg[size + 4 :])
    bitmap = cv2.imencode(".bmp", draw([]))[1].tobytes()
    (tmp_path / "wide.bmp").write_bytes(bitmap[:18] + struct.pack("<ii", 30000, 30000) + bitmap[26:])
    (tmp_path / "wide.png").write_bytes(png_with(20000, 20000))
    (tmp_path / "endless.png").write_bytes(png_with(2**31 - 1, 2**31 - 1))
    saved(tmp_path / "bomb.png", Image.new("1", (20000, 20000)))  # 50 kB on the disk, 1.2 GB in memory
    good = save(tmp_path / "good.png")
    with Sandbox(DecodeLimits(memory_bytes=800_000_000)) as sandbox:
        verdicts = {
            path.name: refusal(lambda path=path: take(sandbox, path))[0]
            for path in sorted(tmp_path.iterdir())
            if path != good
        }
        assert verdicts == dict.fromkeys(("wide.jpg", "wide.bmp", "wide.png", "endless.png", "bomb.png"), "too_large")
        assert take(sandbox, good).height == 48


def test_the_memory_for_an_image_is_limited(tmp_path):
    bomb = saved(tmp_path / "bomb.png", Image.new("L", (16000, 16000)), compress_level=1)
    with Sandbox(DecodeLimits(pixels=10**9, memory_bytes=700_000_000)) as sandbox:
        assert refusal(lambda: take(sandbox, bomb)) == (
            "out_of_memory",
            "decoding needs more than 0.7 GB of memory (--file-memory)",
        )
        assert take(sandbox, save(tmp_path / "good.png")).height == 48


def test_the_time_for_an_image_is_limited(tmp_path):
    path = save(tmp_path / "a.png")
    with Sandbox() as sandbox:
        take(sandbox, path)
        os.kill(sandbox._process.pid, signal.SIGSTOP)
        assert refusal(lambda: take(sandbox, path, limit_seconds=0.5)) == (
            "timeout",
            "not decoded within 0.5 s (--file-limit)",
        )
        assert take(sandbox, path).height == 48


@pytest.mark.parametrize(
    ("name", "how", "reason"),
    [
        ("a.gif", {"format": "GIF"}, "a GIF; Posture reads JPEG, PNG, WebP and BMP"),
        ("a.tif", {"format": "TIFF"}, "a TIFF; Posture reads JPEG, PNG, WebP and BMP"),
        (
            "a.webp",
            {"format": "WEBP", "lossless": True},
            "an animation of 3 frames; save the labelled frame as an image of its own",
        ),
        ("a.png", {"format": "PNG"}, "an animation of 3 frames; save the labelled frame as an image of its own"),
    ],
)
def test_animations_and_other_formats_are_refused_by_name(tmp_path, name, how, reason):
    frames = [Image.fromarray(draw([(number, number, 20, 20)])) for number in range(3)]
    path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **how)
    with Sandbox() as sandbox:
        assert refusal(lambda: take(sandbox, path)) == ("not_picture", reason)


def test_of_a_camera_s_several_images_in_one_jpeg_the_first_counts(tmp_path):
    frames = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    path = saved(tmp_path / "a.jpg", frames[0], format="MPO", save_all=True, append_images=frames[1:])
    with Sandbox() as sandbox:
        encoded = take(sandbox, path)
    red, green, blue = cv2.imdecode(np.frombuffer(encoded.pixels, np.uint8), cv2.IMREAD_COLOR_RGB).mean(axis=(0, 1))
    assert encoded.pixels == path.read_bytes() and red > 250 and max(green, blue) < 5


def write_stills(path, *, size, frames=2):
    """An AVI of JPEG frames, height x width."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p"
        for number in range(frames):
            frame = av.VideoFrame(size[1], size[0], "yuvj420p")
            for plane in frame.planes:
                plane.update(bytes([40 + number]) * plane.buffer_size)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_the_pixels_of_a_video_are_limited(tmp_path, video):
    path = str(video("a.mp4"))
    with Sandbox(DecodeLimits(pixels=64 * 96)) as sandbox:
        assert len(list(sandbox.cut(path, "content", WHOLE, CUT, limit_seconds=60))) == 3
    with Sandbox(DecodeLimits(pixels=64 * 96 - 1)) as sandbox:
        for decode in (
            lambda: list(sandbox.cut(path, "content", WHOLE, CUT, limit_seconds=60)),
            lambda: list(sandbox.frames(path, [0], limit_seconds=60)),
            lambda: list(sandbox.search(path, "content", WHOLE, CUT, longest=64, limit_seconds=60)),
        ):
            assert refusal(decode) == ("too_large", "96 x 64 pixels; the maximum is 6,143 (--max-pixels)")


def test_the_memory_for_a_video_is_limited(tmp_path, video):
    large = str(write_stills(tmp_path / "large.avi", size=(12000, 12000)))
    with Sandbox(DecodeLimits(pixels=10**9, memory_bytes=450_000_000)) as sandbox:
        assert refusal(lambda: list(sandbox.cut(large, "content", WHOLE, CUT, limit_seconds=120)))[0] == "out_of_memory"
        assert len(list(sandbox.cut(str(video("a.mp4")), "content", WHOLE, CUT, limit_seconds=60))) == 3
    with Sandbox() as sandbox:
        assert refusal(lambda: list(sandbox.cut(large, "content", WHOLE, CUT, limit_seconds=60)))[0] == "too_large"


def test_an_error_of_ours_is_no_crash(video):
    """A recipe that no command makes stands for what nobody has thought of."""
    impossible = Cut(DecodeRecipe(24, 32, 8, 0, 1), 4)
    with Sandbox() as sandbox:
        verdict, reason = refusal(
            lambda: list(sandbox.cut(str(video("a.mp4")), "content", WHOLE, impossible, limit_seconds=60))
        )
        assert (
            verdict == "failed"
            and reason.startswith("ZeroDivisionError: ")
            and reason.endswith("; this version of Posture does not try it again")
        )
        assert "Traceback" not in reason and "\n" not in reason
