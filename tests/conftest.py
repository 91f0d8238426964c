"""Footage for tests: small real videos, made once a session or found beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED_FOOTAGE = Path(__file__).resolve().parents[2] / "shared" / "footage"


def moving_square(frames: int, *, seed: int = 0, size: tuple[int, int] = (64, 96), direction: int = 1) -> Iterator[np.ndarray]:
    """uint8 frames (H, W, 3) of a bright square that crosses a noisy picture from left to right (or back)."""
    generator = np.random.default_rng(seed)
    backdrop = generator.integers(0, 90, (*size, 3), dtype=np.uint8)
    top = int(generator.integers(4, size[0] - 24))
    for number in range(frames):
        frame = backdrop.copy()
        left = int((size[1] - 20) * (number / max(1, frames - 1) if direction > 0 else 1 - number / max(1, frames - 1)))
        frame[top:top + 20, left:left + 20] = (240, 200 - 10 * (seed % 12), 60)
        yield frame


def make_video(path: Path, *, frames: int = 60, seed: int = 0, fps: float = 25.0, direction: int = 1, size: tuple[int, int] = (64, 96)) -> Path:
    """A real H.264 file at `path`; another seed gives other content."""
    from posture.data.video import write_video

    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, moving_square(frames, seed=seed, direction=direction, size=size), fps=fps)
    return path


def make_class_folders(root: Path, *, per_class: int = 8, frames: int = 60) -> Path:
    """One folder per class: `left` and `right`, squares that differ by their direction."""
    for place, (name, direction) in enumerate((("left", -1), ("right", 1))):
        for number in range(per_class):
            make_video(root / name / f"{name}{number:02d}.mp4", frames=frames, seed=100 * place + number, direction=direction)
    return root


@pytest.fixture
def video(tmp_path: Path) -> Callable[..., Path]:
    """`video("name.mp4", frames=..., seed=...)` makes a file in the test's folder."""
    return lambda name, **settings: make_video(tmp_path / name, **settings)


@pytest.fixture(scope="session")
def class_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 videos of two classes; read only."""
    return make_class_folders(tmp_path_factory.mktemp("footage") / "folders")


@pytest.fixture(scope="session")
def ucf101() -> Path:
    """Real footage in UCF101's layout, where it lies beside the checkout."""
    folder = SHARED_FOOTAGE / "ucf101"
    if not folder.is_dir():
        pytest.skip(f"no real footage at {folder}")
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """Ray on this machine, with room for two workers whatever its cores."""
    import ray

    from posture.distributed import cluster

    cluster.connect(num_cpus=4, object_store_memory=400_000_000)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def small_store(class_folders: Path, tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> str:
    """`class_folders` ingested small; read only."""
    from posture.data.annotations import read_footage
    from posture.data.cutting import Cut
    from posture.data.rows import DecodeRecipe
    from posture.data.store import Store
    from posture.distributed.ingest import IngestOptions, ingest

    uri = str(tmp_path_factory.mktemp("store") / "small")
    ingest(read_footage(str(class_folders)), Store(uri, create=True), IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 2))))
    return uri
