"""Find the file that a label table means: compare names as people see them, and paths as far as both are given."""

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
    """Videos, found by the names that labels give them.

    Names are compared in composed Unicode form (NFC). Letter case is ignored, unless that leaves several files. A name
    with folders matches a file if one of the two paths ends with the other. A bare name matches if only one file has
    it. If all videos are in one folder, or in folders of the splits, the table's folders cannot be checked: then a name
    that only one file has is enough. Of several matches the nearest to the table is taken.
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
        """Return the file that the table at path `table` means by `name`; None if no file matches, or several do."""
        found = self.candidates(name, table, any_suffix=any_suffix, moved=moved)
        return found[0] if len(found) == 1 else None

    def candidates(self, name: str, table: str, *, any_suffix: bool = False, moved: bool = False) -> list[File]:
        """Return every file that may be meant.

        `any_suffix` allows that files were converted to another format, `moved` that they are in other folders.
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
    """Return a name in Unicode's composed form (NFC). macOS and archives may decompose it."""
    return unicodedata.normalize("NFC", name)


def folded(name: str) -> str:
    """Return a name for comparisons that ignore letter case and Unicode form."""
    return composed(composed(name).casefold())


def first_few(names: Iterable[str], most: int = 5) -> str:
    """Return the first names in a sentence: `a, b and 3 more`."""
    names = list(names)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _along(files: list[File], path: PurePosixPath) -> list[File]:
    """Return the files whose path agrees with `path` as far as both go, with most shared folders, then equal case."""
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
    """Return the files of the table's own data set: those that share most folders with it, counted from the root."""

    def shared(file: File) -> int:
        pairs = zip(PurePosixPath(composed(file.relative)).parts[:-1], PurePosixPath(table).parts[:-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(shared, files), default=0)
    return [file for file in files if shared(file) == most]


def _folders(path: PurePosixPath) -> list[str]:
    """Return the folders of a path, the innermost first."""
    return list(reversed(path.parts[:-1]))
