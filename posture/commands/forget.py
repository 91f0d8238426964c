"""`posture forget`: arguments, what the store holds of a video, the question, and what was removed."""

from __future__ import annotations

import sys

from cyclopts import App

from posture.data.store.tables import Store
from posture.display import console
from posture.display.text import counted
from posture.errors import InputError
from posture.retrain.forget import FoundRows, find
from posture.retrain.forget import forget as remove
from posture.retrain.registry import Registry

command = App(
    name="forget", help_epilogue="Example: posture forget VIDEO --store STORE --registry REGISTRY --runs runs"
)


@command.default
def forget(
    video: str, /, *, store: str, registry: str | None = None, runs: str | None = None, yes: bool = False
) -> None:
    """Remove a video, and everything made from it, from a store for good. Mark the models that were trained on it.

    Parameters
    ----------
    video
        Path or s3:// address of the video, its file name, or its id in the store.
    store
        Folder or s3:// prefix of the store.
    registry
        Registry whose versions to mark, and whose pages and predictions of the video to remove.
    runs
        Folder or s3:// prefix of runs whose pages and predictions of the video to remove.
    yes
        Do not ask.
    """
    with console.waiting(f"looking for {video}"):
        forget_video(video, store, registry=registry, runs=runs, yes=yes)
    console.suggest(f"posture show {store}")


def forget_video(video: str, store_uri: str, *, registry: str | None, runs: str | None, yes: bool) -> None:
    """Print what will be removed, ask, and remove it.

    Raises InputError if there is no such video, or no terminal to ask at; Busy while an ingest or a pass is running.
    """
    store = Store(store_uri)
    known = None if registry is None else Registry(registry)
    champion = known and known.champion()
    found = find(
        video,
        store,
        registry=known,
        runs=[place for place in (runs, None if known is None else known.path("runs")) if place],
    )
    _describe(found)
    if not yes:
        if not sys.stdin.isatty():
            raise InputError("this cannot be undone, and there is no terminal to ask at; add --yes to go ahead")
        if input("This cannot be undone. Forget it? [y/N] ").strip().lower() not in ("y", "yes"):
            raise InputError("nothing was removed")
    remove(found, store, registry=known, report=console.out.print)
    versions = ", ".join(f"{name} {number}" for name, number in store.versions().items())
    console.out.print(
        f"{found.video} is forgotten, and will be refused if it is found again. Earlier versions of the tables can no "
        f"longer be read (now {versions}); evaluate runs that are pinned to them with "
        f"posture evaluate RUN --store {store.uri}"
    )
    if champion in found.versions:
        console.out.print(
            f"the champion, {champion}, was trained on it; "
            "posture retrain --from-scratch --force trains one that was not"
        )
    console.out.print(
        "Not removed: the file itself, pages in other places (posture show, explain --out), and what was sent to "
        "Weights & Biases"
    )


def _describe(found: FoundRows) -> None:
    console.out.print(f"{found.video}: {', '.join(found.uris) or 'its row is removed already'}")
    counts = {
        name: len(keys)
        for name, keys in found.keys.items()
        if name not in ("videos", "pictures", "absences", "flows") and keys
    }
    held = [
        counted(count, "box" if name == "boxes" else name.removesuffix("s"), name) for name, count in counts.items()
    ]
    console.out.print(", ".join(held) or "no other rows")
    for title, names in (
        ("trained on it, will be marked", [*found.versions, *found.runs]),
        ("shows it, will be removed", found.pages),
        ("has predictions of it, which will be removed", found.predictions),
    ):
        for name in names:
            console.out.print(f"{title}: {name}")
