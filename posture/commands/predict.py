"""`posture predict`: arguments, progress, the answers as tables, and the exit code."""

# the registry's record of a run is checked when it is read
# pyright: reportArgumentType=false

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from posture.data.store.files import absolute, join
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted, duration
from posture.errors import InputError

command = App(name="predict", help_epilogue="Example: posture predict VIDEO --run runs/NAME --detector runs/DETECTOR")


@command.default
def predict(
    *videos: str,
    run: str | None = None,
    registry: str | None = None,
    detector: str | None = None,
    out: str = "predictions",
    start: Annotated[float, between(0)] = 0.0,
    end: Annotated[float | None, between(0)] = None,
    overlap: Annotated[float, between(0, 0.95)] = 0.5,
    shortest: Annotated[float | None, between(0)] = None,
    tracker: str | None = None,
    fps_cap: Annotated[float | None, between(0.01)] = None,
    max_error: Annotated[float | None, between(0, 1)] = None,
    write: Annotated[Sequence[Literal["segments", "cvat", "label-studio"]], Parameter(consume_multiple=False)] = (),
    no_video: bool = False,
    batch: Annotated[int, between(1)] = 16,
    local: bool = False,
    workers: Annotated[int | None, between(1)] = None,
    seconds: Annotated[float | None, between(0.1)] = None,
    reconnects: Annotated[int | None, between(0)] = None,
    window: bool = False,
) -> None:
    """Say who does what and when in new videos: tables, an annotated video and a page for each. The same command
    continues where it stopped.

    A camera (camera:0, /dev/video0) or the address of a stream (rtsp://, rtmp://, http://, https://) is predicted while
    it runs, until --seconds or Ctrl-C.

    Parameters
    ----------
    videos
        Videos, folders or s3:// prefixes; or one camera or address of a stream.
    run
        Folder of a classifier's run. A detector's run tracks athletes without naming actions.
    registry
        Registry whose champion classifies, instead of --run.
    detector
        Folder of a detector's run. It finds the athletes, who are tracked. Without it the whole frame is classified.
    out
        Folder or s3:// prefix for the answers, a folder for each video.
    start
        Second at which to begin.
    end
        Second at which to end; by default the end of the video.
    overlap
        Share of a window that the next one sees again.
    shortest
        Segments of fewer seconds join a neighbour; by default those under half a window.
    tracker
        Tracker of ultralytics: tracktrack (the default), bytetrack, botsort, ocsort or fasttrack.
    fps_cap
        Look for athletes in at most this many frames per second; their boxes are interpolated between. Clips are cut at
        the rate of training in any case.
    max_error
        Answer "unsure" if confidence on val does not promise that at most this share of answers is wrong, such as 0.05.
    write
        Also write labels to correct and to ingest again: segments (CSV), cvat (CVAT for video 1.1), label-studio.
    no_video
        Do not write the annotated video.
    batch
        Windows per forward pass.
    local
        Predict in this process. Otherwise Ray predicts several videos, one in this process.
    workers
        Number of Ray actors; by default one per GPU, or one per two CPUs.
    seconds
        Read a camera or stream for this long; by default until Ctrl-C.
    reconnects
        Attempts to reconnect before a camera or stream is given up, 5 by default.
    window
        Show a camera or stream with its answers on a page of this machine, whose address is printed. It needs no
        screen: OpenCV's headless build has no windows.
    """
    from posture.predict.files import Outputs, find_videos  # load torch
    from posture.predict.tracker import TRACKERS
    from posture.retrain.open_model import model_parts

    if not videos:
        raise InputError("name a video, a folder or an s3:// prefix: posture predict VIDEO --run runs/NAME")
    if run and registry:
        raise InputError("--run and --registry: give one of them")
    if local and workers is not None:
        raise InputError("--workers is for Ray, and --local predicts in this process; give one of them")
    if not (run or registry or detector):
        raise InputError("give a classifier (--run or --registry), a detector (--detector), or both")
    if tracker is not None and tracker not in TRACKERS:
        raise InputError(f"--tracker {tracker}: choose one of {', '.join(TRACKERS)}")
    if end is not None and end <= start:
        raise InputError(f"--end {end:g}: must be after --start, {start:g}")
    if max_error is not None and not (run or registry):
        raise InputError("--max-error is about a classifier; give --run or --registry")
    options: dict[str, Any] = {
        "overlap": overlap,
        "shortest": shortest,
        "tracker": tracker or TRACKERS[0],
        "fps_cap": fps_cap,
        "batch": batch,
    }
    source = _live_source(videos)
    for_files = {"start": start > 0, "end": end is not None, "write": write, "local": local, "workers": workers}
    for_streams = {"seconds": seconds is not None, "reconnects": reconnects is not None, "window": window}
    refused, kind = (for_streams, "cameras and streams") if source is None else (for_files, "files")
    if given := [name for name, is_given in refused.items() if is_given]:
        raise InputError(f"--{given[0]} is for {kind}")
    jobs = find_videos(videos, out) if source is None else []
    options |= {"start": start, "end": end} if source is None else {}
    with console.waiting("calibrating on val" if max_error is not None else "loading the model"):
        models = model_parts(run or registry, detector=detector, max_error=max_error)
    if source is not None:
        return _live(source, models, out, options, seconds, reconnects, no_video=no_video, window=window)
    outputs = Outputs(not no_video, tuple(write), options)
    is_here = local or len(jobs) == 1
    results = _here(jobs, models, outputs) if is_here else _on_ray(jobs, models, outputs, workers)
    _finish(results, out, asked=len(jobs), labels=tuple(write))


def _live_source(videos: Sequence[str]) -> Any:
    """Return the camera or stream that is named, or None if files are. Raises InputError if it is not alone."""
    from posture.data.decode.live_source import LiveSource

    found = [source for source in map(LiveSource.parse, videos) if source is not None]
    if found and len(videos) > 1:
        raise InputError(f"{found[0].name}: predict a camera or stream by a command of its own")
    return found[0] if found else None


def _live(
    source: Any,
    models: dict[str, Any],
    out: str,
    options: dict[str, Any],
    seconds: float | None,
    reconnects: int | None,
    *,
    no_video: bool,
    window: bool,
) -> None:
    """Predict a camera or stream, and end with the exit code: 1 if it was lost, 130 after Ctrl-C."""
    from posture.display.live_page import LivePage
    from posture.predict.live import live_place, predict_live
    from posture.predict.model import VideoModel
    from posture.predict.page import PAGE, summary

    with console.waiting("loading the model"):
        model = VideoModel(**models)
    place = live_place(source, out)
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(console.interruptible())
        page = stack.enter_context(LivePage()) if window else None
        if page is not None:
            console.out.print(f"look at {page.url}")
        tell = stack.enter_context(console.status(source.name))
        more = {} if reconnects is None else {"reconnects": reconnects}
        shown: dict[str, Any] = {"video": not no_video, "page": page, "on_status": tell, "should_stop": asked.is_set}
        try:
            answer = predict_live(model, source, place, seconds=seconds, **shown, **options, **more)
        except InputError:
            if asked.is_set():  # before the first frame
                raise KeyboardInterrupt from None
            raise
    for note in answer.notes:
        console.out.print(note)
    console.out.print(f"{duration(answer.seconds)}. {summary(answer.segments) or 'No action.'}")
    console.out.print(join(place, PAGE))
    if asked.is_set():
        raise KeyboardInterrupt
    if answer.failure:
        console.out.print(f"{source.name}: {answer.failure}")
        sys.exit(1)


def _here(jobs: list[Any], models: dict[str, Any], outputs: Any) -> list[Any]:
    """Predict in this process, one video after the other."""
    from posture.predict.files import predict_file
    from posture.predict.model import VideoModel

    with console.waiting("loading the model"):
        model = VideoModel(**models)
    results = []
    with console.interruptible() as asked:
        for number, job in enumerate(jobs, 1):
            name = job.uri.rpartition("/")[2]
            label = name if len(jobs) == 1 else f"{name} ({number} of {len(jobs)})"
            with console.progress(label) as advance:
                shown = _with_rate(advance)
                results.append(predict_file(model, job, outputs, progress=shown, should_stop=asked.is_set))
            if asked.is_set():
                break
    return results


def _with_rate(advance: Callable[..., None]) -> Callable[[str, int, int], None]:
    """Return a progress function of step, frames that are done and in total, which shows the frames per second too."""
    began: dict[str, float] = {}

    def show(step: str, done: int, total: int) -> None:
        elapsed = time.monotonic() - began.setdefault(step, time.monotonic())
        advance(done, total, f"{step}, {done / elapsed:.0f} frames/s" if elapsed > 1 else step)

    return show


def _on_ray(jobs: list[Any], models: dict[str, Any], outputs: Any, workers: int | None) -> list[Any]:
    from posture.distributed.predict import predict_videos

    with console.progress("videos") as advance:
        return predict_videos(jobs, models, outputs, workers=workers, progress=advance)


def _finish(results: list[Any], out: str, *, asked: int, labels: tuple[str, ...]) -> None:
    """Print the answers, write the page over all of them, and end with the exit code: 1 if a video could not be read to
    its end, 130 if the command was stopped.
    """
    from posture.predict.index import write_index
    from posture.predict.page import PAGE, summary
    from posture.predict.write_labels import FILES

    rows = [one.video for one in results]
    console.table(
        "video",
        "length",
        "athletes",
        "actions",
        rows=[
            (
                row.video.rpartition("/")[2],
                duration(row.seconds) if row.seconds else "-",
                row.athletes if row.seconds else "-",
                summary(row.segments) if row.seconds else row.verdict or "-",
            )
            for row in rows
        ],
    )
    if done := sum(one.was_done for one in results):
        console.out.print(f"{counted(done, 'video')} predicted by an earlier command with the same arguments")
    for row in rows:
        if row.reason:
            console.out.print(f"{row.video}: {row.reason}")
    for one in results:
        for kind in labels if one.video.seconds else ():
            console.out.print(f"to correct, then to ingest: {join(one.place, FILES[kind])}")
    if len(rows) > 1:
        console.out.print(write_index(rows, absolute(out)))
    elif rows and rows[0].seconds:
        console.out.print(join(results[0].place, PAGE))
    if any(one.is_stopped for one in results) or len(results) < asked:
        console.out.print("stopped; the same command continues")
        raise KeyboardInterrupt
    if any(row.reason for row in rows):
        sys.exit(1)
