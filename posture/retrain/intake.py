"""Ingest what is new in the inbox: files that are complete and labelled.

`posture ingest` splits all groups of a footage together. Here the groups that are new to the store are split by
themselves, so that a share of what arrives is held out and old groups keep their split. Of two new groups of a class at
least one is held out; a single one is used for training.
"""

# what may be None here depends on other values
# pyright: reportOptionalSubscript=false

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
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
from posture.retrain.options import InboxOptions
from posture.retrain.pass_context import Progress, silent
from posture.runs.backend import Backend

LABEL_SUFFIXES = SUFFIXES | {".xml", ".mat", ".json"}
"""Suffixes of tables, and of the files in which CVAT, UCF101-24 and Label Studio keep boxes and actions."""
LOOK_AGAIN_SECONDS = 2.0
"""Seconds between the two looks of one pass."""

Looks = dict[str, dict[str, Any]]
"""Last look at files that have not settled, by uri: {bytes, modified, since}."""


@dataclass
class Intake:
    """Result of one look at the inbox."""

    reports: list[ClipReport] = field(default_factory=list)
    """Report of each ingest; none if nothing was new."""
    unsettled: list[str] = field(default_factory=list)
    """Files that may be incomplete, left for the next pass."""
    unlabelled: list[str] = field(default_factory=list)
    """Videos without a label."""
    memory: dict[str, Any] = field(default_factory=dict)
    """State for the next look: `settled`'s, and the label files and unlabelled videos that were seen."""


def look_for(footage: str) -> None:
    """Raise InputError if the folder or table of labels does not exist, or if the bucket cannot be read."""
    source, root = absolute(footage), _root(footage)
    if is_remote(root):
        exists(root)  # an empty prefix is fine; a bucket that does not answer is an error
    elif not os.path.isdir(root):
        raise InputError(
            f"--footage {footage}: no such folder; create it, or name the folder or s3:// prefix where new footage "
            "arrives"
        )
    if source != root and read_bytes(source) is None:
        raise InputError(f"--footage {footage}: no such table of labels")


def refuse_uncuttable(inbox: InboxOptions, store: Store, run: ActionRun) -> None:
    """Raise InputError if the inbox has videos that cannot be cut like the store's clips."""
    if any(_is_video(file) for file in _list(_root(inbox.footage))):
        _known_cut(store, run)


def take_in(
    inbox: InboxOptions,
    store: Store,
    run: ActionRun,
    memory: dict[str, Any],
    *,
    backend: Backend,
    progress: Progress = silent,
) -> Intake:
    """Ingest what is new, complete and labelled, cut as `run` reads it. `memory` comes from the last look.

    Raises InputError, and Busy if another process holds the store's lease.
    """
    root = _root(inbox.footage)
    listed = _list(root)
    videos = [file for file in listed if _is_video(file)]
    if not videos:
        return Intake(memory={"looks": {}, "seen": {}})
    # videos of an ingest that was stopped
    halfway = set(store.read("segments", columns=["video"], where=pc.field("split") == "")["video"].to_pylist())
    held = store.read("videos", columns=["video", "uri", "bytes", "modified"]).to_pylist()
    known = {(row["uri"], row["bytes"], row["modified"]) for row in held if row["video"] not in halfway}
    known |= {(uri, bytes, modified) for uri, (bytes, modified) in memory.get("seen", {}).items()}
    new = [file for file in listed if _state(file) not in known]
    whole, looks = settled(new, lambda: _list(root), memory.get("looks", {}), settle=inbox.settle)
    unsettled = [file.uri for file in new if file.uri not in whole]
    labels_change = [file for file in new if _is_table(file)]
    if any(file.uri not in whole for file in labels_change):  # labels of the other files may be in them
        return Intake(unsettled=unsettled, unlabelled=memory.get("unlabelled", []), memory=memory | {"looks": looks})
    footage = _footage(inbox, run, store, videos)
    footage = replace(footage, videos=[video for video in footage.videos if video.file.uri not in unsettled])
    waiting = {uri: file for file in videos if (uri := file.uri) not in unsettled}
    unlabelled = sorted(uri for file in footage.unlabelled if (uri := _uri(root, file)) in waiting)
    reports = _ingest(
        footage, inbox, store, run, known, corrected=bool(labels_change), backend=backend, progress=progress
    )
    # a video that is refused as a whole without a row in the store; a new table of labels looks at it again
    refused = {
        item["uri"] for report in reports for item in report.refused if item["verdict"] in ("forgotten", "two_sides")
    }
    remembered = {*unlabelled, *refused, *memory.get("seen", {})} - set(unsettled)
    seen = {file.uri: [file.bytes, file.modified] for file in listed if file.uri in remembered or _is_table(file)}
    return Intake(reports, unsettled, unlabelled, {"looks": looks, "seen": seen, "unlabelled": unlabelled})


def settled(
    first: Iterable[File],
    look_again: Callable[[], Iterable[File]],
    before: Looks,
    *,
    settle: float,
    now: float | None = None,
) -> tuple[set[str], Looks]:
    """Return the uris of the files that are complete, and the looks at the others for the next pass.

    A file has settled if its last change is more than `settle` seconds ago, and if two looks at it are the same. A
    copied file may have a time in the future, and clocks may jump: such a file has settled if passes at least `settle`
    seconds apart, by this machine's clock, found the same size and time.

    `before` has the looks of the last pass. `look_again` lists the same files once more; it is called only if some
    could have settled. With `settle` 0 all files have settled.
    """
    files, now = list(first), time.time() if now is None else now
    if not settle:
        return {file.uri for file in files}, {}
    looks = {file.uri: _look(file, before.get(file.uri), now) for file in files}
    quiet = {
        file.uri
        for file in files
        if (now - file.modified if file.modified <= now else now - looks[file.uri]["since"]) >= settle
    }
    if quiet:
        time.sleep(min(settle, LOOK_AGAIN_SECONDS))
        seen = {file.uri: (file.bytes, file.modified) for file in look_again()}
        quiet = {file.uri for file in files if file.uri in quiet and seen.get(file.uri) == (file.bytes, file.modified)}
    return quiet, {uri: look for uri, look in looks.items() if uri not in quiet}


def _look(file: File, before: dict[str, Any] | None, now: float) -> dict[str, Any]:
    """Return this look at the file; `since` starts again if the file changed, or if the clock was set back."""
    same = (
        before is not None
        and (before["bytes"], before["modified"]) == (file.bytes, file.modified)
        and before["since"] <= now
    )
    return {"bytes": file.bytes, "modified": file.modified, "since": before["since"] if same else now}


def _ingest(
    footage: LabelledVideos,
    inbox: InboxOptions,
    store: Store,
    run: ActionRun,
    known: set[tuple[Any, ...]],
    *,
    corrected: bool,
    backend: Backend,
    progress: Progress,
) -> list[ClipReport]:
    """Ingest the videos with a new group, whose groups are then split by themselves; then the others if any changed."""
    groups = set(store.read("groups", columns=["group"])["group"].to_pylist())
    fresh = [video for video in footage.videos if any(label.group not in groups for label in video.labels)]
    others = [video for video in footage.videos if all(label.group in groups for label in video.labels)]
    options = IngestOptions(
        cut=_cut(store, run),
        val_share=inbox.val_share,
        test_share=inbox.test_share,
        seed=inbox.seed,
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
                progress=lambda done, total, _, rate: advance(done, total, f"{rate:.0f} clips/s"),
            )
    return reports


def _cut(store: Store, run: ActionRun) -> Cut:
    """Return how the store's clips are cut. Raises InputError if there are several ways and the run chooses none."""
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
    """Return the recipe of `_cut`. Raises InputError if it needs a detector to find the athlete: there is none here."""
    recipe = _cut(store, run).recipe
    if recipe.searched:
        raise InputError(
            f"{store.uri}: its clips are cut around athletes that a detector found ({recipe.crop}), and posture "
            "retrain has no "
            "detector; ingest new footage with posture ingest --crop detector=RUN, then run posture retrain with "
            "--footage EMPTY_FOLDER"
        )
    return recipe


def _footage(inbox: InboxOptions, run: ActionRun, store: Store, videos: list[File]) -> LabelledVideos:
    """Read the labelled videos; none if nothing is labelled yet. Raises InputError if labels cannot be read."""
    crop = _known_cut(store, run).crop
    try:
        return (read_tracked_footage if crop else read_footage)(
            inbox.footage, layout=inbox.layout, split_number=inbox.split_number
        )
    except NoLabels:
        return LabelledVideos(
            root=_root(inbox.footage),
            layout=inbox.layout or "folders",
            videos=[],
            unlabelled=[file.relative for file in videos],
        )


def _root(footage: str) -> str:
    """Return the folder of a table's footage, or the folder itself."""
    return table_of(absolute(footage))[0]


def _list(root: str) -> list[File]:
    return list_files(root, suffixes=VIDEO_SUFFIXES | LABEL_SUFFIXES)


def _is_video(file: File) -> bool:
    return PurePosixPath(file.relative).suffix.lower() in VIDEO_SUFFIXES


def _is_table(file: File) -> bool:
    return PurePosixPath(file.relative).suffix.lower() in LABEL_SUFFIXES


def _uri(root: str, relative: str) -> str:
    return f"{root.rstrip('/')}/{relative}"


def _state(file: File) -> tuple[str, int, float]:
    return file.uri, file.bytes, file.modified
