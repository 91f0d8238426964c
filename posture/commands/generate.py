"""`posture generate`: footage of moving athletes, and images with boxes, made by Posture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from posture.data.synthetic.footage import generate as generate_footage
from posture.data.synthetic.images import write_images
from posture.display import console
from posture.display.ranges import between
from posture.display.text import counted

command = App(name="generate", help_epilogue="Example: posture generate FOOTAGE --athletes 60 --images IMAGES")


@command.default
def generate(
    folder: str,
    /,
    *,
    videos: int = 120,
    athletes: int = 20,
    athletes_per_video: Annotated[int, between(1)] = 1,
    seed: int = 0,
    images: Annotated[str | None, Parameter(name=["--images", "--pictures"])] = None,
    every: Annotated[int, between(1)] = 10,
) -> None:
    """Generate footage of moving athletes, and images with boxes. Its eight actions form four pairs that differ only in
    the order of their frames.

    Parameters
    ----------
    folder
        Folder for the videos and their segments.csv. Footage that it holds already is left as it is.
    videos
        Number of videos, with three labelled actions of each athlete.
    athletes
        Number of athletes; a fifth of them is kept for testing. More make a comparison more certain.
    athletes_per_video
        Number of athletes in each video. Several do different actions at the same time, and cross each other.
    seed
        Seed of the athletes, places and motions.
    images
        Also write images to this folder, with exact boxes around athletes and bystanders, in the YOLO layout.
    every
        Write an image of every n-th frame.
    """
    with console.progress("generating videos") as advance:
        path = generate_footage(
            Path(folder),
            videos=videos,
            athletes=athletes,
            athletes_per_video=athletes_per_video,
            seed=seed,
            progress=advance,
        )
    console.out.print(f"{path}: {counted(videos, 'video')} of {counted(athletes, 'athlete')}")
    if images is not None:
        with console.waiting("cutting images"):
            made = write_images(path, Path(images), every=every)
        console.out.print(f"{made}: {'every frame' if every == 1 else f'one of {every} frames'} with its boxes")
    crop = " --crop boxes" * (athletes_per_video > 1)
    places = [f"{path} --store STORE{crop}", *([f"{images} --store STORE"] if images is not None else [])]
    console.suggest(" and ".join(f"posture ingest {place}" for place in places))
