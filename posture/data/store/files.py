"""List, read and publish files by uri, in a folder or a bucket, with one interface (obstore)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from posture.errors import Busy, InputError, Unreachable

VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".ts",
    ".m2ts", ".m2t", ".mts", ".vob", ".wmv", ".asf", ".flv", ".f4v", ".3gp", ".3g2", ".mxf", ".ogv", ".ogm", ".dv",
})  # fmt: skip
"""Suffixes of video files in lower case."""

PATIENCE_SECONDS = 60
"""Time that a bucket's server may be away before a command fails."""
MAX_PAUSE_SECONDS = 2
"""Maximum pause between two tries."""
CAUSE = "↳"
"""Start of a line in deltalake's errors that gives the cause of the line before."""


@dataclass(frozen=True)
class File:
    """A file as its folder or bucket lists it. `bytes` is -1 if the size cannot be read."""

    uri: str
    relative: str
    """Path below the listed root, with forward slashes."""
    bytes: int
    modified: float
    """Seconds since 1970."""

    @property
    def name(self) -> str:
        return PurePosixPath(self.relative).name

    @property
    def stem(self) -> str:
        return PurePosixPath(self.relative).stem

    @property
    def suffix(self) -> str:
        """The suffix in lower case, with its dot."""
        return PurePosixPath(self.relative).suffix.lower()


def is_remote(uri: str) -> bool:
    return "://" in uri


def absolute(uri: str | Path) -> str:
    """Return the uri, or the absolute path, because workers run in other folders.

    Raises InputError if a uri contains credentials or has a scheme other than s3.
    """
    _refuse_address(str(uri))
    return str(uri).rstrip("/") if is_remote(str(uri)) else os.path.abspath(os.path.expanduser(str(uri)))


def _refuse_address(uri: str) -> None:
    """Raise InputError for credentials, which every run would record, and for schemes other than s3."""
    scheme, _, rest = uri.partition("://")
    host = rest.partition("/")[0]
    if "@" in host or (":" in host and "@" in rest):  # a secret key may contain a /
        raise InputError(
            f"{scheme}://...@{rest.rpartition('@')[2]}: leave credentials out of the address; they are read from "
            "the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if is_remote(uri) and scheme != "s3":
        raise InputError(f"{uri}: an address must be a folder or begin with s3://")


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])


def open_root(uri: str, *, create: bool = False) -> Any:
    """Return the obstore store whose root is `uri`, a folder or `s3://bucket/prefix`.

    Credentials and endpoint come from AWS_* variables.
    """
    from obstore.store import LocalStore, from_url

    _refuse_address(uri)
    if is_remote(uri):
        allow_http = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
        return from_url(
            uri,
            client_options={"allow_http": allow_http},
            retry_config={
                "max_retries": 1000,
                "retry_timeout": timedelta(seconds=PATIENCE_SECONDS),
                "backoff": {
                    "init_backoff": timedelta(seconds=0.1),
                    "max_backoff": timedelta(seconds=MAX_PAUSE_SECONDS),
                    "base": 2,
                },
            },
        )
    if create:
        os.makedirs(uri, exist_ok=True)
    return LocalStore(uri)


def exists(uri: str) -> bool:
    """Return True if a folder, a file or any object below the prefix exists at `uri`."""
    if not is_remote(uri):
        return os.path.exists(uri)
    import obstore

    root, _, name = uri.rpartition("/")
    with reachable(uri):
        if any(obstore.list(open_root(uri), chunk_size=1)):
            return True
        if root.endswith("/"):  # a bucket, which is empty
            return False
        try:
            obstore.head(open_root(root), name)
        except FileNotFoundError:
            return False
        return True


def read_bytes(uri: str) -> bytes | None:
    """Return the whole file, or None if it does not exist."""
    import obstore

    root, _, name = uri.rpartition("/")
    if not is_remote(uri):
        if not os.path.isfile(uri):
            return None
        with reachable(uri), open(uri, "rb") as file:  # obstore rejects names with line breaks
            return file.read()
    with reachable(uri):
        try:
            return bytes(obstore.get(open_root(root), name).bytes())
        except FileNotFoundError:
            return None


def write_bytes(uri: str, content: bytes | Path) -> None:
    """Write a whole file: `content`, or the contents of the file at that path. A reader sees the old or the new file.

    Raises InputError if it cannot be written: the disk is full, the bucket is gone, the credentials are refused.
    """
    import obstore

    root, _, name = uri.rpartition("/")
    with reachable(uri, "written"):
        obstore.put(open_root(root, create=True), name, content)


def update_bytes(uri: str, change: Callable[[bytes | None], bytes]) -> None:
    """Replace a file by `change(content)` without losing another writer's change. The content is None if there is no
    file.

    In a folder, a lock file beside it, .NAME.lock, keeps other writers out. In a bucket, `change` is called again if
    the file was changed meanwhile. Raises InputError if it cannot be written, and Busy if others write to it for longer
    than PATIENCE_SECONDS.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    if not is_remote(uri):
        folder, _, name = uri.rpartition("/")
        with reachable(uri, "written"), open(f"{folder}/.{name}.lock", "a") as lock:
            while not _locked(lock):
                if time.monotonic() > until:
                    raise Busy(
                        f"{uri}: another process has held {lock.name} for {PATIENCE_SECONDS} s; end it, then try again"
                    )
                time.sleep(0.02)
            write_bytes(uri, change(read_bytes(uri)))
        return
    while not _replaced(uri, change):
        if time.monotonic() > until:
            raise Busy(f"{uri}: other processes kept changing it for {PATIENCE_SECONDS} s; try again")


def _locked(file: Any) -> bool:
    import fcntl

    try:
        # held until the file is closed, or this process is killed
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _replaced(uri: str, change: Callable[[bytes | None], bytes]) -> bool:
    """Return True if the object was replaced, False if another writer was faster."""
    import obstore
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    root, _, name = uri.rpartition("/")
    bucket = open_root(root)
    with reachable(uri, "written"):
        try:
            found = obstore.get(bucket, name)
        except FileNotFoundError:
            found = None
        content = change(None if found is None else bytes(found.bytes()))
        try:
            obstore.put(bucket, name, content, mode="create" if found is None else {"e_tag": found.meta["e_tag"]})
        except (AlreadyExistsError, PreconditionError):
            return False
    return True


def remove_tree(uri: str) -> None:
    """Remove everything below `uri`."""
    import shutil

    import obstore

    if not is_remote(uri):
        shutil.rmtree(uri, ignore_errors=True)
        return
    root = open_root(uri)
    for page in obstore.list(root):
        obstore.delete(root, [entry["path"] for entry in page])


def list_files(root: str, *, suffixes: frozenset[str] = VIDEO_SUFFIXES) -> list[File]:
    """Return the files below `root` with one of `suffixes`, sorted by relative path.

    Raises InputError if the folder, bucket or prefix does not exist.
    """
    files = _list_bucket(root, suffixes) if is_remote(root) else _list_folder(root, suffixes)
    return sorted(files, key=lambda file: file.relative)


def named_file(uri: str) -> File:
    """Return the file at `uri`. Raises InputError if there is none."""
    root, _, name = uri.rpartition("/")
    if not is_remote(uri):
        with reachable(uri):
            status = os.stat(uri)
        return File(uri, name, status.st_size, status.st_mtime)
    import obstore

    with reachable(uri):
        try:
            found = obstore.head(open_root(root), name)
        except FileNotFoundError:
            raise InputError(f"{uri}: no such file") from None
    return File(uri, name, found["size"], found["last_modified"].timestamp())


def _list_folder(root: str, suffixes: frozenset[str]) -> Iterator[File]:
    if not os.path.isdir(root):
        raise InputError(f"{root}: no such folder")
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if PurePosixPath(name).suffix.lower() not in suffixes or name.startswith("."):
                continue
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root).replace(os.sep, "/")
            # no table or page could hold this name: list it escaped; reading it is refused
            if not _is_unicode(path):
                yield File(_escaped(path), _escaped(relative), -1, 0.0)
                continue
            try:
                status = os.stat(path)
                yield File(path, relative, status.st_size if stat.S_ISREG(status.st_mode) else -1, status.st_mtime)
            except OSError:  # a broken link or a lost mount
                yield File(path, relative, -1, 0.0)


def _is_unicode(name: str) -> bool:
    """Return True if a name from the operating system is valid UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(name: str) -> str:
    return os.fsencode(name).decode("utf-8", errors="backslashreplace")


def _list_bucket(root: str, suffixes: frozenset[str]) -> Iterator[File]:
    import obstore

    with reachable(root):
        for page in obstore.list(open_root(root)):
            for entry in page:
                if PurePosixPath(entry["path"]).suffix.lower() in suffixes:
                    yield File(
                        join(root, entry["path"]), entry["path"], entry["size"], entry["last_modified"].timestamp()
                    )


@contextlib.contextmanager
def reachable(uri: str, done: str = "read") -> Iterator[None]:
    """Raise Unreachable, in one line, if storage fails: it does not answer, refuses the credentials, or is full.

    `done` says what was tried, `read` or `written`.
    """
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, OSError) as error:
        hint = " (bucket, AWS_* credentials, AWS_ENDPOINT_URL?)" if is_remote(uri) else ""
        raise Unreachable(f"{uri}: storage cannot be {done}{hint}: {plain(error)}") from None


def plain(error: Exception) -> str:
    """Return a storage error and its causes in one line, without details for its authors."""
    first, *others = re.sub(r"\x1b\[\d*m", "", str(error)).strip().splitlines() or [type(error).__name__]
    return ": ".join([
        first,
        *(line.strip().removeprefix(CAUSE).strip() for line in others if line.strip().startswith(CAUSE)),
    ])


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Give a local path to the file's bytes, a temporary copy if it is in a bucket. Raises OSError."""
    if not is_remote(uri):
        if not os.path.isfile(uri):  # opening a pipe would block forever
            raise OSError("it is missing or not a regular file")
        with open(uri, "rb"):
            yield uri
        return
    import obstore

    root, _, name = uri.rpartition("/")
    with tempfile.NamedTemporaryFile(suffix=PurePosixPath(name).suffix) as copy:
        try:
            for chunk in obstore.get(open_root(root), name).stream():
                copy.write(chunk)
        except Exception as error:
            raise OSError(f"{uri}: {str(error).splitlines()[0]}") from None
        copy.flush()
        yield copy.name


def hash_file(path: str) -> str:
    """Return the 128-bit BLAKE2 hash of a file's content, which is the id of a video."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
