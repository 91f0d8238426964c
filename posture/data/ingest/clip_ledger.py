"""What a store holds, what an ingest is to add, and the commits that bring the two together. No Ray: it never decodes.

Commits come in batches, in the order clips, segments, videos: a row in `videos` means done. Killed anywhere, an ingest
decodes at most one batch again. Segments of new groups wait without a split until everything is decoded: the splits are
drawn over what was kept.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from posture.data.decode.cut import BACKGROUND, Cut, accept, no_athlete, segment_of, span_of, windows_of
from posture.data.decode.limits import DecodeLimits
from posture.data.ingest.splits import assign_splits, refuse_two_sides, splits_drawn
from posture.data.labels.records import AnnotatedVideo, Label, LabelledVideos, Tube
from posture.data.store import schema
from posture.data.store.files import File, hash_file, local_copy
from posture.data.store.lease import Lease
from posture.data.store.schema import DecodeRecipe
from posture.data.store.tables import Store


@dataclass(frozen=True)
class IngestOptions:
    cut: Cut = Cut()
    val_share: float = 0.2
    test_share: float = 0.2
    seed: int = 0
    file_limit_seconds: float = 120.0
    """Time for probing and decoding one file."""
    seconds_per_label: float = 1.0
    """And this much more for each of its labels."""
    limits: DecodeLimits = DecodeLimits()
    """Of pixels and memory, for one file."""
    commit_files: int = 256
    commit_seconds: float = 60.0
    max_refused_share: float = 0.5
    """More refused files than this, of those looked at, fails the ingest."""


@dataclass
class ClipReport:
    """What an ingest did, as `posture ingest --report` shows it again."""

    ingest: str
    footage: str
    layout: str
    recipe: str
    files: int = 0
    unchanged: int = 0
    """Files that were in the store already, with these labels and this recipe."""
    decoded: int = 0
    relabelled: int = 0
    """Segments whose label was corrected, without decoding."""
    retired: int = 0
    """Segments that the footage's labels no longer name."""
    segments: int = 0
    clips: int = 0
    footage_seconds: float = 0.0
    """Length of the segments added."""
    classes: dict[str, dict[str, int]] = field(default_factory=dict)
    """Segments added, by class and split."""
    splits: str = ""
    """How many groups of this footage stand on each side, and what put them there."""
    waiting: int = 0
    """Segments of other footage that wait for their split: its ingest was stopped."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} per refused file, label or segment."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """{uri, note} of files that were decoded but are odd."""
    unlabelled: int = 0
    seconds: float = 0.0
    decode_seconds: float = 0.0
    """From the first file sent out to the last clip committed."""

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class ClipJob:
    """One file to decode, as it travels to a worker (JSON)."""

    uri: str
    bytes: int
    modified: float
    video: str
    """Content hash where it is known; else the worker makes it."""
    labels: tuple[Label, ...]
    stored: tuple[str, ...]
    """Segments of this video whose clips stand already."""
    empty: tuple[str, ...] = ()
    """Segments of this video that are known to show no athlete."""
    tubes: tuple[Tube, ...] = ()
    """Where the athletes are, if clips are cut along boxes that people drew."""


def estimate_bytes(footage: LabelledVideos, recipe: DecodeRecipe) -> int:
    """An upper bound of what the store will grow by: every segment with all its windows, before compression."""
    return sum(len(video.labels) for video in footage.videos) * recipe.windows * recipe.clip_bytes


class ClipLedger:
    """What the store holds, what this ingest adds, and the commits that bring the two together."""

    def __init__(self, store: Store, options: IngestOptions, report: ClipReport, lease: Lease) -> None:
        self._store, self._options, self._report, self._lease = store, options, report, lease
        self._videos = store.read("videos").to_pylist()
        self._segments = {row["segment"]: row for row in store.read("segments").to_pylist()}
        is_recipe = pc.field("recipe") == str(options.cut.recipe)
        clips = store.read("clips", columns=["segment", "frames"], where=is_recipe)
        self._frames = dict(zip(clips["segment"].to_pylist(), clips["frames"].to_pylist(), strict=True))
        """Stored frames of a clip of each segment; all of a segment are as long."""
        self._decoded = set(self._frames)
        done = {row["video"] for row in self._videos if row["verdict"] == "ok"}
        self.orphans = frozenset(
            self._decoded - {row["segment"] for row in self._segments.values() if row["video"] in done}
        )
        """Segments whose clips a killed ingest committed, but not that their video is done."""
        self._forgotten = store.forgotten()
        self._absences = {row["segment"]: row for row in store.read("absences", where=is_recipe).to_pylist()}
        self._groups = {row["group"]: row["split"] for row in store.read("groups").to_pylist()}
        self._standing: list[dict[str, Any]] = []
        """What the footage says now of the segments of videos that are done; `split` is what it names, or None."""
        self._added: dict[str, dict[str, Any]] = {}
        """The segments that were decoded, likewise."""
        self._new: set[str] = {segment for segment, row in self._segments.items() if row["split"] == ""}
        """Of all segments, those that come into a split by this ingest."""
        self.changed = False
        self._results: list[dict[str, Any]] = []
        self._parts: list[dict[str, Any]] = []
        self._last_commit = time.time()

    def plan(self, footage: LabelledVideos) -> list[ClipJob]:
        """List the files to decode, largest first. Raises InputError if a group would stand on two sides."""
        contents = self._contents(footage)
        footage = replace(footage, videos=self._without_forgotten(footage, contents))
        refuse_two_sides(footage.videos, stored=self._groups)
        done = {row["video"]: row for row in self._videos if row["verdict"] == "ok"}
        files = {(row["uri"], row["bytes"], row["modified"]): row for row in self._videos}
        stored = self._stored_segments()
        jobs: list[ClipJob] = []
        rows_seen: list[dict[str, Any]] = []
        first_with: dict[str, AnnotatedVideo] = {}
        stands = {(row["video"], row["uri"]) for row in self._videos if row["verdict"] == "ok"}

        def comes_later(video: AnnotatedVideo) -> tuple[bool, bool]:
            content = contents.get(video.file.uri, "")
            return content not in done, (content, video.file.uri) not in stands

        # what stands goes first, so that a copy of it changes nothing
        for video in sorted(footage.videos, key=comes_later):
            file, content = video.file, contents.get(video.file.uri, "")
            known = files.get((file.uri, file.bytes, file.modified))
            labels = video.labels
            first = first_with.setdefault(content, video) if content else video
            if first is not video:
                row = video_row(
                    file,
                    content,
                    "duplicate",
                    f"the same content as {first.file.relative}{other_labels(first.label_names, video.label_names)}",
                )
            elif known and schema.is_final(known):
                row = known
            elif content in done:
                row = done[content] | {"uri": file.uri, "bytes": file.bytes, "modified": file.modified}
                accepted, refused = accept(
                    labels,
                    self._options.cut,
                    seconds=row["seconds"],
                    fps=row["fps"],
                    stored=lambda label, content=content: self._frames.get(segment_of(content, label), 0),
                )
                segments = {segment_of(content, label): label for label in accepted}
                empty = self._without_athlete(segments, video.tubes or (), row)
                self._report.refused += [{"uri": file.uri, **refusal} for refusal in empty.values()]
                self._standing += [_segment_row(content, label, row["seconds"]) for label in accepted]
                if not self._decoded.union(empty).issuperset(segments):
                    jobs.append(
                        ClipJob(
                            file.uri,
                            file.bytes,
                            file.modified,
                            content,
                            labels,
                            stored.get(content, ()),
                            tuple(empty),
                            video.tubes or (),
                        )
                    )
                    continue
                # of a file that is decoded, the worker says so
                self._report.refused += [{"uri": file.uri, **refusal} for refusal in refused]
            else:
                jobs.append(ClipJob(file.uri, file.bytes, file.modified, content, labels, (), tubes=video.tubes or ()))
                continue
            if row["verdict"] != "ok":
                self._report.refused.append({key: row[key] for key in ("uri", "verdict", "reason")})
            self._report.unchanged += 1
            rows_seen.append(row)
        self._remember(rows_seen)
        return sorted(jobs, key=lambda job: -job.bytes)

    def add(self, results: list[dict[str, Any]], part: dict[str, Any] | None) -> None:
        """Take what one task did with its files; commit when enough has come."""
        self._results += results
        self._parts += [part] if part else []
        self._report.clips += part["rows"] if part else 0
        if (
            len(self._results) >= self._options.commit_files
            or time.time() - self._last_commit > self._options.commit_seconds
        ):
            self.commit()

    def commit(self) -> None:
        """Clips, then segments, then videos: whoever reads in between sees less, never something wrong."""
        self._lease.check()
        self._store.commit_files("clips", self._parts)
        if self._options.cut.recipe.searched:
            self._store.upsert(
                "absences", pa.Table.from_pylist(self._absent(), schema=schema.ABSENCES), keys=["segment", "recipe"]
            )
        segments = [segment for result in self._results for segment in result["segments"]]
        new = [
            segment | {"split": self._groups.get(segment["group"], "")}
            for segment in segments
            if segment["segment"] not in self._segments
        ]
        self._store.upsert("segments", pa.Table.from_pylist(new, schema=schema.SEGMENTS), keys=["segment"])
        self._segments |= {row["segment"]: row for row in new}
        self._new |= {row["segment"] for row in new}
        self._added |= {segment["segment"]: segment for segment in segments}
        self._remember([result["row"] for result in self._results])
        for result in self._results:
            self._report.decoded += result["row"]["verdict"] == "ok"
            self._report.refused += [
                {key: refusal[key] for key in ("uri", "verdict", "reason")} for refusal in result["refused"]
            ]
            self._report.notes += result["notes"]
        self.changed = self.changed or bool(self._results)
        self._results, self._parts, self._last_commit = [], [], time.time()

    def finish(self) -> None:
        """Commit what is left, draw the splits of new groups over what was kept, and bring `segments` in line with the
        footage's labels.

        The splits come first: killed after them, the next ingest goes on with the same.
        """
        self.commit()
        standing = {
            row["segment"]: row
            for row in self._standing
            if row["segment"] in self._segments or row["segment"] in self._decoded
        }
        # removed when the labels did not name them, and now they do again
        self._new |= standing.keys() - self._segments.keys()
        said = standing | self._added
        splits = self._assign_splits([_label_of(row) for row in said.values()])
        # a group may have got its split in an ingest of other footage, before this one could end
        said = {
            segment: row for segment, row in self._segments.items() if row["split"] == "" and row["group"] in splits
        } | said
        said = {segment: row | {"split": splits[row["group"]]} for segment, row in said.items()}
        changed = [row for segment, row in said.items() if self._segments.get(segment) != row]
        added = [row for segment, row in said.items() if segment in self._new]
        self._report.relabelled = sum(
            _said(self._segments[row["segment"]]) != _said(row) for row in changed if row["segment"] not in self._new
        )
        self._store.upsert("segments", pa.Table.from_pylist(changed, schema=schema.SEGMENTS), keys=["segment"])
        retired = set(self._retire({row["segment"] for row in self._standing}))
        self._segments |= said
        self._report.retired = len(retired)
        self._report.waiting = sum(
            row["split"] == "" for segment, row in self._segments.items() if segment not in retired
        )
        self._report.segments = len(added)
        self._report.footage_seconds = sum(row["end"] - row["start"] for row in added)
        for row in added:
            self._report.classes.setdefault(row["label"], dict.fromkeys(schema.SPLITS, 0))[row["split"]] += 1
        self.changed = self.changed or bool(changed or retired)

    def _without_athlete(
        self, segments: dict[str, Label], tubes: Sequence[Tube], row: dict[str, Any]
    ) -> dict[str, dict[str, str]]:
        """The refusals of those segments of a known video (its `row`) that give no clip, by what was found or drawn in
        it.
        """
        recipe = self._options.cut.recipe
        if not recipe.crop:
            return {}
        lacking = {segment: label for segment, label in segments.items() if segment not in self._decoded}
        if recipe.searched:
            return {
                segment: {key: self._absences[segment][key] for key in ("verdict", "reason")}
                for segment in lacking
                if segment in self._absences
            }
        shown = np.arange(row["frames"]) / row["fps"]
        return {
            segment: no_athlete(label, row["seconds"] if label.end is None else min(label.end, row["seconds"]))
            for segment, label in lacking.items()
            if not any(windows_of(label, segment, span_of(label, row["seconds"], shown), recipe, tubes))
        }

    def _absent(self) -> list[dict[str, str]]:
        """The rows of `absences` that the results add."""
        refused = [
            refusal for result in self._results for refusal in result["refused"] if refusal["verdict"] == "no_athlete"
        ]
        return [
            {"recipe": str(self._options.cut.recipe), **{key: refusal[key] for key in ("segment", "verdict", "reason")}}
            for refusal in refused
            if refusal["segment"] not in self._absences
        ]

    def _assign_splits(self, kept: list[Label]) -> dict[str, str]:
        """The split of every group of the store; new ones, of the segments that were `kept`, are drawn and committed."""
        drawing = {
            "val_share": self._options.val_share,
            "test_share": self._options.test_share,
            "seed": self._options.seed,
        }
        splits = assign_splits(kept, stored=self._groups, **drawing)
        new = [{"group": group, "split": split} for group, split in sorted(splits.items()) if group not in self._groups]
        self._lease.check()
        self._store.append("groups", pa.Table.from_pylist(new, schema=schema.GROUPS))
        self._report.splits = splits_drawn(kept, splits, **drawing) if kept else ""
        return self._groups | splits

    def _without_forgotten(self, footage: LabelledVideos, contents: dict[str, str]) -> list[AnnotatedVideo]:
        """The others; those that are to stay forgotten are refused."""
        gone = {video.file.uri for video in footage.videos if contents.get(video.file.uri) in self._forgotten}
        self._report.refused += [
            {"uri": uri, "verdict": "forgotten", "reason": schema.VERDICTS["forgotten"]} for uri in sorted(gone)
        ]
        return [video for video in footage.videos if video.file.uri not in gone]

    def _contents(self, footage: LabelledVideos) -> dict[str, str]:
        """Content hashes: of files seen before, and of new ones as large as another file. The others are new, whatever
        they hold.
        """
        known = {(row["uri"], row["bytes"], row["modified"]): row["video"] for row in self._videos}
        contents = {
            file.uri: known.get((file.uri, file.bytes, file.modified), "")
            for file in (video.file for video in footage.videos)
        }
        held = {row["bytes"] for row in self._videos} | {mark["bytes"] for mark in self._forgotten.values()}
        sizes = Counter(video.file.bytes for video in footage.videos) + Counter(held)
        candidates = [
            video.file.uri
            for video in footage.videos
            if not contents[video.file.uri] and sizes[video.file.bytes] > 1 and video.file.bytes > 0
        ]
        with ThreadPoolExecutor(max_workers=8) as pool:
            return contents | dict(zip(candidates, pool.map(_content, candidates), strict=True))

    def _stored_segments(self) -> dict[str, tuple[str, ...]]:
        """By video, the segments that need no decoding."""
        stored: dict[str, list[str]] = defaultdict(list)
        for row in self._segments.values():
            if row["segment"] in self._decoded:
                stored[row["video"]].append(row["segment"])
        return {video: tuple(segments) for video, segments in stored.items()}

    def _retire(self, named: set[str]) -> list[str]:
        """Remove the segments of known videos that the footage's labels, which say of them `named`, no longer name.
        Returns which.
        """
        # an athlete's doing and what all shows stand side by side
        kinds = {(row["video"], row["segment"].endswith(schema.TUBE)) for row in self._standing}
        retired = [
            row["segment"]
            for row in self._segments.values()
            if (row["video"], row["segment"].endswith(schema.TUBE)) in kinds
            and row["segment"] not in named
            and row["segment"] not in self._added
            and row["label"] != BACKGROUND
        ]
        self._store.delete("segments", "segment", retired)
        return retired

    def _remember(self, videos: list[dict[str, Any]]) -> None:
        """Write the rows of `videos` that the table does not hold as they are."""
        held = {tuple(row.values()) for row in self._videos}
        new = [{name: row[name] for name in schema.VIDEOS.names} for row in videos]
        new = [row for row in new if tuple(row.values()) not in held]
        self._store.upsert("videos", pa.Table.from_pylist(new, schema=schema.VIDEOS), keys=["video", "uri"])
        self._videos += new
        self.changed = self.changed or bool(new)


def video_row(file: File, video: str, verdict: str = "ok", reason: str = "") -> dict[str, Any]:
    return {
        "video": video,
        "uri": file.uri,
        "bytes": file.bytes,
        "modified": file.modified,
        "frames": 0,
        "fps": 0.0,
        "seconds": 0.0,
        "width": 0,
        "height": 0,
        "codec": "",
        "verdict": verdict,
        "reason": reason,
        "decoder": None,
        "coded_width": None,
        "coded_height": None,
        "reader": None if verdict == "ok" else schema.READER,
    }


def other_labels(first: str, other: str) -> str:
    """What is added to the reason of a duplicate that is labelled in another way than the file that is kept."""
    return "" if first == other else f", which is labelled {first}; this one is labelled {other}"


def _content(uri: str) -> str:
    try:
        with local_copy(uri) as path:
            return hash_file(path)
    except OSError:
        return ""


def _segment_row(video: str, label: Label, seconds: float) -> dict[str, Any]:
    end = seconds if label.end is None else min(label.end, seconds)
    return {
        "segment": segment_of(video, label),
        "video": video,
        "start": label.start,
        "end": end,
        "label": label.label,
        "group": label.group,
        "split": label.split,
    }


def _label_of(row: dict[str, Any]) -> Label:
    return Label(row["start"], row["end"], row["label"], row["group"], row["split"])


def _said(row: dict[str, Any]) -> tuple[str, str, str]:
    """What people say of a segment, and may correct."""
    return row["label"], row["group"], row["split"]
