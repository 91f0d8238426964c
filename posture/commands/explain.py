"""`posture explain`: the answer with its evidence, on the terminal, as images and as a page."""

from __future__ import annotations

from posture.data.store.files import absolute, join
from posture.display import console
from posture.runs.explain import explain
from posture.runs.folder import RunFolder
from posture.runs.reports.explanation import folder_name, verdict, write
from posture.runs.tracking import log_images, tracking_mode


def explain_video(
    run: str, video: str, *, start: float | None, class_name: str | None, out: str | None, checkpoint: str
) -> None:
    """Explain what the run at the path `run` takes `video` for; print it, write the files, log the images. Raises
    InputError.
    """
    folder = RunFolder.open(run)
    explanation = explain(folder, absolute(video), start=start, class_name=class_name, which=checkpoint)
    place = absolute(out) if out else folder.path("explain", folder_name(explanation, start))
    sheets = write(explanation, place)
    console.out.print(verdict(explanation))
    console.table("class", "probability", rows=[(name, f"{probability:.4f}") for name, probability in explanation.top])
    if not explanation.evidence.attention:
        console.out.print("the network has no attention blocks: Grad-CAM alone")
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
