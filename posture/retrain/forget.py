"""Forget a video: remove its rows from all tables, from the disk too, and from predictions and pages; mark its models.

Versions and runs that were trained on it are marked. The file in the user's footage is not touched, but it is not
ingested again.

Everything is read before the first removal, so that an unreadable file cannot stop it half-way. Rows are removed in an
order that keeps the video findable until the last step, so that the same command finishes a killed one. Deleting the
files that hold the rows ends time travel: earlier versions of these tables cannot be read any more. Names in the
tables' logs, such as of files in a refusal, stay until deltalake drops those logs. A hold-out's list of segments keeps
its ids, which are hashes, to count the missing ones.
"""

# pyarrow declares none of the functions that it makes when it is imported
# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportOptionalSubscript=false

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from markupsafe import escape

from posture.data.store.checked import path_below, read_parquet
from posture.data.store.files import absolute, hash_file, is_remote, list_files, read_bytes, remove_tree, write_bytes
from posture.data.store.lease import Lease
from posture.data.store.tables import Store
from posture.display.text import counted
from posture.errors import InputError, Unreachable
from posture.retrain.registry import Registry, remove_file
from posture.runs.folder import RunFolder

IN_ORDER = {
    "flows": "clip",
    "clips": "clip",
    "absences": "segment",
    "groups": "group",
    "segments": "segment",
    "boxes": "image",
    "images": "image",
    "pictures": "image",
    "videos": "video",
}
"""Tables and the column by which rows are removed: first what is found through others, the video itself last."""
SHOWN_LETTERS = 12
"""Letters of an id that pages show."""
SHORTEST_ID = 8


@dataclass
class FoundRows:
    """Rows and files that hold something of one video."""

    video: str
    bytes: int
    uris: list[str]
    keys: dict[str, list[str]]
    """Keys of the rows to remove from each table, by the column in `IN_ORDER`."""
    versions: dict[str, list[str]] = field(default_factory=dict)
    """Versions of the registry that were trained on it, with its splits in them."""
    runs: list[str] = field(default_factory=list)
    """Folders of runs that were trained on it."""
    pages: list[str] = field(default_factory=list)
    """Pages that show it."""
    predictions: list[str] = field(default_factory=list)
    """Files of predictions with rows of it."""

    @property
    def segments(self) -> list[str]:
        return self.keys["segments"]

    @property
    def judged(self) -> dict[str, set[str]]:
        """Ids that may have rows in predictions, by column."""
        return {"segment": set(self.segments), "image": {*self.keys["boxes"], *self.keys["images"]}}


def find(video: str, store: Store, *, registry: Registry | None, runs: list[str]) -> FoundRows:
    """Find a video by its path, file name or content hash. Raises InputError if there is none, or more than one."""
    held = {
        (row["video"], row["uri"]): row["bytes"]
        for row in store.read("videos", columns=["video", "uri", "bytes"]).to_pylist()
    }
    held |= {
        (row["image"], row["uri"]): row["bytes"]
        for row in store.read("pictures", columns=["image", "uri", "bytes"]).to_pylist()
    }
    matching = {
        content
        for content, uri in held
        if content
        and (
            uri == absolute(video)
            or uri.rpartition("/")[2] == video
            or content == video
            or (len(video) >= SHORTEST_ID and content.startswith(video))
        )
    }
    matching = matching or _half_forgotten(video, store)
    if not matching:
        raise InputError(f"{store.uri}: no video {video!r}; give its path, its file name or its id in the store")
    if len(matching) > 1:
        raise InputError(
            f"{video!r} names {len(matching)} videos of {store.uri}; name one by its path or its id: "
            f"{', '.join(sorted(matching)[:5])}"
        )
    content = matching.pop()
    found = FoundRows(
        content,
        next((size for (one, _), size in held.items() if one == content), 0),
        sorted(uri for one, uri in held if one == content),
        _keys(content, store),
    )
    if registry is not None:
        found.versions = _trained(found, store, registry)
    for place in runs:
        found.runs += _trained_runs(found, store, place)
    ids = (content, *found.segments, *found.keys.get("images", ()))
    names = {*ids, *(one[:SHOWN_LETTERS] for one in ids), *(str(escape(os.path.basename(uri))) for uri in found.uris)}
    named = re.compile(
        rb"(?<![\w.-])("
        + b"|".join(re.escape(name.encode("utf-8", "replace")) for name in sorted(names))
        + rb")(?![\w])"
    )
    for place in [*runs, *([registry.path("passes")] if registry is not None else [])]:
        found.pages += [
            page for page in _files(place, ".html") if named.search((read_bytes(page) or b"").replace(b"<wbr>", b""))
        ]
        found.predictions += [
            file
            for file in _files(place, ".parquet")
            if file.endswith("/predictions.parquet") and _without(found, file) is not None
        ]
    return found


def forget(
    found: FoundRows, store: Store, *, registry: Registry | None, report: Callable[[str], None] = lambda _: None
) -> None:
    """Remove everything for good. Raises Busy if an ingest or a pass is running."""
    if registry is not None:
        with registry.lease():
            _forget(found, store, registry, report)
    else:
        _forget(found, store, None, report)


def _forget(found: FoundRows, store: Store, registry: Registry | None, report: Callable[[str], None]) -> None:
    with Lease(store.uri) as lease:
        store.forgotten()  # read before anything is removed, as all else is
        store.versions()
        changed = _changed_files(found, registry)
        for name in IN_ORDER:
            store.refuse_undeletable(name)
        store.forget(found.video, bytes=found.bytes)
        try:
            _remove(found, store, registry, changed, lease, report)
            store.forget(found.video, bytes=found.bytes, versions=store.versions())
        except InputError as error:
            raise type(error)(
                f"{error}; part of {found.video} is removed; solve this and run the same command again to remove the "
                "rest"
            ) from None


def _remove(
    found: FoundRows,
    store: Store,
    registry: Registry | None,
    changed: dict[str, bytes],
    lease: Lease,
    report: Callable[[str], None],
) -> None:
    for version, splits in found.versions.items():
        registry.mark(version, found.video, segments=len(found.segments), splits=splits)
    for page in found.pages:
        folder = page.rpartition("/")[0]
        remove_tree(folder) if folder.rpartition("/")[0].endswith("/explain") else remove_file(page)
    for uri, content in changed.items():
        write_bytes(uri, content)
    for name, key in IN_ORDER.items():
        lease.check()
        if store.open(name) is not None:
            store.delete(name, key, found.keys[name])
            removed = store.remove_orphans(name, earlier=True)
            report(f"{name}: {counted(len(found.keys[name]), 'row')} removed, {counted(removed, 'file')} deleted")


def _changed_files(found: FoundRows, registry: Registry | None) -> dict[str, bytes]:
    """Return the new content of files beside the store.

    All of it is read before anything is removed, because an unreadable file must not stop that half-way.
    """
    changed = {}
    for uri in found.runs:
        run = RunFolder.open(uri)
        changed[run.path("forgotten.json")] = _json(sorted({*(run.read_json("forgotten.json") or []), found.video}))
    for file in found.predictions:
        kept = _without(found, file)
        if kept is not None:
            changed[file] = kept
    gone = set(found.segments)
    for name in registry.passes() if registry is not None else ():
        said, decision = registry.read_json("passes", name, "segments.json"), registry.decision(name)
        if said is not None and gone & set(said["segments"]):
            kept = {segment: of for segment, of in said["segments"].items() if segment not in gone}
            new = [segment for segment in said["new"] if segment not in gone]
            changed[registry.path("passes", name, "segments.json")] = _json(said | {"segments": kept, "new": new})
            of_others = [item for item in decision["changed"] if item["segment"] not in gone]
            changed[registry.path("passes", name, "decision.json")] = _json(decision | {"changed": of_others})
    return changed


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode()


def _without(found: FoundRows, predictions: str) -> bytes | None:
    """Return a file of predictions without the video's rows; None if it has none. Raises InputError if it is
    unreadable.
    """
    try:
        table = read_parquet(predictions)
    except Unreachable:
        raise
    except InputError as error:
        raise InputError(
            f"{predictions}: not a Parquet file, so it may still name the video ({error}); remove or replace it"
        ) from None
    kept = table
    for column, ids in found.judged.items():
        if column in table.column_names:
            kept = kept.filter(pc.invert(pc.is_in(kept[column], _strings(sorted(ids)))))
    if kept.num_rows == table.num_rows:
        return None
    buffer = io.BytesIO()
    pq.write_table(kept, buffer)
    return buffer.getvalue()


def _half_forgotten(video: str, store: Store) -> set[str]:
    """Return the video if the command was killed while forgetting it: it is marked, and its row is gone."""
    content = hash_file(absolute(video)) if not is_remote(video) and os.path.isfile(absolute(video)) else video
    return {content} & set(store.forgotten())


def _keys(content: str, store: Store) -> dict[str, list[str]]:
    segments = store.read("segments", columns=["segment", "group"], where=pc.field("video") == content)
    names = segments["segment"].to_pylist()
    clips = store.read("clips", columns=["clip"], where=pc.is_in(pc.field("segment"), _strings(names)))[
        "clip"
    ].to_pylist()
    images = [
        image
        for image in store.read("images", columns=["image"])["image"].to_pylist()
        if image.partition("-")[0] == content
    ]
    boxes = store.read("boxes", columns=["image", "group"]).to_pylist()
    gone = {row["image"] for row in boxes if row["image"].partition("-")[0] == content}
    groups = {*segments["group"].to_pylist(), *(row["group"] for row in boxes if row["image"] in gone)}
    kept = {
        row["group"]
        for row in store.read("segments", columns=["segment", "group"]).to_pylist()
        if row["segment"] not in set(names)
    }
    kept |= {row["group"] for row in boxes if row["image"] not in gone}
    named = {
        "flows": clips,
        "clips": clips,
        "absences": names + _absent(content, store),
        "segments": names,
        "boxes": sorted(gone),
        "images": images,
        "groups": sorted(groups - kept),
        "pictures": [content],
        "videos": [content],
    }
    return {name: _held(store, name, values) for name, values in named.items()}


def _absent(content: str, store: Store) -> list[str]:
    """Return the segments without a row of their own in which the detector found no athlete.

    Rows of earlier versions do not name their video. All of these without a segment are returned: they may be of this
    video, and the next ingest searches those of other videos again.
    """
    rows = store.read("absences", columns=["segment", "video"]).to_pylist()
    held = set(store.read("segments", columns=["segment"])["segment"].to_pylist())
    return [row["segment"] for row in rows if row["segment"] not in held and row["video"] in (content, None)]


def _held(store: Store, name: str, values: list[str]) -> list[str]:
    """Return those of `values` that the table has, once for each row."""
    key = IN_ORDER[name]
    return store.read(name, columns=[key], where=pc.is_in(pc.field(key), _strings(values)))[key].to_pylist()


def _strings(values: list[str]) -> Any:
    return pa.array(values, pa.string())


def _trained(found: FoundRows, store: Store, registry: Registry) -> dict[str, list[str]]:
    """Return versions whose pass trained, or chose its best epoch, on a segment of the video."""
    trained = {}
    for version in registry.versions():
        said = (
            (registry.read_json("passes", version["pass"], "segments.json") or {"segments": {}})["segments"]
            if version["store"] == store.uri
            else {}
        )
        splits = {said[segment][1] for segment in found.segments if segment in said} - {"test"}
        if splits:
            trained[version["version"]] = sorted(splits)
    return trained


def _trained_runs(found: FoundRows, store: Store, runs: str) -> list[str]:
    """Return folders of runs that read the video's segments, or its images, in train or val."""
    trained = []
    for uri in _files(runs, ".json"):
        if not uri.endswith("/run.json"):
            continue
        # without checking the configuration: a run that cannot be trained any more may have read the video too
        record = RunFolder.open(uri.rpartition("/")[0]).read_json("run.json")
        if record["store"] == store.uri and _reads(found, store, record["versions"]):
            trained.append(uri.rpartition("/")[0])
    return trained


def _reads(found: FoundRows, store: Store, versions: dict[str, int]) -> bool:
    try:
        segments = store.read(
            "segments",
            columns=["video", "split"],
            version=versions.get("segments"),
            where=pc.field("video") == found.video,
        )
        boxes = store.read("boxes", columns=["image", "split"], version=versions.get("boxes")).to_pylist()
    except InputError:  # the version went with a video that was forgotten before
        return False
    splits = {
        *segments["split"].to_pylist(),
        *(row["split"] for row in boxes if row["image"].partition("-")[0] == found.video),
    }
    return bool(splits & {"train", "val"})


def _files(place: str, suffix: str) -> list[str]:
    if not is_remote(place) and not os.path.isdir(place):
        return []
    return [path_below(place, file.relative) for file in list_files(place, suffixes=frozenset({suffix}))]
