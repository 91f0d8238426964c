"""Ledger of an ingest of videos: commits clips, then segments, then the rows of the videos that are done."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.compute as pc

from posture.data.decode.cut import BACKGROUND, Cut, accept, no_athlete, segment_of, span_of, windows_of
from posture.data.ingest.ledger import CommonOptions, IngestReport, LabelledLedger, file_row, other_labels
from posture.data.ingest.splits import refuse_two_sides, split_videos
from posture.data.labels.records import AnnotatedVideo, Label, LabelledVideos, Tube
from posture.data.store import schema
from posture.data.store.files import File
from posture.data.store.lease import Lease
from posture.data.store.tables import Store

SAME_TIME_SECONDS = 0.002
"""Segments that share at most this much time do not overlap: times are rounded to 1 ms."""


@dataclass(frozen=True)
class IngestOptions(CommonOptions):
    cut: Cut = Cut()
    seconds_per_label: float = 1.0
    """Added to the time limit of a file for each of its labels."""


@dataclass
class ClipReport(IngestReport):
    """Result of an ingest of videos, as `posture ingest --report` shows it again."""

    recipe: str
    files: int = 0
    decoded: int = 0
    """Files whose clips were added."""
    segments: int = 0
    clips: int = 0
    footage_seconds: float = 0.0
    """Total length of the segments added."""
    notes: list[dict[str, str]] = field(default_factory=list)
    """{uri, note} of files that were decoded but are unusual."""
    decode_seconds: float = 0.0
    """Time from the first file sent out to the last commit."""

    @property
    def clips_per_second(self) -> float:
        return self.clips / self.decode_seconds if self.decode_seconds else 0.0


@dataclass(frozen=True)
class ClipJob:
    """One video to decode."""

    uri: str
    bytes: int
    modified: float
    video: str
    """Content hash if known; otherwise the worker computes it."""
    labels: tuple[Label, ...]
    stored: tuple[str, ...] = ()
    """Segments of this video whose clips are stored already."""
    empty: tuple[str, ...] = ()
    """Segments of this video that are known to show no athlete."""
    tubes: tuple[Tube, ...] = ()
    """Annotated tracks of the athletes, if clips are cut along them."""
    steps = 1

    @property
    def size(self) -> int:
        return len(self.labels)


@dataclass
class ClipResult:
    """Result of one video: its row and the segments that were cut."""

    row: dict[str, Any]
    """Row of the table `videos`."""
    segments: list[dict[str, Any]]
    refused: list[dict[str, Any]]
    notes: list[dict[str, str]]
    steps = 1


def estimate_bytes(footage: LabelledVideos, cut: Cut) -> int:
    """Return an upper bound of the growth of the store: every segment with all its windows, before compression."""
    labels = [label for video in footage.videos for label in video.labels]
    stretches = sum(max(1, cut.unlabelled) if label.label == schema.UNLABELLED else 1 for label in labels)
    return stretches * cut.recipe.windows * cut.recipe.clip_bytes


class ClipLedger(LabelledLedger):
    """Clips that the store holds, and those that this ingest adds."""

    table, files, file_key, rows, row_key = "clips", "videos", "video", "segments", "segment"
    said, compared = ("label", "group", "split"), tuple(schema.SEGMENTS.names)

    def __init__(self, store: Store, options: IngestOptions, report: ClipReport, lease: Lease) -> None:
        super().__init__(store, options, report, lease)
        self._recipe = options.cut.recipe
        is_recipe = pc.field("recipe") == str(self._recipe)
        clips = store.read("clips", columns=["segment", "frames"], where=is_recipe)
        self._frames = dict(zip(clips["segment"].to_pylist(), clips["frames"].to_pylist(), strict=True))
        """Frames of a stored clip of each segment. All clips of a segment have the same length."""
        self._decoded = set(self._frames)
        self._videos = {video: row for (video, _), row in self._done.items()}
        orphans = self._decoded - {row["segment"] for row in self._rows.values() if row["video"] in self._videos}
        # a killed ingest has committed their clips, but not their video's row
        self.for_work = {"orphans": frozenset(orphans)}
        self._absences = {row["segment"]: row for row in store.read("absences", where=is_recipe).to_pylist()}
        self._standing: list[dict[str, Any]] = []
        """Segments of known videos as the labels say now. `split` is the named split, or None."""
        self._added: dict[str, dict[str, Any]] = {}
        """Segments that were decoded, likewise."""

    def plan(self, footage: LabelledVideos) -> list[ClipJob]:
        """Return the files to decode, largest first. Raises InputError if a group would be in two splits."""
        contents = self._contents(video.file for video in footage.videos)
        videos = self._still_unlabelled(self._without_forgotten(footage.videos, contents), contents)
        refuse_two_sides(videos, stored=self._groups)
        videos = self._on_one_side(videos, contents)
        stored = self._stored_segments()
        jobs: list[ClipJob] = []
        rows: list[dict[str, Any]] = []
        first_with: dict[str, AnnotatedVideo] = {}

        def comes_later(video: AnnotatedVideo) -> tuple[bool, bool]:
            content = contents[video.file.uri]
            return content not in self._videos, (content, video.file.uri) not in self._done

        # stored files go first, so that a copy of one changes nothing
        for video in sorted(videos, key=comes_later):
            file, content = video.file, contents[video.file.uri]
            known = self._known(file)
            first = first_with.setdefault(content, video) if content else video
            if first is not video:
                other = other_labels(first.label_names, video.label_names)
                row = video_row(file, content, "duplicate", f"the same content as {first.file.relative}{other}")
            elif known and schema.is_final(known):
                row = known
            elif content in self._videos:
                row = self._videos[content] | {"uri": file.uri, "bytes": file.bytes, "modified": file.modified}
                if (empty := self._stand(video, row)) is not None:
                    jobs.append(_job(video, content, stored.get(content, ()), empty))
                    continue
            else:
                jobs.append(_job(video, content))
                continue
            if row["verdict"] != "ok":
                self._refuse(row)
            self._report.unchanged += 1
            rows.append(row)
        self._remember(rows)
        return sorted(jobs, key=lambda job: -job.bytes)

    def _stand(self, video: AnnotatedVideo, row: dict[str, Any]) -> tuple[str, ...] | None:
        """Note what the labels say now of a known video. Return None if all its clips are stored, else its segments
        without an athlete.
        """
        content, uri = row["video"], row["uri"]
        accepted, refused = accept(
            video.labels,
            self._options.cut,
            seconds=row["seconds"],
            fps=row["fps"],
            stored=lambda label: self._frames.get(segment_of(content, label), 0),
        )
        segments = {segment_of(content, label): label for label in accepted}
        empty = self._without_athlete(segments, video.tubes or (), row)
        self._report.refused += [{"uri": uri, **refusal} for refusal in empty.values()]
        self._standing += [_segment_row(content, label, row["seconds"]) for label in accepted]
        if not self._decoded.union(empty).issuperset(segments):
            return tuple(empty)  # the worker reports the other refusals
        self._report.refused += [{"uri": uri, **refusal} for refusal in refused]
        return None

    def _record(self) -> None:
        if self._recipe.searched:
            self._store.upsert("absences", self._table("absences", self._absent()), keys=["segment", "recipe"])
        segments = [segment for result in self._results for segment in result.segments]
        self._write(segment | {"split": self._groups.get(segment["group"], "")} for segment in segments)
        self._added |= {segment["segment"]: segment for segment in segments}
        self._remember(result.row for result in self._results)
        for result in self._results:
            self._report.decoded += result.row["verdict"] == "ok"
            for refusal in result.refused:
                self._refuse(refusal)
            self._report.notes += result.notes
        self._report.clips = self.made
        self.changed = self.changed or bool(self._results)

    def _settle(self) -> dict[str, dict[str, Any]]:
        standing = {row["segment"]: row for row in self._standing}
        self._remove(self._unnamed(standing))
        standing = {key: row for key, row in standing.items() if key in self._rows or key in self._decoded}
        # the labels once did not name them, and now do again
        self._new |= standing.keys() - self._rows.keys()
        return standing | self._added

    def _kept(self, rows: dict[str, dict[str, Any]]) -> list[Label]:
        return [Label(row["start"], row["end"], row["label"], row["group"], row["split"]) for row in rows.values()]

    def _count(self, added: list[dict[str, Any]], corrected: set[str]) -> None:
        self._report.segments, self._report.decode_seconds = len(added), self.spent
        self._report.footage_seconds = sum(row["end"] - row["start"] for row in added)
        for row in added:
            self._report.classes.setdefault(row["label"], dict.fromkeys(schema.SPLITS, 0))[row["split"]] += 1

    def _refuse(self, row: dict[str, Any]) -> None:
        self._report.refused.append({key: row[key] for key in ("uri", "verdict", "reason")})

    def _without_athlete(
        self, segments: dict[str, Label], tubes: Sequence[Tube], row: dict[str, Any]
    ) -> dict[str, dict[str, str]]:
        """Return the refusals of the segments of a known video (its `row`) in which no athlete was found or drawn."""
        if not self._recipe.crop:
            return {}
        lacking = {segment: label for segment, label in segments.items() if segment not in self._decoded}
        if self._recipe.searched:
            return {
                segment: {key: self._absences[segment][key] for key in ("verdict", "reason")}
                for segment in lacking
                if segment in self._absences
            }
        shown = np.arange(row["frames"]) / row["fps"]
        return {
            segment: no_athlete(label, row["seconds"] if label.end is None else min(label.end, row["seconds"]))
            for segment, label in lacking.items()
            if not any(windows_of(label, segment, span_of(label, row["seconds"], shown), self._recipe, tubes))
        }

    def _absent(self) -> list[dict[str, str]]:
        """Return the rows that the results add to the table `absences`."""
        return [
            {"recipe": str(self._recipe), "video": result.row["video"]}
            | {key: refusal[key] for key in ("segment", "verdict", "reason")}
            for result in self._results
            for refusal in result.refused
            if refusal["verdict"] == "no_athlete" and refusal["segment"] not in self._absences
        ]

    def _without_forgotten(self, videos: list[AnnotatedVideo], contents: dict[str, str]) -> list[AnnotatedVideo]:
        """Refuse the videos that were forgotten, and return the others."""
        gone = {video.file.uri for video in videos if contents[video.file.uri] in self._forgotten}
        for uri in sorted(gone):
            self._refuse({"uri": uri, "verdict": "forgotten", "reason": schema.VERDICTS["forgotten"]})
        return [video for video in videos if video.file.uri not in gone]

    def _still_unlabelled(self, videos: list[AnnotatedVideo], contents: dict[str, str]) -> list[AnnotatedVideo]:
        """Return the videos without those that have no label here, but one in the store."""
        labelled = {row["video"] for row in self._rows.values() if row["label"] != schema.UNLABELLED}
        kept = [
            video
            for video in videos
            if contents[video.file.uri] not in labelled or video.label_names != schema.UNLABELLED
        ]
        self._report.unlabelled += len(videos) - len(kept)
        return kept

    def _on_one_side(self, videos: list[AnnotatedVideo], contents: dict[str, str]) -> list[AnnotatedVideo]:
        """Refuse the videos, or labels, that would put the same frames into two splits. Return what is left."""
        rows: dict[str, set[tuple[str, bool]]] = defaultdict(set)
        for segment, row in self._rows.items():
            rows[row["video"]].add((row["group"], segment.endswith(schema.TUBE)))
        held = {video.file.uri: rows.get(contents[video.file.uri], set()) for video in videos}
        final = {video.file.uri for video in videos if (row := self._known(video.file)) and schema.is_final(row)}
        decoded = [video for video in videos if video.file.uri not in final]
        kept, refused = split_videos(decoded, stored=self._groups, held=held)
        for refusal in refused:
            self._refuse(refusal)
        left = {video.file.uri: video for video in kept}
        return [left.get(uri, video) for video in videos if (uri := video.file.uri) in final or uri in left]

    def _together(self, rows: dict[str, dict[str, Any]]) -> list[set[str]]:
        groups: dict[str, set[str]] = defaultdict(set)
        for row in rows.values():
            groups[row["video"]].add(row["group"])
        return [shown for shown in groups.values() if len(shown) > 1]

    def _to_hash(self, files: list[File]) -> list[str]:
        """Return the URIs of files that are as large as another file. The others are new, whatever they hold."""
        sizes = Counter(file.bytes for file in files)
        held = {row["bytes"] for row in self._looked_at.values()}
        held |= {mark["bytes"] for mark in self._forgotten.values()}
        return [file.uri for file in files if sizes[file.bytes] > 1 or file.bytes in held]

    def _stored_segments(self) -> dict[str, tuple[str, ...]]:
        """Return {video: segments} of the segments that need no decoding."""
        stored: dict[str, list[str]] = defaultdict(list)
        for row in self._rows.values():
            if row["segment"] in self._decoded:
                stored[row["video"]].append(row["segment"])
        return {video: tuple(segments) for video, segments in stored.items()}

    def _unnamed(self, named: dict[str, dict[str, Any]]) -> list[str]:
        """Return the stored segments of known videos that the labels, which have `named` others, no longer name."""
        # segments of one athlete and segments of all that the video shows are labelled independently
        kinds = {(row["video"], segment.endswith(schema.TUBE)) for segment, row in named.items()}
        if self._report.layout == "segments":  # but a table that names athletes in some rows labels both
            kinds |= {(video, False) for video, of_athlete in kinds if of_athlete}
        acting: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in named.values():
            acting[row["video"]].append(row)
        return [
            segment
            for segment, row in self._rows.items()
            if (row["video"], segment.endswith(schema.TUBE)) in kinds
            and segment not in named
            and segment not in self._added
            and (row["label"] != BACKGROUND or _acts_then(row, acting[row["video"]]))
        ]


def _acts_then(background: dict[str, Any], named: Sequence[dict[str, Any]]) -> bool:
    """Return True if the labels now name something else in this stretch of `background`: it is out of date."""
    return any(
        min(row["end"], background["end"]) - max(row["start"], background["start"]) > SAME_TIME_SECONDS
        for row in named
        if not (row["athlete"] and background["athlete"] and row["athlete"] != background["athlete"])
    )


def video_row(file: File, content: str, verdict: str = "ok", reason: str = "") -> dict[str, Any]:
    """Return a row of the table `videos` of a file that was not decoded yet."""
    unknown = {"frames": 0, "fps": 0.0, "seconds": 0.0, "width": 0, "height": 0, "codec": ""}
    return dict.fromkeys(schema.VIDEOS.names) | unknown | file_row("video", file, content, verdict, reason)


def _job(video: AnnotatedVideo, content: str, stored: tuple[str, ...] = (), empty: tuple[str, ...] = ()) -> ClipJob:
    file = video.file
    return ClipJob(file.uri, file.bytes, file.modified, content, video.labels, stored, empty, video.tubes or ())


def _segment_row(video: str, label: Label, seconds: float) -> dict[str, Any]:
    end = seconds if label.end is None else min(label.end, seconds)
    row = {"segment": segment_of(video, label), "video": video, "start": label.start, "end": end}
    return row | {"label": label.label, "group": label.group, "split": label.split, "athlete": label.athlete}
