"""Columns of every table of the store, with their units, and keys made from content.

| table | one row per | key |
|---|---|---|
| videos | file that was examined; `ok` means that all its clips are stored | video, uri |
| groups | athlete or source video | group |
| segments | labelled segment of a video | segment |
| clips | decoded window of a segment | clip |
| flows | clip and method | clip, method |
| images | image file, or frame of a video, with boxes or without objects | image |
| boxes | image of `images` | image |
| pictures | examined image file, or video with boxes; `ok` means that its images and boxes are stored | image, uri |
| ingests | ingest that added something or refused a file | ingest |
| absences | segment without an athlete for the detector, which is not searched again | segment, recipe |
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from posture.errors import InputError

SPLITS = ("train", "val", "test")

UNLABELLED = "unlabelled"
"""Label of segments that have none: only pretraining reads them."""

TUBE = "-tube"
"""Suffix of the key of a segment that labels one athlete, not all that the video shows."""

VERDICTS = {
    "ok": "decoded",
    "empty": "the file has no bytes",
    "not_video": "the file is not a video",
    "not_picture": "the file is not an image",
    "no_video_stream": "a container without a video stream",
    "no_frames": "a video stream without frames",
    "no_decoder": "a video codec that cannot be decoded here",
    "bad_times": "time stamps that give no frame rate of a video",
    "truncated": "the file ends before its video or image does",
    "timeout": "the decoder did not finish in time",
    "crashed": "the decoder's process died",
    "failed": "this version of Posture cannot decode the file",
    "too_large": "more pixels than --max-pixels allows",
    "out_of_memory": "decoding takes more than --file-memory allows",
    "unreadable": "the file cannot be read",
    "too_short": "shorter than one clip",
    "duplicate": "the same content as another file",
    "forgotten": "posture forget removed this video; it is not ingested again",
    "missing_video": "a label names a video that is missing",
    "segment_past_end": "a segment starts or ends after its video",
    "no_athlete": "no athlete to cut the clip around",
    "two_sides": "the video shows groups of two splits, so the same frames would be on both sides",
    "missing_picture": "a label names an image that is missing",
    "frame_past_end": "a box belongs to a frame after the video's last one",
    "bad_label": "the labels of an image cannot be read",
    "unknown_class": "a box has a class without a name",
    "box_outside": "a box lies outside its image",
    "size_mismatch": "the boxes were drawn on an image of another size",
}
"""Verdicts on files and labels, and their meaning."""

RETRIED = frozenset({"timeout", "crashed", "unreadable", "too_large", "out_of_memory"})
"""Verdicts that the machine or a limit may have caused: the next ingest tries such files again."""

READER = 2
"""Incremented when files are read in a new way: files that an earlier version refused are then tried once more."""

VIDEOS = pa.schema([
    ("video", pa.string()),  # content hash; empty if the file could not be read
    ("uri", pa.string()),
    ("bytes", pa.int64()),
    ("modified", pa.float64()),  # seconds since 1970
    ("frames", pa.int64()),
    ("fps", pa.float64()),
    ("seconds", pa.float64()),
    ("width", pa.int32()),  # pixels of the video as shown: upright, with square pixels
    ("height", pa.int32()),
    ("codec", pa.string()),
    ("verdict", pa.string()),  # one of VERDICTS
    ("reason", pa.string()),
    # how frames are reached, as data/decode/stream.py names it; null if an earlier version decoded it
    ("decoder", pa.string()),
    # pixels, upright, before the pixel aspect ratio; null if an earlier version decoded it
    ("coded_width", pa.int32()),
    ("coded_height", pa.int32()),
    ("reader", pa.int32()),  # READER that refused the file; null if it was not refused
])

GROUPS = pa.schema([("group", pa.string()), ("split", pa.string())])

SEGMENTS = pa.schema([
    ("segment", pa.string()),
    ("video", pa.string()),
    ("start", pa.float64()),  # seconds
    ("end", pa.float64()),  # seconds
    ("label", pa.string()),
    ("group", pa.string()),
    ("split", pa.string()),  # one of SPLITS; empty until the ingest that decoded it has ended
    # the labelled athlete's tube, if the label describes one athlete; null in tables of earlier versions
    ("athlete", pa.string()),
])

CLIPS = pa.schema([
    ("clip", pa.string()),
    ("segment", pa.string()),
    ("recipe", pa.string()),
    ("start", pa.float64()),  # seconds, of the first frame
    ("frames", pa.int32()),  # T
    ("height", pa.int32()),  # H, pixels
    ("width", pa.int32()),  # W, pixels
    ("offsets", pa.list_(pa.int32())),  # where each JPEG frame starts in `pixels`; empty for raw frames
    ("pixels", pa.binary()),  # uint8 T x H x W x 3, or JPEG frames one after the other
])

FLOWS = pa.schema([
    ("clip", pa.string()),
    ("method", pa.string()),  # one of optical_flow.METHODS
    ("bound", pa.float32()),  # pixels of the stored frame; displacements are clipped to +-bound
    ("frames", pa.int32()),  # T - 1, one less than the clip has
    ("height", pa.int32()),  # H, pixels
    ("width", pa.int32()),  # W, pixels
    ("vectors", pa.binary()),  # uint8 (T - 1) x H x W x 2, dx then dy, encoded as in data/decode/optical_flow.py
])

IMAGES = pa.schema([
    ("image", pa.string()),  # content hash of a file; frame_id of a frame
    ("uri", pa.string()),  # uri of a file; video#t=seconds of a frame
    ("height", pa.int32()),  # pixels
    ("width", pa.int32()),  # pixels
    ("bytes", pa.int64()),  # of `pixels`
    ("pixels", pa.binary()),  # the file as it was (JPEG, PNG, WebP, BMP), upright; JPEG for a frame
    ("decoder", pa.string()),  # for a frame, as in `videos`; null for an image file
    # for a frame, pixels before the pixel aspect ratio, on which boxes may have been drawn; else null
    ("coded_height", pa.int32()),
    ("coded_width", pa.int32()),
])

BOXES = pa.schema([
    ("image", pa.string()),
    ("group", pa.string()),
    ("split", pa.string()),  # one of SPLITS; empty until the ingest that added it has ended
    # x1, y1, x2, y2 each, in pixels of the image, clipped to it; empty if it shows none
    ("boxes", pa.list_(pa.list_(pa.float32()))),
    ("labels", pa.list_(pa.string())),  # one per box
    ("tubes", pa.list_(pa.string())),  # for each box, the athlete's tube in a video; empty if there is none
    ("time", pa.float64()),  # seconds from the video's first frame; NaN for image files
    # ignore regions like `boxes`: crowds and difficult objects; null in tables of earlier versions
    ("ignored", pa.list_(pa.list_(pa.float32()))),
    ("ignored_labels", pa.list_(pa.string())),  # one per region
])

PICTURES = pa.schema([
    ("image", pa.string()),  # content hash; empty if the file could not be read
    ("uri", pa.string()),
    ("bytes", pa.int64()),
    ("modified", pa.float64()),  # seconds since 1970
    ("verdict", pa.string()),  # one of VERDICTS
    ("reason", pa.string()),
    ("reader", pa.int32()),  # READER that refused the file; null if it was not refused
])

INGESTS = pa.schema([("ingest", pa.string()), ("time", pa.float64()), ("report", pa.string())])

ABSENCES = pa.schema([
    ("segment", pa.string()),
    ("recipe", pa.string()),
    ("verdict", pa.string()),
    ("reason", pa.string()),
    ("video", pa.string()),  # null in rows of earlier versions
])
NULLABLE = {"absences": ("video",)}
"""Ids that may be null, by table."""


def is_final(row: dict[str, Any]) -> bool:
    """Return True if a row of `videos` or `pictures` refuses its file and this version need not try it again."""
    return row["verdict"] not in ("ok", "duplicate", *RETRIED) and row["reader"] == READER


TABLES = {
    "videos": VIDEOS,
    "groups": GROUPS,
    "segments": SEGMENTS,
    "clips": CLIPS,
    "flows": FLOWS,
    "images": IMAGES,
    "boxes": BOXES,
    "pictures": PICTURES,
    "ingests": INGESTS,
    "absences": ABSENCES,
}


WRITTEN = re.compile(
    r"[0-9]{1,5}x[0-9]{1,5}-(stretch|crop|pad)-f[0-9]{1,5}-s[0-9]{1,5}-w[0-9]{1,5}-(raw|jpeg[0-9]{1,3})"
    r"(-(boxes|detector-[0-9a-f]{1,32}-)[0-9.e+-]{1,12}(-centred)?)?"
)
"""A decode recipe as a store names it."""
CENTRED = "-centred"
"""End of a crop's name if the athlete is in its middle; earlier versions shifted crops into the image."""


@dataclass(frozen=True)
class DecodeRecipe:
    """How a segment becomes stored clips: larger and longer than a training clip, so that training can vary it."""

    height: int = 128
    width: int = 171
    frames: int = 32
    stride: int = 2
    """Store every `stride`-th frame of the file."""
    windows: int = 1
    """Clips per segment, spread evenly over it."""
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    """How frames of another aspect ratio become height x width."""
    jpeg: int = 0
    """JPEG quality 1..100 of stored frames; 0 stores raw frames."""
    crop: str = ""
    """Source of the crop, as `crop_name` writes it; empty for whole frames."""

    def __str__(self) -> str:
        frames = f"jpeg{self.jpeg}" if self.jpeg else "raw"
        crop = f"-{self.crop}" if self.crop else ""
        return f"{self.height}x{self.width}-{self.fit}-f{self.frames}-s{self.stride}-w{self.windows}-{frames}{crop}"

    @classmethod
    def parse(cls, text: str) -> DecodeRecipe:
        """Return the recipe that `str` wrote. Raises InputError if the text is not one."""
        match = WRITTEN.fullmatch(text)
        if match is None:
            raise InputError(f"{text[:100]!r} is not a decode recipe; one looks like {cls()}")
        size, fit, frames, stride, windows, pixels, *crop = text.split("-", 6)
        height, width = size.split("x")
        return cls(
            int(height),
            int(width),
            int(frames[1:]),
            int(stride[1:]),
            int(windows[1:]),
            fit,  # type: ignore[arg-type]
            int(pixels.removeprefix("jpeg")) if pixels != "raw" else 0,
            *crop,
        )

    @property
    def margin(self) -> float:
        """Return the margin around the athlete on each side of a cropped clip, as a share of the athlete's box."""
        return float(self.crop.removesuffix(CENTRED).removeprefix("boxes").rpartition("-")[2])

    @property
    def centred(self) -> bool:
        """Return True if the athlete is in the middle of a crop, also at the edge of the image."""
        return self.crop.endswith(CENTRED)

    @property
    def searched(self) -> bool:
        """Return True if a detector finds the athlete."""
        return self.crop.startswith("detector-")

    @property
    def clip_bytes(self) -> int:
        """Return the bytes of a stored clip before compression; for JPEG frames an estimate (about 1/12 of raw)."""
        raw = self.frames * self.height * self.width * 3
        return raw // 12 if self.jpeg else raw


def crop_name(margin: float, *, detector: str = "", centred: bool = True) -> str:
    """Return `boxes0.2-centred` for annotated boxes, `detector-1f2e3d4c-0.2-centred` for a detector with weights of
    that hash. Stores of earlier versions have crops that are not centred.
    """
    share = f"{round(margin, 4):g}{CENTRED * centred}"
    return f"detector-{detector}-{share}" if detector else f"boxes{share}"


def content_id(*parts: object) -> str:
    """Return a 128-bit key of the values in `parts`, as 32 hexadecimal digits."""
    return hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=16).hexdigest()


def segment_id(video: str, start_seconds: float, end_seconds: float | None, athlete: str = "") -> str:
    """Return the key of a segment. It ends with the video if `end_seconds` is None.

    The label is not part of the key, because it may be corrected. If an `athlete` is labelled, two may be seen at once:
    the key then includes the athlete and ends in `TUBE`.
    """
    end = "end" if end_seconds is None else round(end_seconds * 1000)
    stretch = ("segment", video, round(start_seconds * 1000), end)
    return content_id(*stretch, athlete) + TUBE if athlete else content_id(*stretch)


def clip_id(segment: str, recipe: DecodeRecipe | str, window: int) -> str:
    """Return the key of a decoded window of a segment."""
    return content_id("clip", segment, recipe, window)


def frame_id(video: str, frame: int) -> str:
    """Return the key of frame `frame`, from 0, of the video with the content hash `video`. It begins with that hash."""
    return f"{video}-{frame:07d}"
