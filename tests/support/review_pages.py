"""A review of three unlabelled stretches, served as `posture review` does, and the browser that opens its page."""

from __future__ import annotations

import contextlib
import shutil
import threading

import numpy as np
import pytest

from posture.data.store.tables import Store
from posture.retrain.review.active_learning import find_stretches
from posture.retrain.review.questions import Question, Review
from posture.retrain.review.server import ReviewServer
from tests.support.footage import make_video

CLASSES = ("jump", "run", "throw")
BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find_asked(tmp_path_factory):
    """Return the three stretches without a label in a folder of five files, and that folder."""
    folder = tmp_path_factory.mktemp("footage")
    for number, name in enumerate(("jump/a", "run/b", "new one", "new two", "unlabelled/three")):
        make_video(folder / f"{name}.mp4", seed=number, frames=40)
    store = Store(str(tmp_path_factory.mktemp("store")), create=True)
    store.create_tables()
    return find_stretches(str(folder), store).asked, folder


def open_review(asked, footage):
    """Return a review of the stretches `asked`, with a guess for each, that writes its answers into `footage`."""
    shares = [(0.2, 0.5, 0.3), (0.4, 0.35, 0.25), (0.1, 0.1, 0.8)]
    questions = [Question(one, np.array(share, np.float32)) for one, share in zip(asked, shares, strict=True)]
    return Review(str(footage), CLASSES, questions, champion="v0001")


@contextlib.contextmanager
def served(review):
    """Serve a review's page in a thread."""
    with ReviewServer(review) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def open_browser():
    """Start Chromium; skip the test if it is not here."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install .[dev]")
    if BROWSER is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, headless=True, args=FLAGS)
        yield browser
        browser.close()
