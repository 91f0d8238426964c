"""Decode in a child process that can be killed: a decoder may hang in native code and ignore every other signal.

The child is `python -m posture.data.decode.sandbox FD LIMITS`. Over one socket it receives a job as JSON. It answers
with messages of one JSON header each, followed by the clip's bytes if the header says so; `{"kind": "end"}` ends a job.
No pickles.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from typing import Any

from posture.data.decode.check_image import EncodedImage, read_image
from posture.data.decode.cut import Clip, Cut
from posture.data.decode.decode_file import cut_file, frames_to_search, read_frames
from posture.data.decode.limits import DecodeLimits, ran_out_of_memory, tell_work
from posture.data.decode.live_frames import live_frames
from posture.data.decode.live_source import LiveSource
from posture.data.decode.sound import extract_sound
from posture.data.decode.stream_frames import stream_frames
from posture.data.decode.tracks import tubes_from_json, tubes_to_json
from posture.data.labels.records import Label, Tube
from posture.data.store.schema import DecodeRecipe
from posture.errors import Unreadable

SILENT_SECONDS = 60.0
"""A decoder of a live source that says nothing for this long hangs; if no frame comes, it says so."""


class Sandbox:
    """A decoder process, started when first needed and again after it was killed. Close it, or use it in a `with`
    block.

    `limits` bounds its pixels and memory. Each call bounds the time for its file.
    """

    def __init__(self, limits: DecodeLimits = DecodeLimits()) -> None:  # noqa: B008
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Connection | None = None

    def cut(
        self,
        path: str,
        video: str,
        labels: Sequence[Label],
        cut: Cut,
        *,
        stored: Sequence[str] = (),
        tubes: Sequence[Tube] = (),
        limit_seconds: float,
    ) -> Iterator[dict[str, Any] | Clip]:
        """Yield what `decode_file.cut_file` yields in the child.

        Raises Unreadable, also with the verdicts `timeout`, `crashed`, `out_of_memory` and `failed`. `limit_seconds`
        bounds the time that the caller waits for the whole file, not the time it spends on the clips.
        """
        return self._answers(_job(path, video, labels, cut, stored) | {"tubes": tubes_to_json(tubes)}, limit_seconds)

    def search(
        self,
        path: str,
        video: str,
        labels: Sequence[Label],
        cut: Cut,
        *,
        stored: Sequence[str] = (),
        longest: int,
        limit_seconds: float,
    ) -> Iterator[dict[str, Any] | Clip]:
        """Yield what `decode_file.frames_to_search` yields in the child. Raises Unreadable as `cut` does."""
        return self._answers(_job(path, video, labels, cut, stored) | {"longest": longest}, limit_seconds)

    def frames(self, path: str, frames: Sequence[int], *, limit_seconds: float) -> Iterator[dict[str, Any] | Clip]:
        """Yield what `decode_file.read_frames` yields in the child. Raises Unreadable as `cut` does."""
        return self._answers({"path": path, "frames": list(frames)}, limit_seconds)

    def stream(
        self,
        path: str,
        *,
        recipe: DecodeRecipe | None,
        longest: int | None,
        fps_cap: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        limit_seconds: float,
    ) -> Generator[dict[str, Any] | Clip]:
        """Yield what `stream_frames.stream_frames` yields in the child. Raises Unreadable as `cut` does.

        `limit_seconds` bounds how long the child may decode nothing, not the time for the whole file.
        """
        options = {"longest": longest, "fps_cap": fps_cap, "start": start, "end": end}
        job = {"stream": path, "recipe": None if recipe is None else asdict(recipe), "options": options}
        return self._answers(job, limit_seconds, is_endless=True)

    def live(
        self, source: LiveSource, *, recipe: DecodeRecipe | None, **options: Any
    ) -> Iterator[dict[str, Any] | Clip]:
        """Yield what `live_frames.live_frames` yields in the child. Raises Unreadable as `cut` does."""
        job = {"live": asdict(source), "recipe": None if recipe is None else asdict(recipe), "options": options}
        return self._answers(job, SILENT_SECONDS, is_endless=True)

    def sound(
        self, path: str, target: str, *, start: float = 0.0, end: float | None = None, limit_seconds: float
    ) -> dict[str, Any]:
        """Return what `sound.extract_sound` yields in the child. Raises Unreadable as `stream` does."""
        job = {"sound": path, "target": target, "options": {"start": start, "end": end}}
        (answer,) = self._answers(job, limit_seconds, is_endless=True)
        assert isinstance(answer, dict)
        return answer

    def image(self, path: str, content_hash: str, *, limit_seconds: float) -> EncodedImage:
        """Return what `check_image.read_image` returns in the child. Raises Unreadable as `cut` does."""
        (clip,) = self._answers({"image": path, "content": content_hash}, limit_seconds)
        assert isinstance(clip, Clip)
        return EncodedImage(bytes(clip.pixels), **clip.row)

    def _answers(
        self, job: dict[str, Any], limit_seconds: float, *, is_endless: bool = False
    ) -> Generator[dict[str, Any] | Clip]:
        """Yield the child's answers. `limit_seconds` bounds the wait for all of them, or for each if `is_endless`."""
        channel = self.start()
        left = limit_seconds

        def received() -> bytes:
            nonlocal left
            began = time.monotonic()
            if not channel.poll(max(0.0, left)):
                raise TimeoutError
            # the caller's work on an answer, such as finding athletes, does not count
            left = limit_seconds if is_endless else left - (time.monotonic() - began)
            return channel.recv_bytes()

        try:
            channel.send_bytes(json.dumps(job).encode())
            while True:
                message = json.loads(received())
                if message["kind"] == "working":
                    continue
                if message["kind"] == "end":
                    return
                if message["kind"] == "unreadable":
                    if message["verdict"] == "out_of_memory":
                        self.close()  # its memory may be inconsistent
                    raise Unreadable(message["verdict"], message["reason"])
                yield Clip(message["row"], received()) if message["kind"] == "clip" else message
        except TimeoutError:
            self.close()
            what = "nothing was decoded for" if is_endless else "not decoded within"
            raise Unreadable("timeout", f"{what} {limit_seconds:g} s (--file-limit)") from None
        except (EOFError, OSError) as error:
            self.close()
            raise Unreadable("crashed", f"the decoder's process died: {type(error).__name__}") from None
        except GeneratorExit:  # the caller stopped halfway, and the child may still be sending
            if channel is self._channel:  # a later job may have another child
                self.close()
            raise

    def close(self) -> None:
        """Kill the child, even if it hangs."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = None

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def start(self) -> Connection:
        """Start the child unless it runs, and return the channel to it. The child ends with the calling thread."""
        if self._process is not None and self._process.poll() is None and self._channel is not None:
            return self._channel
        self.close()
        ours, theirs = socket.socketpair()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OMP_NUM_THREADS": "1",
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(self.limits.pixels),
        }
        command = [
            sys.executable,
            "-m",
            "posture.data.decode.sandbox",
            str(theirs.fileno()),
            json.dumps(asdict(self.limits)),
        ]
        with theirs:
            self._process = subprocess.Popen(
                command,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C in a terminal is for the parent, which may go on for a while
            )
        self._channel = Connection(ours.detach())
        return self._channel


_kept: Sandbox | None = None


def sandbox_with(limits: DecodeLimits) -> Sandbox:
    """Return this process's own decoder, kept from task to task while the limits stay the same."""
    global _kept
    if _kept is not None and _kept.limits != limits:
        _kept.close()
        _kept = None
    _kept = _kept or Sandbox(limits)
    return _kept


def _job(path: str, video: str, labels: Sequence[Label], cut: Cut, stored: Sequence[str]) -> dict[str, Any]:
    return {
        "path": path,
        "video": video,
        "labels": [asdict(label) for label in labels],
        "cut": asdict(cut),
        "stored": list(stored),
    }


def _serve(channel: Connection, limits: DecodeLimits) -> None:
    """Answer jobs until the parent has ended."""
    limits.apply()
    tell_work(lambda: channel.send_bytes(b'{"kind": "working"}'))
    while True:
        try:
            job = json.loads(channel.recv_bytes())
        except EOFError:
            return
        ran_out_of_memory()  # forget failures of the job before
        try:
            for item in _items(job):
                if isinstance(item, Clip):
                    channel.send_bytes(json.dumps({"kind": "clip", "row": item.row}).encode())
                    channel.send_bytes(item.pixels)
                else:
                    channel.send_bytes(json.dumps(item).encode())
            answer = {"kind": "end"}
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:  # one odd file must not stop the others; its verdict says what happened
            verdict, reason = _verdict(error, limits)
            answer = {"kind": "unreadable", "verdict": verdict, "reason": reason}
        channel.send_bytes(json.dumps(answer).encode())


def _verdict(error: Exception, limits: DecodeLimits) -> tuple[str, str]:
    """Return the verdict and reason of a file that raised `error`."""
    causes: list[BaseException] = [error]
    while causes[-1].__context__ is not None:
        causes.append(causes[-1].__context__)
    if ran_out_of_memory() or any(isinstance(cause, MemoryError) for cause in causes):
        return ("out_of_memory", f"decoding needs more than {limits.memory_bytes / 1e9:g} GB of memory (--file-memory)")
    if isinstance(error, Unreadable):
        return error.verdict, str(error)
    return (
        "failed",
        (
            f"{type(error).__name__}: {' '.join(str(error).split())[:300]}; this version of Posture does not try it "
            "again"
        ),
    )


def _items(job: dict[str, Any]) -> Iterator[dict[str, Any] | Clip]:
    if "image" in job:
        encoded = read_image(job["image"], job["content"])
        return iter([Clip({"height": encoded.height, "width": encoded.width}, encoded.pixels)])
    if "sound" in job:
        return extract_sound(job["sound"], job["target"], **job["options"])
    if "stream" in job or "live" in job:
        recipe = None if job["recipe"] is None else DecodeRecipe(**job["recipe"])
        if "live" in job:
            return live_frames(LiveSource(**job["live"]), recipe=recipe, **job["options"])
        return stream_frames(job["stream"], recipe=recipe, **job["options"])
    if "frames" in job:
        return read_frames(job["path"], job["frames"])
    cut = Cut(**job["cut"] | {"recipe": DecodeRecipe(**job["cut"]["recipe"])})
    of_file = (job["path"], job["video"], [Label(**label) for label in job["labels"]], cut)
    stored = frozenset(job["stored"])
    if "longest" in job:
        return frames_to_search(*of_file, stored=stored, longest=job["longest"])
    return cut_file(*of_file, stored=stored, tubes=tubes_from_json(job["tubes"]))


def _die_with_parent() -> None:
    """Let the kernel (Linux) kill this process when its parent ends, even while a decoder hangs."""
    import contextlib
    import ctypes
    import signal

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    _die_with_parent()
    _serve(Connection(int(sys.argv[1])), DecodeLimits(**json.loads(sys.argv[2])))
