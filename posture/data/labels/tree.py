"""The folder that labels of images are read from, and the parsing that several layouts share."""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
import reprlib
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import PurePosixPath

from posture.data.labels.names import SPLIT_NAMES, composed, folded
from posture.data.labels.records import BadLabel, Box
from posture.data.store.files import VIDEO_SUFFIXES, File, absolute, is_remote, join, list_files, reachable, read_bytes
from posture.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp"})
UNREAD_SUFFIXES = frozenset({".tif", ".tiff", ".gif", ".heic", ".heif", ".avif", ".jp2", ".dng"})
"""Images of formats that are not read. They are listed, so that they can be reported."""
TABLE_SUFFIXES = frozenset({".yaml", ".yml", ".json", ".xml", ".mat", ".txt"})
NAMED_SUFFIXES = TABLE_SUFFIXES - {".txt"}
"""Suffixes of label files that may be given in place of their folder."""
LISTED_SUFFIXES = IMAGE_SUFFIXES | UNREAD_SUFFIXES | VIDEO_SUFFIXES | TABLE_SUFFIXES
BEGINNING = 65_536
"""Bytes read from the start of a file to recognise it."""
MAX_NAME_LENGTH = 200
"""Maximum characters of a class name."""


class Tree:
    """The files below a folder or an `s3://` prefix.

    `source` may also be one label file in it; then only that one is read.
    """

    def __init__(self, source: str) -> None:
        source = absolute(source)
        self._beginnings: dict[str, str] = {}
        self.named: str | None = None
        self.root = source
        if PurePosixPath(source).suffix.lower() in NAMED_SUFFIXES:
            self.root, _, self.named = source.rpartition("/")
        self._listed = list_files(self.root, suffixes=LISTED_SUFFIXES)
        if self.named and self.named not in self.files:
            raise InputError(f"{source}: no such file")
        # annotations/instances_train.json: the images are one folder up
        if self.named and not self.images and not self.videos and not is_remote(self.root):
            self.root, _, folder = self.root.rpartition("/")
            self.named = f"{folder}/{self.named}"
            self._listed = list_files(self.root, suffixes=LISTED_SUFFIXES)
            del self.files, self.images, self.videos

    @cached_property
    def files(self) -> dict[str, File]:
        return {file.relative: file for file in self._listed}

    @cached_property
    def images(self) -> list[File]:
        return self._with_suffix(IMAGE_SUFFIXES)

    @cached_property
    def videos(self) -> list[File]:
        return self._with_suffix(VIDEO_SUFFIXES)

    @cached_property
    def unread(self) -> list[File]:
        """Return the images of formats that are not read."""
        return self._with_suffix(UNREAD_SUFFIXES)

    @cached_property
    def _by_path(self) -> dict[str, File]:
        return {folded(file.relative): file for file in self._listed}

    @cached_property
    def _by_name(self) -> dict[str, list[File]]:
        found = defaultdict(list)
        for file in self._listed:
            found[folded(file.name)].append(file)
        return found

    def at(self, path: str) -> File | None:
        """Return the file at that path below the root; letter case and Unicode form are ignored if none is equal."""
        return self.files.get(path) or self._by_path.get(folded(path))

    def ending(self, path: str, suffixes: frozenset[str]) -> list[File]:
        """Return the files with these suffixes whose path ends in `path`.

        Letter case and Unicode form are ignored, unless some files match exactly.
        """
        path = "/" + re.sub(r"^(\.\./)+", "", posixpath.normpath(path.replace("\\", "/"))).lstrip("/")
        found = [
            file
            for file in self._by_name.get(folded(PurePosixPath(path).name), ())
            if file.suffix in suffixes and folded(f"/{file.relative}").endswith(folded(path))
        ]
        return [file for file in found if composed(f"/{file.relative}").endswith(composed(path))] or found

    def images_without(self, used: Iterable[str]) -> list[str]:
        """Return the relative paths of the images that are not in `used`."""
        used = set(used)
        return [file.relative for file in self.images if file.relative not in used]

    def tables(self, *suffixes: str) -> list[str]:
        """Return the relative paths of label files with these suffixes, nearest to the root first; only a named one."""
        names = [self.named] if self.named else sorted(self.files, key=lambda name: (name.count("/"), name))
        return [name for name in names if PurePosixPath(name).suffix.lower() in suffixes]

    def content(self, name: str) -> bytes:
        """Return the bytes of a file. Raises InputError if it cannot be read."""
        content = read_bytes(join(self.root, name))
        if content is None:
            raise InputError(
                f"{join(self.root, name)}: this label file cannot be read; it is a broken link or not a regular file"
            )
        return content

    def contents(self, names: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of many small files, read at the same time."""
        names = list(names)
        with ThreadPoolExecutor(max_workers=16) as pool:
            return dict(zip(names, pool.map(self.content, names), strict=True))

    def text(self, name: str) -> str:
        """Return the text of a file. Raises InputError if it is not UTF-8, UTF-16 or UTF-32."""
        try:
            return decoded(self.content(name))
        except UnicodeDecodeError:
            raise InputError(f"{join(self.root, name)}: the file is not UTF-8 text") from None

    def begins(self, name: str) -> str:
        """Return the first characters of a file, which may hold anything."""
        if name not in self._beginnings:
            uri = join(self.root, name)
            if is_remote(uri):
                content = self.content(name)
            elif not os.path.isfile(uri):  # opening a pipe would block forever
                content = b""
            else:
                with reachable(uri), open(uri, "rb") as file:
                    content = file.read(BEGINNING)
            self._beginnings[name] = decoded(content[:BEGINNING], errors="replace")
        return self._beginnings[name]

    def _with_suffix(self, suffixes: frozenset[str]) -> list[File]:
        return [file for file in self._listed if file.suffix in suffixes]


def decoded(content: bytes, *, errors: str = "strict") -> str:
    """Return a text in UTF-8, UTF-16 or UTF-32 without its byte order mark. Raises UnicodeDecodeError."""
    # despite its name this only looks at the byte order mark and at zeros
    return content.decode(json.detect_encoding(content), errors)


def class_name(text: str | None, where: str) -> str:
    """Return a class name in composed form, with single spaces.

    Raises BadLabel if it is empty, longer than MAX_NAME_LENGTH, or has control characters.
    """
    name = " ".join(composed(text or "").split())
    if not name:
        raise BadLabel(f"{where}: the class has no name")
    if len(name) > MAX_NAME_LENGTH or not name.isprintable():
        raise BadLabel(f"{where}: the class {name[:40]!r} must be one line of at most {MAX_NAME_LENGTH} characters")
    return name


def around(points: Iterable[tuple[float, float]]) -> Box:
    """Return the smallest box around at least one point."""
    x, y = zip(*points, strict=True)
    return min(x), min(y), max(x), max(y)


def split_of(name: str) -> str | None:
    """Return the split that a folder or list is named after: `train2017` -> `train`."""
    return SPLIT_NAMES.get(name.lower().rstrip("0123456789"))


_UCF = re.compile(r"v_(\w+?)_(g\d\d)_c\d\d(?![0-9A-Za-z])")
_FRAME = re.compile(r"(.+?)[_.-]+(?:frame|f)[_.-]?\d+", re.IGNORECASE)
_NUMBER = re.compile(r"(?:frame|image|img)?[_.-]?\d+", re.IGNORECASE)
_COPY = re.compile(r"[_.](?:jpe?g|png|webp|bmp)\.rf\.[0-9A-Za-z]+")


def video_group(path: PurePosixPath) -> str:
    """Return UCF101's group (`v_Archery_g08_c02` -> `Archery_g08`), else the file's stem."""
    match = _UCF.match(path.stem)
    return f"{match[1]}_{match[2]}" if match else path.stem


def still_group(relative: str) -> str:
    """Return the group that an image's name implies, which must stay in one split; empty if the image is its own group.

    Tried in this order: UCF101's group; the video of a frame that is named by it (`match3_frame_0012.jpg`,
    `match3_f12.jpg`); the folder of an image that has only a number for a name, below the folder of its split
    (`images/train/match3/000012.jpg`); the image that Roboflow copied (`jump_jpg.rf.3f2a.jpg`).
    """
    path = PurePosixPath(relative)
    parts = list(path.parts[:-1])
    for index in reversed(range(len(parts))):
        if parts[index].lower() in ("images", "jpegimages"):
            parts = parts[index + 1 :]
            break
    while parts and split_of(parts[0]):
        parts = parts[1:]
    stem = _COPY.sub("", path.stem)
    if match := _UCF.match(stem):
        return f"{match[1]}_{match[2]}"
    if match := _FRAME.fullmatch(stem):
        return "/".join([*parts, match[1]])
    if parts and _NUMBER.fullmatch(stem):
        return "/".join(parts)
    return "/".join([*parts, stem]) if stem != path.stem else ""


def numbers(fields: Iterable[object], where: str) -> list[float]:
    """Return finite numbers. Raises BadLabel naming the first value that is not one."""
    found = []
    for value in fields:
        try:
            number = math.nan if isinstance(value, str) and "_" in value else float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise BadLabel(
                f"{where}: {reprlib.repr(value) if isinstance(value, dict | list) else repr(str(value)[:40])} "
                "is not a number"
            )
        found.append(number)
    return found
