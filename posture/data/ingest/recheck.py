"""Decode again what earlier versions of Posture may have decoded wrongly: their decoder's random access was not exact
for every file.

A video that was looked at has its decoder in its row. That row is written last: killed anywhere, the same call again
ends with the same rows.
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
"""The decoder of videos that an earlier version decoded rightly."""
CLIPS_AT_ONCE = 64
"""Of new clips in memory, and in one commit."""


@dataclass
class Rechecked:
    """What was found and done."""

    videos: int = 0
    """That an earlier version decoded."""
    wrong: list[dict[str, str]] = field(default_factory=list)
    """{uri, reason} of those whose clips may have been wrong, all decoded again."""
    clips: int = 0
    """Decoded again."""
    removed: dict[str, int] = field(default_factory=dict)
    """Clips cut along an athlete, by recipe: removed, because the store does not keep where the athlete was."""
    flows: int = 0
    """Clips whose optical flow was removed with them."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} of videos that cannot be read now, whose clips stay as they are, and of segments that are
    refused now.
    """


def earlier_videos(store: Store) -> list[dict[str, Any]]:
    """The rows of videos whose clips an earlier version decoded and nobody has rechecked."""
    return store.read("videos", where=(pc.field("verdict") == "ok") & pc.field("decoder").is_null()).to_pylist()


def earlier_frames(store: Store) -> int:
    """How many frames of videos an earlier version stored as images; they are not rechecked."""
    uris = store.read("images", columns=["uri"], where=pc.field("decoder").is_null())["uri"].to_pylist()
    return sum("#t=" in uri for uri in uris)


def recheck(
    store: Store, *, limit_seconds: float, progress: Callable[[int, int, int], None] | None = None
) -> Rechecked:
    """Look at every video that an earlier version decoded, and decode again those of which it may have stored other
    frames than it says.

    `limit_seconds` is for each file; `progress(videos done, videos, clips)` is called as they come. Raises Busy if
    another ingest holds the store.
    """
    with Lease(store.uri) as lease:
        store.create_tables()
        by_content: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in earlier_videos(store):
            by_content[row["video"]].append(row)
        report = Rechecked(len(by_content))
        for number, (places, looked) in enumerate(_looked_at(list(by_content.values()), limit_seconds), start=1):
            lease.check()
            _RecheckedVideo(store, places, report, limit_seconds).bring_up_to_date(looked)
            if progress:
                progress(number, len(by_content), report.clips)
    return report


def _looked_at(
    videos: list[list[dict[str, Any]]], limit_seconds: float
) -> Iterator[tuple[list[dict[str, Any]], dict[str, Any] | Exception]]:
    """(the rows of one content, what is known of the file now, or why it cannot be read), on all cores."""
    own, sandboxes = threading.local(), []

    def equip() -> None:
        own.sandbox = Sandbox()
        sandboxes.append(own.sandbox)

    def look(places: list[dict[str, Any]]) -> dict[str, Any] | Exception:
        failure: Exception = Unreadable("unreadable", "no file holds it any more")
        for place in places:
            try:
                with local_copy(place["uri"]) as path:
                    if os.path.getsize(path) == place["bytes"]:
                        (stream,) = own.sandbox.cut(path, "", [], Cut(), limit_seconds=limit_seconds)
                        return stream | {"from": place["uri"]}
                failure = Unreadable("unreadable", "the file has changed since it was taken in")
            except (Unreadable, OSError) as error:
                failure = error
        return failure

    with ThreadPoolExecutor(max_workers=os.cpu_count(), initializer=equip) as pool:
        try:
            yield from zip(videos, pool.map(look, videos), strict=True)
        finally:
            for sandbox in sandboxes:
                sandbox.close()


class _RecheckedVideo:
    """One content, and the rows of the files that hold it."""

    def __init__(self, store: Store, places: list[dict[str, Any]], report: Rechecked, limit_seconds: float) -> None:
        self._store, self._places, self._report, self._limit_seconds = store, places, report, limit_seconds
        self._row = places[0]

    def bring_up_to_date(self, stream: dict[str, Any] | Exception) -> None:
        if isinstance(stream, Exception):
            self._refuse(stream)
            return
        reason = _difference(self._row, stream)
        if reason:
            try:
                self._decode_again(stream)
            except (Unreadable, OSError) as error:
                self._refuse(error)
                return
            self._report.wrong.append({"uri": stream["from"], "reason": reason})
        now = {name: stream[name] for name in schema.VIDEOS.names if name in stream} if reason else {"decoder": EXACT}
        self._store.upsert(
            "videos",
            pa.Table.from_pylist([place | now for place in self._places], schema=schema.VIDEOS),
            keys=["video", "uri"],
        )

    def _refuse(self, error: Exception) -> None:
        self._report.refused.append({
            "uri": self._row["uri"],
            "verdict": getattr(error, "verdict", "unreadable"),
            "reason": str(error),
        })

    def _decode_again(self, stream: dict[str, Any]) -> None:
        """Replace the clips of all recipes, and correct where segments end. Raises Unreadable, OSError."""
        with local_copy(stream["from"]) as path:
            if hash_file(path) != self._row["video"]:
                raise Unreadable("unreadable", "the file has changed since it was taken in")
        segments = {
            row["segment"]: row
            for row in self._store.read("segments", where=pc.field("video") == self._row["video"]).to_pylist()
        }
        stored = self._store.read(
            "clips", columns=["clip", "segment", "recipe"], where=pc.field("segment").isin(list(segments))
        ).to_pylist()
        by_recipe: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for clip in stored:
            by_recipe[clip["recipe"]][clip["segment"]].append(clip["clip"])
        gone: set[str] = set()
        for recipe, clips in by_recipe.items():
            if DecodeRecipe.parse(recipe).crop:
                self._remove_cropped(recipe, clips)
            else:
                gone |= self._replace(
                    stream["from"], DecodeRecipe.parse(recipe), {segment: segments[segment] for segment in clips}, clips
                )
        changed = [
            row | {"end": stream["seconds"]}
            for segment, row in segments.items()
            if segment not in gone and self._lasts_to_end(row)
        ]
        self._store.upsert("segments", pa.Table.from_pylist(changed, schema=schema.SEGMENTS), keys=["segment"])
        self._store.delete("segments", "segment", sorted(gone))

    def _lasts_to_end(self, segment: dict[str, Any]) -> bool:
        return segment["end"] >= self._row["seconds"] - 0.5 / max(self._row["fps"], 1e-3)

    def _replace(
        self, uri: str, recipe: DecodeRecipe, segments: dict[str, dict[str, Any]], old: dict[str, list[str]]
    ) -> set[str]:
        """Put new clips of these segments in the place of the `old` ones. Returns the segments that give none any more."""
        labels = {
            segment: Label(
                row["start"], None if self._lasts_to_end(row) else row["end"], row["label"], row["group"], row["split"]
            )
            for segment, row in segments.items()
        }
        gone = set()
        at_once = max(1, CLIPS_AT_ONCE // recipe.windows)
        with local_copy(uri) as path, Sandbox() as sandbox:
            for first in range(0, len(labels), at_once):
                some = list(labels)[first : first + at_once]
                new, lost = self._cut(sandbox, path, [(segment, labels[segment]) for segment in some], recipe, uri)
                gone |= lost
                keys = [clip for segment in some for clip in old[segment]]
                self._remove_flows(keys)
                self._store.replace(
                    "clips",
                    pa.Table.from_pylist(new, schema=schema.CLIPS),
                    key="clip",
                    values=sorted({*keys, *(row["clip"] for row in new)}),
                )
                self._report.clips += len(new)
        return gone

    def _cut(
        self, sandbox: Sandbox, path: str, labels: Sequence[tuple[str, Label]], recipe: DecodeRecipe, uri: str
    ) -> tuple[list[dict[str, Any]], set[str]]:
        """The rows of the new clips, under the keys that their segments have, and the segments that are refused."""
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
                self._report.refused.append({"uri": uri, "verdict": refusal["verdict"], "reason": refusal["reason"]})
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
    """Why the clips of a video may be wrong: the decoder, or what its row says of it. Empty if they are right."""
    if stream["doubt"]:
        return stream["doubt"]
    if row["frames"] != stream["frames"]:
        return f"{stream['frames']:,} frames are shown, {row['frames']:,} were counted"
    if (row["width"], row["height"]) != (stream["width"], stream["height"]):
        return f"it is shown with {stream['width']} x {stream['height']} pixels, {row['width']} x {row['height']} were taken"
    if abs(row["seconds"] - stream["seconds"]) > 0.5 / stream["fps"]:
        return f"it lasts {stream['seconds']:.2f} s, {row['seconds']:.2f} s were taken"
    return ""
