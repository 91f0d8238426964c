"""Check of videos that an earlier version of Posture decoded, because its random access was not exact for every file.

The decoder of a checked video is in its row, which is written last: after a kill, the same call ends with the same
rows.
"""

from __future__ import annotations

import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from posture.data.decode.cut import Clip, Cut
from posture.data.decode.sandbox import Sandbox
from posture.data.labels.records import Label
from posture.data.store import schema
from posture.data.store.files import hash_file, local_copy
from posture.data.store.lease import Lease
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store
from posture.errors import Unreadable

EXACT = "decord"
"""Decoder, as noted, of videos that an earlier version decoded rightly."""
CHANGED = "the file has changed since it was ingested"
CLIPS_AT_ONCE = 64
"""New clips held in memory and added by one commit."""


@dataclass
class Rechecked:
    """Result of a check."""

    videos: int = 0
    """Videos that an earlier version decoded."""
    wrong: list[dict[str, str]] = field(default_factory=list)
    """{uri, reason} of videos whose clips may have been wrong, all decoded again."""
    clips: int = 0
    """Clips decoded again."""
    removed: dict[str, int] = field(default_factory=dict)
    """Clips cut along an athlete and removed, because the store does not keep where the athlete was; by recipe."""
    flows: int = 0
    """Clips whose optical flow was removed with them."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} of unreadable videos, whose clips stay as they are, and of segments refused now."""


def earlier_videos(store: Store) -> list[dict[str, Any]]:
    """Return the rows of videos that an earlier version decoded and that were not checked yet."""
    return store.read("videos", where=(pc.field("verdict") == "ok") & pc.field("decoder").is_null()).to_pylist()


def earlier_frames(store: Store) -> int:
    """Return how many frames of videos an earlier version stored as images. They are not checked."""
    uris = store.read("images", columns=["uri"], where=pc.field("decoder").is_null())["uri"].to_pylist()
    return sum("#t=" in uri for uri in uris)


def recheck(
    store: Store, *, limit_seconds: float, progress: Callable[[int, int, int], None] | None = None
) -> Rechecked:
    """Check every video that an earlier version decoded. Decode it again if its clips may show other frames than noted.

    `limit_seconds` is the time limit for one file. `progress(videos done, videos, clips)` is called after each video.
    Raises Busy if another ingest holds the store.
    """
    with Lease(store.uri) as lease:
        store.create_tables()
        by_content: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in earlier_videos(store):
            by_content[row["video"]].append(row)
        report = Rechecked(len(by_content))
        for done, (places, stream) in enumerate(_probed(list(by_content.values()), limit_seconds), start=1):
            lease.check()
            _RecheckedVideo(store, places, report, limit_seconds).bring_up_to_date(stream)
            if progress:
                progress(done, len(by_content), report.clips)
    return report


def _probed(
    videos: list[list[dict[str, Any]]], limit_seconds: float
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | Exception]]:
    """Yield (rows of one content, stream as its file has it now or why it cannot be read), probed on all cores."""
    own, sandboxes = threading.local(), []

    def start() -> None:
        own.sandbox = Sandbox()
        sandboxes.append(own.sandbox)

    def probe(places: list[dict[str, Any]]) -> dict[str, Any] | Exception:
        failure: Exception = Unreadable("unreadable", "no file with this content exists any more")
        for place in places:
            try:
                with local_copy(place["uri"]) as path:
                    if os.path.getsize(path) == place["bytes"]:
                        (stream,) = own.sandbox.cut(path, "", [], Cut(), limit_seconds=limit_seconds)
                        return stream | {"from": place["uri"]}
                failure = Unreadable("unreadable", CHANGED)
            except (Unreadable, OSError) as error:
                failure = error
        return failure

    with ThreadPoolExecutor(max_workers=os.cpu_count(), initializer=start) as pool:
        try:
            yield from zip(videos, pool.map(probe, videos), strict=True)
        finally:
            for sandbox in sandboxes:
                sandbox.close()


class _RecheckedVideo:
    """One content, and the rows of the files that hold it."""

    def __init__(self, store: Store, places: list[dict[str, Any]], report: Rechecked, limit_seconds: float) -> None:
        self._store, self._places, self._report, self._limit_seconds = store, places, report, limit_seconds
        self._row = places[0]

    def bring_up_to_date(self, stream: dict[str, Any] | Exception) -> None:
        """Decode the video again if its clips may be wrong, and note its decoder."""
        try:
            if isinstance(stream, Exception):
                raise stream
            now: dict[str, Any] = {"decoder": EXACT}
            if reason := _difference(self._row, stream):
                self._decode_again(stream)
                self._report.wrong.append({"uri": stream["from"], "reason": reason})
                now = {name: stream[name] for name in schema.VIDEOS.names if name in stream}
        except (Unreadable, OSError) as error:
            self._refuse(getattr(error, "verdict", "unreadable"), str(error))
            return
        self._upsert("videos", [place | now for place in self._places], "video", "uri")

    def _refuse(self, verdict: str, reason: str, uri: str = "") -> None:
        self._report.refused.append({"uri": uri or self._row["uri"], "verdict": verdict, "reason": reason})

    def _upsert(self, table: str, rows: list[dict[str, Any]], *keys: str) -> None:
        self._store.upsert(table, pa.Table.from_pylist(rows, schema=schema.TABLES[table]), keys=list(keys))

    def _decode_again(self, stream: dict[str, Any]) -> None:
        """Replace the clips of all recipes, and correct where segments end. Raises Unreadable, OSError."""
        with local_copy(stream["from"]) as path:
            if hash_file(path) != self._row["video"]:
                raise Unreadable("unreadable", CHANGED)
        rows = self._store.read("segments", where=pc.field("video") == self._row["video"]).to_pylist()
        segments = {row["segment"]: row for row in rows}
        stored = self._store.read(
            "clips", columns=["clip", "segment", "recipe"], where=pc.field("segment").isin(list(segments))
        )
        by_recipe: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for clip in stored.to_pylist():
            by_recipe[clip["recipe"]][clip["segment"]].append(clip["clip"])
        gone: set[str] = set()
        for name, clips in by_recipe.items():
            recipe = DecodeRecipe.parse(name)
            if recipe.crop:
                self._remove_cropped(name, clips)
            else:
                gone |= self._replace(stream["from"], recipe, {segment: segments[segment] for segment in clips}, clips)
        ends = [row for segment, row in segments.items() if segment not in gone and self._lasts_to_end(row)]
        self._upsert("segments", [row | {"end": stream["seconds"]} for row in ends], "segment")
        self._store.delete("segments", "segment", sorted(gone))

    def _lasts_to_end(self, segment: dict[str, Any]) -> bool:
        return segment["end"] >= self._row["seconds"] - 0.5 / max(self._row["fps"], 1e-3)

    def _label(self, row: dict[str, Any]) -> Label:
        end = None if self._lasts_to_end(row) else row["end"]
        return Label(row["start"], end, row["label"], row["group"], row["split"])

    def _replace(
        self, uri: str, recipe: DecodeRecipe, segments: dict[str, dict[str, Any]], old: dict[str, list[str]]
    ) -> set[str]:
        """Replace the `old` clips of these segments. Return the segments that give no clips any more."""
        gone = set()
        at_once = max(1, CLIPS_AT_ONCE // recipe.windows)
        with local_copy(uri) as path, Sandbox() as sandbox:
            for first in range(0, len(segments), at_once):
                some = list(segments)[first : first + at_once]
                new, lost = self._cut(sandbox, path, [(key, self._label(segments[key])) for key in some], recipe, uri)
                gone |= lost
                keys = [clip for segment in some for clip in old[segment]]
                self._remove_flows(keys)
                table, values = pa.Table.from_pylist(new, schema=schema.CLIPS), {*keys, *(row["clip"] for row in new)}
                self._store.replace("clips", table, key="clip", values=sorted(values))
                self._report.clips += len(new)
        return gone

    def _cut(
        self, sandbox: Sandbox, path: str, labels: Sequence[tuple[str, Label]], recipe: DecodeRecipe, uri: str
    ) -> tuple[list[dict[str, Any]], set[str]]:
        """Return the rows of the new clips, with the keys of their segments, and the segments that are refused."""
        new, lost = [], set()
        for segment, label in labels:
            window, refusal = 0, None
            for message in sandbox.cut(path, "", [label], Cut(recipe), limit_seconds=self._limit_seconds):
                if isinstance(message, Clip):
                    key = {"clip": schema.clip_id(segment, recipe, window), "segment": segment}
                    new.append(message.row | key | {"pixels": bytes(message.pixels)})
                    window += 1
                elif message["kind"] == "refused":
                    refusal = message
            if refusal:
                lost.add(segment)
                self._refuse(refusal["verdict"], refusal["reason"], uri)
        return new, lost

    def _remove_cropped(self, recipe: str, clips: dict[str, list[str]]) -> None:
        keys = [clip for of_segment in clips.values() for clip in of_segment]
        self._remove_flows(keys)
        self._store.delete("clips", "clip", keys)
        self._report.removed[recipe] = self._report.removed.get(recipe, 0) + len(keys)

    def _remove_flows(self, clips: list[str]) -> None:
        flows = self._store.read("flows", columns=["clip"], where=pc.field("clip").isin(clips))["clip"].to_pylist()
        self._store.delete("flows", "clip", flows)
        self._report.flows += len(flows)


def _difference(row: dict[str, Any], stream: dict[str, Any]) -> str:
    """Return why the clips of a video may be wrong, or an empty text if they are right."""
    if stream["doubt"]:
        return stream["doubt"]
    if row["frames"] != stream["frames"]:
        return f"{stream['frames']:,} frames are shown, {row['frames']:,} were counted"
    if (row["width"], row["height"]) != (stream["width"], stream["height"]):
        shown, taken = (f"{size['width']} x {size['height']}" for size in (stream, row))
        return f"it is shown with {shown} pixels, {taken} were taken"
    if abs(row["seconds"] - stream["seconds"]) > 0.5 / stream["fps"]:
        return f"it lasts {stream['seconds']:.2f} s, {row['seconds']:.2f} s were taken"
    return ""
