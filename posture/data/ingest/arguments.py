"""Options of `posture ingest` and `posture.ingest`, and the options of an ingest that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from posture.data.decode.cut import Cut
from posture.data.decode.limits import DecodeLimits
from posture.data.ingest.clip_ledger import IngestOptions
from posture.data.ingest.image_ledger import ImageOptions
from posture.data.store.schema import DecodeRecipe
from posture.display.ranges import between
from posture.errors import InputError


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width): `128x171` -> (128, 171). Raises InputError."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdigit() and 16 <= int(part) <= 2048 for part in parts):
        raise InputError(f"--size {text}: write height x width in pixels, for example 128x171")
    return int(parts[0]), int(parts[1])


@Parameter(name="*", group="Clips")
@dataclass(frozen=True)
class ClipArguments:
    """How clips are cut from videos."""

    size: str = "128x171"
    """Height x width of stored frames in pixels. Store larger frames than the network takes, so that crops can vary."""
    frames: Annotated[int, between(1, 1024)] = 32
    """Frames per stored clip. Store more than the 16 of training, so that the start can vary."""
    stride: Annotated[int, between(1, 1000)] = 2
    """Store every n-th frame of the video."""
    windows: Annotated[int, between(1, 1000)] = 1
    """Clips per segment, spread evenly over it."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How to handle another aspect ratio."""
    jpeg: Annotated[int, between(0, 100)] = 0
    """JPEG quality of stored frames from 1 to 100: about a tenth of the size, slower to read. 0 stores raw frames."""
    min_frames: Annotated[int, between(1)] = 16
    """Minimum stored frames of a training clip."""
    short: Literal["pad", "refuse"] = "pad"
    """Pad segments with fewer frames (training repeats their last frame), or refuse them."""
    background: bool = False
    """Also cut clips of a class `background` from the gaps between an athlete's labels, in which every action must be
    labelled.
    """
    unlabelled: Annotated[int, between(0, 10_000)] = 0
    """Also cut clips from videos without a label, for pretraining: at most this number from each, spread evenly. No
    classifier reads them.
    """
    crop: str | None = None
    """Cut clips around the athlete, beside whole clips: along hand-drawn `boxes` that lie beside the videos, or along
    the boxes of a trained detector, `detector=RUN`.
    """
    margin: Annotated[float, between(0, 2)] = 0.2
    """Margin around the athlete on each side of a cropped clip, as a share of the athlete's box."""
    flow: Literal["dis", "farneback"] | None = None
    """Afterwards compute the clips' missing optical flow, for two-stream models, with OpenCV's DIS or Farneback
    method. Without FOOTAGE, for the clips that the store holds.
    """

    def __post_init__(self) -> None:
        parse_size(self.size)
        if self.min_frames > self.frames:
            raise InputError(f"--min-frames {self.min_frames}: must be at most --frames, which is {self.frames}")
        if self.crop is not None and self.fit != "stretch":
            raise InputError(
                f"--fit {self.fit}: clips of --crop have the aspect ratio of --size already; leave out --fit or --crop"
            )

        if self.crop is not None and self.unlabelled:
            raise InputError(
                "--unlabelled: clips of --crop need a label that names when an athlete acts; leave out one of the two"
            )

    @property
    def only_for_videos(self) -> bool:
        """True if an option that only clips have was given: the footage is then read as videos."""
        default = ClipArguments()
        names = ("fit", "windows", "jpeg", "background", "unlabelled", "flow")
        return any(getattr(self, name) != getattr(default, name) for name in names)


@Parameter(name="*", group="Images")
@dataclass(frozen=True)
class ImageArguments:
    """How labelled images are read."""

    every: Annotated[int, between(1, 100_000)] = 8
    """Take every n-th annotated frame of a video."""
    boxes: Literal["clip", "refuse"] = "clip"
    """Clip boxes at the edge of the image, or refuse the image."""
    named_val: Literal["test", "val"] = "test"
    """If the layout names a val but no test: use it as the test split, or keep it as val."""
    outside: bool = False
    """Read the `path` of a data.yaml even if it lies outside of FOOTAGE."""


@Parameter(name="*", group="Splits")
@dataclass(frozen=True)
class SplitArguments:
    """How groups are divided among train, val and test."""

    split_number: Annotated[int, between(1, 3)] = 1
    """Which of the three official splits of UCF101 to use."""
    val_share: Annotated[float, between(0, 0.9)] = 0.2
    """Share of the training groups of each class that becomes val, if the footage names no val."""
    test_share: Annotated[float | None, between(0, 0.9)] = None
    """Share of the groups of each class that becomes test, if the footage names no test; by default 0.2 for clips and
    0.3 for images.
    """
    seed: int = 0
    """Seed for choosing the groups."""


@Parameter(name="*", group="Limits")
@dataclass(frozen=True)
class LimitArguments:
    """Limits for a single file."""

    file_limit: Annotated[float, between(1, 86400)] = 120.0
    """Maximum seconds to decode one video or image."""
    file_memory: Annotated[float, between(0.5, 1e6)] = 4.0
    """Maximum memory to decode one file, in GB (on Linux)."""
    max_pixels: Annotated[float, between(1, 1e10)] = 100e6
    """Maximum pixels (height x width) of an image or a frame."""
    max_refused: Annotated[float, between(0, 1)] = 0.5
    """Fail if a larger share of the files is refused."""


@Parameter(name="*")
@dataclass(frozen=True)
class IngestArguments:
    """All options of an ingest."""

    clips: ClipArguments = ClipArguments()
    images: ImageArguments = ImageArguments()
    splits: SplitArguments = SplitArguments()
    limits: LimitArguments = LimitArguments()

    def clip_options(self, *, crop: str) -> IngestOptions:
        """Return the options of an ingest of videos; `crop` is the decode recipe's."""
        clips = self.clips
        recipe = DecodeRecipe(
            *parse_size(clips.size), clips.frames, clips.stride, clips.windows, clips.fit, clips.jpeg, crop
        )
        cut = Cut(recipe, clips.min_frames, clips.short, clips.background, clips.unlabelled)
        return IngestOptions(cut=cut, **self._shared(test_share=0.2))

    def image_options(self) -> ImageOptions:
        """Return the options of an ingest of images."""
        return ImageOptions(self.images.boxes, **self._shared(test_share=0.3))

    def _shared(self, *, test_share: float) -> dict[str, Any]:
        splits, limits = self.splits, self.limits
        return {
            "val_share": splits.val_share,
            "test_share": test_share if splits.test_share is None else splits.test_share,
            "seed": splits.seed,
            "file_limit_seconds": limits.file_limit,
            "limits": DecodeLimits(pixels=int(limits.max_pixels), memory_bytes=int(limits.file_memory * 1e9)),
            "max_refused_share": limits.max_refused,
        }
