"""Records that label files are read into: videos with labelled segments, tracked videos, images with boxes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from posture.data.store.files import File

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 in pixels from the upper left corner. A box around pixel columns 0 to 9 has x1 = 0, x2 = 10."""


@dataclass(frozen=True)
class Label:
    """A labelled segment of a video, up to its end if `end` is None. The store assigns a split of None by group."""

    start: float  # seconds
    end: float | None  # seconds
    label: str
    group: str
    split: str | None = None
    athlete: str = ""
    """Name of the tube of the labelled athlete, if the label describes one athlete and not the whole video."""
    frames: tuple[int, int] | None = None
    """First frame, and one past the last, if the layout counts frames. `timed` then replaces `start` and `end`."""

    def timed(self, fps: float) -> Label:
        """Return the label with `start` and `end` in seconds."""
        return self if self.frames is None else replace(self, start=self.frames[0] / fps, end=self.frames[1] / fps)


class Action(NamedTuple):
    """A stretch of a tube in which the athlete does one thing."""

    first: int
    """First frame."""
    end: int
    """One past the last frame."""
    label: str


@dataclass(frozen=True)
class Tube:
    """Boxes of one athlete in the frames of a video."""

    name: str
    """The video's stem and a number."""
    label: str
    boxes: dict[int, Box]
    """Frame number -> box in pixels."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels of the video that the boxes were drawn on, or None if the annotations do not say."""
    actions: tuple[Action, ...] | None = None
    """Actions of the athlete in order, if the annotations tell them from the `label`, else None."""


@dataclass(frozen=True)
class AnnotatedVideo:
    file: File
    labels: tuple[Label, ...]
    tubes: tuple[Tube, ...] | None = None
    """Tubes of the athletes, or None if the annotations have none."""

    @property
    def label_names(self) -> str:
        """Return the names of its labels, separated by commas."""
        return ", ".join(sorted({label.label for label in self.labels}))


@dataclass(frozen=True, kw_only=True)
class LabelSource:
    """A folder or bucket with labels. Subclasses add what is labelled, and the files whose labels cannot be used."""

    root: str
    layout: str
    missing: list[str] = field(default_factory=list)
    """Labels of missing files, as `where: file`."""
    unlabelled: list[str] = field(default_factory=list)
    """Relative paths of the files that no label or list names."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the user."""


@dataclass(frozen=True, kw_only=True)
class LabelledVideos(LabelSource):
    videos: list[AnnotatedVideo]
    refused: list[dict[str, str]] = field(default_factory=list)
    """{uri, verdict, reason} of each."""


@dataclass(frozen=True)
class TrackedVideo:
    file: File
    tubes: list[Tube]
    seen: range | None = None
    """Annotated frames, or None if frames without a box may just not be annotated."""
    unusable: frozenset[int] = frozenset()
    """Frames left out because they have a shape that gives no box."""
    split: str | None = None
    size: tuple[int, int] | None = None
    """(height, width) in pixels, or None if the annotations do not say."""


@dataclass(frozen=True)
class Refusal:
    """A file whose labels cannot be used."""

    file: File
    verdict: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class TrackedFootage(LabelSource):
    videos: list[TrackedVideo] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


@dataclass(frozen=True)
class AnnotatedImage:
    """An image file or one frame of a video, with its annotations."""

    file: File
    boxes: tuple[Box, ...] = ()
    labels: tuple[str, ...] = ()
    group: str = ""
    """Athlete or source video; empty if the image is a group of its own."""
    split: str | None = None
    """The store assigns the split by group if this is None."""
    tubes: tuple[str, ...] = ()
    """For each box, the name of its tube; empty for image files."""
    frame: int | None = None
    """Frame number from 0, if the file is a video."""
    normalised: bool = False
    """True if boxes are shares of the image's width and height, not pixels."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels of the image that the boxes were drawn on, or None if the labels do not say."""
    ignored: tuple[bool, ...] = ()
    """For each box, True if it is an ignore region: a crowd, or an object too difficult to judge. Empty if none is."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedImages(LabelSource):
    images: list[AnnotatedImage] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class BadLabel(Exception):
    """Labels of one image that cannot be used. `verdict` is one of `schema.VERDICTS`."""

    def __init__(self, reason: str, *, verdict: str = "bad_label") -> None:
        super().__init__(reason)
        self.verdict = verdict
