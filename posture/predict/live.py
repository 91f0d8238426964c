"""Predict a camera or a stream address while it runs: files that are valid at each moment, and a page that shows it."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from posture.data.decode.live_source import LiveSource
from posture.data.decode.mp4 import Mp4Writer
from posture.data.decode.sandbox import Sandbox
from posture.data.store.files import absolute, is_remote, join, write_bytes
from posture.display.colours import UNSURE as UNSURE_COLOUR
from posture.display.colours import class_colours
from posture.display.live_page import LivePage
from posture.display.overlay import Mark, Overlay
from posture.display.text import percent
from posture.predict.answers import Prediction
from posture.predict.files import ANNOTATED
from posture.predict.live_pass import LivePass, SeenAthlete
from posture.predict.model import VideoModel
from posture.predict.page import write_page
from posture.predict.tables import write_tables
from posture.predict.tracker import TRACKERS

SHOWN_SIDE = 1280
"""Longest side in pixels of the annotated video and of the page's images."""
KEYFRAMES_APART = 25
"""Frames of the annotated video from one keyframe to the next; each frame has its own time."""


def live_place(source: LiveSource, out: str) -> str:
    """Return a folder or s3:// prefix below `out` for what a source shows from now on, named by source and UTC."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.name.partition("://")[2] or source.name).strip("-.")
    return join(absolute(out), f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}")


def predict_live(
    model: VideoModel,
    source: LiveSource,
    place: str,
    *,
    seconds: float | None = None,
    reconnects: int = 5,
    video: bool = True,
    page: LivePage | None = None,
    on_status: Callable[[str], None] = lambda status: None,
    should_stop: Callable[[], bool] = lambda: False,
    fps_cap: float | None = None,
    overlap: float = 0.5,
    shortest: float | None = None,
    tracker: str = TRACKERS[0],
    batch: int = 16,
) -> Prediction:
    """Predict a live source for some `seconds`, or until `should_stop`, and write the answer into the folder `place`.

    The tables are written every few seconds; the annotated video (`video`) and timeline.html at the end. `page` shows
    each frame as it is drawn. The options from `fps_cap` on are those of `VideoModel.predict`.

    Returns the last answer, with `failure` if the source was lost after `reconnects` attempts, or was stopped. Raises
    InputError if it cannot be opened, or a file cannot be written.
    """
    with contextlib.ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(model.limits))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="posture-predict-"))
        drawn = Path(folder if is_remote(place) else place, ANNOTATED)
        with _LiveDrawing(model.classes, drawn if video else None, page) as drawing:
            one = LivePass(
                model,
                source.name,
                progress=None,
                should_stop=should_stop,
                on_answer=lambda prediction: write_tables(prediction, place),
                on_frame=drawing.draw,
                on_status=on_status,
                overlap=overlap,
                shortest=shortest,
                tracker=tracker,
                batch=batch,
            )
            recipe = model.sampling.recipe if model.sampling else None
            asked = {"longest": model.look_size, "fps_cap": fps_cap, "seconds": seconds, "reconnects": reconnects}
            shown = SHOWN_SIDE if video or page is not None else None
            prediction = one.run(sandbox.live(source, recipe=recipe, shown=shown, **asked))
        write_tables(prediction, place)
        if is_remote(place) and drawn.exists():
            write_bytes(join(place, ANNOTATED), drawn)
        write_page(prediction, place, video=ANNOTATED if drawn.exists() else None)
    return prediction


class _LiveDrawing:
    """Draws frames with what is known of them then, into an MP4 file and for a page."""

    def __init__(self, classes: tuple[str, ...], path: Path | None, page: LivePage | None) -> None:
        self._colours = dict(zip(classes, class_colours(classes), strict=True))
        self._path, self._page = path, page
        self._writer: Mp4Writer | None = None
        self._overlay: Overlay | None = None

    def draw(self, frame: np.ndarray, time: float, end: float, seen: list[SeenAthlete]) -> None:
        if self._overlay is None:
            height, width = frame.shape[:2]
            self._overlay = Overlay(height, width, [], start=0.0, end=1e12)
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = Mp4Writer(self._path, fps=KEYFRAMES_APART)
        image = self._overlay.canvas(frame)
        self._overlay.playhead(image, time)
        for one in seen:
            if one.box is None and one.label:
                self._overlay.caption(image, _words(one), self._colour(one))
        marks = [Mark(one.box.tolist(), _words(one), self._colour(one)) for one in seen if one.box is not None]
        self._overlay.marks(image, marks)
        if self._writer is not None:
            self._writer.add(image, time=time, end=end)
        if self._page is not None:
            self._page.show(image)

    def _colour(self, one: SeenAthlete) -> str:
        return self._colours.get(one.label, UNSURE_COLOUR)

    def __enter__(self) -> _LiveDrawing:
        return self

    def __exit__(self, *reason: Any) -> None:
        if self._writer is not None:
            self._writer.__exit__(*reason)


def _words(one: SeenAthlete) -> str:
    label = f"{one.label} {percent(one.confidence, 0)}" if one.label else ""
    return label if one.box is None else f"{one.track} {label}".strip()
