"""What labels are read into: videos with labelled segments, videos with tracked athletes, images with boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from posture.data.store.files import File

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 from the image's upper left corner, where pixel columns 0 to 9 are x from 0 to 10."""


@dataclass(frozen=True)
class Label:
    """A labelled stretch of one video. `end` None: to its end. `split` None: the store decides by group."""

    start: float  # seconds
    end: float | None  # seconds
    label: str
    group: str
    split: str | None = None
    athlete: str = ""
    """The tube that is labelled, where it is one athlete's doing that is, not all that the video shows."""
    frames: tuple[int, int] | None = None
    """First, and one after the last, where the layout counts frames; `start` and `end` are then known with the video's
    frame rate.
    """

    def timed(self, fps: float) -> Label:
        """The same with start and end in seconds."""
        return self if self.frames is None else replace(self, start=self.frames[0] / fps, end=self.frames[1] / fps)


@dataclass(frozen=True)
class Tube:
    """One athlete's box through a video."""

    name: str
    """The video's stem and a number."""
    label: str
    boxes: dict[int, Box]
    """By frame, in pixels."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels of the video that the boxes were drawn on, if the annotations say it."""


@dataclass(frozen=True)
class AnnotatedVideo:
    file: File
    labels: tuple[Label, ...]
    tubes: tuple[Tube, ...] | None = None
    """Where the athletes are; None where nobody said."""

    @property
    def said(self) -> str:
        """The names of its labels."""
        return ", ".join(sorted({label.label for label in self.labels}))


@dataclass(frozen=True)
class LabelledVideos:
    """What a folder or bucket holds, in its own words."""

    root: str
    layout: str
    videos: list[AnnotatedVideo]
    missing: list[str] = field(default_factory=list)
    """Labels that name a video which is not there: `where: video`."""
    unlabelled: list[str] = field(default_factory=list)
    """Files that no label names."""
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} of files whose annotations cannot be used."""
    notes: list[str] = field(default_factory=list)
    """Sentences that whoever ingests it should read."""


@dataclass(frozen=True)
class TrackedVideo:
    file: File
    tubes: list[Tube]
    seen: range | None = None
    """The frames that were annotated; None where nobody looked at those without a box."""
    unusable: frozenset[int] = frozenset()
    """Frames that show something of which no box can be made: they are left out."""
    split: str | None = None
    size: tuple[int, int] | None = None
    """(height, width) in pixels, where the annotations say it."""


@dataclass(frozen=True)
class Refusal:
    """A file whose labels cannot be used."""

    file: File
    verdict: str
    reason: str


@dataclass(frozen=True)
class TrackedFootage:
    """What a folder or bucket holds of tracked videos; the lists are those of `AnnotatedImages`."""

    root: str
    layout: str
    videos: list[TrackedVideo] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file, or one frame of a video, and what people say of it."""

    file: File
    boxes: tuple[Box, ...] = ()
    labels: tuple[str, ...] = ()
    group: str = ""
    """The athlete or source video; empty where the image is a group of its own."""
    split: str | None = None
    """None: the store decides by group."""
    tubes: tuple[str, ...] = ()
    """For each box, the athlete's track through the video; none for stills."""
    frame: int | None = None
    """Of a video, from 0."""
    normalised: bool = False
    """Boxes are shares of the image's sides, not pixels."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels of the image that the boxes were drawn on, where the labels say it."""
    ignored: tuple[bool, ...] = ()
    """For each box, whether it is an ignore region: a crowd, or an object too difficult to judge. Empty if none is."""


@dataclass(frozen=True)
class AnnotatedImages:
    """What a folder or bucket of images with boxes holds, in its own words."""

    root: str
    layout: str
    images: list[AnnotatedImage]
    missing: list[str] = field(default_factory=list)
    """Labels of an image or video which is not there: `where: file`."""
    unlabelled: list[str] = field(default_factory=list)
    """Files that no label and no list names."""
    refused: list[Refusal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Sentences that whoever ingests them should read."""


class BadLabel(Exception):
    """What is said of one image cannot be used. `verdict` is one of `rows.VERDICTS`."""

    def __init__(self, reason: str, *, verdict: str = "bad_label") -> None:
        super().__init__(reason)
        self.verdict = verdict
