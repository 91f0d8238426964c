"""Active learning on unlabelled footage: which stretches to ask people about, by what a run predicts for them.

Legend: s stretches, K classes, D features.
"""

# what may be None here depends on other values
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from posture.config import ActionRun
from posture.data.decode.cut import Cut, frame_numbers
from posture.data.decode.optical_flow import METHODS
from posture.data.decode.sandbox import Sandbox
from posture.data.feed.source_windows import SourceFootage, SourceIndex
from posture.data.labels.names import VideoNames
from posture.data.labels.review_csv import REVIEWED, Stretch
from posture.data.labels.table import read_rows
from posture.data.labels.videos import UCF101_CLIP, find_unlabelled
from posture.data.store.files import File, hash_file, local_copy
from posture.data.store.schema import UNLABELLED, DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import InputError, Unreadable

STRETCH_SECONDS = 10.0
"""Approximate length of the parts of a longer video."""
WINDOWS = 2
"""Clips per stretch that are scored."""
PROBE_SECONDS = 60.0
POOL = 10
"""Size of the pool of least certain stretches, as a multiple of the number asked for."""
COPY = 0.05
"""Largest distance of the features of near copies, as a share of their mean length; one of them is shown."""


@dataclass(frozen=True)
class FileStretch:
    """A stretch of one file."""

    stretch: Stretch
    uri: str
    seconds: float
    """Length of the file."""
    fps: float
    width: int
    height: int

    @property
    def span(self) -> tuple[float, float]:
        """Start and end in seconds."""
        return self.stretch.start, self.seconds if self.stretch.end is None else self.stretch.end


@dataclass
class Unlabelled:
    """Unlabelled footage below a root."""

    root: str
    files: int = 0
    """Number of files without a label."""
    asked: list[FileStretch] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} of files that cannot be shown."""


def find_stretches(footage: str, store: Store, *, progress: Callable[[int, int], None] | None = None) -> Unlabelled:
    """Return every stretch at `footage` without a label or an answer.

    Files whose content is in the store with a label, or occurs twice, are refused as `duplicate`. Raises
    InputError if the footage cannot be listed, or its labels cannot be read.
    """
    root, files = find_unlabelled(footage)
    answered: dict[str, list[tuple[float, float]]] = {}
    named = VideoNames(files)
    for where, row in read_rows(root, REVIEWED, "segments"):
        if file := named.find(row["video"], where.file, moved=True):
            span = where.seconds("start", row["start"]) or 0.0, where.seconds("end", row["end"]) or math.inf
            answered.setdefault(file.relative, []).append(span)
    found = Unlabelled(root, len(files))
    files = [file for file in files if (0.0, math.inf) not in answered.get(file.relative, ())]
    known = {
        row["video"] for row in store.read("videos", columns=["video", "verdict"]).to_pylist() if row["verdict"] == "ok"
    }
    segments = store.read("segments", columns=["video", "label"]).to_pylist()
    without = {row["video"] for row in segments if row["label"] == UNLABELLED}
    known -= without - {row["video"] for row in segments if row["label"] != UNLABELLED}
    sizes = Counter(file.bytes for file in files) + Counter(
        set(store.read("videos", columns=["bytes"])["bytes"].to_pylist())
    )
    for number, (file, stream) in enumerate(
        _probed(files, hashed={size for size, count in sizes.items() if count > 1}), start=1
    ):
        if not isinstance(stream, Unreadable) and stream["content"] in known:
            stream = Unreadable("duplicate", "its content is in the store already, or occurs twice")
        if isinstance(stream, Unreadable):
            found.refused.append({"uri": file.uri, "verdict": stream.verdict, "reason": str(stream)})
        else:
            known |= {stream["content"]} - {""}
            found.asked += [
                asked for asked in _stretches(file, stream) if not _covered(asked, answered.get(file.relative, ()))
            ]
        if progress:
            progress(number, len(files))
    return found


def group_of(relative: str) -> str:
    """Return the group of a file: the people in UCF101's names (`v_Archery_g08_c02` -> `Archery_g08`), else the
    file.
    """
    match = UCF101_CLIP.fullmatch(PurePosixPath(relative).stem)
    return match[1] if match else str(PurePosixPath(relative).with_suffix(""))


def _probed(files: list[File], *, hashed: set[int]) -> Iterator[tuple[File, Any]]:
    """Yield each file with its stream, or with why it cannot be read, on all cores.

    A stream's `content` is a hash if the file's size is in `hashed`, else empty.
    """
    own, sandboxes = threading.local(), []

    def equip() -> None:
        own.sandbox = Sandbox()
        sandboxes.append(own.sandbox)

    def look(file: File) -> Any:
        try:
            if file.bytes == 0:
                raise Unreadable("empty", "the file has no bytes")
            with local_copy(file.uri) as path:
                (stream,) = own.sandbox.cut(path, "", [], Cut(), limit_seconds=PROBE_SECONDS)
                return stream | {"content": hash_file(path) if file.bytes in hashed else ""}
        except Unreadable as error:
            return error
        except OSError as error:
            return Unreadable("unreadable", str(error))

    with ThreadPoolExecutor(max_workers=os.cpu_count(), initializer=equip) as pool:
        try:
            yield from zip(files, pool.map(look, files), strict=True)
        finally:
            for sandbox in sandboxes:
                sandbox.close()


def _stretches(file: File, stream: dict[str, Any]) -> list[FileStretch]:
    """Return the whole file, or equal parts of a long one."""
    seconds, group = stream["seconds"], group_of(file.relative)
    properties = (file.uri, seconds, stream["fps"], stream["width"], stream["height"])
    parts = max(1, round(seconds / STRETCH_SECONDS)) if seconds > 1.5 * STRETCH_SECONDS else 1
    if parts == 1:
        return [FileStretch(Stretch(file.relative, 0.0, None, group), *properties)]
    edges = [round(edge, 2) for edge in np.linspace(0.0, seconds, parts + 1).tolist()]
    ends = [*edges[1:-1], None]
    return [
        FileStretch(Stretch(file.relative, start, end, group), *properties)
        for start, end in zip(edges, ends, strict=False)
    ]


def _covered(asked: FileStretch, answered: Any) -> bool:
    start, end = asked.span
    return any(min(end, last) - max(start, first) > 0.1 for first, last in answered)


@dataclass(frozen=True)
class ScoredClip:
    """Predictions of a run for stretches, without those that cannot be decoded."""

    asked: list[FileStretch]
    probabilities: np.ndarray  # (s, K) float32
    features: np.ndarray  # (s, D) float32
    refused: list[dict[str, str]]


def score_stretches(
    asked: list[FileStretch],
    run: ActionRun,
    classes: tuple[str, ...],
    checkpoint: Path,
    *,
    batch: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> ScoredClip:
    """Score every stretch with the weights in the folder `checkpoint`, on windows cut from the original files.

    Raises InputError if the run needs clips cut around the athlete, whose place is unknown here.
    """
    from posture.runs.weights import load_network
    from posture.train.context import LocalContext
    from posture.train.evaluate import describe

    recipe = replace(DecodeRecipe.parse(run.data.recipe), windows=WINDOWS, jpeg=0)
    if recipe.crop:
        raise InputError(
            f"{run.name} was trained on clips cut around the athlete ({recipe.crop}), and the place of the athlete "
            "in new footage is unknown; review it with a champion that was trained on whole frames"
        )
    frames = [(round(start * one.fps), round(end * one.fps)) for one in asked for start, end in [one.span]]
    windows = np.array(
        [len(frame_numbers(first, max(last, first + 1), recipe)) for first, last in frames], dtype=np.int64
    )
    index = SourceIndex(
        [one.uri for one in asked],
        [one.span for one in asked],
        windows,
        [str(place) for place in range(len(asked))],
        classes,
        np.zeros(len(asked), dtype=np.int64),
        recipe,
        run.model.inputs,
        run.data.flow or METHODS[0],
    )
    footage = SourceFootage(index, tolerant=True)
    model = load_network(run, checkpoint)
    probabilities, features = describe(model, footage, run, LocalContext().device, batch=batch, progress=progress)
    kept = [place for place in range(len(asked)) if place not in footage.failed]
    refused = [
        {"uri": asked[place].uri, "verdict": "truncated", "reason": reason}
        for place, reason in sorted(footage.failed.items())
    ]
    means = [[values[index.segments == place].mean(axis=0) for place in kept] for values in (probabilities, features)]
    return ScoredClip(
        [asked[place] for place in kept],
        *(np.array(mean, dtype=np.float32).reshape(len(kept), -1) for mean in means),
        refused,
    )


def most_informative(probabilities: np.ndarray, features: np.ndarray, count: int) -> list[int]:
    """Return at most `count` rows whose labels would teach most: the run is uncertain, and they differ from each other.

    Uncertainty is the entropy of the probabilities, as a share of its maximum for K classes. Rows are chosen greedily
    by entropy times the distance to the nearest chosen row (as a share of a usual distance, at most 1). Near copies of
    chosen rows are never chosen.
    """
    rows, classes = probabilities.shape
    if not rows:
        return []
    likely, features = np.clip(probabilities.astype(np.float64), 1e-12, 1), features.astype(np.float64)
    # never 0, so that diversity alone chooses among certain rows
    unsure = 0.001 - (likely * np.log(likely)).sum(axis=1) / math.log(max(2, classes))
    usual = max(math.sqrt(2 * features.var(axis=0).sum()), 1e-9)
    copy = COPY * np.linalg.norm(features, axis=1).mean()
    pool = np.argsort(-unsure, kind="stable")[: max(POOL * count, 200)]
    nearest = np.full(len(pool), np.inf)
    taken: list[int] = []
    while len(taken) < min(count, rows):
        gain = np.where(nearest > copy, unsure[pool] * np.minimum(nearest / usual, 1.0), 0.0)
        place = int(gain.argmax())
        if gain[place] <= 0:
            break
        taken.append(int(pool[place]))
        nearest = np.minimum(nearest, np.linalg.norm(features[pool] - features[pool[place]], axis=1))
    return taken
