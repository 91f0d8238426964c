"""Footage for tests, made once a session or found beside the checkout; marks, limits and signals of all tests."""

from __future__ import annotations

import datetime
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.support.footage import make_class_folders, make_video

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray Train asks its workers every 2 s whether they are done, and these train for less
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.2")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # under nohup; what tests start would ignore Ctrl-C too
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("any machine", deadline=None)  # a busy one takes longer, and nothing is wrong then
settings.load_profile("any machine")

BEGAN = pytest.StashKey[float]()
"""When a bounded run of slow tests began."""

SHARED_FOOTAGE = Path(__file__).resolve().parents[2] / "shared" / "footage"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow-minutes",
        type=float,
        help="begin no slow test after so many minutes; the files come in an order that changes from day to day",
    )
    parser.addoption(
        "--slow-seed", type=int, default=datetime.date.today().toordinal(), help="of that order; today's if left out"
    )


def pytest_report_header(config: pytest.Config) -> str | None:
    minutes = config.getoption("--slow-minutes")
    return (
        None if minutes is None else f"slow tests: {minutes:g} minutes, --slow-seed {config.getoption('--slow-seed')}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that use Ray's fixtures, and give slow tests more time. Put files on Ray first, because they take
    longest, then other long ones, then those with most tests; shuffle slow files with limited time, so that all have
    their turn.
    """
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(900))  # a busy machine is no failure
    on_ray, long = ({item.path for item in items if item.get_closest_marker(mark)} for mark in ("ray", "long"))
    tests = Counter(item.path for item in items)
    # stable: within a file the order stays
    items.sort(key=lambda item: (item.path not in on_ray, item.path not in long, -tests[item.path]))
    if config.getoption("--slow-minutes") is None:
        return
    files = sorted({item.path for item in items})
    random.Random(config.getoption("--slow-seed")).shuffle(files)
    items.sort(key=lambda item: files.index(item.path))
    config.stash[BEGAN] = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--slow-minutes")
    if (
        minutes is not None
        and item.get_closest_marker("slow")
        and time.monotonic() - item.config.stash[BEGAN] > minutes * 60
    ):
        pytest.skip(
            f"the {minutes:g} minutes for slow tests are used up; another day it comes earlier, or run make test-slow"
        )


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Let torch compute in one thread: two test processes share two cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    from posture.data.decode.cut import Cut
    from posture.data.ingest.clip_ledger import IngestOptions
    from posture.data.labels.videos import read_footage
    from posture.data.store.schema import DecodeRecipe
    from posture.data.store.tables import Store
    from posture.runs.backend import LOCAL

    uri = str(tmp_path_factory.mktemp("store") / "small")
    LOCAL.ingest(
        read_footage(str(class_folders)),
        Store(uri, create=True),
        IngestOptions(cut=Cut(DecodeRecipe(32, 40, 20, 2, 2))),
    )
    return uri


@pytest.fixture(scope="session")
def flow_store(small_store: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """`small_store` with optical flow by DIS; read only."""
    from posture.data.store.tables import Store
    from posture.runs.backend import LOCAL

    uri = str(shutil.copytree(small_store, tmp_path_factory.mktemp("store") / "flow"))
    LOCAL.add_flow(Store(uri), "dis")
    return uri
