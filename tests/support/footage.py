"""Small real videos for tests, good and bad."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np

from posture.data.decode.video import write_video


def moving_square(
    frames: int, *, seed: int = 0, size: tuple[int, int] = (64, 96), direction: int = 1
) -> Iterator[np.ndarray]:
    """uint8 frames (H, W, 3) of a bright square that crosses a noisy image from left to right (or back)."""
    generator = np.random.default_rng(seed)
    backdrop = generator.integers(0, 90, (*size, 3), dtype=np.uint8)
    top = int(generator.integers(4, size[0] - 24))
    for number in range(frames):
        frame = backdrop.copy()
        left = int((size[1] - 20) * (number / max(1, frames - 1) if direction > 0 else 1 - number / max(1, frames - 1)))
        frame[top : top + 20, left : left + 20] = (240, 200 - 10 * (seed % 12), 60)
        yield frame


def make_video(
    path: Path,
    *,
    frames: int = 60,
    seed: int = 0,
    fps: float = 25.0,
    direction: int = 1,
    size: tuple[int, int] = (64, 96),
) -> Path:
    """A real H.264 file at `path`; another seed gives other content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, moving_square(frames, seed=seed, direction=direction, size=size), fps=fps)
    return path


def make_class_folders(root: Path, *, per_class: int = 8, frames: int = 60) -> Path:
    """One folder per class: `left` and `right`, squares that differ by their direction."""
    for place, (name, direction) in enumerate((("left", -1), ("right", 1))):
        for number in range(per_class):
            make_video(
                root / name / f"{name}{number:02d}.mp4", frames=frames, seed=100 * place + number, direction=direction
            )
    return root


def write_bad_files(folder: Path, good: Path) -> dict[str, str]:
    """One file per verdict, made from the video `good`: {name: verdict}."""
    content = good.read_bytes()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no film\n" * 200)
    (folder / "cut.mp4").write_bytes(content[: len(content) // 2])
    (folder / "early.mp4").write_bytes(with_early_index(good)[: -len(content) // 2])
    _write_sound(folder / "sound.mp4")
    (folder / "lost.mp4").symlink_to(folder / "nowhere.mp4")
    os.mkfifo(folder / "pipe.mp4")
    _write_frameless(folder / "frameless.mp4")
    return {
        "empty.mp4": "empty",
        "text.mp4": "not_video",
        "cut.mp4": "truncated",
        "early.mp4": "truncated",
        "sound.mp4": "no_video_stream",
        "lost.mp4": "unreadable",
        "pipe.mp4": "unreadable",
        "frameless.mp4": "no_frames",
    }


def _write_sound(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        sound.rate, sound.time_base = 44100, Fraction(1, 44100)
        container.mux(stream.encode(sound))
        container.mux(stream.encode())


def with_early_index(path: Path) -> bytes:
    """The same video with its index in front, so that a cut leaves a file that opens."""
    import av

    target = path.with_suffix(".early.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    content = target.read_bytes()
    target.unlink()
    return content


def _write_frameless(path: Path) -> None:
    """A container that announces a video stream and has no packet of it."""
    import av

    with av.open(str(path), "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
