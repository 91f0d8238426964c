"""From a drop folder into the store: files that are new, whole and labelled. The groups that come with them are split
first, by themselves.

`posture ingest` splits all groups of a footage together; here new ones are alone, so that of what arrives a share is
held out, and old groups stay where they are. Of two new groups of a class at least one is held out; a single one is
trained on.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc

from posture.config import ActionRun
from posture.data.decode.cut import BACKGROUND, Cut
from posture.data.ingest.clip_ledger import ClipReport, IngestOptions
from posture.data.labels.records import LabelledVideos
from posture.data.labels.table import SUFFIXES, table_of
from posture.data.labels.tracked_videos import read_tracked_footage
from posture.data.labels.videos import NoLabels, read_footage
from posture.data.store.files import VIDEO_SUFFIXES, File, absolute, exists, is_remote, list_files, read_bytes
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.display.text import counted
from posture.errors import InputError
from posture.retrain.settling import settled
from posture.runs.backend import Backend

Progress = Callable[[str], AbstractContextManager[Callable[..., None]]]
"""Like `posture.display.console.progress`."""


@contextlib.contextmanager
def silent(what: str) -> Any:
    """Progress that nobody watches."""
    yield lambda *_: None


@dataclass(frozen=True)
class InboxOptions:
    """Where footage arrives, and how it is taken in."""

    footage: str
    layout: str | None = None
    split_number: int = 1
    settle: float = 300.0
    """Seconds that a file must have been left alone."""
    val_share: float = 0.2
    test_share: float = 0.2
    seed: int = 0


@dataclass
class Intake:
    """What one look at the drop folder came to."""

    reports: list[ClipReport] = field(default_factory=list)
    """Of the ingests that it took; none where nothing was new."""
    unsettled: list[str] = field(default_factory=list)
    """Files that are left for the next pass."""
    unlabelled: list[str] = field(default_factory=list)
    """Videos that no label names."""
    memory: dict[str, Any] = field(default_factory=dict)
    """What the next look has to know: see `posture.retrain.settling`; and the label files and unlabelled videos that were seen.
    """


def look_for(footage: str) -> None:
    """Before anything is written: raise InputError where there is no such folder or table of labels, or the bucket
    cannot be read.
    """
    source, root = absolute(footage), _root(footage)
    if is_remote(root):
        exists(root)  # an empty prefix is no mistake; a bucket that does not answer is
    elif not os.path.isdir(root):
        raise InputError(
            f"--footage {footage}: no such folder; make it, or name the folder or s3:// prefix that new footage arrives in"
        )
    if source != root and read_bytes(source) is None:
        raise InputError(f"--footage {footage}: no such table of labels")


def refuse_uncuttable(drop: InboxOptions, store: Store, run: ActionRun) -> None:
    """Before a registry is made: raise InputError where there are videos that nobody could cut as the store's clips
    are.
    """
    if any(_is_video(file) for file in _list(_root(drop.footage))):
        _known_cut(store, run)


def take_in(
    drop: InboxOptions,
    store: Store,
    run: ActionRun,
    memory: dict[str, Any],
    *,
    backend: Backend,
    progress: Progress = silent,
) -> Intake:
    """Ingest what is new, whole and labelled, as `run` wants its clips. `memory` is what the last
    look left.

    Raises InputError, and Busy as `ingest` does.
    """
    root = _root(drop.footage)
    listed = _list(root)
    videos = [file for file in listed if _is_video(file)]
    if not videos:
        return Intake(memory={"looks": {}, "seen": {}})
    # an ingest was stopped
    halfway = set(store.read("segments", columns=["video"], where=pc.field("split") == "")["video"].to_pylist())
    held = store.read("videos", columns=["video", "uri", "bytes", "modified"]).to_pylist()
    known = {(row["uri"], row["bytes"], row["modified"]) for row in held if row["video"] not in halfway}
    known |= {(uri, bytes, modified) for uri, (bytes, modified) in memory.get("seen", {}).items()}
    new = [file for file in listed if _state(file) not in known]
    whole, looks = settled(new, lambda: _list(root), memory.get("looks", {}), settle=drop.settle)
    unsettled = [file.uri for file in new if file.uri not in whole]
    labels_change = [file for file in new if _is_table(file)]
    if any(file.uri not in whole for file in labels_change):  # what they will say of the others is not known yet
        return Intake(unsettled=unsettled, unlabelled=memory.get("unlabelled", []), memory=memory | {"looks": looks})
    footage = _footage(drop, run, store, videos)
    footage = replace(footage, videos=[video for video in footage.videos if video.file.uri not in unsettled])
    waiting = {uri: file for file in videos if (uri := file.uri) not in unsettled}
    unlabelled = sorted(uri for file in footage.unlabelled if (uri := _uri(root, file)) in waiting)
    reports = _ingest(
        footage, drop, store, run, known, corrected=bool(labels_change), backend=backend, progress=progress
    )
    forgotten = {item["uri"] for report in reports for item in report.refused if item["verdict"] == "forgotten"}
    remembered = {*unlabelled, *forgotten, *memory.get("seen", {})} - set(unsettled)
    seen = {file.uri: [file.bytes, file.modified] for file in listed if file.uri in remembered or _is_table(file)}
    return Intake(reports, unsettled, unlabelled, {"looks": looks, "seen": seen, "unlabelled": unlabelled})


def _ingest(
    footage: LabelledVideos,
    drop: InboxOptions,
    store: Store,
    run: ActionRun,
    known: set[tuple[Any, ...]],
    *,
    corrected: bool,
    backend: Backend,
    progress: Progress,
) -> list[ClipReport]:
    """Two ingests at most: of videos with a new group, whose groups are then split by themselves, and of the others
    where something changed.
    """
    groups = set(store.read("groups", columns=["group"])["group"].to_pylist())
    fresh = [video for video in footage.videos if any(label.group not in groups for label in video.labels)]
    others = [video for video in footage.videos if all(label.group in groups for label in video.labels)]
    options = IngestOptions(
        cut=_cut(store, run),
        val_share=drop.val_share,
        test_share=drop.test_share,
        seed=drop.seed,
        max_refused_share=1.0,
    )
    reports = []
    for videos in (fresh, others):
        if videos and (corrected or any(_state(video.file) not in known for video in videos)):
            with progress("decoding") as advance:
                reports.append(
                    backend.ingest(
                        replace(footage, videos=videos),
                        store,
                        options,
                        progress=lambda done, files, clips, rate, tell=advance: tell(
                            done, files, f"{counted(clips, 'clip')}, {rate:.0f} clips/s"
                        ),
                    )
                )
    if reports and "flow" in run.model.inputs:
        with progress("computing optical flow") as advance:
            backend.add_flow(
                store,
                run.data.flow or "dis",
                progress=lambda done, total, rate: advance(done, total, f"{rate:.0f} clips/s"),
            )
    return reports


def _cut(store: Store, run: ActionRun) -> Cut:
    """How the store's clips are cut: as those that it holds. Raises InputError where they are of several kinds and the
    run chooses none.
    """
    held = sorted(set(store.read("clips", columns=["recipe"])["recipe"].to_pylist()))
    if run.data.recipe is None and len(held) > 1:
        raise InputError(
            f"{store.uri}: data.recipe must name one of the decode recipes in this store: {', '.join(held)}"
        )
    recipe = run.data.recipe or (held[0] if held else str(DecodeRecipe()))
    return Cut(
        DecodeRecipe.parse(recipe),
        background=BACKGROUND in store.read("segments", columns=["label"])["label"].to_pylist(),
    )


def _known_cut(store: Store, run: ActionRun) -> DecodeRecipe:
    """`_cut`'s recipe. Raises InputError where a detector says where the athlete is: there is none here."""
    recipe = _cut(store, run).recipe
    if recipe.searched:
        raise InputError(
            f"{store.uri}: its clips are cut around athletes that a detector found ({recipe.crop}), and posture retrain has no detector; take "
            "new footage in with posture ingest --crop detector=RUN, then run posture retrain with --footage EMPTY_FOLDER"
        )
    return recipe


def _footage(drop: InboxOptions, run: ActionRun, store: Store, videos: list[File]) -> LabelledVideos:
    """The labelled videos; where nobody has labelled any yet, none. Raises InputError where labels cannot be read."""
    crop = _known_cut(store, run).crop
    try:
        return (read_tracked_footage if crop else read_footage)(
            drop.footage, layout=drop.layout, split_number=drop.split_number
        )
    except NoLabels:
        return LabelledVideos(
            root=_root(drop.footage),
            layout=drop.layout or "folders",
            videos=[],
            unlabelled=[file.relative for file in videos],
        )


def _root(footage: str) -> str:
    """The folder of a table's footage, or the folder itself."""
    return table_of(absolute(footage))[0]


def _list(root: str) -> list[File]:
    return list_files(root, suffixes=VIDEO_SUFFIXES | SUFFIXES)


def _is_video(file: File) -> bool:
    return PurePosixPath(file.relative).suffix.lower() in VIDEO_SUFFIXES


def _is_table(file: File) -> bool:
    return PurePosixPath(file.relative).suffix.lower() in SUFFIXES


def _uri(root: str, relative: str) -> str:
    return f"{root.rstrip('/')}/{relative}"


def _state(file: File) -> tuple[str, int, float]:
    return file.uri, file.bytes, file.modified
