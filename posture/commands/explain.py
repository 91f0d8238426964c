"""`posture explain`: a prediction with its evidence, on the terminal, as images and as a page."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import App, Parameter

from posture.data.store.files import absolute, join
from posture.display import console
from posture.runs.folder import RunFolder
from posture.runs.tracking import log_images, tracking_mode

command = App(name="explain", help_epilogue="Example: posture explain runs/NAME VIDEO --start 3.5 --class Surfing")


@command.default
def explain(
    run: str,
    video: str,
    /,
    *,
    start: float | None = None,
    class_name: Annotated[str | None, Parameter(name="--class")] = None,
    out: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
) -> None:
    """Show where and when a run looks in a video: probabilities, attention in space and time, and Grad-CAM, as images
    and as a page.

    Parameters
    ----------
    run
        Folder of the run.
    video
        Path or s3:// address of a video.
    start
        Second at which the clip begins; by default the clip in the middle of the video.
    class_name
        Explain this class; by default the most probable one.
    out
        Folder or s3:// prefix for the files; by default a folder below the run's.
    checkpoint
        The checkpoint that is best on val, or the last one.
    """
    with console.waiting(f"looking at {video}"):
        explain_video(run, video, start=start, class_name=class_name, out=out, checkpoint=checkpoint)
    console.suggest("--class NAME explains another class, --start SECONDS another clip")


def explain_video(
    run: str, video: str, *, start: float | None, class_name: str | None, out: str | None, checkpoint: str
) -> None:
    """Explain what the run in the folder `run` predicts for `video`. Print it, write the files and log the images.

    Raises InputError.
    """
    from posture.runs.explain import explain as explain_clip  # loads torch
    from posture.runs.reports.explanation import folder_name, verdict, write

    folder = RunFolder.open(run)
    explanation = explain_clip(folder, absolute(video), start=start, class_name=class_name, which=checkpoint)
    place = absolute(out) if out else folder.path("explain", folder_name(explanation, start))
    sheets = write(explanation, place)
    console.out.print(verdict(explanation))
    console.table("class", "probability", rows=[(name, f"{probability:.4f}") for name, probability in explanation.top])
    if not explanation.evidence.attention:
        console.out.print("the network has no attention blocks; only Grad-CAM is shown")
    if explanation.is_level:
        console.out.print("attention over time is nearly level: no frame stands out")
    elif keys := explanation.key_frames:
        console.out.print("key frames at " + ", ".join(f"{explanation.window.seconds[key]:.2f} s" for key in keys))
    mode, why = tracking_mode(explanation.run.tracking.mode)
    note = log_images(
        sheets,
        title=f"{explanation.run.name}: {folder_name(explanation, start)}",
        folder=folder.uri,
        config=explanation.run.model_dump(mode="json"),
    )
    console.out.print(note or f"Weights & Biases: {mode}, {why}")
    console.out.print(f"{join(place, 'explain.html')}")
