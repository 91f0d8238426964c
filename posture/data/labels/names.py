"""Which file a table of labels means: names compared as people see them, identity by the path as far as it is given."""

from __future__ import annotations

import itertools
import posixpath
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from posture.data.store.files import VIDEO_SUFFIXES, File

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


class VideoNames:
    """Videos as labels name them.

    Unicode is compared normalised (NFC) and case is ignored, unless that leaves several files. A name with folders is
    that of a file if one of the two paths ends with the other; a bare name, if one file alone has it. If all videos lie
    together, in one folder or in folders of the splits, the folders in the table cannot be checked, and a name that one
    file alone has is enough. Of several files, the nearest to the table are meant.
    """

    def __init__(self, videos: list[File]) -> None:
        self._by_path: dict[str, list[File]] = defaultdict(list)
        self._by_stem: dict[str, list[File]] = defaultdict(list)
        for file in videos:
            self._by_path[composed(file.relative)].append(file)
            self._by_stem[PurePosixPath(composed(file.relative)).stem.casefold()].append(file)
        self.count = len(videos)
        self._asked: dict[tuple[str, str, bool, bool], list[File]] = {}
        folders = {PurePosixPath(file.relative).parent for file in videos}
        self._together = (
            len({"/".join(part for part in folder.parts if part.lower() not in SPLIT_NAMES) for folder in folders}) == 1
        )

    def find(self, name: str, table: str, *, any_suffix: bool = False, moved: bool = False) -> File | None:
        """The file that the table at the path `table` means by `name`; None if there is none, or there are several."""
        found = self.candidates(name, table, any_suffix=any_suffix, moved=moved)
        return found[0] if len(found) == 1 else None

    def candidates(self, name: str, table: str, *, any_suffix: bool = False, moved: bool = False) -> list[File]:
        """Every file that may be meant. `any_suffix`: files may have been converted since. `moved`: so may their
        folders have been.
        """
        asked = name, table, any_suffix, moved
        if asked not in self._asked:  # a video has many rows
            self._asked[asked] = self._candidates(*asked)
        return self._asked[asked]

    def _candidates(self, name: str, table: str, any_suffix: bool, moved: bool) -> list[File]:
        name = composed(name).strip()
        if name in self._by_path:  # a name may contain a backslash
            return self._by_path[name]
        name = name.replace("\\", "/")
        if not name:
            return []
        for path in (name, posixpath.normpath(posixpath.join(posixpath.dirname(composed(table)), name))):
            if path in self._by_path:
                return self._by_path[path]
        path = PurePosixPath(posixpath.normpath(name))
        has_suffix = path.suffix.lower() in VIDEO_SUFFIXES
        named = self._by_stem.get((path.stem if has_suffix else path.name).casefold(), [])
        exact = [file for file in named if has_suffix and file.suffix == path.suffix.lower()]
        if has_suffix and not any_suffix:
            named = exact
        elif exact:
            named = _along(exact, path) or named
        return _nearest(_along(named, path), composed(table)) or (
            named if len(named) == 1 and (self._together or moved) else []
        )


def composed(name: str) -> str:
    """A name in Unicode's composed form: macOS and archives may give the same name in another."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """What two names have in common that differ in letter case or Unicode form alone."""
    return composed(composed(name).casefold())


def first_few(names: Iterable[str], most: int = 5) -> str:
    """Return the first names in a sentence: `a, b and 3 more`."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _along(files: list[File], path: PurePosixPath) -> list[File]:
    """Those whose path agrees with `path` as far as both go; the closest, and those that agree in case if any does."""
    wanted = _folders(path)
    agreeing: dict[tuple[int, bool], list[File]] = defaultdict(list)
    for file in files:
        own = _folders(PurePosixPath(composed(file.relative)))
        shared = min(len(wanted), len(own))
        if [part.casefold() for part in own[:shared]] == [part.casefold() for part in wanted[:shared]]:
            agreeing[
                shared, (own[:shared], PurePosixPath(composed(file.relative)).stem) == (wanted[:shared], path.stem)
            ].append(file)
    return agreeing[max(agreeing)] if agreeing else []


def _nearest(files: list[File], table: str) -> list[File]:
    """Those in the table's own data set: with most folders from the root on in common with it."""

    def shared(file: File) -> int:
        pairs = zip(PurePosixPath(composed(file.relative)).parts[:-1], PurePosixPath(table).parts[:-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(shared, files), default=0)
    return [file for file in files if shared(file) == most]


def _folders(path: PurePosixPath) -> list[str]:
    """From the innermost outwards."""
    return list(reversed(path.parts[:-1]))
